"""Work that is due later, done off the caller's thread, and dropped when the sandbox closes."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

WORKERS = 24
_log = logging.getLogger(__name__)


class Timers:
    """Runs each job once its time has come, many at a time; jobs handle their own errors, others are logged."""

    def __init__(self) -> None:
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="ec2")
        self._thread = threading.Thread(target=self._run, name="ec2-timers", daemon=True)
        self._thread.start()

    def after(self, seconds: float, job: Callable[[], None]) -> None:
        """Do `job` in `seconds` from now; nothing once closed."""
        with self._changed:
            heapq.heappush(self._jobs, (time.monotonic() + seconds, next(self._order), job))
            self._changed.notify()

    def close(self) -> None:
        """Drop all jobs that have not begun."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and not (self._jobs and self._jobs[0][0] <= time.monotonic()):
                    self._changed.wait(self._jobs[0][0] - time.monotonic() if self._jobs else None)
                if self._closed:
                    return
                job = heapq.heappop(self._jobs)[2]
            self._workers.submit(_guarded, job)


def _guarded(job: Callable[[], None]) -> None:
    try:
        job()
    except Exception:
        _log.exception("a timed job of the sandbox's EC2 failed")
