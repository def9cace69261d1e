"""From a folder to a data set in the bucket and back, over HTTP: the same bytes, each moved once, nothing damaged."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from orchestrator.agent.fetch import Corrupt
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.dataset import Manifest, manifest_key
from orchestrator.datasets import packer
from orchestrator.datasets.order import Order
from orchestrator.datasets.stage import stage
from orchestrator.errors import BadInput, NotFound
from orchestrator.run.datasets import find, list_datasets
from tests.datasets.noted import Builder, Noted, contents, write
from tests.trainer.pictures import folders

FILES = {"a.txt": b"one", "b/c.bin": bytes(5000), "b/empty": b""}


def test_a_folder_of_images_is_packed_and_its_manifest_names_every_object(
    tmp_path: Path, session: Session, bucket: Bucket, build: Builder, progress: Noted
) -> None:
    built = build(folders(tmp_path / "photos", 12, 6), "photos", "--sizes", "24,30", as_is=False).dataset
    there = {item.key.removeprefix(built.prefix): item for item in bucket.list(built.prefix)}
    there.pop("MANIFEST.json")
    manifest = Manifest.from_json(bucket.get(manifest_key("photos", built.version)))
    assert {file.path for file in manifest.files} == there.keys() >= {"dataset.json", "sz/24/train/images.bin"}
    for file in manifest.files:
        body = bucket.get(built.prefix + file.path)
        assert (len(body), hashlib.sha256(body).hexdigest()) == (file.size, file.sha256)
    phases = {file.path: file.phase for file in manifest.files if file.path.endswith("train/images.bin")}
    assert phases == {"sz/24/train/images.bin": 0, "sz/30/train/images.bin": 1, "train/images.bin": 2}
    assert [stages[-1] for stages in progress.stages.values()] == [(18, 18), *[(manifest.size, manifest.size)] * 2]
    assert list(progress.stages) == ["packing", "reading", "uploading"]
    assert not any((tmp_path / "building").iterdir()), "the work folder goes with the build"
    tally = stage(bucket, find(session, bucket, "photos"), tmp_path / "here", progress)
    assert (tally.moved, tally.kept) == (manifest.size, 0)
    assert b'"name": "photos"' in contents(tmp_path / "here")["dataset.json"]
    again = build(tmp_path / "here", "photos-again", as_is=False).dataset
    assert again.version == built.version, "what is packed already is uploaded as it is"
    copies = build(tmp_path / "here", "copies", as_is=False, originals=False).dataset.manifest
    assert copies is not None
    assert {file.path.split("/")[0] for file in copies.files} == {"dataset.json", "sz"}
    shutil.rmtree(tmp_path / "here/sz")
    with pytest.raises(BadInput, match="has no smaller copies"):
        build(tmp_path / "here", "copies", as_is=False, originals=False)


def test_a_packing_goes_on_with_other_processes_but_not_with_other_sizes(tmp_path: Path) -> None:
    def work(*arguments: str) -> Path:
        return Order(name="x", source="photos", as_is=False, originals=True, arguments=arguments, home=tmp_path).work

    assert work("--sizes", "24", "--processes", "2") == work("--sizes", "24", "--max-corrupt", "0.1")
    assert len({work("--sizes", "24"), work("--sizes", "30"), work()}) == 3


def test_a_prefix_in_s3_is_fetched_and_becomes_the_same_data_set(
    tmp_path: Path, bucket: Bucket, build: Builder, progress: Noted
) -> None:
    for name, body in FILES.items():
        bucket.put(f"elsewhere/set/{name}", body)
    fetched = build(f"s3://{bucket.name}/elsewhere/set", "fetched").dataset
    assert fetched.version == build(write(tmp_path / "same", FILES), "same").dataset.version
    assert progress.stages["fetching"][-1] == (5003, 5003)
    with pytest.raises(NotFound, match="nothing at s3://"):
        build(f"s3://{bucket.name}/nowhere", "fetched")


def test_what_was_uploaded_is_not_moved_again(tmp_path: Path, session: Session, bucket: Bucket, build: Builder) -> None:
    source = write(tmp_path / "set", {f"{number:02}": bytes([number]) * 1000 for number in range(40)})
    version = build(source, "whole").dataset.version
    for number in range(15):  # what a build had uploaded when it was killed
        bucket.put(f"datasets/begun/{version}/{number:02}", bytes([number]) * 1000)
    (begun,) = list_datasets(session, bucket, "begun")
    assert (begun.state, begun.manifest, begun.objects) == ("unfinished", None, 15)
    with pytest.raises(NotFound, match=f"begun@{version} is not finished"):
        find(session, bucket, "begun")
    built = build(source, "begun")
    assert (built.moved, built.kept) == (25_000, 15_000)
    ready = find(session, bucket, "begun")
    assert (ready.state, ready.version, ready.objects) == ("ready", version, 40)
    assert build(source, "begun").moved == 0
    assert find(session, bucket, "begun").last == ready.last, "the same again changes nothing"
    write(source, {"00": b"new"})
    newer = build(source, "begun")
    assert [item.version for item in list_datasets(session, bucket, "begun")] == [begun.version, newer.dataset.version]
    assert find(session, bucket, "begun").version == newer.dataset.version
    assert find(session, bucket, f"begun@{begun.version[:6]}").version == begun.version


def test_damaged_objects_are_named_refused_and_mended_by_building_again(
    tmp_path: Path, bucket: Bucket, build: Builder, progress: Noted
) -> None:
    files = FILES | {"d": b"four"}
    source, here = write(tmp_path / "set", files), tmp_path / "here"
    built = build(source, "broken").dataset
    bucket.put(f"{built.prefix}b/c.bin", bytes(4999) + b"!")
    with pytest.raises(Corrupt, match=f"{built.prefix}b/c.bin is damaged"):
        stage(bucket, built, here, progress)
    assert not (here / "b/c.bin").exists()
    bucket.put(f"{built.prefix}d", b"FOUR")
    with pytest.raises(Corrupt, match="2 objects are damaged") as caught:
        stage(bucket, built, tmp_path / "there", progress)
    named = [line.partition(": its sha256 is ")[0] for line in caught.value.details]
    assert named == [f"{built.prefix}b/c.bin", f"{built.prefix}d"]
    assert contents(tmp_path / "there") == {name: files[name] for name in ("a.txt", "b/empty")}, "all else is there"
    bucket.put(f"{built.prefix}a.txt", b"longer")
    bucket.delete(f"{built.prefix}d")
    with pytest.raises(Corrupt, match=r"a\.txt has 6 bytes") as caught:
        stage(bucket, built, here, progress)
    assert "d is missing" in caught.value.message
    assert built.url in caught.value.message
    mended = build(source, "broken")
    assert (mended.moved, mended.kept) == (5000 + 3 + 4, 0)
    write(here, {"a.txt": b"one", "d": b"FOUR", "of": b"mine"})
    before = stage(bucket, built, here, progress)
    assert before.kept >= 3, "what is right is not fetched again"
    assert before.moved >= 5004, "what was spoilt here is"
    assert before.moved + before.kept == 5007
    assert contents(here) == files | {"of": b"mine"}
    assert stage(bucket, built, here, progress).moved == 0


def test_a_source_that_cannot_be_packed_is_refused_with_the_packers_own_words(
    tmp_path: Path, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "texts", FILES)
    with pytest.raises(BadInput, match="texts cannot be packed: no train images") as caught:
        build(source, "texts", as_is=False)
    assert "train/<class>/<image>" in caught.value.hint
    with pytest.raises(BadInput, match="argument --quality: must be"):
        build(source, "texts", "--quality", "0", as_is=False)
    with pytest.raises(BadInput, match="--as-is packs nothing"):
        build(source, "texts", "--sizes", "24")
    with pytest.raises(BadInput, match="there is no "):
        build(tmp_path / "nowhere", "texts")
    with pytest.raises(BadInput, match="is not a folder"):
        build(source / "a.txt", "texts")
    (tmp_path / "none").mkdir()
    with pytest.raises(BadInput, match="holds no files"):
        build(tmp_path / "none", "texts")
    monkeypatch.setattr(packer, "NEEDED", {"no_such_module": "pillow"})
    with pytest.raises(BadInput, match="packing needs pillow") as caught:
        build(source, "texts", as_is=False)
    assert caught.value.hint.endswith("-m pip install pillow`")
