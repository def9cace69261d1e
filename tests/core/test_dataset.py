"""The manifest of a data set, what data sets are called, and in what order their files are needed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core import dataset
from orchestrator.core.dataset import Manifest, Reference
from orchestrator.core.manifest import File

FILES = (File("a/1.bin", 3, "0" * 64, 1), File("b.txt", 0, "1" * 64))
MADE = Manifest(FILES, datetime(2026, 11, 27, 12, tzinfo=UTC), "photos")


def changed(**keys: object) -> bytes:
    return json.dumps(json.loads(MADE.to_json()) | keys).encode()


def test_a_manifest_reads_back_as_it_was_written_in_the_agreed_form() -> None:
    assert Manifest.from_json(MADE.to_json()) == MADE
    value = json.loads(MADE.to_json())
    assert value["files"][0] == {"path": "a/1.bin", "size": 3, "sha256": "0" * 64, "phase": 1}
    assert (value["created"], value["source"], value["digest"]) == ("2026-11-27T12:00:00Z", "photos", MADE.digest)
    assert MADE.size == 3
    assert MADE.digest.startswith(MADE.version)


def test_the_digest_is_of_names_and_contents_alone() -> None:
    later = Manifest(FILES[::-1], MADE.created + timedelta(days=1), "elsewhere")
    assert later.digest == MADE.digest
    unphased = Manifest(tuple(replace(file, phase=0) for file in FILES), MADE.created, "")
    assert unphased.digest == MADE.digest
    for other in (replace(FILES[1], path="c.txt"), replace(FILES[1], sha256="2" * 64), replace(FILES[1], size=1)):
        assert Manifest((FILES[0], other), MADE.created, "photos").digest != MADE.digest


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        changed(files=None),
        changed(created="yesterday"),
        changed(digest="0" * 64),
        changed(files=[]),
        changed(files=[{"path": "a", "size": "many", "sha256": ""}]),
    ],
)
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Manifest.from_json(body)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a\0b"])
def test_a_file_outside_the_data_set_is_refused(path: str) -> None:
    files = (File(path, 1, "0" * 64),)
    with pytest.raises(ValueError, match="outside its folder"):
        Manifest.from_json(Manifest(files, MADE.created, "").to_json())


def test_objects_that_no_folder_can_hold_are_all_named() -> None:
    fine = ["a/b", "a/c", "a/b c/d", "..e", "ü"]
    assert dataset.unplaceable(fine) == []
    assert dataset.unplaceable([*fine, "../x", "y/../z", "/w", "n\0", "a", "a//c", "./a/c", "ü/v/w"]) == [
        "'../x' would leave its folder",
        "'y/../z' would leave its folder",
        "'/w' would leave its folder",
        "'n\\x00' would leave its folder",
        "'a//c' is the same file as 'a/c'",
        "'./a/c' is the same file as 'a/c'",
        "'ü' would be a file and a folder",
        "'a' would be a file and a folder",
    ]


def test_small_copies_come_first_and_the_originals_last() -> None:
    order = {
        "dataset.json": 0,
        "sz/160/train/images.bin": 0,
        "sz/352/train/images.bin": 1,
        "sz/1000/train/images.bin": 2,
        "sz/1000/train/index.npz": 0,
        "train/images.bin": 3,
        "train/index.npz": 0,
        "corrupt.txt": 3,
    }
    assert dataset.find_phases(list(order)) == order
    assert set(dataset.find_phases(["sz/160/a", "b"]).values()) == {0}, "it is not in the packed format"


def test_a_data_set_is_named_with_or_without_a_version() -> None:
    assert Reference.parse("dataset:imagenet") == Reference.parse("imagenet") == Reference("imagenet")
    assert Reference.parse("imagenet@ab12") == Reference("imagenet", "ab12")
    for wrong in ("", "dataset:", "Imagenet", "a/b"):
        with pytest.raises(ValueError, match="names no data set"):
            Reference.parse(wrong)
    for wrong in ("a@", "a@xyz!", "a@ab1", "a@b@c"):
        with pytest.raises(ValueError, match="is no version: 4 to 64 digits of 0-9 and a-f"):
            Reference.parse(wrong)
    assert dataset.manifest_key("a", "b") == "datasets/a/b/MANIFEST.json"
