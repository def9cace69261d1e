"""What nodes answered that were asked by SSH because they fell silent. Judges nobody: that is `core.health`'s.

Moments are seconds of any clock that only goes forward.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

# Who answered is left alone for so many seconds.
ASK_AGAIN = 8.0
# For so long after an answer a single miss says nothing of the machine: it is asked once more.
LATELY = 2 * ASK_AGAIN


class Answers:
    """The answers that one scheduler has had, by instance id."""

    def __init__(self) -> None:
        self._answered: dict[str, float] = {}
        self._deserted: dict[str, float] = {}
        self._missed: set[str] = set()

    @property
    def unanswered(self) -> frozenset[str]:
        """Those that SSH did not reach when they were last asked."""
        return frozenset(self._missed)

    def answering(self, now: float) -> frozenset[str]:
        """Return those whose answer is too young to ask them again."""
        return young(self._answered, now)

    def deserted(self, now: float) -> frozenset[str]:
        """Return those whose machine said a moment ago that neither agent nor training is there."""
        return young(self._deserted, now)

    def ask(self, asked: Iterable[str]) -> None:
        """Take in that these are being asked: what they said before no longer counts."""
        self._missed -= set(asked)

    def hear(self, instance_id: str, now: float) -> None:
        """Take in that agent or training answered."""
        self._missed.discard(instance_id)
        self._answered[instance_id] = now

    def miss(self, instance_id: str, now: float) -> bool:
        """Take in that SSH did not reach it, and tell whether that counts.

        It does not right after an answer: a machine of which only the agent is gone for a while must not be given up
        for one connection that failed.
        """
        if now - self._answered.pop(instance_id, -math.inf) < LATELY:
            return False
        self._missed.add(instance_id)
        return True

    def desert(self, instance_id: str, now: float) -> None:
        """Take in that the machine answered, and that nothing of the run lives there."""
        self._deserted[instance_id] = now

    def forget_all_but(self, usable: Iterable[str]) -> None:
        """Drop the misses of machines that are going or gone."""
        self._missed &= set(usable)


def young(moments: dict[str, float], now: float) -> frozenset[str]:
    """Return those of which something happened less than `ASK_AGAIN` seconds ago."""
    return frozenset(i for i, moment in moments.items() if now - moment < ASK_AGAIN)
