"""The pure parts of running: requests, prices kept with a run, progress lines, merged instances."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.facts import Instance, Node, PriceRow, Volume
from orchestrator.core.forecast import Forecast
from orchestrator.core.plan import Plan
from orchestrator.core.spec import RunSpec
from orchestrator.core.volumes import DataVolume
from orchestrator.run.observe import Watch, gone_by, merge
from orchestrator.run.prepare import plan_notes
from orchestrator.run.prices import from_lines, to_lines
from orchestrator.run.progress import newest_figures, parse_progress
from orchestrator.run.request import run_instances_request
from orchestrator.run.userdata import timer_left, user_data_of
from orchestrator.sandbox.user_data import scripts_of
from tests.core.worlds import RESOURCES, at, beacon, instance, offer, spec

FLOWERS = DataVolume("flowers", "snap-1", "0123456789abcdef", 60, 50 * 2**30)


def request(**changes: object) -> dict[str, object]:
    return run_instances_request(
        spec(16),
        replace(offer(), **changes),  # type: ignore[arg-type]
        generation=1,
        attempt=2,
        count=16,
        resources=RESOURCES,
        root_device="/dev/sda1",
        user_data="#!/bin/bash\n",
    )


def test_the_whole_gang_is_one_tagged_request_that_ends_with_its_machines() -> None:
    made = request()
    assert (made["MinCount"], made["MaxCount"]) == (16, 16)
    fewer = run_instances_request(
        spec(16), offer(), generation=1, attempt=1, count=16, least=8, resources=RESOURCES,
        root_device="/dev/sda1", user_data="",
    )  # fmt: skip
    assert (fewer["MinCount"], fewer["MaxCount"]) == (8, 16)
    assert made["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert made["MetadataOptions"] == {
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "HttpEndpoint": "enabled",
    }
    tagged = {item["ResourceType"]: {t["Key"]: t["Value"] for t in item["Tags"]} for item in made["TagSpecifications"]}  # type: ignore[attr-defined]
    assert set(tagged) == {"instance", "volume", "network-interface", "spot-instances-request"}
    assert all(tags["orch:run"] == "tiny-20261120-120000-abcd" for tags in tagged.values())
    assert len(str(made["ClientToken"])) == 64


def test_a_plan_says_what_the_least_costs_and_when_it_buys_on_demand() -> None:
    steady = replace(offer(), lifecycle="on-demand", price=24_480_000)
    plan = Plan(4, (offer(), steady), (), (), timedelta(hours=1))
    varies = spec(4, min_nodes=2, spot_policy="auto", expected_duration="20m").experiment
    notes = plan_notes(varies, plan, {})
    both = (
        "time and cost are those of 4 nodes ($12.00 an hour); 2 are enough ($6.00 an hour), and take up to {} for the"
    )
    assert any(note.startswith(both.format("2 times as long")) for note in notes)
    hour = Forecast((0.5, 0.75), (1, 2), (3, 4), (0.5, 0.5), ("", ""))
    foreseen = replace(plan, forecasts=(hour, hour))
    assert any(note.startswith(both.format("1h30m")) for note in plan_notes(varies, foreseen, {}))
    assert any("it buys on-demand, at up to $97.92 an hour" in note for note in notes)
    assert len(plan_notes(spec(4).experiment, plan, {})) == 1


def test_with_efa_each_network_card_has_an_interface_and_the_first_the_address() -> None:
    plain = request()
    assert (plain["SubnetId"], plain["SecurityGroupIds"]) == ("subnet-us-east-1a", ["sg-1"])
    made = request(efa=3)
    assert not {"SubnetId", "SecurityGroupIds"} & made.keys()
    cards: Any = made["NetworkInterfaces"]
    places = [(card["NetworkCardIndex"], card["DeviceIndex"], card["InterfaceType"]) for card in cards]
    assert places == [(0, 0, "efa"), (1, 1, "efa-only"), (2, 1, "efa-only")]
    assert {(card["SubnetId"], *card["Groups"], card["DeleteOnTermination"]) for card in cards} == {
        ("subnet-us-east-1a", "sg-1", True)
    }


def test_a_machine_has_the_efa_interfaces_of_the_offer_it_was_launched_by() -> None:
    run = spec(offers=[offer(), offer(instance_type="p4d.24xlarge", efa=4), offer("us-east-1b", efa=1)])
    asked = [("p4d.24xlarge", "us-east-1a"), ("p3.16xlarge", "us-east-1b"), ("p3.16xlarge", "us-east-1a"), ("x", "y")]
    assert [RunSpec.from_json(run.to_json()).efa_of(*where) for where in asked] == [4, 1, 0, 0]


def test_spot_requests_are_one_time_and_without_a_price_ceiling() -> None:
    market = request()["InstanceMarketOptions"]
    assert market == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }
    assert "InstanceMarketOptions" not in request(lifecycle="on-demand")


def test_every_node_gets_its_volumes_in_the_launch_provisioned_for_the_type_that_is_asked_for() -> None:
    run = replace(spec(2), volumes=(FLOWERS, replace(FLOWERS, data="roses", snapshot="")))

    def volumes(instance_type: str) -> list[dict[str, Any]]:
        made = run_instances_request(
            run, replace(offer(), instance_type=instance_type), generation=1, attempt=1, count=2, resources=RESOURCES,
            root_device="/dev/sda1", user_data="",
        )  # fmt: skip
        return list(made["BlockDeviceMappings"])

    root, first, second = volumes("p3.16xlarge")
    assert [item["DeviceName"] for item in (root, first, second)] == ["/dev/sda1", "/dev/sdf", "/dev/sdg"]
    assert (first["Ebs"]["SnapshotId"], first["Ebs"]["DeleteOnTermination"]) == ("snap-1", True)
    assert "SnapshotId" not in second["Ebs"]
    slow = volumes("m5.large")[1]
    assert slow["Ebs"]["VolumeInitializationRate"] < first["Ebs"]["VolumeInitializationRate"], "it reads no more of EBS"


def test_each_attempt_has_a_token_of_its_own_and_repeating_it_the_same() -> None:
    assert request() == request()
    other = run_instances_request(
        spec(16), offer(), generation=1, attempt=3, count=16, resources=RESOURCES, root_device="/dev/sda1", user_data=""
    )
    assert other["ClientToken"] != request()["ClientToken"]


def test_what_was_missed_during_a_gap_is_known_to_have_been_missed() -> None:
    watch = Watch()
    assert [watch.look(at(s)) for s in (0, 30, 74, 120, 121)] == [at(0), at(0), at(0), at(120), at(120)]


def test_user_data_arms_the_timer_before_anything_else_and_holds_the_moment_at_which_it_ends() -> None:
    scripts = scripts_of(user_data_of(spec(), timedelta(minutes=60), at(30), "p3.16xlarge").encode())
    (later,), (first,) = scripts.every_boot, scripts.first_boot
    lines = first.decode().splitlines()
    assert next(line for line in lines if line and not line.startswith("#")).startswith("shutdown -P +60 ")
    assert f"$((({int(at(3630).timestamp())} - now + 59) / 60))" in later.decode()


@pytest.mark.parametrize(
    ("instance_type", "gib", "mounted"),
    [("p3.16xlarge", 244, True), ("p3.16xlarge", 245, False), ("p3.2xlarge", 40, False), ("x9.new", 1, False)],
)
def test_data_are_kept_in_memory_only_where_half_of_it_is_left(instance_type: str, gib: int, mounted: bool) -> None:
    run = spec(data={"set": {"source": "s3://sets/set"}})
    run = replace(run, data_bytes={"set": gib * 2**30})
    text = user_data_of(run, timedelta(minutes=60), at(30), instance_type)
    (first,) = scripts_of(text.encode()).first_boot
    assert (b"mount -t tmpfs" in first) is mounted


def test_who_comes_late_does_not_stay_longer_and_money_that_is_spent_is_not_spent_again() -> None:
    minutes = [timer_left(spec(), timedelta(minutes=age), 0) / timedelta(minutes=1) for age in (0, 25, 90)]
    assert minutes == [70, 45, 1]
    capped = spec(max_cost="6")
    whole = timer_left(capped, timedelta(), 0)
    assert timer_left(capped, timedelta(), 4_000_000) < whole < timedelta(hours=1)
    large = replace(FLOWERS, size_gib=150, bytes=140 * 2**30)
    # Two volumes of 150 GiB, initialised at 250 MiB/s, are $0.90 at once: a seventh of the money.
    assert timer_left(replace(capped, volumes=(large,)), timedelta(), 0) == whole - timedelta(minutes=8)


def test_a_spec_survives_its_file() -> None:
    made = spec(3, max_cost="12.50", envs={"A": "b"})
    assert RunSpec.from_json(made.to_json()) == made
    with_volume = replace(made, volumes=(FLOWERS,))
    assert RunSpec.from_json(with_volume.to_json()) == with_volume


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"version": 2}', b'{"version": 1}', b"\xff"])
def test_what_is_no_spec_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        RunSpec.from_json(body)


def test_an_instance_survives_its_record() -> None:
    gone = instance(3, "terminated", end_time=at(9), end_reason="x")
    assert Instance.from_json(gone.to_json()) == gone
    made = replace(gone, volumes=(Volume("vol-1", 8, "gp3"), Volume("vol-2", 8, "gp3", 4000, 1000, 300)))
    assert Instance.from_json(made.to_json()) == made
    older = made.to_json() | {"volumes": [["vol-1", 8, "gp3"]]}
    assert Instance.from_json(older).volumes == made.volumes[:1], "records of runs before volumes were provisioned"


def test_what_ec2_forgot_is_taken_from_the_record_as_gone() -> None:
    shown = instance(0)
    recorded = [instance(0, "shutting-down", end_time=at(5)), instance(1, "shutting-down", end_time=at(5))]
    merged = merge([shown], recorded)
    assert [(item.instance_id, item.state) for item in merged] == [("i-0", "running"), ("i-1", "terminated")]


def test_volumes_that_ec2_no_longer_shows_of_a_machine_stay_on_the_bill() -> None:
    recorded = [instance(n, "terminated", end_time=at(5)) for n in (0, 1)]
    shown = [replace(recorded[0], volumes=()), replace(instance(2), volumes=())]
    assert [bool(item.volumes) for item in merge(shown, recorded)] == [True, True, False]


def test_a_machine_that_shut_itself_down_was_gone_by_its_timer_however_late_somebody_looks() -> None:
    said = Node(beacon=beacon(0, deadline=at(600).timestamp()))
    by_itself = instance(0, "terminated", end_reason="Client.InstanceInitiatedShutdown")
    assert gone_by(by_itself, said, at(9000)) == at(720)
    assert gone_by(by_itself, said, at(650)) == at(650)
    assert gone_by(by_itself, Node(), at(9000)) == at(9000)
    assert gone_by(replace(by_itself, end_reason=None), said, at(9000)) == at(9000)


@given(
    st.lists(
        st.builds(
            PriceRow,
            st.sampled_from(["us-east-1a", "us-east-1b"]),
            st.sampled_from(["p3.16xlarge", "p4d.24xlarge"]),
            st.integers(0, 10**6).map(at),
            st.integers(1, 10**9),
        )
    )
)
def test_prices_survive_their_file(rows: list[PriceRow]) -> None:
    assert set(from_lines(to_lines(rows))) == set(rows)


def test_progress_is_read_around_whatever_else_a_script_wrote() -> None:
    lines = parse_progress(b'{"step": 1, "loss": 2.5, "time": 9}\nnot json\n[1]\n{"step": 2, "top1": 50.0}\n{"ste')
    assert newest_figures(lines) == {"step": 2, "loss": 2.5, "top1": 50.0}
