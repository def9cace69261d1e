"""`orch dataset` against the sandbox's S3 over HTTP: what is printed, asked and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from orchestrator.aws.account import ensure_bucket
from orchestrator.cli.context import Place, open_place
from orchestrator.core.ids import Keys
from orchestrator.core.ledger import Verdict
from orchestrator.core.spec import RunSpec
from orchestrator.datasets import sharded
from orchestrator.datasets.joining import is_packed
from orchestrator.datasets.order import Order
from orchestrator.datasets.origin import list_source, origin_of
from orchestrator.errors import Exit
from orchestrator.run.ledger import Ledger
from tests.cli.fake_clouds import Orch
from tests.core.worlds import spec
from tests.datasets.noted import contents, write
from tests.datasets.parts import leave_parts
from tests.sandbox.cloud_fixture import World, shared_world
from tests.trainer.pictures import folders

__all__ = ["shared_world"]
FILES = {"a.txt": b"one", "b/c.bin": bytes(5000)}
FOUR = """nothing was done: 4 faults
  NAME is 'Bad Name!': it must be 1 to 40 of a-z, 0-9 and '-', beginning with a letter
  --max-cost is for a build on nodes: give --nodes N as well, or leave it out
  there is no nowhere: name a folder, a tar file or an s3:// prefix
  --as-is packs nothing: leave out --sizes
"""


@pytest.fixture
def orch(sandboxed: Orch, monkeypatch: pytest.MonkeyPatch) -> Orch:
    """`orch` for which the sandbox is the cloud that is meant."""
    monkeypatch.setenv("ORCH_CLOUD", "sandbox")
    return sandboxed


def values(done: Result) -> list[Any]:
    """Return what was printed as lines of JSON."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def micro(dollars: str) -> int:
    return round(float(dollars) * 10**6)


def test_a_data_set_is_built_listed_shown_staged_and_removed(orch: Orch, tmp_path: Path, shared_world: World) -> None:
    source = write(tmp_path / "set", FILES)
    assert "no data sets" in orch("dataset", "list").stdout
    *stages, built = values(orch("dataset", "build", str(source), "texts", "--as-is", "--json"))
    assert {item["stage"]: (item["bytes"], item["of"]) for item in stages if "stage" in item} == {
        "reading": (5003, 5003),
        "uploading": (5003, 5003),
    }
    assert (built["state"], built["moved_bytes"], built["kept_bytes"]) == ("ready", 5003, 0)
    assert built["url"].endswith(f"/datasets/texts/{built['version']}")
    assert (built.pop("left_out"), built.pop("built")) == ([], True)
    order = ("dataset", "build", str(source), "texts", "--as-is")
    there = f"texts is up to date: texts@{built['version']}, {built['url']}; --force builds anew"
    assert orch(*order).stdout.splitlines()[0] == there
    (said,) = values(orch(*order, "--json"))
    assert (said["built"], said["moved_bytes"], said["kept_bytes"]) == (False, 0, 5003)
    assert "uploaded 0 B; 4.9 KiB were there" in orch(*order, "--force").stdout
    assert json.loads(orch("dataset", "list", "--json").stdout) == [
        {key: value for key, value in built.items() if not key.endswith("_bytes")} | {"snapshots": []}
    ]
    (row,) = [line.split() for line in orch("dataset", "list").stdout.splitlines() if line.startswith("texts")]
    assert row[:4] == ["texts", built["version"], "ready", "2"]
    shown = json.loads(orch("dataset", "show", "texts", "--json").stdout)
    assert [(item["path"], item["size"]) for item in shown["objects"]] == [("a.txt", 3), ("b/c.bin", 5000)]
    assert shown["used_by"] == []
    printed = orch("dataset", "show", f"texts@{built['version'][:5]}").stdout
    assert all(text in printed for text in (built["url"], built["digest"], "dataset:texts", "b/c.bin", "a month"))
    staged = orch("dataset", "stage", "texts", str(tmp_path / "here"))
    assert "every digest right" in staged.stdout
    assert contents(tmp_path / "here") == FILES
    for words in ((), ("--json",)):
        unasked = orch("dataset", "rm", "texts", *words)
        assert (unasked.exit_code, "no terminal to ask on" in unasked.stderr) == (Exit.BAD_INPUT, True)
    assert "nothing was removed" in orch("dataset", "rm", "texts", "-y", "--dry-run").stdout
    used = spec(data={"x": {"source": built["url"]}})
    bucket = built["url"].split("/")[2]
    shared_world.s3.put_object(Bucket=bucket, Key=Keys(used.run_id).spec, Body=used.to_json())
    refused = orch("dataset", "rm", "texts", "-y")
    assert refused.exit_code == Exit.BAD_INPUT
    assert f"texts is used by {used.run_id}" in refused.stderr
    shared_world.s3.delete_object(Bucket=bucket, Key=Keys(used.run_id).spec)
    assert json.loads(orch("dataset", "rm", "texts", "-y", "--json").stdout)["removed"] is True
    assert json.loads(orch("dataset", "list", "--json").stdout) == []


