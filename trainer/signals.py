"""What the ranks of a training tell each other at every step, without a message of its own.

A parameter of three numbers rides beside the network's in the gradient bucket. Its gradient is whatever a rank puts
in, so the sum that comes back with the step's gradients tells all ranks the same: the loss over all images, whether
any rank was asked to stop, whether any wants a checkpoint.
"""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch
from torch import Tensor, nn

LOSS, STOP, SAVE = range(3)


class Word(NamedTuple):
    """What a rank asks of all at a step, or what all agreed on: to stop after it, to save a checkpoint of it."""

    stop: bool
    save: bool


NOTHING = Word(stop=False, save=False)


class Riding(nn.Module):
    """A network with the rider beside it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.rider = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and the rider for `load`."""
        logits: Tensor = self.network(images)
        return logits, self.rider.clone()


def load(rider: Tensor, loss: Tensor, wish: Tensor) -> Tensor:
    """Return what is added to the (scaled) loss so that the gradient of `rider` becomes `loss` and `Exchange.wish`."""
    values = wish.clone()
    values[LOSS] = loss.detach()
    return (rider * values).sum()


class Exchange:
    """Reads the word of each step from the rider's gradient. `wish` (3,) is what this rank has in it, but for the loss.

    On a GPU it is read one step later (`late`), when it has long arrived: asking at once would make the CPU wait for
    the GPU at every step. All ranks read the same numbers at the same step, so they still agree.
    """

    def __init__(self, device: torch.device, *, late: bool | None = None) -> None:
        self._cuda = device.type == "cuda"
        self._late = self._cuda if late is None else late
        self._values = torch.zeros(3, pin_memory=self._cuda)
        self._unread = False
        self._arrived: torch.cuda.Event | None = None
        self._loss = torch.zeros((), device=device)
        self._steps = 0
        self.wish, self._asked = torch.zeros(3, device=device), NOTHING

    def ask(self, wish: Word) -> None:
        """Ask for `wish` from the next step on. `wish` stays where it is in memory: steps may be recorded."""
        if wish != self._asked:
            self._asked = wish
            self.wish[STOP].fill_(wish.stop)
            self.wish[SAVE].fill_(wish.save)

    def read(self, rider: nn.Parameter) -> Word:
        """Return what was agreed on, after a backward pass."""
        if rider.grad is None:
            raise RuntimeError("the rider has no gradient: `load` was left out of the loss")
        values = rider.grad.detach()
        self._loss += values[LOSS]
        self._steps += 1
        if not self._late:
            return _word(values)
        word = self.pending()
        self._values.copy_(values, non_blocking=True)
        self._unread = True
        if self._cuda:
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()
        return word

    def pending(self) -> Word:
        """Return what was agreed on at the last step and not read yet; waits for the device."""
        if not self._unread:
            return NOTHING
        if self._arrived is not None:
            self._arrived.synchronize()
        self._unread = False
        return _word(self._values)

    def loss(self) -> float:
        """Return the mean loss over all ranks and the steps since the last call (waits for the device)."""
        mean = self._loss.item() / max(1, self._steps)
        self._loss.zero_()
        self._steps = 0
        return mean


class StopRequests:
    """Whether this rank was asked to stop: SIGTERM, or the stop file. From `listen` on SIGTERM no longer kills."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._signalled = False

    def listen(self) -> None:
        """Take SIGTERM as a request from now on."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def asked(self) -> bool:
        """Return whether a request is there."""
        return self._signalled or self._file.exists()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True


class SaveRequests:
    """The wish for a checkpoint at once: a file on any node, which is taken away when it is heard."""

    def __init__(self, file: Path, *, listens: bool) -> None:
        self._file = file
        self._listens = listens

    def take(self) -> bool:
        """Return whether a request came since the last call. One rank of a node listens."""
        if not (self._listens and self._file.exists()):
            return False
        self._file.unlink(missing_ok=True)
        return True


def _word(values: Tensor) -> Word:
    stop, save = values[STOP].item(), values[SAVE].item()
    return Word(stop != 0, save != 0)
