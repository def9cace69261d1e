"""The end of a run that packed a data set, whichever command saw it: its parts are put together, and that is said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.cli.dataset_progress import shown, tell_built

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.datasets.joining import Packing
    from orchestrator.run.view import RunView


def packing_of(view: RunView) -> Packing | None:
    """Return what the nodes of a run pack, None of any other run."""
    from orchestrator.datasets.joining import Packing
    from orchestrator.datasets.sharded import packing_of

    found = packing_of(view.spec.experiment.run)
    return None if found is None else Packing(view.spec.run_id, *found)


def conclude_packing(view: RunView, *, as_json: bool) -> None:
    """Print the bill and how such a run ended; of JSON the last line is the data set. Raises OrchError if it failed."""
    from orchestrator.cli.outcome import conclude, raise_unless_done

    if not as_json:
        conclude(view, as_json=False)
    elif view.verdict is not None:
        raise_unless_done(view.verdict)


def put_together(place: Place, packing: Packing, *, as_json: bool) -> None:
    """Make a data set of the parts that a run packed, and say so. Raises OrchError."""
    from orchestrator.datasets.joining import join

    with shown(as_json=as_json) as progress:
        built = join(packing, place.session, place.bucket, datetime.now(UTC), progress)
    tell_built(built, "put together", as_json=as_json, run=packing.run)
