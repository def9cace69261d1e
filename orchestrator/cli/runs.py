"""Which run is meant: an exact id, a name (its newest run), an unambiguous prefix, or, when none is given, the newest.

Asks the clouds in reach and this machine's memory; changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.cli.context import Place, in_reach, open_place, wanted
from orchestrator.cli.options import ID_TAIL
from orchestrator.errors import BadInput, NotFound, OrchError

if TYPE_CHECKING:
    from orchestrator.run.home import Home
    from orchestrator.run.view import RunView

CANDIDATES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Found:
    """A run, and the cloud it is on: `place` None when that is out of reach, for which `error` is the reason."""

    run_id: str
    cloud: str
    place: Place | None
    error: OrchError | None = None

    def open(self) -> Place:
        """Return the cloud. Raises the reason why it is out of reach."""
        if self.place is None:
            raise self.error or NotFound(f"the cloud of {self.run_id} is out of reach", "`orch cost` may still know it")
        return self.place

    def read(self) -> RunView:
        """Return the run as it is now. Raises what `open` does, and NotFound when its cloud no longer has it."""
        from orchestrator.run.read import read_run

        place = self.open()
        return read_run(place.session, place.bucket, self.run_id)


def find_run(home: Home, text: str | None, flag: str | None) -> Found:
    """Return the run that `text` means, on any cloud in reach or remembered here.

    Raises NotFound when there is none, BadInput listing the candidates when there are several.
    """
    cached = {run.run_id: run.cloud for run in home.runs if flag is None or run.cloud == flag}
    if text in cached:
        return _found(home, text, cached[text], [])
    from orchestrator.run.read import list_runs

    places, errors = in_reach(home, flag)
    meant = wanted(home, flag)
    known = {run: cloud for run, cloud in cached.items() if meant in {None, cloud}}
    for place in places:
        try:
            known |= dict.fromkeys(list_runs(place.bucket), place.cloud)
        except OrchError as error:
            errors.append(error)
    if not known and errors:
        raise errors[0]
    try:
        run_id = choose(text, known)
    except NotFound:
        # It may be on the cloud that was asked for and cannot be asked.
        if errors and not places:
            raise errors[0] from None
        raise
    return _found(home, run_id, known[run_id], places)


def choose(text: str | None, run_ids: Iterable[str]) -> str:
    """Return the run id that `text` means among `run_ids`. Raises NotFound, BadInput."""
    ids = newest_first(run_ids)
    if not ids:
        raise NotFound("there are no runs yet", "`orch launch --cloud sandbox imagenet18` makes one for nothing")
    if text is None:
        return ids[0]
    named = [run_id for run_id in ids if name_of(run_id) == text]
    matching = [run_id for run_id in ids if run_id.startswith(text)]
    if text in ids or named:
        return text if text in ids else named[0]
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise NotFound(f"there is no run {text!r}", "`orch status` lists the runs")
    more = len(matching) - CANDIDATES_SHOWN
    shown = (*matching[:CANDIDATES_SHOWN], *([f"and {more} more"] if more > 0 else []))
    raise BadInput(
        f"{text!r} may be any of {len(matching)} runs", "give more of the id, or the whole name", details=shown
    )


def newest_first(run_ids: Iterable[str]) -> list[str]:
    """Return run ids in order of when they were launched, the newest first."""
    return sorted(run_ids, key=launched, reverse=True)


def launched(run_id: str) -> str:
    """Return the part of a run id that says when it was launched."""
    match = ID_TAIL.search(run_id)
    return match[0] if match else ""


def name_of(run_id: str) -> str:
    """Return the name in a run id."""
    return ID_TAIL.sub("", run_id)


def _found(home: Home, run_id: str, cloud: str, places: list[Place]) -> Found:
    for place in places:
        if place.cloud == cloud:
            return Found(run_id, cloud, place)
    try:
        return Found(run_id, cloud, open_place(home, cloud))
    except OrchError as error:
        return Found(run_id, cloud, None, error)
