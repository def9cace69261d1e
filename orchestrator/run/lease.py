"""The lease: one scheduler at a time, by compare-and-swap on one S3 object. Its epoch only ever grows."""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.core.ids import Keys
from orchestrator.core.units import iso, parse_time
from orchestrator.errors import NotFound, OrchError, PreconditionFailed, StaleEpoch

LIFETIME = timedelta(seconds=20)
KEEP_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds the lease: a process on a machine. `nonce` tells two processes with a reused pid apart."""

    machine: str
    pid: int
    nonce: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        return cls(socket.gethostname(), os.getpid(), uuid.uuid4().hex)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    def surely_dead(self) -> bool:
        """Whether the owner was a process of this machine that no longer exists."""
        if self.machine != socket.gethostname() or not Path("/proc/self").exists():
            return False
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return True
        # A process that was killed is there as a zombie until its parent has taken note.
        return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


@dataclass(frozen=True, slots=True)
class Held:
    """The lease as read: its owner, epoch and end, and the ETag that a swap needs."""

    owner: Owner
    epoch: int
    expires: datetime
    etag: str

    def lives(self, now: datetime) -> bool:
        """Whether somebody holds it: it has not expired, and its owner is not known to be dead."""
        return self.expires >= now and not self.owner.surely_dead()


class Lease:
    """One run's lease, held by `owner` once `acquire` returned."""

    def __init__(self, bucket: Bucket, run_id: str, owner: Owner) -> None:
        self._bucket = bucket
        self._key = Keys(run_id).lease
        self._owner = owner
        self._held: Held | None = None

    @property
    def epoch(self) -> int:
        """The epoch under which this owner acts; 0 before `acquire`."""
        return self._held.epoch if self._held else 0

    def read(self) -> Held | None:
        """Return the lease as it is in S3, None when there is none."""
        try:
            body, etag = self._bucket.get_with_etag(self._key)
        except NotFound:
            return None
        try:
            value = json.loads(body)
            return Held(Owner(**value["owner"]), int(value["epoch"]), parse_time(value["expires"]), etag)
        except (KeyError, TypeError, ValueError) as error:
            raise OrchError("the run's lease cannot be read", "`orch gc` still works by tag") from error

    def try_acquire(self, now: datetime) -> bool:
        """Take the lease when it is free, expired, or its owner is surely dead; tell whether it was taken."""
        held = self.read()
        if held is not None and held.expires > now and not held.owner.surely_dead():
            return False
        return self._swap(held.epoch + 1 if held else 1, now, held.etag if held else None)

    def hold(self, now: datetime) -> None:
        """Renew it when a third of its lifetime is over. Raises StaleEpoch when somebody else took it."""
        if self._held is None or self._held.expires - now < LIFETIME * 2 / 3:
            self.renew(now)

    def renew(self, now: datetime) -> None:
        """Extend the lease. Raises StaleEpoch when somebody else took it.

        A lease that is not the one last read may still be our own: S3 took a renewal whose reply was lost.
        """
        mine = self._held
        if mine is not None and not self._swap(mine.epoch, now, mine.etag):
            mine = self.read()
            if mine is not None and (mine.owner != self._owner or not self._swap(mine.epoch, now, mine.etag)):
                mine = None
        if mine is None:
            raise StaleEpoch("another scheduler took this run over", "`orch watch` shows it")

    def release(self, now: datetime) -> None:
        """Let it expire at once; losing a race here is harmless."""
        if self._held is not None:
            self._swap(self._held.epoch, now - LIFETIME, self._held.etag)
            self._held = None

    def _swap(self, epoch: int, now: datetime, etag: str | None) -> bool:
        expires = now + LIFETIME
        body = json.dumps({"owner": self._owner.to_json(), "epoch": epoch, "expires": iso(expires)}).encode()
        try:
            if etag is None:
                new = self._bucket.put(self._key, body, if_none_match=True)
            else:
                new = self._bucket.put(self._key, body, if_match=etag)
        except PreconditionFailed:
            return False
        self._held = Held(self._owner, epoch, expires, new)
        return True


@contextmanager
def kept(lease: Lease, now: Callable[[], datetime]) -> Iterator[None]:
    """Hold a lease that was acquired while something else is done, then let go of it; `now` is S3's clock.

    What cannot be renewed for a while, because S3 does not answer, is tried again; one that somebody took is lost.
    """
    done = threading.Event()

    def keep() -> None:
        with suppress(StaleEpoch):
            while not done.wait(KEEP_SECONDS):
                try:
                    lease.hold(now())
                except StaleEpoch:
                    raise
                except OrchError:
                    continue

    keeper = threading.Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        done.set()
        keeper.join()
        with suppress(OrchError):
            lease.release(now())
