"""The agent of one node: `python3 -m orchestrator.agent.main NODE_JSON`, in the window `agent` of the run's session.

Every half second it looks at the training, says how the node is, and lets the uploads go on. Nothing that goes wrong
ends it; it ends when the machine does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.agent.attended import is_attended
from orchestrator.agent.beacon import Heart
from orchestrator.agent.config import NodeConfig
from orchestrator.agent.converge import AskToSave, AskToStop, Finish, PowerOff, Report, Seen, converge, is_due
from orchestrator.agent.imds import Metadata
from orchestrator.agent.local import Local, observe
from orchestrator.agent.notice import EVERY, read_advice, read_notice
from orchestrator.agent.pace import Pace
from orchestrator.agent.progress import ProgressTail
from orchestrator.agent.store import Opener, open_store
from orchestrator.agent.sync import Sync
from orchestrator.agent.times import mark_firsts
from orchestrator.agent.trouble import count_oom_kills, find_trouble, free_bytes, read_end
from orchestrator.core.beacon import Stage, Trouble
from orchestrator.errors import NoPermission

TICK = 0.5
# While the last uploads go on, a scheduler waits for the word that they are done.
QUICK_TICK = 0.1


def say(text: str) -> None:
    """Print one line in the agent's window; without a window the agent goes on in silence."""
    with contextlib.suppress(OSError):
        print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)  # noqa: T201 - its window is where the agent speaks


class Agent:
    """One node's agent. `opened` returns the run's bucket, `power_off` turns the machine off."""

    def __init__(self, config: NodeConfig, opened: Opener, power_off: Callable[[], None]) -> None:
        self._config = config
        self.opened = opened
        self._power_off = power_off
        self._heart = Heart(config, _boot_id())
        self._progress = ProgressTail(config.home / config.paths.progress)
        self._pace = Pace()
        self.sync = Sync(config, opened, say)
        self._born = time.monotonic()
        self._stage: Stage | None = None
        self._trouble: Trouble | None = None
        self._oom_kills = count_oom_kills()
        self._watched: object = None
        self._quiet_since = self._born
        self.notice: str | None = None
        self.advice: str | None = None
        self._passed_on: str | None = None

    def tick(self) -> None:
        """Look once and do what follows from it. Raises whatever goes wrong; the next tick starts afresh."""
        local = observe(self._config)
        # After looking, so that of a training that was seen to have ended every line is there before the last uploads.
        lines = self._progress.read()
        self._pace.take(lines, time.time())
        if lines:
            mark_firsts(self._config.times_file, local.times, self._config.generation, lines)
        if self.sync.metrics is not None and lines:
            self.sync.metrics.add(lines)
        synced = self.sync.done
        noticed, advised = self.notice is not None, self.advice != self._passed_on
        due = is_due(local, time.time(), self._config.grace_seconds)
        seen = Seen(local, time.monotonic() - self._born, synced, self._quiet(local, synced), noticed, advised, due)
        for action in converge(seen, self._config.linger_seconds):
            match action:
                case AskToStop():
                    (self._config.home / self._config.paths.stop).touch()
                    say("the training was asked to save and stop" + ": this machine's timer is due" * due)
                case AskToSave():
                    (self._config.home / self._config.paths.save).touch()
                    self._passed_on = self.advice
                    say("EC2 may soon want this instance back; the training was asked to save")
                case Report(stage):
                    self._report(stage, local, synced, due)
                case Finish():
                    self.sync.finish()
                case PowerOff():
                    say("all is done and saved, and no scheduler came: turning this machine off")
                    self._quiet_since = time.monotonic()
                    self._power_off()

    @property
    def ending(self) -> bool:
        """Whether the training has ended, and not everything is in S3 yet."""
        return self._stage in {"exited", "lost"} and not self.sync.done

    def _report(self, stage: Stage, local: Local, synced: bool, due: bool) -> None:
        if stage != self._stage:
            say(f"{stage}: code {local.exit[0]} in {local.exit[1]}" if local.exit else stage)
            if stage == "lost":
                say(_last_words(self._config.session))
            self._stage, self._trouble = stage, self._look_for_trouble(stage, local)
        checkpoints = self.sync.checkpoints
        beacon = replace(
            self._heart.compose(stage, local, datetime.now(UTC)),
            progress=self._progress.last,
            stopped_step=self._progress.stopped,
            checkpoint_step=checkpoints.newest if checkpoints is not None else None,
            synced=synced,
            notice=self.notice,
            advice=self.advice,
            due=due,
            pause=self._pace.pause,
            trouble=self._trouble,
        )
        self._heart.beat(self.opened(), beacon, time.monotonic())

    def _look_for_trouble(self, stage: Stage, local: Local) -> Trouble | None:
        code = local.exit[0] if local.exit else None
        if stage not in {"exited", "lost"} or code == 0:
            return None
        said = read_end(self._config.run_log)
        return find_trouble(said, code, count_oom_kills() - self._oom_kills, free_bytes(self._config.folder))

    def _quiet(self, local: Local, synced: bool) -> float:
        """Return the seconds since the training ended, all was saved and a scheduler last came, whichever was last.

        One that holds the run counts as come: it may be waiting for the replacement of another node, for long.
        """
        watched, now = (local.exit, synced, local.epoch, local.contact), time.monotonic()
        lonely = synced and now - self._quiet_since >= self._config.linger_seconds
        if watched != self._watched or (lonely and self._attended()):
            self._watched, self._quiet_since = watched, now
        return now - self._quiet_since

    def _attended(self) -> bool:
        return is_attended(lambda key: self.opened().get(key), self._config.run, datetime.now(UTC))

    def watch_for_notice(self, metadata: Metadata, closed: threading.Event) -> None:
        """Ask every 5 s whether EC2 takes the instance back, until it says so."""
        trouble = ""
        while self.notice is None:
            try:
                self.notice = read_notice(metadata)
                self.advice, now_trouble = self.advice or read_advice(metadata), ""
            except Exception as error:
                now_trouble = f"notices cannot be seen: {error}"
            if now_trouble != trouble:
                say(now_trouble or "notices can be seen again")
                trouble = now_trouble
            if closed.wait(EVERY):
                return
        say(f"EC2 takes this instance back at {self.notice}")


