from __future__ import annotations

import socket
import time

import pytest

from orchestrator.aws import errors
from orchestrator.aws.ec2 import Compute
from orchestrator.aws.errors import calling, patiently
from orchestrator.aws.s3 import Bucket
from orchestrator.aws.session import Session
from orchestrator.core.settings import Settings
from orchestrator.errors import BadInput, Exit, NoPermission, OrchError, Unreachable
from tests.aws.aws_wire import Wire


def test_a_refusal_names_the_permission_that_is_missing(session: Session, wire: Wire) -> None:
    said = "User: arn:aws:iam::1:user/me is not authorized to perform: ec2:DescribeVpcs because no policy allows it"
    wire.fail("DescribeVpcs", "UnauthorizedOperation", status=403, message=said)
    with pytest.raises(NoPermission) as caught:
        Compute(session).default_vpc()
    assert "ec2:DescribeVpcs" in caught.value.message
    assert "needs" not in caught.value.message
    assert "ec2:DescribeVpcs" in caught.value.hint
    assert "doctor --policy" in caught.value.hint
    assert "--data-bucket" not in caught.value.hint
    assert caught.value.exit_code == Exit.NO_PERMISSION
    wire.fail("GET /theirs", "AccessDenied", status=403)
    with pytest.raises(NoPermission) as caught:
        tuple(Bucket(session, "theirs").list("data/"))
    assert "permission s3:ListBucket; `orch doctor --policy`" in caught.value.hint
    assert "with `--data-bucket NAME`" in caught.value.hint


def test_expired_credentials_say_how_to_renew_them(session: Session, wire: Wire) -> None:
    wire.fail("DescribeVpcs", "ExpiredToken", status=400)
    with pytest.raises(NoPermission, match="expired"):
        Compute(session).default_vpc()


def test_a_throttled_call_is_repeated_until_it_is_heard(
    session: Session, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    wire.fail("DescribeVpcs", "RequestLimitExceeded", status=503, times=7)
    assert Compute(session).default_vpc().startswith("vpc-")
    assert wire.count("DescribeVpcs") == 8


def test_throttling_without_end_is_reported_after_the_deadline(
    session: Session, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(errors, "FIRST_PAUSE", 100.0)
    wire.fail("DescribeVpcs", "RequestLimitExceeded", status=503, times=50)
    with pytest.raises(Unreachable, match="throttling ec2:DescribeVpcs"):
        Compute(session).default_vpc()


def test_a_reply_that_is_no_reply_is_unreachable(session: Session, wire: Wire) -> None:
    for _ in range(9):
        wire.fail_with("DescribeVpcs", (200, "text/html", b"<html>Welcome to this hotel's network"))
    with pytest.raises(Unreachable, match="makes no sense"):
        Compute(session).default_vpc()


def test_an_error_page_is_unreachable(session: Session, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    for _ in range(9):
        wire.fail_with("DescribeVpcs", (500, "text/html", b"<html><body>oops</body></html>"))
    with pytest.raises(Unreachable):
        Compute(session).default_vpc()


def test_a_closed_port_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with socket.socket() as reserved:  # bound but not listening: nobody else gets this port meanwhile
        reserved.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no answer to sts:GetCallerIdentity"):
            Session(Settings("test", "us-east-1", endpoint, "a", "b")).account()


def test_parameters_that_botocore_refuses_are_bad_input(session: Session) -> None:
    with pytest.raises(BadInput, match="InstanceIds"), calling("ec2:TerminateInstances"):
        session.client("ec2").terminate_instances(InstanceIds="not a list")


def test_a_code_that_nobody_named_is_shown_as_it_is(session: Session, wire: Wire) -> None:
    wire.fail("DescribeVpcs", "SomethingNewThisYear", message="who knows")
    with pytest.raises(OrchError, match="ec2:DescribeVpcs failed: SomethingNewThisYear: who knows"):
        Compute(session).default_vpc()


def test_mistakes_of_our_own_are_not_dressed_up_as_errors_of_aws() -> None:
    with pytest.raises(ZeroDivisionError), calling("ec2:Anything"):
        _ = 1 / 0


def test_pauses_grow_and_end_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)

    def fail() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        patiently(fail, lambda _: True, 10.0)
    assert now[0] <= 110.0
    assert len(pauses) >= 4
    assert pauses[3] > pauses[0]
