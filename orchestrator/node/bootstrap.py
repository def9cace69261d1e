"""The user-data of a node: the dead-man timer first, then the boot script. Pure.

Everybody who may describe the instance, and every process on it, can read user-data: nothing secret may go in.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from orchestrator.core import contract, ids

# EC2 takes 16 KiB before base64; staying under it after base64 leaves room for whoever counts the other way.
LIMIT = 16 * 1024
END = "ORCH_BOOT_SCRIPT"

_TEMPLATE = """\
#!/bin/bash
# Boots a node of run {run}.
shutdown -P +{minutes} || {{ echo "orch: the dead-man timer could not be armed; this node stays unused"; exit 1; }}
user={user}
[ -n "${{HOME:-}}" ] || HOME=$(getent passwd "$user" | cut -d: -f6)
python=(python3 -)
if [ "$(id -un)" != "$user" ]; then
  HOME=$(getent passwd "$user" | cut -d: -f6)
  python=(runuser -l "$user" -c 'exec python3 -')
fi
export HOME
{data}exec "${{python[@]}}" <<'{end}'
{script}
{end}
"""

# Data sets are staged into memory; a node that cannot mount keeps them on its disk.
_DATA = """\
if [ "$EUID" = 0 ]; then
  mkdir -p "$HOME/{data}" && mount -t tmpfs -o size=90%,mode=0700 orch-data "$HOME/{data}" \\
    || echo "orch: no tmpfs for data, using the disk"
  chown "$user:" "$HOME/{data}"
fi
"""


@dataclass(frozen=True, slots=True)
class BootConfig:
    """What user-data is made of. `timer`: how long a node lives at most; `bundle`: the sha256 of the code bundle.

    `stages_data` says whether there is data to stage, for which a memory file system is mounted. Raises ValueError
    when a value could not stand in a shell script or S3 key as it is.
    """

    run: str
    bucket: str
    region: str
    bundle: str
    ssh_user: str
    timer: timedelta
    stages_data: bool = False

    def __post_init__(self) -> None:
        rules = {
            "run": ids.is_run_id(self.run),
            "bucket": re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket),
            "region": re.fullmatch(r"[a-z0-9-]{1,40}", self.region),
            "bundle": re.fullmatch(r"[0-9a-f]{64}", self.bundle),
            "ssh_user": re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", self.ssh_user),
            "timer": self.timer > timedelta(),
        }
        wrong = [name for name, fine in rules.items() if not fine]
        if wrong:
            raise ValueError(f"unfit for user-data: {', '.join(f'{name}={getattr(self, name)!r}' for name in wrong)}")


def user_data(config: BootConfig) -> str:
    """Return the user-data script of every node of a run; it is the same for all of them."""
    values = {"run": config.run, "bucket": config.bucket, "region": config.region, "bundle": config.bundle}
    text = _TEMPLATE.format(
        run=config.run,
        minutes=-(-config.timer // timedelta(minutes=1)),
        user=shlex.quote(config.ssh_user),
        data=_DATA.format(data=contract.DATA) if config.stages_data else "",
        script=f"{_boot_script()}\nmain({values!r})",
        end=END,
    )
    if len(text) * 4 / 3 > LIMIT:
        raise ValueError(f"user-data has {len(text)} bytes")
    return text


def _boot_script() -> str:
    """Return the boot script without docstrings and comments, which user-data has no room for."""
    tree = ast.parse(Path(__file__).with_name("boot_script.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.unparse(tree)
