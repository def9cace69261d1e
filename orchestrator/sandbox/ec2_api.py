"""EC2 of the sandbox: its own operations before moto's, and moto's only where they leave no machine without a host."""

from __future__ import annotations

from orchestrator.sandbox.ec2_images import ImageOperations
from orchestrator.sandbox.ec2_instances import InstanceOperations
from orchestrator.sandbox.ec2_launch import LaunchOperations
from orchestrator.sandbox.ec2_market import MarketOperations
from orchestrator.sandbox.ec2_network import NetworkOperations
from orchestrator.sandbox.ec2_snapshots import SnapshotOperations

# Operations of moto's that would show instances which no host stands behind.
GHOSTLY = frozenset(
    {
        "CreateFleet",
        "ImportInstance",
        "RequestSpotFleet",
        "RequestSpotInstances",
        "RunScheduledInstances",
    }
)


class SandboxEC2(
    LaunchOperations, InstanceOperations, ImageOperations, SnapshotOperations, NetworkOperations, MarketOperations
):
    """Answers one EC2 request; `dispatch` makes one for each."""
