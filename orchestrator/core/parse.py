"""YAML text to an `Experiment`, every fault at once with its path and line. Pure: text comes in, nothing is opened.

Between the text and the experiment stands a tree of `Node`s that remember where they were written, so that
`core.overrides` can lay profiles and flags over it and a fault still points at the line, profile or flag it came from.
Plain scalars are read as in YAML 1.2, where `no`, `12:30` and `0755` are text; nothing in a file is ever constructed.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.core.experiment import Data, Experiment, Option, Resources
from orchestrator.core.fields import show
from orchestrator.core.units import counted
from orchestrator.errors import BadInput

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]
# The keys of the mapping at a path; () where any name may stand, None where there is no mapping.
Keys = Callable[[Path], tuple[str, ...] | None]
Scalar = str | int | Decimal | bool | None

MAX_BYTES = 256 * 1024
MAX_DEPTH = 24
HINT = "docs/experiment-file.md lists every key; `orch schema` prints the JSON schema for an editor"

_INT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"-?(?:[0-9]{1,18}\.[0-9]{0,18}|\.[0-9]{1,18}|[0-9]{1,18}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PLAIN_PART = re.compile(r"[A-Za-z0-9_-]+")
_MISSING = {
    "name": "the name of the experiment",
    "run": "the command every node runs",
    "resources": "what to run on, such as resources: {instance_type: p3.16xlarge}",
    "any_of": "what to run on, such as instance_type: p3.16xlarge",
    "instance_type": "an EC2 type such as p3.16xlarge",
    "source": "where the data lies, such as s3://bucket/prefix or dataset:NAME",
    "base": "the image to begin with, such as ssm:NAME",
    "build_on": "what to build on, such as build_on: {instance_type: c5.xlarge}",
}
# Of a step or check of a recipe.
_MISSING_OF_STEP = {"name": "what the step is called", "run": "the shell commands of the step"}
# What users of SkyPilot and dstack may write out of habit.
_ELSEWHERE = {"accelerators": "instance_type", "commands": "run", "file_mounts": "data", "max_price": "max_cost"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a line of the file (0: not in it), and the profile or flag that brought it."""

    line: int = 0
    layer: str = ""
    column: int = 0

    def __str__(self) -> str:
        line = f"line {self.line}" if self.line else ""
        column = f"column {self.column}" if self.column else ""
        return ", ".join(part for part in (self.layer, line, column) if part)


@dataclass(frozen=True, slots=True)
class Node:
    """A value as written: a scalar with its text, a list as a tuple, or a mapping; and where."""

    value: Scalar | tuple[Node, ...] | Mapping[str, Node]
    origin: Origin
    text: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong, printed as `path: message (line N)`."""

    path: Path
    message: str
    origin: Origin

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" + (f" ({self.origin})" if str(self.origin) else "")


class Unreadable(Exception):
    """The text is no YAML of the kind accepted here; `fault` says why."""

    def __init__(self, message: str, line: int, column: int = 0) -> None:
        super().__init__(message)
        self.fault = Fault(("yaml",), message, Origin(line, column=column))


def dotted(path: Path) -> str:
    """Return a path as users write it: `resources.any_of[0].instance_type`; a key that is no plain word is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _PLAIN_PART.fullmatch(part) else f".{show(part)}"
    return text.removeprefix(".") or "file"


def refusal(source: str, faults: Iterable[Fault], hint: str = HINT) -> BadInput:
    """Return the error that reports `faults`, each once, in the order of the file, those of flags last."""
    ordered = sorted(faults, key=lambda fault: (not fault.origin.line, fault.origin.line))
    lines = tuple(dict.fromkeys(str(fault) for fault in ordered))
    return BadInput(f"{source}: {counted(len(lines), 'fault')}", hint, details=lines)


def parse(text: str | bytes, source: str, hint: str = HINT) -> tuple[Node, list[Fault]]:
    """Return the tree of a file and the keys given twice. Raises BadInput, with `hint`, when it is none."""
    try:
        tree, twice = read(text)
    except Unreadable as error:
        raise refusal(source, [error.fault], hint) from None
    if not isinstance(tree.value, Mapping):
        message = f"must be a mapping of keys such as name: imagenet18, not {show(plain(tree))}"
        raise refusal(source, [Fault((), message, tree.origin)], hint)
    return tree, twice


def build(tree: Node, found: list[Fault]) -> Experiment | None:
    """Return the experiment a tree describes; or None, and append everything that is wrong with it to `found`."""
    return validate(Experiment, tree, found, allowed_keys)


def validate(model: type[M], tree: Node, found: list[Fault], keys: Keys) -> M | None:
    """Return what a tree describes, as `build` does for experiments; `keys` names those that may stand at a path."""
    try:
        return model.model_validate(plain(tree))
    except ValidationError as error:
        found.extend(_faults(error, tree, keys))
        return None


