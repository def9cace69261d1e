"""The first run on an account: two of the smallest instances under a cap of one dollar, the account audited around it.

`scripts/test --aws` runs this and nothing else; `ORCH_TEST_CLOUD=sandbox` points it at a sandbox that is up. The
account must be otherwise quiet in this region: whatever is there afterwards and was not before counts as left behind.
What a launch on AWS needs beside credentials is an image, in ORCH_TEST_IMAGE: docs/aws.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest

CLOUD = os.environ.get("ORCH_TEST_CLOUD", "aws")
IMAGE = os.environ.get("ORCH_TEST_IMAGE")
ORCH = [sys.executable, "-m", "orchestrator.cli.main"]
DOLLARS = Decimal(1)
TRAINING = """
echo '{"step": 1}' >>"$ORCH_PROGRESS_FILE"
echo node $ORCH_NODE_RANK of $ORCH_NUM_NODES trains
sleep 5
"""
pytestmark = [pytest.mark.aws, pytest.mark.timeout(1800)]

# What a run makes, and what AWS bills: the call that lists it, the field of the reply, the field of the id.
KINDS = {
    "volume": ("describe_volumes", "Volumes", "VolumeId"),
    "network interface": ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    "security group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "key pair": ("describe_key_pairs", "KeyPairs", "KeyName"),
    "placement group": ("describe_placement_groups", "PlacementGroups", "GroupName"),
}
GONE = frozenset({"terminated", "deleted", "closed", "cancelled"})


def orch(*arguments: str, check: int | None = 0) -> str:
    """Return what `orch` printed."""
    done = subprocess.run([*ORCH, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert check is None or done.returncode == check, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def read(*arguments: str) -> Any:
    return json.loads(orch(*arguments, "--json"))


def client(service: str) -> Any:
    """Return a client of the cloud under test."""
    if CLOUD == "aws":
        return boto3.client(service)
    env = read("sandbox", "env")
    return boto3.client(
        service,
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
    )


def audit() -> Mapping[str, frozenset[str]]:
    """Return the ids of everything in the region that is not on its way out."""
    ec2 = client("ec2")
    pages = ec2.get_paginator("describe_instances").paginate()
    instances = [item for page in pages for group in page["Reservations"] for item in group["Instances"]]
    found = {"instance": frozenset(i["InstanceId"] for i in instances if i["State"]["Name"] not in GONE)}
    for kind, (call, field, name) in KINDS.items():
        items = getattr(ec2, call)()[field]
        found[kind] = frozenset(str(item[name]) for item in items if item.get("State") not in GONE)
    return found


@pytest.fixture(scope="module")
def before() -> Mapping[str, frozenset[str]]:
    return audit()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    value: dict[str, Any] = {
        "name": "first-run",
        "num_nodes": 2,
        "resources": {"any_of": [{"instance_type": "t3.micro"}, {"instance_type": "t3.small"}], "disk_size": 8},
        "device": "cpu",
        "setup": "echo node $ORCH_NODE_RANK is set up",
        "run": TRAINING,
        "expected_duration": "5m",
        "max_duration": "20m",
    }
    if IMAGE is not None:
        value["resources"]["image"] = IMAGE
    path = tmp_path_factory.mktemp("account") / "first-run.yaml"
    path.write_text(json.dumps(value))
    return str(path)


@pytest.fixture(scope="module")
def run_id(file: str, before: Mapping[str, frozenset[str]]) -> Iterator[str]:
    """A run that has ended; whatever happened to it, nothing of it is left running."""
    if CLOUD == "aws" and IMAGE is None:
        pytest.fail("set ORCH_TEST_IMAGE to an AMI (or ssm:NAME) with Python 3.11, boto3 and tmux: docs/aws.md")
    plan = read("plan", "--cloud", CLOUD, "--max-cost", str(DOLLARS), file)
    assert Decimal(plan["offers"][0]["cost_usd"]) < DOLLARS, plan["offers"][0]
    try:
        orch("launch", "--cloud", CLOUD, "--max-cost", str(DOLLARS), "-y", file)
        yield next(row["run_id"] for row in read("status", "--cloud", CLOUD) if row["name"] == "first-run")
    finally:
        orch("stop", "first-run", check=None)


def test_both_nodes_trained(run_id: str) -> None:
    row = read("status", run_id)[0]
    assert (row["phase"], row["num_nodes"]) == ("finished", 2), row
    for rank in range(2):
        assert f"node {rank} of 2 trains" in orch("logs", run_id, "--node", str(rank))


def test_it_cost_less_than_a_dollar_and_less_than_on_demand(run_id: str) -> None:
    bill = read("cost", run_id)
    assert len(bill["instances"]) == 2
    assert 0 < Decimal(bill["spot_usd_high"]) < DOLLARS
    assert Decimal(bill["spot_usd_high"]) <= Decimal(bill["on_demand_usd"])


def test_the_preflight_found_both_fit_and_every_stage_was_timed(run_id: str) -> None:
    assert [(row["rank"], row["unfit"], len(row["links"])) for row in read("doctor", run_id)] == [
        (0, None, 1),
        (1, None, 1),
    ]
    starts = read("status", run_id, "--timing")
    assert {name for row in starts for name in row["stages"]} >= {"request", "boot", "bundle", "ssh", "preflight"}


def test_the_account_is_as_it_was(run_id: str, before: Mapping[str, frozenset[str]]) -> None:
    left = {kind: sorted(ids - before[kind]) for kind, ids in audit().items() if ids - before[kind]}
    assert left == {}
    assert read("gc", "--cloud", CLOUD)["orphans"] == []


def test_the_report_is_where_it_belongs(run_id: str) -> None:
    home = Path(os.environ.get("ORCH_HOME") or Path.home() / ".orch")
    assert (home / "runs" / run_id / "report.json").exists()
