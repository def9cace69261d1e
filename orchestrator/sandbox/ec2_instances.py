"""What is done with instances once they are launched: describe, terminate, stop, start, change attributes."""

from __future__ import annotations

from typing import Any

from moto.ec2.exceptions import InvalidInstanceIdError
from moto.ec2.models.instances import Instance

from orchestrator.sandbox.ec2_backend import Machine
from orchestrator.sandbox.ec2_base import EC2Operations, matches, unknown_filter
from orchestrator.sandbox.ec2_instance_xml import FILTERS, reservation_values
from orchestrator.sandbox.lifecycle import CODES
from orchestrator.sandbox.wire import Refused

BEHAVIORS = frozenset({"stop", "terminate"})


class InstanceOperations(EC2Operations):
    """DescribeInstances and the operations that change instances."""

    def describe_instances(self) -> str:  # type: ignore[override]
        """Describe the instances that match ids and filters, in the order of their launch."""
        self.error_on_dryrun()
        ids = self.param("InstanceIds", [])
        if ids and self.param("MaxResults"):
            message = "The parameter instancesSet cannot be used with the parameter maxResults"
            raise Refused("InvalidParameterCombination", message)
        machines = self._by_ids(ids) if ids else list(self.world.machines.values())
        found = [machine for machine in machines if self._fits(machine)]
        shown, token = self.page(found, len(found) or 1)
        grouped: dict[str, list[Machine]] = {}
        for machine in shown:
            grouped.setdefault(machine.reservation.id, []).append(machine)
        rows = [reservation_values(group[0].reservation, group, self.tag_rows) for group in grouped.values()]
        return self.reply("DescribeInstances", {"reservationSet": rows, "nextToken": token})

    def _by_ids(self, ids: list[str]) -> list[Machine]:
        unknown = [instance_id for instance_id in ids if instance_id not in self.world.machines]
        if unknown:
            raise InvalidInstanceIdError(unknown)
        wanted = set(ids)
        return [machine for machine in self.world.machines.values() if machine.instance.id in wanted]

    def _fits(self, machine: Machine) -> bool:
        return all(self._passes(machine, name, values) for name, values in self.filters().items())

    def _passes(self, machine: Machine, name: str, values: list[str]) -> bool:
        by_tag = self.tag_matches(machine.instance.id, name, values)
        if by_tag is not None:
            return by_tag
        if name not in FILTERS:
            raise unknown_filter(name)
        return any(matches(value, values) for value in FILTERS[name](machine))

    def terminate_instances(self) -> str:  # type: ignore[override]
        """Terminate; instances that are going or gone stay as they are. All ids must exist."""
        machines = self._by_ids(self._ids())
        for machine in machines:
            if str(machine.instance.disable_api_termination).lower() == "true":
                message = f"The instance '{machine.instance.id}' may not be terminated. Modify its"
                raise Refused("OperationNotPermitted", f"{message} 'disableApiTermination' instance attribute.")
        self.error_on_dryrun()
        rows = [self._change(machine, "terminate") for machine in machines]
        return self.reply("TerminateInstances", {"instancesSet": rows})

    def stop_instances(self) -> str:  # type: ignore[override]
        """Stop on-demand instances; spot instances launched once cannot be stopped."""
        machines = self._by_ids(self._ids())
        for machine in machines:
            if machine.spot_request:
                raise Refused("UnsupportedOperation", f"You can't stop the Spot Instance '{machine.instance.id}'"
                    " because it is associated with a one-time Spot Instance request.")  # fmt: skip
            if machine.instance.state in {"shutting-down", "terminated"}:
                raise _wrong_state(machine.instance, "stopped")
        self.error_on_dryrun()
        return self.reply("StopInstances", {"instancesSet": [self._change(machine, "stop") for machine in machines]})

    def start_instances(self) -> str:  # type: ignore[override]
        """Start stopped instances."""
        machines = self._by_ids(self._ids())
        for machine in machines:
            if machine.instance.state not in {"stopped", "pending", "running"}:
                raise _wrong_state(machine.instance, "started")
        self.error_on_dryrun()
        return self.reply("StartInstances", {"instancesSet": [self._change(machine, "start") for machine in machines]})

    def reboot_instances(self) -> str:  # type: ignore[override]
        """Refuse: the sandbox's hosts are booted once."""
        raise Refused("UnsupportedOperation", "the sandbox does not reboot instances; terminate and launch instead")

    def _ids(self) -> list[str]:
        ids: list[str] = self.param("InstanceIds", [])
        if not ids:
            raise Refused("InvalidParameterCombination", "No instances specified")
        return ids

    def _change(self, machine: Machine, how: str) -> dict[str, Any]:
        instance = machine.instance
        before = instance.state
        if how == "terminate":
            machine.spot_status = "instance-terminated-by-user" if machine.alive else machine.spot_status
            self.world.lifecycle.end(instance, "user")
        elif how == "stop":
            self.world.lifecycle.stop(instance, "user")
        elif before == "stopped":
            self.world.lifecycle.start(instance)
        return {
            "instanceId": instance.id,
            "currentState": {"code": CODES[instance.state], "name": instance.state},
            "previousState": {"code": CODES[before], "name": before},
        }

    def modify_instance_attribute(self) -> Any:
        """Change an attribute. Moto ignored the shutdown behaviour and emptied the security groups instead."""
        behavior = self.param("InstanceInitiatedShutdownBehavior.Value")
        if behavior is None and self.param("Attribute") == "instanceInitiatedShutdownBehavior":
            behavior = self.param("Value")
        if behavior is None:
            return super().modify_instance_attribute()
        if behavior not in BEHAVIORS:
            message = f"Invalid value '{behavior}' for parameter InstanceInitiatedShutdownBehavior"
            raise Refused("InvalidParameterValue", message)
        self.error_on_dryrun()
        self.world.get_instance(self.param("InstanceId")).instance_initiated_shutdown_behavior = behavior
        return self.reply("ModifyInstanceAttribute", {"return": True})


def _wrong_state(instance: Instance, verb: str) -> Refused:
    message = f"The instance '{instance.id}' is not in a state from which it can be {verb}."
    return Refused("IncorrectInstanceState", message)
