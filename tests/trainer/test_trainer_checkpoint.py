from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from trainer import checkpoint

META = {"epoch": 1}


def state(value: float) -> dict[str, Any]:
    return {"network": {"weight": torch.full((3,), value)}, "scaler": {}}


def fail(step: int, error: Exception) -> None:
    raise AssertionError(f"{step}: {error!r}")


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "new", 12, state(7), META)
    loaded = checkpoint.newest(tmp_path / "new", fail)
    assert loaded is not None
    assert (loaded.step, loaded.meta) == (12, META)
    assert loaded.state["network"]["weight"].tolist() == [7, 7, 7]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["12"]


def test_a_write_that_breaks_off_leaves_no_checkpoint(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 5, state(5), META)
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoint.write(tmp_path, 6, state(6), {"epoch": object()})
    assert checkpoint.steps(tmp_path) == [5]
    checkpoint.prune(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["5"]


def test_the_newest_is_by_number_and_other_names_do_not_count(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        checkpoint.write(tmp_path, step, state(step), META)
    for name in (".tmp-900", "latest", "200.part", "0300", "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "300").write_text("a file")
    assert checkpoint.steps(tmp_path) == [100, 20, 9]


def test_one_that_cannot_be_read_is_passed_over_and_named(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, state(1), META)
    checkpoint.write(tmp_path, 2, state(2), META)
    body = (tmp_path / "2" / checkpoint.STATE).read_bytes()
    (tmp_path / "2" / checkpoint.STATE).write_bytes(body[: len(body) // 2])
    passed: list[int] = []
    loaded = checkpoint.newest(tmp_path, lambda step, error: passed.append(step))
    assert loaded is not None and loaded.step == 1
    assert passed == [2]


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "nowhere", fail) is None


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 4, state(1), META)
    checkpoint.write(tmp_path, 4, state(2), META)
    loaded = checkpoint.newest(tmp_path, fail)
    assert loaded is not None and loaded.state["network"]["weight"][0] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4"]


def test_the_writer_tells_of_each_and_keeps_the_newest_three(tmp_path: Path) -> None:
    written: list[int] = []
    writer = checkpoint.Writer(tmp_path, written.append)
    for step in (1, 2, 3, 4, 5):
        writer.submit(step, state(step), META)
    writer.wait()
    assert written == [1, 2, 3, 4, 5]
    assert checkpoint.steps(tmp_path) == [5, 4, 3]


def test_what_goes_wrong_on_the_writers_thread_reaches_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    writer = checkpoint.Writer(tmp_path / "file", lambda step: None)
    writer.submit(1, state(1), META)
    with pytest.raises(OSError):
        writer.wait()
    writer.wait()


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (print, ("code ran",))

    checkpoint.write(tmp_path, 1, {"network": Trap()}, META)
    passed: list[int] = []
    assert checkpoint.newest(tmp_path, lambda step, error: passed.append(step)) is None
    assert passed == [1]
