"""One step over real ranks: shares, parts and compressed gradients change who computes what, not what comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.zygote import Zygote, logs


def trained(zygote: Zygote, folder: Path, world: int, at_once: int = 0, compress: str = "none") -> dict[str, Any]:
    """What `world` ranks end with after three steps on the same seven images."""
    codes = zygote.train(folder, world, str(folder / "end"), str(at_once), compress, target="unequal:main")
    assert codes == [0] * world, logs(folder)
    end: dict[str, Any] = torch.load(folder / "end", weights_only=True)
    return end


@pytest.fixture(scope="module")
def alone(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one rank ends with that computes all images at once."""
    return trained(zygote, tmp_path_factory.mktemp("alone"), 1)


@pytest.mark.parametrize(("world", "at_once"), [(3, 0), (3, 1), (2, 3), (1, 2)])
def test_every_image_weighs_the_same_in_unequal_shares_and_in_parts(
    zygote: Zygote, tmp_path: Path, alone: dict[str, Any], world: int, at_once: int
) -> None:
    """Three ranks compute 3, 2 and 2 images in as many parts; two compute 4 in two parts and 3 in one."""
    end = trained(zygote, tmp_path, world, at_once)
    assert torch.allclose(end["weights"], alone["weights"], atol=1e-6)
    assert end["losses"] == pytest.approx(alone["losses"], rel=1e-5)  # a loss amplifies the last bits of the weights
    assert end["words"] == [(False, False), (True, False), (False, False)]
    assert alone["weights"].abs().sum() > 0.1


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_gradients_in_16_bit_are_near_and_the_loss_and_the_flags_are_exact(
    zygote: Zygote, tmp_path: Path, alone: dict[str, Any], kind: str
) -> None:
    end = trained(zygote, tmp_path, 3, compress=kind)
    assert torch.allclose(end["weights"], alone["weights"], atol=0.02)
    assert not torch.allclose(end["weights"], alone["weights"], atol=1e-6)  # or nothing was compressed
    assert end["losses"][0] == pytest.approx(alone["losses"][0], rel=1e-6)  # later ones are of other weights
    assert end["words"] == [(False, False), (True, False), (False, False)]
