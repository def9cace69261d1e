"""Who may call the sandbox: its own access key, and keys its IAM and STS have issued. No other, real ones least of all.

Keeps no secrets of its own: they are those of moto's IAM. Never prints one.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.models import AccessKey, IAMBackend, iam_backends
from moto.sts.models import AssumedRole, STSBackend, sts_backends

from orchestrator.errors import NotFound
from orchestrator.sandbox.sigv4 import Claim, read_claim, verify
from orchestrator.sandbox.wire import Call, Refused

ACCOUNT = DEFAULT_ACCOUNT_ID
USER = "sandbox"
ACCESS_KEY = "AKIAORCHSANDBOX00001"
SESSION_NAME = "orch-sandbox"
SESSION_SECONDS = 6 * 3600
_ACCESS_KEY = re.compile(r"[A-Z0-9]{20}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever signed a call. `role` is None for the sandbox's own user, who may do everything."""

    access_key: str
    role: str | None


class Credentials:
    """The keys of one sandbox. Methods may be called from any thread."""

    def __init__(self, region: str, access_key: str, secret_key: str) -> None:
        if not _ACCESS_KEY.fullmatch(access_key):
            raise ValueError("an access key id is 20 of A-Z and 0-9")
        self._region = region
        self._sessions: dict[str, AssumedRole] = {}
        user = self.iam.create_user(region, USER)
        key = AccessKey(USER, "AKIA", ACCOUNT)  # type: ignore[abstract]
        key.access_key_id, key.secret_access_key = access_key, secret_key
        user.access_keys.append(key)
        self.iam.access_keys[access_key] = key

    @property
    def iam(self) -> IAMBackend:
        """Moto's IAM of the sandbox's account."""
        return iam_backends[ACCOUNT]["aws"]

    @property
    def _sts(self) -> STSBackend:
        return sts_backends[ACCOUNT]["aws"]

    def authenticate(self, call: Call, now: datetime) -> tuple[Caller, Claim]:
        """Return who signed `call`. Raises Refused for any key but the sandbox's, and for false or stale signatures."""
        claim = read_claim(call)
        key = self.iam.access_keys.get(claim.access_key)
        if key is None:
            message = "is not this sandbox's: this is not AWS, and it takes no real credentials"
            raise Refused(_unknown_key_code(claim.service), f"access key {claim.access_key[:8]}... {message}")
        self._check_session(claim, now)
        verify(call, claim, key.secret_access_key, now)
        return Caller(claim.access_key, key.role_arn.rpartition("/")[2] if key.role_arn else None), claim

    def _check_session(self, claim: Claim, now: datetime) -> None:
        session = self._session(claim.access_key)
        if session is None:
            return
        if not hmac.compare_digest(session.session_token.encode(), claim.token.encode()):
            raise Refused("InvalidToken", "The provided token is malformed or otherwise invalid.")
        if now >= session.expiration.replace(tzinfo=UTC):
            raise Refused("ExpiredToken", "The provided token has expired.")

    def _session(self, access_key: str) -> AssumedRole | None:
        """Return the session of a temporary key, None for a lasting one; moto looks through all there ever were."""
        if not access_key.startswith("ASIA"):
            return None
        if access_key not in self._sessions:
            found = self._sts.get_assumed_role_from_access_key(access_key)
            if found is None:
                return None
            self._sessions[access_key] = found
        return self._sessions[access_key]

    def for_role(self, role_name: str, seconds: float = SESSION_SECONDS) -> dict[str, str]:
        """Return fresh AccessKeyId, SecretAccessKey, Token and Expiration (ISO-8601) for a role.

        Raises NotFound when IAM has no such role.
        """
        roles = {role.name: role for role in self.iam.get_roles()}
        if role_name not in roles:
            raise NotFound(f"the sandbox has no IAM role {role_name}", "create it first")
        session = self._sts.assume_role(self._region, SESSION_NAME, roles[role_name].arn, "", round(seconds), "")
        return {
            "AccessKeyId": session.access_key_id,
            "SecretAccessKey": session.secret_access_key,
            "Token": session.session_token,
            "Expiration": (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def _unknown_key_code(service: str) -> str:
    if service == "s3":
        return "InvalidAccessKeyId"
    return "AuthFailure" if service == "ec2" else "InvalidClientTokenId"
