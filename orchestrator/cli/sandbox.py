"""`orch sandbox`: AWS on this machine: up, down, what it holds, and the disturbances that runs must live through."""

from __future__ import annotations

import shlex
from typing import Any

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import Commands
from orchestrator.cli.options import json_option
from orchestrator.core.units import counted
from orchestrator.errors import BadInput
from orchestrator.sandbox.disturbances import KINDS, LASTING, NEXT

# What a shell may still hold of a real account, and would be preferred to or mixed with the sandbox's keys.
UNSET = ("AWS_PROFILE", "AWS_SESSION_TOKEN")
_SAID = {
    "partition": "is cut off: its sshd and its AWS calls hang",
    "hang": "has its training stopped",
    "freeze": "hangs as a whole",
    "slow": "has a training that gets little time",
    "stop-sshd": "has no sshd",
    "crash": "has its training killed",
    "kill-tmux": "has its tmux server killed",
    "reboot": "reboots",
}
_seconds_option = click.option(
    "--seconds", type=click.FloatRange(min=0), metavar="N", help="Undo it by itself after so long."
)
_heal_option = click.option("--heal", is_flag=True, help="Undo it now.")


@click.group(cls=Commands, name="sandbox")
def command() -> None:
    """AWS on this machine: EC2, S3 and what else orch uses, on loopback, with a real host for every instance.

    Nothing in it costs anything; `orch launch --cloud sandbox` starts it by itself.
    """


@command.command()
@json_option
def up(as_json: bool) -> None:
    """Start the sandbox; when it is up already, do nothing."""
    from orchestrator.sandbox import control

    home = open_home()
    settings = control.up(home.path, on_progress=lambda line: click.echo(line, err=True))
    if as_json:
        _print(control.status(home.path))
        return
    click.echo(f"the sandbox is up at {settings.endpoint_url}")
    click.echo('any AWS client can talk to it: eval "$(orch sandbox env)"')


@command.command()
@json_option
def down(as_json: bool) -> None:
    """End the sandbox: every host and process of it. Reports of runs stay in $ORCH_HOME."""
    from orchestrator.sandbox import control

    home = open_home()
    control.down(home.path)
    if as_json:
        _print(control.status(home.path))
    else:
        click.echo("the sandbox is down")


@command.command()
@json_option
def status(as_json: bool) -> None:
    """Show the endpoint, and the hosts with their addresses and processes."""
    from orchestrator.sandbox import control

    value = control.status(open_home().path)
    if as_json:
        _print(value)
        return
    if not value.get("up"):
        click.echo("the sandbox is not up; `orch sandbox up` starts it")
        return
    click.echo(f"up at {value['endpoint']}, {counted(len(value['hosts']), 'host')}")
    disturbed = {item["instance_id"]: item["disturbances"] for item in value.get("instances", ())}
    for host in value["hosts"]:
        click.echo(
            f"{host['instance_id']}  {host['address']:<15}  {host.get('state', ''):<13}  {len(host['pids'])} processes"
            + "".join(f"  {kind}" for kind in disturbed.get(host["instance_id"], ()))
        )


@command.command()
@json_option
def env(as_json: bool) -> None:
    """Print the exports with which any AWS client talks to the sandbox: eval "$(orch sandbox env)"."""
    from orchestrator.sandbox import control

    variables = control.env(open_home().path)
    if as_json:
        _print(variables)
        return
    unset = [name for name in UNSET if name not in variables]
    click.echo(f"unset {' '.join(unset)}" if unset else "")
    for name, value in variables.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@command.command()
@click.argument("instance")
@click.option(
    "--after",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between notice and end.",
)
def interrupt(instance: str, after: float) -> None:
    """Give a spot INSTANCE the notice EC2 gives, and take it when the time is over."""
    from orchestrator.sandbox import control

    control.interrupt(open_home().path, instance, notice_seconds=after)
    click.echo(f"{instance} has its notice; it is taken in {after:g} s")


@command.command()
@click.argument("instance")
def kill(instance: str) -> None:
    """Take an INSTANCE at once, without notice."""
    from orchestrator.sandbox import control

    control.kill(open_home().path, instance)
    click.echo(f"{instance} is taken")


@command.command()
@click.argument("instance")
@_seconds_option
@_heal_option
@json_option
def partition(instance: str, seconds: float | None, *, heal: bool, as_json: bool) -> None:
    """Cut an INSTANCE off: its sshd and its calls of AWS hang until it is healed.

    What its processes say to those of other hosts gets through: that could not be cut without root.
    """
    _disturb(instance, "partition", seconds, heal=heal, as_json=as_json)


