"""How long a trained network takes for one image: every validation image once, one after the other.

The clock runs from an image's bytes in memory to its classes on the CPU: decoding, resizing and the copy to the device
count, and are told apart from the network itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from trainer import checkpoint, models, precision, schedule
from trainer.data import loader, pack
from trainer.errors import TrainerError
from trainer.evaluate import TOP
from trainer.recipe import Recipe

WARM_UP = 20  # images classified before the clock starts
SAY_EVERY = 10.0  # seconds between progress lines


@dataclass(frozen=True, slots=True)
class Found:
    """Images classified, accuracies in percent, and seconds a image: of all, and of the network alone."""

    images: int
    top1: float
    top5: float
    seconds: float
    network_seconds: float


class _Answer(NamedTuple):
    seconds: float
    network_seconds: float
    first: bool
    among: bool


class Classifier:
    """A trained network that classifies images as the last epoch of its recipe validates.

    `numbers` is what `precision.choose` returns. Raises TrainerError when `checkpoints` hold no network of the recipe.
    """

    def __init__(
        self, recipe: Recipe, checkpoints: Path, root: Path, device: torch.device, *, numbers: str, compiled: bool
    ) -> None:
        self._recipe, self._device, self._numbers = recipe, device, numbers
        classes = int(pack.describe(root)["classes"])
        self._network = load(recipe, checkpoints, classes).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._images = loader.Images(root, seed=0, flip=False)
        self._top = min(TOP, classes)
        if compiled:
            models.compile_in_place(self._network)

    def measure(self, limit: int | None, say: Callable[[str], None]) -> Found:
        """Classify the first `limit` validation images (all without one)."""
        items = self._items()[:limit]
        shapes = {(item.height, item.width): item for item in items}
        for item in (*items[:WARM_UP], *shapes.values()):  # kernels are chosen, or compiled, for each shape
            self._classify(item)
        answers = list(_told(map(self._classify, items), len(items), say))
        for name in self._images.damage.fresh():
            say(f"{name} cannot be decoded, and counts as not recognised")
        whole, alone, first, among = (sum(column) / len(answers) for column in zip(*answers, strict=True))
        return Found(len(answers), 100 * first, 100 * among, whole, alone)

    def _items(self) -> list[loader.EvalItem]:
        recipe, point = self._recipe, schedule.at(self._recipe, self._recipe.epochs - 1)
        return loader.eval_items(
            self._images.split(point.folder, pack.VALIDATION),
            size=point.size,
            batch=1,
            rect_multiple=recipe.rect_multiple if point.rect_val else 0,
            folder=point.folder,
            border=recipe.border,
        )

    @torch.inference_mode()
    def _classify(self, item: loader.EvalItem) -> _Answer:
        began = time.perf_counter()
        batch = self._images[item]
        self._images.note(batch)
        images = batch.images.to(self._device)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        ready = time.perf_counter()
        with precision.autocast(self._numbers, self._device):
            logits = self._network(models.normalise(images, self._recipe.mean, self._recipe.std))
        best = logits[0].topk(self._top).indices.tolist()  # waits for the device
        ended = time.perf_counter()
        label = int(batch.labels)
        return _Answer(ended - began, ended - ready, best[0] == label, label in best)


def load(recipe: Recipe, folder: Path, classes: int) -> nn.Module:
    """Return the network of the newest checkpoint in `folder`, ready to classify. Raises TrainerError."""
    passed: list[str] = []
    found = checkpoint.newest(folder, lambda step, error: passed.append(f"checkpoint {step} cannot be read: {error!r}"))
    if found is None:
        raise TrainerError(
            f"no checkpoint in {folder}" + "".join(f"; {text}" for text in passed),
            "name the folder that holds <step>/state.pt: ORCH_CHECKPOINT_DIR of the training",
        )
    network = models.build(recipe.model, classes)
    try:
        network.load_state_dict(found.state["network"])
    except (KeyError, RuntimeError) as error:
        raise TrainerError(
            f"checkpoint {found.step} in {folder} is not of {recipe.model} with {classes} classes",
            f"it is of {found.meta.get('recipe')}, {found.meta.get('scale')} scale, on {found.meta.get('data')}",
        ) from error
    return network.eval()


def _told(answers: Iterator[_Answer], count: int, say: Callable[[str], None]) -> Iterator[_Answer]:
    """Yield `answers`, saying now and then how many of `count` there were."""
    said = time.monotonic()
    for number, answer in enumerate(answers, 1):
        yield answer
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            say(f"{number:,} of {count:,} images")
