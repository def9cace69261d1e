"""What the trainer's tests share: a small data set that can be learnt, and processes that have torch already."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.trainer.zygote import Zygote
from trainer.data import pack

CLASSES = 10
TRAIN, VALIDATION = 400, 103  # a validation set that no number of ranks divides


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """One process that forks the ranks of all scenarios."""
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="session")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed data set of 24 to 40 pixel images in which class k is a bright band at height k."""
    root = tmp_path_factory.mktemp("data") / "stripes"
    rng = np.random.default_rng(0)
    for split, count in ((pack.TRAIN, TRAIN), (pack.VALIDATION, VALIDATION)):
        with pack.Writer(root / split) as writer:
            for index in range(count):
                label, width = index % CLASSES, 24 + index % 17
                pixels = rng.integers(0, 60, (40, width), dtype=np.uint8)
                pixels[label * 4 : label * 4 + 4] += 190
                body = io.BytesIO()
                Image.fromarray(pixels).save(body, "PNG")
                writer.add(body.getvalue(), label, width, 40)
    (root / pack.DATASET).write_text(json.dumps({"name": "stripes", "classes": CLASSES}))
    return root
