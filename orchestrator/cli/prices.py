"""`orch prices`: what spot costs and has cost, zone by zone; changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.context import GET_CLOUD, NO_CREDENTIALS, NoCredentials, in_reach, open_home
from orchestrator.cli.faults import AllFaults
from orchestrator.cli.options import cloud_option, json_option
from orchestrator.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.cli.context import Place
    from orchestrator.report.prices import PriceSheet

MOST_DAYS = 90


@click.command(cls=AllFaults)
@click.argument("instance_type", metavar="TYPE")
@click.option(
    "--days",
    type=click.IntRange(1, MOST_DAYS),
    default=30,
    show_default=True,
    help="How far back; EC2 remembers 90 days.",
)
@cloud_option
@json_option
def command(*, instance_type: str, days: int, cloud: str | None, as_json: bool) -> None:
    """Show the spot price of TYPE (p4d.24xlarge) in every zone: now, its range and its course, beside on-demand."""
    home = open_home()
    places, errors = in_reach(home, cloud)
    if not places:
        raise errors[0] if errors else NoCredentials(NO_CREDENTIALS, GET_CLOUD)
    place = places[0]
    sheet = _read(place, instance_type, days)
    if as_json:
        from orchestrator.report.json import dumps
        from orchestrator.report.prices import prices_json

        click.echo(dumps(prices_json(sheet, place.settings.region, place.cloud)))
        return
    from orchestrator.report.console import make_console
    from orchestrator.report.prices import show_prices

    show_prices(make_console(), sheet)


def _read(place: Place, instance_type: str, days: int) -> PriceSheet:
    """Ask the cloud. Raises NotFound for a type that the region neither offers nor prices."""
    from datetime import UTC, datetime, timedelta

    from orchestrator.aws.offerings import Offerings
    from orchestrator.aws.prices import Prices
    from orchestrator.core.market import find_pools
    from orchestrator.report.prices import PriceSheet

    asked = Prices(place.session)
    end = datetime.now(UTC)
    start = end - timedelta(days=days)
    offered = Offerings(place.session).zones_offering([instance_type])[instance_type]
    pools = find_pools(asked.spot_history([instance_type], start, end), start, end)
    listed = asked.on_demand([instance_type]).get(instance_type)
    where = f"{place.cloud}, {place.settings.region}"
    if not offered and not pools:
        import difflib

        from orchestrator.core.catalog import TYPES

        near = difflib.get_close_matches(instance_type, TYPES, n=1)
        hint = f"did you mean {near[0]}?" if near else "try another region: AWS_REGION=us-west-2 orch prices ..."
        raise NotFound(f"{instance_type} is not offered in {place.settings.region}", hint)
    return PriceSheet(instance_type, where, days, pools, offered, listed)
