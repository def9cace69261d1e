"""What goes into a bundle, what is refused, and that the same files give the same bytes."""

from __future__ import annotations

import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from orchestrator.errors import BadInput
from orchestrator.node import bundle as module
from orchestrator.node.bundle import Bundle, build_bundle
from orchestrator.node.ignore import is_ignored, parse_rules


def names(bundle: Bundle) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(bundle.read())) as archive:
        return {item.name for item in archive if item.isfile()}


def content(bundle: Bundle, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(bundle.read())) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return file.read()


def in_workdir(bundle: Bundle) -> set[str]:
    return {name.removeprefix("workdir/") for name in names(bundle) if name.startswith("workdir/")}


def write(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(path)


def test_the_same_files_give_the_same_bytes_whenever_and_however_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one, "a.py", "b/c.py")
    write(two, "b/c.py", "a.py")
    os.utime(two / "a.py", (0, 0))
    (two / "a.py").chmod(0o600)
    first = build_bundle(one, builtin=False)
    monkeypatch.setattr(time, "time", lambda: 1e9)
    second = build_bundle(two, builtin=False)
    assert first.digest == second.digest
    assert first.read() == second.read()
    assert len(first.read()) == first.size
    write(two, "new.py")
    assert build_bundle(two, builtin=False).digest != first.digest


def test_the_agent_in_a_bundle_needs_nothing_else_of_the_project(tmp_path: Path) -> None:
    bundle = build_bundle(None, builtin=False)
    with tarfile.open(fileobj=io.BytesIO(bundle.read())) as archive:
        archive.extractall(tmp_path, filter="data")
    code = (
        "import sys, orchestrator.agent.main, orchestrator.agent.stage, libtmux, orchestrator.aws.s3\n"
        "bad = {'pydantic', 'yaml', 'paramiko', 'click', 'rich', 'moto', 'torch'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "assert orchestrator.__file__.startswith(sys.argv[1]) and libtmux.__file__.startswith(sys.argv[1])\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={"PYTHONPATH": f"{tmp_path}/agent"}, cwd="/", check=True
    )


def test_a_built_in_experiment_brings_the_trainer() -> None:
    found = in_workdir(build_bundle(None, builtin=True))
    assert "trainer/py.typed" in found
    assert all(name.startswith("trainer/") for name in found)


def test_modes_links_and_odd_names_survive(tmp_path: Path) -> None:
    write(tmp_path, "run.sh", "über ✓.txt", "deep/file")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("deep/file")
    (tmp_path / "folder").symlink_to(tmp_path / "deep")
    bundle = build_bundle(tmp_path, builtin=False)
    assert in_workdir(bundle) == {"run.sh", "über ✓.txt", "deep/file", "link", "folder/file"}
    assert content(bundle, "workdir/link") == b"deep/file"
    with tarfile.open(fileobj=io.BytesIO(bundle.read())) as archive:
        modes = {item.name: stat.S_IMODE(item.mode) for item in archive if item.name.startswith("workdir/")}
        owners = {(item.uid, item.gid, item.uname, item.mtime) for item in archive}
    assert (modes["workdir/run.sh"], modes["workdir/deep/file"]) == (0o755, 0o644)
    assert owners == {(0, 0, "", 0)}


def test_orchignore_is_obeyed_and_before_it_gitignore_and_the_usual_suspects_stay(tmp_path: Path) -> None:
    write(tmp_path, "a.py", "data/x", ".git/config", ".venv/lib", "p/__pycache__/a.pyc", "node_modules/m")
    write(tmp_path, ".gitignore")
    (tmp_path / ".gitignore").write_text("data/\n")
    assert in_workdir(build_bundle(tmp_path, builtin=False)) == {"a.py", ".gitignore"}
    (tmp_path / ".orchignore").write_text("# nothing of git's\n.gitignore\n!.venv/\n")
    found = in_workdir(build_bundle(tmp_path, builtin=False))
    assert found == {"a.py", "data/x", ".orchignore", ".venv/lib"}


@pytest.mark.parametrize(
    ("line", "path", "folder", "ignored"),
    [
        ("*.ckpt", "a/b.ckpt", False, True),
        ("*.ckpt", "b.ckpt.py", False, False),
        ("/top", "top", False, True),
        ("/top", "a/top", False, False),
        ("a/b", "x/a/b", False, False),
        ("out/", "out", False, False),
        ("out/", "a/out", True, True),
        ("**/logs", "a/b/logs", True, True),
        ("a/**/z", "a/z", False, True),
        ("a/**", "a/b/c", False, True),
        ("run[0-9].txt", "run7.txt", False, True),
        ("run[!0-9].txt", "run7.txt", False, False),
        ("a?c", "a/c", False, False),
        ("(x|y)+", "(x|y)+", False, True),
        (r"\#file", "#file", False, True),
    ],
)
def test_ignore_rules_mean_what_gitignore_means(line: str, path: str, folder: bool, ignored: bool) -> None:
    assert is_ignored(parse_rules([line]), path, folder=folder) is ignored


def test_everything_that_cannot_be_sent_is_named_at_once(tmp_path: Path) -> None:
    work = tmp_path / "work"
    write(work, "fine.py")
    (work / "away").symlink_to("/etc")
    (work / "up").symlink_to("../outside")
    write(tmp_path, "outside")
    (work / "dangling").symlink_to("nothing")
    (work / "circle").symlink_to(".")
    os.mkfifo(work / "pipe")
    with pytest.raises(BadInput) as caught:
        build_bundle(work, builtin=False)
    assert caught.value.message.startswith("5 entries of ")
    assert caught.value.details == (
        "away: a link out of the folder",
        "circle: a link to a folder it lies in",
        "dangling: No such file or directory",
        "pipe: neither a file nor a folder",
        "up: a link out of the folder",
    )


def test_a_workdir_that_is_too_large_is_refused_unread_with_its_biggest_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "small.py")
    (tmp_path / "sets").mkdir()
    for name, size in (("sets/a", 2**29), ("sets/b", 2**29), ("model.bin", 2**28)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    monkeypatch.setattr(module, "_write", lambda _: pytest.fail("it was read"))
    with pytest.raises(BadInput) as caught:
        build_bundle(tmp_path, builtin=False)
    assert "1.3 GiB, more than the 1.0 GiB" in caught.value.message
    assert [line.split() for line in caught.value.details] == [
        ["1.0", "GiB", "sets"],
        ["256.0", "MiB", "model.bin"],
        ["8", "B", "small.py"],
    ]


def test_a_bundle_leaves_nothing_behind_however_its_process_ends(tmp_path: Path) -> None:
    code = (
        "import os, signal; from orchestrator.node.bundle import build_bundle; "
        "b = build_bundle(None, builtin=False); assert b.read(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
