"""How many vCPUs the account may run, by Service Quotas code. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.aws.errors import call
from orchestrator.aws.session import Session
from orchestrator.errors import NoPermission, NotFound


class Quotas:
    """EC2's quotas in one region."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def vcpus(self, codes: Iterable[str]) -> dict[str, int | None]:
        """Return the vCPUs held under each code, None where the service does not say (unknown code, no permission).

        Raises Unreachable.
        """
        return {code: self._held(code) for code in codes}

    def _held(self, code: str) -> int | None:
        client = self._session.client("service-quotas")
        try:
            reply = call(
                "servicequotas:GetServiceQuota",
                lambda: client.get_service_quota(ServiceCode="ec2", QuotaCode=code),
            )
        except (NotFound, NoPermission):
            return None
        return int(reply["Quota"]["Value"])
