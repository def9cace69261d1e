"""One self-contained page of a run, to be shown to others. No script, nothing fetched from anywhere.

Says in words and tables what the charts show; every value passes through `clean` and jinja2's escaping.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.core import course, spending
from orchestrator.core.bill import RULE, InstanceBill
from orchestrator.core.caps import age
from orchestrator.core.facts import EC2_INTERRUPTED, PriceRow
from orchestrator.core.ledger import CapChange
from orchestrator.core.units import format_duration, format_usd, iso, usd
from orchestrator.report import drawings
from orchestrator.report.bill import end_of
from orchestrator.report.charts import Chart
from orchestrator.report.drawings import LABEL, Story, make_story
from orchestrator.report.lines import recoveries
from orchestrator.report.text import clean, percent
from orchestrator.report.timing import NOTE, timing_rows
from orchestrator.run.view import RunView

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
MOST_MILESTONES = 12
Limit = TypeVar("Limit", int, timedelta)


def render_page(view: RunView, rows: Iterable[PriceRow]) -> str:
    """Return the page of a run (read with its history) and the spot prices kept with it (`run.prices.load`)."""
    story = make_story(view, rows)
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else clean(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("page.html.jinja")
    return page.render(
        policy=POLICY,
        run_id=view.spec.run_id,
        phase=view.phase,
        verdict=view.verdict,
        facts=_facts(story),
        charts=_charts(story),
        compared=_compared(story),
        recoveries=_recoveries(view),
        purposes=_purposes(story),
        milestones=_milestones(story),
        instances=[_instance(index, item) for index, item in enumerate(view.bill.instances, 1)],
        other=[(line.kind, line.id, usd(line.usd)) for line in view.bill.other],
        totals=_totals(story),
        sources=view.bill.on_demand_sources,
        rule=RULE,
        timing=timing_rows([item.to_json() for item in view.starts]),
        timing_note=NOTE,
        origin=_origin(view),
        experiment=yaml.safe_dump((view.launched or view.spec.experiment).to_json(), sort_keys=False).splitlines(),
        diff=view.spec.identity.diff.splitlines(),
    )


def _charts(story: Story) -> list[tuple[Markup, Chart] | str]:
    """Return the charts in the order of the page; in place of one that cannot be drawn, why."""
    found: list[Chart | str] = [
        drawings.money_chart(story),
        drawings.price_chart(story),
        drawings.node_chart(story),
        drawings.purpose_chart(story),
    ]
    accuracies = [name for name in course.ACCURACIES if name != "accuracy"]
    name = course.accuracy_name(story.points)
    wanted = (("loss",), "Loss", "loss", "loss"), (accuracies, "Accuracy", "accuracy", "percent")
    for figures, what, key, unit in wanted:
        told = ("accuracy",) if key == "accuracy" and name == "accuracy" else figures
        drawn = drawings.figure_charts(story, told, what, key, "accuracy" if told == ("accuracy",) else unit)
        found += [drawn] if isinstance(drawn, str) else drawn
    found.append(drawings.epoch_chart(story))
    # The drawing was made of escaped elements (charts.py), so it goes into the page as it is.
    return [item if isinstance(item, str) else (Markup(item.svg), item) for item in found]  # noqa: S704


def _facts(story: Story) -> list[tuple[str, str]]:
    """Return the figures at the head of the page."""
    view, bill = story.view, story.bill
    facts = [
        ("cost" if bill.final else "cost so far", format_usd(bill.high)),
        ("on-demand", format_usd(bill.on_demand)),
        ("saving", f"{format_usd(bill.saving)} ({percent(bill.saving, bill.on_demand)})"),
        ("time", format_duration(view.lasted)),
        ("nodes", view.spec.experiment.nodes),
    ]
    name = course.accuracy_name(story.points)
    if name is not None:
        best = course.records(story.points, name)[-1]
        facts.append((f"best {LABEL.get(name, name)}", _accuracy(name, best.figure(name) or 0.0)))
    return facts


def _accuracy(name: str, value: float) -> str:
    return f"{value:.2f}%" if name in LABEL else f"{value:.4g}"


def _compared(story: Story) -> list[tuple[str, str, str]]:
    """Return what the plan said beside what happened."""
    view, bill = story.view, story.bill
    offer, wish = view.spec.offers[0] if view.spec.offers else None, view.spec.experiment
    used = sorted((i.instance_type, i.lifecycle, i.zone) for i in bill.instances)
    machines = [f"{len(list(group))} x {' '.join(key)}" for key, group in groupby(used)]
    hours = [hour.price for item in bill.instances for hour in item.hours]
    low, high = (format_usd(pick(hours)) if hours else "" for pick in (min, max))
    taken = sum(1 for item in bill.instances if item.end_reason in EC2_INTERRUPTED)
    limit, took = format_duration(wish.max_duration), format_duration(view.lasted)
    known = offer is not None and offer.hours is not None
    rows = [("launches", "1", str(len(view.ledger.launches))), ("nodes taken by EC2", "0", str(taken))]
    if offer is not None:
        first = f"{view.spec.experiment.nodes} x {offer.instance_type} {offer.lifecycle} {offer.zone}"
        bound = "" if known else f"at most, for {limit}: "
        rows = [
            ("machines", first, "; ".join(machines) or "none"),
            ("price of a node-hour", format_usd(offer.price), low if low == high else f"{low} to {high}"),
            ("time", format_duration(offer.hours * 3600) if offer.hours else "not known", took),
            ("cost", f"{bound}{format_usd(offer.cost)}", format_usd(bill.high)),
            ("on-demand", f"{bound}{format_usd(offer.on_demand_cost)}", format_usd(bill.on_demand)),
            *rows,
        ]
    return [*rows, *_caps(view)]


def _caps(view: RunView) -> list[tuple[str, str, str]]:
    """Return the caps that the run was launched under with every later one, and how much of the last was used."""
    first, wish = view.launched or view.spec.experiment, view.spec.experiment
    cap, limit, changes = wish.max_cost_micro, wish.max_duration, view.ledger.cap_changes
    rows = []
    if cap is not None:
        later = [(item, item.max_cost) for item in changes if item.max_cost is not None]
        rows.append(("cap", _changed(first.max_cost_micro, later, format_usd), f"{percent(view.bill.high, cap)} used"))
    longer = [(item, item.max_duration) for item in changes if item.max_duration is not None]
    used = age(view.spec, view.ledger, view.ended_at or view.facts.server_time) / limit
    what = "time limit, since it was resumed" if view.ledger.resumed else "time limit"
    return [*rows, (what, _changed(first.max_duration, longer, format_duration), f"{percent(used, 1)} used")]


def _changed(first: Limit | None, later: Sequence[tuple[CapChange, Limit]], form: Callable[[Limit], str]) -> str:
    """Return a cap and what became of it: `$3.00, extended to $5.00 (2026-11-27 18:50 UTC, me@here)`."""
    told, before = "none" if first is None else form(first), first
    for change, value in later:
        word = "extended" if before is None or value >= before else "lowered"
        told += f", {word} to {form(value)} ({change.time:%Y-%m-%d %H:%M} UTC, {change.by})"
        before = value
    return told


def _recoveries(view: RunView) -> list[tuple[str, str]]:
    """Return when each loss or failure was answered, why and how."""
    told = zip(view.ledger.recoveries, recoveries(view), strict=True)
    return [(f"{item.time:%Y-%m-%d %H:%M:%S} UTC" if item.time else "", line) for item, line in told]


def _purposes(story: Story) -> list[tuple[str, str, str]]:
    parts = spending.by_purpose(story.bill, story.lives)
    return [(name, format_usd(amount), percent(amount, story.bill.high)) for name, amount in parts.items()]


def _milestones(story: Story) -> list[tuple[str, ...]]:
    """Return the newest bests of the accuracy with the time and the money each took."""
    name = course.accuracy_name(story.points)
    if name is None:
        return []
    found = spending.milestones(story.bill, story.points, name)[-MOST_MILESTONES:]
    return [
        (
            f"{LABEL.get(name, name)} {_accuracy(name, item.value)}",
            format_duration(item.seconds),
            format_usd(item.spot),
            format_usd(item.on_demand),
        )
        for item in found
    ]


def _instance(index: int, item: InstanceBill) -> tuple[Any, ...]:
    """Return a row of the bill: six words, three figures."""
    how = end_of({"end": item.end, "end_reason": item.end_reason})
    unknown = "" if item.price_known else " (price not recorded)"
    return (
        (index, item.instance_id, item.instance_type, item.zone, item.lifecycle, iso(item.start), how),
        (item.seconds, usd(item.usd) + unknown, usd(item.on_demand_usd)),
    )


def _totals(story: Story) -> list[tuple[str, str]]:
    bill = story.bill
    low = (
        [("at least, if AWS waives what it took within the first hour", usd(bill.low))] if bill.low != bill.high else []
    )
    rest = [("on-demand", usd(bill.on_demand)), ("saving", usd(bill.saving))]
    return [("total", usd(bill.high)), *low, *rest]


def _origin(view: RunView) -> list[tuple[str, str]]:
    """Return who launched what, from where."""
    spec = view.spec
    pairs = [
        ("started", iso(spec.created)),
        ("ended", iso(view.ended_at) if view.ended_at else "still going"),
        ("launched by", f"{spec.identity.user} on {spec.identity.machine}"),
        ("cloud", f"{spec.cloud}, {spec.region}"),
        ("commit", spec.identity.commit or "not from a git checkout"),
        ("code", f"bundle {spec.bundle}"),
        ("image", spec.image),
    ]
    return pairs if spec.profile is None else [*pairs, ("profile", spec.profile)]
