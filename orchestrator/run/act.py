"""Doing what was decided: intent into the ledger, then the effect, then its outcome. Decides nothing.

Reaching nodes by SSH takes a while, so it happens beside the loop; what was reached shows in the next tick's facts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, NamedTuple

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.errors import LaunchRefused, kind_of
from orchestrator.aws.images import Images
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core import actions as do
from orchestrator.core.caps import in_force
from orchestrator.core.facts import Facts
from orchestrator.core.ids import Keys, client_token, resource_name
from orchestrator.core.ledger import Verdict
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import counted, iso
from orchestrator.errors import Exit, NoPermission, NotFound, OrchError, StaleEpoch
from orchestrator.node.ssh import HostKeyMismatch
from orchestrator.run.answers import Answers, young
from orchestrator.run.home import Home
from orchestrator.run.keys import NotOffered
from orchestrator.run.lease import Lease
from orchestrator.run.ledger import Ledger
from orchestrator.run.nodes import Deserted, NodeCommands, newest_step
from orchestrator.run.report import write_report
from orchestrator.run.request import run_instances_request, tags
from orchestrator.run.userdata import timer_left, user_data_of

# Launches whose refusal says nothing about the request itself: the same one is sent again.
TRY_AGAIN = frozenset({"throttled", "expired", "unreachable"})
SSH_WORKERS = 16


class Errand(NamedTuple):
    """Something to do on a node by SSH."""

    what: Literal["start", "stop", "kill", "probe", "arm"]
    instance_id: str
    generation: int


def variations(action: do.Launch) -> dict[str, Any]:
    """Return what the ledger keeps of a launch that is not the plain one, of the whole gang or nothing."""
    found = {} if action.count is None else {"count": action.count}
    found |= {} if action.least is None else {"least": action.least}
    return found | ({"spare": True} if action.spare else {})


class Actor:
    """Performs the actions of one run under one lease."""

    def __init__(  # noqa: PLR0917 - made in one place, of everything a scheduler has
        self,
        spec: RunSpec,
        session: Session,
        bucket: Bucket,
        home: Home,
        ledger: Ledger,
        lease: Lease,
        log: Callable[[str], None],
        keep_prices: Callable[[Facts], object],
    ) -> None:
        self._spec = spec
        self._bucket = bucket
        self._home = home
        self._compute = Compute(session)
        self._images = Images(session)
        self._ledger = ledger
        self._lease = lease
        self._log = log
        self._keep_prices = keep_prices
        self._nodes = NodeCommands(spec, session, home)
        self._pool = ThreadPoolExecutor(SSH_WORKERS, thread_name_prefix="ssh")
        self._reaching: dict[Errand, Future[None]] = {}
        self._reached: set[Errand] = set()
        self._asked: dict[Errand, datetime] = {}
        self._mistrusted: set[str] = set()
        self._answers = Answers()
        self._mute: dict[str, bool] = {}  # who was said not to answer, so that it is said once
        self._armed: dict[str, float] = {}

    def close(self) -> None:
        """Let go of the SSH workers."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def complete(self, facts: Facts, generation: int) -> Facts:
        """Return the facts with what this scheduler itself reached over SSH, or is reaching right now."""
        for errand, future in list(self._reaching.items()):
            if future.done():
                del self._reaching[errand]
                self._came_back(errand, future.exception())
        both = self._reached | self._reaching.keys()
        asked = {item.instance_id for item in self._reaching if item.what == "probe"}
        arming = {item.instance_id for item in self._reaching if item.what == "arm"}
        now, answers = time.monotonic(), self._answers
        answers.forget_all_but(item.instance_id for item in facts.instances if item.usable)
        return replace(
            facts,
            started=frozenset(e.instance_id for e in both if (e.what, e.generation) == ("start", generation)),
            asked={e.instance_id: time for e, time in self._asked.items() if e.generation == generation},
            stops_sent=frozenset(e.generation for e in both if e.what == "stop"),
            killed=frozenset((e.instance_id, e.generation) for e in both if e.what == "kill"),
            mistrusted=frozenset(self._mistrusted),
            unanswered=answers.unanswered,
            answering=answers.answering(now) | asked,
            deserted=answers.deserted(now),
            arming=young(self._armed, now) | arming,
        )

    def _came_back(self, errand: Errand, error: BaseException | None) -> None:
        what, instance_id, _ = errand
        if isinstance(error, HostKeyMismatch):
            self._mistrusted.add(instance_id)
        elif error is not None and (isinstance(error, StaleEpoch) or not isinstance(error, OrchError)):
            raise error
        elif isinstance(error, Deserted):
            self._answers.desert(instance_id, time.monotonic())
            self._log(f"{instance_id} is silent and answers SSH, but neither agent nor training is there")
        elif what == "probe" and isinstance(error, NotOffered):
            self._log(f"{instance_id} is silent and cannot be asked: {error.message}")
        elif what == "probe" and error is not None:
            counts = self._answers.miss(instance_id, time.monotonic())
            then = "" if counts else "; it did a moment ago, so it is asked again"
            if self._mute.get(instance_id) != counts:
                self._log(f"{instance_id} is silent and does not answer SSH: {error.message}{then}")
            self._mute[instance_id] = counts
        elif what == "probe":
            self._answers.hear(instance_id, time.monotonic())
            self._mute.pop(instance_id, None)
            self._log(f"{instance_id} is silent, but lives")
        elif what == "arm":
            self._armed[instance_id] = time.monotonic()
            if error is not None:
                self._log(f"the timer of {instance_id} stays as it is for now: {error.message}")
        elif what == "start" and isinstance(error, NotOffered) and _is_denied(error):
            # Nodes that nobody may start cost money until their timers end them.
            self._refuse(error)
        elif error is not None:
            self._log(f"{what} {instance_id}: {error.message}; trying again")
        else:
            self._reached.add(errand)

    def perform(self, action: do.Action, facts: Facts) -> None:
        """Perform one action. Raises OrchError when it must be tried again, StaleEpoch when another took over."""
        match action:
            case do.Create():
                self._create(action)
            case do.Launch():
                self._launch(action, facts)
            case do.Start() | do.Stop() | do.Kill() | do.Probe() | do.Arm():
                self._command(action, facts)
            case do.Recover():
                self._log(f"recovering: {action.recovery.cause}")
                self._append("intent", "recover", action.recovery.to_json())
            case do.Wish():
                self._append("wish", action.action, {"reason": action.reason, "cap": True})
            case do.End():
                self._log(f"ending: {action.verdict.message}")
                self._append("intent", "end", {"verdict": action.verdict.to_json()})
            case do.Terminate():
                self._terminate(action, facts)
            case do.Record():
                self._record(action)
            case do.Delete():
                self._fence()
                self._compute.delete(action.resource)
            case do.Close():
                self._close(action, facts)

    def _command(self, action: do.Start | do.Stop | do.Kill | do.Probe | do.Arm, facts: Facts) -> None:
        match action:
            case do.Start():
                self._start(action, facts)
            case do.Stop():
                first, generation = action.instance_id, action.generation
                stop = partial(self._nodes.stop, facts, first, generation, self._lease.epoch)
                self._reach(Errand("stop", first, generation), stop)
            case do.Kill():
                for item in action.instance_ids:
                    kill = partial(self._nodes.kill, facts, item, action.generation, self._lease.epoch)
                    self._reach(Errand("kill", item, action.generation), kill)
            case do.Probe():
                self._answers.ask(action.instance_ids)
                for item in action.instance_ids:
                    self._reach(Errand("probe", item, 0), partial(self._nodes.probe, facts, item))
            case do.Arm():
                for item in action.instance_ids:
                    where = (item, action.generation, self._lease.epoch, action.deadline)
                    self._reach(Errand("arm", item, action.generation), partial(self._nodes.arm, facts, *where))

    def _append(self, kind: Any, what: str, detail: Mapping[str, Any]) -> None:
        # The time of now, not of the facts: they may be old, and what is waited for counts from here.
        self._ledger.append(kind, what, detail, epoch=self._lease.epoch, now=self._bucket.server_time())

    def _fence(self) -> None:
        """Right before EC2 or a node is told anything: who slept since its intent may have been replaced.

        Raises StaleEpoch.
        """
        self._lease.hold(self._bucket.server_time())

    def _create(self, action: do.Create) -> None:
        spec = self._spec
        name = resource_name(spec.run_id)
        self._append("intent", "create", {"kind": action.kind, "name": name})
        self._fence()
        try:
            if action.kind == "key-pair":
                self._compute.import_key_pair(name, spec.public_key, tags(spec))
            elif action.kind == "security-group":
                efa = any(offer.efa for offer in spec.offers)
                self._compute.create_security_group(name, spec.vpc, spec.ssh_cidr, spec.ssh_port, tags(spec), efa=efa)
            else:
                self._compute.create_placement_group(name, tags(spec))
        except NoPermission as error:
            # Expired credentials come back; until then nodes go on and this is tried again.
            if error.__cause__ is not None and kind_of(error.__cause__) == "expired":
                raise
            self._refuse(error)

    def _refuse(self, error: OrchError) -> None:
        """Have the run end because a permission is missing."""
        self._end(Verdict("failed", error.message, error.hint, Exit.NO_PERMISSION.name))

    def _end(self, verdict: Verdict) -> None:
        """Have the run end for what no other offer or later time would mend."""
        self._append("outcome", "refused", {"verdict": verdict.to_json()})

    def _launch(self, action: do.Launch, facts: Facts) -> None:
        spec = in_force(self._spec, self._ledger.state)
        offer = spec.offers[action.offer]
        count = action.count or spec.num_nodes
        where = {"generation": action.generation, "attempt": action.attempt, "offer": action.offer}
        where |= variations(action)
        request = action.request
        if request is None:
            root_device = self._root_device(spec.image, spare=action.spare)
            if root_device is None:
                return
            token = client_token(spec.run_id, action.generation, action.attempt)
            request = run_instances_request(
                spec,
                offer,
                generation=action.generation,
                attempt=action.attempt,
                count=count,
                least=action.least,
                resources=facts.resources,
                root_device=root_device,
                user_data=user_data_of(spec, self._timer(facts), facts.server_time, offer.instance_type),
            )
            self._append("intent", "launch", where | {"request": request, "token": token})
        self._fence()
        asked = str(count) if action.least is None else f"{action.least} to {count}"
        self._log(f"asking for {asked} x {offer.instance_type} ({offer.lifecycle}) in {offer.zone}")
        try:
            made = self._compute.run_instances(request)
        except LaunchRefused as error:
            if error.kind in TRY_AGAIN:
                raise
            self._log(f"refused: {error.code}")
            refusal = {"status": error.kind, "code": error.code, "message": error.message}
            self._append("outcome", "launch", where | refusal)
            return
        ids = sorted(item.instance_id for item in made)
        # `replied` is this machine's clock: what `scripts/bench_launch` counts from.
        launched = {"status": "launched", "instance_ids": ids, "replied": time.time()}
        self._append("outcome", "launch", where | launched)
        self._log(f"{counted(len(ids), 'instance')} in {offer.zone}, launched {iso(made[0].launch_time)}")

    def _root_device(self, image: str, *, spare: bool) -> str | None:
        """Return the name of an image's root device; None when it is gone, which ends the run.

        Raises NotFound instead for a `spare`, which the run can do without.
        """
        try:
            return self._images.root_device(image)
        except NotFound as error:
            if spare:
                raise
            hint = "`orch resume` takes another image of the name that the experiment gives, once there is one"
            self._end(Verdict("failed", f"{error.message}: it was removed", hint))
            return None

    def _timer(self, facts: Facts) -> timedelta:
        began = self._ledger.state.generation_began or facts.server_time
        spec = in_force(self._spec, self._ledger.state)
        return timer_left(spec, facts.server_time - began, facts.cost_so_far)

    def _start(self, action: do.Start, facts: Facts) -> None:
        if action.generation > 1 and not self._ledger.state.restore_known:
            # Once for all of them: a checkpoint that gets into S3 between two starts must not part the gang.
            step = newest_step(self._bucket, self._spec.run_id)
            self._append("intent", "start", {"generation": action.generation, "restore_step": step})
        self._fence()
        recovery = self._ledger.state.recovery
        for instance_id in action.instance_ids:
            start = partial(
                self._nodes.start,
                facts,
                instance_id,
                ranks=action.ranks,
                generation=action.generation,
                epoch=self._lease.epoch,
                restore_step=self._ledger.state.restore_step,
                trained=self._ledger.state.trained,
                # After a failure of the script the machines are those that were checked before.
                preflight=recovery is None or recovery.kind != "failed",
            )
            errand = Errand("start", instance_id, action.generation)
            self._asked.setdefault(errand, facts.server_time)
            self._reach(errand, start)

    def _reach(self, errand: Errand, effect: Callable[[], None]) -> None:
        self._reaching[errand] = self._pool.submit(effect)

    def _terminate(self, action: do.Terminate, facts: Facts) -> None:
        beacons = [facts.nodes[i].beacon for i in action.instance_ids if i in facts.nodes]
        late = [beacon.rank for beacon in beacons if beacon is not None and not beacon.synced]
        if late:
            self._log(f"nodes {sorted(late)} have not put everything into S3; their time for it is over")
        # EC2 may show them as running for a while yet: then the same is asked again, and one intent is enough.
        if not set(action.instance_ids) <= self._ledger.terminating:
            detail = {"instance_ids": list(action.instance_ids), "reason": action.reason}
            self._append("intent", "terminate", detail)
        self._fence()
        self._compute.terminate(action.instance_ids)

    def _record(self, action: do.Record) -> None:
        body = json.dumps(action.instance.to_json(), indent=1).encode()
        self._bucket.put(Keys(self._spec.run_id).instance(action.instance.instance_id), body)

    def _close(self, action: do.Close, facts: Facts) -> None:
        self._keep_prices(facts)
        state = self._ledger.state
        closed = replace(state, closed=True, closed_at=facts.server_time)
        # The report first: whoever finds the generation closed also finds its report.
        write_report(self._spec, self._bucket, self._home, closed, facts)
        detail = {
            "generation": state.generation,
            "verdict": action.verdict.to_json(),
            "ended": iso(facts.server_time),
        }
        self._append("outcome", "close", detail)
        self._home.forget_secrets(self._spec.run_id)


def _is_denied(error: NotOffered) -> bool:
    """Tell whether a key was not offered for want of a permission, which waiting does not give."""
    refusal = error.__cause__ and error.__cause__.__cause__
    return refusal is not None and kind_of(refusal) == "denied"
