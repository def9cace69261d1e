"""EC2: launching, seeing and terminating instances; with what `resources` and `offerings` add, all of EC2 that is used.

Sends requests as they are handed in and never decides: a refusal is named, not worked around.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.aws.codes import Kind
from orchestrator.aws.errors import (
    PATIENCE_SECONDS,
    LaunchRefused,
    call,
    call_pages,
    calling,
    error_code,
    error_text,
    kind_of,
    patiently,
    translate,
)
from orchestrator.aws.offerings import Offerings
from orchestrator.aws.resources import Resources
from orchestrator.aws.session import Session
from orchestrator.aws.shapes import filters, parse_instance, parse_volume, run_filter, tags_of, volume_ids
from orchestrator.core.facts import ALIVE, Instance, Volume
from orchestrator.core.ids import TAG_RUN
from orchestrator.errors import OrchError

# What was just made (security group, key pair, instance profile) may not be known to the rest of EC2 for a while.
VISIBLE_SECONDS = 15.0
FILTER_VALUES = 200
_NEW_PROFILE = re.compile(r"invalid iam instance profile", re.I)


@dataclass(frozen=True, slots=True)
class TaggedInstance:
    """An instance that carries any run's tag."""

    instance_id: str
    tagged_run: str
    state: str

    @property
    def alive(self) -> bool:
        """Whether it still exists for EC2."""
        return self.state in ALIVE


class Compute(Resources, Offerings):
    """EC2 of one cloud. Remembers the volumes it saw, which EC2 forgets with the instance they were attached to."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._known_volumes: dict[str, Volume] = {}
        self._attached: dict[str, list[str]] = {}

    def run_instances(self, request: Mapping[str, Any]) -> tuple[Instance, ...]:
        """Send a complete RunInstances request, ClientToken included, and return its instances by launch index.

        Repeats it only while EC2 throttles or does not know yet what was just created; the token makes that safe.
        Raises LaunchRefused with the kind of refusal; kinds `throttled`, `expired` and `unreachable` mean that the same
        request must be sent again, since it may have taken effect.
        """
        client = self._session.client("launch")
        try:
            reply = patiently(
                lambda: patiently(lambda: client.run_instances(**request), _throttled, PATIENCE_SECONDS),
                _not_visible_yet,
                VISIBLE_SECONDS,
            )
        except Exception as error:
            raise _refusal(error) from error
        return tuple(sorted(map(parse_instance, reply["Instances"]), key=lambda item: item.launch_index))

    def dry_run(self, request: Mapping[str, Any]) -> None:
        """Ask whether `request` would be allowed; nothing is launched. Raises NoPermission, BadInput, Unreachable."""
        client = self._session.client("launch")
        with calling("ec2:RunInstances"):
            try:
                client.run_instances(**{**request, "DryRun": True})
            except client.exceptions.ClientError as error:
                if error_code(error) != "DryRunOperation":
                    raise

    def instances(self, run: str) -> tuple[Instance, ...]:
        """Return the instances tagged with `run`, in every state EC2 still shows. Raises NoPermission, Unreachable."""
        found = self._describe(run)
        for raw in found:
            self._attached[raw["InstanceId"]] = volume_ids(raw) or self._attached.get(raw["InstanceId"], [])
        self._learn_volumes({volume for raw in found for volume in self._attached[raw["InstanceId"]]})
        return tuple(parse_instance(raw, self._volumes_of(raw["InstanceId"])) for raw in found)

    def volume_at(self, instance_id: str, device: str) -> str | None:
        """Return the id of the volume that an instance has at `device`. Raises NoPermission, Unreachable."""
        places = {"attachment.instance-id": instance_id, "attachment.device": device}
        found = [{"Name": name, "Values": [value]} for name, value in places.items()]
        client = self._session.client("ec2")
        for reply in call_pages("ec2:DescribeVolumes", client, "describe_volumes", Filters=found):
            for raw in reply["Volumes"]:
                return str(raw["VolumeId"])
        return None

    def tagged_instances(self) -> tuple[TaggedInstance, ...]:
        """Return the instances of all runs, in every state EC2 still shows. Raises NoPermission, Unreachable."""
        return tuple(
            TaggedInstance(raw["InstanceId"], tags_of(raw)[TAG_RUN], raw["State"]["Name"])
            for raw in self._describe(None)
        )

    def terminate(self, instance_ids: Iterable[str]) -> None:
        """Terminate instances; those already gone are done. Raises NoPermission, BadInput (malformed), Unreachable."""
        ids = list(instance_ids)
        client = self._session.client("ec2")
        while ids:
            try:
                call("ec2:TerminateInstances", partial(client.terminate_instances, InstanceIds=ids))
            except OrchError as error:
                # One unknown id makes EC2 refuse all: send the others again without it.
                absent = set(re.findall(r"i-[0-9a-f]+", error_text(error.__cause__))) if error.__cause__ else set()
                rest = [item for item in ids if item not in absent]
                if error.__cause__ is None or kind_of(error.__cause__) != "gone" or len(rest) == len(ids):
                    raise
                ids = rest
            else:
                return

    def _describe(self, run: str | None) -> list[dict[str, Any]]:
        client = self._session.client("ec2")
        replies = call_pages("ec2:DescribeInstances", client, "describe_instances", Filters=run_filter(run))
        return [raw for reply in replies for group in reply["Reservations"] for raw in group["Instances"]]

    def _learn_volumes(self, ids: Iterable[str]) -> None:
        """Fetch the sizes of volumes not seen before; a filter, unlike ids, does not mind those that are gone."""
        unknown = sorted(set(ids) - self._known_volumes.keys())
        client = self._session.client("ec2")
        for start in range(0, len(unknown), FILTER_VALUES):
            wanted = filters(volume_id=unknown[start : start + FILTER_VALUES])
            for reply in call_pages("ec2:DescribeVolumes", client, "describe_volumes", Filters=wanted):
                self._known_volumes |= {raw["VolumeId"]: parse_volume(raw) for raw in reply["Volumes"]}

    def _volumes_of(self, instance_id: str) -> list[Volume]:
        return [self._known_volumes[item] for item in self._attached[instance_id] if item in self._known_volumes]


def _throttled(error: Exception) -> bool:
    return kind_of(error) == "throttled"


def _not_visible_yet(error: Exception) -> bool:
    return kind_of(error) == "gone" or _NEW_PROFILE.search(error_text(error)) is not None


def _refusal(error: Exception) -> LaunchRefused:
    kind: Kind = kind_of(error)
    said = translate(error, "ec2:RunInstances")
    message = error_text(error) or said.message
    # What the request names does not exist, and did not appear: the request is wrong.
    return LaunchRefused(
        error_code(error) or type(error).__name__, "bad-request" if kind == "gone" else kind, message, said.hint
    )