@command.command()
@click.argument("instance")
@click.argument("what", type=click.Choice(KINDS))
@_seconds_option
@_heal_option
@json_option
def disturb(instance: str, what: str, seconds: float | None, *, heal: bool, as_json: bool) -> None:
    """Do something to an INSTANCE that EC2 does not see.

    \b
    partition  its sshd and its calls of AWS hang
    hang       its training is stopped (SIGSTOP): a rank that is silent
    freeze     every process is stopped, sshd with them: a machine that hangs
    slow       its training stands still most of the time: a bad all-reduce
    stop-sshd  SSH is refused, sessions end; all else goes on
    crash      its training is killed (SIGKILL)
    kill-tmux  its tmux server is killed; the training goes on
    reboot     every process ends and sshd comes back; home stays, timers are armed anew

    The first five last until they are healed. `next` in place of INSTANCE is the next
    one that boots; it can only be slow.
    """
    _disturb(instance, what, seconds, heal=heal, as_json=as_json)


@command.command()
@click.argument("instance")
@json_option
def rebalance(instance: str, *, as_json: bool) -> None:
    """Show a spot INSTANCE EC2's advice to go elsewhere; whether it is taken is up to `interrupt`."""
    from orchestrator.sandbox import control

    time = control.rebalance(open_home().path, instance)
    if as_json:
        _print({"instance_id": instance, "time": time})
    else:
        click.echo(f"{instance} is advised to go; it stays until it is interrupted")


@command.command()
@click.argument("action")
@click.argument("code")
@click.option(
    "--count",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="How many calls fail; 0 forgets all faults.",
)
@click.option("--zone", help="Only calls for this availability zone.")
def fault(action: str, code: str, count: int, zone: str | None) -> None:
    """Make the next calls of an ACTION of EC2 or S3 fail with CODE; S3's may name objects.

    \b
    orch sandbox fault RunInstances InsufficientInstanceCapacity --count 2 --zone us-east-1a
    orch sandbox fault GetObject/BUCKET/PREFIX SlowDown --count 1000
    """
    from orchestrator.sandbox import control

    control.fault(open_home().path, action, code, count, zone=zone)
    if count == 0:
        click.echo("all faults are forgotten")
        return
    where = f" in {zone}" if zone else ""
    click.echo(f"the next {count} calls of {action}{where} fail with {code}")


@command.command()
@click.argument("run", required=False)
@json_option
def meter(run: str | None, as_json: bool) -> None:
    """Show what machines (of RUN, an id, where it is given) have cost by the sandbox's own count, second by second.

    It shares nothing with the bill, which can be held against it: docs/billing.md.
    """
    from orchestrator.sandbox import control

    value = control.meter(open_home().path, run)
    if as_json:
        _print(value)
        return
    for row in value["instances"]:
        click.echo(
            f"{row['instance_id']}  {row['instance_type']:<14}  {row['zone']}  {row['lifecycle']:<9}"
            f"  {row['seconds']:>7} s  ${row['usd']}"
        )
    click.echo(f"total ${value['usd']}")


def _disturb(instance: str, kind: str, seconds: float | None, *, heal: bool, as_json: bool) -> None:
    """Begin or undo a disturbance, and say so. Raises BadInput for one that does not last."""
    from orchestrator.sandbox import control

    home = open_home().path
    if instance == NEXT and kind != "slow":
        raise BadInput(f"the next host that boots cannot have {kind}, only slow", "name an instance that is up")
    if (heal or seconds is not None) and kind not in LASTING:
        raise BadInput(f"{kind} cannot be undone", f"these can: {', '.join(sorted(LASTING))}")
    if (heal or seconds is not None) and instance == NEXT:
        raise BadInput("what the next host will have cannot be undone now", "name the instance once it is there")
    if heal:
        control.heal(home, instance, kind)
    else:
        control.disturb(home, instance, kind, seconds)
    if as_json:
        _print({"instance_id": instance, "kind": kind, "healed": heal, "seconds": seconds})
    elif heal:
        click.echo(f"{instance} is healed of {kind}")
    else:
        click.echo(f"{instance} {_SAID[kind]}{f'; healed in {seconds:g} s' if seconds is not None else ''}")


def _print(value: Any) -> None:
    from orchestrator.report.json import dumps

    click.echo(dumps(value))
