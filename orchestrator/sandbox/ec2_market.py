"""What EC2 says of its market: types, where they are offered, spot prices, spot requests, placement scores."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.instance_types import INSTANCE_TYPES, InstanceType

from orchestrator.core.units import usd
from orchestrator.sandbox import catalogue
from orchestrator.sandbox.ec2_backend import Machine
from orchestrator.sandbox.ec2_base import EC2Operations, matches, unknown_filter
from orchestrator.sandbox.price_list import ON_DEMAND, WINDOWS_PER_VCPU
from orchestrator.sandbox.prices import HISTORY
from orchestrator.sandbox.wire import Refused

PRICE_PAGE = 1000
LINUX = "Linux/UNIX"
_LOCATIONS = frozenset({"region", "availability-zone", "availability-zone-id"})
_MESSAGES = {
    "fulfilled": "Your Spot request is fulfilled.",
    "marked-for-termination": "Your Spot Instance is marked for termination.",
    "instance-terminated-by-user": "Spot Instance terminated due to user-initiated termination.",
    "instance-terminated-no-capacity": "Your Spot Instance was terminated because there is no Spot capacity available.",
}


class MarketOperations(EC2Operations):
    """Operations that read the market."""

    def describe_regions(self) -> str:  # type: ignore[override]
        """DescribeRegions: the one there is."""
        asked = self.param("RegionNames", [])
        for missing in [name for name in asked if name != self.region]:
            raise Refused("InvalidParameterValue", f"Invalid region names: [{missing}]")
        row = {"regionName": self.region, "regionEndpoint": f"ec2.{self.region}.amazonaws.com"}
        return self.reply("DescribeRegions", {"regionInfo": [row | {"optInStatus": "opt-in-not-required"}]})

    def describe_spot_price_history(self) -> str:  # type: ignore[override]
        """DescribeSpotPriceHistory: changes up to EndTime, and the one in force at StartTime; newest first."""
        self.error_on_dryrun()
        now = datetime.now(UTC)
        asked = self.filters()
        for name in asked.keys() - {"instance-type", "product-description", "availability-zone", "spot-price"}:
            raise unknown_filter(name)
        end = min(_aware(self.param("EndTime")) or now, now)
        start = min(max(_aware(self.param("StartTime")) or now - HISTORY, now - HISTORY), end)
        types = _narrow(self.param("InstanceTypes", []), asked.get("instance-type"), list(ON_DEMAND))
        products = _narrow(self.param("ProductDescriptions", []), asked.get("product-description"), [LINUX, "Windows"])
        zone = self.param("AvailabilityZone")
        prices = asked.get("spot-price", ["*"])
        rows = [
            (moment, price, name, where, product)
            for name in types
            if catalogue.is_spot(name)
            for where in catalogue.offered_zones(self.region, name)
            if zone in {None, where}
            and ("availability-zone" not in asked or matches(where, asked["availability-zone"]))
            for moment, linux in ((c.time, c.price) for c in self.world.market.changes(name, where, start, end))
            for product in products
            for price in [usd(linux if product == LINUX else linux + WINDOWS_PER_VCPU * catalogue.vcpus(name))]
            if matches(price, prices)
        ]
        rows.sort(key=lambda row: (-row[0].timestamp(), row[2], row[3], row[4]))
        shown, token = self.page(rows, PRICE_PAGE)
        items = [
            {"instanceType": n, "productDescription": p, "spotPrice": price, "timestamp": t, "availabilityZone": z}
            for t, price, n, z, p in shown
        ]
        return self.reply("DescribeSpotPriceHistory", {"spotPriceHistorySet": items, "nextToken": token or ""})

    def describe_instance_type_offerings(self) -> ActionResult:
        """DescribeInstanceTypeOfferings, with wildcards and pages."""
        kind = str(self.param("LocationType", "region"))
        if kind not in _LOCATIONS:
            raise Refused("InvalidParameterValue", f"Invalid value '{kind}' for LocationType.")
        asked = self.filters()
        for name in asked.keys() - {"location", "instance-type"}:
            raise unknown_filter(name)
        shown, token = self.page(catalogue.offerings(self.region, kind, asked), 1000)
        return ActionResult({"InstanceTypeOfferings": shown, "NextToken": token})

    def describe_instance_types(self) -> ActionResult:
        """DescribeInstanceTypes of the region's types, with wildcards in `instance-type` and pages."""
        names = self.param("InstanceTypes", [])
        regional = {offer["InstanceType"] for offer in catalogue.offerings(self.region, "region", {})}
        unknown = [name for name in names if name not in regional]
        if unknown:
            message = f"The following supplied instance types do not exist: [{', '.join(unknown)}]"
            raise Refused("InvalidInstanceType", message)
        asked = self.filters()
        patterns = asked.pop("instance-type", ["*"])
        known = [name for name in names or sorted(regional) if name in INSTANCE_TYPES and matches(name, patterns)]
        types = [t for t in map(InstanceType, known) if all(_has(t, name, values) for name, values in asked.items())]
        shown, token = self.page(types, 100)
        return ActionResult({"InstanceTypes": shown, "NextToken": token})

    def get_spot_placement_scores(self) -> str:
        """GetSpotPlacementScores: as on AWS low for few types, higher for many."""
        types = self.param("InstanceTypes", [])
        score = min(9, 1 + 2 * len(types)) if len(types) > 2 else 1
        if not self.flag("SingleAvailabilityZone"):
            rows = [{"region": self.region, "score": score}]
        else:
            zones = self.world.describe_availability_zones()
            rows = [
                {"region": self.region, "availabilityZoneId": zone.zone_id, "score": score}
                for zone in zones
                if any(zone.name in catalogue.offered_zones(self.region, name) for name in types)
            ]
        return self.reply("GetSpotPlacementScores", {"spotPlacementScoreSet": rows})

    def describe_spot_instance_requests(self) -> str:  # type: ignore[override]
        """DescribeSpotInstanceRequests of the requests RunInstances made."""
        ids = self.param("SpotInstanceRequestIds", [])
        machines = self._requests(ids)
        found = [m for request, m in machines.items() if (not ids or request in ids) and self._request_fits(m)]
        rows = [self._request(machine) for machine in found]
        return self.reply("DescribeSpotInstanceRequests", {"spotInstanceRequestSet": rows})

    def cancel_spot_instance_requests(self) -> str:  # type: ignore[override]
        """CancelSpotInstanceRequests: requests made by RunInstances are one-time, and their instances run on."""
        ids = self.param("SpotInstanceRequestIds", [])
        found = self._requests(ids)
        self.error_on_dryrun()
        for request in ids:
            found[request].spot_cancelled = True
        rows = [{"spotInstanceRequestId": request, "state": "cancelled"} for request in ids]
        return self.reply("CancelSpotInstanceRequests", {"spotInstanceRequestSet": rows})

    def _requests(self, ids: list[str]) -> dict[str, Machine]:
        """Return all requests by id. Raises Refused when one of `ids` is none."""
        machines = {m.spot_request: m for m in self.world.machines.values() if m.spot_request}
        for missing in set(ids) - machines.keys():
            raise Refused(
                "InvalidSpotInstanceRequestID.NotFound", f"The spot instance request ID '{missing}' does not exist"
            )
        return machines

    def _request_fits(self, machine: Machine) -> bool:
        plain = {"state": _state(machine), "instance-id": machine.instance.id, "status-code": _status(machine)}
        plain["spot-instance-request-id"] = str(machine.spot_request)
        for name, values in self.filters().items():
            by_tag = self.tag_matches(str(machine.spot_request), name, values)
            if by_tag is None and name not in plain:
                raise unknown_filter(name)
            if not (matches(plain[name], values) if by_tag is None else by_tag):
                return False
        return True

    def _request(self, machine: Machine) -> dict[str, Any]:
        instance = machine.instance
        return {
            "spotInstanceRequestId": machine.spot_request,
            "state": _state(machine),
            "status": {"code": _status(machine), "message": _MESSAGES.get(_status(machine), "")},
            "type": "one-time",
            "instanceId": instance.id,
            "createTime": instance.launch_time,
            "launchedAvailabilityZone": instance.placement.zone,
            "productDescription": LINUX,
            "instanceInterruptionBehavior": "terminate",
            "spotPrice": machine.market_options.get("MaxPrice"),
            "launchSpecification": {"imageId": instance.image_id, "instanceType": instance.instance_type},
            "tagSet": self.tag_rows(str(machine.spot_request)) or None,
        }


def _status(machine: Machine) -> str:
    running = machine.spot_cancelled and machine.instance.state in {"pending", "running"}
    return "request-canceled-and-instance-running" if running else machine.spot_status


def _state(machine: Machine) -> str:
    if machine.spot_cancelled:
        return "cancelled"
    return "active" if machine.instance.state in {"pending", "running", "stopping", "stopped"} else "closed"


def _aware(value: Any) -> datetime | None:
    """Return a request's time, which moto parses without a zone, as UTC."""
    if value in {None, ""}:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _narrow(parameter: list[str], filtered: list[str] | None, known: list[str]) -> list[str]:
    """Return those of `known` that parameter and filter both allow."""
    wanted = [name for name in known if not parameter or name in parameter]
    return [name for name in wanted if filtered is None or matches(name, filtered)]


def _has(item: InstanceType, name: str, values: list[str]) -> bool:
    value = item.get_filter_value(name)
    options = value if isinstance(value, list) else [value]
    return any(matches(str(option), values) for option in options)
