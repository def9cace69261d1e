"""Where a cloud is and how its nodes are reached: the only things in which AWS and the sandbox differ. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """One cloud as the caller sees it.

    `endpoint_url` None means AWS itself; `access_key` None means boto3's own credential chain. `ssh_address` says
    which of an instance's addresses its `sshd` is reached at, `ssh_cidr` from where (None: this machine's address as
    the cloud sees it). `billing` is where AWS leaves its own bill (s3://bucket/prefix).
    """

    cloud: str
    region: str
    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = None
    ssh_user: str = "ubuntu"
    ssh_port: int = 22
    ssh_address: Literal["public", "private"] = "public"
    ssh_cidr: str | None = None
    bucket: str | None = None
    image: str | None = None
    billing: str | None = None
