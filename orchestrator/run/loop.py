"""The scheduler: observe, decide, record the intent, act, record the outcome, until nothing of the run is left.

Killing it anywhere and starting another is harmless: it keeps nothing that it could not observe again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.prices import Prices
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.actions import Action
from orchestrator.core.bill import make_bill
from orchestrator.core.caps import spend_of
from orchestrator.core.decide import decide
from orchestrator.core.facts import Facts, PriceRow
from orchestrator.core.health import ENDED
from orchestrator.core.ledger import LedgerState
from orchestrator.core.phase import find_phase
from orchestrator.errors import OrchError, StaleEpoch
from orchestrator.run import prices
from orchestrator.run.act import Actor
from orchestrator.run.home import Home
from orchestrator.run.lease import Lease, Owner
from orchestrator.run.ledger import Ledger
from orchestrator.run.observe import Observer
from orchestrator.run.spec import load_spec
from orchestrator.run.usage import LiveUse

BUSY_TICK = 0.25
IDLE_TICK = 1.5
BUSY = frozenset({"launching", "booting", "starting", "recovering", "saving", "terminating"})
PRICE_INTERVAL = timedelta(seconds=60)
LONGEST_BACKOFF = 20.0


class Scheduler:
    """One run's scheduler in this process. `idle` is how long it waits, in seconds, when nothing is under way."""

    idle = IDLE_TICK

    def __init__(self, session: Session, bucket: Bucket, home: Home, run_id: str, log: Callable[[str], None]) -> None:
        self._bucket = bucket
        self._log = log
        self._home = home
        self._spec = load_spec(bucket, run_id)
        self._compute = Compute(session)
        self._prices = Prices(session)
        owner = Owner.me()
        self._lease = Lease(bucket, run_id, owner)
        self._ledger = Ledger(bucket, run_id, f"{owner.machine}:{owner.pid}")
        self._observer = Observer(self._compute, bucket, run_id)
        self._actor = Actor(self._spec, session, bucket, home, self._ledger, self._lease, log, self.final_prices)
        self._rows: tuple[PriceRow, ...] = prices.load(bucket, run_id)
        self._priced = datetime.fromtimestamp(0, UTC)
        self._use = LiveUse(bucket, run_id)
        self._phase = ""

    def run(self, *, keep_lease: bool = False) -> None:
        """Take the lease and work until the run's generation is closed. Raises StaleEpoch when replaced.

        With `keep_lease` the lease is still held then: it is for the caller to let go of it.
        """
        failures = 0
        try:
            while True:
                try:
                    if not self._lease.epoch:
                        self._acquire()
                    if self._tick():
                        break
                    failures = 0
                except StaleEpoch:
                    raise
                except OrchError as error:
                    if not self._home.knows(self._spec.run_id):
                        raise OrchError(f"{self._home.path} is gone, and with it the key to the nodes") from error
                    failures += 1
                    pause = min(LONGEST_BACKOFF, 0.5 * 2**failures)
                    self._log(f"{error.message}; trying again in {pause:.0f} s")
                    time.sleep(pause)
        finally:
            self._actor.close()
        # The run is at its end; a lease that stays expires by itself.
        if not keep_lease:
            with suppress(OrchError):
                self._lease.release(self._bucket.server_time())

    def _acquire(self) -> None:
        waited = False
        while not self._lease.try_acquire(self._bucket.server_time()):
            if not waited:
                self._log("another scheduler holds this run; waiting for it to end or fall silent")
                waited = True
            time.sleep(1.0)
            if self._ledger.read().closed:
                raise StaleEpoch("another scheduler brought this run to its end", "`orch status` shows it")
        self._log(f"scheduling {self._spec.run_id}, epoch {self._lease.epoch}")

    def _tick(self) -> bool:
        """Do what is to be done now; tell whether the generation is closed."""
        self._lease.hold(self._bucket.server_time())
        state = self._ledger.read()
        facts = self._actor.complete(self._with_cost(self._observer.observe()), state.generation)
        phase = find_phase(state, facts)
        if phase != self._phase:
            self._log(phase)
            self._phase = phase
        if state.closed:
            return True
        actions = self._decide(state, facts)
        for action in actions:
            self._actor.perform(action, facts)
        if not actions:
            time.sleep(BUSY_TICK if phase in BUSY or _is_eventful(state.generation, facts) else self.idle)
        return False

    def _decide(self, state: LedgerState, facts: Facts) -> tuple[Action, ...]:
        return decide(self._spec, state, facts)

    def _with_cost(self, facts: Facts) -> Facts:
        alive = [item for item in facts.instances if item.alive]
        if alive and facts.server_time - self._priced > PRICE_INTERVAL:
            self.final_prices(facts)
            self._priced = facts.server_time
        listed, s3 = prices.on_demand_of(self._spec), self._use.at(facts)
        bill = make_bill(self._spec.run_id, facts.instances, self._rows, listed, facts.server_time, s3=s3)
        spend = spend_of(bill, facts)
        return replace(facts, cost_so_far=spend.so_far, cost_per_second=spend.per_second, cost_prepaid=spend.prepaid)

    def final_prices(self, facts: Facts) -> tuple[PriceRow, ...]:
        """Fetch and keep the prices that were in force during the life of the run's instances."""
        spot = [item for item in facts.instances if item.lifecycle == "spot"]
        if spot:
            start = min(item.launch_time for item in spot)
            types = sorted({item.instance_type for item in spot})
            zones = {item.zone for item in spot}
            fresh = self._prices.spot_history(types, start, facts.server_time)
            rows = tuple(
                sorted(set(self._rows) | {r for r in fresh if r.zone in zones}, key=lambda r: (r.time, r.zone))
            )
            if rows != self._rows:
                self._rows = rows
                prices.save(self._bucket, self._spec.run_id, rows)
        return self._rows


def _is_eventful(generation: int, facts: Facts) -> bool:
    """Tell whether a node is being asked whether it lives, or a rank has ended: there will soon be a decision."""
    said = (facts.nodes[i.instance_id].beacon for i in facts.instances if i.usable and i.instance_id in facts.nodes)
    ended = any(b is not None and b.generation == generation and b.stage in ENDED for b in said)
    return bool(ended or facts.answering or facts.unanswered)


def run_scheduler(session: Session, bucket: Bucket, home: Home, run_id: str, log: Callable[[str], None]) -> None:
    """Schedule a run until its generation is closed. Raises NotFound, StaleEpoch or OrchError."""
    Scheduler(session, bucket, home, run_id, log).run()
