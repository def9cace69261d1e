"""What is laid over an experiment file: a profile, `--set KEY=VALUE`, and flags, in that order. Pure.

Everything is laid over the tree as it was written, before anything is checked, so that a flag can mend what the file
lacks and one report holds the faults of all of them. `load` is what the command line calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from orchestrator.core.experiment import Experiment
from orchestrator.core.parse import (
    Fault,
    Node,
    Origin,
    Path,
    Unreadable,
    allowed_keys,
    build,
    dotted,
    parse,
    read,
    refusal,
    scalar,
    unknown_key,
)
from orchestrator.core.units import listed

SET = Origin(layer="--set")

_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\[\d{1,4}\])*(?:\.[A-Za-z0-9_-]+(?:\[\d{1,4}\])*)*", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-]+|\[\d+\]", re.ASCII)
_LISTS: tuple[Path, ...] = (("resources", "any_of"), ("secrets",))
_LITERAL: tuple[Path, ...] = (("run",), ("setup",))
_FLAGS = {"num_nodes": "--nodes"}
# What is wrong on this machine with the value of a key, "" where nothing is.
Here = Callable[[Literal["secrets", "workdir"], str], str]
# Either key says what to run on, so giving one in a later layer takes the other away.
_RIVALS = {"any_of": "instance_type", "instance_type": "any_of"}
_MACHINES: tuple[Path, ...] = (("resources",), ("build_on",), ("check_on",))


@dataclass(frozen=True, slots=True)
class Change:
    """A key that differs between two experiments, as JSON values; None: not set. `str()` is a line for a person."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {_brief(self.before)} -> {_brief(self.after)}"


def load(
    text: str | bytes,
    source: str,
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    here: Here | None = None,
) -> Experiment:
    """Return the experiment in `text` with a profile, `--set` items and flags laid over it; `source` names the file.

    `flags` maps keys such as `num_nodes` to plain values; those that are None were not given. Raises BadInput with
    every fault of the file, of all its profiles, and of what is laid over it. `here` is asked what is wrong with a
    secret or the workdir on this machine, so that this stands beside the others.
    """
    tree, found = parse(text, source)
    layered = _layer(tree, profile, sets, flags or {}, found)
    experiment = build(layered, found)
    found += faults_of_profiles(tree, profile, build)
    found += _faults_here(layered, here, {fault.path[:1] for fault in found}) if here is not None else ()
    if experiment is None or found:
        raise refusal(source, found)
    return experiment


def profile_names(text: str | bytes, source: str) -> tuple[str, ...]:
    """Return the names of a file's profiles. Raises BadInput when the file cannot be read; checks nothing else."""
    tree, _ = parse(text, source)
    return tuple(_profiles(tree))


def explain(
    text: str | bytes,
    source: str,
    profile: str,
    *,
    sets: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> tuple[Change, ...]:
    """Return what a profile changes in the experiment `load` gives, other things equal. Raises BadInput as `load`."""
    after = load(text, source, profile=profile, sets=sets, flags=flags)
    tree, _ = parse(text, source)
    return changes(build(_layer(tree, None, sets, flags or {}, []), []), after)


def changes(before: Experiment | None, after: Experiment) -> tuple[Change, ...]:
    """Return the keys in which two experiments differ, in the order of the file; `before` None: no experiment."""
    old = dict(_leaves(before.to_json())) if before is not None else {}
    new = dict(_leaves(after.to_json()))
    keys = [*new, *(key for key in old if key not in new)]
    return tuple(Change(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key))


def merge(base: Node | None, overlay: Node, path: Path = ()) -> Node:
    """Return `overlay` laid over `base`: mappings merge, lists and scalars replace, null deletes a key."""
    if not isinstance(overlay.value, Mapping):
        return overlay
    result = dict(base.value) if base is not None and isinstance(base.value, Mapping) else {}
    for key, item in overlay.value.items():
        _assign(result, key, item if item.value is None else merge(result.get(key), item, (*path, key)), path)
    return Node(result, base.origin if base is not None else overlay.origin)


def _assign(mapping: dict[str, Node], key: str, node: Node, path: Path) -> None:
    if node.value is None:
        mapping.pop(key, None)
        return
    mapping[key] = node
    if path in _MACHINES and key in _RIVALS:
        mapping.pop(_RIVALS[key], None)


def _layer(tree: Node, profile: str | None, sets: Sequence[str], flags: Mapping[str, Any], found: list[Fault]) -> Node:
    """Return the tree with everything laid over it; what cannot be laid is appended to `found`."""
    if profile is not None:
        overlays = _profiles(tree)
        if profile in overlays:
            tree = merge(tree, _moved(overlays[profile], f"profile {profile}"))
        else:
            message = f"there is no profile {dotted((profile,))}; {listed(overlays)}"
            found.append(Fault(("profiles",), message, tree.origin))
    for item in sets:
        key, equals, text = item.partition("=")
        path = _path(key.strip(), SET, found) if equals else None
        if not equals:
            found.append(Fault((item,), "give it as KEY=VALUE, such as resources.disk_size=200", SET))
        elif path is not None and (value := _read_value(path, text, found)) is not None:
            tree = _set(tree, path, value, found)
    for key, given in flags.items():
        origin = Origin(layer=_FLAGS.get(key, f"--{key.replace('_', '-')}"))
        if given is not None and (path := _path(key, origin, found)) is not None:
            tree = _set(tree, path, _from_plain(given, origin), found)
    return tree


def _keys(node: Node | None) -> Mapping[str, Node]:
    return node.value if node is not None and isinstance(node.value, Mapping) else {}


def _profiles(tree: Node) -> Mapping[str, Node]:
    """Return the overlays; those that are no mapping are left to the experiment's own check."""
    overlays = _keys(_keys(tree).get("profiles"))
    return {name: overlay for name, overlay in overlays.items() if isinstance(overlay.value, Mapping)}


def faults_of_profiles(
    tree: Node, applied: str | None, build: Callable[[Node, list[Fault]], object]
) -> Iterator[Fault]:
    """Yield what is wrong with a profile that was not asked for, so that it is found before somebody does ask.

    `build` appends what is wrong with a tree that has no profiles.
    """
    base = Node({key: item for key, item in _keys(tree).items() if key != "profiles"}, tree.origin)
    faults: list[Fault] = []
    build(base, faults)
    known = {(fault.path, fault.message) for fault in faults}
    for name, overlay in _profiles(tree).items():
        if (inner := _keys(overlay).get("profiles")) is not None:
            yield Fault(("profiles", name, "profiles"), "a profile has no profiles of its own", inner.origin)
        own: list[Fault] = []
        if name != applied:
            build(merge(base, overlay), own)
        for fault in own:
            if (fault.path, fault.message) not in known:
                yield Fault(("profiles", name, *fault.path), fault.message, fault.origin)


def _faults_here(tree: Node, here: Here, wrong: Collection[Path]) -> Iterator[Fault]:
    """Yield what is wrong on this machine with secrets and workdir; one that is wrong by itself is told of once."""
    keys: tuple[Literal["secrets", "workdir"], ...] = ("secrets", "workdir")
    for key in keys:
        node = _keys(tree).get(key)
        values = () if node is None or (key,) in wrong else node.value if isinstance(node.value, tuple) else (node,)
        for item in values:
            message = here(key, item.value) if isinstance(item.value, str) else ""
            if message:
                yield Fault((key,), message, item.origin)


def _path(key: str, origin: Origin, found: list[Fault]) -> Path | None:
    """Return the parts of a key that an experiment can have, or None and a fault."""
    if _KEY.fullmatch(key) is None:
        found.append(Fault((key,), "is no key; write it as name.name or name[0].name", origin))
        return None
    parts = (part[0] for part in _PART.finditer(key))
    path: Path = tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts)
    for index, part in enumerate(path):
        above, here = path[:index], path[: index + 1]
        allowed = allowed_keys(above)
        if isinstance(part, int):
            message = "" if above in _LISTS else f"{dotted(above)} is no list"
        elif allowed is None:
            message = (
                f"{dotted(above)} is a list; write {dotted(above)}[0]" if above in _LISTS else "has no keys inside"
            )
        elif here == ("profiles",):
            message = "a profile cannot be changed here; set the key itself"
        else:
            message = unknown_key(here, allowed_keys) if allowed and part not in allowed else ""
        if message:
            found.append(Fault(here, message, origin))
            return None
    return path


