"""Uniform progress: spot or on-demand, by how far a run is and how much of its time is left. Pure.

The rule is that of "Can't Be Late" (Wu et al., NSDI 2024), for a gang; docs/reliability.md states it. Expected progress
is the line from nothing at the start to all of the work at the deadline. Ahead of it only spot is asked for, behind it
spot and then on-demand. When the time left is just the work left and two switches, on-demand comes first. Spot that is
held is never given up for on-demand: it may last.
"""

from __future__ import annotations

from datetime import timedelta

from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import Lifecycle

BOOT_ALLOWANCE = timedelta(minutes=4)
# What another launch costs in time: machines that boot, and a training that loads its checkpoint.
SWITCH = BOOT_ALLOWANCE + timedelta(minutes=1)
AHEAD: tuple[Lifecycle, ...] = ("spot",)
BEHIND: tuple[Lifecycle, ...] = ("spot", "on-demand")
TIGHT: tuple[Lifecycle, ...] = ("on-demand", "spot")


def by_deadline(experiment: Experiment, done: float, elapsed: timedelta) -> tuple[Lifecycle, ...] | None:
    """Return what a run asks for that has done a share of its work after so long; None where no deadline decides."""
    work = experiment.expected_duration
    if experiment.spot_policy != "auto" or not experiment.resources.use_spot or work is None:
        return None
    deadline = experiment.max_duration - experiment.checkpoint_grace
    if work * (1 - done) + 2 * SWITCH >= deadline - elapsed:
        return TIGHT
    return BEHIND if done * deadline < elapsed else AHEAD
