"""What a checkpoint holds of a training, taken from all ranks and given back to all ranks.

Parameters and momentum are the same on every rank; the running statistics of batch normalisation are not. So a
checkpoint keeps each rank's own beside their mean: the same number of ranks goes on bit for bit, another number
starts from the mean, which is also what evaluation uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from trainer import world as ranks
from trainer.world import World


class State:
    """Network, SGD optimizer with momentum, and loss scaler. All methods are called by all ranks together."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, world: World
    ) -> None:
        self._network, self._optimizer, self._scaler, self._world = network, optimizer, scaler, world
        self._buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for parameter in self._parameters:  # so that every rank has momentum to copy into
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def snapshot(self) -> dict[str, Any] | None:
        """Return a copy of everything on rank 0, on the CPU; None on the others."""
        rows = ranks.gather(ranks.flatten(self._buffers), self._world)
        if rows is None:
            return None
        network = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._network.state_dict().items()}
        names = [name for name, buffer in self._network.named_buffers() if buffer.is_floating_point()]
        ranks.unflatten(rows.mean(0), [network[name] for name in names])
        momentum = self._optimizer.state_dict()["state"]
        return {
            "network": network,
            "optimizer": {i: {k: v.to("cpu", copy=True) for k, v in of.items()} for i, of in momentum.items()},
            "scaler": self._scaler.state_dict(),
            "statistics": rows,
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Take over `state`, which rank 0 read; the others give None."""
        rows, scaler = None, None
        if state is not None:
            self._network.load_state_dict(state["network"])
            # Settings are not of the checkpoint: one from CPUs knows nothing of a GPU's fused step.
            settings = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict({"state": state["optimizer"], "param_groups": settings})
            rows, scaler = state["statistics"], state["scaler"]
        momentum = [self._optimizer.state[parameter]["momentum_buffer"] for parameter in self._parameters]
        ranks.copy_from_first([*self._parameters, *momentum, *self._buffers])
        scaler = ranks.tell(scaler)
        if scaler:
            self._scaler.load_state_dict(scaler)
        then = ranks.tell(len(rows) if rows is not None else 0)
        if then == self._world.size:
            mine = ranks.flatten(self._buffers)
            table = rows if rows is not None else torch.empty(then, mine.numel())
            ranks.copy_from_first([table])
            ranks.unflatten(table[self._world.rank], self._buffers)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside the block the network has the mean statistics of all ranks."""
        own = ranks.flatten(self._buffers)
        ranks.unflatten(ranks.total(own.clone()) / self._world.size, self._buffers)
        try:
            yield
        finally:
            ranks.unflatten(own, self._buffers)
