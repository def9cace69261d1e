"""Asking torch.distributed for its all-reduce bandwidth: as many processes of `torch_probe` as the training has."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.agent.config import NodeConfig
from orchestrator.core import ids

SECONDS = 120.0
_PROBE = Path(__file__).with_name("torch_probe.py")


def torch_rate(config: NodeConfig, order: Mapping[str, Any]) -> float:
    """Return the bus bandwidth (bytes/s) over the `nodes` of an order, of which this is number `index`.

    0 where there is no torch, or the all-reduce failed: what it printed is in the log. Raises OSError.
    """
    index, nodes, procs = int(order["index"]), int(order["nodes"]), config.procs_per_node
    shared = os.environ | {
        "ORCH_DEVICE": config.device,
        "MASTER_ADDR": str(order["first"]),
        # The training's own, which is free until it begins.
        "MASTER_PORT": str(ids.master_port(config.run, config.generation)),
        "WORLD_SIZE": str(nodes * procs),
        "LOCAL_WORLD_SIZE": str(procs),
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            ["python3", str(_PROBE)],
            env=shared | {"RANK": str(index * procs + local), "LOCAL_RANK": str(local)},
            stdout=subprocess.PIPE if local == 0 else subprocess.DEVNULL,
            text=True,
        )
        for local in range(procs)
    ]
    deadline = time.monotonic() + SECONDS
    try:
        said, _ = ranks[0].communicate(timeout=SECONDS)
        codes = [rank.wait(max(0.1, deadline - time.monotonic())) for rank in ranks]
        return 0.0 if any(codes) else float(json.loads(said.splitlines()[-1])["rate"])
    except (subprocess.TimeoutExpired, ValueError, IndexError, KeyError):
        return 0.0
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
