"""How the data sets of a run get onto its nodes: fetched from S3, or on a volume of their snapshot. Pure.

`run.sources` says what there is, `core.ways` what each way takes and which is the cheaper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.experiment import Data, Experiment
from orchestrator.core.plan import Plan
from orchestrator.core.units import format_size
from orchestrator.core.volumes import DEVICES, DataVolume, Snapshot
from orchestrator.core.ways import Choice, cheaper, ebs_way, stage_way
from orchestrator.errors import BadInput
from orchestrator.run.datasets import MEND
from orchestrator.run.sources import There

NO_SNAPSHOT = "it has no snapshot (`orch dataset snapshot` makes one)"
ASKED = "as the experiment says"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The experiment with the mode of every data set settled, the volumes that takes, and what was compared.

    `notes` are lines for the plan.
    """

    experiment: Experiment
    volumes: tuple[DataVolume, ...]
    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = ()


def check_room(experiment: Experiment, sizes: Mapping[str, int]) -> None:
    """Raise BadInput when what is fetched does not fit the disk."""
    room = experiment.resources.disk_size * 2**30
    if sum(sizes.values()) > room * 0.9:
        needed = format_size(sum(sizes.values()))
        raise BadInput(
            f"the data ({needed}) does not fit a disk of {experiment.resources.disk_size} GiB",
            "raise resources.disk_size",
        )


def choose(experiment: Experiment, there: Mapping[str, There], plan: Plan) -> Chosen:
    """Settle the modes; `there` is what `look` found. Raises BadInput for too many volumes."""
    settled = [_settle(name, data, there[name], experiment, plan) for name, data in experiment.data.items()]
    modes = {choice.data: choice.mode for choice, _ in settled}
    volumes = tuple(volume for choice, volume in settled if volume is not None and choice.mode == "ebs")
    if len(volumes) > len(DEVICES):
        raise BadInput(f"{len(volumes)} data sets would be on volumes of their own", f"at most {len(DEVICES)} can be")
    data = {name: item.model_copy(update={"mode": modes[name]}) for name, item in experiment.data.items()}
    shown = tuple(choice for choice, _ in settled if there[choice.data].version is not None)
    notes = tuple(
        f"data {name}: {experiment.data[name].source} {item.damage}; its snapshot is whole, and {MEND}"
        for name, item in there.items()
        if item.damage
    )
    return Chosen(experiment.model_copy(update={"data": data}), volumes, shown, notes)


def _settle(
    name: str, data: Data, there: There, experiment: Experiment, plan: Plan
) -> tuple[Choice, DataVolume | None]:
    offer, nodes = plan.offers[0], plan.num_nodes
    stage = stage_way(there.size, offer, nodes)
    if there.snapshot is None:
        why = ASKED if data.mode == "stage" else NO_SNAPSHOT
        return Choice(name, there.size, "stage", why, (stage,)), None
    volume = volume_of(name, there.snapshot)
    ebs = ebs_way(volume, offer, nodes, experiment.max_duration)
    if there.damage:
        why = ASKED if data.mode == "ebs" else "since its objects are damaged"
        return Choice(name, volume.bytes, "ebs", why, (ebs,)), volume
    mode, why = cheaper((stage, ebs)) if data.mode == "auto" else (data.mode, ASKED)
    return Choice(name, there.size, mode, why, (stage, ebs)), volume


def volume_of(name: str, snapshot: Snapshot) -> DataVolume:
    """Return the volume of a snapshot for the data set that the experiment calls `name`."""
    return DataVolume(name, snapshot.snapshot_id, snapshot.version, snapshot.size_gib, snapshot.bytes)
