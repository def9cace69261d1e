"""The instance types the sandbox sells: moto's scrape of AWS, and p3, which AWS took out of its catalogue in 2026.

Adding a type changes moto's own tables, once a process; the rest only reads them.
"""

from __future__ import annotations

import copy
from fnmatch import fnmatchcase
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES, InstanceType, InstanceTypeBackend

SANDBOX_AMI = "ami-0c0ffee5a4db0c5e5"
SANDBOX_AMI_NAME = "orch-sandbox-host"
SANDBOX_AMI_PARAMETER = "/aws/service/orch-sandbox/host/latest/ami-id"

_TEMPLATE = "p3dn.24xlarge"
# vCPU, GiB, GPUs, network, EBS Mbps, EBS MB/s, EBS IOPS, interfaces: AWS's own figures of p3.
_P3: dict[str, tuple[int, int, int, str, int, float, int, int]] = {
    "p3.2xlarge": (8, 61, 1, "Up to 10 Gigabit", 1750, 218.75, 10_000, 4),
    "p3.8xlarge": (32, 244, 4, "10 Gigabit", 7000, 875.0, 40_000, 8),
    "p3.16xlarge": (64, 488, 8, "25 Gigabit", 14_000, 1750.0, 80_000, 8),
}
# Which zones sold p3; other regions are given their first two.
_P3_ZONES = {"us-east-1": ("b", "c", "d", "f"), "us-west-2": ("a", "b", "c")}


def install() -> None:
    """Add p3 to moto's catalogue and offerings; doing it again changes nothing."""
    for name, figures in _P3.items():
        if name not in INSTANCE_TYPES:
            INSTANCE_TYPES[name] = _p3_record(name, *figures)
            InstanceTypeBackend.instance_types.append(InstanceType(name))
    for region, offers in INSTANCE_TYPE_OFFERINGS["availability-zone"].items():
        listed = {offer["InstanceType"] for offer in offers}
        letters = _P3_ZONES.get(region, ("a", "b"))
        for name in _P3.keys() - listed:
            offers.extend(_offer(name, region + letter, "availability-zone") for letter in letters)
            INSTANCE_TYPE_OFFERINGS["region"].get(region, []).append(_offer(name, region, "region"))


def _offer(name: str, location: str, kind: str) -> dict[str, str]:
    return {"InstanceType": name, "Location": location, "LocationType": kind}


def _p3_record(  # noqa: PLR0917 - the columns of the table above
    name: str, vcpus: int, memory: int, gpus: int, network: str, ebs_mbps: int, ebs_mb: float, iops: int, nics: int
) -> dict[str, Any]:
    record: dict[str, Any] = copy.deepcopy(INSTANCE_TYPES[_TEMPLATE])
    record |= {"InstanceType": name, "Hypervisor": "xen", "InstanceStorageSupported": False}
    record["NitroEnclavesSupport"] = "unsupported"
    del record["InstanceStorageInfo"]
    record["MemoryInfo"] = {"SizeInMiB": memory * 1024}
    record["VCpuInfo"] = {"DefaultCores": vcpus // 2, "DefaultThreadsPerCore": 2, "DefaultVCpus": vcpus}
    speeds = {"BandwidthInMbps": ebs_mbps, "ThroughputInMBps": ebs_mb, "Iops": iops}
    both = {f"{kind}{key}": value for kind in ("Baseline", "Maximum") for key, value in speeds.items()}
    record["EbsInfo"] |= {"EbsOptimizedInfo": both, "NvmeSupport": "unsupported"}
    gpu = record["GpuInfo"]["Gpus"][0] | {"Count": gpus, "LogicalGpuCount": gpus, "MemoryInfo": {"SizeInMiB": 16_384}}
    record["GpuInfo"] = {"Gpus": [gpu], "TotalGpuMemoryInMiB": gpus * 16_384}
    card = record["NetworkInfo"]["NetworkCards"][0] | {"NetworkPerformance": network, "InterfaceTypes": ["interface"]}
    for key in ("BaselineBandwidthInGbps", "PeakBandwidthInGbps"):
        card.pop(key, None)
    record["NetworkInfo"].pop("EfaInfo", None)
    record["NetworkInfo"] |= {
        "EfaSupported": False,
        "EnaSupport": "supported",
        "EncryptionInTransitSupported": False,
        "MaximumNetworkInterfaces": nics,
        "NetworkPerformance": network,
        "NetworkCards": [card | {"MaximumNetworkInterfaces": nics}],
    }
    return record


def offered_zones(region: str, instance_type: str) -> tuple[str, ...]:
    """Return the zones of `region` that sell a type, in order; none for a type that does not exist."""
    offers = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return tuple(sorted(o["Location"] for o in offers if o["InstanceType"] == instance_type))


def offerings(region: str, location_type: str, filters: dict[str, list[str]]) -> list[dict[str, str]]:
    """Return what is offered where; filters `location` and `instance-type` take `*` and `?`."""
    keys = {"location": "Location", "instance-type": "InstanceType"}
    found: list[dict[str, str]] = INSTANCE_TYPE_OFFERINGS[location_type].get(region, [])
    for name, patterns in filters.items():
        found = [o for o in found if any(fnmatchcase(o[keys[name]], pattern) for pattern in patterns)]
    return found


def vcpus(instance_type: str) -> int:
    """Return the vCPUs of a type. Raises KeyError when there is none of that name."""
    return int(INSTANCE_TYPES[instance_type]["VCpuInfo"]["DefaultVCpus"])


def supports(instance_type: str, strategy: str) -> bool:
    """Tell whether placement groups of `strategy` take machines of this type."""
    return strategy in INSTANCE_TYPES[instance_type].get("PlacementGroupInfo", {}).get("SupportedStrategies", [])


def is_spot(instance_type: str) -> bool:
    """Tell whether a type is sold as spot."""
    return "spot" in INSTANCE_TYPES[instance_type].get("SupportedUsageClasses", [])
