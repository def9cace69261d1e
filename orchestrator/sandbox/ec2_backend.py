"""Moto's EC2 with the sandbox's network, image and bookkeeping: what the API classes (`ec2_*`) read and change.

One region. Everything here is called with the EC2 lock held.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from moto.ec2.exceptions import InvalidInstanceIdError
from moto.ec2.models import EC2Backend
from moto.ec2.models.amis import Ami
from moto.ec2.models.elastic_block_store import VolumeAttachment
from moto.ec2.models.instances import Instance, InstanceState, Reservation
from moto.ec2.models.vpcs import VPC
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, EC2_RESOURCE_TO_PREFIX
from moto.iam.models import InstanceProfile

from orchestrator.sandbox import addresses, catalogue
from orchestrator.sandbox.addresses import Addresses
from orchestrator.sandbox.lifecycle import Lifecycle
from orchestrator.sandbox.placement_groups import PlacementGroups
from orchestrator.sandbox.prices import SpotMarket
from orchestrator.sandbox.quotas_api import Quotas

# Moto's DescribeTags looks resource types up by the prefix of an id, and knows no placement groups.
EC2_RESOURCE_TO_PREFIX.setdefault("placement-group", "pg")
EC2_PREFIX_TO_RESOURCE.update({"pg": "placement-group", "sir": "spot-instances-request"})


@dataclass(slots=True)
class Machine:
    """What EC2 knows of an instance beyond moto's own `Instance`."""

    instance: Instance
    reservation: Reservation
    profile: InstanceProfile | None
    spot_request: str | None
    market_options: dict[str, Any] = field(default_factory=dict)
    spot_status: str = "fulfilled"
    spot_cancelled: bool = False

    @property
    def alive(self) -> bool:
        """Whether it is anything but terminated."""
        return self.instance.state != "terminated"


class SandboxEC2Backend(EC2Backend):
    """EC2 of the sandbox's one region. `join` must be called once before it serves."""

    lifecycle: Lifecycle
    market: SpotMarket
    quotas: Quotas

    def __init__(self, region_name: str, account_id: str) -> None:
        self.machines: dict[str, Machine] = {}
        self.launches: dict[str, tuple[str, Reservation]] = {}
        self.placement_groups = PlacementGroups()
        self.lock = threading.RLock()
        super().__init__(region_name, account_id)
        for subnet in self.get_default_subnets().values():
            subnet.map_public_ip_on_launch = True
        self.private_addresses = {s.id: Addresses(s.cidr_block) for s in self.get_default_subnets().values()}

    def join(self, lifecycle: Lifecycle, market: SpotMarket, quotas: Quotas) -> None:
        """Connect it to the rest of the sandbox."""
        self.lifecycle, self.market, self.quotas = lifecycle, market, quotas

    def _load_amis(self) -> None:
        """Know one image only: what every host of the sandbox boots. Launching any other is refused, as on AWS."""
        self.amis[catalogue.SANDBOX_AMI] = Ami(
            self,
            catalogue.SANDBOX_AMI,
            name=catalogue.SANDBOX_AMI_NAME,
            description="The hosts of the sandbox: this machine's own system and Python environment",
            owner_id=self.account_id,
            architecture="x86_64",
            virtualization_type="hvm",
            hypervisor="xen",
            root_device_type="ebs",
            image_location=f"{self.account_id}/{catalogue.SANDBOX_AMI_NAME}",
            region_name=f"{self.region_name}a",
        )

    def create_default_vpc(self) -> VPC:
        """Make the default VPC on loopback, one /20 a zone, so that a private address is where the host listens."""
        vpc = self.create_vpc(cidr_block=addresses.VPC, is_default=True)
        for zone in self.describe_availability_zones():
            self.create_default_subnet(zone.name)
        return vpc

    def get_instance(self, instance_id: str) -> Instance:
        """Return an instance without moto's walk over all of them. Raises InvalidInstanceIdError."""
        try:
            return self.machines[instance_id].instance
        except KeyError:
            raise InvalidInstanceIdError(instance_id) from None

    def get_instance_by_id(self, instance_id: str) -> Instance | None:
        """Return an instance, or None."""
        machine = self.machines.get(instance_id)
        return machine.instance if machine else None

    def living(self) -> Iterator[Machine]:
        """Yield the machines that are not terminated."""
        return (machine for machine in self.machines.values() if machine.alive)

    def release(self, instance: Instance, state: InstanceState) -> None:
        """Give back what a terminated instance held: volumes, interface, address, profile association, group."""
        reason, state_reason, address = instance._reason, instance.state_reason, instance.private_ip
        interfaces = list(instance.nics.values())
        volumes = {device.volume_id for _, device in instance.get_block_device_mapping}
        instance.terminate()
        # moto's terminate() states its own reasons; those of the transition stand.
        instance._state, instance._reason, instance.state_reason = state, reason, state_reason
        for interface in interfaces:
            self.forget_tags(interface.id)
        for volume in volumes - self.volumes.keys():
            self.forget_tags(volume)
        if instance.subnet_id in self.private_addresses and address:
            self.private_addresses[instance.subnet_id].give_back(address)

    def attach_volume(
        self, volume_id: str, instance_id: str, device_path: str, delete_on_termination: bool = False
    ) -> VolumeAttachment | None:
        """Attach a volume; moto shows what becomes of it at the end with the instance alone, not with the volume."""
        attachment = super().attach_volume(volume_id, instance_id, device_path, delete_on_termination)
        if attachment is not None:
            attachment.delete_on_termination = delete_on_termination  # type: ignore[attr-defined]
        return attachment

    def undo(self, reservation: Reservation) -> None:
        """Unmake a launch that failed half-way; nobody has seen it."""
        self.reservations.pop(reservation.id, None)
        for instance in reservation.instances:
            self.release(instance, InstanceState("terminated", 48))
            machine = self.machines.pop(instance.id)
            for gone in (instance.id, machine.spot_request):
                self.forget_tags(gone or "")

    def forget_tags(self, resource_id: str) -> None:
        """Drop the tags of a deleted resource, which moto would show for ever."""
        self.tags.pop(resource_id, None)

    def describe_tags(self, filters: dict[str, list[str]] | None = None) -> list[dict[str, str]]:
        """Return tags; those of one resource without moto's walk over all of them."""
        ids = (filters or {}).get("resource-id")
        if filters is None or set(filters) != {"resource-id"} or not ids or any(c in i for i in ids for c in "*?"):
            return super().describe_tags(filters)
        return [
            {
                "resource_id": i,
                "key": key,
                "value": value,
                "resource_type": EC2_PREFIX_TO_RESOURCE.get(i.partition("-")[0], ""),
            }
            for i in ids
            for key, value in self.tags.get(i, {}).items()
        ]
