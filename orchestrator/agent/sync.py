"""The uploads of a node, each in a thread of its own: logs and metrics, and checkpoints, which may take long.

Whatever goes wrong is said and tried again; nothing here reaches the training or the heartbeat.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from orchestrator.agent.checkpoints import Checkpoints
from orchestrator.agent.config import NodeConfig
from orchestrator.agent.logs import LogFiles, SegmentedLog
from orchestrator.agent.metrics import Metrics
from orchestrator.agent.redact import Redactor
from orchestrator.agent.store import Store
from orchestrator.core.ids import Keys

EVERY = 0.5
LONGEST_PAUSE = 20.0

# Performs one round of uploads and tells whether nothing was left; the argument says that no more will come.
Round = Callable[[bool], bool]


class Worker:
    """Repeats rounds until it is closed. `done` is set once a round that began after `finish` left nothing."""

    def __init__(self, name: str, work: Round, say: Callable[[str], None], every: float = EVERY) -> None:
        self._name = name
        self._work = work
        self._say = say
        self._every = every
        self._wake = threading.Event()
        self._final = False
        self._closed = False
        self.done = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """The training has ended: upload what is left at once."""
        if not self._final:
            self._final = True
            self._wake.set()

    def close(self) -> None:
        """End after the round that is going on."""
        self._closed = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._every
        while not self._closed:
            final = self._final
            try:
                complete = self._work(final)
                pause = self._every
            except Exception as error:  # whatever it is, the next round tries again
                complete = False
                pause = min(2 * pause, LONGEST_PAUSE)
                self._say(f"{self._name}: {type(error).__name__}: {error}; again in {pause:.0f} s")
            self.done = final and complete
            self._wake.wait(pause)
            self._wake.clear()


class Sync:
    """All uploads of a node but the beacon."""

    def __init__(self, config: NodeConfig, opened: Callable[[], Store], say: Callable[[str], None]) -> None:
        keys = Keys(config.run)
        secrets = config.secrets()
        rank, generation = config.rank, config.generation
        self._opened = opened
        self.metrics = Metrics(keys.metrics, generation, Redactor(secrets)) if rank == 0 else None
        self.checkpoints = Checkpoints(config.checkpoint_folder, keys, say) if rank == 0 else None
        self._run_log = SegmentedLog(
            config.run_log,
            lambda index: keys.log(rank, f"run.{generation:03d}.{index:04d}.log"),
            Redactor(secrets),
        )
        self._files = LogFiles(
            config.log_folder, config.run_log, lambda name: keys.log(rank, f"{generation:03d}/{name}"), secrets
        )
        self._workers = [Worker("logs", self._sync_logs, say)]
        if (checkpoints := self.checkpoints) is not None:
            self._workers.append(Worker("checkpoints", lambda _: checkpoints.sync(opened()), say))

    def start(self) -> None:
        """Begin uploading."""
        for worker in self._workers:
            worker.start()

    def finish(self) -> None:
        """The training has ended: upload all that is left."""
        for worker in self._workers:
            worker.finish()

    def close(self) -> None:
        """End the threads."""
        for worker in self._workers:
            worker.close()

    @property
    def done(self) -> bool:
        """Whether, since `finish`, everything was found to be in S3."""
        return all(worker.done for worker in self._workers)

    def _sync_logs(self, final: bool) -> bool:
        store, now = self._opened(), time.monotonic()
        complete = self._run_log.sync(store, now, final=final)
        complete &= self._files.sync(store, now, final=final)
        if self.metrics is not None:
            complete &= self.metrics.sync(store, now, final=final)
        return complete