def allowed_keys(path: Path) -> tuple[str, ...] | None:
    """Return the keys of the mapping at `path`; () where any name may stand, None where there is no mapping."""
    match path:
        case ():
            return tuple(Experiment.model_fields)
        case ("resources",):
            return (*Resources.model_fields, "instance_type")
        case ("resources", "any_of", int()):
            return tuple(Option.model_fields)
        case ("data", str()):
            return tuple(Data.model_fields)
        case ("data",) | ("envs",) | ("profiles",):
            return ()
    return None


def unknown_key(path: Path, keys: Keys) -> str:
    """Return what to say of a key that does not exist: the one that was meant, here or elsewhere, or all there are."""
    key, names = str(path[-1]), sorted(keys(path[:-1]) or ())
    below = next((name for name in names if key in (keys((*path[:-1], name)) or ())), None)
    if below is not None:
        return f"unknown key; did you mean {below}.{key}?"
    if key in (keys(()) or ()):
        return f"unknown key; did you mean {key}, outside of {dotted(path[:-1])}?"
    plain_key = key.lower().replace("-", "_")
    close = (
        [_ELSEWHERE[plain_key]] if _ELSEWHERE.get(plain_key) in names else difflib.get_close_matches(plain_key, names)
    )
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; the keys here are {', '.join(names)}"


def plain(node: Node, path: Path = ()) -> Any:
    """Return a node as plain values. Environment variables keep the text that was written: `1.10` stays `1.10`."""
    if isinstance(node.value, Mapping):
        return {key: plain(item, (*path, key)) for key, item in node.value.items()}
    if isinstance(node.value, tuple):
        return [plain(item, (*path, index)) for index, item in enumerate(node.value)]
    inner = path[2:] if path[:1] == ("profiles",) else path
    if node.value is not None and inner[:1] == ("envs",) and len(inner) == 2:
        return node.text
    return node.value


def scalar(text: str, origin: Origin) -> Node:
    """Return an unquoted scalar, read as YAML 1.2 does; fractions become Decimal."""
    value: Scalar = text
    if text in _WORDS:
        value = _WORDS[text]
    elif _INT.fullmatch(text):
        value = int(text)
    elif _FRACTION.fullmatch(text):
        value = Decimal(text)
    return Node(value, origin, text)


