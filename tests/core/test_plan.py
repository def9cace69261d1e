"""Plans: what is offered, what it costs, in which order."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.experiment import Experiment
from orchestrator.core.facts import OnDemandPrice, PriceRow
from orchestrator.core.plan import Market, Plan, make_plan, node_timer
from orchestrator.run.prepare import efa_notes
from tests.core.worlds import T0

ZONES = ("us-east-1a", "us-east-1b")
PRICES = {("p3.16xlarge", "us-east-1a"): 5, ("p3.16xlarge", "us-east-1b"): 3, ("p4d.24xlarge", "us-east-1a"): 7}
LISTED = {"p3.16xlarge": 24, "p4d.24xlarge": 22}


def market(**changes: Any) -> Market:
    made = Market(
        offerings={"p3.16xlarge": ZONES, "p4d.24xlarge": ("us-east-1a",)},
        spot=tuple(PriceRow(zone, kind, T0, price * 10**6) for (kind, zone), price in PRICES.items()),
        on_demand={kind: OnDemandPrice(kind, price * 10**6, "test", T0) for kind, price in LISTED.items()},
        quotas={"L-7212CCBC": 10_000, "L-417A185B": 10_000},
        subnets={zone: f"subnet-{zone}" for zone in ZONES},
    )
    return replace(made, **changes)


def plan(seen: Market, types: tuple[str, ...] = ("p3.16xlarge", "p4d.24xlarge"), **experiment: Any) -> Plan:
    values = {
        "name": "tiny",
        "num_nodes": 16,
        "resources": {"any_of": [{"instance_type": kind} for kind in types]},
        "run": "hostname",
        "max_duration": "1h",
    } | experiment
    made = Experiment.from_json(values)
    return make_plan(made, made.num_nodes, seen)


def where(made: Plan) -> list[tuple[str, str, str]]:
    return [(o.instance_type, o.zone, o.lifecycle) for o in made.offers]


def test_offers_are_in_order_of_the_expected_cost_of_the_run() -> None:
    made = plan(market(), expected_duration="20m")
    # An A100 machine does the work of a V100 machine in about half the time, so 7 $/h costs less there than 5 $/h here.
    assert where(made) == [
        ("p3.16xlarge", "us-east-1b", "spot"),
        ("p4d.24xlarge", "us-east-1a", "spot"),
        ("p3.16xlarge", "us-east-1a", "spot"),
    ]
    assert [o.cost for o in made.offers] == sorted(o.cost for o in made.offers)


def test_all_network_cards_get_efa_only_where_a_node_has_no_public_address_to_lose() -> None:
    seen = market(efa={"p4d.24xlarge": 4}, offerings={"p3.16xlarge": ZONES, "p4d.24xlarge": ZONES[:1]})
    found = {(o.instance_type, o.zone): o.efa for o in plan(seen).offers}
    assert found == {("p3.16xlarge", ZONES[0]): 0, ("p3.16xlarge", ZONES[1]): 0, ("p4d.24xlarge", ZONES[0]): 1}
    private = plan(replace(seen, private=frozenset(ZONES[:1])))
    assert {o.efa for o in private.offers if o.instance_type == "p4d.24xlarge"} == {4}
    assert efa_notes(private, seen) == ()
    (note,) = efa_notes(plan(seen), seen)
    assert note.startswith("p4d.24xlarge gets 1 of its 4 EFA interfaces")


def test_a_price_alone_is_no_offer() -> None:
    made = plan(market(offerings={"p4d.24xlarge": ("us-east-1a",)}))
    assert where(made) == [("p4d.24xlarge", "us-east-1a", "spot")]
    assert ("p3.16xlarge", "EC2 does not offer it in this region") in made.rejected


def test_quota_is_counted_for_all_nodes_and_named() -> None:
    made = plan(market(quotas={"L-7212CCBC": 1023}), types=("p3.16xlarge",))
    assert made.offers == ()
    assert made.quotas[0].needed == 16 * 64
    assert made.rejected == (("p3.16xlarge spot", "quota L-7212CCBC: 1023 of 1024 vCPU"),)
    assert plan(market(quotas={"L-7212CCBC": 1024}), types=("p3.16xlarge",)).offers
    assert plan(market(quotas={}), types=("p3.16xlarge",)).offers, "an unknown quota does not forbid"


def test_auto_falls_back_to_on_demand_only_after_every_spot_offer() -> None:
    made = plan(market(), spot_policy="auto")
    assert [o.lifecycle for o in made.offers] == ["spot"] * 3 + ["on-demand"] * 3
    assert {o.lifecycle for o in plan(market(), spot_policy="on-demand").offers} == {"on-demand"}


def test_without_an_expected_duration_costs_are_those_of_the_whole_limit() -> None:
    made = plan(market(), types=("p3.16xlarge",))
    assert made.offers[0].hours is None
    assert made.offers[0].cost == 16 * 3_000_000


def test_node_timers_follow_the_limit_or_the_dollar_cap_whichever_is_shorter() -> None:
    assert plan(market()).timer == timedelta(minutes=70)
    capped = plan(market(), types=("p3.16xlarge",), max_cost="50")
    # $50 over 16 nodes at 5 $/h and a quarter more: 50 / 100 h = 30 minutes, of which two pass before it is armed.
    assert capped.timer == timedelta(minutes=28)


def test_the_timers_of_a_resumed_run_know_what_it_has_cost() -> None:
    made = Experiment.from_json(
        {"name": "tiny", "num_nodes": 16, "run": "x", "max_duration": "1h", "max_cost": "50"}
        | {"resources": {"any_of": [{"instance_type": "p3.16xlarge"}]}}
    )
    offers = make_plan(made, 16, market()).offers
    assert node_timer(made, 16, offers, spent=20_000_000) == timedelta(minutes=16)
    assert node_timer(made, 16, offers, spent=60_000_000) == timedelta(minutes=1)


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(["20m", "1h"]))
def test_cost_grows_with_nodes(first: int, second: int, duration: str) -> None:
    few, many = sorted((first, second))
    costs = [plan(market(), num_nodes=n, expected_duration=duration).offers[0].cost for n in (few, many)]
    assert costs[0] <= costs[1]
