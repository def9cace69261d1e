"""A training that obeys the node contract and needs nothing but Python: copied into the workdir of test runs.

Its ranks meet at every step through rank 0, so that one that is gone or silent is felt by all, as in a collective. Its
only weight is a number that depends on every step taken, so that lost or repeated work shows. Arguments: the generation
that goes to the end, the step at which rank 1 fails in the first one (0: never), the steps between two checkpoints.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

LAST, FAIL_AT, EVERY = (int(word) for word in sys.argv[1:4])
MORE = 15  # steps of the last generation
RANK, SIZE = int(os.environ["ORCH_NODE_RANK"]), int(os.environ["ORCH_NUM_NODES"])
GENERATION = int(os.environ["ORCH_GENERATION"])
CHECKPOINTS = Path(os.environ["ORCH_CHECKPOINT_DIR"])
STOP_FILE, SAVE_FILE = Path(os.environ["ORCH_STOP_FILE"]), Path(os.environ["ORCH_SAVE_FILE"])
STOP, SAVE = 1, 2
ADDRESS = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))


def join() -> list[socket.socket]:
    """Return the links of this rank: rank 0 has one to each other rank, they have one to rank 0."""
    if RANK == 0:
        with socket.create_server(ADDRESS) as server:
            return [server.accept()[0] for _ in range(SIZE - 1)]
    while True:
        try:
            return [socket.create_connection(ADDRESS)]
        except ConnectionRefusedError:
            time.sleep(0.1)


def receive(link: socket.socket) -> int:
    """Return the byte a peer sent. Raises ConnectionError when it is gone."""
    word = link.recv(1)
    if not word:
        raise ConnectionError("a peer went away")
    return word[0]


def agree(links: list[socket.socket], mine: int) -> int:
    """Return what any rank asks for (STOP, SAVE, both or 0); waits for all of them."""
    if RANK == 0:
        for link in links:
            mine |= receive(link)
        for link in links:
            link.sendall(bytes([mine]))
        return mine
    links[0].sendall(bytes([mine]))
    return receive(links[0])


def wish() -> int:
    """Return what this node was asked for; the save file is taken away, since it was heard."""
    saving = SAVE_FILE.exists()
    SAVE_FILE.unlink(missing_ok=True)
    return STOP * STOP_FILE.exists() | SAVE * saving


def report(**line: object) -> None:
    """Append a line to the progress file."""
    if RANK == 0:
        with Path(os.environ["ORCH_PROGRESS_FILE"]).open("a") as file:
            file.write(json.dumps({"time": time.time()} | line) + "\n")


def save(step: int, weight: int) -> None:
    """Write a checkpoint; whole or not at all."""
    if RANK == 0:
        temporary = CHECKPOINTS / f".tmp-{step}"
        temporary.mkdir(exist_ok=True)
        (temporary / "weight").write_text(str(weight))
        temporary.rename(CHECKPOINTS / str(step))


found = max((int(entry.name) for entry in CHECKPOINTS.iterdir() if entry.name.isdigit()), default=0)
weight = int((CHECKPOINTS / str(found) / "weight").read_text()) if found else 1
print(f"generation {GENERATION} begins at step {found}", flush=True)  # noqa: T201
links = join()
step = found
while GENERATION < LAST or step < found + MORE:
    time.sleep(0.1)
    step += 1
    weight = (weight * 31 + step) % 1_000_003
    if (GENERATION, RANK, step) == (1, 1, FAIL_AT):
        sys.exit("rank 1 found a bad sample")
    word = agree(links, wish())
    report(step=step, weight=weight, nodes=SIZE)
    if word or step % EVERY == 0:
        save(step, weight)
    if word & SAVE:
        report(event="early", step=step)
    if word & STOP:
        report(event="stopped", step=step)
        sys.exit(75)
