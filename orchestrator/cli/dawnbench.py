"""`orch dawnbench`: a run's entry for DAWNBench, as two files; from S3 alone, so the run's cloud must be in reach."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option, run_argument
from orchestrator.cli.runs import find_run
from orchestrator.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.report.dawnbench import Course, Task
    from orchestrator.report.dawnbench_files import Author
    from orchestrator.run.view import RunView

NAMES = ("imagenet", "cifar10")
GIT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """What the files are made of, checked."""

    view: RunView
    task: Task
    course: Course
    author: Author
    ignore_eval: bool


@click.command(cls=AllFaults)
@run_argument
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    help="The folder in which ImageNet/train/ or CIFAR10/train/ is made; by default this one.",
)
@click.option("--author", metavar="NAME", help="Who enters; by default git's user.name.")
@click.option("--email", metavar="ADDRESS", help="Their address; by default git's user.email.")
@click.option("--model", metavar="NAME", default="", help="The model; by default what the training calls it.")
@click.option("--task", type=click.Choice(NAMES), help="The task, where the data set's name does not tell it.")
@click.option(
    "--ignore-eval", is_flag=True, help="Leave out the time of validation and checkpoints, as the rules allow."
)
@click.option("--commit", metavar="URL", default="", help="Where the code can be seen, best a link to its commit.")
@cloud_option
@json_option
def command(
    *,
    run: str | None,
    out: Path,
    author: str | None,
    email: str | None,
    model: str,
    task: str | None,
    ignore_eval: bool,
    commit: str,
    cloud: str | None,
    as_json: bool,
) -> None:
    """Write the DAWNBench entry of RUN (the newest where it is left out): its TSV and JSON, by the official rules.

    Prints time and cost to the threshold, or why the run is no eligible entry; the files are written either way.
    """
    from orchestrator.report.dawnbench_files import Author
    from orchestrator.report.json import dumps
    from orchestrator.run.read import read_run

    who = Author(author or _git("user.name"), email or _git("user.email"), model, commit)
    found = find_run(open_home(), run, cloud)
    place = found.open()
    entry = _check(
        read_run(place.session, place.bucket, found.run_id, history=True), who, task, ignore_eval=ignore_eval
    )
    files = _write(entry, out)
    summary = _summary(entry, files)
    if as_json:
        click.echo(dumps(summary))
    else:
        _show(entry, summary)


def _check(view: RunView, author: Author, wanted: str | None, *, ignore_eval: bool) -> Entry:
    """Return the entry. Raises BadInput with everything that is missing."""
    from orchestrator.report.dawnbench import TASKS, dataset, find_task, read_course
    from orchestrator.report.dawnbench_files import model_of, tag

    task = find_task(view.history, wanted)
    course = read_course(view.history, task or TASKS["cifar10"], ignore_eval=ignore_eval)
    faults = []
    if not course.rows:
        faults.append(
            "the run has no evaluations: lines of event `eval` with epoch, top1 and, for ImageNet, top5, "
            "after one of event `start`"
        )
    elif task is None:
        name = dataset(view.history)
        faults.append(
            f"its data set is {name!r}, which is no task of DAWNBench here: --task imagenet or --task cifar10"
            if name
            else "its progress lines do not name their data set: --task imagenet or --task cifar10"
        )
    if not tag(author.name):
        faults.append("an author is needed: --author NAME, or git config user.name")
    if "@" not in author.email:
        faults.append("an address is needed: --email ADDRESS, or git config user.email")
    if course.rows and not tag(model_of(course, author)):
        faults.append("the training does not name its model: --model NAME")
    if faults or task is None:
        one = len(faults) == 1
        raise BadInput(
            f"no entry can be made of {view.spec.run_id}: {faults[0] if one else f'{len(faults)} faults'}",
            "`orch dawnbench --help` shows what can be given",
            details=() if one else tuple(faults),
        )
    return Entry(view, task, course, author, ignore_eval)


def _write(entry: Entry, out: Path) -> list[Path]:
    """Write both files and return their paths. Raises BadInput when it has another run's, or cannot be written."""
    from orchestrator.core.ids import Keys
    from orchestrator.report.dawnbench_files import file_stem, make_record, render_tsv
    from orchestrator.report.json import dumps

    view, course = entry.view, entry.course
    log = f"s3://{view.spec.bucket}/{Keys(view.spec.run_id).metrics}"
    today = view.facts.server_time.date()
    record = make_record(view, course, entry.task, entry.author, log=log, ignore_eval=entry.ignore_eval, today=today)
    folder = out / entry.task.title / "train"
    stem = file_stem(view, course, entry.author)
    bodies = {"tsv": render_tsv(course, entry.task), "json": dumps(record) + "\n"}
    files = [folder / f"{stem}.{kind}" for kind in bodies]
    _refuse_another(files[1], view.spec.run_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, body in zip(files, bodies.values(), strict=True):
            file.write_text(body, newline="\n")
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}", "name another folder with --out") from error
    return files


