"""OpenSSH's own command line to a node, for people: pinned host key, one identity, nothing forwarded.

Pure: performs nothing, reads nothing of the caller's own ssh configuration.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.errors import BadInput

DEFAULT_PORT = 22
# Ed25519 first: the cheapest to check.
HOST_KEY_TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,3}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
_OPTIONS = (
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=/dev/null",
    "UpdateHostKeys=no",
    "VerifyHostKeyDNS=no",
    "IdentitiesOnly=yes",
    "IdentityAgent=none",
    "PreferredAuthentications=publickey",
    "BatchMode=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "ControlMaster=no",
    "ControlPath=none",
    "PermitLocalCommand=no",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "LogLevel=ERROR",
)


def parse_host_keys(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Return (type, base64) of lines as in `ssh_host_*_key.pub`, cheapest type first; other lines are left out."""
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] in HOST_KEY_TYPES and _BASE64.fullmatch(words[1]):
            found.append((words[0], words[1]))
    return sorted(set(found), key=lambda key: HOST_KEY_TYPES.index(key[0]))


def known_hosts_lines(address: str, port: int, host_keys: Iterable[str]) -> str:
    """Return the known_hosts file that admits these host keys for one node and nothing else. Raises BadInput."""
    host = _checked(address, _ADDRESS, "address")
    name = host if port == DEFAULT_PORT else f"[{host}]:{port}"
    return "".join(f"{name} {kind} {key}\n" for kind, key in parse_host_keys(host_keys))


def ssh_argv(  # noqa: PLR0917 - in the order of the command line
    user: str,
    address: str,
    port: int,
    key_file: Path,
    known_hosts_file: Path,
    command: Sequence[str] = (),
    *,
    tty: bool = False,
) -> list[str]:
    """Return the argument list of `ssh` to a node; without `command` it opens a shell.

    One word of `command` is a line for the node's shell; several reach the program there exactly as they are here.
    Raises BadInput for a user or address that could be taken for an option.
    """
    target = f"{_checked(user, _USER, 'user')}@{_checked(address, _ADDRESS, 'address')}"
    options = [*_OPTIONS, f"UserKnownHostsFile={_quoted(known_hosts_file)}", f"IdentityFile={_quoted(key_file)}"]
    flags = [word for option in options for word in ("-o", option)]
    line = list(command) if len(command) <= 1 else [shlex.join(command)]
    # -F: the caller's configuration could add a proxy, a forwarding or another identity.
    return ["ssh", "-F", "/dev/null", *flags, "-p", str(port), "-t" if tty else "-T", "--", target, *line]


def _checked(text: str, rule: re.Pattern[str], what: str) -> str:
    if not rule.fullmatch(text):
        raise BadInput(f"{text!r} is not the {what} of a machine", f"check the {what} in the settings of this cloud")
    return text


def _quoted(path: Path) -> str:
    """Return a path as a value of ssh_config: quoted, and with nothing left for OpenSSH to expand."""
    text = str(path).replace("%", "%%")
    if '"' in text or "\\" in text or "${" in text:
        raise BadInput(f"OpenSSH cannot be told of {path}", "set ORCH_HOME to a path without quotes and dollar signs")
    return f'"{text}"'
