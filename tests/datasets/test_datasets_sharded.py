"""A data set packed by two nodes over HTTP, one after the other's work was lost, is the one that one machine builds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.agent.packing import Order as NodeOrder
from orchestrator.agent.packing import Packer
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.aws.uploads import UploadEnded, Uploads
from orchestrator.cli.dataset_progress import tell_built
from orchestrator.core.dataset import Origin
from orchestrator.core.experiment import Experiment
from orchestrator.core.overrides import load
from orchestrator.core.parts import LEAST, PartKeys, make_spans
from orchestrator.datasets import joining, sharded
from orchestrator.datasets.order import Order
from orchestrator.datasets.origin import list_source, origin_of
from orchestrator.errors import BadInput, NotFound, OrchError
from orchestrator.run import datasets, ubuntu
from orchestrator.run.gc import find_orphans, remove
from tests.agent.agent_world import node_config
from tests.datasets.noted import Builder, Noted, contents
from tests.trainer.pictures import folders

RUN = "build-photos-20261127-120000-abcd"
OPTIONS = ("--sizes", "24")


@pytest.fixture
def source(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ORCH_PROGRESS_FILE", str(tmp_path / "progress.jsonl"))
    for name, body in contents(folders(tmp_path / "photos", 3, 1, classes=1)).items():
        bucket.put(f"elsewhere/photos/{name}", body)
    bucket.put("elsewhere/photos/train/n00/bad.jpg", b"corrupt")
    return f"s3://{bucket.name}/elsewhere/photos"


def make_order(source: str, *arguments: str, **changes: Any) -> Order:
    values = {"name": "photos", "source": source, "as_is": False, "originals": True, "home": Path("/nowhere")}
    return Order(**{**values, "arguments": (*OPTIONS, *arguments), **changes})


def origin(bucket: Bucket, source: str) -> Origin:
    """Return what the data set of a source is made of, as S3 lists it."""
    prefix = f"{source.split('/', 3)[3]}/"
    rows = [(item.key.removeprefix(prefix), item.size, item.etag) for item in bucket.list(prefix)]
    return origin_of(make_order(source), rows)


def node(bucket: Bucket, source: str, home: Path, rank: int) -> Packer:
    config = node_config(home, run=RUN, rank=rank, num_nodes=2, bucket=bucket.name)
    words = sharded.command(make_order(source), origin(bucket, source)).split("packing ")[1].split()
    return Packer(config, NodeOrder.parse(words), bucket, bucket, home / "packing")


def test_two_nodes_pack_what_one_machine_does(  # noqa: PLR0917 - fixtures
    tmp_path: Path,
    session: Session,
    bucket: Bucket,
    source: str,
    build: Builder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (node(bucket, source, tmp_path / f"node-{rank}", rank) for rank in (0, 1))
    first.plan()
    second.plan()
    first.pack()
    del first
    another = node(bucket, source, tmp_path / "another", 0)
    another.plan()
    for packer in (another, second):
        packer.pack()
    for packer in (second, another):
        packer.digest()
    keys, progress = PartKeys(RUN), Noted()
    said = [line.split(":")[1] for line in capsys.readouterr().out.splitlines() if " 1 image, " in line]
    assert sorted(said) == [f" part {number}" for number in range(5)], "what lies in S3 is not done again"
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert {(line["steps"], line["of"]) for line in lines if "steps" in line} == {(5, 5)}
    assert max(line["step"] for line in lines) == 5
    assert all(lines[-1][name] > 5 for name in ("s3_gets", "s3_puts", "s3_bytes")), "the bill has them"
    assert joining.is_packed(bucket, RUN)
    packing = joining.Packing(RUN, make_order(source), origin(bucket, source))
    with monkeypatch.context() as killed, pytest.raises(ZeroDivisionError):
        killed.setattr(joining, "publish", lambda *_: 1 / 0)
        joining.join(packing, session, bucket, datetime.now(UTC), Noted())
    assert [item.state for item in datasets.list_datasets(session, bucket, "photos")] == ["unfinished"]
    built = joining.join(packing, session, bucket, datetime.now(UTC), progress)
    assert built.dataset.manifest is not None
    assert [line.partition(": ")[0] for line in built.left_out] == ["train/n00/bad.jpg"]
    tell_built(built, "put together", as_json=False, run=RUN)
    assert f"left out: {built.left_out[0]}\n" in capsys.readouterr().out
    assert progress.stages["joining"][-1] == (built.dataset.size, built.dataset.size)
    assert (built.moved, built.kept) == (0, built.dataset.size), "the killed one had put all of it there"
    assert bucket.list(keys.prefix) == ()
    assert not joining.is_packed(bucket, RUN)
    made = {item.key: bucket.get(item.key) for item in bucket.list(built.dataset.prefix)}
    again = build(source, "photos", *OPTIONS, as_is=False)
    assert (again.fresh, again.dataset, again.left_out) == (False, built.dataset, built.left_out)
    bucket.delete(f"{built.dataset.prefix}MANIFEST.json")
    rest = build(source, "photos", *OPTIONS, as_is=False)
    assert (rest.fresh, rest.moved) == (True, 0), "what nodes packed is not uploaded again"
    forced = build(source, "photos", *OPTIONS, as_is=False, force=True)
    assert forced.moved > 0, "a note is not believed then"
    assert forced.moved + forced.kept == built.dataset.size
    datasets.remove(session, bucket, "photos", built.dataset.version)
    alone = build(source, "photos", *OPTIONS, as_is=False)
    assert alone.left_out == built.left_out
    whole = alone.dataset
    assert whole.prefix == built.dataset.prefix, "the same version"
    manifest = f"{whole.prefix}MANIFEST.json"
    assert {key: bucket.get(key) for key in made if key != manifest} == {
        key: body for key, body in made.items() if key != manifest
    }
    assert made.keys() == {item.key for item in bucket.list(whole.prefix)}
    assert b"train/n00/bad.jpg: " in made[f"{whole.prefix}corrupt.txt"]


def test_a_source_that_changed_since_the_launch_is_packed_by_no_node(
    tmp_path: Path, bucket: Bucket, source: str
) -> None:
    packer = node(bucket, source, tmp_path / "node", 0)
    bucket.put("elsewhere/photos/train/n00/bad.jpg", b"CORRUPT")
    with pytest.raises(OrchError, match=f"{source}/ was changed since the run was launched"):
        packer.plan()
    assert bucket.list(PartKeys(RUN).prefix) == ()


def test_pieces_of_all_sizes_become_one_object(session: Session, bucket: Bucket) -> None:
    bodies = [b"a" * 7, b"b" * (2 * LEAST + 1), b"c" * LEAST, b"d" * 9, b"e" * 3]
    for number, body in enumerate(bodies):
        bucket.put(f"pieces/{number}", body)
    told: list[int] = []
    uploads, names = Uploads(session, bucket.name), [f"pieces/{number}" for number in range(len(bodies))]
    uploads.join("joined", "d1", names, make_spans([len(body) for body in bodies]), told.append)
    assert bucket.get("joined") == b"".join(bodies)
    assert sum(told) == 3 * LEAST + 20
    for number in (0, 2):
        # No range can be copied of an object of 5 MiB or less.
        uploads.join("alone", "d1", [names[number]], make_spans([len(bodies[number])]), told.append)
        assert bucket.get("alone") == bodies[number]
    with pytest.raises(NotFound):
        uploads.join("not-joined", "d1", ["pieces/0", "pieces/none"], make_spans([LEAST, LEAST]), told.append)
    assert uploads.pending("not-joined") == ()
    assert bucket.head("not-joined") is None


def test_who_puts_parts_together_is_told_when_somebody_took_over(session: Session, bucket: Bucket) -> None:
    bucket.put("slept/0", b"a" * (2 * LEAST))
    others = Uploads(Session(session.settings), bucket.name)

    def end(**_: object) -> None:
        for upload in others.pending("slept/whole"):
            others.abort(upload)

    events = session.client("s3").meta.events
    events.register("provide-client-params.s3.UploadPartCopy", end)
    try:
        with pytest.raises(UploadEnded, match="slept/whole was ended by somebody else"):
            Uploads(session, bucket.name).join(
                "slept/whole", "d1", ["slept/0"], make_spans([2 * LEAST]), lambda _: None
            )
    finally:
        events.unregister("provide-client-params.s3.UploadPartCopy", end)


def test_what_nodes_cannot_pack_is_refused(bucket: Bucket, session: Session, source: str) -> None:
    assert [fault.message for fault in sharded.faults(make_order("photos", as_is=True))] == [
        "photos is not in S3, where nodes could read it",
        "--as-is packs nothing, so there is nothing for nodes to do",
    ]
    assert sharded.faults(make_order(source)) == []
    with pytest.raises(NotFound, match="nothing at"):
        list_source(make_order(f"s3://{bucket.name}/nowhere"), session)
    order = make_order(source)
    found = sharded.look_at(order, list_source(order, session))
    assert (found.files, found.tars) == (5, 0)
    with pytest.raises(BadInput, match="is packed already"):
        sharded.look_at(order, [("dataset.json", 2, "tag")])


def test_an_order_is_a_run_like_any_other(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.write_text("a.jpg n00\n")
    order = make_order("s3://b/c d", "--val-labels", str(labels), "--max-corrupt", "0.01", originals=False)
    origin = origin_of(order, [("a.jpg", 3, "tag")])
    found = sharded.Found(files=2, size=150 * 2**30, tars=150 * 2**30)

    def loaded(nodes: int, image: str | None, profile: str | None = None) -> Experiment:
        return load(json.dumps(sharded.experiment(order, origin, found, nodes, image)), "it", profile=profile)

    made = loaded(4, None)
    assert (made.name, made.num_nodes, made.resources.image) == ("build-photos", 4, ubuntu.IMAGE)
    assert made.retries == 0, "what ends a packing ends it again"
    assert made.resources.disk_size == sharded.DISK_GIB + 15
    key = sharded.labels_key(order)
    assert key is not None
    rest = ("--sizes", "24", "--max-corrupt", "0.01")
    assert sharded.packing_of(made.run) == (replace(order, arguments=rest, home=Path()), origin)
    assert sharded.packing_of("torchrun train.py") is None
    words = f"photos --digest {origin.source} --labels {key[0]} --copies-only -- --name photos --json --sizes 24"
    assert f"packing 's3://b/c d' {words}" in made.run
    assert str(labels) not in made.run
    more = loaded(8, "ami-1")
    assert made.expected_duration is not None
    assert more.expected_duration is not None
    assert more.expected_duration < made.expected_duration
    assert loaded(8, "ami-1", "sandbox").resources.any_of[0].instance_type == "m5.xlarge"


def test_parts_that_nobody_puts_together_are_left_behind(
    session: Session, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(PartKeys(RUN).journal(0), b"{}")
    assert [item.kind for item in find_orphans(session, bucket)] == []
    monkeypatch.setattr(datasets, "QUIET", timedelta(seconds=-1))
    found = find_orphans(session, bucket)
    assert [(item.kind, item.run) for item in found] == [("parts", RUN)]
    assert remove(session, bucket, found, lambda _: None) == []
    assert bucket.list(PartKeys(RUN).prefix) == ()
