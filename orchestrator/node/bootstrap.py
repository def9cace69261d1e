"""The user-data of a node: the dead-man timer first, then the boot script; at every later boot the timer again. Pure.

It is a MIME multipart of two scripts, as cloud-init takes it. `text/x-shellscript-per-boot` runs at every boot, before
`text/x-shellscript`, which runs at the first one only. A cloud-init that is too old for the former passes it over.
Source: https://docs.cloud-init.io/en/latest/explanation/format.html

Everybody who may describe the instance, and every process on it, can read user-data: nothing secret may go in.
"""

from __future__ import annotations

import ast
import re
import shlex
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

from orchestrator.core import contract, ids

# EC2 takes 16 KiB before base64; staying under it after base64 leaves room for whoever counts the other way.
LIMIT = 16 * 1024
END = "ORCH_BOOT_SCRIPT"
BOUNDARY = "ORCH_PART"

# cloud-init leaves it in a folder that an image made of a node takes along: it serves only the machine it first ran on.
# A wrong clock can shorten a node's life, never make it longer than the timer from this boot on.
_EVERY_BOOT = """\
#!/bin/bash
# Arms the dead-man timer of a node of run {run}.
machine=
{{ read -r machine </var/lib/cloud/data/instance-id; }} 2>/dev/null
if [ -s "$0.of" ]; then
  read -r first <"$0.of"
  [ "$first" = "$machine" ] || exit 0
else
  echo "$machine" >"$0.of"
fi
printf -v now '%(%s)T' -1
left=$((({deadline} - now + 59) / 60))
[ "$left" -le {minutes} ] || left={minutes}
[ "$left" -ge 0 ] || left=0
shutdown -P "+$left" || echo "orch: the dead-man timer could not be armed"
"""

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
{prelude}{data}exec "${{python[@]}}" <<'{end}'
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


# What an image has to be given before it can be a node at all; the boot script says what is missing when it fails.
_PRELUDE = """\
bash -e -c {text} </dev/null || echo "orch: what was to be done first failed with code $?"
"""


@dataclass(frozen=True, slots=True)
class BootConfig:
    """What user-data is made of. `timer`: how long a node lives at most; `bundle`: the sha256 of the code bundle.

    `deadline` is the moment (with its time zone) until which a node that boots again lives, but no longer than `timer`.
    `stages_data` says whether there is data to stage, for which a memory file system is mounted. `prelude` is shell
    text that runs once, before the boot script, as the user who runs user-data (root on EC2). Raises ValueError when a
    value could not stand in a shell script or S3 key as it is.
    """

    run: str
    bucket: str
    region: str
    bundle: str
    ssh_user: str
    timer: timedelta
    deadline: datetime
    stages_data: bool = False
    prelude: str = ""

    def __post_init__(self) -> None:
        rules = {
            "run": ids.is_run_id(self.run),
            "bucket": re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket),
            "region": re.fullmatch(r"[a-z0-9-]{1,40}", self.region),
            "bundle": re.fullmatch(r"[0-9a-f]{64}", self.bundle),
            "ssh_user": re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", self.ssh_user),
            "timer": self.timer > timedelta(),
            "deadline": self.deadline.tzinfo is not None,
            "prelude": self.prelude.isascii(),
        }
        wrong = [name for name, fine in rules.items() if not fine]
        if wrong:
            raise ValueError(f"unfit for user-data: {', '.join(f'{name}={getattr(self, name)!r}' for name in wrong)}")


def user_data(config: BootConfig) -> str:
    """Return the user-data of every node of one launch; it is the same for all of them. Raises ValueError: too long."""
    parts = MIMEMultipart(boundary=BOUNDARY)
    for kind, script in (("x-shellscript-per-boot", every_boot(config)), ("x-shellscript", first_boot(config))):
        part = MIMEText(script, kind, "us-ascii")
        part.add_header("Content-Disposition", "attachment", filename=f"{config.run}.sh")
        parts.attach(part)
    text = parts.as_string()
    if len(text) * 4 / 3 > LIMIT:
        raise ValueError(f"user-data has {len(text)} bytes")
    return text


def every_boot(config: BootConfig) -> str:
    """Return the script that arms the timer for what is left until the deadline, and shuts down when nothing is."""
    return _EVERY_BOOT.format(run=config.run, deadline=int(config.deadline.timestamp()), minutes=_minutes(config))


def first_boot(config: BootConfig) -> str:
    """Return the script that arms the timer and boots the node."""
    values = {name: getattr(config, name) for name in ("run", "bucket", "region", "bundle")}
    values["minutes"] = str(_minutes(config))
    return _TEMPLATE.format(
        run=config.run,
        minutes=_minutes(config),
        user=shlex.quote(config.ssh_user),
        prelude=_PRELUDE.format(text=shlex.quote(config.prelude)) if config.prelude else "",
        data=_DATA.format(data=contract.DATA) if config.stages_data else "",
        script=f"{_boot_script()}\nmain({values!r})",
        end=END,
    )


def _minutes(config: BootConfig) -> int:
    return -(-config.timer // timedelta(minutes=1))


def _boot_script() -> str:
    """Return the boot script without docstrings, comments and annotations, which user-data has no room for."""
    tree = ast.parse(Path(__file__).with_name("boot_script.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(tree)