def test_nodes_are_not_asked_for_what_is_there(orch: Orch, tmp_path: Path, shared_world: World) -> None:
    shared_world.s3.create_bucket(Bucket="images")
    for name, body in contents(folders(tmp_path / "photos", 2, 1, classes=1)).items():
        shared_world.s3.put_object(Bucket="images", Key=f"set/{name}", Body=body)
    order = ("dataset", "build", "s3://images/set", "by-nodes", "--sizes", "24", "--json")
    built = values(orch(*order))[-1]
    assert built["built"] is True
    (said,) = values(orch(*order, "--nodes", "2", "-y"))
    assert said == built | {"built": False, "moved_bytes": 0, "kept_bytes": built["bytes"]}
    values(orch(*order, "--sizes", "20"))
    newest = orch("dataset", "list", "--json").stdout
    assert values(orch(*order, "--nodes", "2", "--dry-run")) == [said]
    assert orch("dataset", "list", "--json").stdout == newest, "only looked at, it did not become the newest"
    planned = orch(*order, "--nodes", "2", "--dry-run", "--force")
    assert json.loads(planned.stdout)["name"] == "build-by-nodes"
    many = orch(*order[:-1], "--nodes", "9999", "--dry-run", "--force").stderr
    assert "num_nodes: must be at most 512, not 9999 (--nodes)" in many
    shared_world.s3.put_object(Bucket="images", Key="set/train/n00/another.jpg", Body=b"another")
    planned = orch(*order, "--nodes", "2", "--dry-run")
    assert json.loads(planned.stdout)["num_nodes"] == 2, "the source has changed"
    assert orch("dataset", "rm", "by-nodes", "-y").exit_code == 0
    shared_world.s3.put_object(Bucket="images", Key="texts/a.txt", Body=b"text")
    refused = orch("dataset", "build", "s3://images/texts", "texts", "--nodes", "2", "-y")
    assert refused.exit_code == Exit.BAD_INPUT
    assert "s3://images/texts cannot be packed: no train images; no validation images" in refused.stderr
    assert json.loads(orch("status", "--json").stdout) == [], "nothing was launched"


def packing(orch: Orch, shared_world: World, name: str) -> tuple[Order, Place, RunSpec]:
    """Return the order of a set of one image in a bucket of its own, and the spec of a run of nodes that packs it."""
    order = Order(name=name, source=f"s3://{name}/set", as_is=False, originals=True, arguments=(), home=Path())
    shared_world.s3.create_bucket(Bucket=name)
    shared_world.s3.put_object(Bucket=name, Key="set/train/n00/a.jpg", Body=b"an image")
    place = open_place(orch.home, "sandbox")
    line = sharded.command(order, origin_of(order, list_source(order, place.session)))
    ensure_bucket(place.session, place.bucket.name)
    run_id = f"build-{name}-20261120-120000-abcd"
    return order, place, replace(spec(1, run=line), run_id=run_id, bucket=place.bucket.name)


