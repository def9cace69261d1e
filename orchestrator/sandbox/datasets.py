"""The data sets that are simply there in the sandbox's S3, as public ones are on AWS: made on first use, then cached.

The trainer makes them from packages of the user's own package index; here they are only put into a bucket.
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
# Name -> the trainer's command that makes the folder it is given.
MAKERS = {"digits": "digits"}
LIMIT_SECONDS = 600


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
    account.ensure_bucket(session, BUCKET)
    bucket = Bucket(session, BUCKET)
    folder = home / "datasets" / name
    if not folder.exists():
        _make(name, folder, on_progress)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    there = {item.key: item.size for item in bucket.list(f"{name}/")}
    for path in files:
        key = f"{name}/{path.relative_to(folder).as_posix()}"
        if there.get(key) != path.stat().st_size:
            bucket.upload_file(path, key)


def _make(name: str, folder: Path, on_progress: Callable[[str], None]) -> None:
    on_progress(f"making the sandbox data set {name} (once; kept in {folder})")
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "trainer", MAKERS[name], str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode != 0 or not folder.exists():
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise NotFound(f"the data set {name} could not be made: {last}", "pip must be able to reach a package index")
