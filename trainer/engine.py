"""One optimizer step over all ranks: network, gradients, SGD, precision. Knows nothing of data sets or files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from trainer import compress, graphs, memory, models, precision, schedule, signals
from trainer import world as ranks
from trainer.recipe import Recipe
from trainer.state import State
from trainer.world import World

LAYOUT_PASSES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How steps are computed: `numbers` as `precision.choose`, `compress` and `graphs` as theirs return them."""

    seed: int = 0
    numbers: str = "fp32"
    compress: str = "none"
    compiled: bool = False
    graphs: bool = False


class Engine:
    """The network of `recipe` for `classes` classes and what trains it, made by all ranks together.

    `numbers` is the precision. `network` is the bare one; `state` what a checkpoint holds.
    """

    def __init__(self, recipe: Recipe, classes: int, settings: Settings, world: World) -> None:
        torch.manual_seed(settings.seed)
        self.world, self.numbers, self._recipe = world, settings.numbers, recipe
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
        self._scaler = precision.scaler(settings.numbers, world.device)
        self.state = State(self.network, self._optimizer, self._scaler, world)
        self._ddp: DistributedDataParallel | None = ranks.parallel(riding, world)
        compress.attach(self._ddp, self._rider, settings.compress, world)
        self._warm_up(schedule.at(recipe, 0).size, graphs.PASSES_BEFORE if settings.graphs else LAYOUT_PASSES)
        self._graphs = graphs.Graphs(self._differentiate, self._forget_gradients, world, wanted=settings.graphs)
        if settings.compiled:
            models.compile_in_place(self.network)  # names in the state stay, and so does `forward`

    def step(
        self, images: Tensor, labels: Tensor, count: int, point: schedule.Point, wish: signals.Word, *, at_once: int = 0
    ) -> signals.Word:
        """Train on this rank's share of a batch of `count` images; return what all ranks agreed on.

        `images` are uint8 (n, 3, height, width), `labels` int64 (n,), both on the device; `wish` is what this rank
        asks. At most `at_once` images are computed together (0: all); batch normalisation then sees those alone.
        """
        for group in self._optimizer.param_groups:
            group["lr"], group["momentum"] = point.lr, point.momentum
        self._exchange.ask(wish)
        self._graphs.run(images, labels, count, memory.parts(len(labels), at_once))
        word = self._exchange.read(self._rider)
        self.update()
        return word

    def normalise(self, images: Tensor) -> Tensor:
        """Return uint8 images (n, 3, height, width) as the network takes them."""
        return models.normalise(images, self._recipe.mean, self._recipe.std)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Return the float32 logits (n, classes) of uint8 images: never compiled, so that any shape may come."""
        with precision.autocast(self.numbers, self.world.device):
            logits: Tensor = self.network.forward(self.normalise(images))
        return logits.float()

    def pending(self) -> signals.Word:
        """Return what all ranks agreed on at the last step, where `step` had not heard of it yet."""
        return self._exchange.pending()

    def loss(self) -> float:
        """Return the mean loss over all ranks since the last call; waits for the device."""
        return self._exchange.loss()

    def close(self) -> None:
        """Drop what must not outlive the process group."""
        self._graphs.forget()
        self._ddp = None

    def forward(
        self, network: Callable[[Tensor], Tensor | tuple[Tensor, Tensor]], images: Tensor
    ) -> tuple[Tensor, ...]:
        """Return what `network` makes of normalised images, in the engine's precision."""
        with precision.autocast(self.numbers, self.world.device):
            made = network(images)
        return made if isinstance(made, tuple) else (made,)

    def backward(self, loss: Tensor, riding: Tensor | None = None) -> None:
        """Add the gradients of `loss`, scaled, and of `riding`, not scaled, to those there."""
        scaled = self._scaler.scale(loss)
        (scaled if riding is None else scaled + riding).backward()  # type: ignore[no-untyped-call]

    def update(self) -> None:
        """Move the weights by the gradients."""
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _differentiate(self, images: Tensor, labels: Tensor, count: int, parts: int) -> None:
        """Compute the gradients of the mean loss over the `count` images of all ranks, however they are shared out.

        Only the last part goes through DDP, which exchanges what all parts have left in the gradients; the hooks of DDP
        pass over the others. (Its `no_sync` does not go with a static graph: pytorch issue 143580.)
        """
        if self._ddp is None:
            raise RuntimeError("the engine was closed")
        *first, last = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
        before: Tensor | float = 0.0
        for some, theirs in first:
            (logits,) = self.forward(self.network, self.normalise(some))
            loss = self._loss(logits, theirs, count)
            self.backward(loss)
            before = before + loss.detach()
        some, theirs = last
        logits, rider = self.forward(self._ddp, self.normalise(some))
        loss = self._loss(logits, theirs, count)
        self.backward(loss, signals.load(rider, loss.detach() + before, self._exchange.wish))

    def _loss(self, logits: Tensor, labels: Tensor, count: int) -> Tensor:
        """Return the part of the mean loss over `count` images that these are.

        DDP divides the sum over ranks by their number: undone here, so that every image weighs the same.
        """
        total = cross_entropy(logits.float(), labels, reduction="sum")
        return total * (self.world.size / count)

    def _forget_gradients(self) -> None:
        self._optimizer.zero_grad()
        self._rider.grad = None

    def _warm_up(self, size: int, passes: int) -> None:
        """Run backward passes on blank images of `size` pixels and forget them.

        With a static graph DDP lays the gradients out anew when its third pass begins, and sums over three or more
        ranks depend on the layout in the last bit. So that a resumed training agrees with one that went through, that
        pass is never a real one either: of a step in parts the first have left their gradients by then.
        """
        blank = torch.zeros(2, 3, size, size, dtype=torch.uint8, device=self.world.device)
        labels = torch.zeros(2, dtype=torch.int64, device=self.world.device)
        for _ in range(passes):
            self._differentiate(blank, labels, 2 * self.world.size, 1)
            self._forget_gradients()
        for module in self.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
