"""The sandbox as the rest of `orch` drives it: up, down, what is in it, and disturbances on request.

`home` is $ORCH_HOME; a sandbox is one daemon and its hosts, all below `home/sandbox`. Its `Settings` carry keys of
their own: no AWS variable, profile or credential file of the caller is read, passed on, or accepted by it. Imports moto
never, and what builds hosts only in `up`.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.core.settings import Settings
from orchestrator.errors import BadInput, Exit, NotFound, OrchError, Unreachable
from orchestrator.sandbox import reaper, tools
from orchestrator.sandbox import state as states
from orchestrator.sandbox.state import State

REGION = "us-east-1"
START_SECONDS = 120.0
CALL_SECONDS = 30.0
# Below what kernels give to outgoing connections, and below the ports that runs meet on (core.ids.master_port).
PORTS = range(10_000, 20_000)
_KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "ORCH_TOOLS")


def up(
    home: Path,
    *,
    pending_seconds: float = 1.0,
    shutting_down_seconds: float = 1.0,
    key_seconds: float = 60.0,
    seed: int = 0,
    on_progress: Callable[[str], None] | None = None,
) -> Settings:
    """Start the sandbox of `home` unless it is up, and return how to reach it; safe to call from several processes.

    The seconds are how long instances are pending and shutting-down, and how long a pushed SSH key is taken; `seed`
    draws the spot prices. None of them changes a sandbox that is up. What an earlier one left is cleaned up first.
    Raises BadInput (home or user unfit), OrchError (a program is missing, or it does not start).
    """
    from orchestrator.sandbox.image import check_folder

    say = on_progress or (lambda line: None)
    folder = states.sandbox_folder(home)
    tools.find(dict(os.environ))
    user = tools.check_user()
    check_folder(folder)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder.parent):
        found = states.running(folder)
        if found is not None:
            return found.settings
        if folder.exists():
            say("cleaning up after a sandbox that was killed")
            _remove(folder)
        folder.mkdir(mode=0o700)
        port, ssh_port, imds_port = _free_ports()
        state = State(
            version=states.VERSION,
            region=REGION,
            user=user,
            port=port,
            ssh_port=ssh_port,
            imds_port=imds_port,
            token=secrets.token_hex(24),
            access_key="AKIA" + secrets.token_hex(8).upper(),
            secret_key=secrets.token_hex(20),
            seed=seed,
            pending_seconds=pending_seconds,
            shutting_down_seconds=shutting_down_seconds,
            key_seconds=key_seconds,
            image="",
        )
        states.write(folder, state)
        try:
            return _start(folder, say).settings
        except BaseException:
            reaper.sweep(folder)
            raise


def settings(home: Path) -> Settings | None:
    """Return how to reach the sandbox of `home`; None when it is not up."""
    state = states.running(states.sandbox_folder(home))
    return None if state is None else state.settings


def down(home: Path) -> None:
    """End the sandbox of `home`, dead or alive: every process and file of it. Nothing happens when there is none.

    Raises OrchError when something withstands, BadInput on a host of that very sandbox.
    """
    folder = states.sandbox_folder(home)
    if folder.parent.is_dir():
        with _locked(folder.parent):
            _remove(folder)


def status(home: Path) -> dict[str, Any]:
    """Return what is there: `up`, `folder`, `endpoint`, `pid`, ports, `hosts` (id, address, state, pids), `instances`.

    `hosts` holds only machines that exist: state `running`, or `off` when nothing runs on it. Without a living daemon
    `up` is false, and hosts that were left behind are still listed.
    """
    folder = states.sandbox_folder(home)
    state = states.running(folder)
    value: dict[str, Any] = {"up": state is not None, "folder": str(folder), "endpoint": None, "hosts": _hosts(folder)}
    if state is not None:
        value |= {"endpoint": state.endpoint_url, "pid": state.pid}
        value |= {"ssh_port": state.ssh_port, "imds_port": state.imds_port}
        value |= _call(state, "GET", "status")
    return value


def env(home: Path) -> dict[str, str]:
    """Return the variables with which any AWS client talks to the sandbox. Raises NotFound when it is not up."""
    state = _up(home)
    return {
        "AWS_ENDPOINT_URL": state.endpoint_url,
        "AWS_ACCESS_KEY_ID": state.access_key,
        "AWS_SECRET_ACCESS_KEY": state.secret_key,
        "AWS_DEFAULT_REGION": state.region,
        "AWS_REGION": state.region,
    }


def interrupt(home: Path, instance_id: str, notice_seconds: float = 120.0) -> None:
    """Give a spot instance notice and take it when that is over. Raises NotFound, OrchError (not spot, or gone)."""
    _call(_up(home), "POST", "interrupt", {"instance_id": instance_id, "notice_seconds": notice_seconds})


def kill(home: Path, instance_id: str) -> None:
    """Take an instance without notice. Raises NotFound, OrchError (gone already)."""
    _call(_up(home), "POST", "kill", {"instance_id": instance_id})


def rebalance(home: Path, instance_id: str) -> str:
    """Advise to leave a spot instance; return the time of the advice (ISO-8601). Raises as `interrupt`."""
    return str(_call(_up(home), "POST", "rebalance", {"instance_id": instance_id})["time"])


def disturb(home: Path, instance_id: str, kind: str, seconds: float | None = None) -> None:
    """Do something to a host (`disturbances.KINDS`) that EC2 does not see, and undo it after `seconds`.

    Raises NotFound, BadInput (no such kind), OrchError (not running, or its host is not up).
    """
    _call(_up(home), "POST", "disturb", {"instance_id": instance_id, "kind": kind, "seconds": seconds})


def heal(home: Path, instance_id: str, kind: str) -> None:
    """Undo a lasting disturbance now; nothing happens when it is not in force. Raises NotFound, BadInput."""
    _call(_up(home), "POST", "heal", {"instance_id": instance_id, "kind": kind})


def fault(home: Path, action: str, code: str, count: int = 1, *, zone: str | None = None) -> None:
    """Make the next `count` calls of an action fail with a named error; 0 forgets all faults. Raises NotFound."""
    if count == 0:
        _call(_up(home), "POST", "clear-faults")
    else:
        _call(_up(home), "POST", "fault", {"action": action, "code": code, "count": count, "zone": zone})


def meter(home: Path, run: str | None = None) -> dict[str, Any]:
    """Return what the machines (of the run of that id, if given) have cost by the sandbox's own count. Raises NotFound.

    The form is that of `POST /_orch/meter` (control_api).
    """
    return _call(_up(home), "POST", "meter", {"run": run})


def _up(home: Path) -> State:
    state = states.running(states.sandbox_folder(home))
    if state is None:
        raise NotFound("the sandbox is not up", "`orch sandbox up` starts it")
    return state


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder itself as a lock, so that no lock file is left behind."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove(folder: Path) -> None:
    state = states.read(folder)
    reaper.sweep(folder)
    if folder.exists():
        shutil.rmtree(folder)
    if state is not None and (left := reaper.listeners({state.ssh_port, state.imds_port})):
        raise OrchError(
            f"something still listens on ports of the sandbox: {', '.join(left)}",
            "see which program: ss -ltnp",
            exit_code=Exit.LEFT_BEHIND,
        )


def _free_ports() -> tuple[int, int, int]:
    """Return ports for the endpoint, SSH and IMDS that nobody has: another sandbox's hosts have the same addresses."""
    found: list[int] = []
    for address in ("127.0.0.1", "127.16.0.1", "127.16.0.1"):
        for _ in range(200):
            port = secrets.choice(PORTS)
            with contextlib.suppress(OSError), socket.create_server((address, port)):
                if port not in found and len(reaper.listeners({port})) == 1:  # that is this socket
                    found.append(port)
                    break
        else:
            raise OrchError(
                f"no free port was found on {address}",
                "the sandbox needs a Linux loopback network that answers on all of 127.0.0.0/8",
            )
    return found[0], found[1], found[2]


