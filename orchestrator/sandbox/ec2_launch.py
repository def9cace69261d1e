"""RunInstances: all machines of an order or none, once a ClientToken.

Checks nothing itself (`launch_checks` does).
"""

from __future__ import annotations

import hashlib
import json
import secrets

from moto.core.utils import utcnow
from moto.ec2.models.instances import Instance, Reservation
from moto.ec2.utils import parse_user_data, random_reservation_id

from orchestrator.sandbox.boundary import Disk, HostSpec
from orchestrator.sandbox.ec2_backend import Machine
from orchestrator.sandbox.ec2_instance_xml import reservation_values
from orchestrator.sandbox.interfaces import attach
from orchestrator.sandbox.launch_checks import LaunchChecks, LaunchOrder
from orchestrator.sandbox.wire import Refused


class LaunchOperations(LaunchChecks):
    """RunInstances."""

    def run_instances(self) -> str:  # type: ignore[override]
        """Launch, or repeat what an earlier call with this ClientToken launched."""
        token = str(self.param("ClientToken", ""))
        fingerprint = self._fingerprint()
        known = self.world.launches.get(token)
        if known is not None and known[0] != fingerprint:
            message = (
                "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
            )
            raise Refused("IdempotentParameterMismatch", message)
        order = self.check_launch() if known is None else None
        self.error_on_dryrun()
        reservation = self._launch(order, token) if order else known[1] if known else None
        assert reservation is not None  # noqa: S101 - for the type checker: one of the two is there
        if token:
            self.world.launches[token] = (fingerprint, reservation)
        machines = [self.world.machines[instance.id] for instance in reservation.instances]
        return self.reply("RunInstances", reservation_values(reservation, machines, self.tag_rows))

    def _fingerprint(self) -> str:
        """Return a digest of everything asked for but the token itself."""
        asked = {name: value for name, value in self.params.items() if name not in {"ClientToken", "DryRun"}}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()

    def _launch(self, order: LaunchOrder, token: str) -> Reservation:
        reservation = Reservation(random_reservation_id(), self.current_account)
        self.world.reservations[reservation.id] = reservation
        if order.group_name:
            self.world.placement_groups.get(order.group_name).zone = order.subnet.availability_zone
        try:
            for index in range(order.count):
                machine = self._make(order, reservation, token, index)
                self._add_volumes(machine.instance, order.tags.get("volume", {}))
        except Exception:
            # A volume nobody can have: what was made for this launch goes again, and no host was asked to boot.
            self.world.undo(reservation)
            raise
        for instance in reservation.instances:
            machine = self.world.machines[instance.id]
            self.world.lifecycle.launch(instance, _host_spec(machine, order, self.region, self._disks(instance)))
        return reservation

    def _make(self, order: LaunchOrder, reservation: Reservation, token: str, index: int) -> Machine:
        subnet, tags = order.subnet, order.tags
        public_ip = subnet.map_public_ip_on_launch if order.public_ip is None else order.public_ip
        instance = Instance(  # type: ignore[abstract]
            self.world,
            order.image_id,
            parse_user_data(self.param("UserData")),
            order.groups,
            instance_type=order.instance_type,
            region_name=self.region,
            subnet_id=subnet.id,
            private_ip=self.world.private_addresses[subnet.id].take(),
            associate_public_ip=public_ip,
            key_name=order.key_name,
            ami_launch_index=index,
            client_token=token,
            metadata_options=self.param("MetadataOptions", {}),
            ebs_optimized=self.flag("EbsOptimized"),
            disable_api_termination=self.flag("DisableApiTermination"),
            instance_initiated_shutdown_behavior=self.param("InstanceInitiatedShutdownBehavior"),
            monitoring_state="enabled" if self.flag("Monitoring.Enabled") else "disabled",
        )
        # EC2 states launch times in whole seconds.
        instance.launch_time = utcnow().replace(microsecond=0)
        instance.placement.group_name = order.group_name
        request = f"sir-{secrets.token_hex(4)}" if order.spot else None
        instance.lifecycle = "spot" if order.spot else None
        options = self.param("InstanceMarketOptions.SpotOptions", {}) or {}
        machine = Machine(instance, reservation, order.profile, request, dict(options))
        reservation.instances.append(instance)
        self.world.machines[instance.id] = machine
        self.world.tags[instance.id].update(tags.get("instance", {}))
        if request:
            self.world.tags[request].update(tags.get("spot-instances-request", {}))
        attach(self.world, instance, subnet, order.interfaces)
        for interface in instance.nics.values():
            interface.delete_on_termination = True
            self.world.tags[interface.id].update(tags.get("network-interface", {}))
        if order.profile:
            self.world.associate_iam_instance_profile(instance.id, iam_instance_profile_name=order.profile.name)
            instance.iam_instance_profile = {"Arn": order.profile.arn, "Id": order.profile.id}
        return machine

    def _add_volumes(self, instance: Instance, tags: dict[str, str]) -> None:
        """Make the root volume and the others asked for; the root goes with its instance unless told not to."""
        mappings = {m.get("DeviceName"): m["Ebs"] for m in self.param("BlockDeviceMappings", []) if m.get("Ebs")}
        root = instance.root_device_name
        for device, asked in ({root: {}} | mappings).items():
            snapshot_id = asked.get("SnapshotId")
            least = self.world.snapshots[snapshot_id].volume_size if snapshot_id else 8
            volume = self.world.create_volume(
                size=int(asked.get("VolumeSize") or least),
                zone_name=str(instance.placement.zone),
                snapshot_id=snapshot_id,
                encrypted=str(asked.get("Encrypted", "")).lower() == "true",
                kms_key_id=asked.get("KmsKeyId"),
                volume_type=asked.get("VolumeType") or "gp3",
                iops=int(asked["Iops"]) if asked.get("Iops") else None,
                throughput=int(asked["Throughput"]) if asked.get("Throughput") else None,
            )
            if rate := asked.get("VolumeInitializationRate"):
                volume.volume_initialization_rate = int(rate)  # type: ignore[attr-defined]
            keep = str(asked.get("DeleteOnTermination", device == root)).lower() != "true"
            self.world.attach_volume(volume.id, instance.id, device, not keep)
            self.world.tags[volume.id].update(tags)

    def _disks(self, instance: Instance) -> tuple[Disk, ...]:
        """Return what an instance has beside its root."""
        mapped = instance.block_device_mapping.items()
        others = [self.world.volumes[item.volume_id] for device, item in mapped if device != instance.root_device_name]
        return tuple(Disk(volume.id, volume.size, volume.snapshot_id or "") for volume in others)


def _host_spec(machine: Machine, order: LaunchOrder, region: str, disks: tuple[Disk, ...]) -> HostSpec:
    item = machine.instance
    roles = machine.profile.roles if machine.profile else []
    return HostSpec(
        instance_id=item.id,
        address=str(item.private_ip),
        instance_type=order.instance_type,
        zone=order.subnet.availability_zone,
        region=region,
        image_id=order.image_id,
        lifecycle="spot" if order.spot else "on-demand",
        user_data=order.user_data,
        public_key=order.public_key,
        role_name=roles[0].name if roles else None,
        disks=disks,
    )
