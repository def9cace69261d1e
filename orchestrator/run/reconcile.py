"""Keeping what came of a reconciliation with the run, so that whoever looks at its bill sees it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.bill import Bill
from orchestrator.core.ids import Keys
from orchestrator.core.reconcile import reconcile
from orchestrator.core.units import usd
from orchestrator.errors import BadInput, NotFound
from orchestrator.run.charges import read_charges


def reconcile_run(session: Session, bucket: Bucket, bill: Bill, where: str) -> Bill:
    """Hold a run's bill against the files at `where`, keep what came of it, and return the bill with it.

    Raises BadInput while the run goes on or for a file that is none of AWS's, NotFound where there is no file.
    """
    if not bill.final or not bill.instances:
        raise BadInput(f"{bill.run_id} has nothing to reconcile yet", "wait until it has ended; AWS takes hours more")
    start, end = _span(bill)
    files, lines = read_charges(session, where, start, end)
    found = reconcile(bill, lines, files).to_json()
    bucket.put(Keys(bill.run_id).reconciliation, json.dumps(found, indent=1).encode())
    return replace(bill, reconciliation=found)


def with_reconciliation(bucket: Bucket, bill: Bill) -> Bill:
    """Return the bill with the reconciliation kept with its run, if that is of this very bill and not of an earlier."""
    try:
        found = json.loads(bucket.get(Keys(bill.run_id).reconciliation))
    except (NotFound, ValueError):
        return bill
    return replace(bill, reconciliation=found) if found.get("machines_usd") == usd(bill.machines) else bill


def _span(bill: Bill) -> tuple[datetime, datetime]:
    ends = [item.start + timedelta(seconds=item.seconds) for item in bill.instances]
    return min(item.start for item in bill.instances), max(ends)
