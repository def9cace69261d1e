"""A run as a reader sees it: what `status`, `watch`, `cost` and reports show. Values only; `run.read` makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.core.beacon import Beacon
from orchestrator.core.bill import Bill
from orchestrator.core.caps import Spend, spend_of
from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import Facts
from orchestrator.core.forecast import work_of
from orchestrator.core.gang import Gang
from orchestrator.core.lasting import lasted
from orchestrator.core.ledger import LedgerState, Verdict
from orchestrator.core.outlook import outlook
from orchestrator.core.phase import ENDED, Phase
from orchestrator.core.preflight import Preflight, read_preflight
from orchestrator.core.spec import RunSpec
from orchestrator.core.timing import NodeStart, node_starts
from orchestrator.core.units import format_duration, iso, usd

# A scheduler holds a lease of some seconds; a run that is younger than this, or just changed hands, may have none yet.
UNATTENDED_AFTER = timedelta(seconds=45)


@dataclass(frozen=True, slots=True)
class NodeView:
    """One row of the live view. `stage` is a plain word: pending, booting, ready, staging, setup, running, done ..."""

    rank: int
    instance_id: str
    instance_type: str
    zone: str
    address: str | None
    state: str
    stage: str
    staged: int
    to_stage: int
    stage_rate: int
    exit_code: int | None
    step: int | None
    tail: tuple[str, ...]
    disk_free: int | None = None


def _how_exited(beacon: Beacon, gang: Gang) -> str:
    """Return how a training ended on its node: none has failed where one of its gang says that it saved and stopped."""
    if beacon.exit_code == 0:
        return "done"
    return "stopped" if any(b.stopped_step is not None for b in gang.beacons.values()) else "failed"


@dataclass(frozen=True, slots=True)
class RunView:
    """Everything known of a run at one moment.

    `metrics` holds the newest value of each figure of the progress lines (step, epoch, loss, top1, top5,
    images_per_second ...). `scheduler` is the owner of the lease, None when nobody holds it. `spec` has the caps in
    force; `launched` is the experiment as it was launched, None where that is not told.
    """

    spec: RunSpec
    ledger: LedgerState
    facts: Facts
    phase: Phase
    bill: Bill
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: tuple[Mapping[str, Any], ...] = ()
    scheduler: str | None = None
    ended_at: datetime | None = None
    launched: Experiment | None = None

    @property
    def verdict(self) -> Verdict | None:
        """How the current generation ends, once that is known."""
        return self.ledger.verdict

    @property
    def spend(self) -> Spend:
        """What it has cost, and what it costs a second now."""
        return spend_of(self.bill, self.facts)

    @property
    def outlook(self) -> str:
        """What the run waits for, "" when for nothing."""
        return outlook(self.spec, self.ledger, self.facts)

    @property
    def message(self) -> str:
        """How the generation ends, or what the run waits for, "" when neither; of an unattended run what to do."""
        if self.unattended:
            return f"no scheduler; {self.spec.build_command or f'`orch resume {self.spec.run_id}`'}"
        return self.outlook if self.verdict is None else self.verdict.message

    @property
    def unattended(self) -> bool:
        """Whether the run goes on and nobody schedules it, on whatever machine."""
        began = self.ledger.generation_began or self.spec.created
        old = self.facts.server_time - began >= UNATTENDED_AFTER
        return old and not self.ended and self.scheduler is None

    @property
    def rescue(self) -> str:
        """What to do about a run that goes on and that nobody schedules."""
        again = self.spec.build_command
        return f"{again} removes it and begins anew" if again else f"`orch resume {self.spec.run_id}` takes it over"

    @property
    def lasted(self) -> timedelta:
        """How long it has lasted, from its launch on."""
        return lasted(self.spec.created, self.ended_at, self.facts.server_time)

    @property
    def ended(self) -> bool:
        """Whether nothing of the run is left."""
        return self.phase in ENDED

    @property
    def nodes(self) -> tuple[NodeView, ...]:
        """The nodes of the current generation in order of rank; empty before anything was launched."""
        gang = Gang.of(self.ledger, self.facts)
        return tuple(self._node(gang, instance_id, rank) for instance_id, rank in gang.ranks.items())

    def _node(self, gang: Gang, instance_id: str, rank: int) -> NodeView:
        instance = gang.instances.get(instance_id)
        node = self.facts.nodes.get(instance_id)
        beacon = gang.beacons.get(instance_id)
        state: str = instance.state if instance else "unknown"
        if state != "running":
            stage = state
        elif beacon is not None:
            stage = beacon.stage if beacon.stage != "exited" else _how_exited(beacon, gang)
        else:
            stage = "ready" if node is not None and node.host_keys else "booting"
        step = beacon.progress.get("step") if beacon is not None and beacon.progress else None
        return NodeView(
            rank=rank,
            instance_id=instance_id,
            instance_type=instance.instance_type if instance else "",
            zone=instance.zone if instance else "",
            address=instance.private_ip if instance else None,
            state=state,
            stage=stage,
            staged=beacon.staged if beacon else 0,
            to_stage=beacon.to_stage if beacon else 0,
            stage_rate=beacon.stage_rate if beacon else 0,
            exit_code=beacon.exit_code if beacon else None,
            step=step if isinstance(step, int) else None,
            tail=beacon.tail if beacon else (),
            disk_free=beacon.disk_free if beacon else None,
        )

    @property
    def starts(self) -> tuple[NodeStart, ...]:
        """From the launch to the first step, of every start on every node that told of it."""
        return node_starts(self.spec.created, self.ledger, self.facts)

    @property
    def preflight_notes(self) -> tuple[str, ...]:
        """What the checks before the training say of the current gang as a whole: it trains, but is slow, say."""
        said = (read_preflight(b.preflight) for b in Gang.of(self.ledger, self.facts).beacons.values())
        return next((made.notes for made in said if made is not None and made.notes), ())

    @property
    def preflights(self) -> list[dict[str, Any]]:
        """What was found of each node before the training, replaced ones included, as rows of plain JSON values."""
        said = [(i, node.beacon) for i, node in self.facts.nodes.items() if node.beacon is not None]
        found = [(i, beacon, read_preflight(beacon.preflight)) for i, beacon in said]
        unfit = {
            (b.generation, rank): why for _, b, made in found if made is not None for rank, why in made.unfit.items()
        }
        # A node that is slow, or cut off, may never hear of itself what the others, soon restarted, said of it; a
        # frozen one tells nothing at all.
        ended = [(self.ledger.ended_by(item), item.unfit) for item in self.ledger.recoveries]
        named = {
            (state.generation, instance_id): (rank, why)
            for state, known in [*ended, (self.ledger, {})]
            for instance_id, rank in Gang.of(state, self.facts).ranks.items()
            if (why := known.get(instance_id) or unfit.get((state.generation, rank)))
        }
        told = {(b.generation, i): (b.rank, made) for i, b, made in found if made is not None}
        rows = {key: (rank, Preflight()) for key, (rank, _) in named.items()} | told
        return [
            {"instance_id": instance_id, "rank": rank, "generation": generation}
            | made.to_json()
            | {"unfit": named.get((generation, instance_id), (0, unfit.get((generation, rank))))[1]}
            for (generation, instance_id), (rank, made) in sorted(rows.items(), key=lambda row: (row[0][0], row[1][0]))
        ]

    def summary(self) -> dict[str, Any]:
        """Return the run's row of `orch status --json`."""
        cap = self.spec.experiment.max_cost_micro
        return {
            "run_id": self.spec.run_id,
            "name": self.spec.name,
            "phase": self.phase,
            "num_nodes": self.spec.num_nodes,
            "min_nodes": self.spec.min_nodes,
            "started": iso(self.spec.created),
            "ended": iso(self.ended_at) if self.ended_at else None,
            "spot_usd": usd(self.bill.high),
            "on_demand_usd": usd(self.bill.on_demand),
            "max_cost_usd": None if cap is None else usd(cap),
            "max_duration": format_duration(self.spec.experiment.max_duration),
            "metrics": dict(self.metrics),
            "cloud": self.spec.cloud,
            "generation": self.ledger.generation,
            "scheduler": self.scheduler,
            "unattended": self.unattended,
            "message": self.message,
        }

    def report(self) -> dict[str, Any]:
        """Return `report.json`: the summary, the verdict, the nodes, their starts and the whole bill."""
        return self.summary() | {
            "work": work_of(self.spec.experiment),
            "verdict": self.verdict.to_json() if self.verdict else None,
            "instances": [item.to_json() for item in self.facts.instances],
            "preflight": self.preflights,
            "cap_changes": [item.to_json() for item in self.ledger.cap_changes],
            "timing": [item.to_json() for item in self.starts],
            "bill": self.bill.to_json(),
        }