def test_resume_finishes_what_a_run_of_nodes_packed(
    orch: Orch, shared_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    monkeypatch.setattr("orchestrator.run.detach.start_scheduler", lambda home, run_id, cloud: started.append(run_id))
    order, place, ran = packing(orch, shared_world, "left")
    keys, ledger = Keys(ran.run_id), Ledger(place.bucket, ran.run_id, "test")
    place.bucket.put(keys.spec, ran.to_json())
    leave_parts(place.bucket, ran.run_id)
    build = ("dataset", "build", order.source, "left", "--nodes", "1")
    early = orch(*build, "-y", "--detach")
    assert (early.exit_code, started) == (0, [ran.run_id]), early.stderr
    assert is_packed(place.bucket, ran.run_id), "it has not ended: nothing is joined"
    ledger.append("intent", "end", {"verdict": Verdict("finished", "all done").to_json()}, epoch=1, now=ran.created)
    ledger.append("outcome", "close", {"generation": 1}, epoch=1, now=ran.created)
    place.bucket.put(keys.report_html, b"its page")
    looked = orch(*build, "--dry-run")
    assert (looked.exit_code, f"{ran.run_id} has packed this already" in looked.stderr) == (Exit.BAD_INPUT, True)
    assert is_packed(place.bucket, ran.run_id)
    done = orch("resume", ran.run_id, "--json")
    assert done.exit_code == 0, done.stderr
    built = values(done)[-1]
    assert (built["name"], built["state"], built["run_id"]) == ("left", "ready", ran.run_id)
    assert "left is up to date" in orch(*build, "-y").stdout
    again = orch("resume", ran.run_id)
    assert (again.exit_code, "finished" in again.stderr) == (Exit.BAD_INPUT, True), "there is nothing left to do"
    assert orch("dataset", "rm", "left", "-y").exit_code == 0


def test_a_build_on_nodes_waits_for_a_run_that_is_being_ended(
    orch: Orch, shared_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, place, ran = packing(orch, shared_world, "ending")
    ledger = Ledger(place.bucket, ran.run_id, "test")
    place.bucket.put(Keys(ran.run_id).spec, ran.to_json())
    verdict = Verdict("capped", "it came to its max_cost")
    ledger.append("intent", "end", {"verdict": verdict.to_json()}, epoch=1, now=ran.created)
    started: list[bool] = []

    def scheduled(home: object, run_id: str, cloud: str) -> None:
        closed = ledger.read().closed
        started.append(closed)
        if not closed and len(started) == 1:
            ledger.append("outcome", "close", {"generation": 1}, epoch=1, now=ran.created)

    monkeypatch.setattr("orchestrator.run.detach.start_scheduler", scheduled)
    build = ("dataset", "build", order.source, "ending", "--nodes", "1", "-y", "--detach", "--max-cost", "900")
    wrong = orch(*build[:-1], "-9")
    assert (wrong.exit_code, started) == (Exit.BAD_INPUT, []), "that is told before anything is waited for"
    done = orch(*build)
    assert done.exit_code == 0, done.stderr
    assert f"{ran.run_id} is being saved and ended (it came to its max_cost); this waits for that" in done.stderr
    assert f"resuming {ran.run_id}: launching 1 node again" in done.stderr
    asked = ledger.read()
    assert (started, asked.generation, asked.max_cost) == ([False, False], 2, 900 * 10**6)
    place.bucket.delete_prefix(f"runs/{ran.run_id}/")


def test_a_snapshot_is_planned_shown_with_its_set_and_removed_with_it(
    orch: Orch, tmp_path: Path, shared_world: World
) -> None:
    built = values(orch("dataset", "build", str(write(tmp_path / "set", FILES)), "shot", "--as-is", "--json"))[-1]
    done = orch("dataset", "snapshot", "shot", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["name"], plan["num_nodes"]) == ("snapshot-shot", 1)
    assert "1 instance with 8 GiB gp3, 1 GiB gp3, blank (shot)" in plan["will_create"][-2]
    assert "expected_duration" not in str(plan["notes"])
    assert "costs shown are for the longest that it may take, an upper bound" in plan["notes"]
    assert plan["will_create"][-1] == f"a snapshot of shot@{built['version']}, which stays"
    assert orch("dataset", "snapshot", "shot").exit_code == Exit.BAD_INPUT, "there is nobody to ask"
    nowhere = orch("dataset", "snapshot", "shot", "--dry-run", "--instance-type", "foo.bar")
    assert (nowhere.exit_code, "hint: name other instance types" in nowhere.stderr) == (Exit.NO_CAPACITY, True)
    capped = json.loads(orch("dataset", "snapshot", "shot", "--dry-run", "--json", "--max-cost", "0.05").stdout)
    assert capped["timer_seconds"] < plan["timer_seconds"], "the machine's own timer keeps to the cap as well"
    wrong = ("--max-cost", "-3", "--instance-type", "foo", *("--instance-type", "m5.large") * 2)
    refused = orch("dataset", "snapshot", "Shot", "-y", *wrong)
    found = [line.partition(":")[0].strip() for line in refused.stderr.splitlines() if line.startswith("  ")]
    assert (refused.exit_code, found) == (
        Exit.BAD_INPUT, ["--max-cost", "--instance-type", "--instance-type", "'Shot' names no data set"]
    ), refused.stderr  # fmt: skip
    ec2 = shared_world.ec2
    labels = {"orch:run": "r", "orch:version": built["version"], "orch:bytes": str(2**30), "orch:dataset": "shot"}
    tags = [{"ResourceType": "snapshot", "Tags": [{"Key": key, "Value": value} for key, value in labels.items()]}]
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=2)["VolumeId"]
    made = ec2.create_snapshot(VolumeId=volume, TagSpecifications=tags)["SnapshotId"]
    there = orch("dataset", "snapshot", "shot", "-y").stdout
    assert f"shot@{built['version']} has {made}, $0.05 a month" in there
    (row,) = [line for line in orch("dataset", "list").stdout.splitlines() if line.startswith("shot")]
    assert "  yes  " in row
    assert f"{made}, completed, for volumes of 2 GiB, $0.05 a month" in orch("dataset", "show", "shot").stdout
    (listed,) = json.loads(orch("dataset", "list", "--json").stdout)
    assert [(item["snapshot_id"], item["usd_month"]) for item in listed["snapshots"]] == [(made, "0.050000")]
    text = "name: t\nnum_nodes: 2\nrun: hostname\nresources: {any_of: [{instance_type: m5.large}]}\nmax_duration: 1h\n"
    offers = []
    for mode in ("stage", "ebs"):
        (tmp_path / "t.yaml").write_text(f"{text}data: {{shot: {{source: 'dataset:shot', mode: {mode}}}}}\n")
        planned = orch("plan", str(tmp_path / "t.yaml"), "--json")
        value = json.loads(planned.stdout)
        offers.append(value["offers"][0])
        assert [choice["name"] for choice in value["data"]] == ["shot"]
        assert "to every node" not in str(value["notes"]), "that line tells the size already"
    # 2 nodes with 2 GiB each: an hour of gp3, and of each GiB $0.0012 for an initialisation at 100 MiB/s.
    for offer, fees in zip(offers, (0, 2 * (222 + 2 * 1_200)), strict=True):
        for cost, hourly in (("cost_usd", "price_usd"), ("on_demand_cost_usd", "on_demand_price_usd")):
            assert micro(offer[cost]) == 2 * micro(offer[hourly]) + fees
    # Whoever deletes a set by hand, or takes another bucket, still pays for its snapshot.
    bucket, _, prefix = built["url"].removeprefix("s3://").partition("/")
    keys = [item["Key"] for item in shared_world.s3.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]]
    for key in keys:
        shared_world.s3.delete_object(Bucket=bucket, Key=key)
    (lost,) = json.loads(orch("dataset", "list", "--json").stdout)
    assert (lost["state"], lost["files"], lost["snapshots"]) == ("damaged", 0, listed["snapshots"])
    told = f"only a snapshot is left, nothing in {bucket}: `orch dataset rm shot@{built['version']}` removes it"
    assert lost["fault"] == told
    shown = orch("dataset", "show", "shot")
    assert (shown.exit_code, told in shown.stderr) == (Exit.NOT_FOUND, True)
    assert "`orch dataset build` with the same source puts its files back" in shown.stderr
    removed = orch("dataset", "rm", f"shot@{built['version']}", "-y")
    assert removed.exit_code == 0, removed.stderr
    assert orch("dataset", "list", "--json").stdout.split() == ["[]"]
    own = ec2.describe_snapshots(OwnerIds=["self"], Filters=[{"Name": "tag-key", "Values": ["orch:dataset"]}])
    assert own["Snapshots"] == []


