"""Experiments name data sets, and one that a run uses is known to be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.experiment import Experiment
from orchestrator.core.ids import Keys
from orchestrator.core.settings import Settings
from orchestrator.core.volumes import DataVolume
from orchestrator.errors import BadInput, NotFound
from orchestrator.run import datasets
from orchestrator.run.datasets import MEND
from orchestrator.run.lease import Lease, Owner
from orchestrator.run.ledger import Ledger
from orchestrator.run.prepare import Source, prepare
from orchestrator.run.renewal import renew
from orchestrator.sandbox.cloud import SandboxCloud
from tests.core.worlds import at, spec
from tests.datasets.noted import Builder, write


def experiment(**sources: str) -> Experiment:
    keys: dict[str, Any] = {"resources": {"instance_type": "p3.16xlarge"}, "run": "true"}
    data = {name: {"source": source} for name, source in sources.items()}
    return Experiment.from_json({"name": "uses", "data": data, **keys})


def test_a_name_becomes_the_url_of_the_newest_version(
    tmp_path: Path, session: Session, bucket: Bucket, build: Builder
) -> None:
    first = build(write(tmp_path / "set", {"a": b"one"}), "flowers").dataset
    second = build(write(tmp_path / "set", {"a": b"two"}), "flowers").dataset
    asked = experiment(new="dataset:flowers", old=f"dataset:flowers@{first.version[:4]}", own="s3://bucket/x")
    found = datasets.resolve(asked, session, bucket)
    assert [item.source for item in found.data.values()] == [second.url, first.url, "s3://bucket/x"]
    assert found.data["old"].mount == "old"
    plain = experiment(own="s3://bucket/x")
    assert datasets.resolve(plain, session, bucket) is plain
    with pytest.raises(NotFound, match=r"2 data sets cannot be had: data\.a, data\.b$") as caught:
        datasets.resolve(experiment(a="dataset:flower", b="dataset:flowers@ffff"), session, bucket)
    mistyped, old = caught.value.details
    assert mistyped.startswith("data.a: there is no data set flower: did you mean flowers? ")
    assert old == f"data.b: flowers has no version ffff: it has {first.version}, {second.version}"
    with pytest.raises(NotFound, match=r"^data\.b: there is no data set roses") as caught:
        datasets.resolve(experiment(a="dataset:flowers", b="dataset:roses"), session, bucket)
    assert "`orch dataset list` shows them" in caught.value.hint
    with pytest.raises(NotFound, match="flowers has no version ffff") as caught:
        datasets.find(session, bucket, "flowers@ffff")
    assert first.version in caught.value.hint
    with pytest.raises(BadInput, match="names no data set"):
        datasets.find(session, bucket, "Flowers!")


def test_a_plan_keeps_the_url_and_refuses_what_was_not_finished(
    tmp_path: Path, settings: Settings, session: Session, bucket: Bucket, build: Builder
) -> None:
    built = build(write(tmp_path / "set", {"a": b"one", "b": b"three"}), "planned").dataset
    ours = replace(settings, bucket=bucket.name)
    source = Source("uses", tmp_path / "uses.yaml")
    prepared = prepare(experiment(x="dataset:planned"), source, session, ours, environ={})
    assert prepared.experiment.data["x"].source == built.url
    assert sum(prepared.data_bytes.values()) > 8
    bucket.delete(f"{built.prefix}MANIFEST.json")
    with pytest.raises(NotFound, match=rf"data.x: {built.url} was not finished"):
        prepare(experiment(x=built.url), source, session, ours, environ={})
    bucket.put("datasets/planned/by-hand/a", b"one")
    prepared = prepare(experiment(x=f"s3://{bucket.name}/datasets/planned/by-hand"), source, session, ours, environ={})
    assert prepared.data_bytes == {"x": 3}, "what others put there is their own affair"
    assert [item.version for item in datasets.list_datasets(session, bucket, "planned")] == [built.version]


def test_a_plan_refuses_a_set_that_lost_files(
    tmp_path: Path, settings: Settings, session: Session, bucket: Bucket, build: Builder
) -> None:
    files = {f"f{number}": b"five!" for number in range(6)}
    built = build(write(tmp_path / "set", files), "holey").dataset
    other = build(write(tmp_path / "other", {"a": b"one"}), "hollow").dataset
    ours, source = replace(settings, bucket=bucket.name), Source("uses", tmp_path / "uses.yaml")
    for number in range(4):
        bucket.delete(f"{built.prefix}f{number}")
    bucket.put(f"{built.prefix}f5", b"four")
    bucket.put(f"{other.prefix}MANIFEST.json", b"[")
    asked = experiment(x="dataset:holey", y=other.url, z=f"s3://{bucket.name}/nowhere")
    with pytest.raises(NotFound) as caught:
        prepare(asked, source, session, ours, environ={})
    holey, hollow, nowhere = caught.value.message.split("; ")
    assert nowhere.startswith("data.z: nothing at")
    with pytest.raises(NotFound, match=r"data\.x: there is no bucket nobucket-here"):
        prepare(experiment(x="s3://nobucket-here/x"), source, session, ours, environ={})
    assert holey == f"data.x: {built.url} is damaged: of 6 files 5 are gone or cut: f0, f1, f2 and 2 more"
    assert hollow.startswith(f"data.y: {other.url} is damaged: its MANIFEST.json cannot be read")
    assert "`orch dataset build` with the same source puts its files back" in caught.value.hint
    for theirs in (b"[]", b"{}"):
        bucket.put("theirs/MANIFEST.json", theirs)
        asked = experiment(x=f"s3://{bucket.name}/theirs")
        assert prepare(asked, source, session, ours, environ={}).data_bytes == {"x": 2}, "a file of others"
    assert prepare(experiment(x=f"s3://{bucket.name}"), source, session, ours, environ={}).data_bytes["x"] > 2


def test_a_run_is_not_resumed_without_its_data_as_far_as_one_may_see(
    tmp_path: Path, cloud: SandboxCloud, session: Session, bucket: Bucket, build: Builder
) -> None:
    built = build(write(tmp_path / "set", {"a": b"one"}), "resumed").dataset
    run = replace(spec(1), bucket=bucket.name, experiment=experiment(x=built.url))

    def lacks() -> list[str]:
        return [fault for fault in renew(run, session, None).faults if fault.startswith("data.x")]

    assert lacks() == []
    bucket.delete(f"{built.prefix}a")
    assert [fault.partition(" is damaged: ")[2] for fault in lacks()] == [f"of 1 file 1 are gone or cut: a ({MEND})"]
    cloud.add_fault("ListObjectsV2", "AccessDenied")
    assert lacks() == []


def test_a_manifest_that_cannot_be_read_is_said(
    tmp_path: Path, session: Session, bucket: Bucket, build: Builder
) -> None:
    built = build(write(tmp_path / "set", {"a": b"one"}), "spoilt").dataset
    bucket.put(f"{built.prefix}MANIFEST.json", b"{}")
    (found,) = datasets.list_datasets(session, bucket, "spoilt")
    assert (found.state, found.manifest) == ("damaged", None)
    with pytest.raises(NotFound, match="cannot be used: its manifest cannot be read"):
        datasets.find(session, bucket, "spoilt")


def test_runs_that_have_not_ended_use_what_they_name(
    tmp_path: Path, session: Session, bucket: Bucket, build: Builder
) -> None:
    one = build(write(tmp_path / "one", {"a": b"one"}), "one").dataset
    two = build(write(tmp_path / "two", {"a": b"two"}), "two").dataset
    made = spec(data={"x": {"source": f"{one.url}/"}})
    bucket.put(Keys(made.run_id).spec, made.to_json())
    assert datasets.users(bucket, [one, two]) == [made.run_id]
    assert datasets.users(bucket, [two]) == []
    blank = DataVolume("x", "", one.version, 1, one.size)
    bucket.put(Keys(made.run_id).spec, replace(made, volumes=(blank,)).to_json())
    assert datasets.users(bucket, [one]) == [], "a build of its snapshot that was killed"
    lease = Lease(bucket, made.run_id, Owner.me())
    assert lease.try_acquire(bucket.server_time())
    assert datasets.users(bucket, [one]) == [made.run_id], "one that goes on"
    lease.release(bucket.server_time())
    bucket.put(Keys(made.run_id).spec, made.to_json())
    Ledger(bucket, made.run_id, "test").append("outcome", "close", {"generation": 1}, epoch=1, now=at(0))
    assert datasets.users(bucket, [one, two]) == []
    datasets.remove(session, bucket, one.name, one.version)
    assert [item.name for item in datasets.list_datasets(session, bucket) if item.name in {"one", "two"}] == ["two"]
    assert bucket.list(one.prefix) == ()
