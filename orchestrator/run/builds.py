"""What building an image and building a snapshot share: killed builds of the same are cleared away first, every run is
noted, and what a build that comes to nothing has cost is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.spec import RunSpec
from orchestrator.core.units import counted, format_usd
from orchestrator.errors import BadInput, OrchError
from orchestrator.run.foreground import Log
from orchestrator.run.gc import find_orphans, remove
from orchestrator.run.home import Home
from orchestrator.run.interrupts import as_ctrl_c
from orchestrator.run.prepare import Prepared, begin
from orchestrator.run.read import open_runs, read_run
from orchestrator.run.spec import load_spec


@dataclass(slots=True)
class Build:
    """A build under way: the `runs` (ids) that it has begun, and whether it has come to what was wanted."""

    session: Session
    bucket: Bucket
    home: Home
    log: Log
    runs: list[str] = field(default_factory=list)
    done: bool = False

    def begin(self, prepared: Prepared) -> str:
        """Begin a run as any other, and note it; return its id. Raises OrchError."""
        run = begin(prepared, self.session, self.home, name=None, now=datetime.now(UTC), on_progress=self.log).run_id
        self.runs.append(run)
        self.log(f"run {run}; `orch attach {run}` shows its terminal")
        return run


@contextmanager
def building(
    session: Session, bucket: Bucket, home: Home, log: Log, same: Callable[[RunSpec], bool]
) -> Iterator[Build]:
    """Remove what killed builds of the `same` left; unless this one says that it is done, tell at its end what it cost.

    Nothing of a killed one could be gone on with. SIGTERM and SIGHUP interrupt it as Ctrl-C does. Raises BadInput while
    another of the `same` is under way, which would be paid for twice, and OrchError.
    """

    def tell(line: str) -> None:
        # A terminal or pipe that is gone must not keep a build from ending what it began.
        with suppress(OSError):
            log(line)

    with as_ctrl_c():
        _remove_dead(session, bucket, tell, same)
        if others := [run for run in open_runs(bucket, same) if _is(bucket, run, same)]:
            raise BadInput(
                f"{others[0]} builds the same right now",
                f"`orch watch {others[0]}` shows it; what it publishes, the same command finds; nothing was begun",
            )
        build = Build(session, bucket, home, tell)
        try:
            yield build
        finally:
            if build.runs and not build.done:
                # What the build failed of is what its user must hear: a bill that cannot be read is in `orch cost`.
                with suppress(OrchError):
                    paid = dollars(session, bucket, build.runs)
                    tell(f"cost so far: {paid}; `orch cost {build.runs[-1]}` shows the bill")


def dollars(session: Session, bucket: Bucket, runs: Sequence[str]) -> str:
    """Return the bills of runs as they stand: `$0.02 + $0.01`. Raises OrchError."""
    return " + ".join(format_usd(read_run(session, bucket, run).bill.high) for run in runs)


def _remove_dead(session: Session, bucket: Bucket, log: Log, same: Callable[[RunSpec], bool]) -> None:
    """Remove what is left of the `same`, as `orch gc` would; what somebody looks after is let be."""
    orphans = find_orphans(session, bucket)
    runs = sorted(run for run in {item.run for item in orphans} if _is(bucket, run, same))
    if not runs:
        return
    log(f"{', '.join(runs)} built the same and was killed: removing what it left, and beginning anew")
    if left := remove(session, bucket, [item for item in orphans if item.run in runs], log):
        log(f"{counted(len(left), 'thing')} could not be removed yet; `orch gc` removes the rest")


def _is(bucket: Bucket, run: str, same: Callable[[RunSpec], bool]) -> bool:
    try:
        return same(load_spec(bucket, run))
    except OrchError:
        return False
