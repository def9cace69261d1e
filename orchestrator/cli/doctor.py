"""`orch doctor`: what this machine and the account lack, each with what to do about it; and the policies orch needs.

With a run: what its nodes found out about themselves before the training.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

from orchestrator.cli.context import NoCredentials, Place, open_home, open_place, wanted
from orchestrator.cli.faults import AllFaults, lines_of, refuse_all
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.policies import policies_of, policy_faults
from orchestrator.cli.runs import find_run
from orchestrator.errors import Exit, OrchError

if TYPE_CHECKING:
    from orchestrator.run.home import Home

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: `warn` is what orch can do without, `fail` what it cannot."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    hint: str = ""
    exit_code: int = 0


@click.command(cls=AllFaults, check=lambda given: lines_of(policy_faults(given)))
@run_argument
@cloud_option
@click.option("--policy", is_flag=True, help="Print the IAM policies of the operator and the nodes, as JSON.")
@click.option(
    "--data-bucket",
    "data_buckets",
    multiple=True,
    metavar="NAME",
    help="Of --policy: another bucket that experiments have data in; may be repeated.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    *,
    run: str | None,
    cloud: str | None,
    policy: bool,
    data_buckets: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check Python, tmux, ssh, credentials, bucket, quotas and the sandbox. Changes nothing.

    Ends with 0 when all that is needed is there, else with the exit code of the first thing that fails. With RUN: what
    the preflight of its nodes found; ends with 1 when a node of the newest start is unfit.
    """
    from orchestrator.report.json import dumps

    refuse_all(policy_faults({"run": run, "policy": policy, "data_buckets": data_buckets}), ctx)
    home = open_home()
    if run is not None:
        return _show_preflight(home, run, cloud, as_json=as_json)
    if policy:
        click.echo(dumps(policies_of(home, cloud, data_buckets)))
        return Exit.DONE
    checks = list(_checks(home, wanted(home, cloud)))
    if as_json:
        click.echo(dumps([asdict(check) for check in checks]))
    else:
        for check in checks:
            hint = f"\n      {check.hint}" if check.hint and check.state != "ok" else ""
            click.echo(f"{MARKS[check.state]}  {check.name:<12}  {check.detail}{hint}")
    return next((check.exit_code for check in checks if check.state == "fail"), Exit.DONE)


def _show_preflight(home: Home, run: str, cloud: str | None, *, as_json: bool) -> int:
    from orchestrator.report.json import dumps

    found = find_run(home, run, cloud)
    report = home.load_report(found.run_id) if found.place is None else None
    rows = report.get("preflight", []) if report is not None else found.read().preflights
    if as_json:
        click.echo(dumps(rows))
    elif not rows:
        click.echo(f"no node of {found.run_id} has told of its preflight: it is off, or none has begun")
    else:
        from orchestrator.report.console import make_console
        from orchestrator.report.preflight import preflight_lines, preflight_table

        console = make_console()
        console.print(preflight_table(rows))
        for line in preflight_lines(rows):
            console.print(line)
    newest = max((row["generation"] for row in rows), default=0)
    unfit = any(row["unfit"] for row in rows if row["generation"] == newest)
    return Exit.RUN_FAILED if unfit else Exit.DONE


def _checks(home: Home, cloud: str | None) -> Iterator[Check]:
    yield _python()
    for program, why in (("tmux", "the scheduler runs in it"), ("ssh", "attach, ssh and exec use it")):
        yield _program(program, why)
    yield _home(home)
    sandbox = _sandbox(home)
    if cloud != "sandbox":
        yield from _account(home, "aws", needed=cloud == "aws" or sandbox.state == "fail")
    else:
        yield from _account(home, "sandbox", needed=False)
    yield sandbox if cloud == "sandbox" or sandbox.state == "ok" else _soften(sandbox)


def _soften(check: Check) -> Check:
    return Check(check.name, "warn", check.detail, check.hint)


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", "ok", f"{version} at {sys.executable}")


def _program(name: str, why: str) -> Check:
    tools = os.environ.get("ORCH_TOOLS")
    unpacked = f"{tools}/usr/bin{os.pathsep}" if tools else ""
    found = shutil.which(name, path=unpacked + os.environ.get("PATH", os.defpath))
    if found is None:
        hint = f"install it: apt install {'openssh-client' if name == 'ssh' else name}"
        return Check(name, "fail", f"not found; {why}", hint, Exit.BAD_INPUT)
    return Check(name, "ok", found)


def _home(home: Home) -> Check:
    folder = home.path
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Check(
            "home", "fail", f"{home.path} cannot be written", "set ORCH_HOME to another folder", Exit.BAD_INPUT
        )
    return Check("home", "ok", str(home.path))


def _sandbox(home: Home) -> Check:
    """Check whether this machine can have a sandbox, and whether it has."""
    from orchestrator.sandbox import tools

    try:
        tools.find(dict(os.environ))
    except OrchError as error:
        return Check("sandbox", "fail", error.message, error.hint, Exit.BAD_INPUT)
    try:
        return Check("sandbox", "ok", f"up at {open_place(home, 'sandbox').settings.endpoint_url}")
    except OrchError:
        return Check("sandbox", "ok", "this machine can have one; it is not up")


def _account(home: Home, cloud: str, *, needed: bool) -> Iterator[Check]:
    """Check credentials, bucket and quotas of a cloud; without it these are warnings unless it is needed."""
    try:
        place = open_place(home, cloud)
        yield Check("credentials", "ok", f"{place.session.caller()} in {place.settings.region} ({cloud})")
    except OrchError as error:
        absent = isinstance(error, NoCredentials) and not needed
        state: Literal["warn", "fail"] = "warn" if absent or not needed else "fail"
        yield Check("credentials", state, error.message, error.hint, error.exit_code)
        return
    try:
        yield _bucket(place)
        yield from _quotas(place)
    except OrchError as error:
        yield Check("account", "fail", error.message, error.hint, error.exit_code)


def _bucket(place: Place) -> Check:
    from orchestrator.aws.account import bucket_exists

    name = place.bucket.name
    return Check("bucket", "ok", f"{name}{'' if bucket_exists(place.session, name) else ', made on first use'}")


def _quotas(place: Place) -> Iterator[Check]:
    from orchestrator.aws.quotas import Quotas
    from orchestrator.core import catalog

    names = {
        catalog.SPOT_QUOTA_P: "spot P (p3, p4d)",
        catalog.ON_DEMAND_QUOTA_P: "on-demand P (p3, p4d, p5)",
        catalog.SPOT_QUOTA_STANDARD: "spot standard (c, m, t)",
    }
    held = Quotas(place.session).vcpus(list(names))
    for code, name in names.items():
        count = held.get(code)
        if count is None:
            yield Check(
                "quota", "warn", f"{code} {name}: AWS did not say", "Service Quotas in the AWS console shows it"
            )
        elif count == 0:
            yield Check("quota", "warn", f"{code} {name}: 0 vCPU", "ask AWS to raise it: Service Quotas, EC2")
        else:
            yield Check("quota", "ok", f"{code} {name}: {count} vCPU")
