"""What a run costs beside its machines, estimated from list prices and marked so in the bill. Pure.

List prices of us-east-1 (AWS's pages on EBS, VPC and S3 pricing, 2026), micro-dollars. Estimates are on the high side;
a reconciliation puts AWS's own figures beside them. Traffic between zones has no line: a gang is in one zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from orchestrator.core.facts import Instance, Volume
from orchestrator.core.units import MicroUSD, per_hour

MINIMUM_SECONDS = 60
MONTH_SECONDS = 30 * 86_400
GIB = 2**30
# gp3 storage, a GiB-month of 30 days; what is provisioned above the base: an operation/s-month, a MiB/s-month.
GP3_GIB_MONTH: MicroUSD = 80_000
GP3_IOPS_MONTH: MicroUSD = 5_000
GP3_THROUGHPUT_MONTH: MicroUSD = 40_000
GP3_IOPS, GP3_THROUGHPUT = 3000, 125
# EBS snapshots of the standard tier, a GiB-month of blocks that were written.
SNAPSHOT_GIB_MONTH: MicroUSD = 50_000
# Initialising a volume from its snapshot at a provisioned rate: of each GiB, for each MiB/s. A figure of a third party
# ($0.0036 a GiB at 300 MiB/s), taken to be in proportion to the rate.
INITIALISATION_GIB: MicroUSD = 12
# A public IPv4 address in use, an hour.
IPV4_HOUR: MicroUSD = 5_000
# S3 Standard: a GiB-month; a thousand of PUT, COPY, POST and LIST; a thousand of GET.
S3_GIB_MONTH: MicroUSD = 23_000
S3_1000_PUTS: MicroUSD = 5_000
S3_1000_GETS: MicroUSD = 400
PART_BYTES = 16 * 2**20
# What a node (beacon, logs) and the scheduler's looks at it cost at most, in requests of the dearer kind.
PUTS_A_SECOND = 1


@dataclass(frozen=True, slots=True)
class S3Use:
    """What a run left in S3 and what its nodes fetched: objects, bytes, and bytes of data sets staged by all nodes.

    `gets` and `puts` are further requests, of the two prices, that the scripts of nodes say they made, and `own_bytes`
    what they say they stored by these.
    """

    objects: int
    stored_bytes: int
    staged_bytes: int
    gets: int = 0
    puts: int = 0
    own_bytes: int = 0


def ebs_charge(volume: Volume, seconds: int) -> MicroUSD:
    """Return the charge of a gp3 volume and of what was provisioned: per second, at least 60 (AWS EBS pricing)."""
    month = GP3_GIB_MONTH * volume.size_gib
    month += GP3_IOPS_MONTH * max(0, volume.iops - GP3_IOPS)
    month += GP3_THROUGHPUT_MONTH * max(0, volume.throughput - GP3_THROUGHPUT)
    return _micro(Decimal(month) * max(MINIMUM_SECONDS, seconds) / MONTH_SECONDS)


def initialisation_charge(volume: Volume) -> MicroUSD:
    """Return what it costs once that a volume is filled from its snapshot at a provisioned rate."""
    return INITIALISATION_GIB * volume.rate * volume.size_gib


def ipv4_charge(item: Instance, seconds: int) -> MicroUSD | None:
    """Return what the public address of an instance cost; None when it is known to have none.

    EC2 shows no address of a terminated instance: then it is taken to have had one.
    """
    without = item.public_ip is None and item.private_ip is not None
    return None if without else per_hour(IPV4_HOUR, max(MINIMUM_SECONDS, seconds))


def hourly_estimates(item: Instance) -> MicroUSD:
    """Return what an hour of an instance costs beside the machine: its volumes, its address, its requests to S3."""
    volumes = sum(ebs_charge(volume, 3600) for volume in item.volumes)
    return volumes + (ipv4_charge(item, 3600) or 0) + s3_requests(S3Use(0, 0, 0), 3600)


def planned_hourly(disk_gib: int) -> MicroUSD:
    """Return the same of an instance that is yet to be launched, with a volume of `disk_gib`."""
    return ebs_charge(Volume("", disk_gib, "gp3"), 3600) + IPV4_HOUR + s3_requests(S3Use(0, 0, 0), 3600)


def s3_requests(use: S3Use, node_seconds: int) -> MicroUSD:
    """Return the charge for requests: objects in parts, the nodes' own, and the parts of what was staged."""
    puts = 2 * use.objects + _parts(use.stored_bytes) + PUTS_A_SECOND * node_seconds + use.puts
    gets = _parts(use.staged_bytes) + use.gets
    return _micro(Decimal(puts * S3_1000_PUTS + gets * S3_1000_GETS) / 1000)


def fetch_charge(size: int) -> MicroUSD:
    """Return the charge for fetching so many bytes from S3 once, in parts."""
    return _micro(Decimal(_parts(size) * S3_1000_GETS) / 1000)


def s3_storage(use: S3Use, seconds: int) -> MicroUSD:
    """Return the charge for keeping all that the run left, or its scripts stored, for `seconds`, its whole length."""
    return _micro(Decimal(S3_GIB_MONTH) * (use.stored_bytes + use.own_bytes) * seconds / (GIB * MONTH_SECONDS))


def storage_month(size: int) -> MicroUSD:
    """Return what keeping `size` bytes in S3 Standard costs a month."""
    return _micro(Decimal(S3_GIB_MONTH) * size / GIB)


def _parts(size: int) -> int:
    return -(-size // PART_BYTES)


def _micro(exact: Decimal) -> MicroUSD:
    return int(exact.to_integral_value(ROUND_HALF_EVEN))
