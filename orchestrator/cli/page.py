"""The page of a run that has ended: written to S3 and kept on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.cli.context import Place

if TYPE_CHECKING:
    from orchestrator.run.home import Home


def write_page(place: Place, home: Home, run_id: str) -> None:
    """Write `report.html` of a run. Raises OrchError."""
    from orchestrator.core.ids import Keys
    from orchestrator.report.html import render_page
    from orchestrator.run import prices
    from orchestrator.run.read import read_run

    view = read_run(place.session, place.bucket, run_id, history=True)
    page = render_page(view, prices.load(place.bucket, run_id))
    place.bucket.put(Keys(run_id).report_html, page.encode(), content_type="text/html; charset=utf-8")
    home.save_report(view.report(), page)


def has_page(place: Place, run_id: str) -> bool:
    """Tell whether it was written: a scheduler may die between the end of a run and its page. Raises OrchError."""
    from orchestrator.core.ids import Keys

    return place.bucket.head(Keys(run_id).report_html) is not None
