from __future__ import annotations

import pytest

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.offerings import _efa
from orchestrator.aws.session import Session
from orchestrator.errors import NotFound
from tests.aws.aws_wire import Wire, ec2_reply


def test_a_type_is_offered_where_ec2_says_so_and_an_unknown_one_nowhere(session: Session) -> None:
    found = Compute(session).zones_offering(["p3dn.24xlarge", "x9.huge"])
    assert found == {"p3dn.24xlarge": ("us-east-1c", "us-east-1d"), "x9.huge": ()}


def test_vcpus_and_efa_are_told_of_types_that_ec2_describes(session: Session) -> None:
    types = ["m5.large", "p3dn.24xlarge", "p4d.24xlarge", "p5.48xlarge", "x9.huge"]
    assert Compute(session).hardware(types) == {
        "m5.large": (2, 0),
        "p3dn.24xlarge": (96, 1),
        "p4d.24xlarge": (96, 4),
        "p5.48xlarge": (192, 32),
    }


def test_a_type_whose_first_network_card_has_no_efa_is_taken_for_one_without() -> None:
    cards = [{"InterfaceTypes": ["interface"]}, {"InterfaceTypes": ["efa", "efa-only"]}]
    described = {"EfaSupported": True, "EfaInfo": {"MaximumEfaInterfaces": 1}, "NetworkCards": cards}
    assert (_efa(described), _efa(described | {"NetworkCards": cards[1:]})) == (0, 1)


def test_no_types_need_no_call(session: Session, wire: Wire) -> None:
    compute = Compute(session)
    assert (compute.hardware([]), compute.zones_offering([])) == ({}, {})
    assert wire.calls == []


def test_each_zone_has_its_default_subnet_even_beside_others(session: Session) -> None:
    compute = Compute(session)
    before = compute.subnets()
    assert [subnet.public for subnet in before.values()] == [True] * 6
    vpc = compute.default_vpc()
    session.client("ec2").create_subnet(VpcId=vpc, CidrBlock="172.31.240.0/24", AvailabilityZone="us-east-1a")
    assert compute.subnets() == before
    chosen = before["us-east-1a"].id
    session.client("ec2").modify_subnet_attribute(SubnetId=chosen, MapPublicIpOnLaunch={"Value": False})
    assert compute.subnets()["us-east-1a"] == (chosen, False)


def test_without_a_default_vpc_it_says_how_to_make_one(session: Session, wire: Wire) -> None:
    wire.answer("DescribeVpcs", lambda _: ec2_reply("DescribeVpcs", "<vpcSet/>"))
    with pytest.raises(NotFound, match="no default VPC") as caught:
        Compute(session).subnets()
    assert "create-default-vpc" in caught.value.hint
