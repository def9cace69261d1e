"""Before the training: `python3 -m orchestrator.agent.preflight NODE_JSON` checks this node, with the others the gang.

`run.sh` calls it, so what it prints is in the run's log. It ends with 0 when the whole gang is fit. When a node is not,
none goes on: all wait for the scheduler, which replaces it and starts them again. What it finds is in a file of which
the agent tells.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.agent.allreduce import torch_rate
from orchestrator.agent.checks import local_checks
from orchestrator.agent.config import NodeConfig
from orchestrator.agent.hub import NO_TORCH, Hub
from orchestrator.agent.links import Door, measure_link, measure_ring, reach
from orchestrator.core import ids
from orchestrator.core.fitness import expected_rate, judge
from orchestrator.core.preflight import Check, Findings, Preflight
from orchestrator.core.units import format_rate

# The slowest boot of a gang, and some; then nobody can be waiting for this node any more.
PATIENCE = 30 * 60.0
RETRY = 1.0


def say(text: str) -> None:
    """Print one line."""
    print(f"orch: preflight: {text}", flush=True)  # noqa: T201 - this is the training's own output


class Checkup:
    """The checks of one node, and what it has found so far, which is written down whenever there is more."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._deadline = time.monotonic() + PATIENCE
        gpus = config.procs_per_node if config.device == "cuda" else 0
        checks = local_checks(config.home, config.region, gpus, config.efa)
        self._hub: threading.Thread | None = None
        self.found = Preflight(checks=checks, expected=expected_rate(config.network_gbit))
        self._write()

    def run(self) -> bool:
        """Check everything and tell whether the gang may train. Raises OSError when the gang does not come together."""
        config = self._config
        if config.num_nodes == 1:
            self._end_alone()
        else:
            if config.rank == 0:
                self._open_hub()
            self._take_part()
            if self._hub is not None:
                # The others hear the end from it.
                self._hub.join(PATIENCE)
        for rank, why in self.found.unfit.items():
            say(f"node {rank} is unfit: {why}")
        for note in self.found.notes:
            say(note)
        return not self.found.unfit

    @property
    def _wants_torch(self) -> bool:
        chosen = self._config.preflight
        return chosen == "torch" or (chosen == "auto" and self._config.device == "cuda")

    def _end_alone(self) -> None:
        """Judge a node that has no peers; its processes have one another."""
        began = time.monotonic()
        unfit = judge({self._config.rank: Findings(self.found.checks)}, self.found.expected)
        end: dict[str, Any] = {"unfit": {str(rank): why for rank, why in unfit.items()}}
        if self._wants_torch and not unfit and self._config.procs_per_node > 1:
            alone = {"index": 0, "nodes": 1, "first": "127.0.0.1"}
            end |= {"torch": rate} if (rate := torch_rate(self._config, alone)) else {"notes": [NO_TORCH]}
        self._end(end | {"seconds": time.monotonic() - began})

    def _open_hub(self) -> None:
        config = self._config
        word = f"{config.run}/{config.generation}"
        port = ids.preflight_port(config.run, config.generation)
        hub = Hub(config.node_ips, port, word, self.found.expected, self._missing)
        self._hub = threading.Thread(target=hub.run, args=(PATIENCE, self._wants_torch), name="hub", daemon=True)
        self._hub.start()

    def _take_part(self) -> None:
        """Join the gang and do what is ordered until the end; when the line breaks, join again. Raises OSError."""
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the gang did not come together")
            try:
                self._obey(left)
            except (OSError, ValueError, KeyError) as error:
                say(f"{error}; joining again")
                time.sleep(RETRY)
            else:
                return

    def _obey(self, seconds: float) -> None:
        config = self._config
        door = Door(config.node_ips[config.rank])
        line = reach(config.node_ips[0], ids.preflight_port(config.run, config.generation), seconds)
        checks = [[check.name, check.state, check.detail] for check in self.found.checks if check.name != "clock"]
        hello = {"word": f"{config.run}/{config.generation}", "rank": config.rank, "port": door.port, "checks": checks}
        line.send(hello | {"time": time.time()})
        while True:
            order = line.receive(seconds)
            if order["do"] == "end":
                self._end(order)
                return
            line.send({"rate": self._measure(door, order)})

    def _measure(self, door: Door, order: Mapping[str, Any]) -> float:
        """Return what was measured in bytes/s, 0 where it did not work."""
        number, peer = int(order["order"]), (str(order.get("address")), int(order.get("port", 0)))
        try:
            if order["do"] == "torch":
                return torch_rate(self._config, order)
            if order["do"] == "ring":
                onward = door.call(*peer, number)
                with onward, door.answer(number) as back:
                    return measure_ring(onward, back, int(order["nodes"]))
            with door.call(*peer, number) if order["calls"] else door.answer(number) as link:
                return measure_link(link, leads=bool(order["calls"]))
        except OSError as error:
            say(f"{order['do']} with {peer[0]}: {error}")
            return 0.0

    def _missing(self, ranks: tuple[int, ...]) -> None:
        self.found = replace(self.found, missing=ranks)
        self._write()

    def _end(self, end: Mapping[str, Any]) -> None:
        clock = (Check(*end["clock"]),) if "clock" in end else ()
        self.found = replace(
            self.found,
            checks=(*self.found.checks, *clock),
            links={int(rank): float(rate) for rank, rate in end.get("links", {}).items()},
            all_reduce=end.get("all_reduce"),
            torch=end.get("torch"),
            unfit={int(rank): str(why) for rank, why in end["unfit"].items()},
            notes=tuple(end.get("notes", ())),
            missing=(),
            seconds=float(end["seconds"]),
        )
        self._write()
        best = max(self.found.links.values(), default=None)
        parts = [f"best link {format_rate(best)}"] if best is not None else []
        parts += [f"all-reduce {format_rate(rate)}" for rate in (self.found.all_reduce,) if rate is not None]
        parts += [f"by torch {format_rate(rate)}" for rate in (self.found.torch,) if rate is not None]
        say(", ".join([*(f"{check.name}: {check.detail}" for check in self.found.checks), *parts]))

    def _write(self) -> None:
        file = self._config.preflight_file
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(self.found.to_json()))
        fresh.replace(file)


def main(arguments: list[str]) -> int:
    """Check for the `node.json` named; return 0 once the gang is fit, 1 when nobody came to replace a node."""
    config = NodeConfig.load(Path(arguments[0]), Path(os.environ["HOME"]))
    try:
        if Checkup(config).run():
            return 0
    except OSError as error:
        say(f"failed: {error}")
        return 1
    say("waiting for the scheduler to replace what is unfit")
    time.sleep(PATIENCE)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
