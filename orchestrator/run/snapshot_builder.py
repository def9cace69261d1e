"""The scheduler of a run that fills a volume with a data set, of which a snapshot is taken."""

from __future__ import annotations

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.snapshots import Snapshots
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ids import TAG_BYTES, TAG_VERSION
from orchestrator.core.volumes import DEVICES
from orchestrator.errors import BadInput
from orchestrator.run.foreground import Log, TakingScheduler
from orchestrator.run.home import Home
from orchestrator.run.request import tags


class SnapshotBuilder(TakingScheduler):
    """The scheduler of one build, whose spec has the one volume. `version` is that of the data set."""

    kind = "snapshot"

    def __init__(  # noqa: PLR0917 - a scheduler's, and the version
        self, session: Session, bucket: Bucket, home: Home, run_id: str, log: Log, version: str
    ) -> None:
        super().__init__(session, bucket, home, run_id, log)
        self._made_of = (*self._made_of, version)
        self._snapshots = Snapshots(session)
        self._version = version
        self._asked = ""

    def _made(self) -> tuple[str, str] | None:
        for made in self._snapshots.of_run(self._spec.run_id):
            return made.snapshot_id, made.state
        # EC2 shows late what it has begun; asked again it would begin another.
        return (self._asked, "pending") if self._asked else None

    def _take(self, instance: Instance, facts: Facts) -> None:
        (volume,) = self._spec.volumes
        volume_id = self._compute.volume_at(instance.instance_id, DEVICES[0])
        if volume_id is None:
            raise BadInput(f"{instance.instance_id} has no volume at {DEVICES[0]}", "build it again")
        self._log(f"taking a snapshot of {volume_id}")
        labels = {TAG_VERSION: self._version, TAG_BYTES: str(volume.bytes)}
        self._asked = self._snapshots.take(volume_id, tags(self._spec) | labels)
