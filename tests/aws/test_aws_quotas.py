from __future__ import annotations

import json
import time

import pytest

from orchestrator.aws.quotas import Quotas
from orchestrator.aws.session import Session
from orchestrator.errors import Unreachable
from tests.aws.aws_wire import Form, Reply, Wire, json_error, json_reply


def answer(form: Form) -> Reply:
    asked = json.loads(form["json"])
    assert asked["ServiceCode"] == "ec2"
    replies = {
        "L-7212CCBC": json_reply({"Quota": {"QuotaCode": "L-7212CCBC", "Value": 1536.0}}),
        "L-417A185B": json_reply({"Quota": {"QuotaCode": "L-417A185B", "Value": 0.0}}),
        "L-DENIED": json_error("AccessDeniedException"),
    }
    return replies.get(asked["QuotaCode"], json_error("NoSuchResourceException"))


def test_a_quota_is_told_in_vcpus_and_none_where_the_service_does_not_say(session: Session, wire: Wire) -> None:
    wire.answer("GetServiceQuota", answer)
    found = Quotas(session).vcpus(["L-7212CCBC", "L-417A185B", "L-UNKNOWN", "L-DENIED"])
    assert found == {"L-7212CCBC": 1536, "L-417A185B": 0, "L-UNKNOWN": None, "L-DENIED": None}


def test_a_service_that_does_not_answer_is_not_taken_for_no_quota(
    session: Session, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    wire.answer("GetServiceQuota", lambda _: json_error("ServiceException", 500))
    with pytest.raises(Unreachable):
        Quotas(session).vcpus(["L-7212CCBC"])
