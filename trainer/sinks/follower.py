"""`python -m trainer.sinks.follower KIND`: passes on what rank 0 writes to its progress file, until the training ends.

Its job comes as JSON on stdin: `progress` (file) and `offset` (bytes) say what to read, `parent` is the process of rank
0, `patience` how many seconds a sink may take to close; `logs`, `run` and `recipe` are for the sink. It ends with the
training, by the last event or because rank 0 is gone, and leaves nothing behind. What goes wrong is said in one line;
the training does not notice. May not import torch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.events import Progress
from trainer.sinks.kinds import KINDS, Sink

POLL_SECONDS = 0.25
LAST = frozenset({"stopped", "finished", "error"})


def main(kind: str) -> int:
    """Follow; return the exit code, which nobody looks at."""
    job = json.load(sys.stdin)
    try:
        _pass_on(kind, job)
    except Exception as error:  # the boundary: any failure of any package is one line
        summary = (str(error) or repr(error)).splitlines()[0]
        sys.stdout.write(f"{kind} is off, the training goes on without it: {summary}\n")
        return 1
    return 0


def _pass_on(kind: str, job: Mapping[str, Any]) -> None:
    sink: Sink | None = None
    for line in follow(Path(job["progress"]), job["offset"], job["parent"]):
        if line.get("event") == "start":
            sink = KINDS[kind](job, line)
        elif sink is not None and (found := figures(line)):
            sink.add(int(line["step"]), float(line["time"]), found)
    signal.setitimer(signal.ITIMER_REAL, job["patience"])  # where rank 0 is gone, nobody else ends a sink that hangs
    if sink is not None:
        sink.close()


def follow(file: Path, offset: int, parent: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of `file` from byte `offset` as they come, until the last event or until `parent` is gone."""
    rest = b""
    with file.open("rb") as stream:
        stream.seek(offset)
        while True:
            gone = os.getppid() != parent  # looked at before reading: what it wrote last is read
            *whole, rest = (rest + stream.read()).split(b"\n")
            for text in whole:
                line = json.loads(text)
                yield line
                if line.get("event") in LAST:
                    return
            if gone:
                return
            time.sleep(POLL_SECONDS)


def figures(line: Mapping[str, Any]) -> dict[str, float]:
    """Return what a progress line measured, by the name a sink gives it; nothing for other events.

    An eval line repeats the newest figures of the training, which are none of its own.
    """
    event = line.get("event")
    if event not in {None, "eval"}:
        return {}
    group, others = ("validation", {*Progress.FIELDS, "time"}) if event else ("train", {"step", "time"})
    own = {name: value for name, value in line.items() if name not in others and _is_number(value)}
    return {f"{group}/{name.removeprefix('val_')}": float(value) for name, value in own.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
