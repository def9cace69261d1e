"""Batches made ahead by worker processes, handed over in shared memory that is used again and again.

Fresh shared memory for every batch, torch's way, costs a page fault every 4 kB on both sides: up to a fifth of the time
that decoding takes. Here a batch is made in a slot, which is free again when the batch after it is
asked for. (With pinned memory torch's own thread copies, and maps each batch anew.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainer.data.pack import CHANNELS
from trainer.errors import TrainerError

AHEAD = 4  # batches that each worker makes before they are asked for


class Batch(NamedTuple):
    """`images` uint8 (n, 3, height, width), `labels` int64 (n,), and the names of images that others stand in for."""

    images: Tensor
    labels: Tensor
    replaced: tuple[str, ...] = ()


Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


Room = Callable[[int, int, int], Tensor]  # from count, height and width to where so many images go


class Maker(Protocol[Item_contra]):
    """What makes a batch of an item; it is sent to the workers."""

    def make(self, item: Item_contra, room: Room, /) -> Batch:
        """Return the batch, its images in `room` where that is possible."""
        ...


class _Slots(Dataset[tuple[int, Batch | TrainerError]], Generic[Item]):
    """The worker's side: makes the batch of an item in the slot named with it.

    What a person is to read travels as it is: raised here, torch would wrap it in a traceback.
    """

    def __init__(self, maker: Maker[Item]) -> None:
        self._maker = maker
        self._rooms: dict[int, Tensor] = {}

    def __getitem__(self, ticket: tuple[int, Item]) -> tuple[int, Batch | TrainerError]:
        slot, item = ticket

        def room(count: int, height: int, width: int) -> Tensor:
            bytes_ = count * height * width * CHANNELS
            if slot not in self._rooms or self._rooms[slot].numel() < bytes_:
                self._rooms[slot] = torch.empty(bytes_, dtype=torch.uint8)
                self._rooms[slot].share_memory_()  # type: ignore[no-untyped-call]
            return self._rooms[slot][:bytes_].view(count, height, width, CHANNELS).permute(0, 3, 1, 2)

        try:
            batch = self._maker.make(item, room)
        except TrainerError as error:
            return slot, error
        count, _, height, width = batch.images.shape
        place = room(count, height, width)
        if batch.images.data_ptr() != place.data_ptr():
            batch = batch._replace(images=place.copy_(batch.images))
        return slot, batch


def ahead(maker: Maker[Item], items: Iterable[Item], *, workers: int, pin: bool) -> Iterator[Batch]:
    """Yield the batch of each item, in order; with `pin` in memory that a GPU can copy from at any time.

    Without it a batch holds only until the next is asked for: its memory is used again. Raises TrainerError when
    `maker` does.
    """
    free = deque(range(workers * (AHEAD + 1)))  # more than can be on their way; each slot stays with one worker
    tickets = ((free.popleft(), item) for item in items)
    loader = DataLoader(
        _Slots(maker), batch_size=None, sampler=tickets, num_workers=workers, prefetch_factor=AHEAD, pin_memory=pin
    )
    mapped: dict[int, Tensor] = {}  # what is held stays mapped
    for slot, made in loader:
        if isinstance(made, TrainerError):
            raise made
        batch: Batch = made
        if not pin:  # else it was copied into pinned memory
            mapped[slot] = batch.images
        yield batch
        free.append(slot)
