"""The node of rank 0 while the gang is checked: it gathers the nodes, has them measure each other, and judges.

Not a cluster manager: one connection a node, a few orders in lockstep, and it is gone before the training starts.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.agent.links import Line
from orchestrator.core.fitness import clock_checks, gang_notes, judge, next_pairs
from orchestrator.core.preflight import Check, Findings

HELLO_SECONDS = 5.0
# An order is done within a second or two, or by a node that is unfit, or on a machine that sixteen share.
ORDER_SECONDS = {"link": 45.0, "ring": 45.0, "torch": 150.0}
TELL_EVERY = 1.0
NO_TORCH = "no all-reduce by torch.distributed: it is not there, or failed; the log has what it said"


@dataclass
class Member:
    """A node that has joined: the line to it, where its peers reach it, its clock against this one's, its looks."""

    line: Line
    address: str
    port: int
    clock: float
    checks: tuple[Check, ...] = ()
    seen: Findings = field(default_factory=Findings)
    answered: bool = True


class Hub:
    """One gathering of a gang that `word` names, of its `addresses` in order of rank.

    `on_missing` hears, again and again, which ranks have not come yet.
    """

    def __init__(
        self,
        addresses: tuple[str, ...],
        port: int,
        word: str,
        expected: float,
        on_missing: Callable[[tuple[int, ...]], None],
    ) -> None:
        self._addresses = addresses
        self._word = word
        self._expected = expected
        self._on_missing = on_missing
        self._listener = socket.create_server((addresses[0], port), backlog=256)
        self._members: dict[int, Member] = {}
        self._orders = 0

    def run(self, seconds: float, torch: bool) -> None:
        """Gather the gang, check it, and tell every node the end. Raises OSError when it does not come together."""
        with self._listener:
            self._gather(seconds)
        began = time.monotonic()
        turn = 0
        while who := next_pairs(self._findings, turn, self._expected):
            self._measure_pairs(who)
            turn += 1
        all_reduce = self._all_reduce("ring")
        by_torch = self._all_reduce("torch") if torch else None
        if torch and by_torch is None:
            self._ask_torch_alone()
        unfit = judge(self._findings, self._expected)
        notes = gang_notes(self._findings, all_reduce, self._expected)
        if torch and by_torch is None:
            notes = (*notes, NO_TORCH)
        seconds_taken = round(time.monotonic() - began, 3)
        for rank, member in self._members.items():
            end = {
                "do": "end",
                "unfit": {str(rank): why for rank, why in unfit.items()},
                "notes": notes,
                "all_reduce": all_reduce,
                "torch": by_torch,
                "links": {str(other): rate for other, rate in member.seen.links.items()},
                "clock": list(_fields(clock_checks(self._clocks)[rank])),
                "seconds": seconds_taken,
            }
            self._tell(member, end)

    @property
    def _clocks(self) -> Mapping[int, float]:
        return {rank: member.clock for rank, member in self._members.items()}

    @property
    def _findings(self) -> dict[int, Findings]:
        clocks = clock_checks(self._clocks)
        return {
            rank: replace(member.seen, checks=(*member.checks, clocks[rank]), answered=member.answered)
            for rank, member in self._members.items()
        }

    def _gather(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        told = 0.0
        while missing := self._missing():
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"nodes {missing} did not come")
            if now - told > TELL_EVERY:
                told = now
                self._on_missing(missing)
            self._listener.settimeout(TELL_EVERY)
            try:
                link, (address, *_) = self._listener.accept()
            except TimeoutError:
                continue
            self._welcome(link, address)

    def _missing(self) -> tuple[int, ...]:
        """Return the ranks that have not come, or have hung up again."""
        self._members = {rank: member for rank, member in self._members.items() if not member.line.broken}
        return tuple(rank for rank in range(len(self._addresses)) if rank not in self._members)

    def _welcome(self, link: socket.socket, address: str) -> None:
        """Take in a node that says the right word; of one that comes again the newer line counts."""
        line = Line(link)
        try:
            said = line.receive(HELLO_SECONDS)
            rank = int(said["rank"])
            if said["word"] != self._word or not 0 <= rank < len(self._addresses):
                raise ValueError("not of this gang")
            checks = tuple(Check(*map(str, item)) for item in said["checks"])  # type: ignore[arg-type]
            member = Member(line, self._addresses[rank], int(said["port"]), float(said["time"]) - time.time(), checks)
        except (OSError, ValueError, KeyError, TypeError):
            line.close()
            return
        if rank in self._members:
            self._members[rank].line.close()
        self._members[rank] = member

    def _measure_pairs(self, who: Mapping[int, int]) -> None:
        self._orders += 1
        for rank, other in who.items():
            peer = self._members[other]
            self._tell(
                self._members[rank],
                {
                    "do": "link",
                    "order": self._orders,
                    "calls": rank < other,
                    "address": peer.address,
                    "port": peer.port,
                },
            )
        for rank, rate in self._answers("link", list(who)).items():
            member = self._members[rank]
            member.seen = member.seen.looked_at(who[rank], rate)

    def _all_reduce(self, what: str) -> float | None:
        """Return the lowest bandwidth (bytes/s) that any node saw, None when it did not work."""
        ranks = sorted(rank for rank, member in self._members.items() if member.answered)
        if len(ranks) < 2:
            return None
        self._orders += 1
        for index, rank in enumerate(ranks):
            onward = self._members[ranks[(index + 1) % len(ranks)]]
            self._tell(
                self._members[rank],
                {
                    "do": what,
                    "order": self._orders,
                    "index": index,
                    "nodes": len(ranks),
                    "address": onward.address,
                    "port": onward.port,
                    "first": self._members[ranks[0]].address,
                },
            )
        rates = self._answers(what, ranks).values()
        return min(rates) if rates and min(rates) > 0 else None

    def _ask_torch_alone(self) -> None:
        """Find who spoils the all-reduce: a node that fails at one of its own, where others do not, is unfit."""
        ranks = [rank for rank, member in self._members.items() if member.answered]
        for rank in ranks:
            alone = {"do": "torch", "order": 0, "index": 0, "nodes": 1, "first": self._members[rank].address}
            self._tell(self._members[rank], alone)
        rates = self._answers("torch", ranks)
        failed = [rank for rank, rate in rates.items() if not rate]
        if 2 * len(failed) < len(rates):
            for rank in failed:
                broken = Check("torch", "fail", "an all-reduce among its own processes fails")
                self._members[rank].checks = (*self._members[rank].checks, broken)

    def _answers(self, what: str, ranks: list[int]) -> dict[int, float]:
        """Return what nodes measured; one that does not answer any more is left out from now on."""
        deadline = time.monotonic() + ORDER_SECONDS[what]
        rates = {}
        for rank in ranks:
            member = self._members[rank]
            if member.answered:
                try:
                    rates[rank] = float(member.line.receive(max(0.1, deadline - time.monotonic()))["rate"])
                except (OSError, ValueError, KeyError, TypeError):
                    member.answered = False
        return rates

    def _tell(self, member: Member, what: Mapping[str, Any]) -> None:
        try:
            member.line.send(what)
        except OSError:
            member.answered = False


def _fields(check: Check) -> tuple[str, str, str]:
    return check.name, check.state, check.detail
