"""From a job to an exit code: join the other ranks, train, part; whatever fails ends this process at once.

A rank that fails ends its loaders, which hold its sockets too, and leaves by `os._exit`: the sockets close, the other
ranks see it, and nothing waits for a collective that never comes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from typing import NoReturn

import torch

from trainer import world as ranks
from trainer.contract import Node
from trainer.errors import FAILED, INTERRUPTED, TrainerError
from trainer.events import Progress
from trainer.job import Job
from trainer.training import Training

_GOES_ON = "started again it goes on from its last checkpoint; SIGTERM or the stop file have it save one first"


def run(job: Job, node: Node) -> int:
    """Train; return DONE or STOPPED. A failure does not return: it is said on stderr and ends the process."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)  # ranks are what uses the cores
    training: Training | None = None
    try:
        training = Training(job, node, ranks.join(node))
        code = training.run()
        ranks.wait_for_all()  # no rank takes its process away while another still needs it
    except KeyboardInterrupt:
        _fail(TrainerError("interrupted", _GOES_ON, exit_code=INTERRUPTED), node)
    except Exception as error:  # the boundary: all of them are said, none goes on
        _fail(error, node)
    training.close()
    ranks.part()
    return code


def _fail(error: Exception, node: Node) -> NoReturn:
    code, summary = FAILED, (str(error) or repr(error)).splitlines()[0]
    if isinstance(error, TrainerError):
        code, text = error.exit_code, error.text()
    elif _lost_another(error):
        text = f"error: another rank went away or never came: {summary}\n  its own output says why"
    else:
        text = traceback.format_exc()
    sys.stderr.write(f"[rank {node.rank}] {text.rstrip()}\n")
    try:
        Progress(node.progress if node.rank == 0 else None).write("error", message=summary)
    finally:
        for loader in multiprocessing.active_children():
            loader.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _lost_another(error: Exception) -> bool:
    """Return whether `error` is gloo's or nccl's way to say that a peer is gone."""
    text = str(error).lower()
    signs = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "timed out")
    return isinstance(error, RuntimeError) and any(sign in text for sign in signs)
