"""How an instance looks in DescribeInstances and RunInstances, and what its filters compare. Reads only.

As on AWS, a terminated instance has no volumes, interfaces, addresses or groups any more; what a run needs of them
later it must have kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instances import Instance, Reservation

from orchestrator.sandbox import catalogue
from orchestrator.sandbox.ec2_backend import Machine

Tags = Callable[[str], list[dict[str, str]]]


def reservation_values(reservation: Reservation, machines: list[Machine], tags: Tags) -> dict[str, Any]:
    """Return a reservation with those of its machines that are asked for."""
    return {
        "reservationId": reservation.id,
        "ownerId": reservation.owner_id,
        "groupSet": [],
        "instancesSet": [instance_values(machine, tags) for machine in machines],
    }


def instance_values(machine: Machine, tags: Tags) -> dict[str, Any]:
    """Return one instance in EC2's element names."""
    item = machine.instance
    values = {
        "instanceId": item.id,
        "imageId": item.image_id,
        "instanceState": {"code": item.state_code, "name": item.state},
        "privateDnsName": item.private_dns_name if machine.alive else "",
        "dnsName": (item.public_dns_name or "") if machine.alive else "",
        "reason": item._reason,
        "keyName": item.key_name,
        "amiLaunchIndex": item.ami_launch_index,
        "productCodes": [],
        "instanceType": item.instance_type,
        "launchTime": item.launch_time,
        "placement": {
            "availabilityZone": item.placement.zone,
            "groupName": item.placement.group_name,
            "tenancy": "default",
        },
        "monitoring": {"state": item.monitoring_state},
        "architecture": "x86_64",
        "rootDeviceType": "ebs",
        "rootDeviceName": item.root_device_name,
        "virtualizationType": "hvm",
        "hypervisor": "xen",
        "clientToken": item.client_token,
        "ebsOptimized": item.ebs_optimized in {True, "true"},
        "enaSupport": True,
        "tagSet": tags(item.id) or None,
        "cpuOptions": {"coreCount": max(1, catalogue.vcpus(item.instance_type) // 2), "threadsPerCore": 2},
        "metadataOptions": _metadata(item),
    }
    if machine.spot_request:
        values |= {"instanceLifecycle": "spot", "spotInstanceRequestId": machine.spot_request}
    if item.state_reason.code:
        values["stateReason"] = {"code": item.state_reason.code, "message": item.state_reason.message}
    if not machine.alive:
        return values | {"groupSet": [], "networkInterfaceSet": [], "blockDeviceMapping": []}
    return values | _attached(machine)


def _attached(machine: Machine) -> dict[str, Any]:
    """Return what only an instance has that is not terminated."""
    item = machine.instance
    groups = [{"groupId": group.id, "groupName": group.name} for group in item.security_groups]
    profile = machine.profile
    return {
        "subnetId": item.subnet_id,
        "vpcId": item.vpc_id,
        "privateIpAddress": item.private_ip,
        "ipAddress": item.public_ip,
        "sourceDestCheck": True,
        "groupSet": groups,
        "iamInstanceProfile": {"arn": profile.arn, "id": profile.id} if profile else None,
        "blockDeviceMapping": [
            {
                "deviceName": name,
                "ebs": {
                    "volumeId": device.volume_id,
                    "status": "attached",
                    "attachTime": device.attach_time,
                    "deleteOnTermination": bool(device.delete_on_termination),
                },
            }
            for name, device in item.get_block_device_mapping
        ],
        "networkInterfaceSet": [
            _interface(interface, card, item, groups) for card, interface in sorted(item.nics.items())
        ],
    }


def _interface(interface: NetworkInterface, card: int, item: Instance, groups: list[dict[str, Any]]) -> dict[str, Any]:
    public = {"publicIp": interface.public_ip, "publicDnsName": item.public_dns_name, "ipOwnerId": "amazon"}
    association = public if interface.public_ip else None
    address = interface.private_ip_address
    addresses = [{"privateIpAddress": address, "primary": True, "association": association}] if address else []
    return {
        "networkInterfaceId": interface.id,
        "subnetId": interface.subnet.id,
        "vpcId": interface.vpc_id,
        "description": interface.description,
        "ownerId": interface.owner_id,
        "status": "in-use",
        "macAddress": interface.mac_address,
        "privateIpAddress": interface.private_ip_address,
        "privateDnsName": item.private_dns_name if addresses else None,
        "sourceDestCheck": True,
        "groupSet": groups,
        "attachment": {
            "attachmentId": interface.attachment_id,
            "deviceIndex": interface.device_index,
            "networkCardIndex": card,
            "status": "attached",
            "attachTime": interface.attach_time,
            "deleteOnTermination": True,
        },
        "association": association,
        "privateIpAddressesSet": addresses,
        "interfaceType": interface.interface_type,
    }


def _metadata(item: Instance) -> dict[str, Any]:
    options = item.metadata_options
    return {
        "state": "applied",
        "httpTokens": options.http_tokens,
        "httpPutResponseHopLimit": options.http_put_response_hop_limit,
        "httpEndpoint": options.http_endpoint,
        "httpProtocolIpv6": options.http_protocol_ipv6,
        "instanceMetadataTags": options.instance_metadata_tags,
    }


# DescribeInstances filters other than those of tags, and what each compares.
FILTERS: dict[str, Callable[[Machine], list[str | None]]] = {
    "availability-zone": lambda m: [m.instance.placement.zone],
    "client-token": lambda m: [m.instance.client_token],
    "iam-instance-profile.arn": lambda m: [m.profile.arn if m.profile else None],
    "image-id": lambda m: [m.instance.image_id],
    "instance-id": lambda m: [m.instance.id],
    "instance-lifecycle": lambda m: ["spot" if m.spot_request else None],
    "instance-state-code": lambda m: [str(m.instance.state_code)],
    "instance-state-name": lambda m: [m.instance.state],
    "instance-type": lambda m: [m.instance.instance_type],
    "instance.group-id": lambda m: [g.id for g in m.instance.security_groups] if m.alive else [],
    "instance.group-name": lambda m: [g.name for g in m.instance.security_groups] if m.alive else [],
    "ip-address": lambda m: [m.instance.public_ip if m.alive else None],
    "key-name": lambda m: [m.instance.key_name],
    "launch-time": lambda m: [m.instance.launch_time.strftime("%Y-%m-%dT%H:%M:%S.000Z")],
    "placement-group-name": lambda m: [m.instance.placement.group_name or None],
    "private-ip-address": lambda m: [m.instance.private_ip if m.alive else None],
    "reservation-id": lambda m: [m.reservation.id],
    "spot-instance-request-id": lambda m: [m.spot_request],
    "state-reason-code": lambda m: [m.instance.state_reason.code or None],
    "subnet-id": lambda m: [m.instance.subnet_id if m.alive else None],
    "vpc-id": lambda m: [m.instance.vpc_id if m.alive else None],
}