def read(text: str | bytes) -> tuple[Node, list[Fault]]:
    """Return the tree of a YAML document and a fault for each key given twice. Raises Unreadable."""
    decoded = _decode(text)
    loader: _Loader | None = None
    try:
        loader = _Loader(decoded)
        root = loader.get_single_node()
    except yaml.reader.ReaderError as error:
        line = decoded.count("\n", 0, error.position) + 1
        raise Unreadable(f"the character {decoded[error.position]!a} is not allowed", line) from None
    except yaml.YAMLError as error:
        raise _syntax(error) from None
    except (ValueError, OverflowError):
        # An escape or a version number beyond what characters and integers can be; yaml lets Python's error through.
        line = loader.get_mark().line + 1 if loader is not None else 1
        raise Unreadable("a number or an escape is out of range", line) from None
    if root is None:
        raise Unreadable("the file is empty", 1)
    twice: list[Fault] = []
    return _node(root, (), root.start_mark.line + 1, twice), twice


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of the file, for editors and `orch schema`; the rules between keys are not in it."""
    schema = Experiment.model_json_schema()
    keys, resources = schema["properties"], schema["$defs"]["Resources"]
    keys["max_duration"]["default"] = "12h"
    resources["properties"]["instance_type"] = {"type": "string", "description": "Short for any_of with this one type."}
    resources["oneOf"] = [{"required": [key]} for key in ("any_of", "instance_type")]
    del resources["required"], schema["$defs"]["Data"]["properties"]["mount"]["default"]
    # In a profile nothing is required, and null removes a key.
    overlay = copy.deepcopy({name: key for name, key in keys.items() if name != "profiles"})
    for name in ("Data", "Resources"):
        whole = schema["$defs"][name]
        parts = {key: _or_null(part) for key, part in whole["properties"].items()}
        schema["$defs"][f"{name}Overlay"] = {"type": "object", "properties": parts, "additionalProperties": False}
    overlay["resources"]["$ref"] = "#/$defs/ResourcesOverlay"
    overlay["data"]["additionalProperties"] = _or_null({"$ref": "#/$defs/DataOverlay"})
    for key in (keys["envs"], overlay["envs"], keys["profiles"]):
        key["additionalProperties"] = False
    overlay["envs"]["patternProperties"] = {k: _or_null(v) for k, v in overlay["envs"]["patternProperties"].items()}
    keys["profiles"]["patternProperties"] = {
        name: {"$ref": "#/$defs/Profile"} for name in keys["profiles"]["patternProperties"]
    }
    overlay = {name: _or_null(key) for name, key in overlay.items()}
    schema["$defs"]["Profile"] = {"type": "object", "properties": overlay, "additionalProperties": False}
    return schema | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "orch experiment file"}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses what could grow, construct or recurse without bound."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported; write it out", mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, "tags (!name) are not supported; quote text instead", mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _decode(text: str | bytes) -> str:
    if len(text) > MAX_BYTES:
        raise Unreadable(f"larger than {MAX_BYTES // 1024} KiB; a file of keys names data, it does not hold it", 1)
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"byte 0x{text[error.start]:02x} is not UTF-8; save the file as UTF-8", line) from None


def _syntax(error: yaml.YAMLError) -> Unreadable:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or getattr(error, "context", None) or "not readable")
    if "'\\t'" in problem:
        problem = "a tab cannot stand here; YAML is indented with spaces"
    elif "mapping values are not allowed" in problem:
        problem = "a second ': ' in one line; quote the value, or put it under | on lines of its own"
    elif "but found another document" in problem:
        problem = "a second document (---) begins; a file holds one document"
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    return Unreadable(ascii(problem)[1:-1].replace("\\'", "'"), line, column)


def _node(raw: yaml.Node, path: Path, line: int, twice: list[Fault]) -> Node:
    origin = Origin(line)
    if isinstance(raw, yaml.ScalarNode):
        return scalar(raw.value, origin) if raw.style is None else Node(raw.value, origin, raw.value)
    if isinstance(raw, yaml.SequenceNode):
        items = enumerate(raw.value)
        return Node(tuple(_node(item, (*path, i), item.start_mark.line + 1, twice) for i, item in items), origin)
    result: dict[str, Node] = {}
    for key, value in raw.value:
        at = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise Unreadable("a key must be a word, not a list or a mapping", at, key.start_mark.column + 1)
        if key.value in result:
            first = result[key.value].origin.line
            twice.append(Fault((*path, key.value), f"given twice, first in line {first}", Origin(at)))
            continue
        result[key.value] = _node(value, (*path, key.value), at, twice)
    return Node(result, origin)


def _faults(error: ValidationError, tree: Node, keys: Keys) -> list[Fault]:
    result = []
    for item in error.errors(include_url=False):
        # What failed only because something else did is no fault of its own; a list is short of its wrong entries.
        if item["type"] != "default_factory_not_called" and not (item["type"] == "too_short" and item["input"]):
            path: Path = tuple(part for part in item["loc"] if part != "[key]")
            path, origin = _locate(tree, path)
            result.append(Fault(path, _message(item, path, keys), origin))
    return result


def _locate(tree: Node, path: Path) -> tuple[Path, Origin]:
    """Return the path as it was written and the origin of the innermost part of it that is there."""
    node, parts = tree, list(path)
    for index, part in enumerate(parts):
        value = node.value
        if isinstance(value, Mapping) and part == "any_of" and part not in value and "instance_type" in value:
            return (*path[:index], "instance_type"), value["instance_type"].origin
        if isinstance(value, Mapping) and part == "min_nodes" and part not in value and "num_nodes" in value:
            return (*path[:index], "num_nodes"), value["num_nodes"].origin
        if isinstance(value, Mapping) and part in value:
            node = value[str(part)]
        elif isinstance(value, tuple) and isinstance(part, int) and part < len(value):
            node = value[part]
        else:
            break
    return path, node.origin


def _message(item: Mapping[str, Any], path: Path, keys: Keys) -> str:
    kind, value, limits = item["type"], item["input"], item.get("ctx", {})
    key = str(path[-1]) if path else ""
    match kind:
        case "value_error":
            message = str(limits["error"])
        case "missing":
            of = _MISSING_OF_STEP if path[:1] in {("steps",), ("checks",)} else _MISSING
            message = f"missing: {of.get(key, 'it must be given')}"
        case "extra_forbidden" if path == ("resources", "instance_type"):
            message = "give any_of or instance_type, not both"
        case "extra_forbidden":
            message = unknown_key(path, keys)
        case "greater_than_equal" | "less_than_equal":
            bound = f"at least {limits['ge']}" if "ge" in limits else f"at most {limits['le']}"
            message = f"must be {bound}, not {show(value)}"
        case "too_short" | "too_long":
            message = "must list 1 to 32 instance types"
        case "literal_error":
            message = f"must be {limits['expected'].replace(chr(39), '')}, not {show(value)}"
        case _:
            message = f"must be {_KINDS[kind]}, not {show(value)}" if kind in _KINDS else str(item["msg"])
    if kind == "string_type" and isinstance(value, int | float | Decimal):
        return f"{message}; put it in quotes"
    plainly = {"int_type": int, "bool_type": bool}.get(kind)
    quoted = isinstance(value, str) and type(scalar(value, Origin()).value) is plainly
    return f"{message}; leave the quotes out" if quoted else message


_KINDS = {
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "int_type": "a whole number",
    "model_type": "a mapping (key: value)",
    "string_type": "text",
    "tuple_type": "a list",
}