def run(agent: Agent, metadata: Metadata, closed: threading.Event) -> None:
    """Tick until `closed`."""
    agent.sync.start()
    threading.Thread(target=agent.watch_for_notice, args=(metadata, closed), name="notice", daemon=True).start()
    trouble = ""
    while not closed.is_set():
        try:
            agent.tick()
            trouble = ""
        except Exception as error:
            if isinstance(error, NoPermission):
                agent.opened.forget()
            if str(error) != trouble:
                trouble = str(error)
                say(f"{type(error).__name__}: {error}; trying again")
        closed.wait(QUICK_TICK if agent.ending else TICK)
    agent.sync.close()


def power_off() -> None:
    """Turn the machine off; its shutdown behaviour is to terminate."""
    command = ["shutdown", "-P", "now"]
    subprocess.run(command if os.geteuid() == 0 else ["sudo", "-n", *command], check=True, timeout=60)


def main(arguments: list[str]) -> int:
    """Run the agent of the `node.json` named; a second one of the same generation ends at once."""
    config = NodeConfig.load(Path(arguments[0]), Path(os.environ["HOME"]))
    with (config.folder / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another agent looks after this node")
            return 0
        say(f"node {config.rank} of {config.num_nodes} in {config.run}, generation {config.generation}")
        opened = Opener(lambda: open_store(config.bucket, config.region))
        run(Agent(config, opened, power_off), Metadata(), threading.Event())
    return 0


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _last_words(session: str) -> str:
    """Return what tmux knows of a training that vanished; libtmux is slow to import, so only now."""
    try:
        from orchestrator.node.tmux import Tmux

        lines = [line for line in Tmux().capture(session, "train").splitlines() if line.strip()]
    except Exception as error:  # the tmux server itself may be what vanished
        return f"its window is gone: {error}"
    return lines[-1] if lines else "its window is empty"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
