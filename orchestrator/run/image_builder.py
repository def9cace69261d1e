"""The scheduler of a run whose machine becomes an image, named as the run is: asked for twice it is made once."""

from __future__ import annotations

from orchestrator.aws.own_images import OwnImages
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.facts import Facts, Instance
from orchestrator.core.ids import resource_name
from orchestrator.run.foreground import Log, TakingScheduler
from orchestrator.run.home import Home
from orchestrator.run.nodes import NodeCommands
from orchestrator.run.request import tags


class ImageBuilder(TakingScheduler):
    """The scheduler of one build."""

    kind = "image"

    def __init__(self, session: Session, bucket: Bucket, home: Home, run_id: str, log: Log) -> None:
        super().__init__(session, bucket, home, run_id, log)
        self._own = OwnImages(session)
        self._nodes = NodeCommands(self._spec, session, home)
        self._left = False

    def _made(self) -> tuple[str, str] | None:
        image = self._own.of_run(self._spec.run_id)
        return None if image is None else (image.image_id, image.state)

    def _take(self, instance: Instance, facts: Facts) -> None:
        if not self._left:
            # Nobody gets in afterwards, so once it is: EC2 may have to be asked again.
            self._nodes.leave(facts, instance.instance_id)
            self._left = True
        self._log(f"making an image of {instance.instance_id}, which restarts for it")
        self._own.take(instance.instance_id, resource_name(self._spec.run_id), tags(self._spec))
