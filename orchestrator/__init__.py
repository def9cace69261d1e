"""`orch`: multi-node GPU training on AWS spot instances. `launch` and `Experiment` are the Python API.

Importing this imports nothing else: the package also lies on the nodes, where only Python and boto3 are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api import Run as Run
    from orchestrator.api import launch as launch
    from orchestrator.core.experiment import Experiment as Experiment

__version__ = "0.1.0"
__all__ = ["Experiment", "Run", "launch"]


def __getattr__(name: str) -> Any:
    if name in {"Run", "launch"}:
        from orchestrator import api

        return getattr(api, name)
    if name == "Experiment":
        from orchestrator.core.experiment import Experiment

        return Experiment
    raise AttributeError(name)
