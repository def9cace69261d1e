"""What machines cost on demand in the sandbox: AWS's list prices of us-east-1 for the types it sells. Pure data.

The sandbox is the market here: production code reads these prices over the Pricing API and never from this file.
GPU types as of 2026-07-20 (karpenter's price data, made from AWS's price list); the small types from AWS's page, 2025.
"""

from __future__ import annotations

from orchestrator.core.units import MicroUSD

ON_DEMAND: dict[str, MicroUSD] = {
    "p3.2xlarge": 3_060_000,
    "p3.8xlarge": 12_240_000,
    "p3.16xlarge": 24_480_000,
    "p3dn.24xlarge": 31_212_000,
    "p4d.24xlarge": 21_957_642,
    "p4de.24xlarge": 27_447_050,
    "p5.48xlarge": 55_040_000,
    "p5en.48xlarge": 63_296_000,
    "g4dn.12xlarge": 3_912_000,
    "g5.48xlarge": 16_288_000,
    "g6.48xlarge": 13_350_400,
    "t3.micro": 10_400,
    "t3.small": 20_800,
    "t3.medium": 41_600,
    "m5.large": 96_000,
    "m5.xlarge": 192_000,
    "c5.large": 85_000,
    "c5.xlarge": 170_000,
}
# Windows costs this much more per vCPU and hour: rows that a reader of Linux prices must leave out.
WINDOWS_PER_VCPU: MicroUSD = 46_000
