"""The scheduler of a run whose machine becomes an image, which is made when every step is done, before the run ends.

All else is decided as for any run. The intent is in the ledger before EC2 is asked, and the image's name is that of the
run: asked for twice it is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.aws.own_images import OwnImages
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.actions import Action, End
from orchestrator.core.facts import Facts
from orchestrator.core.ids import resource_name
from orchestrator.core.images import is_finished, next_step
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.errors import BadInput, NoPermission
from orchestrator.run.home import Home
from orchestrator.run.lease import Lease
from orchestrator.run.loop import Scheduler
from orchestrator.run.nodes import NodeCommands
from orchestrator.run.request import tags


class ForegroundScheduler(Scheduler):
    """A scheduler that somebody waits for: it looks more often, and tells the steps of the node's script."""

    idle = 0.5

    def __init__(self, session: Session, bucket: Bucket, home: Home, run_id: str, log: Callable[[str], None]) -> None:
        super().__init__(session, bucket, home, run_id, log)
        self._made_of = (session, bucket, home, run_id, log)
        self._told: Mapping[str, Any] = {}

    @property
    def lease(self) -> Lease:
        """The run's lease, which is held once `run` was called."""
        return self._lease

    def again(self) -> Scheduler:
        """Let go of the run, and return another scheduler for it, which does nothing but bring it to its end."""
        self._lease.release(self._bucket.server_time())
        return Scheduler(*self._made_of)

    def _decide(self, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        for node in facts.nodes.values():
            progress = node.beacon.progress if node.beacon is not None else None
            if progress and progress.get("step") != self._told.get("step"):
                self._told = progress
                self._log(f"step {progress['step']} of {progress.get('steps')}: {progress.get('name')}")
        return super()._decide(state, facts)


class ImageBuilder(ForegroundScheduler):
    """The scheduler of one build."""

    def __init__(self, session: Session, bucket: Bucket, home: Home, run_id: str, log: Callable[[str], None]) -> None:
        super().__init__(session, bucket, home, run_id, log)
        self._own = OwnImages(session)
        self._nodes = NodeCommands(self._spec, bucket, home)
        self._left = False
        self._refused: Verdict | None = None

    def _decide(self, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        actions = super()._decide(state, facts)
        if not is_finished(actions):
            return actions
        if self._refused is not None:
            return (End(self._refused),)
        match next_step(facts, self._own.of_run(self._spec.run_id)):
            case "done":
                return actions
            case "take":
                self._take(facts)
            case Verdict() as verdict:
                return (End(verdict),)
        return ()

    def _take(self, facts: Facts) -> None:
        instance_id = next(item.instance_id for item in facts.instances if item.usable)
        name = resource_name(self._spec.run_id)
        self._note("intent", {"name": name, "instance_id": instance_id})
        self._lease.hold(self._bucket.server_time())
        if not self._left:
            # Nobody gets in afterwards, so once it is: EC2 may have to be asked again.
            self._nodes.leave(facts, instance_id)
            self._left = True
        self._log(f"making an image of {instance_id}, which restarts for it")
        try:
            self._own.take(instance_id, name, tags(self._spec))
        except (NoPermission, BadInput) as error:
            # Asking again would be answered alike, and the machine costs money meanwhile.
            self._refused = Verdict("failed", f"EC2 makes no image: {error.message}", error.hint)
            self._note("outcome", {"name": name, "status": "refused", "message": error.message})
        else:
            self._note("outcome", {"name": name, "status": "asked"})

    def _note(self, kind: Any, detail: Mapping[str, Any]) -> None:
        self._ledger.append(kind, "image", detail, epoch=self._lease.epoch, now=self._bucket.server_time())
