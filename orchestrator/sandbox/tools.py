"""Which programs the hosts are made of, and whether this machine and user can have hosts at all.

May not start anything; every refusal is one line with what to install or do.
"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from orchestrator.errors import BadInput, OrchError

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPENSSH_FOLDERS = ("lib/openssh", "libexec/openssh", "libexec", "lib/ssh", "lib64/ssh")
_NO_LOGIN = frozenset({"nologin", "false", "sync"})


@dataclass(frozen=True, slots=True)
class Tools:
    """Paths of what a host runs.

    Programs that were unpacked and not installed need `libraries` (LD_LIBRARY_PATH) and `sshd_options` (lines that say
    where sshd's other halves lie, for releases that have them); both are empty otherwise.
    """

    sshd: str
    sshd_options: tuple[str, ...]
    sftp_server: str | None
    tmux: str
    bash: str
    libraries: str


def find(environ: dict[str, str]) -> Tools:
    """Return the tools of this machine: unpacked ones in $ORCH_TOOLS, else those on PATH or in /usr/sbin.

    Raises OrchError when one is missing or the operating system cannot have hosts.
    """
    if platform.system() != "Linux":
        raise OrchError(
            f"the sandbox needs Linux: {platform.system()} has no loopback network of many hosts and no subreapers",
            "use Linux or WSL2, or launch on AWS with `--cloud aws`",
        )
    unpacked = Path(environ["ORCH_TOOLS"]) if environ.get("ORCH_TOOLS") else None
    own = [str(unpacked / "usr" / part) for part in ("bin", "sbin")] if unpacked else []
    path = os.pathsep.join([*own, environ.get("PATH", ""), SYSTEM_PATH])
    found = {name: shutil.which(name, path=path) for name in ("sshd", "tmux", "bash")}
    packages = {"sshd": "openssh-server", "tmux": "tmux", "bash": "bash"}
    missing = [name for name, where in found.items() if where is None]
    if missing:
        raise OrchError(
            f"the sandbox needs {' and '.join(missing)}, and this machine has none",
            f"apt-get install {' '.join(packages[name] for name in missing)}",
        )
    if find_spec("moto") is None:
        raise OrchError("the sandbox needs moto, which is not installed", "pip install 'orch[sandbox]'")
    sshd = str(found["sshd"])
    return Tools(
        sshd=sshd,
        sshd_options=_halves(sshd) if unpacked else (),
        sftp_server=_beside(sshd, "sftp-server"),
        tmux=str(found["tmux"]),
        bash=str(found["bash"]),
        libraries=os.pathsep.join(str(folder) for folder in sorted((unpacked / "usr/lib").glob("*-linux-gnu*")))
        if unpacked
        else "",
    )


def check_user() -> str:
    """Return the name of the user whom the hosts' sshd will admit: the current one. Raises BadInput."""
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        raise BadInput(
            f"user id {os.geteuid()} has no entry in /etc/passwd, and sshd admits only users that have one",
            "run as a user that exists on this machine",
        ) from None
    if Path(user.pw_shell).name in _NO_LOGIN:
        raise BadInput(
            f"sshd lets {user.pw_name} run nothing: the login shell is {user.pw_shell}", "run as a user with a shell"
        )
    if os.geteuid() == 0 and _locked(user.pw_name):
        raise BadInput(
            f"sshd refuses {user.pw_name}: the account is locked ('!' in /etc/shadow)", "run as an ordinary user"
        )
    return user.pw_name


def _locked(name: str) -> bool:
    try:
        lines = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return False
    return any(line.startswith(f"{name}:!") for line in lines)


def _halves(sshd: str) -> tuple[str, ...]:
    halves = {"SshdSessionPath": _beside(sshd, "sshd-session"), "SshdAuthPath": _beside(sshd, "sshd-auth")}
    return tuple(f"{option} {path}" for option, path in halves.items() if path)


def _beside(sshd: str, name: str) -> str | None:
    """Return one of sshd's helpers, looked up under the same prefix first (an unpacked sshd has its own)."""
    for prefix in (Path(sshd).parent.parent, Path("/usr")):
        for folder in _OPENSSH_FOLDERS:
            if os.access(prefix / folder / name, os.X_OK):
                return str(prefix / folder / name)
    return None
