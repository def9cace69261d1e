"""A run of three hours and twenty minutes, laid out by hand: price changes, two interruptions, a node on demand.

12:00:00  i-0 and i-1 are launched in us-east-1a, where an hour costs $7.20
12:30:00  us-east-1a goes to $9.00
12:40:00  EC2 takes i-1: 2,400 s, within its first hour
12:42:00  i-2 is launched in its place
13:00:00  us-east-1a goes to $8.10, at the very moment at which the second hour of i-0 begins
13:30:00  i-4 is launched in us-east-1b at $5.40 and released after 20 s
14:12:10  EC2 takes i-2: 5,410 s, in its second hour
14:15:00  i-3 is launched in its place, on demand at $24.48
14:30:00  us-east-1a goes to $6.30
15:20:30  i-0 (12,030 s) and i-3 (3,930 s) are terminated
"""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.bill import Bill, make_bill
from orchestrator.core.facts import Instance, OnDemandPrice, PriceRow
from tests.core.worlds import T0, at, instance

RUN = "tiny-20261120-120000-abcd"
LISTED = {"p3.16xlarge": OnDemandPrice("p3.16xlarge", 24_480_000, "test", T0)}
US, TAKEN = "Client.UserInitiatedShutdown", "Server.SpotInstanceTermination"
PRICES = tuple(
    PriceRow(zone, "p3.16xlarge", at(seconds), dollars)
    for zone, seconds, dollars in (
        ("us-east-1a", -3600, 7_200_000),
        ("us-east-1a", 1800, 9_000_000),
        ("us-east-1a", 3600, 8_100_000),
        ("us-east-1a", 9000, 6_300_000),
        ("us-east-1b", -1800, 5_400_000),
        ("us-east-1b", 7200, 7_200_000),
    )
)


def gone(index: int, start: int, end: int, reason: str = US) -> Instance:
    return instance(index, "terminated", launch_time=at(start), end_time=at(end), end_reason=reason)


NODES = (
    gone(0, 0, 12_030),
    gone(1, 0, 2_400, TAKEN),
    gone(2, 2_520, 7_930, TAKEN),
    replace(gone(3, 8_100, 12_030), zone="us-east-1b", lifecycle="on-demand"),
    replace(gone(4, 5_400, 5_420), zone="us-east-1b", generation=2),
)

# Each line is price x seconds / 3600, in micro-dollars.
HOURS = {
    "i-0": (7_200_000, 8_100_000, 8_100_000, 2_152_500),  # the last: 6.30 x 1,230 / 3,600
    "i-1": (4_800_000,),  # 7.20 x 2,400 / 3,600
    "i-2": (9_000_000, 4_072_500),  # 8.10 x 1,810 / 3,600: the price at 13:42, not that at 14:12
    "i-3": (24_480_000, 2_244_000),  # 24.48 x 330 / 3,600
    "i-4": (90_000,),  # the minimum: 5.40 x 60 / 3,600
}
# 0.08 x 100 GiB x seconds / 2,592,000
VOLUMES = {"vol-0": 37_130, "vol-1": 7_407, "vol-2": 16_698, "vol-3": 12_130, "vol-4": 185}
HIGH = 25_552_500 + 4_800_000 + 13_072_500 + 26_724_000 + 90_000 + 73_550
LOW = HIGH - 4_800_000
# 23,830 s in all at $0.0068 a second, and the same volumes
ON_DEMAND = 162_044_000 + 73_550


def three_hours() -> Bill:
    """The bill of that run."""
    return make_bill(RUN, NODES, PRICES, LISTED, at(20_000))


HEAD = (
    "#Version: 1.0\n#Fields: Timestamp UsageType Operation InstanceID MyBidID MyMaxPrice MarketPrice Charge Version\n"
)
# Instance-hours of spot nodes; the one that EC2 took within its first hour is not charged and not listed.
FEED = HEAD + "".join(
    f"2026-11-20 {time} UTC\tSpotUsage:p3.16xlarge\tRunInstances:SV001\t{node}\tsir-{node}\t24.480 USD\t{price} USD"
    f"\t{charge} USD\t1\n"
    for time, node, price, charge in (
        ("12:00:04", "i-0", "7.200", "7.2000"),
        ("13:00:04", "i-0", "8.100", "8.1000"),
        ("12:42:03", "i-2", "9.000", "9.0000"),
        ("13:42:03", "i-2", "8.100", "4.0725"),
        ("13:30:02", "i-4", "5.400", "0.0900"),
        ("14:00:04", "i-0", "8.100", "8.1000"),
        ("15:00:04", "i-0", "6.300", "2.1525"),
        ("14:00:00", "i-99999", "1.000", "1.0000"),  # another run's
    )
)
COLUMNS = (
    "bill_payer_account_id,line_item_line_item_type,line_item_resource_id,line_item_usage_type,"
    "line_item_usage_start_date,line_item_usage_end_date,line_item_usage_amount,line_item_currency_code,"
    "line_item_unblended_cost,pricing_public_on_demand_cost\n"
)


def cur_row(node: str, usage: str, hour: int, amount: str, cost: str) -> str:
    start, end = f"2026-11-20T{hour:02}:00:00.000Z", f"2026-11-20T{hour + 1:02}:00:00.000Z"
    return f"123456789012,Usage,{node},{usage}:p3.16xlarge,{start},{end},{amount},USD,{cost},0.0\n"


# Windows of the clock: i-2 from 12:42 has 18 minutes at 9.00, then 42 at 9.00 and 18 at 8.10, then 730 s at 8.10.
CUR = COLUMNS + "".join(
    (
        cur_row("i-0", "SpotUsage", 12, "1.0000000000", "7.2000000000"),
        cur_row("i-0", "SpotUsage", 13, "1.0000000000", "8.1000000000"),
        cur_row("i-0", "SpotUsage", 14, "1.0000000000", "8.1000000000"),
        cur_row("i-0", "SpotUsage", 15, "0.3416666667", "2.1525000000"),
        cur_row("i-2", "SpotUsage", 12, "0.3000000000", "2.7000000000"),
        cur_row("i-2", "SpotUsage", 13, "0.7000000000", "6.3000000000"),
        cur_row("i-2", "SpotUsage", 13, "0.3000000000", "2.4300000000"),
        cur_row("i-2", "SpotUsage", 14, "0.2027777778", "1.6425000000"),
        cur_row("i-3", "BoxUsage", 14, "0.7500000000", "18.3600000000"),
        cur_row("i-3", "BoxUsage", 15, "0.3416666667", "8.3640000000"),
        cur_row("i-4", "SpotUsage", 13, "0.0166666667", "0.0900000000"),
        cur_row("vol-0", "EBS:VolumeUsage.gp3", 12, "0.1", "0.0371300000"),
        cur_row("", "DataTransfer-Out-Bytes", 12, "0.5", "0.0450000000"),
        cur_row("i-99999", "BoxUsage", 12, "1.0", "24.4800000000"),
    )
)
