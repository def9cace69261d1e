"""The process group: how ranks meet, copy state from rank 0, and part. The only place that starts or ends it."""

from __future__ import annotations

import datetime
import gc
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer.contract import Node
from trainer.errors import TrainerError
from trainer.words import counted

PATIENCE = datetime.timedelta(minutes=10)  # for ranks that start late or a step that takes long
_ONE_BUCKET_MB = 1024  # on gloo a collective costs more than its bytes: one a step
_NVLINK_BUCKET_MB = 25  # DDP's own: small ones begin to travel while the backward pass still runs
_NEVER = 2**31 - 1  # steps
_NETWORK_BUCKET_MB = 64  # between machines each bucket pays the way round all GPUs: ResNet-50 makes two


@dataclass(frozen=True, slots=True)
class World:
    """This rank among all ranks on so many `machines`. `device` is where the network lies."""

    rank: int
    size: int
    device: torch.device
    machines: int = 1

    @property
    def leads(self) -> bool:
        """Whether this rank is the one that writes progress and checkpoints."""
        return self.rank == 0


def join(node: Node) -> World:
    """Meet the other ranks: nccl between GPUs, gloo between CPUs. Raises TrainerError when CUDA is not there."""
    if node.device == "cuda" and not torch.cuda.is_available():
        raise TrainerError("no CUDA device on this node", "set `device: cpu` (ORCH_DEVICE=cpu) to train on CPUs")
    device = torch.device("cpu")
    if node.device != "cpu" and torch.cuda.is_available():
        if node.local_rank >= torch.cuda.device_count():
            raise TrainerError(
                f"{node.local_world} processes on a node of {counted(torch.cuda.device_count(), 'GPU')}",
                "set `procs_per_node` (--nproc-per-node) to the number of GPUs",
            )
        device = torch.device("cuda", node.local_rank)
        torch.cuda.set_device(device)
        # What is recorded (graphs) must not touch the default stream, nor anything made on it, such as DDP's hooks.
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
        torch.backends.cudnn.benchmark = True
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if node.world == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    else:
        dist.init_process_group(backend, timeout=PATIENCE)
    return World(node.rank, node.world, device, node.nodes)


def memory_gib(world: World) -> float | None:
    """Return the memory of this rank's GPU in GiB; None on a CPU."""
    if world.device.type != "cuda":
        return None
    return float(torch.cuda.get_device_properties(world.device).total_memory) / 2**30


def bucket_mb(device: str, machines: int) -> int:
    """Return how many MB of gradients travel in one message between ranks on "cuda" or "cpu"."""
    if device != "cuda":
        return _ONE_BUCKET_MB
    return _NVLINK_BUCKET_MB if machines == 1 else _NETWORK_BUCKET_MB


def parallel(module: nn.Module, world: World) -> DistributedDataParallel:
    """Return `module` with gradients averaged over all ranks; every parameter and buffer is made that of rank 0.

    Buffers (the running statistics of batch normalisation) then go their own way on each rank.
    """
    options: dict[str, Any] = {
        "static_graph": True,
        "gradient_as_bucket_view": True,
        "bucket_cap_mb": bucket_mb(world.device.type, world.machines),
    }
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    options["forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"] = False
    if world.device.type == "cuda":
        options["device_ids"] = [world.device.index]
    made = DistributedDataParallel(module, **options)
    if world.device.type == "cuda":  # what it would time then by events, a recorded step cannot
        made._set_ddp_runtime_logging_sample_rate(_NEVER)  # type: ignore[no-untyped-call]
    return made


def tell(value: Any) -> Any:
    """Return rank 0's `value` (small, picklable) on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def copy_from_first(tensors: Sequence[Tensor]) -> None:
    """Make `tensors` on every rank those of rank 0, in one message."""
    flat = flatten(tensors)
    dist.broadcast(flat, src=0)
    unflatten(flat, tensors)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """Return the numbers of all `tensors` one after the other, a float32 copy of shape (total,)."""
    return torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])


@torch.no_grad()
def unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """Write the numbers of `flat` back into `tensors`; the inverse of `flatten`."""
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, part in zip(tensors, torch.split_with_sizes(flat, sizes), strict=True):
        tensor.copy_(part.view_as(tensor))


def gather(row: Tensor, world: World) -> Tensor | None:
    """Return every rank's `row` (n,) on rank 0, shape (ranks, n), on the CPU; None on the others."""
    mine = row.detach().cpu()
    rows = [torch.empty_like(mine) for _ in range(world.size)] if world.leads else None
    dist.gather(mine, rows, dst=0)
    return torch.stack(rows) if rows is not None else None


def total(values: Tensor) -> Tensor:
    """Return the sum of `values` over all ranks."""
    dist.all_reduce(values)
    return values


def wait_for_all() -> None:
    """Return when every rank has come here."""
    dist.all_reduce(torch.zeros(1))


def part() -> None:
    """Leave the process group. The caller has dropped its DistributedDataParallel before.

    One that outlives the group hangs in its destructor on gloo: it joins a thread that waits for the lock it holds.
    """
    gc.collect()
    dist.destroy_process_group()
