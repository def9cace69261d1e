"""A node: its boot, its timer, and the commands it takes, which do what `node/guard.sh`, `start.sh`, `stop.sh` and
`kill.sh` do."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.beacon import Beacon
from orchestrator.core.ids import Keys
from orchestrator.core.manifest import newest
from orchestrator.errors import StaleEpoch, Unreachable
from orchestrator.run.nodes import Deserted
from tests.sim.agent import RETRY, Agent
from tests.sim.clock import Clock
from tests.sim.ec2 import Machine
from tests.sim.store import Store
from tests.sim.training import Gang, Rank

# For so long the boot, and later the staging, waits for S3.
PATIENCE = 150.0


@dataclass(slots=True)
class Rules:
    """What a node holds to. Each is true in production; a mutant turns one off."""

    epochs: bool = True
    data_first: bool = True
    timer: bool = True
    rearms: bool = True
    starts_once: bool = True
    restores: bool = True


class Node:
    """What runs on one machine. `gang_of(generation, ips)` is the training that ranks told these addresses share."""

    def __init__(  # noqa: PLR0917 - made in one place, of everything a node has
        self,
        clock: Clock,
        rng: random.Random,
        store: Store,
        machine: Machine,
        rules: Rules,
        gang_of: Callable[[int, tuple[str, ...]], Gang],
        power_off: Callable[[Machine], None],
        hurt: Callable[[Machine, str], None],
        skew: float,
        boot_failure: str | None,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.store = store
        self.machine = machine
        self.rules = rules
        self._gang_of = gang_of
        self._power_off = power_off
        self._hurt = hurt
        self.skew = skew
        self.up = True
        self.ready = False
        self.boot_id = 1
        self.cut_until = 0.0
        self.epoch = 0
        self.contact = 0.0
        self.ranks: dict[int, Rank] = {}
        self.made: list[Rank] = []
        self.agent: Agent | None = None
        self.local_steps: set[int] = set()
        self.obeyed: list[int] = []
        self.deadline = clock.now + machine.timer
        if rules.timer:
            self._arm(machine.timer)
        self._publish(clock.now + PATIENCE, boot_failure)

    @property
    def reachable(self) -> bool:
        """Whether the network reaches it."""
        return self.up and self.clock.now >= self.cut_until

    @property
    def trainers(self) -> list[Rank]:
        """The trainings that run on it now."""
        return [rank for rank in self.made if rank.alive]

    def say(self, beacon: Beacon) -> None:
        """Put the beacon into S3. Raises Unreachable."""
        if not self.reachable:
            raise Unreachable("no network")
        self.store.say(self.machine.id, beacon)

    def go_down(self) -> None:
        """Let everything on it end, as the machine goes or restarts."""
        self.up = False
        self.agent = None
        for rank in self.trainers:
            rank.alive = False
            self._gang_of(rank.generation, rank.ips).gone(rank)

    def reboot(self) -> None:
        """Restart the machine: nothing runs on it any more, and no timer until it is back."""
        self.go_down()
        self.boot_id += 1
        self.clock.after(self.rng.uniform(20, 60), self._come_back)

    def cut(self, seconds: float) -> None:
        """Take its network away for a while."""
        self.beat()
        self.cut_until = max(self.cut_until, self.clock.now + seconds)

    def beat(self) -> None:
        """Let the agent say what it would have said by now."""
        if self.agent is not None and self.reachable:
            self.agent.beat()

    # What comes down by SSH. Every command may come late, twice, or from a scheduler that was replaced.

    def start(  # noqa: PLR0917 - the words of the start command
        self, generation: int, epoch: int, rank: int, ips: tuple[str, ...], restore_step: int | None, upload: float
    ) -> str:
        """Begin a generation, once. Raises StaleEpoch, Unreachable."""
        self._guard(epoch)
        if any(number > generation for number in self.ranks):
            return "already"
        if generation in self.ranks and self.rules.starts_once:
            if self.agent is None:
                self.agent = Agent(self, self.ranks[generation], upload)
            return "already"
        for older in self.trainers if self.rules.starts_once else ():
            self._gang_of(older.generation, older.ips).end(older, 143)
        made = Rank(self.machine.id, rank, generation, ips, restore_step, self.clock.now, self._changed)
        self.ranks[generation] = made
        self.made.append(made)
        self.agent = Agent(self, made, upload)
        gang = self._gang_of(generation, ips)
        self.clock.after(self.rng.uniform(0.2, 1), lambda: self._stage(made, gang, restore_step))
        return "started"

    def stop(self, generation: int, epoch: int) -> str:
        """Make the stop file appear. Raises StaleEpoch, Unreachable."""
        self._guard(epoch)
        rank = self.ranks.get(generation)
        if rank is None:
            raise Unreachable("this generation was never started here")
        if rank.stop or rank.exit is not None:
            return "already"
        rank.stop = True
        self._gang_of(generation, rank.ips).asked_to_stop()
        return "stopping"

    def answer(self) -> str:
        """Say whether agent or training live here. Raises Unreachable, Deserted."""
        if not self.reachable or not self.ready:
            raise Unreachable(f"{self.machine.id} does not answer")
        if self.agent is None and not self.trainers:
            raise Deserted(f"{self.machine.id} has neither agent nor training")
        return "alive"

    def ask_to_stop(self, rank: Rank) -> None:
        """Make the stop file appear, as the agent does by itself."""
        rank.stop = True
        self._gang_of(rank.generation, rank.ips).asked_to_stop()

    def ask_to_save(self, rank: Rank) -> None:
        """Make the save file appear."""
        self._gang_of(rank.generation, rank.ips).asked_to_save()

    def progress_of(self, rank: Rank) -> dict[str, int] | None:
        """Return the last line that a rank wrote down, None before the first and on all but the first rank."""
        if rank.rank != 0:
            return None
        gang = self._gang_of(rank.generation, rank.ips)
        return {"step": gang.step, "steps": gang.script.steps} if gang.began else None

    def kill(self, generation: int, epoch: int) -> str:
        """End the training. Raises StaleEpoch, Unreachable."""
        self._guard(epoch)
        rank = self.ranks.get(generation)
        if rank is None or not rank.alive:
            return "already"
        self._gang_of(generation, rank.ips).end(rank, 143, self.rng.uniform(0.1, 5))
        return "killed"

    def _guard(self, epoch: int) -> None:
        if not self.reachable or not self.ready:
            raise Unreachable(f"{self.machine.id} does not answer")
        if self.rules.epochs and epoch < self.epoch:
            raise StaleEpoch(f"refused: scheduler epoch {epoch}, but this node has seen {self.epoch}")
        self.obeyed.append(epoch)
        self.epoch, self.contact = max(self.epoch, epoch), self.clock.now

    def _publish(self, give_up: float, failure: str | None = None) -> None:
        """Put the host keys, or why there are none, into S3: the last thing a boot does, tried as long as it tries."""
        if not self.up or not self.machine.usable:
            return
        if self.reachable and self.store.up:
            self.ready = failure is None
            keys = ("ssh-ed25519 AAAA",) if self.ready else ()
            self.store.greet(self.machine.id, keys, failure)
        elif self.clock.now < give_up:
            self.clock.after(RETRY, lambda: self._publish(give_up, failure))
        elif failure is None:
            self._hurt(self.machine, "boot gave up")
            self._publish(self.clock.now + PATIENCE, "S3 does not answer")

    def _come_back(self) -> None:
        self.up = self.machine.usable
        if self.rules.timer and self.rules.rearms:
            self._arm(max(0.0, min(self.machine.timer, self.machine.deadline - self.clock.now)))

    def _arm(self, seconds: float) -> None:
        boot_id = self.boot_id
        self.clock.after(seconds, lambda: self._timer_fires(boot_id))

    def _timer_fires(self, boot_id: int) -> None:
        if self.up and self.boot_id == boot_id:
            self._power_off(self.machine)

    def power_off(self) -> None:
        """Turn the machine off."""
        self._power_off(self.machine)

    def _changed(self) -> None:
        for rank in self.ranks.values():
            self.local_steps.update(rank.checkpoints)
        if self.agent is not None:
            self.clock.after(0.5, self.beat_now)

    def beat_now(self) -> None:
        """Let the agent look at once: something changed."""
        if self.agent is not None and self.up:
            self.agent.tick()

    def _stage(self, rank: Rank, gang: Gang, restore_step: int | None) -> None:
        """Stage, set up and run, as `run.sh` does."""
        script = gang.script

        def stage() -> None:
            if not rank.alive:
                return
            rank.word = "staging"
            rank.changed()
            self.clock.after(script.staging * self.rng.uniform(0.5, 2), fetch)

        give_up = self.clock.now + PATIENCE

        def fetch() -> None:
            if not rank.alive:
                return
            if restore_step is None:
                self._drop_newer(None)
            else:
                if not (self.reachable and self.store.up):
                    if self.clock.now < give_up:
                        self.clock.after(RETRY, fetch)
                        return
                    self._hurt(self.machine, "staging gave up")
                    gang.end(rank, 1)
                    return
                self._restore(restore_step)
            rank.word = "setup"
            rank.changed()
            self.clock.after(script.setup * self.rng.uniform(0.5, 2), run)

        def run() -> None:
            if rank.alive:
                rank.word, rank.started = "running", self.clock.now
                rank.changed()
                gang.join(rank, max(self.local_steps, default=0))

        stage()

    def _restore(self, newest_allowed: int) -> None:
        """Bring the newest checkpoint that has a manifest, if its data is what that says."""
        keys = Keys(self.machine.run)
        names = [key.removeprefix(keys.checkpoints).split("/") for key in self.store.keys(keys.checkpoints)]
        steps = {int(step) for step, name in names if name == "MANIFEST.json" and int(step) <= newest_allowed}
        corrupt = {step for step in steps if not self.store.has(keys.checkpoint(step, "state.pt"))}
        found = newest(steps, corrupt) if self.rules.restores else None
        self._drop_newer(found)
        if found is not None:
            self.local_steps.add(found)

    def _drop_newer(self, step: int | None) -> None:
        """Forget the checkpoints after `step`: the other nodes do not have them."""
        self.local_steps = {known for known in self.local_steps if step is not None and known <= step}
        for rank in self.made:
            rank.checkpoints = [known for known in rank.checkpoints if known in self.local_steps]
