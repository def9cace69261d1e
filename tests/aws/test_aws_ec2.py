from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.aws import ec2
from orchestrator.aws.codes import Kind
from orchestrator.aws.ec2 import Compute
from orchestrator.aws.errors import LaunchRefused
from orchestrator.aws.session import Session
from orchestrator.aws.shapes import transition_time
from orchestrator.errors import BadInput, Exit, NoPermission
from tests.aws.aws_wire import Form, Reply, Wire, ec2_reply

RUN = "imagenet18-20261120-203601-ab12"
OTHER = "cifar10-20261120-203601-cd34"


def request(count: int = 2, run: str = RUN, **more: Any) -> dict[str, Any]:
    tags = [{"Key": "orch:run", "Value": run}, {"Key": "orch:generation", "Value": "3"}]
    tags += [{"Key": "orch:token", "Value": "t" * 64}]
    return {
        "ClientToken": "t" * 64,
        "ImageId": "ami-03cf127a",
        "InstanceType": "m5.large",
        "MinCount": count,
        "MaxCount": count,
        "InstanceMarketOptions": {"MarketType": "spot"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        **more,
    }


def test_a_launch_gives_its_instances_in_launch_order(session: Session) -> None:
    made = Compute(session).run_instances(request(3))
    assert [item.launch_index for item in made] == [0, 1, 2]
    first = made[0]
    assert (first.instance_type, first.lifecycle, first.state) == ("m5.large", "spot", "pending")
    assert (first.generation, first.token) == (3, "t" * 64)
    assert first.launch_time.tzinfo is UTC
    assert first.private_ip is not None


def test_the_request_goes_out_as_it_was_frozen(session: Session, wire: Wire) -> None:
    Compute(session).run_instances(request(UserData="#!/bin/sh\n"))
    sent = wire.forms[wire.calls.index("RunInstances")]
    assert sent["ClientToken"] == "t" * 64
    assert sent["UserData"] == "IyEvYmluL3NoCg=="  # base64, as the API wants it
    assert (sent["MinCount"], sent["MaxCount"]) == ("2", "2")


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InsufficientInstanceCapacity", 500, "no-capacity"),
        ("MaxSpotInstanceCountExceeded", 400, "quota"),
        ("SpotMaxPriceTooLow", 400, "price-cap"),
        ("Unsupported", 400, "not-offered"),
        ("UnauthorizedOperation", 403, "denied"),
        ("ExpiredToken", 400, "expired"),
        ("InvalidAMIID.NotFound", 400, "bad-request"),
        ("InternalError", 500, "unreachable"),
        ("BrandNewServerFault", 503, "unreachable"),
        ("BrandNewRefusal", 400, "unknown"),
    ],
)
def test_a_refused_launch_names_code_and_kind_after_one_request(
    session: Session, wire: Wire, code: str, status: int, kind: str
) -> None:
    wire.fail("RunInstances", code, status=status, message="said so")
    with pytest.raises(LaunchRefused, match="said so") as caught:
        Compute(session).run_instances(request())
    assert (caught.value.code, caught.value.kind) == (code, kind)
    assert wire.count("RunInstances") == 1


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        ("no-capacity", Exit.NO_CAPACITY),
        ("quota", Exit.NO_CAPACITY),
        ("denied", Exit.NO_PERMISSION),
        ("bad-request", Exit.BAD_INPUT),
        ("unknown", Exit.RUN_FAILED),
    ],
)
def test_a_refusal_ends_with_the_exit_code_of_its_kind(kind: Kind, exit_code: Exit) -> None:
    assert LaunchRefused("Code", kind, "message").exit_code == exit_code


