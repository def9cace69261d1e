"""The training loop: from a restored position to the end of the recipe, or to the step at which all ranks stop.

Joins the parts and decides nothing else: the table is chosen in `table`, the schedule is in `schedule`, the order of
images in `order`, one step in `engine`, every word in `reporter` and `notices`.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any

from torch import Tensor

from trainer import checkpoint, compress, graphs, memory, notices, precision, schedule, signals, table
from trainer import world as ranks
from trainer.contract import Node
from trainer.data import order
from trainer.data.loader import TrainItem
from trainer.engine import Engine, Settings
from trainer.errors import DONE, STOPPED, TrainerError
from trainer.evaluate import evaluate
from trainer.events import Console
from trainer.job import Job
from trainer.recipe import Recipe
from trainer.reporter import Reporter
from trainer.source import Packed, Source
from trainer.synthetic import Synthetic
from trainer.world import World


@dataclass(slots=True)
class Position:
    """How far the training is: optimizer steps in all, whole epochs, and images seen of the current one."""

    step: int = 0
    epoch: int = 0
    samples_seen: int = 0


class Training:
    """One rank's training. Made and run by all ranks together; `close` before the process group ends.

    Raises TrainerError when data are missing, or when the checkpoint to go on from is of another training.
    """

    def __init__(self, job: Job, node: Node, world: World) -> None:
        self._job, self._world = job, world
        unreadable: list[tuple[int, Exception]] = []
        found = checkpoint.newest(node.checkpoints, lambda *what: unreadable.append(what)) if world.leads else None
        meta: dict[str, Any] | None = ranks.tell(found.meta if found else None)
        self._recipe = table.choose(job.asked, world.size, meta)
        self._epochs = min(job.epochs or self._recipe.epochs, self._recipe.epochs)
        self._source = _source(job, self._recipe, world, warms=node.local_rank == 0)
        self._report = Reporter(self._recipe, node, world, job.log_every or self._recipe.log_every)
        self._console = Console(world.rank, world.size)
        for step, error in unreadable:
            self._report.unreadable(step, error)
        if meta is not None:
            self._refuse_another(meta)
        self._requests = signals.StopRequests(node.stop)
        self._saves = signals.SaveRequests(node.save, listens=node.local_rank == 0)
        self._writer = checkpoint.Writer(node.checkpoints, self._report.saved)
        numbers = precision.choose(job.numbers, world.device)
        self._settings = Settings(
            seed=job.seed,
            numbers=numbers,
            compress=compress.choose(job.compress, numbers, world.machines),
            compiled=job.compiled,
            graphs=graphs.choose(job.graphs, world.device.type, world.size, compiled=job.compiled),
        )
        self._engine = Engine(self._recipe, self._source.classes, self._settings, world)
        gib = ranks.memory_gib(world)
        self._at_once = {
            phase: job.micro_batch or memory.limit(self._recipe, phase, gib) for phase in self._recipe.data
        }
        self._at = Position()
        self._scores: dict[str, float] = {}
        self._saved_step, self._saved_at, self._wished = -1, time.monotonic(), False
        if meta is not None:
            self._restore(meta, found.state if found else None)
        self._announce(meta["world_size"] if meta else None)

    def run(self) -> int:
        """Train to the end or to a stop; return the exit code."""
        self._requests.listen()
        if self._at.epoch < self._epochs and self._epoch_is_over():  # it was stopped before the evaluation
            self._end_epoch()
        self._report.rest()
        for batch, (images, labels) in zip(self._arrived(), self._source.training(self._items()), strict=True):
            word, over = self._train(batch, images, labels), self._epoch_is_over()
            if over:  # nobody should wait through an evaluation for what is already known
                word = signals.Word(*map(operator.or_, word, self._engine.pending()))
            if word.stop:
                return self._stop()
            if over:
                self._end_epoch(save=word.save)
            elif word.save:
                self._save()
        if self._at.step != self._saved_step:
            self._save()
        self._writer.wait()
        self._report.finished(self._at.step, self._scores)
        return DONE

    def close(self) -> None:
        """Let go of what must not outlive the process group."""
        self._engine.close()

    def _plan(self) -> Iterator[order.GlobalBatch]:
        job, at = self._job, self._at
        rest = order.remaining(
            self._recipe, self._source.samples, job.seed, epoch=at.epoch, seen=at.samples_seen, epochs=self._epochs
        )
        return rest if job.steps is None else islice(rest, max(0, job.steps - at.step))

    def _arrived(self) -> Iterator[order.GlobalBatch]:
        """Yield the plan; before the first batch of other images, wait until this machine has them."""
        folder: str | None = None
        for batch in self._plan():
            point = schedule.at(self._recipe, batch.epoch)
            if point.folder != folder:
                folder = point.folder
                waited = self._source.await_images(point, partial(self._report.waits, self._at.step))
                if waited:
                    self._report.arrived(self._at.step, waited)
            yield batch

    def _items(self) -> Iterator[TrainItem]:
        for batch in self._plan():
            point = schedule.at(self._recipe, batch.epoch)
            mine = tuple(order.share(batch, self._world.rank, self._world.size).tolist())
            yield TrainItem(mine, batch.epoch, point.size, point.min_scale, point.folder)

    def _epoch_is_over(self) -> bool:
        """Return whether the rest of the epoch's images fill no batch."""
        samples = self._source.samples
        return self._at.samples_seen + schedule.batch_size(self._recipe, self._at.epoch, samples) > samples

    def _train(self, batch: order.GlobalBatch, images: Tensor, labels: Tensor) -> signals.Word:
        point = schedule.at(self._recipe, self._progress(batch.epoch, batch.seen))
        count = len(batch.indices)
        wish = signals.Word(self._requests.asked(), self._saves.take() or self._save_is_due())
        at_once = self._at_once[schedule.data_phase(self._recipe, batch.epoch)]
        word = self._engine.step(images, labels, count, point, wish, at_once=at_once)
        self._at = Position(self._at.step + 1, batch.epoch, batch.seen + count)
        self._report.count(count)
        if self._report.due(self._at.step):
            epoch = self._progress(batch.epoch, self._at.samples_seen)
            self._report.step(self._at.step, epoch, self._engine.loss(), point)
        for name in self._source.damaged():
            self._console.say(f"{name} cannot be decoded, another image stands in for it")
        return word

    def _save_is_due(self) -> bool:
        """Return whether rank 0 asks for a checkpoint now: once, since on a GPU the answer comes a step later."""
        if self._wished or not self._world.leads:
            return False
        self._wished = time.monotonic() - self._saved_at >= self._job.checkpoint_seconds
        return self._wished

    def _progress(self, epoch: int, seen: int) -> float:
        return schedule.progress(self._recipe, epoch, seen, self._source.samples)

    def _end_epoch(self, *, save: bool = False) -> None:
        """Evaluate, move to the next epoch, and save if asked, or where a phase or the training ends."""
        point = schedule.at(self._recipe, self._at.epoch)
        self._report.pause()
        with self._engine.state.averaged():
            scores = evaluate(self._engine, self._source, point)
        over = schedule.ends_phase(self._recipe, self._at.epoch)
        self._at = Position(self._at.step, self._at.epoch + 1, 0)
        if scores is not None:
            self._scores = scores.short()
            self._report.evaluated(self._at.step, self._at.epoch, scores, point)
        if save or over or self._at.epoch == self._epochs:
            self._save()
        self._report.rest()

    def _stop(self) -> int:
        self._save()
        self._writer.wait()
        self._report.stopped(self._at.step)
        return STOPPED

    def _save(self) -> None:
        """Take a snapshot here and now; it is written while the training goes on."""
        self._report.pause()
        state = self._engine.state.snapshot()
        self._report.snapshot(self._at.step)
        self._saved_step, self._saved_at, self._wished = self._at.step, time.monotonic(), False
        if state is not None:
            meta = self._identity() | asdict(self._at) | {"world_size": self._world.size} | self._scores
            self._writer.submit(self._at.step, state, meta)

    def _refuse_another(self, meta: dict[str, Any]) -> None:
        ours = self._identity()
        wrong = [f"{name} {meta.get(name)}, not {ours[name]}" for name in ours if meta.get(name) != ours[name]]
        if wrong:
            raise TrainerError(
                f"checkpoint {meta['step']} is of another training: {'; '.join(wrong)}",
                "name another folder in ORCH_CHECKPOINT_DIR, or start the training it is of "
                "(its table and what it keeps are taken over when --table and --keep are left out)",
            )

    def _restore(self, meta: dict[str, Any], state: dict[str, Any] | None) -> None:
        """Go to where a checkpoint was taken; `state` is None on all ranks but 0, which read it."""
        self._engine.state.restore(state)
        self._at = Position(meta["step"], meta["epoch"], meta["samples_seen"])
        self._saved_step = self._at.step
        self._scores = {name: meta[name] for name in ("top1", "top5") if name in meta}
        self._report.resumed(self._at.step, self._at.epoch, self._at.samples_seen)

    def _announce(self, before: int | None) -> None:
        recipe, samples = self._recipe, self._source.samples
        steps = schedule.total_steps(recipe, samples, self._epochs)
        how = {
            "compress": self._settings.compress,
            "compiled": self._settings.compiled,
            "graphs": self._settings.graphs,
            "table": recipe.rule,
        }
        self._report.start(
            self._identity() | how,
            step=self._at.step,
            epochs=self._epochs,
            steps=min(steps, self._job.steps or steps),
            numbers=self._settings.numbers,
            weights=sum(parameter.numel() for parameter in self._engine.network.parameters()),
            dataset=self._source.name,
            classes=self._source.classes,
        )
        if self._world.leads:
            self._console.say(notices.share(recipe, min(self._at.epoch, recipe.epochs - 1), before))
            for line in notices.parts(recipe, self._epochs, self._at_once):
                self._console.say(line)
            for line in notices.small(recipe, self._epochs, samples):
                self._console.say(line)

    def _identity(self) -> dict[str, Any]:
        """Return what a checkpoint and a training must have in common."""
        recipe = self._recipe
        return {
            "recipe": recipe.name,
            "scale": recipe.scale,
            "gpus": recipe.gpus,
            "keep": recipe.keep,
            "seed": self._job.seed,
            "data": self._source.name,
            "samples": self._source.samples,
        }


def _source(job: Job, recipe: Recipe, world: World, *, warms: bool) -> Source:
    if job.root is None:
        return Synthetic(job.classes, job.samples, world.device, seed=job.seed)
    return Packed(
        job.root,
        recipe,
        world.device,
        seed=job.seed,
        workers=job.workers,
        max_corrupt=job.max_corrupt,
        warms=warms,
    )
