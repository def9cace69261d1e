"""What ran out when a training failed: told from its last words, the kernel's count, and the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.agent.trouble import BYTES, count_oom_kills, find_trouble, free_bytes, read_end

ROOM = 10**9
# As torchrun 2.13 prints it; the process that it ended itself is told first.
TABLE = """
Failures:
[1]:
  rank      : 0 (local_rank: 0)
  exitcode  : {other} (pid: 16734)
  traceback : Signal received by PID 16734
-------------------------------------------------------
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 1)
  exitcode  : {first} (pid: 16735)
=======================================================
"""


@pytest.mark.parametrize(
    ("said", "code", "trouble"),
    [
        ("ValueError: no", 1, None),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has", 1, "gpu-memory"),
        ("OSError: [Errno 28] No space left on device: 'x'\n" + TABLE.format(other="-15", first="1"), 1, "disk"),
        ("dd: error writing 'big': No space left on device", 1, "disk"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", 1, "memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", 134, "memory"),
        ("epoch 3", 137, "killed"),
        ("RuntimeError: DataLoader worker (pid 17) is killed by signal: Killed. ", 1, "killed"),
        (TABLE.format(other="-15", first="-9"), 1, "killed"),
        (TABLE.format(other="-9", first="1"), 1, None),
        ("epoch 3", 143, None),
    ],
)
def test_the_last_words_say_what_ran_out(said: str, code: int, trouble: str | None) -> None:
    assert find_trouble(said, code, 0, ROOM) == trouble


def test_a_kill_is_one_for_memory_where_the_kernel_counted_one() -> None:
    assert find_trouble("epoch 3", 137, 1, ROOM) == "memory"
    assert find_trouble("epoch 3", None, 1, ROOM) == "memory"
    assert find_trouble("epoch 3", None, 0, ROOM) is None, "it vanished, and nobody knows why"
    assert find_trouble("ValueError: no", 1, 1, ROOM) is None, "some other process of the machine"


def test_a_full_disk_needs_no_words() -> None:
    assert find_trouble("", None, 0, 0) == "disk"


def test_a_real_allocation_that_fails_and_a_real_device_without_room_are_recognised() -> None:
    hungry = f"ulimit -v 400000; exec {sys.executable} -c 'bytearray(10**10)'"
    for command, trouble in ((hungry, "memory"), ("cp /etc/hostname /dev/full", "disk")):
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert find_trouble(done.stderr, done.returncode, 0, ROOM) == trouble


def test_the_kernels_count_is_read_where_it_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "vmstat"
    assert count_oom_kills(file) == 0
    file.write_text("nr_free_pages 12\noom_kill 3\ndrop_slab 0\n")
    assert count_oom_kills(file) == 3
    file.write_text("nr_free_pages 12\n")
    assert count_oom_kills(file) == 0
    assert count_oom_kills() >= 0
    assert free_bytes(tmp_path) > 0


def test_only_the_end_of_a_long_output_is_read(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert read_end(log) == ""
    log.write_bytes(b"x" * BYTES + b"\xffend")
    assert read_end(log).endswith("end")
    assert len(read_end(log)) == BYTES
