"""What a gang needs beside instances: security group, placement group, key pair. Made once, found by tag, deleted.

Everything is tagged as it is created (law 6). Never decides when something is to go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from orchestrator.aws.errors import call, error_code, kind_of
from orchestrator.aws.session import Session
from orchestrator.aws.shapes import filters, run_filter, snapshots_of, tag_specification, tags_of
from orchestrator.core.facts import Resource, ResourceKind
from orchestrator.core.ids import TAG_DATASET, TAG_IMAGE, TAG_RUN
from orchestrator.errors import OrchError

# One rule as a value: protocol, first port, last port, source (a CIDR or a group id).
Rule = tuple[str, int | None, int | None, str]
# A listing as a value: kind, the field of the reply, the field of the id, and what sends the request.
Query = tuple[ResourceKind, str, str, Callable[[], Any]]
# To a launch these are faults of the request; to a deletion they are success.
_GONE = frozenset({"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidSnapshot.NotFound"})


class Resources:
    """The part of `Compute` that makes, finds and deletes. Every method raises NoPermission or Unreachable too."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create_security_group(
        self, name: str, vpc: str, ssh_cidr: str, ssh_port: int, tags: Mapping[str, str], *, efa: bool = False
    ) -> str:
        """Return the id of the group `name`, made if need be, open to `ssh_cidr` at `ssh_port` and to itself.

        With `efa` it also lets everything out to itself by name, since EFA's packets, which have no IP addresses, go by
        no rule for addresses. One found is mended: missing rules are added, and whatever opens more than `ssh_port`
        to one address is closed.
        """
        group = self._find_group(name, vpc) or self._make_group(name, vpc, tags)
        identifier = str(group["GroupId"])
        inside: Rule = ("-1", None, None, identifier)
        wanted: set[Rule] = {("tcp", ssh_port, ssh_port, ssh_cidr), inside}
        present = set(_rules(group.get("IpPermissions", [])))
        missing = sorted(wanted - present, key=str)
        surplus = sorted((rule for rule in present - wanted if not _one_address(rule, ssh_port)), key=str)
        for rule in missing:
            self._open(identifier, rule)
        if efa and inside not in set(_rules(group.get("IpPermissionsEgress", []))):
            _unless_duplicate(
                "ec2:AuthorizeSecurityGroupEgress",
                lambda: self._client.authorize_security_group_egress(
                    GroupId=identifier, IpPermissions=[_permission(inside)]
                ),
            )
        if surplus:
            call(
                "ec2:RevokeSecurityGroupIngress",
                lambda: self._client.revoke_security_group_ingress(
                    GroupId=identifier, IpPermissions=[_permission(rule) for rule in surplus]
                ),
            )
        return identifier

    def open_ssh(self, name: str, vpc: str, ssh_cidr: str, ssh_port: int) -> None:
        """Open the group `name`, where it is there, to one more address at `ssh_port`."""
        group = self._find_group(name, vpc)
        rule: Rule = ("tcp", ssh_port, ssh_port, ssh_cidr)
        if group is not None and rule not in set(_rules(group.get("IpPermissions", []))):
            self._open(str(group["GroupId"]), rule)

    def create_placement_group(self, name: str, tags: Mapping[str, str]) -> None:
        """Make the cluster placement group `name` unless it is there."""
        request = {
            "GroupName": name,
            "Strategy": "cluster",
            "TagSpecifications": tag_specification("placement-group", tags),
        }
        _unless_duplicate("ec2:CreatePlacementGroup", lambda: self._client.create_placement_group(**request))

    def import_key_pair(self, name: str, public_key: str, tags: Mapping[str, str]) -> None:
        """Make the key pair `name` of an OpenSSH public key line unless it is there."""
        request = {
            "KeyName": name,
            "PublicKeyMaterial": public_key.encode(),
            "TagSpecifications": tag_specification("key-pair", tags),
        }
        _unless_duplicate("ec2:ImportKeyPair", lambda: self._client.import_key_pair(**request))

    def resources(self, run: str | None) -> tuple[Resource, ...]:
        """Return what carries the tag of `run` (None: of any run) beside instances and what goes with them."""
        tagged = run_filter(run)
        queries = self._made_by_runs(run)
        queries.append(self._volumes(tagged + filters(status=["available", "error"])))
        queries.append(self._interfaces(tagged + filters(status="available")))
        return tuple(found for query in queries for found in _ask(query, run or ""))

    def leftovers(self) -> tuple[Resource, ...]:
        """Return everything but instances that carries the tag of any run, less what goes with its instance by itself.

        A published image, the snapshots it is made of, and a published snapshot have outgrown their build and are not
        among it.
        """
        client, tagged = self._client, run_filter(None)
        open_requests = tagged + filters(state=["open", "active"])
        queries: list[Query] = [
            *self._made_by_runs(None),
            self._volumes(tagged),
            self._interfaces(tagged),
            (
                "spot-request",
                "SpotInstanceRequests",
                "SpotInstanceRequestId",
                lambda: client.describe_spot_instance_requests(Filters=open_requests),
            ),
            ("image", "Images", "ImageId", lambda: client.describe_images(Owners=["self"], Filters=tagged)),
            (
                "snapshot",
                "Snapshots",
                "SnapshotId",
                lambda: client.describe_snapshots(OwnerIds=["self"], Filters=tagged),
            ),
        ]
        kept = self._published()
        return tuple(found for query in queries for found in _ask(query, "") if found.id not in kept)

    def _published(self) -> frozenset[str]:
        """Return the ids of published images and of their snapshots, and of published snapshots of data sets."""
        client, images, sets = self._client, filters(tag_key=TAG_IMAGE), filters(tag_key=TAG_DATASET)
        reply = call("ec2:DescribeImages", lambda: client.describe_images(Owners=["self"], Filters=images))
        found = {name for raw in reply["Images"] for name in (raw["ImageId"], *snapshots_of(raw))}
        reply = call("ec2:DescribeSnapshots", lambda: client.describe_snapshots(OwnerIds=["self"], Filters=sets))
        return frozenset(found | {raw["SnapshotId"] for raw in reply["Snapshots"]})

    def _made_by_runs(self, run: str | None) -> list[Query]:
        client, tagged = self._client, run_filter(run)
        return [
            ("security-group", "SecurityGroups", "GroupId", lambda: client.describe_security_groups(Filters=tagged)),
            (
                "placement-group",
                "PlacementGroups",
                "GroupName",
                lambda: client.describe_placement_groups(Filters=tagged),
            ),
            ("key-pair", "KeyPairs", "KeyName", lambda: client.describe_key_pairs(Filters=tagged)),
        ]

    def _volumes(self, wanted: list[dict[str, Any]]) -> Query:
        return "volume", "Volumes", "VolumeId", lambda: self._client.describe_volumes(Filters=wanted)

    def _interfaces(self, wanted: list[dict[str, Any]]) -> Query:
        describe = self._client.describe_network_interfaces
        return "network-interface", "NetworkInterfaces", "NetworkInterfaceId", lambda: describe(Filters=wanted)

    def delete(self, resource: Resource) -> bool:
        """Delete `resource`; True when it is gone (or was already), False when something still uses it: not yet."""
        client = self._client
        deletions: dict[str, tuple[str, Callable[[], Any]]] = {
            "security-group": ("DeleteSecurityGroup", lambda: client.delete_security_group(GroupId=resource.id)),
            "placement-group": ("DeletePlacementGroup", lambda: client.delete_placement_group(GroupName=resource.id)),
            "key-pair": ("DeleteKeyPair", lambda: client.delete_key_pair(KeyName=resource.id)),
            "volume": ("DeleteVolume", lambda: client.delete_volume(VolumeId=resource.id)),
            "network-interface": (
                "DeleteNetworkInterface",
                lambda: client.delete_network_interface(NetworkInterfaceId=resource.id),
            ),
            "spot-request": (
                "CancelSpotInstanceRequests",
                lambda: client.cancel_spot_instance_requests(SpotInstanceRequestIds=[resource.id]),
            ),
            "image": ("DeregisterImage", lambda: client.deregister_image(ImageId=resource.id)),
            "snapshot": ("DeleteSnapshot", lambda: client.delete_snapshot(SnapshotId=resource.id)),
        }
        name, send = deletions[resource.kind]
        try:
            call(f"ec2:{name}", send)
        except OrchError as error:
            if error_code(error.__cause__ or error) in _GONE:
                return True
            match kind_of(error.__cause__ or error):
                case "gone":
                    return True
                case "in-use":
                    return False
            raise
        return True

    @property
    def _client(self) -> Any:
        return self._session.client("ec2")

    def _open(self, group_id: str, rule: Rule) -> None:
        request = {"GroupId": group_id, "IpPermissions": [_permission(rule)]}
        send = partial(self._client.authorize_security_group_ingress, **request)
        _unless_duplicate("ec2:AuthorizeSecurityGroupIngress", send)

    def _find_group(self, name: str, vpc: str) -> dict[str, Any] | None:
        wanted = filters(group_name=name, vpc_id=vpc)
        reply = call("ec2:DescribeSecurityGroups", lambda: self._client.describe_security_groups(Filters=wanted))
        return next(iter(reply["SecurityGroups"]), None)

    def _make_group(self, name: str, vpc: str, tags: Mapping[str, str]) -> dict[str, Any]:
        """Make the group and return it as described, still without rules."""
        request = {
            "GroupName": name,
            "Description": f"orch {tags.get(TAG_RUN, name)}",
            "VpcId": vpc,
            "TagSpecifications": tag_specification("security-group", tags),
        }
        made: dict[str, Any] = call("ec2:CreateSecurityGroup", lambda: self._client.create_security_group(**request))
        return made


