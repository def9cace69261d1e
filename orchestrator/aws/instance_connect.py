"""EC2 Instance Connect: a public key that one instance's `sshd` takes for a minute. Decides nothing."""

from __future__ import annotations

from orchestrator.aws.errors import call
from orchestrator.aws.session import Session

ACTION = "ec2-instance-connect:SendSSHPublicKey"


def push_key(session: Session, instance_id: str, user: str, public_key: str) -> None:
    """Have an instance let `user` in with an OpenSSH public key (RSA or ed25519) for 60 s; an open connection stays.

    The instance needs the package ec2-instance-connect: without it the call succeeds and the key opens nothing. Raises
    NoPermission, NotFound (no such instance), Unreachable (it does not run). Source: AWS's API reference of
    SendSSHPublicKey.
    """
    client = session.client("ec2-instance-connect")
    call(
        ACTION,
        lambda: client.send_ssh_public_key(InstanceId=instance_id, InstanceOSUser=user, SSHPublicKey=public_key),
    )
