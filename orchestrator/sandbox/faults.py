"""Errors on demand: the next calls of an operation fail with a named AWS error. Thread-safe; decides nothing else.

The code `ReplyLost` is special: the call takes effect, and only its answer is an error (InternalError, HTTP 500), as
when a service fails at the worst moment.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

REPLY_LOST = "ReplyLost"
# Errors that AWS gives for work not yet begun; a repeated ClientToken of a launch that succeeded does not meet them.
CAPACITY = frozenset(
    {
        "InsufficientCapacity",
        "InsufficientFreeAddressesInSubnet",
        "InsufficientInstanceCapacity",
        "InstanceLimitExceeded",
        "MaxSpotInstanceCountExceeded",
        "SpotMaxPriceTooLow",
        "Unsupported",
        "VcpuLimitExceeded",
    }
)
MESSAGES = {
    "InsufficientInstanceCapacity": "There is no Spot capacity available that matches your request."
    " We currently do not have sufficient capacity in the Availability Zone you requested{zone}.",
    "MaxSpotInstanceCountExceeded": "Max spot instance count exceeded",
    REPLY_LOST: "the call took effect; its answer was lost",
    "RequestLimitExceeded": "Request limit exceeded.",
    "SlowDown": "Please reduce your request rate.",
    "UnauthorizedOperation": "You are not authorized to perform this operation.",
    "VcpuLimitExceeded": "You have requested more vCPU capacity than your current vCPU limit allows for.",
}


@dataclass(slots=True)
class Fault:
    """`left` further calls of `action` fail with `code`; in `zone` only, where one is given (launches).

    `place`, if any, is what the S3 objects (bucket/key) that it meets begin with.
    """

    action: str
    code: str
    left: int
    zone: str | None = None
    place: str = ""

    @property
    def name(self) -> str:
        """The action as it was asked for."""
        return f"{self.action}/{self.place}" if self.place else self.action

    @property
    def message(self) -> str:
        """What AWS says with this code, or that it was asked for."""
        text = MESSAGES.get(self.code, f"{self.code} (a fault asked of the sandbox)")
        return text.format(zone=f" ({self.zone})" if self.zone else "")


class Faults:
    """The faults waiting for their calls, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []

    def add(self, action: str, code: str, count: int = 1, zone: str | None = None) -> None:
        """Make the next `count` calls of `action` (`RunInstances`, `PutObject`, ...) fail. Raises ValueError.

        `GetObject/BUCKET/PREFIX` are those of the objects under it.
        """
        if count < 1:
            raise ValueError("a fault strikes at least once")
        with self._lock:
            name, _, place = action.partition("/")
            self._waiting.append(Fault(name.rpartition(":")[2], code, count, zone, place))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._waiting.clear()

    def strike(self, action: str, zone: str | None = None, *, place: str = "", replay: bool = False) -> Fault | None:
        """Return the fault this call meets, counted down, or None. `place` is the S3 object of the call (bucket/key).

        `replay` marks a launch whose ClientToken has already succeeded: no capacity error can meet it any more.
        """
        with self._lock:
            for fault in self._waiting:
                if fault.action != action or (fault.zone is not None and fault.zone != zone):
                    continue
                if not place.startswith(fault.place):
                    continue
                if replay and fault.code in CAPACITY:
                    continue
                fault.left -= 1
                if fault.left == 0:
                    self._waiting.remove(fault)
                return fault
        return None

    def pending(self) -> list[dict[str, str | int | None]]:
        """Return the faults that still wait, as plain values."""
        with self._lock:
            return [{"action": f.name, "code": f.code, "count": f.left, "zone": f.zone} for f in self._waiting]