def test_a_throttled_launch_is_repeated_with_the_same_token(
    session: Session, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    wire.fail("RunInstances", "RequestLimitExceeded", status=503, times=2)
    assert len(Compute(session).run_instances(request())) == 2
    sent = [form["ClientToken"] for form, call in zip(wire.forms, wire.calls, strict=True) if call == "RunInstances"]
    assert sent == ["t" * 64] * 3


def test_a_launch_waits_until_ec2_knows_what_was_just_created(
    session: Session, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    message = "Value (orch-node) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    wire.fail("RunInstances", "InvalidParameterValue", message=message, times=2)
    wire.fail("RunInstances", "InvalidGroup.NotFound")
    assert len(Compute(session).run_instances(request())) == 2


def test_what_never_appears_makes_the_request_a_bad_one(
    session: Session, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "VISIBLE_SECONDS", 0.0)
    wire.fail("RunInstances", "InvalidGroup.NotFound")
    with pytest.raises(LaunchRefused) as caught:
        Compute(session).run_instances(request())
    assert caught.value.kind == "bad-request"


def test_a_launch_without_a_reply_is_of_unknown_outcome(session: Session, wire: Wire) -> None:
    wire.lose_reply("RunInstances")
    with pytest.raises(LaunchRefused) as caught:
        Compute(session).run_instances(request())
    assert caught.value.kind == "unreachable"
    assert len(Compute(session).instances(RUN)) == 2


def test_instances_are_found_by_their_run_alone(session: Session) -> None:
    compute = Compute(session)
    ours = compute.run_instances(request(2))
    compute.run_instances(request(1, run=OTHER))
    assert {item.instance_id for item in compute.instances(RUN)} == {item.instance_id for item in ours}
    assert compute.instances("nobody-20261120-203601-zz99") == ()
    assert {item.tagged_run for item in compute.tagged_instances()} == {RUN, OTHER}
    assert all(item.alive for item in compute.tagged_instances())


def test_a_terminated_instance_keeps_its_volumes_and_says_when_and_why_it_ended(session: Session, wire: Wire) -> None:
    compute = Compute(session)
    ids = [item.instance_id for item in compute.run_instances(request())]
    alive = compute.instances(RUN)
    assert [volume.size_gib for item in alive for volume in item.volumes] == [8, 8]
    assert all(item.end_time is None and item.end_reason is None for item in alive)
    compute.terminate(ids)
    ended = compute.instances(RUN)
    assert {item.state for item in ended} == {"terminated"}
    assert {item.end_reason for item in ended} == {"Client.UserInitiatedShutdown"}
    assert all(item.end_time is not None and item.end_time >= item.launch_time for item in ended)
    assert [item.volumes for item in ended] == [item.volumes for item in alive]
    assert wire.count("DescribeVolumes") == 1, "the sizes of known volumes are not asked for again"


def test_terminating_twice_and_with_an_unknown_id_terminates_the_rest(session: Session) -> None:
    compute = Compute(session)
    ids = [item.instance_id for item in compute.run_instances(request())]
    compute.terminate([ids[0], "i-0123456789abcdef0", ids[1]])
    assert {item.state for item in compute.instances(RUN)} == {"terminated"}
    compute.terminate(ids)
    compute.terminate(["i-0123456789abcdef0"])
    compute.terminate([])
    assert {item.state for item in compute.instances(RUN)} == {"terminated"}


def test_a_malformed_id_is_bad_input_and_not_gone(session: Session, wire: Wire) -> None:
    wire.fail("TerminateInstances", "InvalidInstanceID.Malformed", message='Invalid id: "i-x"')
    with pytest.raises(BadInput):
        Compute(session).terminate(["i-x"])


def test_a_dry_run_launches_nothing_and_reports_a_missing_permission(session: Session, wire: Wire) -> None:
    compute = Compute(session)
    compute.dry_run(request())
    assert compute.instances(RUN) == ()
    wire.fail("RunInstances", "UnauthorizedOperation", status=403, message="not authorized to perform: iam:PassRole")
    with pytest.raises(NoPermission) as caught:
        compute.dry_run(request())
    assert "iam:PassRole" in caught.value.hint


def test_every_page_of_instances_is_read(session: Session, wire: Wire) -> None:
    def page(form: Form) -> Reply:
        number = int(form.get("NextToken", "0"))
        more = f"<nextToken>{number + 1}</nextToken>" if number < 2 else ""
        instance = (
            f"<item><instanceId>i-{number}</instanceId><instanceType>m5.large</instanceType>"
            "<instanceState><code>48</code><name>terminated</name></instanceState>"
            "<launchTime>2026-11-20T20:36:01.000Z</launchTime>"
            "<reason>Service initiated (2026-11-20 21:00:00 GMT)</reason>"
            "<stateReason><code>Server.SpotInstanceTermination</code></stateReason>"
            "<placement><availabilityZone>us-east-1a</availabilityZone></placement></item>"
        )
        inner = f"<reservationSet><item><instancesSet>{instance}</instancesSet></item></reservationSet>{more}"
        return ec2_reply("DescribeInstances", inner)

    wire.answer("DescribeInstances", page)
    found = Compute(session).instances(RUN)
    assert [item.instance_id for item in found] == ["i-0", "i-1", "i-2"]
    assert {item.end_reason for item in found} == {"Server.SpotInstanceTermination"}
    assert {item.end_time for item in found} == {datetime(2026, 11, 20, 21, tzinfo=UTC)}
    assert {(item.lifecycle, item.generation) for item in found} == {("on-demand", 1)}


@pytest.mark.parametrize(
    ("reason", "moment"),
    [
        ("User initiated (2026-11-20 20:36:01 GMT)", datetime(2026, 11, 20, 20, 36, 1, tzinfo=UTC)),
        ("User initiated (2026-11-20 20:36:01 UTC)", datetime(2026, 11, 20, 20, 36, 1, tzinfo=UTC)),
        ("", None),
        ("Server.InternalError", None),
    ],
)
def test_the_transition_time_is_read_where_there_is_one(reason: str, moment: datetime | None) -> None:
    assert transition_time(reason) == moment
