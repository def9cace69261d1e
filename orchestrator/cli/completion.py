"""`orch completion`: the script that makes a shell complete commands, options, runs and experiments."""

from __future__ import annotations

import click

from orchestrator.cli.faults import AllFaults

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=AllFaults)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: eval "$(orch completion bash)"          in ~/.bashrc
    zsh:  eval "$(orch completion zsh)"           in ~/.zshrc, after compinit
    fish: orch completion fish > ~/.config/fish/completions/orch.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"click has no completion for {shell}")
    click.echo(found(ctx.find_root().command, {}, "orch", "_ORCH_COMPLETE").source())
