"""The one process of a sandbox: EC2 and the rest of AWS over HTTP, the machines, and instance metadata.

Run as `python -m orchestrator.sandbox.daemon FOLDER FD` by `control.up`, which has written FOLDER/state.json; what it
has to say until it is up goes to FD, a line each: `say TEXT`, `error MESSAGE<tab>HINT`, `ready`. It detaches from
whoever started it and listens on loopback only. It ends when it is killed or FOLDER is gone, and every host with it.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import OrchError
from orchestrator.sandbox import state as states
from orchestrator.sandbox import supervisor, tools

OPEN_FILES = 8192
FOLDER_CHECK_SECONDS = 5.0


def main(arguments: list[str]) -> None:
    """Start the sandbox of a folder and serve until killed."""
    folder, fd = Path(arguments[0]), int(arguments[1])
    if os.fork() != 0:
        os._exit(0)
    with os.fdopen(fd, "w", buffering=1) as report:
        try:
            serve(folder, report.write)
            report.write("ready\n")
        except OrchError as error:
            report.write(f"error {error.message}\t{error.hint}\n")
            raise SystemExit(1) from None
        except Exception as error:
            logging.exception("the sandbox could not start")
            report.write(f"error the sandbox could not start: {error!r}\tsee {folder}/daemon.log\n")
            raise SystemExit(1) from None
    # Nobody could find a sandbox whose folder was deleted: it ends by itself, and its hosts with it.
    while folder.is_dir():
        time.sleep(FOLDER_CHECK_SECONDS)


def serve(folder: Path, report: Callable[[str], object]) -> None:
    """Become the sandbox of `folder`: once this returns its threads serve. Raises OrchError, OSError."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    supervisor.mark_self(supervisor.mark_of(str(folder), 0))
    supervisor.become_subreaper()
    _raise_open_files()
    state = states.read(folder)
    if state is None:
        raise OrchError(f"{folder}/state.json cannot be read", "run `orch sandbox up`")
    report("say loading EC2, S3 and the rest of AWS\n")
    # moto is most of the start-up; whatever it prints or imports stays in this process.
    from orchestrator.sandbox import catalogue
    from orchestrator.sandbox.cloud import SandboxCloud
    from orchestrator.sandbox.image import Image
    from orchestrator.sandbox.machines import Machines

    image = Image(folder, tools.find(dict(os.environ)), state.user, state.endpoint_url, state.ssh_port, state.imds_port)
    image.build()
    machines = Machines(image)
    cloud = SandboxCloud(
        state.region,
        state.seed,
        state.pending_seconds,
        state.shutting_down_seconds,
        machines,
        token=state.token,
        access_key=state.access_key,
        secret_key=state.secret_key,
        key_seconds=state.key_seconds,
    )
    machines.attach(cloud)
    cloud.serve("127.0.0.1", state.port)
    states.write(folder, replace(state, pid=os.getpid(), image=catalogue.SANDBOX_AMI))


def _raise_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
