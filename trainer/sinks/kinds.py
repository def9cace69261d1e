"""The sinks themselves: TensorBoard event files and Weights & Biases. The only place that imports their packages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from trainer.sinks import TENSORBOARD, WANDB


class Sink(Protocol):
    """Takes figures step by step; what it took outlives its process."""

    def add(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """Take `figures` of `step`, measured at `time` (Unix, seconds)."""

    def close(self) -> None:
        """Write what is left and let go."""


class EventFiles:
    """TensorBoard: one file in `tensorboard` under the log folder for each start of the training."""

    def __init__(self, job: Mapping[str, Any], start: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(Path(job["logs"]) / TENSORBOARD))
        if start["step"]:  # steps after it, of an earlier life in the same folder, are done again: drop them
            restart = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=start["time"], step=start["step"] + 1, session_log=restart))

    def add(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """Append one event and flush it."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writer.add_event(self._event(wall_time=time, step=step, summary=self._summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class WeightsAndBiases:
    """One W&B run for each run of orch: a resumed training continues it. Steps done again keep their first figures."""

    def __init__(self, job: Mapping[str, Any], start: Mapping[str, Any]) -> None:
        import wandb

        self._run = wandb.init(
            project=job["recipe"]["name"],
            id=job["run"] or None,
            name=job["run"] or None,
            resume="allow",
            dir=job["logs"],
            config={**job["recipe"], **start.get("run", {})},
            settings=wandb.Settings(silent=True, console="off"),
        )

    def add(self, step: int, time: float, figures: Mapping[str, float]) -> None:
        """Log the figures; W&B sends them from a process of its own."""
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


KINDS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Sink]] = {
    TENSORBOARD: EventFiles,
    WANDB: WeightsAndBiases,
}
