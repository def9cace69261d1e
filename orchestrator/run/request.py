"""The exact RunInstances request of one launch attempt, and the tags that everything carries. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core import ids
from orchestrator.core.facts import Resource
from orchestrator.core.plan import Offer, gp3_for
from orchestrator.core.spec import RunSpec
from orchestrator.core.volumes import DEVICES, mapping


def tags(spec: RunSpec, generation: int | None = None) -> dict[str, str]:
    """Return the tags of everything made for a run; `orch gc` finds by them."""
    found = {
        "Name": ids.resource_name(spec.run_id),
        ids.TAG_RUN: spec.run_id,
        ids.TAG_NAME: spec.name,
        ids.TAG_USER: spec.identity.user,
    }
    found |= {ids.TAG_RECIPE: spec.recipe} if spec.recipe else {}
    return found if generation is None else found | {ids.TAG_GENERATION: str(generation)}


def run_instances_request(
    spec: RunSpec,
    offer: Offer,
    *,
    generation: int,
    attempt: int,
    count: int,
    resources: Sequence[Resource],
    root_device: str,
    user_data: str,
    least: int | None = None,
) -> dict[str, Any]:
    """Return the request: `count` instances or nothing, with `least` no fewer than that; one zone, everything tagged,
    terminated when it shuts down.

    Raises KeyError when the security group is not among `resources`.
    """
    by_kind = {item.kind: item.id for item in resources}
    token = ids.client_token(spec.run_id, generation, attempt)
    labels = tags(spec, generation) | {ids.TAG_TOKEN: token}
    pairs = [{"Key": key, "Value": value} for key, value in sorted(labels.items())]
    tagged = ["instance", "volume", "network-interface"]
    request: dict[str, Any] = {
        "ClientToken": token,
        "ImageId": spec.image,
        "InstanceType": offer.instance_type,
        "MinCount": least or count,
        "MaxCount": count,
        "KeyName": ids.resource_name(spec.run_id),
        "IamInstanceProfile": {"Name": spec.instance_profile},
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        "BlockDeviceMappings": [
            {
                "DeviceName": root_device,
                "Ebs": {
                    "VolumeSize": spec.experiment.resources.disk_size,
                    "VolumeType": "gp3",
                    "DeleteOnTermination": True,
                    "Encrypted": True,
                },
            },
            *(
                mapping(volume, gp3_for(volume, offer, spec.experiment.max_duration), device)
                for volume, device in zip(spec.volumes, DEVICES, strict=False)
            ),
        ],
        "UserData": user_data,
        **_network(offer, by_kind["security-group"]),
    }
    if offer.placement_group:
        request["Placement"] = {"GroupName": ids.resource_name(spec.run_id)}
    if offer.lifecycle == "spot":
        # No MaxPrice: the ceiling is then the on-demand price, and AWS interrupts capped requests more often.
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
        tagged.append("spot-instances-request")
    request["TagSpecifications"] = [{"ResourceType": kind, "Tags": pairs} for kind in tagged]
    return request


def _network(offer: Offer, group: str) -> dict[str, Any]:
    """Return how an instance is attached: plainly, or by an EFA interface on each card, of which the first has its IP.

    The numbering is that of docs.aws.amazon.com, "Maximize network bandwidth on instances with multiple network cards".
    """
    if not offer.efa:
        return {"SecurityGroupIds": [group], "SubnetId": offer.subnet}
    shared = {"SubnetId": offer.subnet, "Groups": [group], "DeleteOnTermination": True}
    first = {"NetworkCardIndex": 0, "DeviceIndex": 0, "InterfaceType": "efa"}
    # The others without addresses: several in one subnet confuse routing, and whoever picks an interface by name.
    others = [{"NetworkCardIndex": i, "DeviceIndex": 1, "InterfaceType": "efa-only"} for i in range(1, offer.efa)]
    return {"NetworkInterfaces": [card | shared for card in (first, *others)]}
