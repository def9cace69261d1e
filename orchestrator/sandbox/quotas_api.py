"""Service Quotas for EC2: how many vCPUs of each family the account may run, spot and on demand, and what asks for it.

The same values are what RunInstances enforces. They are generous; a test sets others.
"""

from __future__ import annotations

import json
import re
import threading
from typing import Any

from orchestrator.sandbox.wire import Call, Refused, Reply

GENEROUS = 20_000.0
_STANDARD = frozenset("acdhimrtz")
_UNCOUNTED = frozenset({"dl", "hpc", "inf", "mac", "trn"})
# Codes and names are AWS's.
QUOTAS: dict[str, str] = {
    "L-7212CCBC": "All P4, P3 and P2 Spot Instance Requests",
    "L-C4BD4855": "All P5 Spot Instance Requests",
    "L-417A185B": "Running On-Demand P instances",
    "L-3819A6DF": "All G and VT Spot Instance Requests",
    "L-DB2E81BA": "Running On-Demand G and VT instances",
    "L-34B43A08": "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    "L-1216C47A": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
}
_CODES = {
    ("p", True): "L-7212CCBC",
    ("p5", True): "L-C4BD4855",
    ("p", False): "L-417A185B",
    ("p5", False): "L-417A185B",
    ("g", True): "L-3819A6DF",
    ("g", False): "L-DB2E81BA",
    ("standard", True): "L-34B43A08",
    ("standard", False): "L-1216C47A",
}


def quota_code(instance_type: str, *, spot: bool) -> str | None:
    """Return the code of the quota that counts a type's vCPUs, or None where the sandbox counts none."""
    # p3dn, g4dn, m5dn ...: the family's letters end at the digit.
    letters = re.match(r"[a-z]+", instance_type)
    family = letters[0] if letters else ""
    if family == "p":
        return _CODES["p5" if instance_type.startswith("p5") else "p", spot]
    if family in {"g", "gr", "vt"}:
        return _CODES["g", spot]
    return _CODES["standard", spot] if family[:1] in _STANDARD and family not in _UNCOUNTED else None


class Quotas:
    """The account's quotas; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values = dict.fromkeys(QUOTAS, GENEROUS)

    def get(self, code: str) -> float:
        """Return the value of a quota. Raises KeyError for a code that is none."""
        with self._lock:
            return self._values[code]

    def set(self, code: str, value: float) -> None:
        """Change a quota. Raises KeyError for a code that is none."""
        with self._lock:
            self._values[code]  # a typing error must not make a quota nobody reads
            self._values[code] = float(value)

    def all(self) -> dict[str, float]:
        """Return every quota by its code."""
        with self._lock:
            return dict(self._values)

    def answer(self, call: Call, action: str, region: str, account: str) -> Reply:
        """Answer a call of the Service Quotas API. Raises Refused for what it does not know."""
        parameters: dict[str, Any] = json.loads(call.body or b"{}")
        if parameters.get("ServiceCode") != "ec2":
            raise Refused("NoSuchResourceException", "The request failed because the specified service does not exist.")
        if action in {"ListServiceQuotas", "ListAWSDefaultServiceQuotas"}:
            return _json({"Quotas": [self._describe(code, region, account) for code in QUOTAS]})
        if action not in {"GetServiceQuota", "GetAWSDefaultServiceQuota"}:
            raise Refused("UnknownOperationException", f"the sandbox's Service Quotas has no {action}")
        code = parameters.get("QuotaCode")
        if code not in QUOTAS:
            raise Refused("NoSuchResourceException", "The request failed because the specified quota does not exist.")
        return _json({"Quota": self._describe(code, region, account)})

    def _describe(self, code: str, region: str, account: str) -> dict[str, Any]:
        return {
            "ServiceCode": "ec2",
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{region}:{account}:ec2/{code}",
            "QuotaCode": code,
            "QuotaName": QUOTAS[code],
            "Value": self.get(code),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
            "QuotaAppliedAtLevel": "ACCOUNT",
        }


def _json(value: dict[str, Any]) -> Reply:
    return Reply(200, {"content-type": "application/x-amz-json-1.1"}, json.dumps(value).encode())
