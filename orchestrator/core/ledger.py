"""The run's ledger as values: entries, and the state that replaying them gives. Pure.

Every mutation of the cloud is an `intent` here before it happens and an `outcome` after; what users ask of a running
run (stop, extend, resume) is a `wish`. Replaying any prefix is safe: an intent without an outcome is simply done again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from orchestrator.core.units import MicroUSD, format_duration, iso, parse_time, usd
from orchestrator.core.volumes import DataVolume

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

    `count` is how many instances it asks for, None for the whole gang; `least` how many of them will do, None for all.
    A `spare` one is for a gang that trains with fewer: what it gives joins in a later generation. `time` is when its
    outcome was known, that of the intent until then: a scheduler that died in between may have left the request unsent
    for long. `asked` is that of the intent.
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
    count: int | None = None
    asked: datetime | None = None
    least: int | None = None
    spare: bool = False

    @property
    def refused(self) -> bool:
        """Whether EC2 gave no instances."""
        return self.status not in {None, "launched"}


@dataclass(frozen=True, slots=True)
class Recovery:
    """How one generation is given up in favour of the next: a loss, a failure, or `grown`, when spares join.

    Frozen in the ledger before anything follows from it.

    `generation` is the one that ends, `cause` a plain sentence. `kept` maps the instances that go on to their ranks;
    none are kept when the gang moves. `going` are those that EC2 has announced to take, or that are let go once they
    have saved. `missing` is how many instances are to be launched beside those on `offer` (an index into the spec's
    offers), by the offers of `asks` in this order, by `offer` itself where there are none. `graceful` says that the
    training ends by itself, with a checkpoint; `trained` that it had begun. `size` is how many nodes it had. `unfit`
    maps the instances that the checks before the training found so to the reason: who said it may be the others, which
    speak of the next generation soon.
    """

    generation: int
    kind: Literal["interrupted", "lost", "failed", "grown"]
    cause: str
    kept: Mapping[str, int]
    going: tuple[str, ...]
    missing: int
    offer: int
    graceful: bool
    trained: bool
    size: int
    asks: tuple[int, ...] = ()
    time: datetime | None = None
    unfit: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; the time is that of the entry."""
        value = {name: getattr(self, name) for name in self.__slots__ if name != "time"}
        maps = {"kept": dict(self.kept), "unfit": dict(self.unfit)}
        return value | maps | {"going": list(self.going), "asks": list(self.asks)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], time: datetime) -> Recovery:
        """Return the recovery written by `to_json`."""
        lists = {name: tuple(value.get(name, ())) for name in ("going", "asks")}
        return cls(**{**value, **lists, "time": time})


