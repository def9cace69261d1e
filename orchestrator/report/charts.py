"""Charts as inline SVG, drawn by pygal. Knows nothing of runs; the one module that imports pygal.

A chart takes its colours from the page (CSS variables `--c0` to `--c12`, `--ink`, `--muted`, `--rule`), so that one
drawing serves light, dark and print. It holds no script, no comment and no reference to anything outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from xml.etree import ElementTree

import pygal
from pygal.etree import etree
from pygal.style import Style

from orchestrator.report.text import clean

SVG = "http://www.w3.org/2000/svg"
# Small, so that letters stay readable where a page makes it as wide as a phone.
WIDTH, HEIGHT = 440, 280
ROW_HEIGHT, THIN_ROW, ROWS_HEIGHT = 15, 4, 330
LEGEND_ROW = 18
MOST_POINTS = 400
COLOURS = 13
FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"

# pygal would take lxml where it finds it; one kind of tree is enough.
etree.to_etree()

T = TypeVar("T")
Formatter = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart; a point without y interrupts it. `dashed`, `dots` and `width` are how it is drawn."""

    name: str
    points: Sequence[tuple[float, float | None]]
    colour: int | None = None
    dashed: bool = False
    dots: bool = False
    stroke: bool = True
    width: float = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """What surrounds the drawing: its title, what the axes are called, and the same in words for those who see none.

    `x_to` makes the x axis go from 0 to there, so that drawings side by side can be compared.
    """

    key: str
    title: str
    x_title: str
    y_title: str
    words: str
    x_format: Formatter = field(default="{:g}".format)
    y_format: Formatter = field(default="{:g}".format)
    x_to: float | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart: `svg` is safe to put into a page as it is."""

    key: str
    title: str
    words: str
    svg: str


def draw_lines(frame: Frame, lines: Sequence[Line], *, y_from_zero: bool = True, height: int = HEIGHT) -> Chart:
    """Return lines over a numeric x axis; at least one line must have a point."""
    ys = [y for line in lines for _, y in line.points if y is not None]
    low, high = min(ys), max(ys)
    if y_from_zero:
        low = min(low, 0.0)
    flat = high - low <= 1e-9 * max(abs(low), abs(high))
    span: dict[str, Any] = {"range": (low, low + (abs(low) or 1.0) if flat else high)}
    if frame.x_to:
        span["xrange"] = (0, frame.x_to)
    return _finish(frame, pygal.XY(**_options(frame, lines, height), **span), lines)


def draw_rows(frame: Frame, rows: int, lines: Sequence[Line]) -> Chart:
    """Return lines over rows that are numbered from 1, from top to bottom: y counts them from 0.

    With many rows they get thinner, and only some have their number.
    """
    height = max(THIN_ROW, min(ROW_HEIGHT, ROWS_HEIGHT / max(rows, 3)))
    step = math.ceil(ROW_HEIGHT / height)
    around = 80 + LEGEND_ROW * math.ceil(len(lines) / _columns(lines))
    chart = pygal.XY(
        **_options(frame, lines, around + round(height * max(rows, 3))),
        inverse_y_axis=True,
        range=(-0.7, rows - 0.3),
        xrange=(0, frame.x_to or 1),
        y_labels=[{"value": row, "label": str(row + 1) if row % step == 0 else ""} for row in range(rows)],
    )
    return _finish(frame, chart, [replace(line, width=0.6 * height) for line in lines])


def draw_bars(frame: Frame, bars: Sequence[tuple[str, float]]) -> Chart:
    """Return one upright bar for each name; with many names only some are written."""
    few = len(bars) <= 12
    chart = pygal.Bar(
        **_options(frame, [], HEIGHT) | {"show_legend": False},
        x_labels=[_text(name) for name, _ in bars],
        print_values=few,
        print_values_position="top",
        x_labels_major_count=None if few else 8,
        show_minor_x_labels=few,
    )
    chart.add(_text(frame.y_title), [value for _, value in bars])
    return _render(frame, chart)


def draw_lying_bars(frame: Frame, bars: Sequence[tuple[str, float]]) -> Chart:
    """Return one lying bar for each name, from top to bottom; for names that are long."""
    options = _options(frame, [], 110 + 26 * len(bars)) | {"show_legend": False, "max_scale": 3, "min_scale": 2}
    names = [_text(f"{name} {frame.y_format(value)}") for name, value in reversed(bars)]
    chart = pygal.HorizontalBar(**options, x_labels=names)
    chart.add(_text(frame.x_title), [value for _, value in reversed(bars)])
    return _render(frame, chart)


def thin(points: Sequence[T], most: int = MOST_POINTS) -> list[T]:
    """Return at most `most` of the points, evenly picked, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _options(frame: Frame, lines: Sequence[Line], height: int) -> dict[str, Any]:
    columns = _columns(lines)
    return {
        "width": WIDTH,
        "height": height,
        "style": _style([line.colour for line in lines]),
        "js": [],
        # pygal's own rule for `.reactive` would undo the width of a line.
        "css": [
            "file://style.css",
            "file://graph.css",
            f"inline:#chart-{frame.key} .series .line.reactive{{stroke-width:inherit}}",
        ],
        "x_title": frame.x_title,
        "y_title": frame.y_title,
        "x_value_formatter": frame.x_format,
        "value_formatter": frame.y_format,
        "show_legend": len(lines) > 1,
        "legend_at_bottom": True,
        "legend_at_bottom_columns": columns,
        "legend_box_size": 10,
        "truncate_legend": -1,
        "truncate_label": -1,
        "max_scale": 6,
        "margin": 8,
        # pygal leaves no room for a last row of the legend that is not full.
        "margin_bottom": 8 + (LEGEND_ROW + 4 if len(lines) % columns else 0),
        "spacing": 8,
        "show_x_guides": False,
        "dots_size": 2.5,
        "disable_xml_declaration": True,
    }


