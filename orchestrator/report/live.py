"""The live view: one screen of a run, drawn again as it changes. `screen` is pure; `LiveView` puts it on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.core.units import format_duration, format_size
from orchestrator.report import figures
from orchestrator.report.lines import Attendance, attempts, cap_warnings, gang_notes, recoveries
from orchestrator.report.status import STYLES
from orchestrator.report.text import clean, percent, shorten, sparkline
from orchestrator.run.view import NodeView, RunView

STAGE_STYLES = {
    "running": "bold green", "done": "green", "stopped": "cyan", "failed": "bold red", "lost": "bold red",
    "staging": "cyan", "setup": "cyan", "ready": "blue", "starting": "blue",
    "shutting-down": "dim", "terminated": "dim",
}  # fmt: skip
MOST_ROWS = 32
# Widths of a cell of the grid, the widest that fits is taken.
CELLS = (18, 11)
TAIL_LINES = 3
NARROWEST_SPARK = 10


class LiveView:
    """A run on a terminal, as a context manager. `update` redraws in place, in one write, and so does not flicker."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=False, vertical_overflow="ellipsis")
        self._losses: list[float] = []
        self._step: object = None
        self._attendance = Attendance()

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def update(self, view: RunView, note: str = "") -> None:
        """Show `view`; `note` is a line of the reader's own (a connection that is gone for the moment)."""
        self._follow_loss(view)
        size = self._console.size
        notes = [note, self._attendance.warning(view), figures.low_disks(view)]
        notes += [item.text for item in cap_warnings(view)] + gang_notes(view)
        shown = screen(view, self._losses, width=size.width, height=size.height, notes=notes)
        self._live.update(shown, refresh=True)

    def _follow_loss(self, view: RunView) -> None:
        """Take the losses from the history where the reader keeps one, else collect them as they pass by."""
        if view.history:
            self._losses = figures.losses(view.history)
        elif view.metrics.get("step") != self._step:
            self._step = view.metrics.get("step")
            self._losses += figures.losses([view.metrics])


def screen(
    view: RunView, losses: Sequence[float], *, width: int, height: int, notes: Sequence[str] = ()
) -> RenderableType:
    """Return the whole view for a terminal of `width` x `height` characters."""
    nodes = view.nodes
    above = [*_header(view), Text("")]
    above += [Text(f"  {line}", style="yellow") for line in [*recoveries(view), *attempts(view)][-TAIL_LINES:]]
    if view.outlook:
        above.append(Text(f"  {view.outlook}", style="bold yellow"))
    if nodes:
        above.append(_counts(nodes))
    below = [Text(""), *_training(view, losses, width), *_broken(nodes)]
    below += [Text(clean(line), style="bold yellow") for line in notes if line]
    if not view.ended:
        run = view.spec.run_id
        below.append(Text(f"Ctrl-C leaves this view, the run goes on · orch attach {run} --node 0", style="dim"))
    for line in (*above, *below):
        line.no_wrap, line.overflow = True, "ellipsis"
    # One line stays free: a terminal scrolls when its last one is filled.
    room = height - len(above) - len(below) - 1
    return Group(*above, *_nodes(nodes, width, room), *below)


def _header(view: RunView) -> list[Text]:
    phase = view.phase, STYLES.get(view.phase, "bold")
    first = Text.assemble((view.spec.run_id, "bold"), "  ", phase, f"  {format_duration(view.lasted)}")
    if view.ledger.generation > 1:
        first.append(f"  generation {view.ledger.generation}")
    return [first, Text(f"{figures.where(view)} · {figures.dollars(view.bill)}")]


def _counts(nodes: Sequence[NodeView]) -> Text:
    line = Text("  ")
    for stage, count in figures.stage_counts(nodes):
        line.append(f"{count} {stage}   ", STAGE_STYLES.get(stage, ""))
    return line.append(figures.staged(nodes))


def _nodes(nodes: Sequence[NodeView], width: int, room: int) -> list[RenderableType]:
    """Return a row for each node where they fit, else a grid of short cells, else nothing: the counts say enough."""
    if not nodes:
        return []
    if len(nodes) + 1 <= min(room, MOST_ROWS + 1):
        return [_table(nodes)]
    for cell in CELLS:
        if -(-len(nodes) // max(1, width // (cell + 1))) <= room:
            shown = [_cell(node, cell) for node in nodes]
            return [Columns(shown, width=cell, padding=(0, 1, 0, 0), expand=False)]
    return []


def _table(nodes: Sequence[NodeView]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("RANK", justify="right", no_wrap=True)
    for name in ("ZONE", "ADDRESS", "STAGE", "STEP"):
        table.add_column(name, no_wrap=True)
    for node in nodes:
        table.add_row(
            str(node.rank),
            node.zone,
            node.address or "",
            Text(f"{node.stage}{_detail(node)}", style=STAGE_STYLES.get(node.stage, "")),
            "" if node.step is None else str(node.step),
        )
    return table


def _cell(node: NodeView, width: int) -> Text:
    """Return a node in `width` characters: rank, stage, and how far it is where there is room for that."""
    text = f"{node.rank:>3} {node.stage}"
    far = (
        percent(node.staged, node.to_stage)
        if node.stage == "staging"
        else ("" if node.step is None else str(node.step))
    )
    if len(text) + 1 + len(far) <= width:
        text = f"{text} {far}"
    return Text(shorten(text, width), style=STAGE_STYLES.get(node.stage, ""), no_wrap=True)


def _detail(node: NodeView) -> str:
    if node.to_stage and (node.stage == "staging" or figures.is_staging(node)):
        far = f"{percent(node.staged, node.to_stage)} of {format_size(node.to_stage)}"
        far += figures.rate(node.stage_rate, figures.seconds_left(node))
        return f" {far}" if node.stage == "staging" else f" (data {far})"
    return f" (code {node.exit_code})" if node.stage == "failed" else ""


def _training(view: RunView, losses: Sequence[float], width: int) -> list[Text]:
    parts = []
    if view.metrics:
        parts.append(Text(figures.training(view.metrics), style="bold"))
    room = min(width - 8, 80)
    if len(losses) > 1 and room >= NARROWEST_SPARK:
        parts.append(Text(f"loss {sparkline(losses, room)}", style="cyan"))
    return parts


def _broken(nodes: Sequence[NodeView]) -> list[Text]:
    """Return the last words of the first node that failed."""
    broken = next((node for node in nodes if node.stage in {"failed", "lost"} and node.tail), None)
    if broken is None:
        return []
    said = [Text(f"  [{broken.rank}] {clean(line)}", style="red") for line in broken.tail[-TAIL_LINES:]]
    return [Text(f"node {broken.rank} {broken.stage}:", style="bold red"), *said]
