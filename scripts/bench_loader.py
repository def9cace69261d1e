"""Images a second of the trainer's loader beside bare decoding and resizing of the same boxes, in as many processes."""

from __future__ import annotations

import argparse
import importlib.util
import io
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.nn.functional import interpolate

from trainer.data import crops, loader, pack

IMAGES = 512
BATCH = 128
SEED = 0
MIN_SCALE = 0.08
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Case:
    """Images stored at short side `stored`, cropped at random to `size` pixels, `steps` batches in one round."""

    stored: int
    size: int
    steps: int


CASES = (Case(160, 128, 96), Case(352, 224, 32))


def photos(folder: Path | None) -> tuple[str, list[Image.Image]]:
    """Return where the pictures come from, in words, and at least one, no side below 352 pixels."""
    spec = importlib.util.find_spec("sklearn")
    if folder is None and spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "datasets" / "images"
    if folder is not None:
        found = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))]
        return f"the {len(found)} photographs in {folder}", [image for image in found if min(image.size) >= 352]
    rng = np.random.default_rng(SEED)
    return "made-up pictures (noise with the spectrum of photographs; --photos DIR or scikit-learn has real ones)", [
        _noise(rng) for _ in range(4)
    ]


def _noise(rng: np.random.Generator) -> Image.Image:
    """Return noise whose amplitude falls with frequency as it does in photographs (Field 1987): as one over it."""
    height, width = 427, 640
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    grey = np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency).real
    tint = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency**1.5).real for _ in range(3)]
    planes = [128 + 50 * grey / grey.std() + 12 * plane / plane.std() for plane in tint]
    return Image.fromarray(np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8))


def build(root: Path, case: Case, pictures: list[Image.Image]) -> float:
    """Pack random parts of `pictures` with short side `stored`; return the mean length in bytes."""
    rng = np.random.default_rng(SEED)
    total = 0
    with pack.Writer(root / str(case.stored) / pack.TRAIN) as writer:
        for index in range(IMAGES):
            picture = pictures[index % len(pictures)]
            short = int(rng.integers(352, min(picture.size) + 1))
            long = min(max(picture.size), int(short * rng.uniform(1.0, 1.5)))
            size = (long, short) if picture.width >= picture.height else (short, long)
            left, top = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(picture.size, size, strict=True))
            scale = case.stored / short
            part = picture.crop((left, top, left + size[0], top + size[1]))
            part = part.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BILINEAR)
            body = io.BytesIO()
            part.save(body, "JPEG", quality=75)
            writer.add(body.getvalue(), 0, *part.size)
            total += len(body.getvalue())
    return total / IMAGES


def items(case: Case) -> Iterator[loader.TrainItem]:
    """Yield the batches of one round."""
    for step in range(case.steps):
        start = step * BATCH
        chosen = tuple(index % IMAGES for index in range(start, start + BATCH))
        yield loader.TrainItem(chosen, start // IMAGES, case.size, MIN_SCALE, str(case.stored))


def through_loader(root: Path, case: Case, workers: int) -> float:
    """Return images a second from the loader.

    Counted from the arrival of one batch to that of the last: what workers had done of others by the first is, on
    average, what they stand idle at the end.
    """
    images = loader.Images(root, seed=SEED, flip=True)
    skipped, arrivals = 2 * workers, []
    for batch, labels in loader.batches(images, items(case), workers=workers, pin=False):
        arrivals.append(time.perf_counter())
        del batch, labels
    return (len(arrivals) - 1 - skipped) * BATCH / (arrivals[-1] - arrivals[skipped])


def bare(root: Path, case: Case, processes: int) -> float:
    """Return images a second of `processes` loops that decode, cut the same boxes and resize, and do nothing else."""
    start, ends = FORK.Barrier(processes + 1), FORK.SimpleQueue()
    chosen = list(items(case))
    loops = [
        FORK.Process(target=_loop, args=(root, case, chosen[number::processes], start, ends))
        for number in range(processes)
    ]
    for loop in loops:
        loop.start()
    start.wait()
    began = time.perf_counter()
    ended = max(float(ends.get()) for _ in loops)
    for loop in loops:
        loop.join()
    return case.steps * BATCH / (ended - began)


def _loop(root: Path, case: Case, share: list[loader.TrainItem], start: Barrier, ends: SimpleQueue[float]) -> None:
    torch.set_num_threads(1)
    source = pack.open_split(root / str(case.stored) / pack.TRAIN)
    work = []
    for item in share:
        indices = np.array(item.indices)
        sizes = source.heights[indices], source.widths[indices]
        boxes = crops.random_boxes(*sizes, indices, min_scale=MIN_SCALE, seed=SEED, epoch=item.epoch)
        work += [(source.encoded(index), *box) for index, box in zip(item.indices, boxes.tolist(), strict=True)]
    start.wait()
    for encoded, top, left, rows, columns in work:
        pixels = simplejpeg.decode_jpeg(encoded, "RGB", fastdct=True, fastupsample=True)
        part = torch.from_numpy(pixels[top : top + rows, left : left + columns]).permute(2, 0, 1)[None]
        interpolate(part, (case.size, case.size), mode="bilinear", antialias=True)
    ends.put(time.perf_counter())  # one clock for all processes (CLOCK_MONOTONIC)


def compare(root: Path, case: Case, workers: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return images a second of bare loops and of the loader in each round; a shared machine drifts, so by turns."""
    floors, speeds = [], []
    for _ in range(rounds):
        before = bare(root, case, workers)
        speeds.append(through_loader(root, case, workers))
        floors.append((before + bare(root, case, workers)) / 2)
    return floors, speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=torch.get_num_threads(), help="processes of either kind")
    parser.add_argument("--rounds", type=int, default=7, help="of each, in turns; the median of their ratios counts")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="folder of .jpg files to cut the images from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where, pictures = photos(arguments.photos)
    root = Path(tempfile.mkdtemp(prefix="orch-bench-loader-"))
    print(f"{IMAGES} images cut from {where}; {arguments.workers} workers, {arguments.rounds} rounds, medians")
    print(f"{'images':<14} {'kB each':>7} {'bare img/s':>11} {'loader img/s':>13} {'ratio':>6}  of each round")
    try:
        for case in CASES:
            length = build(root, case, pictures)
            floors, speeds = compare(root, case, arguments.workers, arguments.rounds)
            ratios = [speed / floor for speed, floor in zip(speeds, floors, strict=True)]
            rounds = " ".join(f"{ratio:.2f}" for ratio in ratios)
            print(
                f"{f'{case.stored} -> {case.size} px':<14} {length / 1e3:>7.1f} {median(floors):>11,.0f} "
                f"{median(speeds):>13,.0f} {median(ratios):>6.2f}  {rounds}",
                flush=True,
            )
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
