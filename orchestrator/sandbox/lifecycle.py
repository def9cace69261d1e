"""The states of instances over time: pending takes a while, so does shutting-down, and each change reaches the host.

An instance is `running` only once its host has begun to boot, and `terminated` only once its host has no process left.
Knows moto's `Instance` by its state alone; the host side by `boundary.Hosts`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from moto.ec2.models.instances import Instance, InstanceState, StateReason

from orchestrator.sandbox.boundary import Hosts, HostSpec
from orchestrator.sandbox.meter import Life
from orchestrator.sandbox.timers import Timers

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
ENDED = frozenset({"shutting-down", "terminated"})
RETRY_SECONDS = 0.5
_log = logging.getLogger(__name__)

Cause = Literal["user", "host", "spot", "error"]
# StateReason (code, what it says) and StateTransitionReason, as seen on AWS. EC2 gives no time when the operating
# system shut itself down.
_REASONS: dict[Cause, tuple[str, str, str]] = {
    "user": ("Client.UserInitiatedShutdown", "User initiated shutdown", "User initiated ({time})"),
    "host": ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown", "User initiated"),
    "spot": ("Server.SpotInstanceTermination", "Spot instance termination", "Service initiated ({time})"),
    "error": ("Server.InternalError", "Internal error on launch", "Server.InternalError"),
}


@dataclass(slots=True)
class _Host:
    """A machine to boot and halt; `turn` keeps a halt from overtaking its boot. `life` is what the meter reads."""

    instance: Instance
    spec: HostSpec
    life: Life
    turn: threading.Lock = field(default_factory=threading.Lock)


class Lifecycle:
    """Moves instances from state to state.

    `lock` is the EC2 lock; with it held, `on_end` is called with an instance and the last state it is to be given.
    """

    def __init__(
        self,
        hosts: Hosts,
        lock: threading.RLock,
        *,
        pending_seconds: float,
        shutting_down_seconds: float,
        on_end: Callable[[Instance, InstanceState], None],
    ) -> None:
        self._hosts = hosts
        self._lock = lock
        self._pending = pending_seconds
        self._going = shutting_down_seconds
        self._on_end = on_end
        self._timers = Timers()
        self._known: dict[str, _Host] = {}
        self.lives: list[Life] = []

    def close(self) -> None:
        """Change nothing any more. Hosts stay as they are."""
        self._timers.close()

    def after(self, seconds: float, job: Callable[[], None]) -> None:
        """Do `job` later, on another thread."""
        self._timers.after(seconds, job)

    def launch(self, instance: Instance, spec: HostSpec) -> None:
        """Make an instance pending; it runs, and its host boots, after the pending time."""
        self._known[instance.id] = host = _Host(instance, spec, _life(spec, _aware(instance.launch_time)))
        self._begin(host)

    def start(self, instance: Instance) -> None:
        """Boot a stopped instance again."""
        instance._reason, instance.state_reason = "", StateReason()
        host = self._known[instance.id]
        host.life = _life(host.spec, datetime.now(UTC))
        self._begin(host)

    def end(self, instance: Instance, cause: Cause) -> None:
        """Begin to terminate an instance; one that is going or gone stays as it is."""
        with self._lock:
            if instance.state not in ENDED:
                self._leave(instance, cause)
                self._wind_down(instance, "shutting-down", "terminated")

    def ended(self, instance: Instance) -> datetime | None:
        """Return when an instance began to end, also where EC2 does not say so; None before."""
        life = self._known[instance.id].life
        return life.ended.replace(microsecond=0) if life.ended and instance.state in ENDED else None

    def stop(self, instance: Instance, cause: Cause) -> None:
        """Begin to stop an instance that is pending or running."""
        with self._lock:
            if instance.state in {"pending", "running"}:
                self._leave(instance, cause)
                self._wind_down(instance, "stopping", "stopped")

    def capture(self, instance: Instance, image_id: str, settle: Callable[[bool], bool], *, reboot: bool) -> None:
        """Have an image made of an instance; `settle` is told, with the lock held, whether it was, and whether to keep
        it is what it answers.
        """
        take = partial(self._hosts.capture, instance.id, image_id, reboot=reboot)
        self._timers.after(self._pending, partial(self._take, image_id, take, settle, self._hosts.forget_image))

    def forget_image(self, image_id: str) -> None:
        """Have the files of an image removed."""
        self._timers.after(0, partial(self._hosts.forget_image, image_id))

    def snapshot(self, instance: Instance, volume_id: str, snapshot_id: str, settle: Callable[[bool], bool]) -> None:
        """Have what is on a disk of an instance kept; `settle` is as in `capture`."""
        take = partial(self._hosts.snapshot, instance.id, volume_id, snapshot_id)
        self._timers.after(self._pending, partial(self._take, snapshot_id, take, settle, self._hosts.forget_snapshot))

    def forget_snapshot(self, snapshot_id: str) -> None:
        """Have the files of a snapshot removed."""
        self._timers.after(0, partial(self._hosts.forget_snapshot, snapshot_id))

    def _take(
        self, name: str, take: Callable[[], None], settle: Callable[[bool], bool], forget: Callable[[str], None]
    ) -> None:
        taken = False
        try:
            take()
            taken = True
        except Exception:
            _log.exception("%s cannot be made", name)
        with self._lock:
            wanted = settle(taken)
        if not wanted:
            forget(name)

    def _begin(self, host: _Host) -> None:
        self.lives.append(host.life)
        host.instance._state = _state("pending")
        self._timers.after(self._pending, partial(self._boot, host))

    def _boot(self, host: _Host) -> None:
        with host.turn:
            if host.instance.state != "pending":
                return
            try:
                self._hosts.boot(host.spec)
            except Exception:
                _log.exception("the host of %s cannot boot", host.instance.id)
                self.end(host.instance, "error")
                return
            with self._lock:
                if host.instance.state == "pending":
                    host.life.ran = datetime.now(UTC)
                    host.instance._state = _state("running")

    def _leave(self, instance: Instance, cause: Cause) -> None:
        now = datetime.now(UTC)
        life = self._known[instance.id].life
        life.ended, life.taken = now, cause == "spot"
        _give_reason(instance, cause, now)

    def _wind_down(self, instance: Instance, through: str, to: str) -> None:
        instance._state = _state(through)
        deadline = time.monotonic() + self._going
        self._timers.after(0, partial(self._halt, self._known[instance.id], to, deadline))

    def _halt(self, host: _Host, to: str, deadline: float) -> None:
        with host.turn:
            try:
                self._hosts.halt(host.instance.id)
            except Exception:
                # It must not be called gone while it may run on: it stays in this state until the halt succeeds.
                _log.exception("the host of %s cannot be halted; trying again", host.instance.id)
                self._timers.after(RETRY_SECONDS, partial(self._halt, host, to, deadline))
                return
        self._timers.after(max(0.0, deadline - time.monotonic()), partial(self._arrive, host.instance, to))

    def _arrive(self, instance: Instance, state: str) -> None:
        with self._lock:
            if instance.state == "shutting-down" and state == "terminated":
                self._on_end(instance, _state(state))
            elif instance.state == "stopping" and state == "stopped":
                instance._state = _state(state)


def _state(name: str) -> InstanceState:
    return InstanceState(name, CODES[name])


def _life(spec: HostSpec, launched: datetime) -> Life:
    return Life(spec.instance_id, spec.instance_type, spec.zone, spec.lifecycle == "spot", launched)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _give_reason(instance: Instance, cause: Cause, now: datetime) -> None:
    code, text, transition = _REASONS[cause]
    instance._reason = transition.format(time=now.strftime("%Y-%m-%d %H:%M:%S GMT"))
    instance.state_reason = StateReason(f"{code}: {text}", code)
