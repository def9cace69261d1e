"""The ledger in S3: entries are created once each, so two writers never overwrite one another."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestrator.aws.s3 import Bucket
from orchestrator.core.ids import Keys
from orchestrator.core.ledger import Entry, Kind, LedgerState, replay
from orchestrator.errors import OrchError, PreconditionFailed

ATTEMPTS = 20


class Ledger:
    """One run's ledger: read incrementally, appended to by create-once writes."""

    def __init__(self, bucket: Bucket, run_id: str, actor: str) -> None:
        self._bucket = bucket
        self._keys = Keys(run_id)
        self._actor = actor
        self._entries: dict[str, Entry] = {}
        self._state: LedgerState | None = None

    def read(self) -> LedgerState:
        """Fetch the entries not seen yet and return the state they give. Raises OrchError on one that is corrupt."""
        for item in self._bucket.list(self._keys.ledger):
            if item.key not in self._entries:
                self._add(item.key, self._parse(item.key))
        return self.state

    @property
    def state(self) -> LedgerState:
        """The state of the entries read so far."""
        if self._state is None:
            self._state = replay(list(self._entries.values()))
        return self._state

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries read so far, in order."""
        return tuple(self._entries[key] for key in sorted(self._entries))

    @property
    def terminating(self) -> frozenset[str]:
        """The instances that some entry read so far means to terminate."""
        meant = (entry.detail for entry in self._entries.values() if entry.action == "terminate")
        return frozenset(instance_id for detail in meant for instance_id in detail["instance_ids"])

    def append(self, kind: Kind, action: str, detail: Mapping[str, Any], *, epoch: int, now: datetime) -> Entry:
        """Write the next entry, reading what others wrote in between. Raises PreconditionFailed after many races."""
        for _ in range(ATTEMPTS):
            seq = max((entry.seq for entry in self._entries.values()), default=0) + 1
            key = self._keys.entry(seq)
            entry = Entry(seq, now, epoch, self._actor, kind, action, dict(detail))
            try:
                self._bucket.put(key, entry.to_json(), if_none_match=True)
            except PreconditionFailed:
                self.read()
                continue
            self._add(key, entry)
            return entry
        raise PreconditionFailed("the run's ledger is being written by many others at once", "try again")

    def _add(self, key: str, entry: Entry) -> None:
        self._entries[key] = entry
        self._state = None

    def _parse(self, key: str) -> Entry:
        try:
            return Entry.from_json(self._bucket.get(key))
        except ValueError as error:
            raise OrchError(
                f"the run's ledger cannot be read: {key}: {error}",
                "nothing was changed; `orch gc` still finds and removes what the run left, by tag",
            ) from error
