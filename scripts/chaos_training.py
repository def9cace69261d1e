"""The training that chaos is done to: it obeys the node contract, needs only Python, and cannot hide a lost step.

Copied into the workdir of the run. All ranks meet at every step through rank 0, as in a collective, each gives its part
of the sum, and all show the same weight, which depends on every step taken before, so that a step that was lost, done
twice, or done without a rank shows for ever after. Arguments: the file that says that it is enough, the file in which
rank 0 writes down each step (both outside the host), the steps between two checkpoints.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

ENOUGH, TRUTH, EVERY = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
RANK, SIZE = int(os.environ["ORCH_NODE_RANK"]), int(os.environ["ORCH_NUM_NODES"])
GENERATION = int(os.environ["ORCH_GENERATION"])
CHECKPOINTS = Path(os.environ["ORCH_CHECKPOINT_DIR"])
STOP_FILE, SAVE_FILE = Path(os.environ["ORCH_STOP_FILE"]), Path(os.environ.get("ORCH_SAVE_FILE", "/nowhere"))
STOP, SAVE, END = 1, 2, 4
STEP_SECONDS = 0.1
ADDRESS = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
WORD = struct.Struct("!BQQ")  # what is wished for, a part of the sum or the sum, the weight before this step


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


def receive(link: socket.socket) -> tuple[int, int, int]:
    """Return what a peer sent. Raises ConnectionError when it is gone."""
    word = b""
    while len(word) < WORD.size:
        piece = link.recv(WORD.size - len(word))
        if not piece:
            raise ConnectionError("a peer went away")
        word += piece
    wish, part, weight = WORD.unpack(word)
    return wish, part, weight


def meet(links: list[socket.socket], wish: int, part: int, weight: int) -> tuple[int, int]:
    """Return what any rank wishes, and the sum of all parts; all must come with the same weight."""
    if RANK == 0:
        words = [receive(link) for link in links]
        if any(word[2] != weight for word in words):
            sys.exit(f"the ranks came with different weights: {[weight, *(word[2] for word in words)]}")
        for word in words:
            wish |= word[0]
            part += word[1]
        for link in links:
            link.sendall(WORD.pack(wish, part, weight))
        return wish, part
    links[0].sendall(WORD.pack(wish, part, weight))
    return receive(links[0])[:2]


def wishes() -> int:
    """Return what this node was asked for; the save file is taken away, since it was heard."""
    saving = SAVE_FILE.exists()
    SAVE_FILE.unlink(missing_ok=True)
    return STOP * STOP_FILE.exists() | SAVE * saving | END * ENOUGH.exists()


def report(**line: object) -> None:
    """Append a line to the progress file, and to the record that does not go with the host."""
    if RANK == 0:
        text = json.dumps({"time": time.time(), "generation": GENERATION} | line) + "\n"
        for file in (Path(os.environ["ORCH_PROGRESS_FILE"]), TRUTH):
            with file.open("a") as stream:
                stream.write(text)


def save(step: int, weight: int) -> None:
    """Write a checkpoint; whole or not at all."""
    if RANK == 0:
        temporary = CHECKPOINTS / f".tmp-{step}"
        temporary.mkdir(exist_ok=True)
        (temporary / "weight").write_text(str(weight))
        temporary.rename(CHECKPOINTS / str(step))


def main() -> None:
    """Train until it is enough."""
    step = max((int(entry.name) for entry in CHECKPOINTS.iterdir() if entry.name.isdigit()), default=0)
    weight = int((CHECKPOINTS / str(step) / "weight").read_text()) if step else 1
    print(f"generation {GENERATION} begins at step {step}", flush=True)
    links = join()
    while True:
        time.sleep(STEP_SECONDS)
        step += 1
        wish, total = meet(links, wishes(), (RANK + 1) * step, weight)
        weight = (weight * 31 + total) % 1_000_003
        report(step=step, weight=weight)
        if wish or step % EVERY == 0:
            save(step, weight)
        if wish & END:
            report(event="finished", step=step, weight=weight)
            return
        if wish & STOP:
            report(event="stopped", step=step)
            sys.exit(75)


if __name__ == "__main__":
    main()
