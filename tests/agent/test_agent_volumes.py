"""Volumes on a node: found by what lies on them, filled, sealed, mounted; the programs are the sandbox's stand-ins."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from orchestrator.agent.config import DataSource
from orchestrator.agent.fetch import Corrupt
from orchestrator.agent.stage import stage
from orchestrator.agent.volumes import Disk
from orchestrator.core.volumes import INODE_SPAN
from orchestrator.errors import BadInput, OrchError, Unreachable
from orchestrator.sandbox import shims
from orchestrator.sandbox.boundary import Disk as Attached
from orchestrator.sandbox.host_disks import HostDisks
from tests.agent.agent_world import FolderStore, node_config

LABEL = "0123456789abcdef"
FILES = {"dataset.json": b"{}", "train/images.bin": b"images"}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    made = FolderStore(tmp_path / "s3")
    rows = [
        {"path": name, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()} for name, body in FILES.items()
    ]
    for name, body in FILES.items():
        made.put(f"set/{name}", body)
    made.put("set/MANIFEST.json", json.dumps({"files": rows}).encode())
    return made


class Host:
    """A host's folder with disks and the programs that know them, first on the path."""

    def __init__(self, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, *disks: Attached) -> None:
        self.folder, self.home = folder / name, folder / name / "home"
        for made in (self.home, self.folder / "bin"):
            made.mkdir(parents=True)
        for program in (*shims.DISK_NAMES, "sudo"):
            (self.folder / "bin" / program).write_text(shims.SHARED.get(program, shims.DISK))
            (self.folder / "bin" / program).chmod(0o700)
        self.disks = HostDisks(folder)
        self.disks.attach(self.folder, disks)
        monkeypatch.setenv("PATH", f"{self.folder}/bin:{os.environ['PATH']}")

    def stage(self, store: FolderStore, blank_gib: int = 0) -> None:
        source = DataSource("flowers", "bucket", "set/", "flowers", wait_all=True, volume=LABEL, blank_gib=blank_gib)
        stage(node_config(self.home, data=(source,)), lambda *_: store)

    def on(self, volume: str) -> dict[str, bytes]:
        files = self.folder / "disks" / volume / "files"
        return {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}


def filled(tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host(tmp_path, "builder", monkeypatch, Attached("vol-other", 3, ""), Attached("vol-1", 2, ""))
    host.stage(store, blank_gib=2)
    return host


def test_the_one_blank_disk_of_the_size_is_filled_read_back_and_let_go_of(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = filled(tmp_path, store, monkeypatch)
    assert (host.on("vol-1"), host.on("vol-other")) == (FILES, {})
    assert not (host.folder / "disks/vol-1/mountpoint").exists()
    assert (host.folder / "disks/vol-1/label").read_text() == LABEL
    assert "reading all of it back" in capsys.readouterr().out


def test_a_node_has_the_set_on_its_own_volume_read_only_and_fetches_nothing(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, store, monkeypatch).disks.take("snap-1", tmp_path / "builder", "vol-1")
    node = Host(tmp_path, "node", monkeypatch, Attached("vol-2", 2, "snap-1"))
    monkeypatch.setattr(store, "read", lambda *_: pytest.fail("it fetched"))
    (store.folder / "set/train/images.bin").unlink()  # the volume has what is gone in S3
    for _ in range(2):  # another generation on the same machine finds it mounted
        node.stage(store)
    assert (node.home / "data/flowers/train/images.bin").read_bytes() == FILES["train/images.bin"]
    assert (node.folder / "disks/vol-2/options").read_text() == "ro,noatime"
    assert (node.home / "data/flowers/train/images.bin").stat().st_mode & 0o222 == 0
    assert not node_config(node.home).staging_file.exists(), "nor did it digest what the builder did"


def test_the_stand_in_lets_nobody_write_what_a_snapshot_holds(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, store, monkeypatch).disks.take("snap-1", tmp_path / "builder", "vol-1")
    node = Host(tmp_path, "node", monkeypatch, Attached("vol-2", 2, "snap-1"))
    (node.home / "here").mkdir()
    words = ("mount", str(node.folder / "disks/vol-2"), str(node.home / "here"))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, "only mounted read-only here" in done.stderr) == (32, True)
    assert list((node.home / "here").iterdir()) == []


def test_what_is_not_on_the_volume_as_it_was_written_is_named_and_sealed_by_nobody(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, "builder", monkeypatch, Attached("vol-1", 2, ""))
    spoil = host.folder / "bin/umount"
    spoil.write_text(
        spoil.read_text().replace("#!/bin/sh\n", f'#!/bin/sh\nprintf x >"{host.home}/data/flowers/dataset.json"\n')
    )
    with pytest.raises(Corrupt, match="not as they were written: set/dataset"):
        host.stage(store, blank_gib=2)


def test_a_volume_of_something_else_is_refused(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, store, monkeypatch).disks.take("snap-1", tmp_path / "builder", "vol-1")
    (tmp_path / "snapshots/snap-1/files/train/images.bin").unlink()
    node = Host(tmp_path, "node", monkeypatch, Attached("vol-2", 2, "snap-1"))
    manifest = store.get("set/MANIFEST.json")
    store.put("set/MANIFEST.json", b"[]")
    with pytest.raises(BadInput, match=r"the MANIFEST\.json of data flowers names no files"):
        node.stage(store)
    store.put("set/MANIFEST.json", manifest)
    store.failures = 1
    with pytest.raises(Unreachable):
        node.stage(store)
    with pytest.raises(Corrupt, match=r"not what its manifest says: train/images\.bin$"):
        node.stage(store)


def test_nothing_is_formatted_where_it_is_not_sure_which_disk_and_nothing_is_waited_for_that_never_comes(
    tmp_path: Path, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.agent.volumes.APPEARS", 0.0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    two = Host(tmp_path, "two", monkeypatch, Attached("vol-1", 2, ""), Attached("vol-2", 2, ""))
    with pytest.raises(OrchError, match="2 blank disks of 2 GiB"):
        two.stage(store, blank_gib=2)
    assert not list(two.folder.glob("disks/*/label"))
    with pytest.raises(OrchError, match=f"no volume with data flowers \\({LABEL}\\)"):
        two.stage(store)


def test_a_disk_with_anything_on_it_is_not_blank() -> None:
    plain = {"path": "/dev/xvdf", "size": "1073741824", "type": "disk", "fstype": None, "label": None}
    assert Disk.from_json(plain) == Disk("/dev/xvdf", 2**30, "", "", "", blank=True)
    some: list[dict[str, object]] = [{"fstype": "ext4"}, {"mountpoint": "/"}, {"children": [{}]}, {"type": "loop"}]
    for more in some:
        assert not Disk.from_json(plain | more).blank


def test_a_file_system_of_any_size_has_the_inodes_that_its_volume_was_sized_for(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if real is None:
        pytest.skip("mkfs.ext4 is not installed")
    host = Host(tmp_path, "a", monkeypatch, Attached("vol-1", 1, ""))
    program = host.folder / "bin" / "mkfs.ext4"
    asked = tmp_path / "asked"
    program.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >{asked}\n' + program.read_text().partition("\n")[2])
    host.stage(store, blank_gib=1)
    (tmp_path / "disk").touch()
    *words, _ = asked.read_text().splitlines()
    done = subprocess.run(
        [real, "-n", "-F", *(word for word in words if word != "-q"), tmp_path / "disk", "8T"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{8 * 2**40 // INODE_SPAN} inodes" in done.stdout
