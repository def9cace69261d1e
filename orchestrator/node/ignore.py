"""Which files of a working directory stay behind: the useful part of `.gitignore`'s rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = (".orchignore", ".gitignore")
DEFAULTS = (
    ".git/", ".hg/", ".svn/", ".venv/", "node_modules/", "__pycache__/", "*.pyc", ".mypy_cache/", ".ruff_cache/",
    ".pytest_cache/", ".ipynb_checkpoints/", ".DS_Store",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """One line: the paths it means, whether only folders, and whether it brings them back (`!`)."""

    pattern: re.Pattern[str]
    only_folders: bool
    keep: bool


def read_rules(folder: Path) -> tuple[Rule, ...]:
    """Return the default rules and those of the folder's `.orchignore`, or of its `.gitignore` where it has none."""
    lines: list[str] = []
    for name in FILES:
        try:
            lines = (folder / name).read_text(errors="replace").splitlines()
        except OSError:
            continue
        break
    return parse_rules([*DEFAULTS, *lines])


def parse_rules(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules in gitignore's notation: `#`, `!`, `*`, `?`, `[...]`, `**`, leading and trailing `/`."""
    rules = []
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        keep = text.startswith("!")
        text = text.removeprefix("!").removeprefix("\\")
        only_folders = text.endswith("/")
        text = text.rstrip("/")
        if text:
            anywhere = "" if "/" in text else "(?:.*/)?"
            rules.append(Rule(re.compile(anywhere + _regex(text.removeprefix("/"))), only_folders, keep))
    return tuple(rules)


def is_ignored(rules: Sequence[Rule], path: str, *, folder: bool) -> bool:
    """Tell whether the last rule that means `path` (relative, with `/`) leaves it behind."""
    for rule in reversed(rules):
        if (folder or not rule.only_folders) and rule.pattern.fullmatch(path):
            return not rule.keep
    return False


def _regex(text: str) -> str:
    result = ""
    rest = text
    while rest:
        if rest.startswith("**/"):
            result, rest = result + "(?:.*/)?", rest[3:]
        elif rest.startswith("**"):
            result, rest = result + ".*", rest[2:]
        elif rest[0] == "*":
            result, rest = result + "[^/]*", rest[1:]
        elif rest[0] == "?":
            result, rest = result + "[^/]", rest[1:]
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end].replace("\\", "\\\\").replace("[", "\\[")
            inside = f"^{inside[1:]}" if inside.startswith("!") else inside
            result, rest = result + f"[{inside}]", rest[end + 1 :]
        else:
            result, rest = result + re.escape(rest[0]), rest[1:]
    return result
