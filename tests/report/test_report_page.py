"""`report.html`: well-formed, self-contained, escaped, every chart named and labelled, whatever a run did or said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestrator.core.ledger import Recovery, Verdict
from orchestrator.core.spec import Identity
from orchestrator.report.html import render_page
from orchestrator.run.view import RunView
from tests.core.worlds import T0, at, facts
from tests.report.report_runs import ROWS, gang, history, interrupted_run, line, told
from tests.report.views import ended, launched, running, view

SVG = "{http://www.w3.org/2000/svg}"
VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})
TITLES = (
    "Dollars spent", "Price of p3.16xlarge", "Nodes", "Where the money went", "Loss over time", "Loss over dollars",
    "Accuracy over time", "Accuracy over dollars", "Dollars of each epoch",
)  # fmt: skip
EVIL = "</pre><script>alert(1)</script><img src=//evil.example onerror=x>\"'&\x1b[31m\u202e{{ 7 * 7 }}"


class Balanced(HTMLParser):
    """Reads a page and fails where elements are not closed in order; keeps the tags, the attributes and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def drawings(page: str) -> list[ElementTree.Element]:
    """Return the charts of a page, parsed as the XML they are."""
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg .*?</svg>", page, re.DOTALL)]  # noqa: S314


def check(page: str) -> list[ElementTree.Element]:
    """Check what holds for every page, and return its charts."""
    read = Balanced(page)
    assert read.tags.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form", "a", "use", "image"})
    for name, value in read.attributes:
        assert not name.startswith("on"), name
        assert name not in {"src", "href", "xlink:href", "srcset", "action"}, (name, value)
    assert "url(" not in page
    assert "@import" not in page
    assert set(re.findall(r"\w+://[^\"'\s<]*", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    charts = drawings(page)
    assert page.count("<figure>") == len(charts)
    ids = [value for name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for chart in charts:
        check_chart(chart)
    return charts


def check_chart(chart: ElementTree.Element) -> None:
    """Check that a chart has a name, words for those who do not see it, axes with names and labels, and a drawing."""
    assert chart.get("role") == "img"
    title, words = chart[0], chart[1]
    assert chart.get("aria-labelledby") == f"{title.get('id')} {words.get('id')}"
    assert (title.text or "").strip()
    assert len((words.text or "").split()) >= 2
    named = [text for text in chart.iter(f"{SVG}text") if "title" in text.get("class", "").split()]
    assert len(named) == 2, "an axis has no name"
    assert all("".join(text.itertext()).strip() for text in named)
    plot = [item for item in chart.iter() if "series" in item.get("class", "").split()]
    shapes = [shape for part in plot for shape in part.iter() if shape.tag[len(SVG) :] in {"path", "circle", "rect"}]
    assert shapes, "nothing is drawn"
    assert "nan" not in ElementTree.tostring(chart, encoding="unicode").lower()


def titles(charts: Sequence[ElementTree.Element]) -> tuple[str, ...]:
    return tuple(str(chart[0].text) for chart in charts)


@pytest.fixture(scope="module")
def page() -> str:
    """The page of the run with an interruption."""
    return render_page(interrupted_run(), ROWS)


def test_every_chart_is_there_named_and_labelled(page: str) -> None:
    assert set(titles(check(page))) == set(TITLES)


def test_the_page_tells_bill_plan_experiment_commit_and_diff(page: str) -> None:
    text = Balanced(page).text
    run = interrupted_run()
    for expected in (
        run.bill.to_json()["spot_usd_high"],
        run.bill.to_json()["on_demand_usd"],
        "taken by EC2",
        "4 x p3.16xlarge spot us-east-1a",
        "0123456789abcdef",
        "+lr = 0.4",
        "instance_type: p3.16xlarge",
        "best top-5",
        "work done twice",
    ):
        assert expected in text, expected


def test_the_timeline_marks_what_was_taken_and_what_came_instead(page: str) -> None:
    [nodes] = [chart for chart in drawings(page) if chart[0].text == "Nodes"]
    legends = {"".join(text.itertext()) for text in nodes.iter(f"{SVG}text")}
    assert {"training", "work done twice", "taken by EC2", "replacement"} <= legends
    assert chart_words(nodes) == "5 nodes over time; 1 taken by EC2, 1 launched after that."


def chart_words(chart: ElementTree.Element) -> str:
    return str(chart[1].text)


def test_markup_from_outside_is_shown_and_never_obeyed() -> None:
    run = told([replace(item, zone=EVIL) for item in gang()], history(), rows=[replace(r, zone=EVIL) for r in ROWS])
    identity = Identity(EVIL, EVIL, commit=EVIL, diff=f"+{EVIL}\n-{EVIL}\n")
    verdict = Verdict("failed", EVIL, details=(EVIL, f"[0] {EVIL}"))
    run = replace(run, spec=replace(run.spec, identity=identity), ledger=replace(run.ledger, verdict=verdict))
    text = render_page(run, [replace(row, zone=EVIL) for row in ROWS])
    check(text.replace("//evil.example", ""))
    assert "<script>alert(1)</script>" in Balanced(text).text
    assert "{{ 7 * 7 }}" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def empty(seconds: float = 60) -> RunView:
    """Return a run that launched nothing."""
    return view(launched(0), facts(seconds), num_nodes=2)


ONE = [line(300, 1, loss=2.5, top1=10.0, epoch=1)]
CASES: Mapping[str, tuple[RunView, Sequence[Any]]] = {
    "nothing launched": (empty(), ()),
    "no prices, no metrics": (told(gang(), (), rows=()), ()),
    "one line": (told(gang(), ONE), ROWS),
    "one instance, no beacon": (told(gang()[4:], ()), ROWS[:1]),
    "still running": (running(2, 100, history=[line(50, 1, loss=1.0)]), ROWS),
    "ended at once": (ended(Verdict("failed", "boot"), 2, 11), ()),
    "on-demand": (told([replace(item, lifecycle="on-demand") for item in gang()], history()), ()),
    "two types": (told([*gang()[:2], replace(gang()[3], instance_type="p4d.24xlarge")], history()), ROWS),
    "sixty-four nodes": (told([replace(gang()[0], instance_id=f"i-{n}") for n in range(64)], history()), ROWS),
    "one line of each start": (
        told(gang(), [line(300, 9, loss=3.0, top5=1.0), line(900, 5, loss=2.0), line(950, 3, loss=2.5)]),
        ROWS,
    ),
    "constant loss": (told(gang(), [line(300 + n, n, loss=0.0) for n in range(3)]), ROWS),
    "enormous and tiny": (
        told(gang(), [line(300 + n, n, loss=v, epoch=v) for n, v in enumerate((1e300, -1e300, 3e-286, 1, 1 + 1e-15))]),
        ROWS,
    ),
    "own accuracy": (told(gang(), [line(300 + n, n, accuracy=n / 3) for n in range(3)]), ROWS),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_has_little_to_show_still_has_its_page(case: str) -> None:
    run, rows = CASES[case]
    check(render_page(run, rows))


def test_why_a_node_was_replaced_is_told_with_its_time() -> None:
    cause = f"node 1 (i-1) is unfit to train: it stopped answering {EVIL}"
    lost = Recovery(1, "lost", cause, {"i-0": 0}, (), 1, 0, graceful=False, trained=False, size=2)
    run = running(2, 100)
    book = launched(2).add("intent", "recover", 90, **lost.to_json())
    text = Balanced(render_page(replace(run, ledger=book.state), ROWS)).text
    assert "12:01:30 UTC" in text
    assert "node 1 (i-1) is unfit to train: it stopped answering" in text
    assert "1 of 2 nodes stay, generation 2" in text
    assert "What happened on the way" not in Balanced(render_page(run, ROWS)).text


def test_what_cannot_be_drawn_is_said() -> None:
    text = Balanced(render_page(told(gang(), (), rows=()), ())).text
    assert "No loss was told in the progress lines." in text
    assert "No accuracy was told in the progress lines." in text
    assert "unknown" in text


# A page takes a tenth of a second: shrinking a failure would take minutes.
QUICK = settings(deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5), st.floats(), st.integers(), st.lists(st.integers(), max_size=2)
)
FIGURES = ("step", "epoch", "loss", "top1", "top5", "event", "seconds", "generation")
ODD_LINES = st.lists(
    st.fixed_dictionaries(
        {"time": st.one_of(ODD, st.floats(0, 4000).map(lambda s: T0.timestamp() + s))},
        optional=dict.fromkeys(FIGURES, st.one_of(ODD, st.floats(-10, 1e6), st.sampled_from(["eval", "start"]))),
    ),
    max_size=8,
)


@settings(QUICK, max_examples=25)
@given(ODD_LINES)
def test_whatever_a_script_writes_the_page_is_well_formed(lines: list[dict[str, Any]]) -> None:
    check(render_page(told(gang(), lines), ROWS))


@settings(QUICK, max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 4000), st.booleans()), min_size=1, max_size=6))
def test_nodes_may_begin_and_end_at_any_time(stays: list[tuple[int, int, bool]]) -> None:
    nodes = [
        replace(
            gang()[0],
            instance_id=f"i-{index}",
            launch_time=at(begin),
            end_time=at(begin + lived),
            end_reason="Server.SpotInstanceTermination" if taken else "Client.UserInitiatedShutdown",
            generation=index + 1,
        )
        for index, (begin, lived, taken) in enumerate(stays)
    ]
    check(render_page(told(nodes, history(), seconds=8000), ROWS))
