"""A run told in plain lines, for pipes and logs: one for each thing that changed. Pure; keeps what it said last."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.core.caps import Near, warnings
from orchestrator.core.units import counted, format_duration
from orchestrator.report import figures
from orchestrator.report.text import clean
from orchestrator.run.view import RunView

TRAINING_INTERVAL = timedelta(seconds=10)
STAGE_INTERVAL = timedelta(seconds=2)
# One that ends lets go of the run a moment before readers see that the run is over.
UNATTENDED_FOR = timedelta(seconds=5)


class Narrator:
    """Turns each reading of a run into the lines that are new. Times are the cloud's, not this machine's."""

    def __init__(self) -> None:
        self._phase = ""
        self._attempts = 0
        self._recoveries = 0
        self._outlook = ""
        self._generation = 0
        self._stages = self._counts = ""
        self._stages_time: datetime | None = None
        self._step: object = None
        self._epoch: object = None
        self._training_time: datetime | None = None
        self._watch = Attendance()
        self._warned = False
        self._caps: set[str] = set()
        self._low = False
        self._noted: set[str] = set()

    def tell(self, view: RunView) -> list[str]:
        """Return what there is to say, each line with its time; nothing when nothing changed."""
        said = [*self._news(view), *self._stage_news(view), *self._training_news(view)]
        stamp = f"{view.facts.server_time:%H:%M:%S}"
        return [f"{stamp}  {line}" for line in said]

    def _news(self, view: RunView) -> list[str]:
        lost = recoveries(view)
        said = lost[self._recoveries :]
        self._recoveries = len(lost)
        if view.ledger.generation != self._generation:
            self._generation, self._attempts = view.ledger.generation, 0
        tried = attempts(view)
        said += tried[self._attempts :]
        self._attempts = len(tried)
        ahead = view.outlook
        said += [ahead] if ahead and ahead != self._outlook else []
        self._outlook = ahead
        if view.phase != self._phase:
            self._phase = view.phase
            cost = f"  {figures.dollars(view.bill)}" if view.bill.instances else ""
            said.append(f"{view.phase}: {figures.where(view)}{cost}")
        near = [item for item in cap_warnings(view) if item.key not in self._caps]
        self._caps |= {item.key for item in near}
        said += [item.text for item in near]
        fresh = [line for line in gang_notes(view) if line not in self._noted]
        self._noted |= {*fresh}
        said += fresh
        alone = self._watch.warning(view)
        if alone and not self._warned:
            said.append(alone)
        self._warned = bool(alone)
        low = figures.low_disks(view)
        if low and not self._low:
            said.append(low)
        self._low = bool(low)
        return said

    def _stage_news(self, view: RunView) -> list[str]:
        """Tell the stages of all nodes in one line, at most every `STAGE_INTERVAL` unless the gang is of one mind."""
        counts = figures.stage_counts(view.nodes)
        text = ", ".join(f"{count} {stage}" for stage, count in counts)
        progress = figures.staged(view.nodes)
        moved, self._counts = text != self._counts, text
        text = f"{text}  {progress}" if progress else text
        now = view.facts.server_time
        recent = self._stages_time is not None and now - self._stages_time < STAGE_INTERVAL
        if not text or text == self._stages or (recent and (len(counts) > 1 or not moved)):
            return []
        self._stages, self._stages_time = text, now
        return [f"nodes: {text}"]

    def _training_news(self, view: RunView) -> list[str]:
        step, epoch = view.metrics.get("step"), view.metrics.get("epoch")
        if not view.metrics or (step, epoch) == (self._step, self._epoch):
            return []
        now = view.facts.server_time
        due = self._training_time is None or now - self._training_time >= TRAINING_INTERVAL
        if not (due or epoch != self._epoch or view.ended):
            return []
        self._step, self._epoch, self._training_time = step, epoch, now
        return [f"{figures.training(view.metrics)}  {figures.dollars(view.bill)}"]


class Attendance:
    """Notices that nobody schedules a run, once that has lasted."""

    def __init__(self) -> None:
        self._since: datetime | None = None

    def warning(self, view: RunView) -> str:
        """Return what to do about a run that nobody looks after, "" while somebody does or it may be for a moment."""
        alone = unattended(view)
        if not alone:
            self._since = None
            return ""
        self._since = self._since or view.facts.server_time
        return alone if view.facts.server_time - self._since >= UNATTENDED_FOR else ""


def attempts(view: RunView) -> list[str]:
    """Return one line for each place that refused the gang in this generation, in the order they were tried."""
    said = []
    for launch in view.ledger.current:
        if launch.status is None or launch.status == "launched":
            continue
        offer = view.spec.offers[launch.offer]
        why = f"{launch.status.replace('-', ' ')} ({launch.code})" if launch.code else launch.status.replace("-", " ")
        said.append(f"{offer.instance_type} {offer.lifecycle} in {offer.zone}: {clean(why)}")
    return said


def recoveries(view: RunView) -> list[str]:
    """Return one line for each loss or failure that was answered since the run was launched or resumed, in order."""
    said = []
    for item in view.ledger.recoveries:
        stay = f"{len(item.kept)} of {counted(item.size, 'node')} stay" if item.kept else "the gang moves"
        if item.kind == "grown":
            stay = f"the gang grows from {item.size} to {len(item.kept)} nodes"
        said.append(f"{clean(item.cause)}; {stay}, generation {item.generation + 1}")
    return said


def cap_warnings(view: RunView) -> tuple[Near, ...]:
    """Return the caps of a run that are near, as its money and its time stand."""
    return () if view.ended else warnings(view.spec, view.ledger, view.bill.high, view.facts.server_time)


def gang_notes(view: RunView) -> list[str]:
    """Return what was found of the gang as a whole before its training, while the run goes on."""
    return [] if view.ended else [f"preflight: {clean(note)}" for note in view.preflight_notes]


def unattended(view: RunView) -> str:
    """Return what to do when nobody schedules a run that goes on, "" when there is no such need."""
    if not view.unattended:
        return ""
    return f"no scheduler looks after this run: {view.rescue}"


def summary(view: RunView) -> str:
    """Return how a run ended, in one line without its reason."""
    cost = f": {figures.dollars(view.bill)}" if view.bill.instances else ""
    return f"{view.spec.run_id} {view.phase} after {format_duration(view.lasted)}{cost}"
