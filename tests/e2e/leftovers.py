"""What is there in a sandbox of each kind that runs and builds make, for tests of what they leave behind."""

from __future__ import annotations

from tests.e2e.sandbox_world import World

KINDS = ("instances", "volumes", "images", "snapshots", "keys", "groups", "folders")


def left(world: World) -> dict[str, int]:
    """Count them, without what every sandbox begins with; folders are those of images and of snapshots."""
    ec2 = world.client("ec2")
    pages = ec2.get_paginator("describe_instances").paginate()
    alive = [i for p in pages for r in p["Reservations"] for i in r["Instances"] if i["State"]["Name"] != "terminated"]
    sandbox = world.home / "sandbox"
    counts = (
        len(alive),
        len(ec2.describe_volumes()["Volumes"]),
        len(ec2.describe_images(Owners=["self"])["Images"]) - 1,
        len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]) - 1,
        len(ec2.describe_key_pairs()["KeyPairs"]),
        len(ec2.describe_security_groups()["SecurityGroups"]) - 1,
        sum(len(list((sandbox / kind).glob("*"))) for kind in ("images", "snapshots")),
    )
    return dict(zip(KINDS, counts, strict=True))


def nothing(**but: int) -> dict[str, int]:
    """Return what `left` counts where nothing is left but so many of a kind."""
    return dict.fromkeys(KINDS, 0) | but
