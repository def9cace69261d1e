"""`orch schema`: the JSON Schema of experiment files, for editors that complete and check while one types."""

from __future__ import annotations

import click

from orchestrator.cli.faults import AllFaults


@click.command(cls=AllFaults)
def command() -> None:
    """Print the JSON Schema of experiment files.

    \b
    orch schema > experiment.schema.json
    # yaml-language-server: $schema=experiment.schema.json       first line of an experiment file
    """
    from orchestrator.core.parse import json_schema
    from orchestrator.report.json import dumps

    click.echo(dumps(json_schema()))
