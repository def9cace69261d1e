"""What an experiment needs of the machine it is launched from: its secrets, its folder. Only looks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.core.experiment import Experiment
from orchestrator.core.units import counted
from orchestrator.errors import BadInput
from orchestrator.node.bundle import Bundle, build_bundle


def fault_of_secret(name: str, environ: Mapping[str, str]) -> str:
    """Return what is wrong with a secret here, "" when nothing is."""
    return "" if environ.get(name) else f"{name} is not set in your environment"


def fault_of_workdir(workdir: str, folder: Path) -> str:
    """Return what is wrong with a workdir, relative to `folder`, "" when nothing is."""
    found = (folder / workdir).resolve()
    return "" if found.is_dir() else f"{found} is not a folder"


def bundle_and_secrets(
    experiment: Experiment, folder: Path, environ: Mapping[str, str], *, source: str, builtin: bool
) -> tuple[Bundle, dict[str, str]]:
    """Return the code that nodes get and the values of the secrets; `folder` is what `workdir` is relative to.

    `builtin` experiments without a workdir bring the trainer. Raises BadInput with every fault of `source`.
    """
    missing = (fault_of_secret(name, environ) for name in experiment.secrets)
    faults = [f"secrets: {fault}" for fault in missing if fault]
    workdir, bundle = experiment.workdir, None
    if workdir is not None and (fault := fault_of_workdir(workdir, folder)):
        faults.append(f"workdir: {fault}")
    else:
        try:
            where = None if workdir is None else (folder / workdir).resolve()
            bundle = build_bundle(where, builtin=builtin and workdir is None)
        except BadInput as error:
            faults += [f"workdir: {error.message}", *(f"workdir: {line}" for line in error.details)]
    if faults or bundle is None:
        raise BadInput(f"{source}: {counted(len(faults), 'fault')}", "nothing was launched", details=tuple(faults))
    return bundle, {name: environ[name] for name in experiment.secrets}
