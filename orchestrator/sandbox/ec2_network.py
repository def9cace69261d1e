"""Security groups, key pairs and placement groups as clients meet them: what moto lacks of them, or has wrong."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult

from orchestrator.sandbox.ec2_base import EC2Operations, matches, unknown_filter
from orchestrator.sandbox.placement_groups import PlacementGroup
from orchestrator.sandbox.wire import Refused


class NetworkOperations(EC2Operations):
    """Placement groups whole; of security groups and key pairs the deletions."""

    def create_placement_group(self) -> str:
        """CreatePlacementGroup."""
        name, strategy = str(self.param("GroupName", "")), str(self.param("Strategy", "cluster"))
        tags = self._parse_tag_specification("placement-group").get("placement-group", {})
        self.error_on_dryrun()
        group = self.world.placement_groups.create(name, strategy)
        self.world.tags[group.id].update(tags)
        return self.reply("CreatePlacementGroup", {"return": True, "placementGroup": self._describe(group)})

    def describe_placement_groups(self) -> str:
        """DescribePlacementGroups."""
        names, ids = self.param("GroupNames", []), self.param("GroupIds", [])
        found = [self.world.placement_groups.get(name) for name in names]
        if not names:
            found = list(self.world.placement_groups.groups.values())
        unknown = set(ids) - {group.id for group in found}
        if unknown:
            raise Refused("InvalidPlacementGroupId.NotFound", f"The placement group '{unknown.pop()}' does not exist.")
        found = [group for group in found if not ids or group.id in ids]
        shown = [self._describe(group) for group in found if self._group_fits(group)]
        return self.reply("DescribePlacementGroups", {"placementGroupSet": shown})

    def delete_placement_group(self) -> str:
        """DeletePlacementGroup; refused while an instance that is not terminated is in it."""
        name = str(self.param("GroupName", ""))
        self.error_on_dryrun()
        in_use = any(machine.instance.placement.group_name == name for machine in self.world.living())
        self.world.forget_tags(self.world.placement_groups.delete(name, in_use=in_use).id)
        return self.reply("DeletePlacementGroup", {"return": True})

    def _group_fits(self, group: PlacementGroup) -> bool:
        plain = {"group-name": group.name, "strategy": group.strategy, "state": "available", "group-id": group.id}
        for name, values in self.filters().items():
            by_tag = self.tag_matches(group.id, name, values)
            if by_tag is None and name not in plain:
                raise unknown_filter(name)
            if not (matches(plain[name], values) if by_tag is None else by_tag):
                return False
        return True

    def _describe(self, group: PlacementGroup) -> dict[str, Any]:
        return {
            "groupName": group.name,
            "groupId": group.id,
            "state": "available",
            "strategy": group.strategy,
            "groupArn": f"arn:aws:ec2:{self.region}:{self.current_account}:placement-group/{group.name}",
            "tagSet": self.tag_rows(group.id) or None,
        }

    def delete_security_group(self) -> ActionResult:
        """DeleteSecurityGroup; refused while an interface or another group's rule refers to it."""
        wanted = self.param("GroupId") or self.param("GroupName")
        group = self.world.get_security_group_by_name_or_id(str(wanted))
        if group is None:
            raise Refused("InvalidGroup.NotFound", f"The security group '{wanted}' does not exist")
        if group.is_default:
            raise Refused(
                "CannotDelete", f'the specified group: "{group.id}" name: "default" cannot be deleted by a user'
            )
        used = any(member.id == group.id for interface in self.world.enis.values() for member in interface.group_set)
        others = [g for groups in self.world.groups.values() for g in groups.values() if g.id != group.id]
        named = any(
            rule.source_group.get("GroupId") == group.id for g in others for rule in (*g.ingress_rules, *g.egress_rules)
        )
        if used or named:
            raise Refused("DependencyViolation", f"resource {group.id} has a dependent object")
        result = super().delete_security_group()
        self.world.forget_tags(group.id)
        for rule in (*group.ingress_rules, *group.egress_rules):
            self.world.forget_tags(rule.id)
        return result

    def delete_key_pair(self) -> ActionResult:
        """DeleteKeyPair, by name or by id; one that is not there is no error."""
        name, key_id = self.param("KeyName"), self.param("KeyPairId")
        found = [key for key in self.world.key_pairs.values() if key.key_name == name or key.id == key_id]
        self.error_on_dryrun()
        for key in found:
            self.world.delete_key_pair(key.key_name)
            self.world.forget_tags(key.id)
        return ActionResult({"Return": True, "KeyPairId": found[0].id if found else None})

    def delete_volume(self) -> ActionResult:
        """DeleteVolume; its tags go with it."""
        result = super().delete_volume()
        self.world.forget_tags(str(self.param("VolumeId")))
        return result