def _refuse_another(file: Path, run: str) -> None:
    """Raise BadInput when the entry in `file` is not of `run`: names say author, model and machines, not the run."""
    try:
        theirs = json.loads(file.read_text())["misc"]["run"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        theirs = "something else"
    if theirs != run:
        raise BadInput(f"{file} is there already, of {theirs}", "name another folder with --out, or remove it")


def _summary(entry: Entry, files: Sequence[Path]) -> dict[str, Any]:
    """Return what `--json` prints."""
    from orchestrator.core.units import usd
    from orchestrator.report import dawnbench

    course, task = entry.course, entry.task
    reached, best = dawnbench.find_reached(course, task), dawnbench.find_best(course, task)
    price = dawnbench.cost_per_hour(entry.view)
    bill = entry.view.bill
    return {
        "run_id": entry.view.spec.run_id,
        "task": task.title,
        "figure": task.figure,
        "threshold": task.threshold,
        "reached": None if reached is None else {"epoch": reached.epoch, "hours": reached.hours, **reached.scores},
        "best": {"epoch": best.epoch, "hours": best.hours, **best.scores},
        "cost_per_hour_usd": usd(price[0]) if price else None,
        "cost_per_hour_source": price[1] if price else None,
        "cost_usd": usd(dawnbench.cost(reached.hours, price[0])) if reached and price else None,
        "spot_usd": usd(bill.high),
        "on_demand_usd": usd(bill.on_demand),
        "time": dawnbench.time_rule(course, ignore_eval=entry.ignore_eval),
        "ignored_seconds": round((reached or course.rows[-1]).left_out, 3),
        "objections": dawnbench.find_objections(entry.view, course, task),
        "files": [str(file) for file in files],
    }


def _show(entry: Entry, summary: Mapping[str, Any]) -> None:
    """Print the summary for a person."""
    from orchestrator.core.units import format_duration
    from orchestrator.report.dawnbench import HOUR, LABELS
    from orchestrator.report.figures import dollars
    from orchestrator.report.text import clean

    if reached := summary["reached"]:
        what = f"{reached[entry.task.figure]:.2f}% {LABELS[entry.task.figure]} after epoch {reached['epoch']:g}"
        click.echo(f"{entry.task.title}: {what}: {format_duration(reached['hours'] * HOUR)}")
        click.echo(
            f"cost by the rules: {_rule_cost(summary) if summary['cost_usd'] else 'no on-demand price is known'}"
        )
    click.echo(f"cost of the whole run: {dollars(entry.view.bill)}")
    left_out = f" ({format_duration(summary['ignored_seconds'])})" if entry.ignore_eval else ""
    click.echo(f"time: {summary['time']}{left_out}")
    if summary["objections"]:
        click.echo(f"not an eligible entry: {'; '.join(map(clean, summary['objections']))}")
    for file in summary["files"]:
        click.echo(f"wrote {file}")


def _rule_cost(summary: Mapping[str, Any]) -> str:
    from orchestrator.core.units import format_usd, to_micro
    from orchestrator.report.text import clean

    cost, price = (format_usd(to_micro(summary[name])) for name in ("cost_usd", "cost_per_hour_usd"))
    return f"{cost} at {price} an hour ({clean(str(summary['cost_per_hour_source']))})"


def _git(name: str) -> str:
    """Return a setting of git, "" where git or the setting is missing."""
    try:
        done = subprocess.run(
            ["git", "config", name], capture_output=True, text=True, check=False, timeout=GIT_SECONDS, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
