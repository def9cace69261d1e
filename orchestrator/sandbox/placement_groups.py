"""Placement groups, which moto lacks: create, describe, delete, and what may be launched into one.

Plain values; `ec2_network` speaks to clients. Not thread-safe; the EC2 lock is held.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from orchestrator.sandbox import catalogue
from orchestrator.sandbox.wire import Refused

STRATEGIES = frozenset({"cluster", "partition", "spread"})


@dataclass(slots=True)
class PlacementGroup:
    """A placement group; `zone` is where a cluster's machines are, None while it has none."""

    name: str
    strategy: str
    id: str
    zone: str | None = None


class PlacementGroups:
    """The placement groups of a region, by name."""

    def __init__(self) -> None:
        self.groups: dict[str, PlacementGroup] = {}

    def create(self, name: str, strategy: str) -> PlacementGroup:
        """Make a group. Raises Refused for a name that is taken or a strategy there is not."""
        if not name:
            raise Refused("MissingParameter", "The request must contain the parameter groupName")
        if strategy not in STRATEGIES:
            raise Refused("InvalidParameterValue", f"Invalid value '{strategy}' for strategy.")
        if name in self.groups:
            raise Refused("InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists.")
        group = self.groups[name] = PlacementGroup(name, strategy, f"pg-{secrets.token_hex(8)}0")
        return group

    def get(self, name: str) -> PlacementGroup:
        """Return a group. Raises Refused when there is none of that name."""
        if name not in self.groups:
            raise Refused("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
        return self.groups[name]

    def delete(self, name: str, *, in_use: bool) -> PlacementGroup:
        """Remove a group and return it. Raises Refused while machines are in it, or when there is none."""
        self.get(name)
        if in_use:
            message = f"The placement group '{name}' is in use and may not be deleted."
            raise Refused("InvalidPlacementGroup.InUse", message)
        return self.groups.pop(name)

    def check_launch(self, name: str, instance_type: str, zone: str, *, in_use: bool) -> PlacementGroup:
        """Return the group when machines of a type may be launched into it in `zone`. Raises Refused as EC2 does."""
        group = self.get(name)
        if not catalogue.supports(instance_type, group.strategy):
            raise Refused(
                "InvalidParameterCombination",
                f"{group.strategy.title()} placement groups are not supported by the '{instance_type}' instance type."
                " Specify a supported instance type or change the placement group strategy, and try again.",
            )
        if group.strategy == "cluster" and in_use and group.zone not in {None, zone}:
            raise Refused(
                "InvalidPlacementGroup.InUse",
                f"The placement group '{name}' is in use in another availability zone: {group.zone}",
            )
        return group
