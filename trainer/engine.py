"""One optimizer step over all ranks: network, gradients, SGD, precision. Knows nothing of data sets or files."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from trainer import models, precision, schedule, signals
from trainer import world as ranks
from trainer.recipe import Recipe
from trainer.state import State
from trainer.world import World

PASSES_BEFORE_LAYOUT = 2
_NOTHING = signals.Word(stop=False, save=False)


class Engine:
    """The network of `recipe` for `classes` classes and what trains it, made by all ranks together.

    `numbers` is the precision. `network` is the bare one, for evaluation; `state` what a checkpoint holds.
    """

    def __init__(self, recipe: Recipe, classes: int, seed: int, numbers: str, world: World) -> None:
        torch.manual_seed(seed)
        self.world, self.numbers, self._recipe = world, numbers, recipe
        self.network = models.build(recipe.model, classes)
        riding = signals.Riding(self.network)
        riding.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._rider = riding.rider
        self._exchange = signals.Exchange(world.device)
        groups = models.decay_groups(self.network, recipe.weight_decay, decay_norms=recipe.decay_norms)
        cuda = world.device.type == "cuda"
        self._optimizer = torch.optim.SGD(
            groups, lr=0.0, momentum=0.9, nesterov=recipe.nesterov, foreach=not cuda, fused=cuda
        )
        self._scaler = precision.scaler(numbers, world.device)
        self.state = State(self.network, self._optimizer, self._scaler, world)
        self._ddp: DistributedDataParallel | None = ranks.parallel(riding, world)
        self._warm_up(schedule.at(recipe, 0).size)

    def step(
        self, images: Tensor, labels: Tensor, count: int, point: schedule.Point, wish: signals.Word
    ) -> signals.Word:
        """Train on this rank's share of a batch of `count` images; return what all ranks agreed on.

        `images` are uint8 (n, 3, height, width), `labels` int64 (n,), both on the CPU; `wish` is what this rank asks.
        """
        for group in self._optimizer.param_groups:
            group["lr"], group["momentum"] = point.lr, point.momentum
        device = self.world.device
        self._backward(images.to(device, non_blocking=True), labels.to(device, non_blocking=True), count, wish)
        word = self._exchange.read(self._rider)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._forget_gradients()
        return word

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 images (n, 3, height, width) as the network takes them."""
        return models.normalise(images, self._recipe.mean, self._recipe.std)

    def loss(self) -> float:
        """Return the mean loss over all ranks since the last call; waits for the device."""
        return self._exchange.loss()

    def close(self) -> None:
        """Drop what must not outlive the process group."""
        self._ddp = None

    def _backward(self, images: Tensor, labels: Tensor, count: int, wish: signals.Word) -> None:
        """Compute the gradients of the mean loss over the `count` images of all ranks, however they are shared out."""
        if self._ddp is None:
            raise RuntimeError("the engine was closed")
        with precision.autocast(self.numbers, self.world.device):
            logits, rider = self._ddp(self.normalise(images))
        # DDP divides the sum over ranks by their number: undone here, so that every image weighs the same.
        loss = cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=self._recipe.label_smoothing) * (
            self.world.size / count
        )
        riding = signals.load(rider, loss, wish)
        (self._scaler.scale(loss) + riding).backward()  # type: ignore[no-untyped-call]

    def _forget_gradients(self) -> None:
        self._optimizer.zero_grad()
        self._rider.grad = None

    def _warm_up(self, size: int) -> None:
        """Run backward passes on blank images of `size` pixels and forget them.

        With a static graph DDP lays the gradients out anew before its third pass, and sums over three or more ranks
        depend on the layout in the last bit. So that a resumed training agrees with one that went through, the passes
        in the first layout are never real ones.
        """
        blank = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=self.world.device)
        labels = torch.zeros(2, dtype=torch.int64, device=self.world.device)
        for _ in range(PASSES_BEFORE_LAYOUT):
            self._backward(blank, labels, 2 * self.world.size, _NOTHING)
            self._forget_gradients()
        for module in self.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
