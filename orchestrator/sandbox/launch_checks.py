"""Every check EC2 makes of a launch, in one place and before anything is made.

The order is that of a refusal a user can act on: names first, then what the zone sells, then quota, price and room.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from moto.ec2.models.amis import Ami
from moto.ec2.models.security_groups import SecurityGroup
from moto.ec2.models.subnets import Subnet
from moto.iam.models import InstanceProfile, iam_backends

from orchestrator.core.units import to_micro, usd
from orchestrator.sandbox import catalogue
from orchestrator.sandbox.ec2_base import EC2Operations
from orchestrator.sandbox.ec2_snapshots import check_volumes
from orchestrator.sandbox.interfaces import check_interfaces
from orchestrator.sandbox.quotas_api import quota_code
from orchestrator.sandbox.wire import Refused

USER_DATA_LIMIT = 16_384
TAGGABLE = frozenset({"instance", "volume", "network-interface", "spot-instances-request"})
# Parameters that would make something else than what the sandbox makes.
REFUSED = ("LaunchTemplate", "Placement.HostId", "CpuOptions", "ElasticGpuSpecification", "Ipv6AddressCount")


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """A launch that has passed every check."""

    count: int
    instance_type: str
    image_id: str
    subnet: Subnet
    groups: list[SecurityGroup]
    public_ip: bool | None
    key_name: str | None
    public_key: str
    user_data: bytes
    group_name: str
    profile: InstanceProfile | None
    spot: bool
    tags: dict[str, dict[str, str]]
    interfaces: list[dict[str, Any]]


class LaunchChecks(EC2Operations):
    """The checks of RunInstances."""

    def check_launch(self) -> LaunchOrder:
        """Return what the request asks for. Raises Refused, with EC2's code, for the first thing that is wrong."""
        for name in REFUSED:
            if self.param(name):
                raise Refused("UnsupportedOperation", f"the sandbox's RunInstances takes no {name}")
        least, most = self._count()
        instance_type = self._instance_type()
        image_id = self._image()
        check_volumes(self.world, self.param("BlockDeviceMappings", []))
        key_name, public_key = self._key()
        interfaces = self._interfaces(instance_type)
        interface = interfaces[0] if interfaces else {}
        subnet = self._subnet(instance_type, interface)
        groups = self._groups(subnet, interface)
        profile = self._profile()
        user_data = self._user_data()
        group_name = str(self.param("Placement.GroupName", ""))
        if group_name:
            self.world.placement_groups.check_launch(
                group_name, instance_type, subnet.availability_zone, in_use=self._group_in_use(group_name)
            )
        spot = self.param("InstanceMarketOptions.MarketType") == "spot"
        self._check_zone(instance_type, subnet)
        free = self.world.private_addresses[subnet.id].free
        if free < least:
            raise Refused("InsufficientFreeAddressesInSubnet", f"There are not enough free addresses in {subnet.id}.")
        count = min(most, free)
        self._check_quota(instance_type, count, spot=spot)
        if spot:
            self._check_price(instance_type, subnet.availability_zone)
        # None is what the subnet says; with several interfaces EC2 gives no public address, whatever it says.
        public_ip = interface.get("AssociatePublicIpAddress") if len(interfaces) < 2 else False
        return LaunchOrder(
            count, instance_type, image_id, subnet, groups, public_ip, key_name, public_key,
            user_data, group_name, profile, spot, self._tags(spot=spot), interfaces,
        )  # fmt: skip

    def _count(self) -> tuple[int, int]:
        if self.param("MinCount") is None or self.param("MaxCount") is None:
            raise Refused("MissingParameter", "The request must contain the parameters MinCount and MaxCount")
        least, most = int(self.param("MinCount")), int(self.param("MaxCount"))
        if not 1 <= least <= most:
            raise Refused(
                "InvalidParameterValue", f"MinCount {least} and MaxCount {most} allow no number of instances."
            )
        return least, most

    def _instance_type(self) -> str:
        name = str(self.param("InstanceType", "m1.small"))
        try:
            catalogue.vcpus(name)
        except KeyError:
            raise Refused("InvalidParameterValue", f"Invalid value '{name}' for InstanceType.") from None
        return name

    def _image(self) -> str:
        image_id = str(self.param("ImageId", ""))
        if not image_id:
            raise Refused("MissingParameter", "The request must contain the parameter ImageId")
        if not image_id.startswith("ami-"):
            raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "ami-...")')
        if image_id not in self.world.amis:
            message = f"The image id '[{image_id}]' does not exist (the sandbox boots {catalogue.SANDBOX_AMI})"
            raise Refused("InvalidAMIID.NotFound", message)
        image = self.world.amis[image_id]
        if image.state != "available":
            message = f"The image ID '[{image_id}]' is not available; it is {image.state}"
            raise Refused("InvalidAMIID.Unavailable", message)
        self._check_sizes(image)
        return image_id

    def _check_sizes(self, image: Ami) -> None:
        """Refuse a volume that is smaller than the snapshot it would be made of."""
        if image.id == catalogue.SANDBOX_AMI:
            return
        least = {item["DeviceName"]: item["Ebs"] for item in image.block_device_mappings}
        for asked in self.param("BlockDeviceMappings", []):
            device = least.get(asked.get("DeviceName"))
            size = (asked.get("Ebs") or {}).get("VolumeSize")
            if device is not None and size is not None and int(size) < device["VolumeSize"]:
                message = f"Volume of size {size}GB is smaller than snapshot '{device['SnapshotId']}'"
                raise Refused("InvalidBlockDeviceMapping", f"{message}, expect size >= {device['VolumeSize']}GB")

    def _key(self) -> tuple[str | None, str]:
        name = self.param("KeyName")
        if name is None:
            return None, ""
        if name not in self.world.key_pairs:
            raise Refused("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
        return name, self.world.key_pairs[name].public_key.strip()

    def _interfaces(self, instance_type: str) -> list[dict[str, Any]]:
        """Return the network interfaces that a request describes, the primary one first."""
        interfaces: list[dict[str, Any]] = self.param("NetworkInterfaces", [])
        if interfaces and (self.param("SubnetId") or self.param("SecurityGroupIds")):
            message = "Network interfaces and an instance-level subnet ID may not be specified on the same request"
            raise Refused("InvalidParameterCombination", message)
        check_interfaces(instance_type, interfaces)
        return sorted(interfaces, key=lambda item: (int(item.get("NetworkCardIndex") or 0), int(item["DeviceIndex"])))

    def _subnet(self, instance_type: str, interface: dict[str, Any]) -> Subnet:
        wanted = interface.get("SubnetId") or self.param("SubnetId")
        zone = self.param("Placement.AvailabilityZone")
        subnets = {subnet.id: subnet for subnet in self.world.get_default_subnets().values()}
        if wanted:
            if wanted not in subnets:
                raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{wanted}' does not exist")
            if zone not in {None, subnets[wanted].availability_zone}:
                raise Refused("InvalidParameterValue", f"The subnet '{wanted}' is not in the zone '{zone}'.")
            return subnets[wanted]
        if zone is None:
            # EC2 chooses; here it is the first zone that sells the type.
            zone = (*catalogue.offered_zones(self.region, instance_type), f"{self.region}a")[0]
        for subnet in subnets.values():
            if subnet.availability_zone == zone:
                return subnet
        raise Refused("InvalidParameterValue", f"Invalid availability zone: [{zone}]")

    def _groups(self, subnet: Subnet, interface: dict[str, Any]) -> list[SecurityGroup]:
        ids = [*self.param("SecurityGroupIds", []), *interface.get("Groups", [])]
        known = self.world.groups[subnet.vpc_id]
        by_name = {group.name: group for group in known.values()}
        names = self.param("SecurityGroups", [])
        for missing in [i for i in ids if i not in known] + [n for n in names if n not in by_name]:
            raise Refused("InvalidGroup.NotFound", f"The security group '{missing}' does not exist")
        groups = [known[i] for i in ids] + [by_name[n] for n in names]
        default = self.world.get_default_security_group(subnet.vpc_id)
        return groups or ([default] if default else [])

    def _profile(self) -> InstanceProfile | None:
        name, arn = self.param("IamInstanceProfile.Name"), self.param("IamInstanceProfile.Arn")
        if name is None and arn is None:
            return None
        for profile in iam_backends[self.current_account][self.partition].get_instance_profiles():
            if name in {None, profile.name} and arn in {None, profile.arn}:
                return profile
        kind, value = ("name", name) if name else ("arn", arn)
        raise Refused(
            "InvalidParameterValue",
            f"Value ({value}) for parameter iamInstanceProfile.{kind} is invalid. Invalid IAM Instance Profile {kind}",
        )

    def _user_data(self) -> bytes:
        try:
            raw = base64.b64decode(str(self.param("UserData", "")), validate=True)
        except ValueError:
            raise Refused("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
        if len(raw) > USER_DATA_LIMIT:
            raise Refused("InvalidParameterValue", "User data is limited to 16384 bytes")
        return raw

    def _check_zone(self, instance_type: str, subnet: Subnet) -> None:
        zones = catalogue.offered_zones(self.region, instance_type)
        if subnet.availability_zone not in zones:
            raise Refused(
                "Unsupported",
                f"Your requested instance type ({instance_type}) is not supported in your requested Availability Zone"
                f" ({subnet.availability_zone}). Please retry your request by not specifying an Availability Zone or"
                f" choosing {', '.join(zones) or 'another region'}.",
            )

    def _check_quota(self, instance_type: str, count: int, *, spot: bool) -> None:
        code = quota_code(instance_type, spot=spot)
        if code is None:
            return
        running = sum(
            catalogue.vcpus(m.instance.instance_type)
            for m in self.world.living()
            if m.instance.state != "stopped"
            and quota_code(m.instance.instance_type, spot=m.spot_request is not None) == code
            and (m.spot_request is not None) == spot
        )
        limit = self.world.quotas.get(code)
        if running + count * catalogue.vcpus(instance_type) <= limit:
            return
        if spot:
            raise Refused("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        raise Refused(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit:.0f} allows for the instance"
            " bucket that the specified instance type belongs to.",
        )

    def _check_price(self, instance_type: str, zone: str) -> None:
        most = self.param("InstanceMarketOptions.SpotOptions.MaxPrice")
        if not catalogue.is_spot(instance_type):
            raise Refused("InvalidParameterValue", f"The instance type {instance_type} is not sold as spot.")
        try:
            price = self.world.market.price(instance_type, zone, datetime.now(UTC))
        except KeyError:
            return
        if most is not None and to_micro(str(most)) < price:
            raise Refused(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {most} is lower than the minimum required Spot request fulfillment price"
                f" of {usd(price)}.",
            )

    def _tags(self, *, spot: bool) -> dict[str, dict[str, str]]:
        tags: dict[str, dict[str, str]] = {}
        for entry in self.param("TagSpecifications", []):
            kind = entry.get("ResourceType", "")
            if kind not in TAGGABLE or (kind == "spot-instances-request" and not spot):
                message = f"'{kind}' is not a valid taggable resource type for this operation."
                raise Refused("InvalidParameterValue", message)
            tags.setdefault(kind, {}).update({tag["Key"]: tag.get("Value", "") for tag in entry.get("Tags", [])})
        return tags

    def _group_in_use(self, name: str) -> bool:
        return any(machine.instance.placement.group_name == name for machine in self.world.living())
