"""Reading runs back from S3 and EC2: anyone with access sees the same, nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.bill import make_bill
from orchestrator.core.caps import in_force
from orchestrator.core.ids import Keys, is_run_id
from orchestrator.core.lasting import ended_at
from orchestrator.core.phase import ENDED, find_phase
from orchestrator.core.spec import RunSpec
from orchestrator.errors import NoPermission, NotFound, OrchError, Unreachable
from orchestrator.run import prices
from orchestrator.run.lease import Lease, Owner
from orchestrator.run.ledger import Ledger
from orchestrator.run.observe import Observer
from orchestrator.run.progress import newest_figures, parse_progress
from orchestrator.run.reconcile import with_reconciliation
from orchestrator.run.spec import load_spec
from orchestrator.run.usage import LiveUse, measure_s3
from orchestrator.run.view import RunView

READERS = 8


def list_runs(bucket: Bucket) -> list[str]:
    """Return the ids of the runs in a bucket, newest first; none when there is no bucket yet."""
    try:
        names = [prefix.removeprefix("runs/").rstrip("/") for prefix in bucket.list_folders("runs/")]
    except NotFound:
        return []
    return sorted((name for name in names if is_run_id(name)), key=_launched, reverse=True)


def open_runs(
    bucket: Bucket, needs: Callable[[RunSpec], bool], may_need: Callable[[RunSpec], bool] | None = None
) -> list[str]:
    """Return the runs of a bucket that have not ended and whose spec `needs` something, newest first.

    Of those whose spec of the launch `may_need` it (by default: does) it counts what they were resumed with. A build of
    an image or a snapshot that was killed is none: nobody goes on with it. One whose spec another version of `orch`
    wrote, so that it cannot be read here, may need it.
    """

    def is_one(run: str) -> bool:
        ledger = Ledger(bucket, run, "reader")
        try:
            spec = load_spec(bucket, run)
        except NotFound:
            return False
        except (NoPermission, Unreachable):
            raise
        except OrchError:
            return not ledger.read().closed
        if not (may_need or needs)(spec):
            return False
        state = ledger.read()
        if state.closed or not needs(in_force(spec, state)):
            return False
        held = Lease(bucket, run, Owner.me()).read() if spec.build_command else None
        return not spec.build_command or (held is not None and held.lives(bucket.server_time()))

    runs = list_runs(bucket)
    with ThreadPoolExecutor(READERS) as pool:
        return [run for run, found in zip(runs, pool.map(is_one, runs), strict=True) if found]


def _launched(run_id: str) -> str:
    return run_id[-20:]


class Reader:
    """Reads one run repeatedly; each time only what changed is fetched."""

    def __init__(self, session: Session, bucket: Bucket, run_id: str, *, history: bool = False) -> None:
        self._bucket = bucket
        self.spec = load_spec(bucket, run_id)
        self._keys = Keys(run_id)
        self._observer = Observer(Compute(session), bucket, run_id)
        self._ledger = Ledger(bucket, run_id, "reader")
        self._lease = Lease(bucket, run_id, Owner.me())
        self._use = LiveUse(bucket, run_id)
        self._history = history
        self._progress: tuple[str, tuple[Mapping[str, Any], ...]] = ("", ())

    def read(self) -> RunView:
        """Return the run as it is now."""
        # The lease before the ledger: a scheduler that is just closing its run never looks like none.
        scheduler = self._scheduler()
        state = self._ledger.read()
        facts = self._observer.observe_records() if state.closed else self._observer.observe()
        lines = self._metrics()
        on_demand = prices.on_demand_of(self.spec)
        rows = prices.load(self._bucket, self.spec.run_id)
        phase = find_phase(state, facts)
        # While it goes on as the scheduler counts it for the cap, so that both say the same.
        s3 = measure_s3(self._bucket, self.spec.run_id, facts) if state.closed else self._use.at(facts)
        bill = make_bill(self.spec.run_id, facts.instances, rows, on_demand, facts.server_time, s3=s3)
        return RunView(
            spec=in_force(self.spec, state),
            launched=self.spec.experiment,
            ledger=state,
            facts=facts,
            phase=phase,
            bill=with_reconciliation(self._bucket, bill) if state.closed else bill,
            metrics=newest_figures(lines),
            history=lines if self._history else (),
            scheduler=scheduler if phase not in ENDED else None,
            ended_at=ended_at(state, facts.instances),
        )

    def _scheduler(self) -> str | None:
        held = self._lease.read()
        if held is None or not held.lives(self._bucket.server_time()):
            return None
        return f"{held.owner.machine} (process {held.owner.pid})"

    def _metrics(self) -> tuple[Mapping[str, Any], ...]:
        etag, lines = self._progress
        try:
            changed = self._bucket.get_if_changed(self._keys.metrics, etag)
        except NotFound:
            return lines
        if changed is not None:
            body, etag = changed
            self._progress = (etag, parse_progress(body))
        return self._progress[1]


def read_run(session: Session, bucket: Bucket, run_id: str, *, history: bool = False) -> RunView:
    """Return one run. Raises NotFound."""
    return Reader(session, bucket, run_id, history=history).read()
