"""Seeing what is: EC2 by tag, the nodes' own objects in S3. One `observe()` gives one consistent set of facts.

Reads only. Objects are fetched again only when their ETag changed, so a tick costs one listing and one describe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from orchestrator.aws.ec2 import Compute
from orchestrator.aws.s3 import Bucket
from orchestrator.core.beacon import Beacon
from orchestrator.core.facts import SHUT_ITSELF_DOWN, Facts, Instance, Node
from orchestrator.core.ids import Keys
from orchestrator.errors import NotFound

WORKERS = 8
# Between two looks that are further apart than this there is a gap, in which something may have gone unseen.
GAP = timedelta(seconds=45)
# A machine that its own timer turns off is gone within this.
SHUTDOWN = timedelta(minutes=2)


class NodeObjects:
    """The objects under `nodes/`, parsed: host keys, boot failures, beacons, and EC2's last word on ended instances."""

    def __init__(self, bucket: Bucket, run_id: str) -> None:
        self._bucket = bucket
        self._prefix = Keys(run_id).nodes
        self._bodies: dict[str, tuple[str, bytes]] = {}

    def refresh(self) -> None:
        """Fetch what changed since the last time."""
        listed = {item.key: item.etag for item in self._bucket.list(self._prefix)}
        stale = [key for key, etag in listed.items() if self._bodies.get(key, ("", b""))[0] != etag]
        if stale:
            with ThreadPoolExecutor(min(WORKERS, len(stale))) as pool:
                for key, body in zip(stale, pool.map(self._fetch, stale), strict=True):
                    if body is not None:
                        self._bodies[key] = (listed[key], body)

    def _fetch(self, key: str) -> bytes | None:
        try:
            return self._bucket.get(key)
        except NotFound:
            return None

    @property
    def nodes(self) -> dict[str, Node]:
        """What each node said of itself, by instance id."""
        found: dict[str, Node] = {}
        for key, (_, body) in self._bodies.items():
            instance_id, _, name = key.removeprefix(self._prefix).partition("/")
            node = found.get(instance_id, Node())
            if name == "host_keys":
                lines = body.decode(errors="replace").splitlines()
                node = replace(node, host_keys=tuple(line for line in lines if line.strip()))
            elif name == "boot_failure":
                node = replace(node, boot_failure=body.decode(errors="replace"))
            elif name == "beacon.json":
                node = replace(node, beacon=_beacon(body))
            found[instance_id] = node
        return found

    @property
    def recorded(self) -> dict[str, Instance]:
        """What EC2 last said of ended instances, by id."""
        records = (_instance(body) for key, (_, body) in self._bodies.items() if key.endswith("/instance.json"))
        return {item.instance_id: item for item in records if item is not None}


def _beacon(body: bytes) -> Beacon | None:
    try:
        return Beacon.from_json(body)
    except ValueError:
        return None


def _instance(body: bytes) -> Instance | None:
    try:
        return Instance.from_json(json.loads(body))
    except (ValueError, KeyError, TypeError):
        return None


class Watch:
    """Since when one observer has looked without a gap."""

    def __init__(self) -> None:
        self._since: datetime | None = None
        self._last: datetime | None = None

    def look(self, now: datetime) -> datetime:
        """Take in that everything was seen at `now`; return since when nothing was missed."""
        if self._since is None or self._last is None or now - self._last > GAP:
            self._since = now
        self._last = now
        return self._since


class Observer:
    """Observes one run, again and again."""

    def __init__(self, compute: Compute, bucket: Bucket, run_id: str) -> None:
        self._compute = compute
        self._bucket = bucket
        self._run_id = run_id
        self._objects = NodeObjects(bucket, run_id)
        self._ends: dict[str, datetime] = {}
        self._watch = Watch()

    def observe(self) -> Facts:
        """Return what EC2 and the nodes show now."""
        self._objects.refresh()
        now = self._bucket.server_time()
        recorded = self._objects.recorded
        seen = [self._with_end(item, recorded, now) for item in self._compute.instances(self._run_id)]
        return Facts(
            server_time=now,
            instances=merge(seen, recorded.values()),
            nodes=self._objects.nodes,
            resources=self._compute.resources(self._run_id),
            recorded={key: item.state for key, item in recorded.items()},
            watched_since=self._watch.look(now),
        )

    def observe_records(self) -> Facts:
        """Return what S3 alone knows: for runs that have ended."""
        self._objects.refresh()
        recorded = self._objects.recorded
        return Facts(
            server_time=self._bucket.server_time(),
            instances=merge((), recorded.values()),
            nodes=self._objects.nodes,
            recorded={key: item.state for key, item in recorded.items()},
        )

    def _with_end(self, item: Instance, recorded: dict[str, Instance], now: datetime) -> Instance:
        """Give an ended instance for which EC2 states no time the moment it was first seen so, or had to be gone by."""
        if item.usable or item.end_time is not None:
            return item
        known = recorded.get(item.instance_id)
        end = known.end_time if known else None
        latest = gone_by(item, self._objects.nodes.get(item.instance_id), now)
        return replace(item, end_time=end or self._ends.setdefault(item.instance_id, latest))


def gone_by(item: Instance, node: Node | None, now: datetime) -> datetime:
    """Return when an instance that is seen to be gone `now` was gone at the latest.

    One that shut itself down did so by its own timer, however late somebody looks.
    """
    timer = node.beacon.deadline if node is not None and node.beacon is not None else None
    if timer is None or item.end_reason != SHUT_ITSELF_DOWN:
        return now
    return min(now, datetime.fromtimestamp(timer, UTC) + SHUTDOWN)


def merge(seen: Iterable[Instance], recorded: Iterable[Instance]) -> tuple[Instance, ...]:
    """Return what EC2 shows, and from the records those it has forgotten (they are gone: terminated).

    Of one that ended EC2 shows no volumes any more: those that the record has stay on the bill.
    """
    known = {item.instance_id: item for item in recorded}
    shown = {item.instance_id: item for item in seen}
    forgotten = [replace(item, state="terminated") for item in known.values() if item.instance_id not in shown]
    ordered = [*(_with_volumes(item, known.get(item.instance_id)) for item in shown.values()), *forgotten]
    return tuple(sorted(ordered, key=lambda i: (i.generation, i.launch_index, i.instance_id)))


def _with_volumes(item: Instance, record: Instance | None) -> Instance:
    return item if item.volumes or record is None else replace(item, volumes=record.volumes)
