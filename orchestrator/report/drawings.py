"""The charts of one run: prices, dollars, nodes, loss and accuracy, where the money went. Pure; `charts` draws them.

Each function returns a chart, or in one line why there is none: a page never shows an empty frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from orchestrator.core import course, spending
from orchestrator.core.bill import Bill
from orchestrator.core.course import Point, Stretch
from orchestrator.core.facts import EC2_INTERRUPTED, PriceRow
from orchestrator.core.units import MICRO, MicroUSD, counted, format_usd
from orchestrator.report.charts import Chart, Frame, Line, draw_bars, draw_lines, draw_lying_bars, draw_rows, thin
from orchestrator.run import prices
from orchestrator.run.view import RunView

MOST_PRICES = 8
LARGEST = 1e12
COLOUR_OF = {
    spending.BOOT: 8, spending.PREFLIGHT: 9, spending.STAGING: 7, spending.SETUP: 12, spending.START: 5,
    spending.TRAINING: 2, spending.EVALUATING: 0, spending.SAVING: 3, spending.LOST: 6, spending.IDLE: 1,
    spending.UNKNOWN: 11,
}  # fmt: skip
TAKEN, REPLACED, ON_DEMAND, SPOT = 4, 10, 1, 0


@dataclass(frozen=True, slots=True)
class Story:
    """A run with its price rows, and what the pure core makes of both. Times count from `begin`, the first launch."""

    view: RunView
    rows: tuple[PriceRow, ...]
    begin: datetime
    end: datetime
    points: tuple[Point, ...]
    stretches: tuple[Stretch, ...]
    lives: tuple[spending.Life, ...]

    @property
    def bill(self) -> Bill:
        """The bill of all generations."""
        return self.view.bill

    def at(self, moment: datetime) -> float:
        """Return a moment in the unit of the time axes."""
        return (moment - self.begin) / self.unit[1]

    @property
    def unit(self) -> tuple[str, timedelta]:
        """The unit of the time axes: what suits the length of the run."""
        length = self.end - self.begin
        if length > timedelta(hours=3):
            return "hours", timedelta(hours=1)
        return ("minutes", timedelta(minutes=1)) if length > timedelta(minutes=3) else ("seconds", timedelta(seconds=1))

    @property
    def since(self) -> str:
        """What the time axes are called."""
        return f"{self.unit[0]} since the first launch"


def make_story(view: RunView, rows: Iterable[PriceRow]) -> Story:
    """Return the story of a run as it is now."""
    bill = view.bill
    begin = spending.begin_of(bill, view.spec.created)
    end = max([spending.end_of(item) for item in bill.instances] or [view.ended_at or view.facts.server_time])
    points = course.read_points(view.history, begin, end)
    beacons = {key: node.beacon for key, node in view.facts.nodes.items() if node.beacon is not None}
    stretches = course.split(points)
    marks = {key: beacon.marks for key, beacon in beacons.items()}
    lives = spending.lives(bill, course.spans(stretches), marks)
    return Story(view, tuple(rows), begin, max(end, begin + timedelta(seconds=1)), points, stretches, lives)


def price_chart(story: Story) -> Chart | str:
    """Return the spot price of every zone, type by type, over the run, and the on-demand price."""
    types = sorted({item.instance_type for item in story.bill.instances})
    used = {(item.instance_type, item.zone) for item in story.bill.instances if item.lifecycle == "spot"}
    pools = {(row.instance_type, row.zone) for row in story.rows if row.instance_type in types}
    wanted = sorted(pools, key=lambda pool: (pool not in used, pool))[:MOST_PRICES]
    lines = []
    for kind, zone in wanted:
        changes = [row for row in story.rows if (row.instance_type, row.zone) == (kind, zone)]
        name = f"{zone if len(types) == 1 else f'{kind} {zone}'}{' (used)' if (kind, zone) in used else ''}"
        lines.append(Line(name, _steps(story, changes), width=2.5 if (kind, zone) in used else 1.5))
    listed = prices.on_demand_of(story.view.spec)
    for kind in types:
        if kind in listed:
            name = "on-demand" if len(types) == 1 else f"{kind} on-demand"
            ends = [(0.0, _dollars(listed[kind].price)), (story.at(story.end), _dollars(listed[kind].price))]
            lines.append(Line(name, ends, colour=ON_DEMAND if len(types) == 1 else None, dashed=True))
    shown = [line for line in lines if line.points]
    if not shown:
        return "No price was recorded with this run."
    # The dashed line keeps the colour that on-demand has in every chart.
    coloured = [_coloured(line, index) for index, line in enumerate(shown)]
    lows = ", ".join(f"{line.name} ${line.points[-1][1]:.2f} at the end" for line in shown)
    title = f"Price of {types[0]}" if len(types) == 1 else "Prices"
    words = f"Dollars for a node and hour: {lows}."
    frame = Frame("prices", title, story.since, "dollars an hour", words, x_to=story.at(story.end))
    return draw_lines(frame, coloured)


def _coloured(line: Line, index: int) -> Line:
    colour = line.colour if line.colour is not None else (index if index < ON_DEMAND else index + 1)
    return Line(line.name, line.points, colour, line.dashed, line.dots, line.stroke, line.width)


def _steps(story: Story, changes: Sequence[PriceRow]) -> list[tuple[float, float | None]]:
    """Return a price as a line of steps from the first launch to the end."""
    ordered = sorted((row for row in changes if row.time <= story.end), key=lambda row: row.time)
    steps: list[tuple[float, float | None]] = []
    for row in ordered:
        x, y = max(0.0, story.at(row.time)), _dollars(row.price)
        if x == 0.0:
            steps.clear()
        elif steps:
            steps.append((x, steps[-1][1]))
        steps.append((x, y))
    return [*steps, (story.at(story.end), steps[-1][1])] if steps else []


def money_chart(story: Story) -> Chart | str:
    """Return what the run cost over time, and would have cost on demand."""
    if not story.bill.instances:
        return "Nothing was launched, and nothing was spent."
    edges = {edge for item in story.bill.instances for edge in (item.start, spending.end_of(item))}
    edges |= {hour.start for item in story.bill.instances for hour in item.hours}
    even = {story.begin + (story.end - story.begin) * i / 60 for i in range(61)}
    moments = sorted(edges | even)
    spot = [(story.at(t), _dollars(spending.spent(story.bill, t))) for t in moments]
    listed = [(story.at(t), _dollars(spending.spent_on_demand(story.bill, t))) for t in moments]
    total, other = format_usd(story.bill.high), format_usd(story.bill.on_demand)
    words = f"Dollars spent over the run: {total} in the end, where on-demand would have cost {other}."
    frame = Frame("money", "Dollars spent", story.since, "dollars", words, x_to=story.at(story.end))
    lines = [
        Line("as billed", thin(spot), SPOT, width=2.5),
        Line("at the on-demand price", thin(listed), ON_DEMAND, dashed=True),
    ]
    return draw_lines(frame, lines)


def node_chart(story: Story) -> Chart | str:
    """Return a row for each instance, in order of launch: what it did when, what EC2 took, what came instead."""
    items = story.bill.instances
    if not items:
        return "No node was launched."
    row_of = {item.instance_id: index for index, item in enumerate(items)}
    lines = []
    for purpose, colour in COLOUR_OF.items():
        bars: list[tuple[float, float | None]] = []
        for life in (life for life in story.lives if life.purpose == purpose):
            row = float(row_of[life.instance_id])
            bars += [(story.at(life.begin), row), (story.at(life.end), row), (story.at(life.end), None)]
        if bars:
            lines.append(Line(purpose, bars, colour))
    taken = [item for item in items if item.end is not None and item.end_reason in EC2_INTERRUPTED]
    first = min((item.end for item in taken if item.end is not None), default=None)
    late = [item for item in items if first is not None and item.start >= first]
    marks = [
        ("taken by EC2", [(item, item.end) for item in taken if item.end is not None], TAKEN),
        ("replacement", [(item, item.start) for item in late], REPLACED),
    ]
    for name, found, colour in marks:
        dots = [(story.at(moment), float(row_of[item.instance_id])) for item, moment in found]
        if dots:
            lines.append(Line(name, dots, colour, dots=True, stroke=False))
    words = f"{counted(len(items), 'node')} over time; {len(taken)} taken by EC2, {len(late)} launched after that."
    return draw_rows(Frame("nodes", "Nodes", story.since, "node", words, x_to=story.at(story.end)), len(items), lines)


def figure_charts(story: Story, figures: Sequence[str], what: str, key: str, unit: str) -> list[Chart] | str:
    """Return the course of figures over time and over dollars; those that no line tells are left out.

    A line is interrupted where the training was.
    """
    told = {name: [p for p in story.points if _value(p, name) is not None] for name in figures}
    told = {name: points for name, points in told.items() if points}
    if not told:
        return f"No {what.lower()} was told in the progress lines."
    ends = [(LABEL.get(n, n), _value(points[0], n) or 0.0, _value(points[-1], n) or 0.0) for n, points in told.items()]
    words = "; ".join(f"{name} from {first:.4g} to {last:.4g}" for name, first, last in ends)
    axes: list[tuple[str, str, Callable[[datetime], float]]] = [
        ("time", story.since, story.at),
        ("dollars", "dollars spent", lambda moment: _dollars(spending.spent(story.bill, moment))),
    ]
    charts = []
    for axis, x_title, x_of in axes:
        lines = [Line(LABEL.get(name, name), _course(story, name, x_of)) for name in told]
        title = f"{what} over {axis}"
        frame = Frame(f"{key}-{axis}", title, x_title, unit, f"{title}: {words}.", x_to=x_of(story.end))
        charts.append(draw_lines(frame, lines))
    return charts


def _value(point: Point, name: str) -> float | None:
    """Return a figure if it can be drawn: no chart has room for 1e300, and 1e-300 beside it is nothing."""
    value = point.figure(name)
    if value is None or abs(value) > LARGEST:
        return None
    return value if abs(value) * LARGEST > 1 else 0.0


def _course(story: Story, name: str, x_of: Callable[[datetime], float]) -> list[tuple[float, float | None]]:
    """Return the points of a figure, stretch by stretch, at most `MOST_POINTS` of each."""
    found: list[tuple[float, float | None]] = []
    for stretch in story.stretches:
        pairs = [(point, value) for point in stretch.points if (value := _value(point, name)) is not None]
        drawn = [(x_of(point.time), value) for point, value in thin(pairs)]
        found += [(found[-1][0], None), *drawn] if found and drawn else drawn
    return found


LABEL = {"top1": "top-1", "top5": "top-5"}


def purpose_chart(story: Story) -> Chart | str:
    """Return what each purpose cost."""
    parts = {name: usd for name, usd in spending.by_purpose(story.bill, story.lives).items() if usd > 0}
    if not parts:
        return "No money was spent."
    words = "; ".join(f"{name} {format_usd(usd)}" for name, usd in parts.items())
    frame = Frame("purposes", "Where the money went", "dollars", "purpose", f"{words}.", y_format=_money)
    return draw_lying_bars(frame, [(name, _dollars(usd)) for name, usd in parts.items()])


def epoch_chart(story: Story) -> Chart | str:
    """Return what each epoch cost."""
    costs = spending.epoch_costs(story.bill, story.points)
    if not costs:
        return "No whole epoch is marked in the progress lines."
    least, most = (format_usd(found(cost for _, cost in costs)) for found in (min, max))
    words = f"{counted(len(costs), 'epoch')}, {least} to {most} each."
    frame = Frame("epochs", "Dollars of each epoch", "epoch", "dollars", words, y_format=_money)
    return draw_bars(frame, [(str(epoch), _dollars(usd)) for epoch, usd in costs])


def _dollars(amount: MicroUSD) -> float:
    return amount / MICRO


def _money(dollars: float) -> str:
    return format_usd(round(dollars * MICRO))
