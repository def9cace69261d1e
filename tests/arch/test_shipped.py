"""The experiments that come with orch start recipes the trainer has, on as many ranks as a table is written for."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.core import recipe as recipe_of
from orchestrator.core.overrides import load
from trainer import recipes

FOLDER = Path(__file__).parents[2] / "orchestrator" / "experiments"
RECIPES = Path(__file__).parents[2] / "ami"


@pytest.mark.parametrize("profile", [None, "sandbox"])
@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_starts_a_recipe_as_it_was_written(file: Path, profile: str | None) -> None:
    experiment = load(file.read_bytes(), file.stem, profile=profile)
    started = re.fullmatch(
        r"torchrun \$ORCH_TORCHRUN_ARGS -m trainer (\S+) --data \$ORCH_DATA_DIR/(\w+)(?: --scale (\w+))?",
        experiment.run,
    )
    assert started is not None
    name, mount, scale = started.groups(recipes.FULL)
    assert (scale, set(experiment.data)) == (profile or recipes.FULL, {mount})
    assert experiment.procs_per_node is not None
    assert recipes.find(name, scale, experiment.num_nodes * experiment.procs_per_node).rule == ""


@pytest.mark.parametrize("profile", [None, "sandbox"])
@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_each_machine_image_is_tried_by_what_the_trainer_needs(file: Path, profile: str | None) -> None:
    recipe = recipe_of.load(file.read_bytes(), file.stem, profile)
    assert recipe.name == file.stem
    checks = recipe.check("ami-1")
    assert checks.device == ("cpu" if profile else "cuda")
    assert "torchrun $ORCH_TORCHRUN_ARGS -m trainer.selftest" in checks.run
    assert profile == "sandbox" or "python3-boto3" in recipe.bootstrap, "without it no node can boot"
    for text in (recipe.build("ami-1").run, checks.run, recipe.bootstrap):
        subprocess.run(["bash", "-n"], input=text.encode(), check=True)
