"""`$ORCH_HOME/config.yaml`: the few settings that are neither in the AWS configuration nor in an experiment."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.settings import Settings
from orchestrator.core.units import counted, listed
from orchestrator.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.run.notify import Targets

S3 = "s3://"
WEB = ("https://", "http://")
KEYS = {
    "region": "the region when neither AWS_REGION nor AWS_DEFAULT_REGION is set",
    "ssh_user": "the user of the image that SSH logs in as",
    "ssh_address": "public or private: which address of a node SSH goes to",
    "ssh_cidr": "the addresses SSH is opened to; by default this machine's own",
    "bucket": "the bucket runs are kept in; by default orch-<account>-<region>",
    "billing": "s3://bucket/prefix of the spot data feed or of a CUR 2.0 export: what --reconcile reads",
    "image": "the image of experiments that name none",
    "notify_webhook": "the URL of a Slack-compatible webhook that is told how runs go",
    "notify_command": "a shell command that is run with such news in ORCH_EVENT, ORCH_RUN and ORCH_TEXT",
}


def aws_settings(home: Path, environ: Mapping[str, str]) -> Settings:
    """Return the settings of AWS: environment before file before defaults. The region is "" where neither names one.

    Raises BadInput listing every fault of the file.
    """
    file = home / "config.yaml"
    values = _read(file)
    faults = [_unknown(key) for key in values if key not in KEYS]
    faults += [f"{key}: must be a text" for key, value in values.items() if key in KEYS and not _is_text(value)]
    if values.get("ssh_address", "public") not in ("public", "private"):
        faults.append("ssh_address: must be public or private")
    if _is_text(billing := values.get("billing", S3)) and not str(billing).startswith(S3):
        faults.append(f"billing: must be {S3}bucket/prefix")
    webhook = values.get("notify_webhook", WEB[0])
    if _is_text(webhook) and not str(webhook).startswith(WEB):
        faults.append("notify_webhook: must be an https:// URL")
    if faults:
        raise BadInput(f"{file}: {counted(len(faults), 'fault')}", "docs/commands.md", details=tuple(faults))
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or values.get("region") or ""
    return Settings(
        cloud="aws",
        region=str(region),
        ssh_user=str(values.get("ssh_user", "ubuntu")),
        ssh_address="private" if values.get("ssh_address") == "private" else "public",
        ssh_cidr=_optional(values, "ssh_cidr"),
        bucket=_optional(values, "bucket"),
        image=_optional(values, "image"),
        billing=_optional(values, "billing"),
    )


def notify_targets(home: Path) -> Targets:
    """Return who is told how runs go. A file that cannot be read, or a value that is no text, tells nobody."""
    from orchestrator.run.notify import Targets

    try:
        values = _read(home / "config.yaml")
    except BadInput:
        return Targets()
    webhook, command = values.get("notify_webhook"), values.get("notify_command")
    usable = _is_text(webhook) and str(webhook).startswith(WEB)
    return Targets(str(webhook) if usable else None, str(command) if _is_text(command) else None)


def _read(file: Path) -> dict[object, object]:
    if not file.exists():
        return {}
    import yaml

    try:
        value = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{file} cannot be read: {' '.join(str(error).split())}", "mend or remove it") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{file} must hold keys and values", f"it may have: {', '.join(KEYS)}")
    return value


def _unknown(key: object) -> str:
    near = difflib.get_close_matches(str(key), KEYS, n=1)
    return f"{key}: unknown key; " + (f"did you mean {near[0]}?" if near else listed(KEYS))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _optional(values: Mapping[object, object], key: str) -> str | None:
    value = values.get(key)
    return None if value is None else str(value)
