"""From what the user typed to a checked experiment: a name or path, the cloud's profile, and what flags lay over it."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.faults import faults_of
from orchestrator.core.units import listed
from orchestrator.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.core.experiment import Experiment
    from orchestrator.run.prepare import Source

BUILT_IN = Path(__file__).parent.parent / "experiments"
FOLDER = Path("experiments")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
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


def load_experiment(
    text: str, cloud: str | None, given: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Return the experiment that `text` means with the profile named like the cloud, `--set` and the flags over it.

    Opens nothing but the file. With `environ` it is to be launched from here: secrets must be in it, the workdir there.
    Raises BadInput: no such experiment, or every fault of the file, profiles, flags and this machine.
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
    source = Source(name, None if built_in else file, profile)
    here = None if environ is None else partial(_fault_here, environ, source.folder)
    experiment = load(body, name, profile=profile, sets=sets, flags=flags, here=here)
    if profile is None:
        return Loaded(experiment, source)
    changed = explain(body, name, profile, sets=sets, flags=flags)
    return Loaded(experiment, source, tuple(f"profile {profile}: {change}" for change in changed))


def _fault_here(environ: Mapping[str, str], folder: Path, key: str, value: str) -> str:
    from orchestrator.run.here import fault_of_secret, fault_of_workdir

    return fault_of_secret(value, environ) if key == "secrets" else fault_of_workdir(value, folder)


def experiment_faults(params: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the experiment that a command names, for `AllFaults`: nothing where none is named."""
    from orchestrator.cli.context import open_home, wanted

    if not params["experiment"]:
        return []
    try:
        load_experiment(params["experiment"], wanted(open_home(), params["cloud"]), params, environ=os.environ)
    except BadInput as error:
        return faults_of(error)
    return []


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
    raise BadInput(f"there is no experiment {text!r}", f"{meant}{listed(names)}; or give a YAML file")


def names_here() -> list[str]:
    """Return the names of the experiments that come with orch and of those in ./experiments."""
    folders = (BUILT_IN, FOLDER)
    return sorted({file.stem for folder in folders for suffix in SUFFIXES for file in folder.glob(f"*{suffix}")})


def _count(value: str | None) -> int | str | None:
    """Return a count as a number; anything else is left to the rules of the file, which say what is wrong with it."""
    return int(value) if value is not None and _WHOLE.fullmatch(value) else value
