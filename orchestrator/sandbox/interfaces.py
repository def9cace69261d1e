"""Network interfaces of a launch: what EC2 makes of those that are asked for, and what it refuses.

A host has one address, so of several interfaces one has it; the others are EFA interfaces without. No host has the
fabric itself: to a training, EFA interfaces of the sandbox are not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance
from moto.ec2.models.subnets import Subnet

from orchestrator.sandbox.ec2_backend import SandboxEC2Backend
from orchestrator.sandbox.wire import Refused

Asked = Mapping[str, Any]


def check_interfaces(instance_type: str, interfaces: Sequence[Asked]) -> None:
    """Refuse what EC2 refuses, and what the sandbox's hosts cannot have. Raises Refused."""
    places = [(_card(item), int(item.get("DeviceIndex", -1))) for item in interfaces]
    if places and (0, 0) not in places:
        raise Refused("InvalidParameterValue", "A primary network interface with device index 0 is required.")
    if any(index < 0 for _, index in places):
        raise Refused("InvalidParameterValue", "Each network interface requires a device index.")
    if len({card for card, _ in places}) < len(places):
        raise Refused("UnsupportedOperation", "the sandbox's machines have one interface on a network card")
    if len(interfaces) > 1 and any("AssociatePublicIpAddress" in item for item in interfaces):
        message = "The associatePublicIPAddress parameter cannot be specified when launching with multiple network"
        raise Refused("InvalidParameterCombination", f"{message} interfaces.")
    if len({item.get("SubnetId") for item in interfaces}) > 1:
        raise Refused("UnsupportedOperation", "the sandbox's machines have all their interfaces in one subnet")
    for (card, index), item in zip(places, interfaces, strict=True):
        kind = _kind(item)
        if item.get("NetworkInterfaceId") or ((card, index) != (0, 0) and kind != "efa-only"):
            message = "the sandbox's machines have one new interface with an address, the others are efa-only"
            raise Refused("UnsupportedOperation", message)
        if (card, index) == (0, 0) and kind == "efa-only":
            raise Refused("InvalidParameterCombination", "The primary network interface cannot be efa-only.")
    _check_fabric(instance_type, interfaces)


def _check_fabric(instance_type: str, interfaces: Sequence[Asked]) -> None:
    network = INSTANCE_TYPES[instance_type]["NetworkInfo"]
    cards = {int(card["NetworkCardIndex"]) for card in network["NetworkCards"]}
    fabric = [item for item in interfaces if _kind(item) != "interface"]
    if any(_card(item) not in cards for item in interfaces):
        raise Refused("InvalidParameterValue", f"'{instance_type}' has {len(cards)} network cards.")
    if fabric and not network.get("EfaSupported"):
        raise Refused("InvalidParameterCombination", f"'{instance_type}' does not support Elastic Fabric Adapters.")
    most = int(network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 0))
    if len(fabric) > most:
        message = f"Interface count {len(fabric)} exceeds the limit of {most} EFA interfaces for {instance_type}"
        raise Refused("AttachmentLimitExceeded", message)


def attach(world: SandboxEC2Backend, instance: Instance, subnet: Subnet, interfaces: Sequence[Asked]) -> None:
    """Give a new instance, which has its first interface, the kinds it was asked for and the interfaces without IP.

    In `instance.nics` they are by network card, which moto does not know: it would take two of one index for one.
    """
    groups = [group.id for group in instance.nics[0]._group_set]
    for item in sorted(interfaces, key=_card):
        if (_card(item), int(item["DeviceIndex"])) == (0, 0):
            instance.nics[0].interface_type = _kind(item)
            continue
        made = world.create_network_interface(subnet, "", group_ids=groups)
        made.private_ip_address, made.private_ip_addresses = None, []
        made.interface_type = _kind(item)
        instance.attach_eni(made, _card(item))
        made.device_index = int(item["DeviceIndex"])


def _card(item: Asked) -> int:
    return int(item.get("NetworkCardIndex") or 0)


def _kind(item: Asked) -> str:
    """Return the type of an interface as EC2 shows it."""
    return str(item.get("InterfaceType") or "interface")
