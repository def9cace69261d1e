"""A source with nothing to pack is refused with all that is wrong, before anything of it is fetched or uploaded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.datasets import packer, preview
from orchestrator.datasets.order import Order
from orchestrator.datasets.origin import list_source
from orchestrator.errors import BadInput, NoPermission
from tests.datasets.noted import Builder, Noted, contents, write
from tests.trainer.pictures import folders
from tests.trainer.test_trainer_sources import tars_of_tars

NOTHING = "cannot be packed: no train images; no validation images"


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return body.getvalue()


def put(bucket: Bucket, where: str, files: dict[str, bytes]) -> str:
    for name, body in files.items():
        bucket.put(f"elsewhere/{where}/{name}", body)
    return f"s3://{bucket.name}/elsewhere/{where}"


def refuse(source: str, session: Session, *arguments: str) -> None:
    order = Order(name="photos", source=source, as_is=False, originals=True, arguments=arguments, home=Path())
    preview.refuse(order, list_source(order, session), session)


IMAGE, COMPRESSED = {"n00/a.jpg": b"."}, tar_of({"n00/a.jpg": b"."}, "w:gz")
WRONG: dict[str, tuple[dict[str, bytes], str]] = {
    "texts": ({"a.txt": b"text", "deep/er/still/a.jpg": b"."}, NOTHING),
    "flat": ({"train/a.jpg": b".", "val/n00/b.jpg": b"."}, "images in no class: a.jpg; classes of validation images"),
    "compressed": ({"train.tar": COMPRESSED}, "train.tar cannot be read as a tar: .*; no validation images"),
    "empty": ({"train.tar": tar_of({"a.txt": b"."}), "val.tar": b""}, "val.tar cannot be read .*; no train images"),
    "classless": ({"train.tar": tar_of(IMAGE), "val.tar": tar_of({"b.jpg": b"."})}, "images in no class: b.jpg"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_lies_in_s3_is_refused_before_it_is_fetched(
    bucket: Bucket, build: Builder, progress: Noted, tmp_path: Path, what: str
) -> None:
    files, said = WRONG[what]
    source = put(bucket, what, files)
    with pytest.raises(BadInput, match=said) as caught:
        build(source, "photos", as_is=False)
    assert caught.value.message.startswith(f"{source} cannot be packed: ")
    assert "there must be train/<class>/<image>" in caught.value.hint
    assert progress.stages == {}
    assert not any((tmp_path / "building").iterdir())


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_what_lies_here_is_refused_too(tmp_path: Path, build: Builder, progress: Noted, kind: str) -> None:
    source = tmp_path / "photos"
    if kind == "tar":
        source.write_bytes(tar_of({"readme": b"nothing"}))
    else:
        write(source, {"readme": b"nothing"})
    with pytest.raises(BadInput, match=NOTHING):
        build(source, "photos", as_is=False)
    assert progress.stages == {}


def test_of_large_tars_the_beginnings_are_enough(
    tmp_path: Path, session: Session, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "HEAD_BYTES", 6000)
    (tmp_path / "tars").mkdir()
    tars_of_tars(folders(tmp_path / "tree", 12, 6), tmp_path / "tars")
    labels = str(tmp_path / "tars/labels")
    files = {name: body for name, body in contents(tmp_path / "tars").items() if name.endswith(".tar")}
    assert len(files) == 2
    assert all(len(body) > 6000 for body in files.values())
    source = put(bucket, "tars", files)
    refuse(source, session, "--val-labels", labels)
    with pytest.raises(BadInput, match="validation images in no class"):
        refuse(source, session)
    bucket.delete("elsewhere/tars/ILSVRC2012_img_val.tar")
    with pytest.raises(BadInput, match=r"cannot be packed: no validation images$"):
        refuse(source, session, "--val-labels", labels)


def test_a_beginning_that_ends_where_a_member_does_is_not_all_there_is(
    session: Session, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "HEAD_BYTES", 2 * tarfile.BLOCKSIZE)  # a header and an image of one block
    train, val = {"n00/a.jpg": b".", "n01/b.jpg": b"."}, {"n00/c.jpg": b".", "n01/d.jpg": b".", "n02/e.jpg": b"."}
    refuse(put(bucket, "cut", {"train.tar": tar_of(train), "val/n01/d.jpg": b"."}), session)
    refuse(put(bucket, "cut-twice", {"train.tar": tar_of(train), "val.tar": tar_of(val)}), session)
    with pytest.raises(BadInput, match="no train images"):
        refuse(put(bucket, "cut-of-one", {"val.tar": tar_of(val)}), session)


def test_what_the_trainer_reads_otherwise_or_not_here_is_let_pass(
    session: Session, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(bucket, "let-pass", {"readme": b"."})
    with monkeypatch.context() as without:
        without.setattr(packer, "NEEDED", {"no_such_module": "pillow"})
        refuse(source, session)
    with pytest.raises(BadInput):
        refuse(source, session)

    def denied(*_: object) -> bytes:
        raise NoPermission("s3:GetObject is denied", "ask for it")

    put(bucket, "let-pass", {"train.tar": b"text"})
    with monkeypatch.context() as lists_only:
        lists_only.setattr(preview, "_head", denied)
        refuse(source, session)
    put(bucket, "let-pass", {"cifar-10-batches-bin/data_batch_1.bin": b"."})
    refuse(source, session)
