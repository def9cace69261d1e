"""Writing `report.json` when a run's generation closes: to S3, and to this machine, where it outlives the bucket."""

from __future__ import annotations

import json

from orchestrator.aws.s3 import Bucket
from orchestrator.core.bill import make_bill
from orchestrator.core.caps import in_force
from orchestrator.core.facts import Facts
from orchestrator.core.ids import Keys
from orchestrator.core.lasting import ended_at
from orchestrator.core.ledger import LedgerState
from orchestrator.core.phase import find_phase
from orchestrator.core.spec import RunSpec
from orchestrator.errors import NotFound
from orchestrator.run import prices
from orchestrator.run.home import Home
from orchestrator.run.progress import newest_figures, parse_progress
from orchestrator.run.usage import measure_s3
from orchestrator.run.view import RunView


def write_report(spec: RunSpec, bucket: Bucket, home: Home, state: LedgerState, facts: Facts) -> RunView:
    """Write the report of a run of which nothing is left, and return what it says. `state` must be closed."""
    keys = Keys(spec.run_id)
    try:
        lines = parse_progress(bucket.get(keys.metrics))
    except NotFound:
        lines = ()
    rows = prices.load(bucket, spec.run_id)
    s3 = measure_s3(bucket, spec.run_id, facts)
    bill = make_bill(spec.run_id, facts.instances, rows, prices.on_demand_of(spec), facts.server_time, s3=s3)
    view = RunView(
        spec=in_force(spec, state),
        launched=spec.experiment,
        ledger=state,
        facts=facts,
        phase=find_phase(state, facts),
        bill=bill,
        metrics=newest_figures(lines),
        history=lines,
        ended_at=ended_at(state, facts.instances),
    )
    report = view.report()
    bucket.put(keys.report, json.dumps(report, indent=1).encode())
    home.save_report(report)
    return view
