"""Learns the two colours of a checkered board: plain PyTorch DDP that can be stopped, killed and resumed."""

import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

steps = int(os.environ.get("STEPS", "6000"))
checkpoints = Path(os.environ.get("ORCH_CHECKPOINT_DIR", "checkpoints"))
progress_file = Path(os.environ.get("ORCH_PROGRESS_FILE", "progress.jsonl"))
stop_file = Path(os.environ.get("ORCH_STOP_FILE", "stop"))
device = torch.device(os.environ.get("ORCH_DEVICE", "cuda" if torch.cuda.is_available() else "cpu"))
if device.type == "cuda":
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
rank, world = dist.get_rank(), dist.get_world_size()


def report(**line):
    if rank == 0:
        print(line, flush=True)
        with progress_file.open("a") as file:
            file.write(json.dumps({"time": time.time(), "steps": steps, **line}) + "\n")


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 2)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
step = max((int(folder.name) for folder in checkpoints.glob("*") if folder.name.isdigit()), default=0)
if step:
    state = torch.load(checkpoints / str(step) / "state.pt", map_location=device)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
ddp = nn.parallel.DistributedDataParallel(model)
asked = torch.zeros(1, device=device)
while step < steps and not asked:
    random = torch.Generator().manual_seed(step * world + rank)  # the same points in a run that was resumed
    points = (6 * torch.rand(512, 2, generator=random) - 3).to(device)
    labels = points.floor().sum(dim=1).long() % 2
    outputs = ddp(points)
    loss = nn.functional.cross_entropy(outputs, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step += 1
    asked.fill_(stop_file.exists())  # on one node only: the ranks agree, so that all leave after the same step
    dist.all_reduce(asked)
    if step % 50 == 0:
        report(step=step, loss=loss.item(), top1=100 * (outputs.argmax(1) == labels).float().mean().item())
    if rank == 0 and (asked or step == steps or step % 250 == 0):
        partial = checkpoints / f".partial-{step}"
        partial.mkdir(parents=True, exist_ok=True)
        with (partial / "state.pt").open("wb") as file:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(checkpoints / str(step))
if asked:
    report(event="stopped", step=step)
dist.barrier()  # torchrun kills every rank of a node as soon as one fails: nobody exits before it is saved
dist.destroy_process_group()
os._exit(75 if asked else 0)  # at once: gloo's threads outlive the group, and may abort a Python that tidies up