def _start(folder: Path, say: Callable[[str], None]) -> State:
    """Start the daemon and return once it serves. Raises OrchError with what it said."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    package = str(Path(next(iter(orchestrator.__path__))).parent)
    kept["PYTHONPATH"] = os.pathsep.join([package, *filter(None, [kept.get("PYTHONPATH")])])
    kept |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as report, (folder / "daemon.log").open("ab") as log:
        starter = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.sandbox.daemon", str(folder), str(writing)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=kept,
            cwd="/",
            pass_fds=(writing,),
            start_new_session=True,
        )
        os.close(writing)
        starter.wait(START_SECONDS)  # it ends as soon as it has detached
        _listen(report.fileno(), folder, say)
    state = states.running(folder)
    if state is None:
        raise OrchError("the sandbox ended as soon as it was up", f"see {folder}/daemon.log")
    return state


def _listen(fd: int, folder: Path, say: Callable[[str], None]) -> None:
    """Read what the daemon reports until it is ready. Raises OrchError."""
    deadline = time.monotonic() + START_SECONDS
    text = b""
    while not text.endswith(b"ready\n"):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise OrchError(f"the sandbox did not start within {START_SECONDS:.0f} s", f"see {folder}/daemon.log")
        piece = os.read(fd, 65_536)
        if not piece:
            last = (folder / "daemon.log").read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
            raise OrchError(f"the sandbox died while it started: {last[0]}", f"see {folder}/daemon.log")
        text += piece
        *lines, text = text.split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == "ready":
                return
            if word == "error":
                message, _, hint = rest.partition("\t")
                raise OrchError(message, hint)
            say(rest)


def _hosts(folder: Path) -> list[dict[str, Any]]:
    """Return the machines that exist, in the order in which they were booted."""
    pids: dict[int, list[int]] = {}
    for pid, number in reaper.processes(folder).items():
        pids.setdefault(number, []).append(pid)
    hosts = []
    for path in sorted(folder.glob("h/*/host.json"), key=lambda path: int(path.parent.name)):
        try:
            plan = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue  # being written, or being removed
        mine = sorted(pids.get(plan["number"], []))
        hosts.append(
            {
                "instance_id": plan["instance_id"],
                "address": plan["address"],
                "state": "running" if mine else "off",
                "pids": mine,
            }
        )
    return hosts


def _call(state: State, method: str, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the daemon something on its own paths (control_api). Raises NotFound, BadInput, OrchError, Unreachable."""
    connection = http.client.HTTPConnection("127.0.0.1", state.port, timeout=CALL_SECONDS)
    try:
        headers = {"X-Orch-Token": state.token, "Content-Type": "application/json"}
        connection.request(method, f"/_orch/{verb}", json.dumps(body or {}), headers)
        reply = connection.getresponse()
        value: dict[str, Any] = json.loads(reply.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unreachable(f"the sandbox does not answer: {error!r}", "`orch sandbox down`, then `up`") from error
    finally:
        connection.close()
    if reply.status == 200:
        return value
    kind = {404: NotFound, 400: BadInput}.get(reply.status, OrchError)
    raise kind(str(value.get("error", reply.reason)), "`orch sandbox status` lists the instances")
