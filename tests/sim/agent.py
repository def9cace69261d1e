"""The agent of a node: the real `converge`, and around it what `agent.main` and `agent.sync` do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.agent.attended import is_attended
from orchestrator.agent.converge import AskToSave, AskToStop, Finish, PowerOff, Report, Seen, converge
from orchestrator.agent.local import Local
from orchestrator.core.beacon import Beacon, Stage
from orchestrator.core.ids import Keys
from orchestrator.errors import OrchError
from tests.sim.clock import moment, stamp
from tests.sim.training import Rank

if TYPE_CHECKING:
    from tests.sim.node import Node

LINGER = 600.0
HEARTBEAT = 3.0
RETRY = 4.0


class Agent:
    """The agent of a node: it looks, says how the node is, and uploads."""

    def __init__(self, node: Node, rank: Rank, upload: float) -> None:
        self._node = node
        self._rank = rank
        self._upload_seconds = upload
        self._born = self._quiet_since = node.clock.now
        self._watched: object = None
        self._said: tuple[object, ...] | None = None
        self.beat_at = -HEARTBEAT
        self._final = False
        self._stored: set[int] = set()
        self._uploading = False
        self._retrying = False
        self.synced = False
        self.advised = False
        self.silent_until = node.clock.now + 1
        node.clock.after(1.0, node.beat_now)

    def beat(self) -> None:
        """Tick if the last beacon is old."""
        if self.beat_at <= self._node.clock.now - HEARTBEAT:
            self.tick()

    def tick(self) -> None:
        """Look once and do what follows from it."""
        node, now = self._node, self._node.clock.now
        if node.agent is not self or now < self.silent_until:
            return
        rank = self._rank
        local = Local(
            word=rank.word,
            alive=rank.alive,
            exit=rank.exit,
            exit_time=rank.exit_time,
            started=rank.started,
            epoch=node.epoch,
            contact=node.contact,
            asked=rank.stop,
        )
        watched = (rank.exit, self.synced, node.epoch, node.contact)
        lonely = self.synced and now - self._quiet_since >= LINGER
        if watched != self._watched or (lonely and self._online and self._attended()):
            self._watched, self._quiet_since = watched, now
            if self.synced:
                node.clock.after(LINGER + 1, node.beat_now)
        self._upload()
        noticed = node.machine.notice is not None
        seen = Seen(local, now - self._born, self.synced, now - self._quiet_since, noticed, self.advised)
        for action in converge(seen, LINGER):
            match action:
                case AskToStop():
                    node.ask_to_stop(rank)
                case AskToSave():
                    self.advised = False
                    node.ask_to_save(rank)
                case Report(stage):
                    self._report(stage)
                case Finish():
                    self._finish()
                case PowerOff():
                    node.power_off()

    def _report(self, stage: Stage) -> None:
        rank, node, now = self._rank, self._node, self._node.clock.now
        gone = rank.exit is not None
        beacon = Beacon(
            instance_id=node.machine.id,
            rank=rank.rank,
            generation=rank.generation,
            epoch=node.epoch,
            boot_id=str(node.boot_id),
            time=stamp(now + node.skew),
            stage=stage,
            exit_code=rank.exit[0] if rank.exit else None,
            exit_stage=rank.exit[1] if rank.exit else None,
            exit_time=stamp(rank.exit_time + node.skew) if gone and rank.exit_time is not None else None,
            stopped_step=rank.stopped_step,
            checkpoint_step=max(self._stored, default=None),
            synced=self.synced,
            started=rank.started,
            notice=node.machine.notice,
            progress=self._progress(),
        )
        try:
            node.say(beacon)
        except OrchError:
            self._retry()
        else:
            self.beat_at = now

    def _progress(self) -> dict[str, int] | None:
        """Return the last progress line of the script, which the node of rank 0 writes."""
        return self._node.progress_of(self._rank)

    def _retry(self) -> None:
        """Say it again soon; one such promise is enough."""

        def again() -> None:
            self._retrying = False
            self.tick()

        if not self._retrying:
            self._retrying = True
            self._node.clock.after(RETRY, again)

    def _finish(self) -> None:
        """Upload all that is left: the logs take a moment, checkpoints what they take."""
        if not self._final:
            self._final = True
            self._node.clock.after(self._node.rng.uniform(0.5, 4), self._sync_logs)

    def _sync_logs(self) -> None:
        if not self._alone():
            return
        if not self._online or self._pending:
            self._upload()
            self._node.clock.after(RETRY, self._sync_logs)
            return
        self.synced = True
        self.tick()

    @property
    def _online(self) -> bool:
        return self._node.reachable and self._node.store.up

    @property
    def _pending(self) -> list[int]:
        return [step for step in self._rank.checkpoints if step not in self._stored]

    def _attended(self) -> bool:
        return is_attended(self._node.store.get, self._node.machine.run, moment(self._node.clock.now + self._node.skew))

    def _alone(self) -> bool:
        """Whether this agent is still the one of its node."""
        return self._node.agent is self and self._node.up

    def _upload(self) -> None:
        """Put the newest checkpoint that is not there yet into S3: its data, then its manifest."""
        if self._uploading or not self._pending:
            return
        self._uploading = True
        step, keys = max(self._pending), Keys(self._node.machine.run)
        names = [keys.checkpoint(step, "state.pt"), keys.manifest(step)]
        if not self._node.rules.data_first:
            names.reverse()
        self._send(step, names)

    def _send(self, step: int, names: list[str]) -> None:
        def arrive() -> None:
            if not self._alone():
                return
            if not self._online:
                self._node.clock.after(RETRY, lambda: self._send(step, names))
                return
            self._node.store.put(names[0], b"")
            if names[1:]:
                self._send(step, names[1:])
                return
            self._uploading = False
            self._stored.add(step)
            self.tick()

        self._node.clock.after(self._upload_seconds * self._node.rng.uniform(0.3, 0.7), arrive)
