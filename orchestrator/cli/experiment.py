"""From what the user typed to a checked experiment: a name or path, the cloud's profile, and what flags lay over it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.core.experiment import Experiment
    from orchestrator.run.prepare import Source

BUILT_IN = Path(__file__).parent.parent / "experiments"
FOLDER = Path("experiments")
SUFFIXES = (".yaml", ".yml")
# What the options of `launch` and `plan` are called in an experiment file.
FLAGS = {
    "nodes": "num_nodes",
    "name": "name",
    "max_cost": "max_cost",
    "max_duration": "max_duration",
    "spot_policy": "spot_policy",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A checked experiment, where it came from, and a line for each key that the profile of the cloud changed."""

    experiment: Experiment
    source: Source
    changes: tuple[str, ...] = ()


def load_experiment(text: str, cloud: str | None, given: Mapping[str, Any]) -> Loaded:
    """Return the experiment that `text` means with the profile named like the cloud, `--set` and the flags over it.

    Opens nothing but the file. Raises BadInput: no such experiment, or every fault of the file, profiles and flags.
    """
    from orchestrator.core.overrides import explain, load, profile_names
    from orchestrator.run.prepare import Source

    file, built_in = find_file(text)
    name = file.stem if built_in else str(file)
    try:
        body = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}", "check the path and its permissions") from error
    flags = {key: given.get(option) for option, key in FLAGS.items()}
    flags["num_nodes"] = _count(flags["num_nodes"])
    sets = tuple(given.get("sets", ()))
    wanted = cloud or "aws"
    profile = wanted if wanted in profile_names(body, name) else None
    experiment = load(body, name, profile=profile, sets=sets, flags=flags)
    source = Source(name, None if built_in else file, profile)
    if profile is None:
        return Loaded(experiment, source)
    changed = explain(body, name, profile, sets=sets, flags=flags)
    return Loaded(experiment, source, tuple(f"profile {profile}: {change}" for change in changed))


def find_file(text: str) -> tuple[Path, bool]:
    """Return the file of an experiment and whether it came with orch. A name is looked up there, then in ./experiments.

    Raises BadInput naming what there is.
    """
    if "/" not in text and not text.endswith(SUFFIXES):
        for suffix in SUFFIXES:
            if (BUILT_IN / f"{text}{suffix}").is_file():
                return BUILT_IN / f"{text}{suffix}", True
            if (FOLDER / f"{text}{suffix}").is_file():
                return (FOLDER / f"{text}{suffix}").absolute(), False
    if Path(text).is_file():
        return Path(text).absolute(), False
    if Path(text).is_dir():
        raise BadInput(f"{text} is a folder", "give the YAML file of an experiment in it")
    names = names_here()
    near = difflib.get_close_matches(text, names, n=1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise BadInput(f"there is no experiment {text!r}", f"{meant}there are: {', '.join(names)}; or give a YAML file")


def names_here() -> list[str]:
    """Return the names of the experiments that come with orch and of those in ./experiments."""
    folders = (BUILT_IN, FOLDER)
    return sorted({file.stem for folder in folders for suffix in SUFFIXES for file in folder.glob(f"*{suffix}")})


def _count(value: str | None) -> int | str | None:
    """Return a count as a number; anything else is left to the rules of the file, which say what is wrong with it."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 7 else value
