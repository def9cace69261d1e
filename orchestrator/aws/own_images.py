"""The machine images that `orch` makes: taken of an instance, published by tags, listed, removed. Never decides.

An image carries the tag of the run that built it from its first moment, and so do its snapshots. One call of CreateTags
publishes it: until then `orch gc` takes it for something left behind, and nobody finds it by its recipe's name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.errors import call, call_pages, kind_of
from orchestrator.aws.session import Session
from orchestrator.aws.shapes import filters, parse_image, run_filter, tag_specification, tags_of
from orchestrator.core.facts import ALIVE, Resource
from orchestrator.core.ids import TAG_IMAGE, TAG_RUN
from orchestrator.core.images import Image
from orchestrator.errors import OrchError, Unreachable

REMOVAL_SECONDS = 60.0


class OwnImages:
    """The images of one region. Every method raises NoPermission or Unreachable besides what it says."""

    def __init__(self, session: Session) -> None:
        self._client = session.client("ec2")
        self._compute = Compute(session)

    def of_run(self, run: str) -> Image | None:
        """Return the image that a build has made, in whatever state."""
        return next(iter(self._find(run_filter(run))), None)

    def published(self, name: str | None = None) -> tuple[Image, ...]:
        """Return the published images, of one recipe where it is named; newest first."""
        wanted = filters(tag_key=TAG_IMAGE) if name is None else [{"Name": f"tag:{TAG_IMAGE}", "Values": [name]}]
        return tuple(sorted(self._find(wanted), key=lambda item: (item.created, item.image_id), reverse=True))

    def take(self, instance_id: str, name: str, tags: Mapping[str, str]) -> None:
        """Begin an image called `name` of an instance, which EC2 shuts down for it and starts again.

        Another request for the same name does nothing: names are unique. A one-time spot instance cannot be stopped, so
        this is how its file system comes to rest.
        """
        request = {
            "InstanceId": instance_id,
            "Name": name,
            "NoReboot": False,
            "TagSpecifications": tag_specification("image", tags) + tag_specification("snapshot", tags),
        }
        try:
            call("ec2:CreateImage", lambda: self._client.create_image(**request))
        except OrchError as error:
            if kind_of(error.__cause__ or error) != "duplicate":
                raise

    def publish(self, image: Image, name: str) -> None:
        """Make an image the newest of its recipe: for image and snapshots in one call."""
        tags = [{"Key": TAG_IMAGE, "Value": name}, {"Key": "Name", "Value": name}]
        wanted = [image.image_id, *image.snapshots]
        call("ec2:CreateTags", lambda: self._client.create_tags(Resources=wanted, Tags=tags))

    def users(self, image: Image) -> dict[str, str]:
        """Return the living instances that were launched from an image, by id, each with its run ("": of none)."""
        wanted = filters(image_id=image.image_id, instance_state_name=sorted(ALIVE))
        pages = call_pages("ec2:DescribeInstances", self._client, "describe_instances", Filters=wanted)
        groups = (group for page in pages for group in page["Reservations"])
        return {raw["InstanceId"]: tags_of(raw).get(TAG_RUN, "") for group in groups for raw in group["Instances"]}

    def remove(self, image: Image) -> None:
        """Remove an image and then its snapshots; what is gone already is done. Raises Unreachable: still in use."""
        for item in (Resource("image", image.image_id), *(Resource("snapshot", name) for name in image.snapshots)):
            delete_soon(self._compute, item)

    def _find(self, wanted: list[dict[str, Any]]) -> list[Image]:
        reply = call("ec2:DescribeImages", lambda: self._client.describe_images(Owners=["self"], Filters=wanted))
        return [parse_image(raw) for raw in reply["Images"]]


def delete_soon(compute: Compute, item: Resource) -> None:
    """Delete something once nothing uses it any more; gone already is done. Raises Unreachable: still in use."""
    deadline = time.monotonic() + REMOVAL_SECONDS
    while not compute.delete(item):
        if time.monotonic() > deadline:
            raise Unreachable(f"{item.kind} {item.id} is still in use", "`orch gc` removes it later")
        time.sleep(0.5)
