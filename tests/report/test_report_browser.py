"""`report.html` in a real browser: three widths, light and dark: nothing on the console, nothing outside, all drawn.

The page stands unchanged in frames of these widths; the document around them measures it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.html import render_page
from tests.report.report_runs import ROWS, interrupted_run
from tests.report.test_report_page import TITLES

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1400,1000",
)  # fmt: skip
WIDTHS = (360, 768, 1280)
DARK = {"light": False, "dark": True}
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)")
MEASURE = """
const measure = frame => {
  const doc = frame.contentDocument, view = frame.contentWindow, charts = [...doc.querySelectorAll('svg')];
  const inside = (text, svg) => {
    const a = text.getBoundingClientRect(), b = svg.getBoundingClientRect();
    const across = a.left >= b.left - 1 && a.right <= b.right + 1;
    return !a.width || (across && a.top >= b.top - 1 && a.bottom <= b.bottom + 1);
  };
  const cuts = charts.flatMap(svg =>
    [...svg.querySelectorAll('text')].filter(text => !inside(text, svg)).map(text => text.textContent));
  const met = charts.flatMap(svg => {
    const boxes = [...svg.querySelectorAll('.axis.x text')].map(text => text.getBoundingClientRect());
    boxes.sort((a, b) => a.left - b.left);
    return boxes.slice(1).filter((box, i) => box.width && box.left < boxes[i].right);
  });
  const empty = charts.filter(svg => ![...svg.querySelectorAll('.series *')].some(mark => {
    const box = mark.getBoundingClientRect();
    return box.width + box.height > 0;
  }));
  return {
    width: frame.clientWidth,
    overflow: doc.documentElement.scrollWidth - doc.documentElement.clientWidth,
    paper: view.getComputedStyle(doc.body).backgroundColor,
    ink: view.getComputedStyle(doc.body).color,
    titles: [...doc.querySelectorAll('figcaption')].map(item => item.textContent),
    smallest: Math.min(...charts.map(svg => svg.getBoundingClientRect().width)),
    letters: Math.min(...charts.map(svg => 12 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)),
    cut: cuts, empty: empty.length, met: met.length,
  };
};
onload = () => {
  document.getElementById('found').textContent = JSON.stringify([...document.querySelectorAll('iframe')].map(measure));
};
"""


def visit(folder: Path, page: str, *, dark: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what each frame measured, and what the browser wrote on its console."""
    frames = "".join(f'<iframe width="{width}" height="900" srcdoc="{escape(page)}"></iframe>' for width in WIDTHS)
    file = folder / "frames.html"
    head = "<!doctype html><meta charset=utf-8><meta name=color-scheme content='light dark'>"
    file.write_text(f"{head}<script>{MEASURE}</script><pre id=found></pre>{frames}")
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [str(BROWSER), *FLAGS, scheme, f"--user-data-dir={folder / 'profile'}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None
    return json.loads(unescape(found[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("scheme", DARK)
def test_a_browser_shows_everything_at_every_width(scheme: str, tmp_path: Path) -> None:
    found, console = visit(tmp_path, render_page(interrupted_run(), ROWS), dark=DARK[scheme])
    assert console == []
    assert [frame["width"] for frame in found] == list(WIDTHS)
    for frame in found:
        assert frame["overflow"] <= 0, frame
        assert set(frame["titles"]) == set(TITLES)
        assert (frame["cut"], frame["empty"], frame["met"]) == ([], 0, 0), frame
        assert frame["smallest"] > 0.8 * min(frame["width"], 360), frame
        assert frame["letters"] > 7.5, frame
        assert light(frame["paper"]) is not DARK[scheme]
        assert light(frame["ink"]) is DARK[scheme]


def test_the_console_is_read(tmp_path: Path) -> None:
    page = render_page(interrupted_run(), ROWS).replace("<main>", "<main><img src='file:///nowhere.png'>")
    assert visit(tmp_path, page, dark=False)[1] != []


def light(colour: str) -> bool:
    """Tell whether a CSS colour `rgb(r, g, b)` is a light one."""
    return sum(map(int, re.findall(r"\d+", colour)[:3])) > 3 * 128
