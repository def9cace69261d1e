from __future__ import annotations

import pytest

from orchestrator.aws.codes import SETS, classify, missing_permission


def test_no_code_means_two_things() -> None:
    every = [code for _, codes in SETS for code in codes]
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        ("InsufficientInstanceCapacity", "", "no-capacity"),
        ("Server.InsufficientInstanceCapacity", "", "no-capacity"),
        ("MaxSpotInstanceCountExceeded", "", "quota"),
        ("VcpuLimitExceeded", "", "quota"),
        ("SnapshotLimitExceeded", "", "quota"),
        ("SpotMaxPriceTooLow", "", "price-cap"),
        ("Unsupported", "", "not-offered"),
        ("RequestLimitExceeded", "", "throttled"),
        ("SlowDown", "", "throttled"),
        ("UnauthorizedOperation", "", "denied"),
        ("ExpiredToken", "", "expired"),
        ("InvalidAMIID.NotFound", "", "bad-request"),
        ("IdempotentParameterMismatch", "", "bad-request"),
        ("InvalidGroup.NotFound", "", "gone"),
        ("DependencyViolation", "", "in-use"),
        ("InvalidGroup.Duplicate", "", "duplicate"),
        ("InternalError", "", "unreachable"),
        ("AuthException", "", "denied"),
        ("EC2InstanceNotFoundException", "", "gone"),
        ("EC2InstanceStateInvalidException", "", "unreachable"),
        ("InvalidArgsException", "", "bad-request"),
        ("SomethingNewThisYear", "", "unknown"),
    ],
)
def test_each_code_has_its_kind(code: str, message: str, kind: str) -> None:
    assert classify(code, message) == kind


@pytest.mark.parametrize(
    "message",
    [
        "Your requested instance type (p3.16xlarge) is not supported in your requested Availability Zone (us-east-1f).",
        "Invalid value 'p3.16xlarge' for InstanceType.",
        "The instance type 'p3.16xlarge' is not available here",
    ],
)
def test_a_general_code_about_the_type_in_a_zone_means_not_offered(message: str) -> None:
    assert classify("InvalidParameterValue", message) == "not-offered"


def test_a_general_code_about_anything_else_is_a_bad_request() -> None:
    assert classify("InvalidParameterValue", "Value (x) for parameter keyName is invalid") == "bad-request"


def test_the_missing_permission_is_found_in_the_sentence() -> None:
    said = "User: arn:aws:iam::1:user/me is not authorized to perform: iam:PassRole on resource: role orch-node"
    assert missing_permission(said) == "iam:PassRole"
    assert missing_permission("You shall not pass") is None
