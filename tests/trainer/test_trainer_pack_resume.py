from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

from tests.trainer.pictures import folders
from trainer.data import pack
from trainer.data.journal import FILE, Journal
from trainer.data.progress import Progress
from trainer.errors import INTERRUPTED

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_killed_at_any_moment_it_goes_on_and_the_result_is_the_same_to_the_byte(tmp_path: Path) -> None:
    source = folders(tmp_path / "source", 15, 6)
    (source / "train/n01/train_0010.JPEG").write_bytes(b"corrupt")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killed.py"), source, tmp_path / "made"],
        env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    *killed, whole = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(killed) == 11  # the plan, each of three shards in two sizes and in the journal, dataset.json
    for moment, line in enumerate(killed):
        assert line == {"died": True, "begun": True, "nobody": True, "code": 0, "alike": True}, moment
    assert whole == {"died": False, "begun": False, "nobody": True, "code": 0, "alike": True}


def test_killed_from_outside_it_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    """Wherever it is by then; its children hold its stdout, which ends with the last of them."""
    source = folders(tmp_path / "source", 700, 20)
    command = [sys.executable, "-m", "trainer", "pack", str(source), str(tmp_path / "packed"), "--sizes", "24"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGKILL)
        assert "images/s" in lines[1]
        process.stdout.read()
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    assert pack.is_complete(tmp_path / "packed")
    assert len(pack.open_split(tmp_path / "packed/sz/24/train")) == 700


def test_ctrl_c_ends_it_in_one_line_and_it_needs_no_torch(tmp_path: Path) -> None:
    """The whole group of processes gets the signal, as from a terminal: one writes, ten shrink, one idles."""
    slow = (
        "import sys, time; from trainer import cli; from trainer.data import picture, shards; shards.SIZE = 20\n"
        "copies = picture.copies; picture.copies = lambda *a: (time.sleep(len(a[0]) > 10**5 and 1.0), copies(*a))[1]\n"
        "code = cli.main(['pack', *sys.argv[1:], '--sizes', '24', '--processes', '12'])\n"
        "sys.exit(code + ('torch' in sys.modules))"
    )
    source = folders(tmp_path / "source", 200, 20, classes=1)
    for image in sorted(source.glob("*/*/*"))[20:]:
        image.write_bytes(image.read_bytes() + bytes(10**5))
    with subprocess.Popen(
        [sys.executable, "-c", slow, str(source), str(tmp_path / "packed")],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        while "images/s" not in process.stdout.readline():
            pass
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
    assert said.splitlines() == ["error: interrupted", "  the same command goes on where it was"]
    assert process.returncode == INTERRUPTED


def test_a_full_disk_is_said_in_one_line_and_what_is_packed_is_kept(tmp_path: Path) -> None:
    """The disk is full for this process alone: files may not grow beyond a size."""
    source = folders(tmp_path / "source", 600, 20)
    command = [sys.executable, "-m", "trainer", "pack", str(source), str(tmp_path / "packed"), "--sizes", "24"]
    first = sum(path.stat().st_size for path in sorted((source / "train/n00").iterdir()))
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2 * first, 2 * first)),
    )  # fmt: skip
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error == f"error: cannot write {tmp_path / 'packed'}: File too large"
    assert hint == "  mend it and start again: what is packed is kept"
    assert not (tmp_path / "packed" / pack.DATASET).exists()
    again = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert "256 of 620 images are packed already, going on" in again.stdout
    assert pack.is_complete(tmp_path / "packed")


def test_a_journal_is_of_one_plan_and_holds_whole_lines_only(tmp_path: Path) -> None:
    Journal(tmp_path, {"name": "some"}).close()
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'["train",1,[[0,1,2,3,4]],[]]\n["train",1,[[0,1')
    journal = Journal(tmp_path, {"name": "some"})
    assert [(shard.split, shard.rows.tolist()) for shard in journal.shards] == [("train", [[0, 1, 2, 3, 4]])]
    journal.close()
    assert (tmp_path / FILE).read_bytes().endswith(b"4]],[]]\n")


@pytest.mark.parametrize("total", [1, 7, 100, 5000])
def test_where_lines_stay_there_are_twenty_at_most(total: int) -> None:
    stream = StringIO()
    progress = Progress(stream, total, 0)
    for done in range(1, total + 1):
        progress.at(done, 0)
    lines = stream.getvalue().splitlines()
    assert len(lines) == min(total, 20)
    assert lines[-1].startswith(f"{total:,} of {total:,} images · ") and "left" not in lines[-1]


def test_on_a_terminal_a_line_is_written_anew_and_what_is_said_stays() -> None:
    stream = Terminal()
    progress = Progress(stream, 1000, 500)
    progress.at(501, 0)
    progress.say("left out: some")
    progress.at(502, 1)
    progress.at(1000, 1)
    text = stream.getvalue()
    assert text.count("\n") == 2 and text.endswith("1 corrupt\n")
    lines = [line.rpartition("\r\x1b[K")[2] for line in text.split("\n")]
    assert lines[0] == "left out: some"
    assert lines[1].startswith("1,000 of 1,000 images · ")
