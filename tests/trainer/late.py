"""Run in ranks by test_trainer_runs.py: what ranks agree on is read a step later, as on a GPU.

`STOP_AFTER` in the environment makes a rank ask to stop at that batch, as in `recorded`.
"""

from __future__ import annotations

from functools import partial

import pytest

from tests.trainer import recorded
from trainer import signals


def main(arguments: list[str]) -> int:
    """Train as `python -m trainer ARGUMENTS` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "Exchange", partial(signals.Exchange, late=True))
        return recorded.main(arguments)
