"""Reading availability and price traces from files. Decides nothing; refuses a file with all its faults."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from orchestrator.core.traces import Traces
from orchestrator.core.units import MicroUSD, to_micro

FAULTS_SHOWN = 10
MAX_BYTES = 256 << 20
ENDINGS = (".json", ".json.gz")
_ZONE = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace file and whose trace it is: `us-east-2b_v100_1.json` is of kind `v100_1` in zone `us-east-2b`."""

    path: Path
    zone: str
    kind: str


def trace_files(texts: Sequence[str], faults: list[str]) -> tuple[TraceFile, ...]:
    """Return the files that `[ZONE=]FILE` and folders of traces name. Files of no zone and empty folders are faults."""
    found: list[TraceFile] = []
    for text in texts:
        paths = [text]
        if Path(text).is_dir():
            paths = sorted(str(path) for path in Path(text).iterdir() if path.name.endswith(ENDINGS))
            if not paths:
                faults.append(
                    f"{text}: no file in this folder ends in {' or '.join(ENDINGS)}; give files or another one"
                )
        for path in paths:
            try:
                found.append(_trace_file(path))
            except ValueError as error:
                faults.append(str(error))
    return tuple(found)


def _trace_file(text: str) -> TraceFile:
    zone, sign, rest = text.partition("=")
    named = bool(sign) and _ZONE.fullmatch(zone) is not None
    path = Path(rest if named else text)
    stem = path.name.removesuffix(".gz").removesuffix(".json")
    before, _, kind = stem.partition("_")
    zone = zone if named else before
    if _ZONE.fullmatch(zone) is None:
        raise ValueError(f"{path}: its name does not begin with a zone; write ZONE={path}")
    return TraceFile(path, zone, kind)


def read_traces(files: Sequence[TraceFile], faults: list[str]) -> Traces | None:
    """Return the traces, as long as the shortest of them; None when there are faults, which are added to `faults`."""
    before = len(faults)
    read = {file: _trace(file.path, faults) for file in files}
    zones = [file.zone for file in files]
    for zone in sorted({zone for zone in zones if zones.count(zone) > 1}):
        same = ", ".join(str(file.path) for file in files if file.zone == zone)
        faults.append(f"zone {zone} has several traces: {same}; give one, or name the zone of another by ZONE=FILE")
    gaps = {gap for gap, _ in read.values() if gap}
    if len(gaps) > 1:
        given = ", ".join(f"{file.path} has {gap}" for file, (gap, _) in read.items() if gap)
        faults.append(f"all traces need the same metadata.gap_seconds: {given}; leave out those that differ")
    if len(faults) > before or not files:
        return None
    length = min(len(data) for _, data in read.values())
    return Traces(tuple(zones), gaps.pop(), tuple(tuple(data[:length]) for _, data in read.values()))


def read_prices(path: Path, files: Sequence[TraceFile], faults: list[str]) -> dict[str, tuple[MicroUSD, ...]]:
    """Return the spot prices of the zones traced: micro-dollars per node-hour, one of them where they are flat.

    The file maps a zone (or the name of its trace file without its ending) to a number of dollars or a list of them.
    Zones it does not have are left out; faults are added to `faults`.
    """
    value = _json(path, faults)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        faults.append(f"{path}: must be an object that maps zones to prices")
        return {}
    found: dict[str, tuple[MicroUSD, ...]] = {}
    for file in files:
        key = next((key for key in (file.zone, f"{file.zone}_{file.kind}") if key in value), None)
        if key is not None:
            given = value[key]
            found[file.zone] = _series(given if isinstance(given, list) else [given], f"{path}: {key}", faults)
    return found


def _trace(path: Path, faults: list[str]) -> tuple[int, list[int]]:
    """Return gap and samples; a gap of 0 where it is not known."""
    value = _json(path, faults)
    if value is None:
        return 0, []
    metadata = value.get("metadata") if isinstance(value, Mapping) else None
    gap = metadata.get("gap_seconds") if isinstance(metadata, Mapping) else None
    data = value.get("data") if isinstance(value, Mapping) else None
    if not _is_count(gap) or not gap:
        faults.append(f"{path}: metadata.gap_seconds must be a whole number of seconds above 0")
        gap = 0
    if not isinstance(data, list) or not data:
        faults.append(f"{path}: data must be a list of numbers of nodes")
        return int(gap), []
    _tell(
        [f"{path}: data[{index}] must be a number of nodes, not {_show(item)}"
         for index, item in enumerate(data) if not _is_count(item)], path, faults,
    )  # fmt: skip
    return int(gap), data


def _series(given: list[Any], where: str, faults: list[str]) -> tuple[MicroUSD, ...]:
    micro = {price: to_micro(price) for price in {item for item in given if _is_price(item)}}
    if not given:
        faults.append(f"{where}: has no prices")
    _tell(
        [f"{where}[{index}] must be dollars per hour, not {_show(item)}"
         for index, item in enumerate(given) if not _is_price(item)], where, faults,
    )  # fmt: skip
    return tuple(micro[item] for item in given if _is_price(item))


def _tell(found: list[str], where: object, faults: list[str]) -> None:
    """Add faults of one file, of very many only the first and their number."""
    faults.extend(found[:FAULTS_SHOWN])
    if len(found) > FAULTS_SHOWN:
        faults.append(f"{where}: {len(found) - FAULTS_SHOWN} more like it")


def _json(path: Path, faults: list[str]) -> Any:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            body = file.read(MAX_BYTES + 1)
        if len(body) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES >> 20} MiB")
        return json.loads(body, parse_float=Decimal)
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror or error}")
    except (ValueError, EOFError, RecursionError, zlib.error) as error:
        faults.append(f"{path}: is not JSON: {error}")
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1_000_000


def _is_price(value: Any) -> bool:
    return isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 < value < 100_000


def _show(value: Any) -> str:
    text = ascii(str(value) if isinstance(value, Decimal) else value)
    return text if len(text) <= 30 else f"{text[:27]}..."
