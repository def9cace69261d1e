"""S3's clock as its replies show it: the time that all schedulers of a run agree on, whatever their own clocks say."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

# A Date header has whole seconds: the true time of the reply lies within the second that it begins.
RESOLUTION = timedelta(seconds=1)


class ServerClock:
    """The server's time, set by the Date header of every reply and carried on in between by the monotonic clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._base: datetime | None = None
        self._at = 0.0

    def note(self, date_header: str) -> None:
        """Take in the Date header of a reply that just came; one that is no date is ignored."""
        try:
            date = parsedate_to_datetime(date_header)
        except ValueError:
            return
        with self._lock:
            now = time.monotonic()
            estimate = self._estimate(now) or date
            self._base, self._at = min(max(estimate, date), date + RESOLUTION), now

    def now(self) -> datetime | None:
        """Return the server's time (UTC, within a second), None before the first reply."""
        with self._lock:
            return self._estimate(time.monotonic())

    def _estimate(self, at: float) -> datetime | None:
        return None if self._base is None else self._base + timedelta(seconds=at - self._at)
