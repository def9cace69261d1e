"""EC2 Instance Connect: public keys that one user of one host may log in with for a minute.

On AWS a host's `sshd` asks its instance metadata for them; here they are written beside its own keys, and taken away
when their time is over. What is refused is refused as AWS does.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial

from orchestrator.sandbox.boundary import Hosts, PushedKey
from orchestrator.sandbox.wire import Call, Refused, Reply

ACTION = "SendSSHPublicKey"
KEY_SECONDS = 60.0
_TYPES = frozenset({"ssh-rsa", "ssh-ed25519"})
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9@._-]{0,30}[A-Za-z0-9$_-]?")


class InstanceConnect:
    """The service. `seconds` is a key's life.

    `state_of` gives the state of an instance (None: there is none), `after` does something later.
    """

    def __init__(
        self,
        hosts: Hosts,
        state_of: Callable[[str], str | None],
        after: Callable[[float, Callable[[], None]], None],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = hosts
        self._state_of = state_of
        self._after = after
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._ends: dict[str, dict[PushedKey, float]] = {}

    def answer(self, call: Call, action: str) -> Reply:
        """Answer a call of the service. Raises Refused."""
        if action != ACTION:
            raise Refused("UnknownOperationException", f"the sandbox's EC2 Instance Connect has no {action}")
        asked = json.loads(call.body or b"{}")
        instance_id, key = str(asked.get("InstanceId", "")), _key_of(asked)
        state = self._state_of(instance_id)
        if state is None:
            raise Refused("EC2InstanceNotFoundException", f"The instance {instance_id} was not found.")
        if state != "running":
            raise Refused("EC2InstanceStateInvalidException", f"{instance_id} is {state}, which is not a valid state.")
        with self._lock:
            self._ends.setdefault(instance_id, {})[key] = self._clock() + self._seconds
        self._show(instance_id)
        self._after(self._seconds, partial(self._show, instance_id))
        body = {"RequestId": secrets.token_hex(16), "Success": True}
        return Reply(200, {"content-type": "application/x-amz-json-1.1"}, json.dumps(body).encode())

    def _show(self, instance_id: str) -> None:
        """Have the host take the keys whose time is not over, and no others."""
        with self._lock:
            now = self._clock()
            left = {key: end for key, end in self._ends.pop(instance_id, {}).items() if end > now}
            if left:
                self._ends[instance_id] = left
            self._hosts.take_keys(instance_id, tuple(left))


def _key_of(asked: dict[str, object]) -> PushedKey:
    """Return the key of a request. Raises Refused for one that is none, or for a name that no user can have."""
    user, line = str(asked.get("InstanceOSUser", "")), str(asked.get("SSHPublicKey", ""))
    if not _USER.fullmatch(user):
        raise Refused("InvalidArgsException", "InstanceOSUser is not the name of a user.")
    words = line.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
        fit = words[0] in _TYPES and blob[4:].startswith(words[0].encode()) and "\n" not in line.strip()
    except (IndexError, binascii.Error):
        fit = False
    if not fit:
        raise Refused("InvalidArgsException", "SSHPublicKey is not an OpenSSH public key of type RSA or ED25519.")
    return PushedKey(user, " ".join(words[:2]))
