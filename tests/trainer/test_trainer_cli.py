from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trainer import cli, contract
from trainer.data import pack
from trainer.errors import TrainerError
from trainer.events import Console, Progress


def run(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as ended:  # how argparse ends
        return int(str(ended.code))


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["imagenet19", "--data", "."],
        ["imagenet18"],
        ["imagenet18", "--data", "/nowhere"],
        ["imagenet18", "--data", ".", "--scale", "huge"],
        ["imagenet18", "--data", ".", "--epochs", "0"],
        ["imagenet18", "--data", ".", "--epochs", "two"],
        ["imagenet18", "--data", ".", "--checkpoint-seconds", "nan"],
        ["imagenet18", "--data", ".", "--table", "3"],
        ["digits", "/dev/null/digits"],
    ],
)
def test_what_makes_no_sense_ends_in_one_line_and_exit_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert len([line for line in said.splitlines() if "error: " in line]) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (
            ["imagenet18", "--epochs", "0", "--scale", "huge", "--seed=x", "--wrong", "1"],
            [
                "--epochs: must",
                "--scale: invalid",
                "--seed: 'x'",
                "one of the arguments --data",
                "unrecognized arguments",
            ],
        ),
        (["describe", "imagenet19", "--nodes", "none"], ["recipe: invalid choice", "--nodes: 'none'"]),
        (["pack", "--quality", "99"], ["--quality: must be at most 95", "arguments are required: SRC, DST"]),
        (["imagenet18", "--epochs", "0", "--seed"], ["--epochs: must", "--seed: expected one argument"]),
        (["imagenet19", "--epochs", "0"], ["COMMAND: invalid choice"]),
    ],
)
def test_all_that_makes_no_sense_is_said_at_once_a_line_each(
    arguments: list[str], faults: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    said = [line.partition("error: ")[2] for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert [fault in line for fault, line in zip(faults, said, strict=True)] == [True] * len(faults)


def test_a_data_set_without_the_resized_copies_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / pack.DATASET).write_text(json.dumps({"name": "x", "classes": 10}))
    assert run("imagenet18", "--data", str(tmp_path), "--table", "16") == 2
    assert f"no packed images in {tmp_path / 'sz/160/train'}" in capsys.readouterr().err


def test_more_ranks_than_images_are_refused(
    stripes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "401")
    assert run("imagenet18", "--data", str(stripes), "--scale", "sandbox") == 2
    assert "401 ranks cannot share 400 images" in capsys.readouterr().err


def test_describing_and_refusing_need_no_torch() -> None:
    script = (
        "import sys; from trainer.cli import main; main(['describe', 'imagenet18']); import trainer.data.digits; "
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=root, check=True, capture_output=True)


def test_without_orch_everything_lies_in_the_current_folder() -> None:
    node = contract.read({})
    assert (node.rank, node.world, node.nodes, node.device) == (0, 1, 1, "auto")
    assert [str(p) for p in (node.checkpoints, node.progress, node.stop)] == ["checkpoints", "progress.jsonl", "stop"]


def test_nodes_are_counted_from_torchruns_names_where_orch_says_nothing() -> None:
    torchrun = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "RANK": "9", "LOCAL_RANK": "1"}
    assert contract.read(torchrun).nodes == 2
    assert contract.read(torchrun | {"ORCH_NUM_NODES": "4"}).nodes == 4


@pytest.mark.parametrize(("name", "value"), [("RANK", "first"), ("ORCH_DEVICE", "tpu")])
def test_an_environment_that_makes_no_sense_is_refused(name: str, value: str) -> None:
    with pytest.raises(TrainerError, match=name):
        contract.read({name: value})


def test_every_progress_line_has_all_fields_and_a_torn_one_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "progress.jsonl"
    Progress(file).write("start", step=0)
    with file.open("a") as torn:
        torn.write('{"time": 1, "st')
    progress = Progress(file)
    progress.write(step=5, loss=1.5, extra="x")
    progress.write("stopped", step=6)
    first, broken, step, stopped = file.read_text().splitlines()
    assert broken == '{"time": 1, "st'
    for line in (first, step, stopped):
        assert {"time", *Progress.FIELDS} <= json.loads(line).keys()
    assert json.loads(step)["extra"] == "x"
    assert (json.loads(stopped)["event"], json.loads(stopped)["loss"], "extra" in stopped) == ("stopped", 1.5, False)


def test_only_with_several_ranks_lines_name_theirs(capsys: pytest.CaptureFixture[str]) -> None:
    Console(0, 1).say("one")
    Console(3, 4).say("two")
    assert capsys.readouterr().out == "one\n[rank 3] two\n"
