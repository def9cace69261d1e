"""What EC2 has to offer in a region: types by zone, what they have, and the default network. Reads only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from orchestrator.aws.errors import call, call_pages
from orchestrator.aws.session import Session
from orchestrator.aws.shapes import filters
from orchestrator.errors import NotFound


class Hardware(NamedTuple):
    """What EC2 says of a type: vCPUs, and how many EFA interfaces it takes, one on each of its first network cards."""

    vcpus: int
    efa: int


class Subnet(NamedTuple):
    """A subnet; `public`: who is launched into it gets a public address."""

    id: str
    public: bool


class Offerings:
    """The part of `Compute` that planning asks. Every method also raises NoPermission or Unreachable."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def regions(self) -> tuple[str, ...]:
        """Return the regions that this account can use."""
        reply = call("ec2:DescribeRegions", self._session.client("ec2").describe_regions)
        return tuple(sorted(item["RegionName"] for item in reply["Regions"]))

    def zones_offering(self, instance_types: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return the zones in which each type can be had; none for a type that the region does not (any more) offer."""
        found: dict[str, set[str]] = {name: set() for name in instance_types}
        if not found:
            return {}
        replies = call_pages(
            "ec2:DescribeInstanceTypeOfferings",
            self._session.client("ec2"),
            "describe_instance_type_offerings",
            LocationType="availability-zone",
            Filters=filters(instance_type=list(found)),
        )
        for reply in replies:
            for item in reply["InstanceTypeOfferings"]:
                found.setdefault(item["InstanceType"], set()).add(item["Location"])
        return {name: tuple(sorted(found[name])) for name in instance_types}

    def hardware(self, instance_types: Sequence[str]) -> dict[str, Hardware]:
        """Return what each type has; types EC2 does not describe are left out."""
        if not instance_types:
            return {}
        client = self._session.client("ec2")
        # As a filter, since one unknown name among InstanceTypes makes EC2 refuse the whole call.
        wanted = filters(instance_type=list(instance_types))
        replies = call_pages("ec2:DescribeInstanceTypes", client, "describe_instance_types", Filters=wanted)
        return {
            item["InstanceType"]: Hardware(int(item["VCpuInfo"]["DefaultVCpus"]), _efa(item.get("NetworkInfo", {})))
            for reply in replies
            for item in reply["InstanceTypes"]
            if item["InstanceType"] in instance_types
        }

    def default_vpc(self) -> str:
        """Return the id of the region's default VPC. Raises NotFound when there is none."""
        return str(self._default_vpc()["VpcId"])

    def vpc_network(self) -> str:
        """Return the default VPC's network, such as `172.31.0.0/16`. Raises NotFound when there is no default VPC."""
        return str(self._default_vpc()["CidrBlock"])

    def _default_vpc(self) -> dict[str, Any]:
        client = self._session.client("ec2")
        reply = call(
            "ec2:DescribeVpcs", lambda: client.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])
        )
        if not reply["Vpcs"]:
            raise NotFound(f"{self._session.region} has no default VPC", "make one with `aws ec2 create-default-vpc`")
        found: dict[str, Any] = reply["Vpcs"][0]
        return found

    def subnets(self) -> dict[str, Subnet]:
        """Return the default VPC's subnet in each zone. Raises NotFound when there is no default VPC."""
        wanted = filters(vpc_id=self.default_vpc())
        client = self._session.client("ec2")
        replies = call_pages("ec2:DescribeSubnets", client, "describe_subnets", Filters=wanted)
        found = [item for reply in replies for item in reply["Subnets"]]
        # Where somebody added subnets to the default VPC, the zone's own default one wins.
        found.sort(key=lambda item: (not item.get("DefaultForAz", False), item["SubnetId"]))
        chosen: dict[str, Subnet] = {}
        for item in found:
            subnet = Subnet(item["SubnetId"], bool(item.get("MapPublicIpOnLaunch")))
            chosen.setdefault(item["AvailabilityZone"], subnet)
        return chosen


def _efa(network: Mapping[str, Any]) -> int:
    """Return how many of a type's network cards, from the first on, take an EFA interface."""
    if not network.get("EfaSupported"):
        return 0
    cards = network.get("NetworkCards", [{}])
    # On a few types the first card, where the address is, has no EFA: those are launched as if they had none at all.
    if "efa" not in cards[0].get("InterfaceTypes", ["efa"]):
        return 0
    return min(int(network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 1)), len(cards))
