"""The training loop: from a restored position to the end of the recipe, or to the step at which all ranks stop.

Joins the parts and decides nothing else: the schedule is in `schedule`, the order of images in `order`, one step in
`engine`, every word in `reporter`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer import checkpoint, precision, schedule, signals
from trainer import world as ranks
from trainer.contract import Node
from trainer.data import loader, order, pack
from trainer.engine import Engine
from trainer.errors import DONE, STOPPED, TrainerError
from trainer.evaluate import evaluate
from trainer.recipe import Recipe
from trainer.reporter import Reporter
from trainer.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the command line asked for. `epochs` ends the recipe early; `workers` are loader processes per rank.

    `numbers` is the precision wanted, `checkpoint_seconds` the time between checkpoints within a phase, `log_every`
    the steps between progress lines.
    """

    recipe: Recipe
    root: Path
    epochs: int
    seed: int = 0
    workers: int = 0
    numbers: str = "auto"
    checkpoint_seconds: float = 60.0
    log_every: int = 20


@dataclass(slots=True)
class Position:
    """How far the training is: optimizer steps in all, whole epochs, and images seen of the current one."""

    step: int = 0
    epoch: int = 0
    samples_seen: int = 0


class Training:
    """One rank's training. Made and run by all ranks together; `close` before the process group ends."""

    def __init__(self, job: Job, node: Node, world: World) -> None:
        self._job, self._recipe, self._world = job, job.recipe, world
        self._images = loader.Images(job.root, seed=job.seed, flip=job.recipe.flip)
        self._samples = len(self._images.split(schedule.at(job.recipe, 0).folder, pack.TRAIN))
        self._report = Reporter(job.recipe, node, world, job.log_every)
        self._requests = signals.StopRequests(node.stop)
        self._saves = signals.SaveRequests(node.save, listens=node.local_rank == 0)
        self._folder = node.checkpoints
        self._writer = checkpoint.Writer(node.checkpoints, self._report.saved)
        classes = int(pack.describe(job.root)["classes"])
        self._engine = Engine(job.recipe, classes, job.seed, precision.choose(job.numbers, world.device), world)
        self._at = Position()
        self._scores: dict[str, float] = {}
        self._saved_at = time.monotonic()

    def run(self) -> int:
        """Train to the end or to a stop; return the exit code. Raises TrainerError when a checkpoint does not fit."""
        self._restore()
        self._requests.listen()
        self._announce()
        if self._at.epoch < self._job.epochs and self._epoch_is_over():  # it was stopped before the evaluation
            self._end_epoch()
        self._report.rest()
        for batch, (images, labels) in zip(self._plan(), self._stream(), strict=True):
            word = self._train(batch, images, labels)
            if word.stop:
                return self._stop()
            if word.save:
                self._save()
            if self._epoch_is_over():
                self._end_epoch()
        self._writer.wait()
        self._report.finished(self._at.step, self._scores)
        return DONE

    def close(self) -> None:
        """Let go of what must not outlive the process group."""
        self._engine.close()

    def _plan(self) -> Iterator[order.GlobalBatch]:
        job, at = self._job, self._at
        return order.remaining(
            self._recipe, self._samples, job.seed, epoch=at.epoch, seen=at.samples_seen, epochs=job.epochs
        )

    def _items(self) -> Iterator[loader.TrainItem]:
        for batch in self._plan():
            point = schedule.at(self._recipe, batch.epoch)
            mine = tuple(int(index) for index in order.share(batch, self._world.rank, self._world.size))
            yield loader.TrainItem(mine, batch.epoch, point.size, point.min_scale, point.folder)

    def _stream(self) -> Iterator[tuple[Tensor, Tensor]]:
        pin = self._world.device.type == "cuda"
        return loader.batches(self._images, self._items(), workers=self._job.workers, pin=pin)

    def _epoch_is_over(self) -> bool:
        """Return whether the rest of the epoch's images fill no batch."""
        size = schedule.batch_size(self._recipe, self._at.epoch, self._samples)
        return self._at.samples_seen + size > self._samples

    def _train(self, batch: order.GlobalBatch, images: Tensor, labels: Tensor) -> signals.Word:
        before = schedule.progress(self._recipe, batch.epoch, batch.seen, self._samples)
        point = schedule.at(self._recipe, before)
        count = len(batch.indices)
        due = self._world.leads and time.monotonic() - self._saved_at >= self._job.checkpoint_seconds
        wish = signals.Word(self._requests.asked(), self._saves.take() or due)
        word = self._engine.step(images, labels, count, point, wish)
        self._at = Position(self._at.step + 1, batch.epoch, batch.seen + count)
        self._report.count(count)
        if self._report.due(self._at.step):
            epoch = schedule.progress(self._recipe, batch.epoch, self._at.samples_seen, self._samples)
            self._report.step(self._at.step, epoch, self._engine.loss(), point)
        return word

    def _end_epoch(self) -> None:
        """Evaluate, move to the next epoch, and save where a phase or the training ends."""
        point = schedule.at(self._recipe, self._at.epoch)
        with self._engine.state.averaged():
            scores = evaluate(self._engine, self._images, self._recipe, point, workers=self._job.workers)
        self._scores = scores.short()
        over = schedule.ends_phase(self._recipe, self._at.epoch)
        self._at = Position(self._at.step, self._at.epoch + 1, 0)
        self._report.evaluated(self._at.step, self._at.epoch, scores, point)
        if over or self._at.epoch == self._job.epochs:
            self._save()
        self._report.rest()

    def _stop(self) -> int:
        self._save()
        self._writer.wait()
        self._report.stopped(self._at.step)
        return STOPPED

    def _save(self) -> None:
        """Take a snapshot here and now; it is written while the training goes on."""
        state = self._engine.state.snapshot()
        self._saved_at = time.monotonic()
        if state is not None:
            meta = self._identity() | asdict(self._at) | {"world_size": self._world.size} | self._scores
            self._writer.submit(self._at.step, state, meta)

    def _restore(self) -> None:
        """Go to where the newest checkpoint on rank 0 was taken, if there is one."""
        found = checkpoint.newest(self._folder, self._report.unreadable) if self._world.leads else None
        meta: dict[str, Any] | None = ranks.tell(found.meta if found else None)
        if meta is None:
            return
        ours = self._identity()
        wrong = [f"{name} {meta.get(name)}, not {ours[name]}" for name in ours if meta.get(name) != ours[name]]
        if wrong:
            raise TrainerError(
                f"checkpoint {meta['step']} is of another training: {'; '.join(wrong)}",
                "name another folder in ORCH_CHECKPOINT_DIR, or start the training it is of",
            )
        self._engine.state.restore(found.state if found else None)
        self._at = Position(meta["step"], meta["epoch"], meta["samples_seen"])
        self._scores = {name: meta[name] for name in ("top1", "top5") if name in meta}
        self._report.resumed(self._at.step, self._at.epoch, self._at.samples_seen)

    def _announce(self) -> None:
        self._report.start(
            self._identity(),
            step=self._at.step,
            epochs=self._job.epochs,
            steps=schedule.total_steps(self._recipe, self._samples, self._job.epochs),
            numbers=self._engine.numbers,
            weights=sum(parameter.numel() for parameter in self._engine.network.parameters()),
        )

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint and a training must have in common."""
        recipe = self._recipe
        return {
            "recipe": recipe.name,
            "scale": recipe.scale,
            "gpus": recipe.gpus,
            "keep": recipe.keep,
            "seed": self._job.seed,
            "samples": self._samples,
        }
