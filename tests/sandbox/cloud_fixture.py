"""A cloud of the sandbox over real HTTP with hosts that only take notes: what the tests of the cloud side share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from orchestrator.sandbox.boundary import HostSpec, PushedKey
from orchestrator.sandbox.catalogue import SANDBOX_AMI
from orchestrator.sandbox.cloud import SandboxCloud

REGION = "us-east-1"
TOKEN = "control-token"
PENDING = SHUTTING_DOWN = 0.2


class NotingHosts:
    """Hosts that are never there: each call is noted, boots with their time.

    While `stuck`, no host can be halted; while `broken`, none boots.
    """

    def __init__(self) -> None:
        self.booted: dict[str, HostSpec] = {}
        self.boot_times: dict[str, float] = {}
        self.halted: list[str] = []
        self.notices: dict[str, str] = {}
        self.advice: dict[str, str] = {}
        self.disturbed: dict[str, set[str]] = {}
        self.images: dict[str, tuple[str, bool]] = {}
        self.copied: list[str] = []
        self.keys: dict[str, tuple[PushedKey, ...]] = {}
        self.snapshots: dict[str, tuple[str, str]] = {}
        self.stuck = self.broken = False

    def boot(self, spec: HostSpec) -> None:
        if self.broken:
            raise OSError("this host does not boot")
        self.boot_times[spec.instance_id] = time.monotonic()
        self.booted[spec.instance_id] = spec

    def halt(self, instance_id: str) -> None:
        if self.stuck:
            raise TimeoutError("a process does not die")
        self.halted.append(instance_id)

    def capture(self, instance_id: str, image_id: str, *, reboot: bool) -> None:
        if self.broken:
            raise OSError("this host cannot be copied")
        self.images[image_id] = (instance_id, reboot)
        self.copied.append(image_id)

    def forget_image(self, image_id: str) -> None:
        self.images.pop(image_id, None)

    def snapshot(self, instance_id: str, volume_id: str, snapshot_id: str) -> None:
        if self.broken:
            raise OSError("this disk cannot be copied")
        self.snapshots[snapshot_id] = (instance_id, volume_id)
        self.copied.append(snapshot_id)

    def forget_snapshot(self, snapshot_id: str) -> None:
        self.snapshots.pop(snapshot_id, None)

    def announce_interruption(self, instance_id: str, iso_time: str) -> None:
        self.notices[instance_id] = iso_time

    def announce_rebalance(self, instance_id: str, iso_time: str) -> None:
        self.advice[instance_id] = iso_time

    def take_keys(self, instance_id: str, keys: tuple[PushedKey, ...]) -> None:
        self.keys[instance_id] = keys

    def disturb(self, instance_id: str, kind: str) -> None:
        self.disturbed.setdefault(instance_id, set()).add(kind)

    def heal(self, instance_id: str, kind: str) -> None:
        self.disturbed[instance_id].discard(kind)

    def disturbances(self, instance_id: str) -> tuple[str, ...]:
        return tuple(self.disturbed.get(instance_id, ()))

    def swallows(self, port: int) -> bool:
        return False


class World:
    """A cloud, its hosts, and clients that speak to it as production code does."""

    def __init__(self) -> None:
        self.hosts = NotingHosts()
        self.cloud = SandboxCloud(REGION, 7, PENDING, SHUTTING_DOWN, self.hosts, token=TOKEN)
        self.endpoint = "http://{}:{}".format(*self.cloud.serve())
        self._clients: dict[str, Any] = {}

    def client(self, service: str, **changes: Any) -> Any:
        """Return a client without retries; the shared one unless `changes` ask for another."""
        if not changes and service in self._clients:
            return self._clients[service]
        settings: dict[str, Any] = {
            "region_name": REGION,
            "endpoint_url": self.endpoint,
            "aws_access_key_id": self.cloud.access_key,
            "aws_secret_access_key": self.cloud.secret_key,
            "config": Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        }
        made = boto3.client(service, **(settings | changes))
        return made if changes else self._clients.setdefault(service, made)

    @property
    def ec2(self) -> Any:
        return self.client("ec2")

    @property
    def s3(self) -> Any:
        return self.client("s3")

    def run(self, count: int = 1, **changes: Any) -> list[str]:
        """Launch spot instances; return their ids."""
        return [item["InstanceId"] for item in self.ec2.run_instances(**order(count, **changes))["Instances"]]

    def instance(self, instance_id: str) -> dict[str, Any]:
        """Return what DescribeInstances says of an instance."""
        reply = self.ec2.describe_instances(InstanceIds=[instance_id])
        found: dict[str, Any] = reply["Reservations"][0]["Instances"][0]
        return found

    def state(self, instance_id: str) -> str:
        return str(self.instance(instance_id)["State"]["Name"])

    def wait(self, instance_ids: list[str], state: str) -> None:
        """Wait until all instances are in `state`."""
        until(lambda: all(self.state(instance_id) == state for instance_id in instance_ids))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing that takes its time end within the block, however slow this machine is."""
        timers, waiting = self.cloud._lifecycle._timers, []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(timers, "after", lambda *job: waiting.append(job))
            yield
        for job in waiting:
            timers.after(*job)

    def end(self) -> None:
        """Terminate everything, forget faults, and wait until it is gone."""
        self.cloud.clear_faults()
        self.hosts.stuck = self.hosts.broken = False
        alive = [i["instance_id"] for i in self.cloud.status()["instances"] if i["state"] != "terminated"]
        if alive:
            self.ec2.terminate_instances(InstanceIds=alive)
        until(lambda: all(i["state"] == "terminated" for i in self.cloud.status()["instances"]))


def order(count: int = 1, **changes: Any) -> dict[str, Any]:
    """Return the parameters of a launch of spot instances, with changes (None leaves one out)."""
    asked: dict[str, Any] = {
        "ImageId": SANDBOX_AMI,
        "InstanceType": "m5.large",
        "MinCount": count,
        "MaxCount": count,
        "InstanceMarketOptions": {"MarketType": "spot"},
    }
    return {name: value for name, value in (asked | changes).items() if value is not None}


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition; fail when it has not come true in a time in which it should have many times over."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def refusal(call: Callable[[], Any]) -> tuple[str, int, str]:
    """Return code, HTTP status and message of the error that `call` is answered with."""
    with pytest.raises(ClientError) as caught:
        call()
    reply: Any = caught.value.response
    return reply["Error"]["Code"], reply["ResponseMetadata"]["HTTPStatusCode"], reply["Error"]["Message"]


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    world = World()
    yield world
    world.cloud.close()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The module's cloud; what a test leaves running is terminated after it."""
    yield shared_world
    shared_world.end()
