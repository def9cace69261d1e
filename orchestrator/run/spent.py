"""What the runs of a build have cost, told when the build comes to nothing. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.units import format_usd
from orchestrator.errors import OrchError
from orchestrator.run.read import read_run


@dataclass(slots=True)
class Spending:
    """The runs that a build has begun, and whether it has come to what was wanted."""

    runs: list[str] = field(default_factory=list)
    done: bool = False


def dollars(session: Session, bucket: Bucket, runs: Sequence[str]) -> str:
    """Return the bills of runs as they stand: `$0.02 + $0.01`. Raises OrchError."""
    return " + ".join(format_usd(read_run(session, bucket, run).bill.high) for run in runs)


@contextmanager
def spending(session: Session, bucket: Bucket, log: Callable[[str], None]) -> Iterator[Spending]:
    """Have a build note its runs; unless it says that it is done, however it ends, tell what they have cost so far."""
    noted = Spending()
    try:
        yield noted
    finally:
        if noted.runs and not noted.done:
            # What the build failed of is what its user must hear: a bill that cannot be read is in `orch cost`.
            with suppress(OrchError):
                log(f"cost so far: {dollars(session, bucket, noted.runs)}; `orch cost {noted.runs[-1]}` shows the bill")
