"""Values that may be changed, for speed: frozen dataclasses spend a fifth of a seed on guarding their own making.

Only for `scripts/sim`, in processes of its own: in all tests, the slice of seeds among them, they are frozen.
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any

PACKAGES = ("orchestrator.", "tests.sim.")


def thaw() -> None:
    """Let all frozen dataclasses of what is imported by now be made as plain ones are."""
    modules = [module for name, module in sys.modules.items() if name.startswith(PACKAGES)]
    kinds = {item for module in modules for item in vars(module).values() if isinstance(item, type)}
    for kind in (item for item in kinds if item.__module__.startswith(PACKAGES)):
        own = vars(kind)
        if is_dataclass(kind) and "__setattr__" in own and "__post_init__" not in own:
            _thaw(kind)


def _thaw(frozen: Any) -> None:
    given: dict[str, Any] = {"__annotations__": {item.name: Any for item in fields(frozen)}}
    for item in fields(frozen):
        if item.default_factory is not MISSING:
            given[item.name] = field(default_factory=item.default_factory)
        elif item.default is not MISSING:
            given[item.name] = item.default
    frozen.__init__ = vars(dataclass(type("Plain", (), given)))["__init__"]
    del frozen.__setattr__, frozen.__delattr__
