"""The run's ledger as values: entries, and the state that replaying them gives. Pure.

Every mutation of the cloud is an `intent` here before it happens and an `outcome` after; what users ask of a running
run (stop, resume) is a `wish`. Replaying any prefix is safe: an intent without an outcome is simply done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from orchestrator.core.units import iso, parse_time

Kind = Literal["intent", "outcome", "wish"]
VerdictKind = Literal["finished", "stopped", "failed", "interrupted", "no-capacity", "capped"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One create-once object under `ledger/`. `action` names what is meant, `detail` its frozen request or result."""

    seq: int
    time: datetime
    epoch: int
    actor: str
    kind: Kind
    action: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the object's body."""
        value = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(value | {"time": iso(self.time)}, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, body: bytes) -> Entry:
        """Return the entry in `body`. Raises ValueError."""
        try:
            value = json.loads(body)
            value["time"] = parse_time(value["time"])
            return cls(**value)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a ledger entry: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why and how a generation ends; `code` is EC2's error code where there is one, `rank` the node to blame."""

    kind: VerdictKind
    message: str
    hint: str = ""
    code: str = ""
    rank: int | None = None
    details: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"details": list(self.details)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Verdict:
        """Return the verdict written by `to_json`."""
        return cls(**{**value, "details": tuple(value.get("details", ()))})


@dataclass(frozen=True, slots=True)
class Launch:
    """One RunInstances request and what came of it (`status` None: not known, it will be repeated as it is).

    `time` is when its outcome was known, that of the intent until then: a scheduler that died in between may have left
    the request unsent for as long as its successor took to come.
    """

    generation: int
    attempt: int
    offer: int
    request: Mapping[str, Any]
    time: datetime
    status: str | None = None
    code: str = ""
    message: str = ""
    instance_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the entries say of the current generation, and every launch ever made."""

    generation: int = 1
    generation_began: datetime | None = None
    launches: tuple[Launch, ...] = ()
    stop: Entry | None = None
    refused: Verdict | None = None
    verdict: Verdict | None = None
    verdict_time: datetime | None = None
    closed: bool = False
    last_seq: int = 0

    @property
    def current(self) -> tuple[Launch, ...]:
        """The launches of the current generation, in order."""
        return tuple(item for item in self.launches if item.generation == self.generation)

    @property
    def launched(self) -> Launch | None:
        """The launch of the current generation that gave instances, if any did."""
        return next((item for item in self.current if item.status == "launched"), None)


def replay(entries: Sequence[Entry]) -> LedgerState:
    """Return the state after `entries` (any order; sorted by `seq` here). Unknown actions are ignored.

    What a scheduler concludes counts for nothing once a later one has written: it slept over its conclusion, and the
    run may have gone on, or been resumed, meanwhile. Launches always count: EC2 may have got the request.
    """
    generation, closed = 1, False
    began = verdict_time = stop = refused = verdict = None
    launches: dict[tuple[int, int], Launch] = {}
    last = epoch = 0
    for entry in sorted(entries, key=lambda e: e.seq):
        last = entry.seq
        stale, epoch = 0 < entry.epoch < epoch, max(epoch, entry.epoch)
        began = began or entry.time
        match (entry.kind, entry.action):
            case ("wish", "resume") if closed:
                generation, began, closed = generation + 1, entry.time, False
                verdict_time = stop = refused = verdict = None
            case ("wish", "stop") if not closed and stop is None and not stale:
                stop = entry
            case ("intent", "launch"):
                made = _launch(entry)
                launches.setdefault((made.generation, made.attempt), made)
            case ("outcome", "launch"):
                key = (int(entry.detail["generation"]), int(entry.detail["attempt"]))
                if key in launches and launches[key].status is None:
                    launches[key] = _outcome(launches[key], entry)
            case ("outcome", "refused") if refused is None and not stale:
                refused = Verdict.from_json(entry.detail["verdict"])
            case ("intent", "end") if verdict is None and not stale:
                verdict, verdict_time = Verdict.from_json(entry.detail["verdict"]), entry.time
            case ("outcome", "close") if entry.detail.get("generation") == generation and not stale:
                closed = True
    ordered = tuple(launches[key] for key in sorted(launches))
    return LedgerState(generation, began, ordered, stop, refused, verdict, verdict_time, closed, last)


def _launch(entry: Entry) -> Launch:
    detail = entry.detail
    return Launch(
        int(detail["generation"]), int(detail["attempt"]), int(detail["offer"]), detail["request"], entry.time
    )


def _outcome(launch: Launch, entry: Entry) -> Launch:
    detail = entry.detail
    return Launch(
        launch.generation,
        launch.attempt,
        launch.offer,
        launch.request,
        entry.time,
        str(detail["status"]),
        str(detail.get("code", "")),
        str(detail.get("message", "")),
        tuple(detail.get("instance_ids", ())),
    )
