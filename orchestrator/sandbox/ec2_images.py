"""Images: CreateImage of a machine, which restarts for it, and what becomes of the image afterwards.

Moto's CreateImage is a name without content. Here an image is what `Hosts.capture` keeps of the machine's host.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_block_store import Snapshot
from moto.ec2.utils import random_ami_id

from orchestrator.sandbox import catalogue
from orchestrator.sandbox.ec2_backend import Machine
from orchestrator.sandbox.ec2_base import EC2Operations
from orchestrator.sandbox.wire import Refused

TAGGABLE = frozenset({"image", "snapshot"})
_NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")


class MachineImage(Ami):
    """An image of a machine: its volumes' snapshots and no others."""

    parts: list[tuple[str, Snapshot, str]]

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """The devices as DescribeImages shows them."""
        return [
            {
                "DeviceName": device,
                "Ebs": {
                    "SnapshotId": snapshot.id,
                    "VolumeSize": snapshot.volume_size,
                    "VolumeType": kind,
                    "Encrypted": snapshot.encrypted,
                    "DeleteOnTermination": True,
                },
            }
            for device, snapshot, kind in self.parts
        ]


class ImageOperations(EC2Operations):
    """CreateImage, DeregisterImage, and a refusal of what would make images without content."""

    def create_image(self) -> ActionResult:
        """Make an image of a running or stopped machine; it is pending until the machine's files have been copied."""
        machine = self.world.machines.get(str(self.param("InstanceId", "")))
        name = str(self.param("Name", ""))
        if machine is None:
            message = f"The instance ID '{self.param('InstanceId')}' does not exist"
            raise Refused("InvalidInstanceID.NotFound", message)
        if machine.instance.state not in {"running", "stopped"}:
            raise Refused("IncorrectState", "Instance is not in state 'running' or 'stopped'")
        if _NAME.fullmatch(name) is None:
            raise Refused("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long")
        for other in self.world.amis.values():
            if other.name == name:
                message = f"AMI name {name} is already in use by AMI {other.id}"
                raise Refused("InvalidAMIName.Duplicate", message)
        tags = self._image_tags()
        self.error_on_dryrun()
        image = self._make_image(machine, name, tags)
        reboot = not self.flag("NoReboot") and machine.instance.state == "running"
        self.world.lifecycle.capture(machine.instance, image.id, partial(self._settle, image), reboot=reboot)
        return ActionResult({"ImageId": image.id})

    def _image_tags(self) -> dict[str, dict[str, str]]:
        asked: dict[str, dict[str, str]] = {}
        for item in self.param("TagSpecifications", []):
            if item["ResourceType"] not in TAGGABLE:
                raise Refused(
                    "InvalidParameterValue", f"'{item['ResourceType']}' is not a valid taggable resource type"
                )
            asked.setdefault(item["ResourceType"], {}).update({tag["Key"]: tag["Value"] for tag in item["Tags"]})
        return asked

    def _make_image(self, machine: Machine, name: str, tags: dict[str, dict[str, str]]) -> MachineImage:
        instance, image_id = machine.instance, random_ami_id()
        base = self.world.amis.get(instance.image_id)
        image = MachineImage(
            self.world,
            image_id,
            instance=instance,
            name=name,
            description=self.param("Description", ""),
            architecture="x86_64",
            virtualization_type="hvm",
            hypervisor="xen",
            root_device_type="ebs",
            root_device_name=base.root_device_name if base else instance.root_device_name,
            image_location=f"{self.current_account}/{name}",
            region_name=str(instance.placement.zone),
            state="pending",
        )
        # moto makes a snapshot of an empty volume by itself.
        self.world.snapshots.pop(image.ebs_snapshot.id)
        image.parts = []
        for device, attached in instance.block_device_mapping.items():
            volume = self.world.get_volume(attached.volume_id)
            text = f"Created by CreateImage({instance.id}) for {image_id}"
            snapshot = self.world.create_snapshot(volume.id, text, from_ami=image_id)
            snapshot.status = "pending"
            image.parts.append((device, snapshot, volume.volume_type))
            self.world.tags[snapshot.id].update(tags.get("snapshot", {}))
        self.world.amis[image_id] = image
        self.world.tags[image_id].update(tags.get("image", {}))
        return image

    def _settle(self, image: MachineImage, taken: bool) -> bool:
        """Give an image the state it has come to; False when it was deregistered meanwhile."""
        image.state = "available" if taken else "failed"
        for _, snapshot, _ in image.parts:
            snapshot.status = "completed" if taken else "error"
        return image.id in self.world.amis

    def deregister_image(self) -> ActionResult:
        """DeregisterImage; the snapshots stay, as on AWS."""
        image_id = str(self.param("ImageId", ""))
        if image_id == catalogue.SANDBOX_AMI:
            raise Refused("AuthFailure", f"Not authorized for images: [{image_id}]")
        result: ActionResult = super().deregister_image()
        self.world.forget_tags(image_id)
        self.world.lifecycle.forget_image(image_id)
        return result

    def register_image(self) -> ActionResult:
        """Refuse: there would be no files to boot from."""
        raise Refused("UnsupportedOperation", "the sandbox makes images of machines, by CreateImage alone")

    def copy_image(self) -> ActionResult:
        """Refuse as `register_image`."""
        return self.register_image()
