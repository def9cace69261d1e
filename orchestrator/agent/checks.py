"""What a node finds out about itself before the training: GPUs, disk, names. Each answer is a `Check`; nothing raises.

A node asks its own programs and kernel; what those cannot tell is passed over.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.core.preflight import Check
from orchestrator.core.units import counted

GIB = 2**30
LITTLE_DISK, NO_DISK = 5 * GIB, GIB // 4
SECONDS = 30.0
NAME_SECONDS = 5.0
_QUERY = ("nvidia-smi", "--query-gpu=index,ecc.errors.uncorrected.volatile.total", "--format=csv,noheader,nounits")
# GPU errors after which only a reset or another machine helps: double-bit ECC, row remapping failed, NVLink, fallen off
# the bus, uncontained ECC (docs.nvidia.com/deploy/xid-errors).
_FATAL_XID = frozenset({48, 64, 74, 79, 95})
_DOMAIN = re.compile(r"^\s*domain: (\S+)", re.M)
# Where AWS's installer puts it, which is on the PATH of login shells only.
_EFA_PROGRAMS = "/opt/amazon/efa/bin"
_XID = re.compile(r"NVRM: Xid \([^)]*\): (\d+)")


def local_checks(home: Path, region: str, gpus: int, efa: int = 0) -> tuple[Check, ...]:
    """Return what there is to say of this machine.

    `gpus` is how many the training wants, 0 for a training on CPUs; `efa` how many EFA interfaces the machine has.
    """
    fabric = (_fabric(efa),) if gpus and efa else ()
    return (*(_gpus(gpus) if gpus else ()), *fabric, _disk(home), _names(region))


def _fabric(wanted: int) -> Check:
    """Return what libfabric sees of the EFA interfaces; without them NCCL goes by TCP, which is slow but right."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{_EFA_PROGRAMS}"
    program = shutil.which("fi_info", path=path)
    if program is None:
        return Check("fabric", "warn", "no fi_info: the image lacks EFA's software, so NCCL goes by TCP")
    said = _ask(program, "-p", "efa") or ""
    # One device shows several endpoints: `rdmap16s27-rdm` and `rdmap16s27-dgrm` are one.
    found = len({name.rpartition("-")[0] for name in _DOMAIN.findall(said)})
    if found < wanted:
        what = f"fi_info sees {found} of {counted(wanted, 'EFA interface')}"
        return Check("fabric", "warn", what if found else f"{what}, so NCCL goes by TCP")
    return Check("fabric", "ok", f"EFA, {counted(wanted, 'interface')}")


def _gpus(wanted: int) -> tuple[Check, ...]:
    said = _ask(*_QUERY)
    if said is None:
        return (Check("gpus", "fail", "nvidia-smi does not answer"),)
    rows = [[cell.strip() for cell in line.split(",")] for line in said.splitlines() if line.strip()]
    broken = [f"GPU {row[0]}: {row[1]} uncorrectable ECC errors" for row in rows if row[-1].isdigit() and int(row[-1])]
    if len(rows) < wanted:
        found = Check("gpus", "fail", f"{len(rows)} of {counted(wanted, 'GPU')}")
    elif broken:
        found = Check("gpus", "fail", "; ".join(broken))
    else:
        found = Check("gpus", "ok", counted(len(rows), "GPU"))
    return (found, *_xid())


def _xid() -> tuple[Check, ...]:
    """Return what the kernel said of GPUs, nothing where it may not be read."""
    codes = sorted({int(code) for code in _XID.findall(_ask("dmesg", seconds=5.0) or "")})
    if not codes:
        return ()
    fatal = not _FATAL_XID.isdisjoint(codes)
    return (Check("xid", "fail" if fatal else "warn", f"the kernel reports Xid {', '.join(map(str, codes))}"),)


def _disk(home: Path) -> Check:
    probe = home / ".orch-preflight"
    try:
        probe.write_bytes(os.urandom(4096))
        probe.unlink()
        free = shutil.disk_usage(home).free
    except OSError as error:
        return Check("disk", "fail", f"cannot be written: {error.strerror}")
    left = f"{free / GIB:.1f} GiB free"
    return Check("disk", "fail" if free < NO_DISK else "warn" if free < LITTLE_DISK else "ok", left)


def _names(region: str) -> Check:
    """Return whether S3's name can be resolved; a resolver that hangs counts as one that cannot."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    name = urlsplit(endpoint).hostname if endpoint else f"s3.{region}.amazonaws.com"
    said: list[str] = []

    def resolve() -> None:
        try:
            socket.getaddrinfo(name, 443)
            said.append("")
        except OSError as error:
            said.append(str(error.strerror or error))

    asking = threading.Thread(target=resolve, daemon=True)
    asking.start()
    asking.join(NAME_SECONDS)
    trouble = said[0] if said else f"no answer in {NAME_SECONDS:.0f} s"
    return Check("names", "warn" if trouble else "ok", f"{name}: {trouble}" if trouble else f"{name} resolves")


def _ask(*command: str, seconds: float = SECONDS) -> str | None:
    """Return what a program prints, None when it fails, is not there, or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
