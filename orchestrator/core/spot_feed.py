"""The spot instance data feed: an hour of an instance a line, tab-separated, as EC2 puts it into S3. Pure.

Format: "Track your Spot Instance costs using the Spot Instance data feed" (EC2 user guide), version 1.0: two lines of
header, then Timestamp, UsageType, Operation, InstanceID, MyBidID, MyMaxPrice, MarketPrice, Charge, Version. Amounts are
`0.004 USD`, times `2019-11-03 20:35:48 UTC`: the moment whose price counts.
"""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.core.charged import Charged, Money, parse_money, refuse

MARK = "#Version:"
VERSION = "1.0"
FIELDS = (
    "Timestamp", "UsageType", "Operation", "InstanceID", "MyBidID", "MyMaxPrice", "MarketPrice", "Charge", "Version",
)  # fmt: skip


def parse_feed(file: str, text: str) -> tuple[Charged, ...]:
    """Return the lines of a data feed file. Raises BadInput naming every faulty line."""
    faults: list[str] = []
    found: list[Charged] = []
    lines = text.splitlines()
    if not lines or lines[0].removeprefix(MARK).strip() != VERSION or not lines[0].startswith(MARK):
        faults.append(f"line 1: must be {MARK} {VERSION}")
    for number, line in enumerate(lines, 1):
        if line.startswith("#Fields:") and tuple(line.removeprefix("#Fields:").split()) != FIELDS:
            faults.append(f"line {number}: the fields must be {' '.join(FIELDS)}")
        if not line.strip() or line.startswith("#"):
            continue
        try:
            found.append(_charged(file, number, line.split("\t")))
        except ValueError as error:
            faults.append(f"line {number}: {error}")
    if faults:
        raise refuse(file, faults, "a spot data feed file")
    return tuple(found)


def _charged(file: str, number: int, cells: list[str]) -> Charged:
    if len(cells) != len(FIELDS):
        raise ValueError(f"{len(cells)} fields where there must be {len(FIELDS)}, separated by tabs")
    row = dict(zip(FIELDS, (cell.strip() for cell in cells), strict=True))
    if "SpotUsage" not in row["UsageType"]:
        raise ValueError(f"UsageType {row['UsageType']!r} is not that of a spot instance")
    if not row["InstanceID"].startswith("i-"):
        raise ValueError(f"InstanceID {row['InstanceID']!r} is not one")
    start = _time(row["Timestamp"])
    charge, price = _dollars(row["Charge"]), _dollars(row["MarketPrice"])
    return Charged(file, number, "hour", row["InstanceID"], row["UsageType"], start, None, charge, None, price)


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"Timestamp {text!r} is not like 2019-11-03 20:35:48 UTC") from error


def _dollars(text: str) -> Money:
    amount, _, currency = text.rpartition(" ")
    if currency != "USD":
        raise ValueError(f"{text!r} is not an amount like 0.004 USD")
    return parse_money(amount)