@dataclass(frozen=True, slots=True)
class CapChange:
    """Other caps, asked for by somebody; None leaves one as it is."""

    time: datetime
    by: str
    max_cost: MicroUSD | None
    max_duration: timedelta | None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: dollars as a string, the duration as people write it."""
        return {
            "time": iso(self.time),
            "by": self.by,
            "max_cost_usd": None if self.max_cost is None else usd(self.max_cost),
            "max_duration": None if self.max_duration is None else format_duration(self.max_duration),
        }


@dataclass(frozen=True)
class LedgerState:
    """What the entries say of the current generation, and every launch ever made.

    `generation_began` is when the run was launched or last resumed: a recovery begins a generation, but no new time to
    spend. `recoveries` are those since then. `restore_step` is the checkpoint that all nodes of this generation start
    from, None before the first of them is started and where there is none (`restore_known` tells the two apart).
    `max_cost` and `max_duration` are the caps that users asked for since the launch, in place of the experiment's; they
    hold for all generations to come (None: nobody did); `cap_changes` are the wishes that said so, in order.
    `image` and `volumes` are what a resume found in place of the spec's, which are gone (none: nothing was).
    `closed_at` is when nothing of the run was observed any more.
    `let_go` are instances that were meant to be terminated, whatever EC2 still shows of them.
    """

    generation: int = 1
    generation_began: datetime | None = None
    launches: tuple[Launch, ...] = ()
    stop: Entry | None = None
    refused: Verdict | None = None
    verdict: Verdict | None = None
    verdict_time: datetime | None = None
    closed: bool = False
    closed_at: datetime | None = None
    last_seq: int = 0
    recoveries: tuple[Recovery, ...] = ()
    restore_step: int | None = None
    restore_known: bool = False
    max_cost: MicroUSD | None = None
    max_duration: timedelta | None = None
    cap_changes: tuple[CapChange, ...] = ()
    image: str = ""
    volumes: tuple[DataVolume, ...] = ()
    let_go: frozenset[str] = frozenset()

    @cached_property
    def first_generation(self) -> int:
        """The generation that the launch or the last resume began."""
        return self.generation - len(self.recoveries)

    def ended_by(self, recovery: Recovery) -> LedgerState:
        """Return the state of the generation that one of the `recoveries` ended, as far as its gang goes."""
        before = self.recoveries[: self.recoveries.index(recovery)]
        return replace(self, generation=recovery.generation, recoveries=before)

    @cached_property
    def resumed(self) -> bool:
        """Whether the run was resumed since its launch."""
        return self.first_generation > 1

    @cached_property
    def trained(self) -> bool:
        """Whether the training may have begun in an earlier generation: not while all were given up when checked."""
        return self.resumed or not all(item.unfit and not item.trained for item in self.recoveries)

    @cached_property
    def current(self) -> tuple[Launch, ...]:
        """The launches that are to man the current generation, in order."""
        return tuple(item for item in self.launches if item.generation == self.generation and not item.spare)

    @cached_property
    def attempts(self) -> int:
        """How many launches the current generation has, spares among them."""
        return sum(item.generation == self.generation for item in self.launches)

    @cached_property
    def launched(self) -> Launch | None:
        """The launch of the current generation that gave it instances, if any did."""
        return next((item for item in self.current if item.status == "launched"), None)

    @cached_property
    def spares(self) -> Mapping[str, datetime]:
        """When the instances were launched that have not joined yet, by id; none of a gang that moves."""
        if self.moved and not self.manned:
            return {}
        gone = {*self.let_go, *(instance_id for item in self.recoveries for instance_id in item.kept)}
        mine = (item for item in self.launches if item.spare and item.generation >= self.first_generation)
        return {i: item.time for item in mine for i in item.instance_ids if i not in gone}

    @cached_property
    def recovery(self) -> Recovery | None:
        """The recovery that began the current generation, None for one that was launched as a whole."""
        last = self.recoveries[-1] if self.recoveries else None
        return last if last is not None and last.generation == self.generation - 1 else None

    @cached_property
    def moved(self) -> bool:
        """Whether the whole gang is launched anew: nothing was kept, or there is no room beside what was kept."""
        recovery = self.recovery
        if recovery is None or not recovery.kept:
            return True
        return self.asked_beside >= max(1, len(recovery.asks))

    @cached_property
    def asked_beside(self) -> int:
        """How many times EC2 refused what is missing beside the instances that were kept."""
        return sum(item.count is not None and item.refused for item in self.current)

    @cached_property
    def kept(self) -> Mapping[str, int]:
        """The ranks of the instances that this generation has from the one before."""
        recovery = self.recovery
        return {} if recovery is None or self.moved else recovery.kept

    @cached_property
    def manned(self) -> bool:
        """Whether this generation has all its instances."""
        return self.launched is not None or (
            bool(self.kept) and self.recovery is not None and not self.recovery.missing
        )

    @cached_property
    def offer(self) -> int | None:
        """The offer that the gang runs on, None before there is one."""
        if self.launched is not None:
            return self.launched.offer
        return self.recovery.offer if self.kept and self.recovery is not None else None


def meaning_of(stop: Entry) -> tuple[Literal["capped", "stopped"], str]:
    """Return what kind of end a wish to stop asks for, and why."""
    return "capped" if stop.detail.get("cap") else "stopped", str(stop.detail.get("reason", "asked to stop"))


def replay(entries: Sequence[Entry]) -> LedgerState:
    """Return the state after `entries` (any order; sorted by `seq` here). Unknown actions are ignored.

    What a scheduler concludes, or means to launch, counts for nothing once a later one has written: it slept over it,
    and the run may have gone on, or been resumed, meanwhile; before it tells EC2 anything it finds its lease lost. What
    came of a launch always counts.
    """
    launches: dict[tuple[int, int], Launch] = {}
    epoch = 0
    ordered = sorted(entries, key=lambda e: e.seq)
    state = LedgerState(generation_began=ordered[0].time, last_seq=ordered[-1].seq) if ordered else LedgerState()
    for entry in ordered:
        stale, epoch = 0 < entry.epoch < epoch, max(epoch, entry.epoch)
        match (entry.kind, entry.action):
            case ("intent", "launch") if not stale:
                made = _launch(entry)
                launches.setdefault((made.generation, made.attempt), made)
            case ("outcome", "launch"):
                key = (int(entry.detail["generation"]), int(entry.detail["attempt"]))
                if key in launches and launches[key].status is None:
                    launches[key] = _outcome(launches[key], entry)
            case _ if not stale:
                state = _apply(state, entry)
    return replace(state, launches=tuple(launches[key] for key in sorted(launches)))


def _apply(state: LedgerState, entry: Entry) -> LedgerState:  # noqa: PLR0911 - one a kind of entry
    """Return the state after an entry that is of no launch; one that came too late changes nothing."""
    detail = entry.detail
    match (entry.kind, entry.action):
        case ("wish", "resume") if state.closed:
            fresh = LedgerState(state.generation + 1, entry.time, last_seq=state.last_seq)
            kept = replace(
                fresh, max_cost=state.max_cost, max_duration=state.max_duration, cap_changes=state.cap_changes
            )
            volumes = tuple(DataVolume.from_json(item) for item in detail.get("volumes", ())) or state.volumes
            return _with_caps(replace(kept, image=detail.get("image", state.image), volumes=volumes), entry)
        case ("wish", "extend") if not state.closed:
            return _with_caps(state, entry)
        case ("wish", "stop") if not state.closed and state.stop is None:
            return replace(state, stop=entry)
        case ("outcome", "refused") if state.refused is None:
            return replace(state, refused=Verdict.from_json(detail["verdict"]))
        case ("intent", "recover") if state.verdict is None and detail["generation"] == state.generation:
            return replace(
                state,
                generation=state.generation + 1,
                recoveries=(*state.recoveries, Recovery.from_json(detail, entry.time)),
                restore_step=None,
                restore_known=False,
            )
        case ("intent", "start") if not state.restore_known and detail["generation"] == state.generation:
            return replace(state, restore_step=detail["restore_step"], restore_known=True)
        case ("intent", "terminate"):
            return replace(state, let_go=state.let_go | {*detail["instance_ids"]})
        case ("intent", "end") if state.verdict is None:
            return replace(state, verdict=Verdict.from_json(detail["verdict"]), verdict_time=entry.time)
        case ("outcome", "close") if detail.get("generation") == state.generation:
            return replace(state, closed=True, closed_at=parse_time(detail.get("ended", iso(entry.time))))
    return state


def _with_caps(state: LedgerState, wish: Entry) -> LedgerState:
    """Return the state with the caps of a wish: `max_cost` in micro-dollars, `max_duration` in seconds."""
    cost, seconds = wish.detail.get("max_cost"), wish.detail.get("max_duration")
    if cost is None and seconds is None:
        return state
    limit = None if seconds is None else timedelta(seconds=seconds)
    change = CapChange(wish.time, wish.actor, None if cost is None else int(cost), limit)
    return replace(
        state,
        max_cost=state.max_cost if change.max_cost is None else change.max_cost,
        max_duration=state.max_duration if limit is None else limit,
        cap_changes=(*state.cap_changes, change),
    )


def _launch(entry: Entry) -> Launch:
    detail = entry.detail
    return Launch(
        int(detail["generation"]),
        int(detail["attempt"]),
        int(detail["offer"]),
        detail["request"],
        entry.time,
        count=detail.get("count"),
        asked=entry.time,
        least=detail.get("least"),
        spare=bool(detail.get("spare")),
    )


def _outcome(launch: Launch, entry: Entry) -> Launch:
    detail = entry.detail
    return replace(
        launch,
        time=entry.time,
        status=str(detail["status"]),
        code=str(detail.get("code", "")),
        message=str(detail.get("message", "")),
        instance_ids=tuple(detail.get("instance_ids", ())),
    )
