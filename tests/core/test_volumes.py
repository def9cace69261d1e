"""Data sets on volumes: how large, how fast, what it costs beside fetching them, and which of the two is taken."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import dataset
from orchestrator.core.bill import make_bill
from orchestrator.core.estimates import ebs_charge, initialisation_charge
from orchestrator.core.facts import Volume
from orchestrator.core.manifest import File
from orchestrator.core.plan import gp3_for, make_plan
from orchestrator.core.volumes import (
    IOPS_PER_MIB,
    DataVolume,
    Gp3,
    Snapshot,
    arrival_seconds,
    fee,
    mapping,
    newest,
    provision,
    size_for,
)
from orchestrator.core.ways import Choice, Way, cheaper, ebs_way, stage_way
from tests.core.test_plan import market
from tests.core.worlds import at, instance, offer, spec

GIB = 2**30
LIMIT = timedelta(hours=1)
SNAPSHOT = Snapshot("snap-1", "flowers", "0" * 16, "completed", at(0), 2, GIB, "run")


def volume(gib: float = 150, snapshot: str = "snap-1") -> DataVolume:
    return DataVolume("flowers", snapshot, "0" * 16, round(gib * 1.05) + 1, round(gib * GIB))


def test_a_volume_holds_its_files_and_the_tables_of_the_file_system() -> None:
    assert size_for([File("a", 1, "")]) == 1
    assert size_for([File("a", 100 * GIB, "")]) == 104
    small = [File(str(n), 1, "") for n in range(1_000_000)]
    assert size_for(small) * GIB > 1_000_000 * 4096, "a file takes a block at least"
    assert size_for(small) * GIB > 1_000_000 * 16 * 1024, "and an inode, of which mkfs makes one for every 16 KiB"


def test_a_volume_holds_the_folders_of_its_files_too() -> None:
    count = 60_000
    alone = [File(f"{number}/image.jpg", 8 * 4096, "") for number in range(count)]
    assert size_for(alone) * GIB > count * 9 * 4096, "a folder takes a block"
    deep = [File(f"{number}/a/b/c/image.jpg", 1, "") for number in range(count)]
    assert size_for(deep) * GIB > count * 5 * 16 * 1024, "and an inode"
    long = [File(f"{number:0200}", 16 * 4096, "") for number in range(count)]
    assert size_for(long) * GIB > count * (16 * 4096 + 2 * 200), "and more of them for many names"
    assert size_for(long) == size_for([File(f"all/{file.path}", file.size, "") for file in long])


def test_the_newest_completed_snapshot_of_the_version_serves() -> None:
    older = replace(SNAPSHOT, snapshot_id="snap-0", created=at(-9))
    pending = replace(SNAPSHOT, snapshot_id="snap-2", created=at(9), state="pending")
    assert newest([older, SNAPSHOT, pending], "flowers", "0" * 16) == SNAPSHOT
    assert newest([pending], "flowers", "0" * 16) == pending, "who asks says that it is pending"
    assert newest([SNAPSHOT], "flowers", "1" * 16) is None
    assert newest([SNAPSHOT], "roses", "0" * 16) is None
    assert SNAPSHOT.monthly == 50_000


@given(
    price=st.integers(10_000, 100_000_000),
    hours=st.floats(0.1, 100),
    gib=st.floats(0.01, 4000),
    ebs=st.sampled_from([0.0, 80.0, 218.75, 1750.0, 10_000.0]),
    in_memory=st.booleans(),
)
def test_nothing_cheaper_is_found_and_a_dearer_machine_never_waits_longer(
    price: int, hours: float, gib: float, ebs: float, *, in_memory: bool
) -> None:
    wanted = volume(gib)
    made = provision(wanted, price, hours, ebs, in_memory=in_memory)
    assert 125 <= made.throughput <= 2000
    assert 100 <= made.rate <= 300
    assert made.iops >= max(3000, IOPS_PER_MIB * made.throughput)
    assert made.iops <= max(3000, 500 * wanted.size_gib), "EC2 takes no more of a small volume"
    dearer = provision(wanted, price * 2, hours, ebs, in_memory=in_memory)
    if in_memory:
        assert arrival_seconds(wanted, dearer, ebs) <= arrival_seconds(wanted, made, ebs)
        spent = price * arrival_seconds(wanted, made, ebs) / 3600 + fee(wanted, made, hours)
        for other in (Gp3(125, 3000, 100), Gp3(300, 3000, 300), Gp3(200, 3000, 200)):
            assert spent <= price * arrival_seconds(wanted, other, ebs) / 3600 + fee(wanted, other, hours)


def test_speed_is_bought_where_machines_are_dear_and_no_more_than_they_can_take() -> None:
    assert provision(volume(), 24_000_000, 1, 1750, in_memory=True) == Gp3(300, 3000, 300)
    assert provision(volume(), 40_000, 1, 1750, in_memory=True) == Gp3(125, 3000, 100)
    assert provision(volume(), 24_000_000, 1, 81.25, in_memory=True) == Gp3(125, 3000, 100), "EBS gives it no more"
    again = provision(volume(), 24_000_000, 1, 1750, in_memory=False)
    assert (again.throughput, again.iops, again.rate) == (2000, 8000, 300), "read again in every epoch"
    assert provision(volume(snapshot=""), 24_000_000, 1, 1750, in_memory=True) == Gp3(), (
        "a blank one has nothing to read"
    )


def test_the_bill_has_what_was_provisioned_and_the_initialisation_once() -> None:
    base, fast = Volume("vol-a", 100, "gp3", 3000, 125), Volume("vol-b", 100, "gp3", 4000, 1000, 300)
    assert ebs_charge(base, 3600) == ebs_charge(Volume("v", 100, "gp3"), 3600)
    month = 30 * 86_400
    assert ebs_charge(fast, month) - ebs_charge(base, month) == 1000 * 5_000 + 875 * 40_000
    assert initialisation_charge(base) == 0
    assert initialisation_charge(fast) == 360_000, "$0.0036 a GiB at 300 MiB/s"
    item = instance(0, "terminated", end_time=at(7200), volumes=(base, fast))
    lines = {line.id: line.usd for line in make_bill("run", [item], [], {}, at(9000)).other if line.kind == "ebs"}
    assert lines == {"vol-a": ebs_charge(base, 7200), "vol-b": ebs_charge(fast, 7200) + 360_000}


@pytest.mark.parametrize("duration", [None, "20m"])
def test_every_figure_of_a_plan_has_volumes_as_the_bill_will(duration: str | None) -> None:
    made = spec(16, max_cost=30, expected_duration=duration).experiment
    without, plan = (make_plan(made, 16, market(), volumes) for volumes in ((), (volume(),)))
    for index, (bare, full) in enumerate(zip(without.offers, plan.offers, strict=True)):
        gp3 = gp3_for(volume(), full, LIMIT)
        data = Volume("vol-a", volume().size_gib, "gp3", gp3.iops, gp3.throughput, gp3.rate)

        def billed(hours: float, data: Volume = data) -> int:
            ended = instance(0, "terminated", end_time=at(hours * 3600), volumes=(data,))
            lines = make_bill("run", [ended], [], {}, at(9000)).other
            return 16 * sum(line.usd for line in lines if line.kind == "ebs")

        hours = full.hours or 1
        assert (
            full.cost - bare.cost == full.on_demand_cost - bare.on_demand_cost == pytest.approx(billed(hours), abs=32)
        )
        assert full.cost - bare.cost > 16 * 12 * 100 * volume().size_gib, "that they are initialised is most of it"
        before, after = without.forecast(index), plan.forecast(index)
        assert (before is None) == (after is None) == (duration is None)
        for end, span in enumerate(after.hours if after else ()):
            for name in ("cost", "on_demand"):
                assert getattr(after, name)[end] - getattr(before, name)[end] == pytest.approx(billed(span), abs=32)
        assert after is None or before is None or after.saving[0] < before.saving[0], "it costs the same on demand"
    assert plan.timer < without.timer, "the cap pays for them at once"


def test_a_volume_of_a_launch_goes_with_its_machine() -> None:
    made = mapping(volume(), Gp3(300, 3000, 250), "/dev/sdf")
    assert made["DeviceName"] == "/dev/sdf"
    assert made["Ebs"] == {
        "VolumeSize": 159, "VolumeType": "gp3", "DeleteOnTermination": True, "Iops": 3000, "Throughput": 300,
        "SnapshotId": "snap-1", "VolumeInitializationRate": 250,
    }  # fmt: skip
    blank = mapping(volume(snapshot=""), Gp3(), "/dev/sdf")["Ebs"]
    assert blank["Encrypted"]
    assert not {"SnapshotId", "VolumeInitializationRate"} & blank.keys()


def test_a_fast_network_brings_a_set_that_memory_holds_and_a_volume_one_that_it_does_not() -> None:
    # 16 x p3.16xlarge, 160 GB: 25 Gbit/s of which three quarters are had, against at most 300 MiB/s.
    dear = offer(price=4_000_000)
    stage, ebs = stage_way(160 * 10**9, dear, 16), ebs_way(volume(149), dear, 16, LIMIT)
    assert stage.seconds == pytest.approx(68.3, abs=0.1)
    assert ebs.seconds == pytest.approx(509, abs=2)
    assert cheaper((stage, ebs)) == ("stage", "which costs less and is sooner")
    # Of 244 GiB of memory half hold less than that: it would go to a root volume of 125 MiB/s.
    small = replace(dear, instance_type="p3.8xlarge", price=2_000_000)
    stage, ebs = stage_way(160 * 10**9, small, 16), ebs_way(volume(149), small, 16, LIMIT)
    assert stage.seconds == pytest.approx(1220.7, abs=0.1)
    assert cheaper((stage, ebs)) == ("ebs", "which costs less and is sooner")
    assert gp3_for(volume(149), small, LIMIT).throughput == 1000


def test_what_takes_longer_is_said_and_what_is_not_known_is_not_guessed() -> None:
    quick, slow = Way("ebs", 10, 900), Way("stage", 20, 800)
    assert cheaper((slow, quick)) == ("stage", "which costs less, though it takes longer")
    unknown = stage_way(10**9, replace(offer(), instance_type="p3.2xlarge"), 2)
    assert (unknown.seconds, unknown.cost) == (None, None)
    assert cheaper((unknown, quick))[0] == "stage"
    said = str(Choice("flowers", 10**9, "stage", "since the two cannot be compared", (unknown, quick)))
    assert "stage unknown (what network p3.2xlarge has is not known); ebs 10s $0.0009; stage, since" in said


def test_a_data_set_is_known_by_its_url_in_the_bucket_of_the_runs_alone() -> None:
    version = "0123456789abcdef"
    assert dataset.named_by(f"s3://ours/datasets/flowers/{version}", "ours") == ("flowers", version)
    assert dataset.named_by(f"s3://ours/datasets/flowers/{version}/", "ours") == ("flowers", version)
    for other in (f"s3://theirs/datasets/flowers/{version}", "s3://ours/flowers", f"s3://ours/datasets/{version}"):
        assert dataset.named_by(other, "ours") is None
