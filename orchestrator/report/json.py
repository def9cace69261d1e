"""The JSON form of everything that reports: documented shapes, one value, stable order of keys as given."""

from __future__ import annotations

import json
from typing import Any


def dumps(value: Any) -> str:
    """Return `value` as indented JSON; characters outside ASCII are escaped, so no terminal can be fooled by it."""
    return json.dumps(value, indent=2, ensure_ascii=True)


def line(value: Any) -> str:
    """Return `value` as one line of JSON."""
    return json.dumps(value, ensure_ascii=True)
