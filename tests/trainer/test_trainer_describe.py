"""What `describe` says and draws is the schedule, for every table of every recipe; docs/recipes.md shows its output."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer import cli, describe, plot, recipes, schedule
from trainer.errors import TrainerError
from trainer.recipe import DataPhase, Ramp, Recipe

DOC = Path(__file__).parents[2] / "docs" / "recipes.md"
KEYS = {"epoch", "image_size", "batch_per_gpu", "global_batch", "lr", "momentum", "min_scale", "rect_val"}
TABLES = [
    recipes.find(name, scale, table.gpus)
    for name, scales in recipes.RECIPES.items()
    for scale, tables in scales.items()
    for table in tables
]
EVERY = pytest.mark.parametrize("recipe", TABLES, ids=lambda recipe: f"{recipe.name}-{recipe.scale}-{recipe.gpus}")


@EVERY
def test_json_holds_every_quarter_epoch_as_the_schedule_has_it(recipe: Recipe) -> None:
    printed = json.loads(json.dumps(describe.as_json(recipe)))
    assert [sample["epoch"] for sample in printed["samples"]] == [quarter / 4 for quarter in range(4 * recipe.epochs)]
    for sample in printed["samples"]:
        assert set(sample) == KEYS
        point = schedule.at(recipe, sample["epoch"])
        assert (sample["image_size"], sample["global_batch"]) == (point.size, point.batch)
        assert sample["batch_per_gpu"] * recipe.gpus == point.batch
        assert (sample["lr"], sample["momentum"]) == (point.lr, point.momentum)
        assert (sample["min_scale"], sample["rect_val"]) == (point.min_scale, point.rect_val)


@EVERY
def test_phases_in_json_follow_one_another_and_are_straight_lines_between_their_ends(recipe: Recipe) -> None:
    phases = describe.as_json(recipe)["phases"]
    edges = [phase["epochs"] for phase in phases]
    assert edges[0][0] == 0 and edges[-1][1] == recipe.epochs
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    for phase in phases:
        start, end = phase["epochs"]
        for tenth in range(10):
            point = schedule.at(recipe, start + (end - start) * tenth / 10)
            for value, (first, last) in ((point.lr, phase["lr"]), (point.momentum, phase["momentum"])):
                assert value == pytest.approx(first + (last - first) * tenth / 10, abs=1e-8)
            assert (point.size, point.batch) == (phase["image_size"], phase["global_batch"])


def test_a_ramp_that_ends_before_the_next_begins_makes_a_stretch_of_its_own() -> None:
    recipe = Recipe(
        name="x", scale="full", machines=1, gpus_per_machine=1, model="resnet18", epochs=4,
        data=(DataPhase(start=0, size=8, batch=1),), lr=(Ramp(0, 0.0, 1.5, 3.0), Ramp(3, 1.0)),
    )  # fmt: skip
    spans = [(part.start, part.end, part.first.lr, round(part.last.lr, 6)) for part in describe.stretches(recipe)]
    assert spans == [(0, 1.5, 0.0, 3.0), (1.5, 3, 3.0, 3.0), (3, 4, 1.0, 1.0)]


def test_the_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "imagenet18", "--nodes", "8", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["samples"][26] == {
        "epoch": 6.5, "image_size": 128, "batch_per_gpu": 256, "global_batch": 16384, "lr": 3.76,
        "momentum": 0.9, "min_scale": 0.08, "rect_val": False,
    }  # fmt: skip
    assert [phase["epochs"] for phase in printed["phases"]][:3] == [[0, 6], [6, 11], [11, 14]]


def test_the_command_prints_a_line_for_every_stretch(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "imagenet18", "--nodes", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["0-6", "6-16", "16-19", "19-31", "31-37", "37-38", "38-50"]
    assert lines[3].split()[1:] == ["128", "64", "8192", "1.88", "->", "3.76", "0.9", "0.08", "sz/160"]


def shown() -> list[tuple[str, str]]:
    """Return every command in the doc with the output below it."""
    blocks = DOC.read_text().split("```text\n$ ")[1:]
    found = [block.split("```")[0].partition("\n") for block in blocks]
    return [(command, output) for command, _, output in found]


@pytest.mark.parametrize(("command", "output"), shown(), ids=lambda text: text.splitlines()[0][:70])
def test_the_tables_in_the_doc_are_what_describe_prints(
    command: str, output: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program, arguments = command.split()[:3], command.split()[3:]
    assert program == ["python", "-m", "trainer"] and arguments[0] == "describe"
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == output


def test_the_doc_shows_every_full_table() -> None:
    titles = [output.splitlines()[0] for _, output in shown()]
    for recipe in TABLES:
        if recipe.scale == recipes.FULL:
            assert describe.title(recipe) in titles


@EVERY
def test_the_lines_drawn_are_the_schedule(recipe: Recipe) -> None:
    panels = plot.figure(recipe).axes
    assert [panel.get_ylabel().split("\n")[0] for panel in panels] == [
        "learning rate", "momentum", "image size", "global batch",
    ]  # fmt: skip
    for panel, value in zip(panels, plot.PANELS.values(), strict=True):
        epochs, values = np.asarray(panel.lines[0].get_data(), dtype=np.float64).tolist()
        assert (epochs[0], epochs[-1]) == (0, recipe.epochs)
        for left, right in zip(range(0, len(epochs), 2), range(1, len(epochs), 2), strict=True):
            for share in (0, 0.25, 0.75):
                epoch = epochs[left] + (epochs[right] - epochs[left]) * share
                drawn = values[left] + (values[right] - values[left]) * share
                assert drawn == pytest.approx(value(schedule.at(recipe, epoch)), rel=1e-6, abs=1e-9)


def test_a_picture_is_drawn_in_the_format_of_its_suffix(tmp_path: Path) -> None:
    recipe = recipes.find("cifar10-wrn", "full", 4)
    for name in ("plot.png", "plot.svg"):
        plot.draw(recipe, tmp_path / name)
    with Image.open(tmp_path / "plot.png") as picture:
        picture.load()
        assert picture.format == "PNG" and picture.width > 1000
        assert len(picture.convert("RGB").getcolors(2**24) or []) > 10
    assert "<svg" in (tmp_path / "plot.svg").read_text()[:1000]
    assert "</svg>" in (tmp_path / "plot.svg").read_text()


def test_the_command_draws_and_still_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "imagenet18", "--nodes", "4", "--plot", str(tmp_path / "course.png")]) == 0
    assert (tmp_path / "course.png").read_bytes().startswith(b"\x89PNG")
    assert "0-6" in capsys.readouterr().out
    assert cli.main(["describe", "imagenet18", "--plot", str(tmp_path / "course.gif")]) == 2
    assert capsys.readouterr().out == ""  # refused before anything is printed


@pytest.mark.parametrize("name", ["plot.gif", "plot", "missing/plot.png"])
def test_a_picture_that_cannot_be_is_refused_and_none_is_left(name: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="cannot"):
        plot.draw(recipes.find("cifar10-wrn", "full", 1), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_next_step_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TrainerError, match="plots need matplotlib") as refused:
        plot.draw(recipes.find("cifar10-wrn", "full", 1), tmp_path / "plot.png")
    assert "orch[plot]" in refused.value.hint
