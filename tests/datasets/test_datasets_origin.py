"""A data set that was made of the same source with the same options is there; anything else is built."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.dataset import manifest_key
from orchestrator.datasets.build import Built
from orchestrator.datasets.order import DEFAULTS
from orchestrator.run.datasets import find, list_datasets
from tests.datasets.noted import Builder, Noted, contents
from tests.trainer.pictures import folders
from trainer.data import commands

FILES = {"a.txt": b"one", "b/c.bin": bytes(5000)}


def put(bucket: Bucket, where: str, files: dict[str, bytes]) -> str:
    for name, body in files.items():
        bucket.put(f"elsewhere/{where}/{name}", body)
    return f"s3://{bucket.name}/elsewhere/{where}"


def test_a_prefix_in_s3_is_not_even_fetched_again_until_it_changes(
    session: Session, bucket: Bucket, build: Builder, progress: Noted
) -> None:
    source = put(bucket, "set", FILES)
    first = build(source, "set")
    again = nothing_done(progress, lambda: build(source, "set"))
    assert (again.fresh, again.moved, again.kept) == (False, 0, 5003)
    assert again.dataset == first.dataset
    forced = build(source, "set", force=True)
    assert (forced.fresh, forced.moved, forced.dataset) == (True, 0, first.dataset)
    put(bucket, "set", {"a.txt": b"two"})
    changed = build(source, "set")
    assert (changed.fresh, len(list_datasets(session, bucket, "set"))) == (True, 2)
    put(bucket, "set", FILES)
    back = nothing_done(progress, lambda: build(source, "set"))
    assert (back.fresh, back.dataset.version) == (False, first.dataset.version)
    assert find(session, bucket, "set").version == first.dataset.version, "it is the newest, as if it had been built"


def test_what_is_not_whole_or_of_before_is_built(bucket: Bucket, build: Builder) -> None:
    source = put(bucket, "whole", FILES)
    made = build(source, "whole").dataset
    bucket.put(f"{made.prefix}a.txt", b"eno")
    mended = build(source, "whole")
    assert (mended.fresh, mended.moved, mended.kept) == (True, 3, 5000)
    key = manifest_key("whole", made.version)
    value = json.loads(bucket.get(key))
    del value["origin"]
    bucket.put(key, json.dumps(value).encode())
    assert build(source, "whole").fresh, "an older manifest does not say of what it was made"
    assert not build(source, "whole").fresh
    assert json.loads(bucket.get(key))["created"] == value["created"], "the same files stay as old as they are"


def test_options_and_times_of_files_count_and_what_decides_nothing_does_not(
    tmp_path: Path, bucket: Bucket, build: Builder, progress: Noted
) -> None:
    source = folders(tmp_path / "photos", 3, 1, classes=1)
    bad = source / "train/n00/bad.jpg"
    bad.write_bytes(b"corrupt")

    def packed(*options: str) -> Built:
        return build(source, "photos", *options, as_is=False)

    made = packed("--sizes", "24", "--max-corrupt", "0.5")
    again = nothing_done(progress, lambda: packed("--max-corrupt", "0.5", "--sizes", "24", "--processes", "1"))
    assert (again.fresh, again.left_out, again.dataset) == (False, made.left_out, made.dataset)
    assert len(again.left_out) == 1
    assert packed("--sizes", "24", "--max-corrupt", "0.6").fresh, "it may be too many now"
    assert packed("--sizes", "30", "--max-corrupt", "0.5").fresh
    bad.unlink()
    assert packed("--sizes", "24").fresh
    assert not packed("--sizes", "24", "--max-corrupt", "0.5").fresh, "nothing is left out"
    assert not packed("--sizes", "24", "--quality", "75").fresh, "as it is without"
    os.utime(source / "train/n00/train_0000.JPEG", ns=(1, 1))
    touched = packed("--sizes", "24")
    assert (touched.fresh, touched.moved) == (True, 0)


def test_what_was_packed_or_fetched_of_another_source_is_forgotten(
    tmp_path: Path, bucket: Bucket, build: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = contents(folders(tmp_path / "photos", 3, 1, classes=1))
    source = put(bucket, "forgotten", images)
    first, second = sorted(name for name in images if name.startswith("train/"))[:2]
    with monkeypatch.context() as killed, pytest.raises(ZeroDivisionError):
        killed.setattr("orchestrator.datasets.build.upload", lambda *_, **__: 1 / 0)
        build(source, "forgotten", "--sizes", "24", as_is=False)
    bucket.delete(f"elsewhere/forgotten/{first}")
    other = images[second][:-9] + bytes([images[second][-9] ^ 1]) + images[second][-8:]
    put(bucket, "forgotten", {second: other})
    built = build(source, "forgotten", "--sizes", "24", as_is=False).dataset
    whole = bucket.get(f"{built.prefix}train/images.bin")
    rest = sorted(name for name in images if name.startswith("train/"))[2:]
    assert whole == other + b"".join(images[name] for name in rest)


def test_defaults_are_those_of_the_trainer() -> None:
    parser = ArgumentParser()
    commands.add(parser.add_subparsers())
    given = parser.parse_args(["pack", "here", "there"])
    said = {"--quality": str(given.quality), "--max-corrupt": str(given.max_corrupt)}
    assert said | {"--sizes": ",".join(map(str, commands.SIZES))} == DEFAULTS


def nothing_done(progress: Noted, what: object) -> Built:
    """Return what `what` returns, having seen that nothing was fetched, packed, read or uploaded for it."""
    progress.stages.clear()
    assert callable(what)
    built = what()
    assert isinstance(built, Built)
    assert progress.stages == {}
    return built
