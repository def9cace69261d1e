"""Schedulers of runs that somebody waits for, and of those whose machine leaves something behind: an image, a snapshot.

What is taken of the machine is asked for when every step is done, before the run ends; all else is decided as for any
run. The intent is in the ledger before EC2 is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from orchestrator.aws.errors import patiently
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.actions import Action, End
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ids import Keys, resource_name
from orchestrator.core.images import is_finished, next_step
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.errors import BadInput, NoCapacity, NoPermission, OrchError, StaleEpoch, Unreachable
from orchestrator.run.home import Home
from orchestrator.run.lease import Lease
from orchestrator.run.ledger import Ledger
from orchestrator.run.loop import Scheduler
from orchestrator.run.wish import ask_stop

Log = Callable[[str], None]
# For so long a refusal whose code nobody has named is asked about again; the machine is paid for meanwhile.
REFUSED_FOR_GOOD = timedelta(minutes=3)


class ForegroundScheduler(Scheduler):
    """A scheduler that somebody waits for: it looks more often, and tells the steps of the node's script."""

    idle = 0.5

    def __init__(self, session: Session, bucket: Bucket, home: Home, run_id: str, log: Log) -> None:
        super().__init__(session, bucket, home, run_id, log)
        self._made_of: tuple[Any, ...] = (session, bucket, home, run_id, log)
        self._told: Mapping[str, Any] = {}

    @property
    def lease(self) -> Lease:
        """The run's lease, which is held once `run` was called."""
        return self._lease

    def to_the_end(self) -> Verdict:
        """Schedule the run to its end, keep its lease, and return how it ended.

        When that is interrupted the run is brought to its end first, then KeyboardInterrupt goes on.
        """
        bucket, run = self._bucket, self._spec.run_id
        try:
            self.run(keep_lease=True)
        except KeyboardInterrupt:
            self._log("interrupted: ending the run, so that nothing is left (Ctrl-C now leaves that to `orch gc`)")
            # However long S3 is silent: the machine would be paid for until its timer ends it.
            patiently(self._end, self._is_passing, math.inf)
            raise
        verdict = Ledger(bucket, run, "build").read().verdict
        if verdict is None:
            raise OrchError(f"{run} has no verdict in {Keys(run).ledger}", "`orch gc` removes what it left")
        return verdict

    def _end(self) -> None:
        ask_stop(self._bucket, self._spec.run_id, "build", "interrupted")
        self._again().run()

    def _is_passing(self, error: Exception) -> bool:
        if not isinstance(error, Unreachable):
            return False
        self._log(f"{error.message}; trying again")
        return True

    def _again(self) -> Scheduler:
        """Let go of the run, and return another scheduler for it, which brings it to its end: it was asked to stop."""
        self._lease.release(self._bucket.server_time())
        return type(self)(*self._made_of)

    def _decide(self, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        for node in facts.nodes.values():
            progress = node.beacon.progress if node.beacon is not None else None
            if progress and progress.get("step") != self._told.get("step"):
                self._told = progress
                self._log(f"step {progress['step']} of {progress.get('steps')}: {progress.get('name')}")
        return super()._decide(state, facts)


class TakingScheduler(ForegroundScheduler):
    """The scheduler of a run of one machine, of which something is taken: `kind`, `_made` and `_take` say what."""

    kind: Literal["image", "snapshot"]

    def __init__(self, session: Session, bucket: Bucket, home: Home, run_id: str, log: Log) -> None:
        super().__init__(session, bucket, home, run_id, log)
        self._refused: Verdict | None = None
        self._refused_since: datetime | None = None

    def _made(self) -> tuple[str, str] | None:
        """Return id and state of what was taken, None before."""
        raise NotImplementedError

    def _take(self, instance: Instance, facts: Facts) -> None:
        """Ask EC2 for it."""
        raise NotImplementedError

    def _decide(self, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        actions = super()._decide(state, facts)
        if not is_finished(actions):
            return actions
        if self._refused is not None:
            return (End(self._refused),)
        match next_step(facts, self.kind, self._made(), state.stop):
            case "done":
                return actions
            case "take":
                self._ask(facts)
            case Verdict() as verdict:
                return (End(verdict),)
        return ()

    def _ask(self, facts: Facts) -> None:
        instance = next(item for item in facts.instances if item.usable)
        name = resource_name(self._spec.run_id)
        self._note("intent", {"name": name, "instance_id": instance.instance_id})
        self._lease.hold(self._bucket.server_time())
        try:
            self._take(instance, facts)
        except OrchError as error:
            if not self._is_final(error):
                raise
            # Asking again would be answered alike, and the machine costs money meanwhile.
            self._refused = Verdict("failed", f"EC2 makes no {self.kind}: {error.message}", error.hint)
            self._note("outcome", {"name": name, "status": "refused", "message": error.message})
        else:
            self._note("outcome", {"name": name, "status": "asked"})

    def _is_final(self, error: OrchError) -> bool:
        """Tell whether EC2 will not change its mind; of a refusal that nobody knows only time tells."""
        if isinstance(error, Unreachable | StaleEpoch):
            return False
        now = self._bucket.server_time()
        self._refused_since = self._refused_since or now
        return isinstance(error, NoPermission | BadInput | NoCapacity) or now - self._refused_since >= REFUSED_FOR_GOOD

    def _note(self, kind: Any, detail: Mapping[str, Any]) -> None:
        self._ledger.append(kind, self.kind, detail, epoch=self._lease.epoch, now=self._bucket.server_time())
