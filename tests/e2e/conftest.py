"""What the tests share that drive `orch` on real hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.sandbox_world import World


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A sandbox of the module's own, which the first command that needs it starts."""
    made = World()
    try:
        yield made
    finally:
        made.close()
