"""The main job: 16 nodes of imagenet18 at sandbox scale, its scheduler killed on the way. One run for every test."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.report.figures import training
from tests.e2e.recompute import spot_dollars
from tests.e2e.sandbox_world import World, kill_scheduler, phase, running, wait_for

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def run_id(world: World) -> str:
    launched = subprocess.run(
        [str(ROOT / "scripts" / "demo"), "--detach"],
        env=world.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert launched.returncode == 0, launched.stdout + launched.stderr
    found: str = wait_for("training has begun", lambda: running(world, "imagenet18"), 180)
    kill_scheduler(found)
    world.orch("resume", found)
    wait_for("the run has ended", lambda: phase(world, found) in {"finished", "failed", "interrupted"}, 420)
    return found


def test_it_finishes_with_top1_and_top5_although_its_scheduler_was_killed(world: World, run_id: str) -> None:
    status = next(item for item in world.json("status") if item["run_id"] == run_id)
    assert status["phase"] == "finished", status
    assert status["metrics"]["top1"] >= 30
    assert status["metrics"]["top5"] >= status["metrics"]["top1"]


def test_the_readme_shows_the_figures_that_a_run_tells(world: World, run_id: str) -> None:
    status = next(item for item in world.json("status") if item["run_id"] == run_id)
    shown = re.findall(r"^\S+  (epoch 6/6 .*?)  \$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [re.sub(r"[\d.,]+", "#", line) for line in shown] == [re.sub(r"[\d.,]+", "#", training(status["metrics"]))]


def test_sixteen_instances_were_ever_launched_and_all_are_gone(world: World, run_id: str) -> None:
    instances = world.instances(run_id)
    assert len(instances) == 16
    assert {item["State"]["Name"] for item in instances} == {"terminated"}
    assert world.json("gc")["orphans"] == []
    assert [host for host in world.json("sandbox", "status")["hosts"] if host["pids"]] == []


def test_each_node_was_launched_with_the_efa_interface_of_its_type(world: World, run_id: str) -> None:
    entries = [json.loads(world.body(key)) for key in world.keys(f"runs/{run_id}/ledger/")]
    (request,) = [e["detail"]["request"] for e in entries if (e["kind"], e["action"]) == ("intent", "launch")]
    (interface,) = request["NetworkInterfaces"]
    assert (request["InstanceType"], interface["InterfaceType"]) == ("p3dn.24xlarge", "efa")


def test_the_bill_agrees_to_the_micro_dollar_with_what_ec2_says(world: World, run_id: str) -> None:
    bill = world.json("cost", run_id)
    ec2 = world.client("ec2")
    ours = {line["instance_id"]: Decimal(line["usd"]) for line in bill["instances"]}
    theirs = {item["InstanceId"]: spot_dollars(ec2, item) for item in world.instances(run_id)}
    assert ours == theirs
    assert Decimal(bill["spot_usd_high"]) < Decimal(bill["on_demand_usd"])


def test_logs_checkpoints_metrics_and_report_are_in_s3(world: World, run_id: str) -> None:
    keys = world.keys(f"runs/{run_id}/")
    names = {key.removeprefix(f"runs/{run_id}/") for key in keys}
    assert {name.split("/")[1] for name in names if name.startswith("logs/")} == {str(rank) for rank in range(16)}
    assert {"run.json", "metrics.jsonl", "report.json", "prices.jsonl"} <= names
    steps = {name.split("/")[1] for name in names if name.startswith("checkpoints/")}
    assert steps
    for step in steps:
        verify(world, f"runs/{run_id}/checkpoints/{step}/")
    metrics = [json.loads(line) for line in world.body(f"runs/{run_id}/metrics.jsonl").splitlines()]
    assert len({line["image_size"] for line in metrics if "image_size" in line}) >= 3


def verify(world: World, prefix: str) -> None:
    import hashlib

    manifest: dict[str, Any] = json.loads(world.body(f"{prefix}MANIFEST.json"))
    assert manifest["files"]
    for file in manifest["files"]:
        body = world.body(prefix + file["path"])
        assert len(body) == file["size"]
        assert hashlib.sha256(body).hexdigest() == file["sha256"]


def test_the_aws_command_line_sees_the_same(world: World, run_id: str) -> None:
    aws = Path(sys.executable).with_name("aws")
    script = (
        'eval "$("$0" -m orchestrator.cli.main sandbox env)"; "$1" ec2 describe-instances --output json; '
        '"$1" s3 ls "s3://$2/runs/$3/"'
    )
    done = subprocess.run(
        ["bash", "-c", script, sys.executable, str(aws), world.bucket(), run_id],
        env=world.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    text, _, listing = done.stdout.rpartition("\n}\n")
    shown = json.loads(text + "\n}")
    states = {i["State"]["Name"] for r in shown["Reservations"] for i in r["Instances"]}
    assert states == {"terminated"}
    assert "report.json" in listing


def test_the_page_shows_the_run(world: World, run_id: str) -> None:
    key = f"runs/{run_id}/report.html"
    wait_for("the page is written", lambda: key in world.keys(f"runs/{run_id}/"))
    page = world.body(key).decode()
    for title in (
        "Price of p3dn.24xlarge",
        "Nodes",
        "Loss over dollars",
        "Accuracy over time",
        "Dollars of each epoch",
    ):
        assert f"<figcaption>{title}</figcaption>" in page
    assert world.json("cost", run_id)["spot_usd_high"] in page
    assert "16 x p3dn.24xlarge spot us-east-1" in page


def test_the_report_outlives_the_sandbox(world: World, run_id: str) -> None:
    before = world.json("cost", run_id)
    world.orch("sandbox", "down")
    assert world.json("cost", run_id) == before
    assert any(item["run_id"] == run_id for item in world.json("status"))