def test_a_data_set_that_lost_files_or_its_manifest_is_shown_as_what_it_is(
    orch: Orch, tmp_path: Path, shared_world: World
) -> None:
    built = values(orch("dataset", "build", str(write(tmp_path / "set", FILES)), "lost", "--as-is", "--json"))[-1]
    bucket, _, prefix = built["url"].removeprefix("s3://").partition("/")
    shared_world.s3.delete_object(Bucket=bucket, Key=f"{prefix}/b/c.bin")
    for words in ((), ("--json",)):
        shown = orch("dataset", "show", "lost", *words)
        assert shown.exit_code == Exit.NOT_FOUND
        assert f"lost@{built['version']} is damaged: of 2 files 1 are gone or cut" in shown.stderr
        assert "b/c.bin" in shown.stderr
        assert "puts its files back" in shown.stderr
    assert (
        values(orch("dataset", "build", str(tmp_path / "set"), "lost", "--as-is", "--json"))[-1]["moved_bytes"] == 5000
    )
    assert orch("dataset", "show", "lost").exit_code == Exit.DONE
    shared_world.s3.delete_object(Bucket=bucket, Key=f"{prefix}/MANIFEST.json")
    shown = orch("dataset", "show", "lost")
    assert (shown.exit_code, "is not finished, or has lost its manifest" in shown.stderr) == (Exit.NOT_FOUND, True)
    assert orch("dataset", "rm", "lost", "-y").exit_code == Exit.DONE