def _ask(query: Query, run: str) -> Iterator[Resource]:
    """Yield what a listing shows that has to be deleted; `run` is whose it is where a reply has no tags."""
    kind, field, identifier, send = query
    for raw in call(f"ec2:Describe{field}", send)[field]:
        tags = tags_of(raw) or {item["Key"]: item["Value"] for item in raw.get("TagSet", [])}
        if raw.get("State") not in {"deleted", "deleting", "deregistered"} and not _goes_with_its_instance(raw):
            yield Resource(kind, str(raw[identifier]), tags.get(TAG_RUN, run))


def _goes_with_its_instance(raw: Mapping[str, Any]) -> bool:
    """Tell whether a volume or interface is attached to something that takes it along when it ends."""
    holders = [item for item in (*raw.get("Attachments", ()), raw.get("Attachment")) if item]
    return any(item.get("DeleteOnTermination") for item in holders)


def _unless_duplicate(action: str, send: Callable[[], Any]) -> None:
    try:
        call(action, send)
    except OrchError as error:
        if kind_of(error.__cause__ or error) != "duplicate":
            raise


def _rules(permissions: Iterable[Mapping[str, Any]]) -> Iterator[Rule]:
    for item in permissions:
        head = (str(item["IpProtocol"]), item.get("FromPort"), item.get("ToPort"))
        sources = [source["CidrIp"] for source in item.get("IpRanges", [])]
        sources += [source["CidrIpv6"] for source in item.get("Ipv6Ranges", [])]
        sources += [source["GroupId"] for source in item.get("UserIdGroupPairs", [])]
        for source in sources:
            yield (*head, source) if head[0] != "-1" else ("-1", None, None, source)


def _permission(rule: Rule) -> dict[str, Any]:
    protocol, first, last, source = rule
    permission: dict[str, Any] = {"IpProtocol": protocol}
    if first is not None:
        permission |= {"FromPort": first, "ToPort": last}
    if source.startswith("sg-"):
        return permission | {"UserIdGroupPairs": [{"GroupId": source}]}
    if ":" in source:
        return permission | {"Ipv6Ranges": [{"CidrIpv6": source}]}
    return permission | {"IpRanges": [{"CidrIp": source}]}


def _one_address(rule: Rule, ssh_port: int) -> bool:
    """Tell whether a rule lets one address in at the SSH port: a colleague who attaches, say."""
    protocol, first, last, source = rule
    return protocol == "tcp" and first == last == ssh_port and source.endswith(("/32", "/128"))