def _read_value(path: Path, text: str, found: list[Fault]) -> Node | None:
    """Return the value of `--set`: taken literally for shell text and variables, else as a YAML scalar, list or map."""
    if text in {"null", "~"}:
        return Node(None, SET, text)
    if not text or path in _LITERAL or (path[:1] == ("envs",) and len(path) == 2):
        return Node(text, SET, text)
    if text[0] not in "[{\"'":
        return scalar(text, SET)
    try:
        node, twice = read(text)
    except Unreadable as error:
        found.append(Fault(path, error.fault.message, SET))
        return None
    found.extend(Fault((*path, *fault.path), "given twice", SET) for fault in twice)
    return _moved(node, SET.layer, line=False)


def _set(tree: Node, path: Path, value: Node, found: list[Fault]) -> Node:
    before = len(found)
    made = _put(tree, path, value, found)
    return made if len(found) == before else tree


def _put(node: Node | None, path: Path, value: Node, found: list[Fault], at: Path = ()) -> Node:
    """Return `node` with `value` at `path`, making what lies between; an index may be one past the end of its list."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    origin = node.origin if node is not None else value.origin
    if isinstance(head, str):
        keys = dict(_keys(node))
        _assign(keys, head, _put(keys.get(head), rest, value, found, (*at, head)), at)
        return Node(keys, origin)
    items = list(node.value) if node is not None and isinstance(node.value, tuple) else []
    if head > len(items):
        found.append(Fault((*at, head), f"is past the end; [{len(items)}] adds an entry", value.origin))
        return Node(tuple(items), origin)
    item = _put(items[head] if head < len(items) else None, rest, value, found, (*at, head))
    items[head : head + 1] = [item] if item.value is not None else []
    return Node(tuple(items), origin)


def _moved(node: Node, layer: str, *, line: bool = True) -> Node:
    """Return the node as written in another layer."""
    origin = Origin(node.origin.line if line else 0, layer)
    if isinstance(node.value, Mapping):
        return Node({key: _moved(item, layer, line=line) for key, item in node.value.items()}, origin)
    if isinstance(node.value, tuple):
        return Node(tuple(_moved(item, layer, line=line) for item in node.value), origin)
    return Node(node.value, origin, node.text)


def _from_plain(value: object, origin: Origin) -> Node:
    if isinstance(value, Mapping):
        return Node({str(key): _from_plain(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node(tuple(_from_plain(item, origin) for item in value), origin)
    plain_value = value if isinstance(value, bool | int | Decimal) else str(value)
    return Node(plain_value, origin, str(value).lower() if isinstance(value, bool) else str(value))


def _leaves(value: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(item, (*path, key)) if key != "profiles" or path else ()
        else:
            yield dotted((*path, key)), item


def _brief(value: Any) -> str:
    if value is None:
        return "(not set)"
    if isinstance(value, list):
        return "[" + ", ".join(_brief(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return ", ".join(_brief(item) for item in value.values())
    text = str(value).lower() if isinstance(value, bool) else " ".join(str(value).split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= 200 else f"{text[:197]}..."
