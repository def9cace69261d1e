"""What a training says of itself: every progress line and every line for a person is worded here.

Rank 0 writes the progress file and speaks of everything; the others print a line of their own now and then, so that
whoever is attached to their node sees that it works.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from trainer import sinks
from trainer.contract import Node
from trainer.evaluate import Scores
from trainer.events import Console, Progress
from trainer.recipe import Recipe
from trainer.schedule import Point
from trainer.stopwatch import Stopwatch
from trainer.words import counted
from trainer.world import World

SAY_EVERY = 10  # steps between the lines of ranks other than 0


class Reporter:
    """Speaks for one rank. `log_every` counts steps between progress lines."""

    def __init__(self, recipe: Recipe, node: Node, world: World, log_every: int) -> None:
        self._recipe, self._node, self._world = recipe, node, world
        self._every = log_every if world.leads else SAY_EVERY
        self._progress = Progress(node.progress if world.leads else None)
        self._console = Console(world.rank, world.size)
        self._since, self._images = time.monotonic(), 0
        self._watch = Stopwatch()
        self._stood: dict[int, float] = {}
        self._sinks = sinks.Sinks(self._console.say)

    def start(
        self,
        identity: dict[str, Any],
        *,
        step: int,
        epochs: int,
        steps: int,
        numbers: str,
        weights: int,
        dataset: str,
        classes: int,
    ) -> None:
        """Say what begins: `steps` in `epochs` in all, the precision `numbers`, a network of `weights` parameters."""
        recipe, world = self._recipe, self._world
        begins = self._progress.end()
        self._progress.write(
            "start",
            step=step,
            epochs=epochs,
            steps=steps,
            recipe=recipe.name,
            scale=recipe.scale,
            dataset=dataset,
            classes=classes,
            world_size=world.size,
            run=identity
            | {
                "device": world.device.type,
                "precision": numbers,
                "model": recipe.model,
                "parameters": weights,
                "note": recipe.note,
                "torch": str(torch.__version__),
            },
        )
        if not world.leads:
            self._console.say(f"training {recipe.name} with {counted(world.size, 'rank')}")
            return
        self._sinks = sinks.start(recipe, self._node, begins, self._console.say)
        if recipe.note:
            self._console.say(f"this is {recipe.note}")
        length, ranks = f"{counted(epochs, 'epoch')}, {counted(steps, 'step')}", counted(world.size, "rank")
        self._console.say(
            f"{recipe.name}, {recipe.scale} scale: {recipe.model} of {weights:,} parameters, "
            f"{identity['samples']:,} images, {length}, {ranks} on "
            f"{world.device.type} in {numbers}"
        )
        if recipe.rule:
            self._console.say(recipe.rule)

    def resumed(self, step: int, epoch: int, seen: int) -> None:
        """Say where the training goes on."""
        self._progress.write("resumed", step=step, epoch=epoch, samples_seen=seen)
        self._lead(f"resumed from checkpoint {step}: epoch {epoch}, {seen:,} images into it")

    def unreadable(self, step: int, error: Exception) -> None:
        """Say that a checkpoint was passed over."""
        self._progress.write("unreadable", checkpoint_step=step)
        self._console.say(f"checkpoint {step} cannot be read, trying the one before: {error!r}")

    def waits(self, step: int, file: str) -> None:
        """Say that images are still on their way to this node, `file` among them; training stands still."""
        self.pause()
        self._progress.write("waiting", step=step, file=file)
        self._console.say(f"waiting for {file}, which is still on its way to this node")

    def arrived(self, step: int, seconds: float) -> None:
        """Say that what was waited for is there."""
        self._progress.write("arrived", step=step, seconds=round(seconds, 3))
        self._console.say(f"it is here after {seconds:.1f} s")
        self.rest()

    def rest(self) -> None:
        """Leave the time up to now out of images per second: training goes on, or begins."""
        self._since, self._images = time.monotonic(), 0
        self._watch.go(self._since)

    def pause(self) -> None:
        """Training stands still from here: for an evaluation, until `evaluated`, or a snapshot, until `snapshot`."""
        self._watch.stand(time.monotonic())

    def snapshot(self, step: int) -> None:
        """Training goes on: the snapshot of `step` is taken, and written beside it."""
        self._stood[step] = self._watch.go(time.monotonic())

    def count(self, images: int) -> None:
        """Add the images of one step."""
        self._images += images

    def due(self, step: int) -> bool:
        """Return whether this rank reports `step`."""
        return step % self._every == 0

    def step(self, step: int, epoch: float, loss: float, point: Point) -> None:
        """Say how far the training is; `loss` is the mean since the last such line."""
        now = time.monotonic()
        speed = self._images / max(now - self._since, 1e-9)
        self._since, self._images = now, 0
        self._progress.write(
            step=step,
            epoch=round(epoch, 4),
            loss=round(loss, 5),
            lr=round(point.lr, 6),
            image_size=point.size,
            images_per_second=round(speed, 1),
            batch=point.batch,
        )
        self._console.say(
            f"step {step}  epoch {epoch:.2f}  {point.size} px  batch {point.batch}  lr {point.lr:.4f}  "
            f"loss {loss:.4f}  {speed:.0f} images/s"
        )

    def evaluated(self, step: int, epoch: int, scores: Scores, point: Point) -> None:
        """Say the accuracy after `epoch` epochs, and for how long the training stood still for it."""
        now = time.monotonic()
        self._progress.write(
            "eval",
            step=step,
            epoch=epoch,
            **scores.short(),
            val_loss=round(scores.loss, 5),
            images=scores.images,
            train_seconds=round(self._watch.trained(now), 3),
            seconds=round(self._watch.go(now), 3),
        )
        shape = "rectangular" if point.rect_val else "square"
        self._lead(f"epoch {epoch}: {_percent(scores.short())} of {scores.images:,} {shape} images, {point.size} px")

    def saved(self, step: int) -> None:
        """Say that the checkpoint of `step` is on the disk (called from the thread that wrote it)."""
        self._progress.write("checkpoint", checkpoint_step=step, seconds=round(self._stood.pop(step, 0.0), 3))

    def stopped(self, step: int) -> None:
        """Say that the training ends early, with its checkpoint on the disk."""
        self._progress.write("stopped", step=step)
        self._console.say(f"stopped as asked at step {step}, which is saved; the next start goes on from there")
        if not self._node.run and self._node.stop.exists():
            self._lead(f"remove {self._node.stop} before it, or it stops again at once")
        self._sinks.close()

    def finished(self, step: int, scores: dict[str, float]) -> None:
        """Say that the training is complete."""
        self._progress.write("finished", step=step, **scores)
        self._lead(f"finished at step {step}: {_percent(scores)}")
        if self._recipe.note:
            self._lead(f"this was {self._recipe.note}")
        self._sinks.close()

    def _lead(self, text: str) -> None:
        if self._world.leads:
            self._console.say(text)


def _percent(scores: dict[str, float]) -> str:
    return f"top-1 {scores['top1']:.2f}%, top-5 {scores['top5']:.2f}%" if scores else "not evaluated"