def test_what_cannot_be_staged_is_said_with_what_to_do(orch: Orch, tmp_path: Path, shared_world: World) -> None:
    built = values(orch("dataset", "build", str(write(tmp_path / "set", FILES)), "hurt", "--as-is", "--json"))[-1]
    done = orch("dataset", "stage", "hurt", str(tmp_path / "set/a.txt/here"))
    assert done.exit_code == Exit.RUN_FAILED
    assert f"cannot read or write {tmp_path / 'set/a.txt'}" in done.stderr
    assert "goes on where it was" in done.stderr
    done = orch("dataset", "stage", "hurt", "/proc/here")
    assert done.exit_code == Exit.BAD_INPUT
    assert "the data needs 4.9 KiB more, and /proc has room for 0 B" in done.stderr
    bucket, _, prefix = built["url"].removeprefix("s3://").partition("/")
    shared_world.s3.put_object(Bucket=bucket, Key=f"{prefix}/a.txt", Body=b"eno")
    done = orch("dataset", "stage", "hurt", str(tmp_path / "here"))
    assert done.exit_code == Exit.RUN_FAILED
    assert f"{prefix}/a.txt is damaged" in done.stderr
    shared_world.s3.put_object(Bucket=bucket, Key=f"{prefix}/b/c.bin", Body=b"!" * 5000)
    both = orch("dataset", "stage", "hurt", str(tmp_path / "there")).stderr
    assert all(text in both for text in ("2 objects are damaged", f"{prefix}/a.txt: ", f"{prefix}/b/c.bin: "))
    assert "build the data set again" in done.stderr
    assert not (tmp_path / "here/a.txt").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("build", "here", "Bad_Name"), Exit.BAD_INPUT, "NAME is 'Bad_Name'"),
        (("build", "nowhere", "texts"), Exit.BAD_INPUT, "there is no nowhere"),
        (("build", "s3://no-such-bucket-here/x", "texts", "--as-is"), Exit.NOT_FOUND, "no bucket no-such-bucket-here"),
        (("build", ".", "texts", "--sizes", "160x352"), Exit.BAD_INPUT, "neither pixels, such as 160,352, nor none"),
        (("build", ".", "texts", "--sizes", "none", "--as-is"), Exit.BAD_INPUT, "--as-is packs nothing"),
        (("build", ".", "texts", "--nodes", "2"), Exit.BAD_INPUT, ". is not in S3, where nodes could read it"),
        (("build", "s3://x/y", "texts", "--nodes", "2", "--as-is"), Exit.BAD_INPUT, "nothing for nodes to do"),
        (("build", "s3://no-such-bucket-here/x", "texts", "--nodes", "2"), Exit.NOT_FOUND, "no bucket no-such-bucket"),
        (("build", ".", "texts", "--max-cost", "3"), Exit.BAD_INPUT, "--max-cost is for a build on nodes"),
        (
            ("build", ".", "texts", "--set", "a=b", "--dry-run"),
            Exit.BAD_INPUT,
            "--dry-run, --set are for a build on nodes",
        ),
        (("build", "nowhere", "Bad Name!", "--as-is", "--sizes", "64", "--max-cost", "3"), Exit.BAD_INPUT, FOUR),
        (("build", ".", "x", "--nodes", "2", "--as-is"), Exit.BAD_INPUT, "nothing was done: 2 faults"),
        (("build", ".", "--quality", "0", "--max-cost", "3"), Exit.BAD_INPUT, "nothing was done: 3 faults"),
        (("build", "s3://", "x", "--as-is"), Exit.BAD_INPUT, "s3:// is no s3://BUCKET/PREFIX"),
        (("build", "s3://A b/c", "x", "--nodes", "2"), Exit.BAD_INPUT, "s3://A b/c is no s3://BUCKET/PREFIX"),
        (("show", "photos@zz"), Exit.BAD_INPUT, "'zz' is no version: 4 to 64 digits of 0-9 and a-f"),
        (("show", "nothing"), Exit.NOT_FOUND, "there is no data set nothing"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(orch: Orch, words: tuple[str, ...], code: Exit, said: str) -> None:
    done = orch("dataset", *words)
    assert (done.exit_code, said in done.stderr) == (code, True), done.stderr


def test_nothing_is_concluded_from_nodes_that_are_no_number(orch: Orch) -> None:
    done = orch("dataset", "build", "s3://images/texts", "texts", "--nodes", "x", "--max-cost", "3")
    assert done.exit_code == Exit.BAD_INPUT
    assert done.stderr.startswith("orch: Invalid value for '--nodes'")
    assert "--max-cost" not in done.stderr, "it was given with --nodes"
