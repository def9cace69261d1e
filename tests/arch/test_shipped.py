"""The experiments that come with orch start recipes the trainer has, on as many ranks as a table is written for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.core.overrides import load
from trainer import recipes

FOLDER = Path(__file__).parents[2] / "orchestrator" / "experiments"


@pytest.mark.parametrize("profile", [None, "sandbox"])
@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_starts_a_recipe_as_it_was_written(file: Path, profile: str | None) -> None:
    experiment = load(file.read_bytes(), file.stem, profile=profile)
    started = re.fullmatch(
        r"torchrun \$ORCH_TORCHRUN_ARGS -m trainer (\S+) --data \$ORCH_DATA_DIR/(\w+)(?: --scale (\w+))?",
        experiment.run,
    )
    assert started is not None
    name, mount, scale = started.groups(recipes.FULL)
    assert (scale, set(experiment.data)) == (profile or recipes.FULL, {mount})
    assert experiment.procs_per_node is not None
    assert recipes.find(name, scale, experiment.num_nodes * experiment.procs_per_node).rule == ""
