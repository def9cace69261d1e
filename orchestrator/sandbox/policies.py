"""What IAM and bucket policies allow: the part of AWS's evaluation that least-privilege roles lean on. Pure.

Knows Effect, Action, NotAction, Resource, NotResource and a few conditions. A statement with any other condition allows
nothing and denies nothing, so that no policy looks stronger here than it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal

Decision = Literal["allow", "deny", "none"]


@lru_cache(maxsize=4096)
def _pattern(text: str, *, ignore_case: bool) -> re.Pattern[str]:
    body = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in text)
    return re.compile(body, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _matches(patterns: Any, value: str, *, ignore_case: bool = False) -> bool:
    values = [patterns] if isinstance(patterns, str) else list(patterns or ())
    return any(_pattern(str(item), ignore_case=ignore_case).fullmatch(value) for item in values)


def evaluate(
    documents: Iterable[Mapping[str, Any]], action: str, resource: str, context: Mapping[str, str]
) -> Decision:
    """Return what the policy `documents` together say of `action` on `resource`; a deny wins over every allow.

    `context` maps condition keys in lower case (`s3:prefix`, `aws:securetransport`) to the request's values.
    """
    decision: Decision = "none"
    for document in documents:
        statements = document.get("Statement", [])
        for statement in [statements] if isinstance(statements, dict) else statements:
            if not _applies(statement, action, resource, context):
                continue
            if statement.get("Effect") == "Deny":
                return "deny"
            decision = "allow"
    return decision


def _applies(statement: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    if "NotAction" in statement:
        actions = not _matches(statement["NotAction"], action, ignore_case=True)
    else:
        actions = _matches(statement.get("Action"), action, ignore_case=True)
    if not actions:
        return False
    if "NotResource" in statement:
        resources = not _matches(statement["NotResource"], resource)
    else:
        # Trust policies name no resource.
        resources = _matches(statement.get("Resource", "*"), resource)
    return resources and _conditions_hold(statement.get("Condition") or {}, context)


def _conditions_hold(conditions: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    return all(
        _holds(operator, expected, context.get(key.lower()))
        for operator, pairs in conditions.items()
        for key, expected in pairs.items()
    )


def _holds(operator: str, expected: Any, actual: str | None) -> bool:
    values = [str(item) for item in (expected if isinstance(expected, list) else [expected])]
    name = operator.removesuffix("IfExists")
    if actual is None:
        return name != operator
    outcome = {
        "StringLike": _matches(values, actual),
        "StringNotLike": not _matches(values, actual),
        "StringEquals": actual in values,
        "StringNotEquals": actual not in values,
        "Bool": actual.lower() in [value.lower() for value in values],
    }
    return outcome.get(name, False)