def _columns(lines: Sequence[Line]) -> int:
    """Return how many names of lines fit beside each other."""
    longest = max((len(line.name) for line in lines), default=0)
    return min(len(lines) or 1, 3 if longest <= 12 else 2 if longest <= 24 else 1)


def _style(colours: Sequence[int | None]) -> Style:
    wanted = [index if colour is None else colour for index, colour in enumerate(colours or [0])]
    return Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--muted)",
        foreground_strong="var(--ink)",
        foreground_subtle="var(--rule)",
        guide_stroke_color="var(--rule)",
        major_guide_stroke_color="var(--rule)",
        font_family=FONT,
        label_font_size=12,
        major_label_font_size=12,
        value_font_size=11,
        title_font_size=13,
        legend_font_size=12,
        no_data_font_size=14,
        opacity="1",
        stroke_opacity="1",
        colors=[f"var(--c{colour % COLOURS})" for colour in wanted],
        value_colors=["var(--ink)"] * len(wanted),
    )


def _finish(frame: Frame, chart: Any, lines: Sequence[Line]) -> Chart:
    for line in lines:
        stroke = {"width": line.width} | ({"dasharray": "5, 4"} if line.dashed else {})
        chart.add(
            _text(line.name),
            [point if point[1] is not None else None for point in line.points],
            stroke=line.stroke,
            stroke_style=stroke,
            show_dots=line.dots or _has_lonely(line),
            dots_size=4 if line.dots else 2.5,
            allow_interruptions=True,
        )
    return _render(frame, chart)


def _has_lonely(line: Line) -> bool:
    """Tell whether a point has no neighbour to draw a line to: it must be a dot to be seen."""
    known = [False, *(y is not None for _, y in line.points), False]
    return any(known[i] and not known[i - 1] and not known[i + 1] for i in range(1, len(known) - 1))


def _render(frame: Frame, chart: Any) -> Chart:
    chart.uuid = frame.key
    root = chart.render_tree()
    text = ElementTree.tostring(_bare(root, frame), encoding="unicode")
    return Chart(frame.key, frame.title, frame.words, text)


def _bare(root: ElementTree.Element, frame: Frame) -> ElementTree.Element:
    """Return the drawing without scripts, comments and tooltips, and with a name and words for screen readers."""
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else ""
            if tag in {"script", "desc"} or not tag or "tooltip" in child.get("class", "").split():
                parent.remove(child)
            else:
                child.attrib.pop("id", None)  # the same in every chart, and of use to scripts alone
    root.set("role", "img")
    root.set("aria-labelledby", f"{frame.key}-title {frame.key}-words")
    for child in root.findall("title") + root.findall(f"{{{SVG}}}title"):
        root.remove(child)
    for index, (tag, ending, words) in enumerate((("title", "title", frame.title), ("desc", "words", frame.words))):
        element = ElementTree.Element(tag, {"id": f"{frame.key}-{ending}"})
        element.text = _text(words)
        root.insert(index, element)
    return root


def _text(words: str) -> str:
    return clean(words)
