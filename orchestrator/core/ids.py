"""Names of things: run ids, tags, tokens, S3 keys. Pure, and injective: two runs never share a name."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

NAME_RULE = "1 to 40 of a-z, 0-9 and '-', beginning with a letter"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_RUN_ID = re.compile(r"[a-z][a-z0-9-]{0,39}-\d{8}-\d{6}-[a-z0-9]{4}")

TAG_RUN = "orch:run"
TAG_NAME = "orch:name"
TAG_USER = "orch:user"
TAG_GENERATION = "orch:generation"
# Of machine images, their snapshots and what builds and checks them: the digest of their recipe. Of an image and its
# snapshots, once they are published, also the recipe's name.
TAG_RECIPE = "orch:recipe"
TAG_IMAGE = "orch:image"
# Of snapshots of data sets: version and bytes of the set, and, once they are published, its name.
TAG_VERSION = "orch:version"
TAG_BYTES = "orch:bytes"
TAG_DATASET = "orch:dataset"
TAG_TOKEN = "orch:token"  # noqa: S105 - the name of a tag that carries an idempotency token, no secret


def is_name(text: str) -> bool:
    """Tell whether `text` may name an experiment or run (NAME_RULE)."""
    return _NAME.fullmatch(text) is not None


def is_run_id(text: str) -> bool:
    """Tell whether `text` has the form of a run id."""
    return _RUN_ID.fullmatch(text) is not None


def run_id(name: str, now: datetime, suffix: str) -> str:
    """Return `<name>-<YYYYMMDD>-<HHMMSS>-<suffix>` (UTC); `suffix` is four random characters of a-z0-9."""
    result = f"{name}-{now.astimezone(UTC):%Y%m%d-%H%M%S}-{suffix}"
    if not is_run_id(result):
        raise ValueError(f"{result!r} is not a run id")
    return result


def run_name(run: str) -> str:
    """Return the name in a run id: what stands before its time and suffix."""
    return run.rsplit("-", 3)[0]


def client_token(run: str, generation: int, attempt: int) -> str:
    """Return the idempotency token (64 hex digits) of one launch attempt; the same attempt gives the same token."""
    return hashlib.sha256(f"{run}/{generation}/{attempt}".encode()).hexdigest()


def resource_name(run: str) -> str:
    """Return the name of the run's key pair, security group and placement group."""
    return f"orch-{run}"


def session_name(run: str) -> str:
    """Return the name of the tmux session of a run, on its nodes and for its scheduler."""
    return f"orch-{run}"


def bucket_name(account: str, region: str) -> str:
    """Return the name of the account's bucket in a region."""
    return f"orch-{account}-{region}"


def is_account_bucket(name: str) -> bool:
    """Tell whether a bucket is named as the one that `orch` makes in an account and region."""
    return re.fullmatch(r"orch-\d{12}-[a-z0-9-]+", name) is not None


def master_port(run: str, generation: int) -> int:
    """Return the rendezvous port of a generation: drawn per run, so that runs side by side do not meet."""
    digest = hashlib.sha256(f"port/{run}/{generation}".encode()).digest()
    return 20_000 + int.from_bytes(digest[:4], "big") % 9_000


def preflight_port(run: str, generation: int) -> int:
    """Return the port at which rank 0 gathers the gang before the training; never that of the rendezvous."""
    return 29_000 + master_port(run, generation) % 3_000


class Keys:
    """The S3 keys under one run's prefix (`runs/<run-id>/`)."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.prefix = f"runs/{run}/"
        self.spec = f"{self.prefix}run.json"
        self.lease = f"{self.prefix}lease.json"
        self.ledger = f"{self.prefix}ledger/"
        self.nodes = f"{self.prefix}nodes/"
        self.checkpoints = f"{self.prefix}checkpoints/"
        self.logs = f"{self.prefix}logs/"
        self.metrics = f"{self.prefix}metrics.jsonl"
        self.prices = f"{self.prefix}prices.jsonl"
        self.report = f"{self.prefix}report.json"
        self.reconciliation = f"{self.prefix}reconciliation.json"
        self.report_html = f"{self.prefix}report.html"

    def entry(self, seq: int) -> str:
        """Key of ledger entry `seq`; zero-padded, so that a listing is in order."""
        return f"{self.ledger}{seq:08d}.json"

    def host_key(self, instance_id: str) -> str:
        """Key of a node's public SSH host keys (lines as in ssh_host_*_key.pub); written when the node is ready."""
        return f"{self.nodes}{instance_id}/host_keys"

    def boot_failure(self, instance_id: str) -> str:
        """Key of the last lines of a boot that failed (text)."""
        return f"{self.nodes}{instance_id}/boot_failure"

    def beacon(self, instance_id: str) -> str:
        """Key of a node's heartbeat (`core.beacon.Beacon`)."""
        return f"{self.nodes}{instance_id}/beacon.json"

    def instance(self, instance_id: str) -> str:
        """Key of what EC2 last said of an instance (`core.facts.Instance`), kept since EC2 forgets in an hour."""
        return f"{self.nodes}{instance_id}/instance.json"

    def checkpoint(self, step: int, name: str) -> str:
        """Key of a file of checkpoint `step`."""
        return f"{self.checkpoints}{step}/{name}"

    def manifest(self, step: int) -> str:
        """Key of the manifest that makes checkpoint `step` exist."""
        return self.checkpoint(step, "MANIFEST.json")

    def log(self, rank: int, name: str) -> str:
        """Key of a log file of the node of `rank`."""
        return f"{self.logs}{rank}/{name}"


def bundle_key(digest: str) -> str:
    """Key of a code bundle, by the sha256 of its bytes."""
    return f"bundles/{digest}"


def bucket_and_prefix(source: str) -> tuple[str, str]:
    """Return the bucket of an s3:// URL, and what the keys below it begin with: "" for all, else it ends with `/`."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    return bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
