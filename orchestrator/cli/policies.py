"""The documents of `orch doctor --policy`, made for the account and region at hand; changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.context import open_place
from orchestrator.core.units import counted
from orchestrator.errors import BadInput, OrchError

if TYPE_CHECKING:
    from orchestrator.run.home import Home


def policy_faults(given: Mapping[str, Any]) -> list[BadInput]:
    """Return what is wrong with what is asked for (`run`, `policy`, `data_buckets`), before anything is looked at."""
    from orchestrator.core.fields import BucketName, faults_of_each

    run, buckets = given["run"], given["data_buckets"]
    found = []
    if run is not None and given["policy"]:
        why = "leave one of them out; policies are the same for all runs"
        found.append(BadInput(f"--policy is of the account, not of run {run}", why))
    if buckets and not given["policy"]:
        found.append(BadInput("--data-bucket is of --policy", "give both, or neither"))
    faults = faults_of_each(BucketName, buckets)
    return found + [BadInput(f"--data-bucket: {fault}", "it is the NAME of s3://NAME") for fault in faults]


def policies_of(home: Home, cloud: str | None, data: Sequence[str]) -> dict[str, object]:
    """Return the policy documents by who holds them; without credentials with placeholders for account and region.

    Of buckets with `data`, those that nodes get beside, by the names under which `orch` looks for them. Raises BadInput
    for more buckets than one policy holds.
    """
    from orchestrator.aws import policies
    from orchestrator.core.ids import bucket_name

    ssh_user = "ubuntu"
    try:
        place = open_place(home, cloud or "aws")
        ssh_user = place.settings.ssh_user
        account, region, bucket = place.session.account(), place.settings.region, place.bucket.name
    except OrchError as error:
        account, region = "ACCOUNT", "REGION"
        bucket = bucket_name(account, region)
        click.echo(f"put your own in place of ACCOUNT and REGION: {error.message}", err=True)
    operator = policies.operator_policy(account, region, bucket, data, ssh_user)
    if (size := len(json.dumps(operator, separators=(",", ":")))) > policies.MANAGED_POLICY_CHARACTERS:
        raise BadInput(
            f"with {counted(len(data), 'bucket')} of data the operator's policy has {size} characters, and IAM takes"
            f" {policies.MANAGED_POLICY_CHARACTERS}",
            "name fewer, and the others in a second policy",
        )
    beside = {policies.data_policy_name(name): policies.dataset_policy(name) for name in data}
    return {
        "operator": operator,
        "node": policies.node_policy(bucket),
        **({"node_data": beside} if data else {}),
        "node_trust": policies.trust_policy(),
        "bucket": policies.bucket_policy(bucket),
    }
