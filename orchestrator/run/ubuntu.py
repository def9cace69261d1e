"""Ubuntu's own image, for machines that need no driver, and what orch's agent lacks on it."""

from __future__ import annotations

IMAGE = "ssm:/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
_APT = "apt-get -o DPkg::Lock::Timeout=300"


def prelude(*modules: str) -> str:
    """Return shell lines for root that install what the agent needs (as ami/volta.yaml does), and Python's `modules`.

    On an image that has all of it, Ubuntu's or not, they do nothing.
    """
    wanted = ("boto3", *modules)
    return f"""\
command -v tmux >/dev/null && python3 -c 'import {", ".join(wanted)}' || {{
  export DEBIAN_FRONTEND=noninteractive
  {_APT} update -q
  {_APT} install -qy tmux {" ".join(f"python3-{name}" for name in wanted)}
}}
"""
