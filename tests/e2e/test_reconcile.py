"""Runs on real hosts and their money: bills beside the sandbox's own meter and a data feed, a cap that is moved."""

from __future__ import annotations

import gzip
import json
import math
import re
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from tests.e2e.recompute import ended, price_at
from tests.e2e.sandbox_world import World, phase, wait_for
from tests.e2e.stepping import launch, ledger, saved_steps, trains

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]
HEAD = (
    "#Version: 1.0\n#Fields: Timestamp UsageType Operation InstanceID MyBidID MyMaxPrice MarketPrice Charge Version\n"
)


@pytest.fixture(scope="module")
def capped(world: World) -> str:
    dear = {"any_of": [{"instance_type": "p5en.48xlarge"}], "disk_size": 8}
    return launch(world, "capped", last=9, num_nodes=1, max_cost="50", resources=dear)


@pytest.fixture(scope="module")
def run_id(world: World, capped: str) -> str:
    news = f'echo "$ORCH_EVENT $ORCH_RUN" >> {world.home}/news'
    (world.home / "config.yaml").write_text(json.dumps({"notify_command": news}))
    world.launch("short", "true")
    return world.run_id("short")


@pytest.fixture(scope="module")
def cap(world: World, capped: str, run_id: str) -> Decimal:
    """The cap that is given to the run while it trains: little more than its boot, saving and ending cost."""
    trains(world, capped, 1)
    price = Decimal(world.json("cost", capped)["instances"][0]["hours"][0]["price_usd"])
    refused = world.orch("extend", capped, "--max-cost", "0.01", "--max-duration", "1s", check=2).stderr
    least = re.search(r"max_cost: \$0.01.* and \$(\S+) when it is saved", refused)
    assert least is not None, refused
    assert "max_duration: 1s is too little" in refused
    # The machine may be slow to ask for it.
    caps = (round(Decimal(least[1]) + price * seconds / 3600, 2) for seconds in (8, 30, 90))
    return next(c for c in caps if not world.orch("extend", capped, "--max-cost", str(c), check=None).returncode)


def feed(world: World, run_id: str) -> str:
    """A data feed of the run, made from what EC2 describes and nothing of the bill. No node lived for an hour."""
    ec2, lines = world.client("ec2"), []
    for item in world.instances(run_id):
        start = item["LaunchTime"]
        price = price_at(ec2, item["InstanceType"], item["Placement"]["AvailabilityZone"], start)
        seconds = max(60, math.ceil((ended(item) - start).total_seconds()))
        charge = price * seconds / 3600
        lines.append(
            f"{start:%Y-%m-%d %H:%M:%S} UTC\tSpotUsage:{item['InstanceType']}\tRunInstances:SV001"
            f"\t{item['InstanceId']}\t{item['SpotInstanceRequestId']}\t24.480 USD\t{price} USD\t{charge:.6f} USD\t1\n"
        )
    return HEAD + "".join(lines)


def test_the_bill_is_not_below_the_meter_and_above_it_by_the_pending_time_at_most(
    world: World, run_id: str, cap: Decimal
) -> None:
    bill, meter = world.json("cost", run_id), world.json("sandbox", "meter", run_id)
    ours = {line["instance_id"]: Decimal(line["usd"]) for line in bill["instances"]}
    assert ours.keys() == {row["instance_id"] for row in meter["instances"]}
    for row in meter["instances"]:
        [line] = [line for line in bill["instances"] if line["instance_id"] == row["instance_id"]]
        began, ran = datetime.fromisoformat(row["launched"]), datetime.fromisoformat(row["ran"])
        pending = Decimal(str(max(timedelta(minutes=1), ran - began).total_seconds())) + 1
        bound = Decimal(line["hours"][0]["price_usd"]) * pending / 3600 + Decimal("0.000002")
        assert 0 < Decimal(row["usd"]) <= ours[row["instance_id"]] <= Decimal(row["usd"]) + bound
    assert f"total ${meter['usd']}" in world.orch("sandbox", "meter", run_id).stdout
    assert world.json("sandbox", "meter", "no-such-run")["instances"] == []


def test_a_feed_from_a_bucket_marks_the_bill_reconciled_for_good(world: World, run_id: str) -> None:
    text = feed(world, run_id)
    name = f"billing/123456789012.{text.splitlines()[2][:13].replace(' ', '-')}.001.aBcD1234.gz"
    world.client("s3").put_object(Bucket=world.bucket(), Key=name, Body=gzip.compress(text.encode()))
    found = world.json("cost", run_id, "--reconcile", f"s3://{world.bucket()}/billing/")["reconciliation"]
    assert (found["reconciled"], found["matched"], found["differences"]) == (True, 2, [])
    assert f"bill of {run_id} (reconciled)" in world.orch("cost", run_id).stdout


def test_a_changed_line_is_named_and_a_broken_one_refused(world: World, run_id: str) -> None:
    lines = feed(world, run_id).splitlines(keepends=True)
    cells = lines[3].split("\t")
    file = world.home / "feed"
    file.write_text("".join(lines[:3]) + "\t".join([*cells[:7], "9.990000 USD", cells[8]]))
    said = world.orch("cost", run_id, "--reconcile", str(file)).stdout
    assert "(held against AWS's: 1 difference)" in said
    assert "feed line 4" in said
    assert cells[3] in said
    file.write_text("".join(lines[:3]) + "nonsense\n")
    refused = world.orch("cost", run_id, "--reconcile", str(file), check=2).stderr
    assert "line 4: 1 fields where there must be 9" in refused
    assert "config.yaml" in world.orch("cost", run_id, "--reconcile", check=2).stderr
    kept = json.loads((world.home / "runs" / run_id / "report.json").read_text())
    assert kept["bill"]["reconciliation"]["reconciled"] is False


def test_the_end_of_a_run_is_told(world: World, run_id: str) -> None:
    file = world.home / "news"
    assert wait_for("the news", lambda: file.exists() and file.read_text()) == f"finished {run_id}\n"


def test_a_page_that_a_dead_scheduler_did_not_come_to_write_is_written_by_resume(world: World, run_id: str) -> None:
    page = f"runs/{run_id}/report.html"
    wait_for("its page", lambda: page in world.keys(page))
    world.client("s3").delete_object(Bucket=world.bucket(), Key=page)
    assert "its page was missing" in world.orch("resume", run_id).stdout
    assert run_id in world.body(page).decode()
    assert "nothing to resume" in world.orch("resume", run_id, check=2).stderr


def test_a_run_whose_cap_came_near_was_saved_and_ended_below_it(world: World, capped: str, cap: Decimal) -> None:
    wait_for("the cap ends it", lambda: phase(world, capped) == "capped", 200)
    assert 0 < Decimal(world.json("sandbox", "meter", capped)["usd"]) < cap
    assert Decimal(world.json("cost", capped)["spot_usd_high"]) < cap
    (end,) = (entry["detail"]["verdict"] for entry in ledger(world, capped) if entry["action"] == "end")
    assert end["message"] == f"max_cost of ${cap} is near: saved at step {max(saved_steps(world, capped))}"
    assert "give --max-cost" in world.orch("resume", capped, check=2).stderr
