"""What the sandbox's EC2 and its hosts know of each other. Pure: names and shapes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume of a machine beside its root: blank, or made of a snapshot ("" if of none)."""

    volume_id: str
    size_gib: int
    snapshot_id: str


@dataclass(frozen=True, slots=True)
class PushedKey:
    """A public key (an OpenSSH line without comment) with which `user` may log in for a while."""

    user: str
    public_key: str


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A machine that EC2 wants booted. `public_key` is the OpenSSH line of the instance's key pair ("" if none)."""

    instance_id: str
    address: str
    instance_type: str
    zone: str
    region: str
    image_id: str
    lifecycle: str
    user_data: bytes
    public_key: str
    role_name: str | None
    disks: tuple[Disk, ...] = ()


class Hosts(Protocol):
    """The machines of the sandbox; `sandbox.machines` implements it, the EC2 side calls it."""

    def boot(self, spec: HostSpec) -> None:
        """Begin booting a host; returns at once, the boot goes on in its own processes."""

    def halt(self, instance_id: str) -> None:
        """Kill every process of the host and return once none is left; unknown ids are ignored."""

    def capture(self, instance_id: str, image_id: str, *, reboot: bool) -> None:
        """Keep the files of a host as an image, once it is down for a reboot where that is asked; returns when done.

        Raises OrchError or OSError when there is no such host, or its files cannot be copied.
        """

    def forget_image(self, image_id: str) -> None:
        """Remove an image; unknown ids are ignored."""

    def snapshot(self, instance_id: str, volume_id: str, snapshot_id: str) -> None:
        """Keep what is on a disk of the host; returns when done. Raises OrchError or OSError, as `capture`."""

    def forget_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot; unknown ids are ignored."""

    def announce_interruption(self, instance_id: str, iso_time: str) -> None:
        """From now on the host's IMDS serves `spot/instance-action` with that time."""

    def announce_rebalance(self, instance_id: str, iso_time: str) -> None:
        """From now on the host's IMDS serves `events/recommendations/rebalance` with that time."""

    def take_keys(self, instance_id: str, keys: tuple[PushedKey, ...]) -> None:
        """From now on let these pushed keys in, and no other pushed ones; unknown ids are ignored."""

    def disturb(self, instance_id: str, kind: str) -> None:
        """Do to a host what `kind` (disturbances.Kind) says; raises OrchError when it is not up."""

    def heal(self, instance_id: str, kind: str) -> None:
        """Undo a lasting disturbance; one that is not in force, and unknown ids, are ignored."""

    def disturbances(self, instance_id: str) -> tuple[str, ...]:
        """Return the lasting disturbances in force on a host, by name."""

    def swallows(self, port: int) -> bool:
        """Tell whether the client at a loopback port is cut off from AWS; then return only once that has changed."""


class Cloud(Protocol):
    """What hosts ask of EC2; `sandbox.cloud` implements it, the hosts' supervisor and IMDS call it."""

    def shut_down_by_host(self, instance_id: str) -> None:
        """The host ran `shutdown`: act by its InstanceInitiatedShutdownBehavior, as EC2 does."""

    def role_credentials(self, role_name: str) -> dict[str, str]:
        """Return AccessKeyId, SecretAccessKey, Token, Expiration (ISO-8601) for a role."""
