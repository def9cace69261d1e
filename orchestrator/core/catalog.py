"""Facts about instance types that no price list gives: GPUs, memory, quota, relative training speed. Pure.

Prices are never written here (law 8): they are read when a run is planned. vCPU, memory and network figures are those
of DescribeInstanceTypes (of types that burst, the baseline of the network; 0 where none is published), and so is what a
machine reads of EBS, MB/s as its baseline (of p3, which it does not list any more: AWS's page on EBS optimization); the
relative speeds are images/s of ResNet-50 at 224 px in mixed precision, per GPU of a full machine, as published (V100
and A100: NVIDIA DeepLearningExamples; H100: MLPerf Training v4.0 log).
"""

from __future__ import annotations

from dataclasses import dataclass

SPOT_QUOTA_P = "L-7212CCBC"
ON_DEMAND_QUOTA_P = "L-417A185B"
SPOT_QUOTA_P5 = "L-C4BD4855"
ON_DEMAND_QUOTA_P5 = "L-417A185B"
SPOT_QUOTA_G = "L-3819A6DF"
ON_DEMAND_QUOTA_G = "L-DB2E81BA"
SPOT_QUOTA_STANDARD = "L-34B43A08"
ON_DEMAND_QUOTA_STANDARD = "L-1216C47A"


@dataclass(frozen=True, slots=True)
class InstanceType:
    """What planning needs to know of a type; `images_per_second` is per GPU. Speeds are 0 where none is published."""

    name: str
    vcpus: int
    memory_gib: int
    gpus: int
    gpu: str
    images_per_second: int
    spot_quota: str
    on_demand_quota: str
    bfloat16: bool = False
    network_gbit: float = 0.0
    ebs_mbyte: float = 0.0


def _p(  # noqa: PLR0917 - one line a type, in the columns of the table
    name: str,
    vcpus: int,
    memory: int,
    gpus: int,
    gpu: str,
    speed: int,
    network: float,
    ebs: float,
    *,
    bf16: bool = False,
) -> InstanceType:
    return InstanceType(name, vcpus, memory, gpus, gpu, speed, SPOT_QUOTA_P, ON_DEMAND_QUOTA_P, bf16, network, ebs)


def _standard(name: str, vcpus: int, memory: int, network: float, ebs: float) -> InstanceType:
    quotas = SPOT_QUOTA_STANDARD, ON_DEMAND_QUOTA_STANDARD
    return InstanceType(name, vcpus, memory, 0, "", 0, *quotas, network_gbit=network, ebs_mbyte=ebs)


TYPES: dict[str, InstanceType] = {
    item.name: item
    for item in (
        _p("p3.2xlarge", 8, 61, 1, "V100", 1200, 0, 218.75),
        _p("p3.8xlarge", 32, 244, 4, "V100", 1040, 10, 875),
        _p("p3.16xlarge", 64, 488, 8, "V100", 1040, 25, 1750),
        _p("p3dn.24xlarge", 96, 768, 8, "V100", 1040, 100, 2375),
        _p("p4d.24xlarge", 96, 1152, 8, "A100", 2078, 400, 2375, bf16=True),
        _p("p4de.24xlarge", 96, 1152, 8, "A100", 2078, 400, 2375, bf16=True),
        InstanceType("p5.48xlarge", 192, 2048, 8, "H100", 7160, SPOT_QUOTA_P5, ON_DEMAND_QUOTA_P5, True, 3200, 10_000),
        InstanceType("g4dn.12xlarge", 48, 192, 4, "T4", 0, SPOT_QUOTA_G, ON_DEMAND_QUOTA_G, False, 50, 1187.5),
        InstanceType("g5.48xlarge", 192, 768, 8, "A10G", 0, SPOT_QUOTA_G, ON_DEMAND_QUOTA_G, True, 100, 2375),
        InstanceType("g6.48xlarge", 192, 768, 8, "L4", 0, SPOT_QUOTA_G, ON_DEMAND_QUOTA_G, True, 100, 7500),
        _standard("t3.micro", 2, 1, 0.064, 10.875),
        _standard("t3.small", 2, 2, 0.128, 21.75),
        _standard("t3.medium", 2, 4, 0.256, 43.375),
        _standard("m5.large", 2, 8, 0.75, 81.25),
        _standard("m5.xlarge", 4, 16, 1.25, 143.75),
        _standard("c5.large", 2, 4, 0.75, 81.25),
        _standard("c5.xlarge", 4, 8, 1.25, 143.75),
    )
}


def holds_in_memory(instance_type: str, size: int) -> bool:
    """Return whether so many bytes of data leave a machine half of its memory; not where its memory is not known."""
    known = TYPES.get(instance_type)
    return known is not None and size <= known.memory_gib * 2**30 / 2


def relative_hours(instance_type: str, reference: str) -> float | None:
    """Return how long a machine of `instance_type` takes for what `reference` does in one hour, or None if unknown."""
    this, other = TYPES.get(instance_type), TYPES.get(reference)
    if this is None or other is None:
        return None
    ours, theirs = this.images_per_second * this.gpus, other.images_per_second * other.gpus
    return theirs / ours if ours and theirs else (1.0 if instance_type == reference else None)
