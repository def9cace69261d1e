"""Which service and operation an authenticated request is for, whether its caller may, and the service's answer.

Speaks to moto's service classes without the web framework between, which costs more than the services. Services the
sandbox does not have are refused by name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.request import Request
from moto.core.utils import get_service_model
from moto.iam.responses import IamResponse
from moto.ssm.responses import SimpleSystemManagerResponse
from moto.sts.responses import TokenResponse
from werkzeug.exceptions import HTTPException

from orchestrator.sandbox import aws_chunked, policies, pricing_api, s3_api
from orchestrator.sandbox.checksums import check_upload
from orchestrator.sandbox.credentials import ACCOUNT, Caller, Credentials
from orchestrator.sandbox.ec2_api import GHOSTLY, SandboxEC2
from orchestrator.sandbox.ec2_backend import SandboxEC2Backend
from orchestrator.sandbox.faults import REPLY_LOST, Faults
from orchestrator.sandbox.instance_connect_api import InstanceConnect
from orchestrator.sandbox.quotas_api import Quotas
from orchestrator.sandbox.s3_actions import S3Action, s3_action
from orchestrator.sandbox.wire import JSON_SERVICES, Call, Refused, Reply, error_reply, to_environ

GLOBAL = frozenset({"iam", "sts", "pricing"})


class _WsgiRequest(Request):
    """Moto's request, as its own server makes it."""

    from_wsgi_server = True


class Services:
    """The services of one sandbox."""

    def __init__(  # noqa: PLR0917 - made in one place, of all that answers
        self,
        region: str,
        ec2: SandboxEC2Backend,
        credentials: Credentials,
        quotas: Quotas,
        faults: Faults,
        connect: InstanceConnect,
    ) -> None:
        self._region = region
        self._ec2 = ec2
        self._credentials = credentials
        self._quotas = quotas
        self._faults = faults
        self._connect = connect
        self._s3_lock = threading.RLock()

    def answer(self, call: Call, caller: Caller) -> Reply:
        """Answer one authenticated call; raises Refused for what the sandbox itself declines."""
        if call.service not in GLOBAL and call.region != self._region:
            raise Refused("OptInRequired", f"this sandbox is the region {self._region}; there is no {call.region}")
        if call.service == "s3":
            return self._answer_s3(call, caller)
        action = operation(call)
        self._permit(caller, [(f"{call.service}:{action}", "*")], {})
        fault = self._faults.strike(action, self._zone(call, action), replay=self._is_replay(call, action))
        if fault is not None and fault.code != REPLY_LOST:
            raise Refused(fault.code, fault.message)
        reply = self._carry_out(call, action)
        return reply if fault is None else error_reply(call, "InternalError", fault.message)

    def _carry_out(self, call: Call, action: str) -> Reply:  # noqa: PLR0911 - one a service
        match call.service:
            case "ec2":
                if action in GHOSTLY:
                    message = f"the sandbox launches by RunInstances alone; {action} would show machines that are none"
                    raise Refused("UnsupportedOperation", message)
                return self._ask_moto(SandboxEC2.dispatch, call, action)
            case "iam":
                return self._ask_moto(IamResponse.dispatch, call, action)
            case "sts":
                return self._ask_moto(TokenResponse.dispatch, call, action)
            case "ssm":
                return self._ask_moto(SimpleSystemManagerResponse.dispatch, call, action)
            case "pricing":
                return pricing_api.answer(call, action, self._region)
            case "ec2-instance-connect":
                return self._connect.answer(call, action)
            case "servicequotas":
                return self._quotas.answer(call, action, self._region, ACCOUNT)
        raise Refused("InvalidAction", f"the sandbox has no service {call.service or '(unnamed)'}")

    def _ask_moto(self, handler: Callable[..., Any], call: Call, action: str) -> Reply:
        if action not in get_service_model(call.service).operation_names:
            raise Refused("InvalidAction", f"The action {action} is not valid for this web service.")
        with self._ec2.lock:
            return _moto(handler, call, action)

    def _answer_s3(self, call: Call, caller: Caller) -> Reply:
        action = s3_action(call)
        if call.header("x-amz-expected-bucket-owner") not in {"", ACCOUNT}:
            raise Refused("AccessDenied", f"Access Denied: {action.bucket} is not the expected account's")
        context = s3_api.context(action, call)
        self._permit(caller, [(action.permission, arn) for arn in s3_api.resources(action, call)], context)
        s3_api.check_bucket_policy(action, call)
        fault = self._faults.strike(action.name, place=f"{action.bucket}/{action.key}")
        if fault is not None and fault.code != REPLY_LOST:
            raise Refused(fault.code, fault.message)
        plain = aws_chunked.unframe(call)
        check_upload(plain, action.name)
        with self._s3_lock:
            s3_api.check_pending_upload(action, plain)
            s3_api.check_copied_range(plain)
            reply = _moto(lambda request, *_: s3_api.dispatch(request, action), plain, action.name)
        if reply.status == 404 and action.key:
            self._hide_absence(caller, action, call)
        return reply if fault is None else error_reply(call, "InternalError", fault.message)

    def _hide_absence(self, caller: Caller, action: S3Action, call: Call) -> None:
        """As S3 does, tell nobody that a key is missing who may not list the bucket."""
        if action.name in {"GetObject", "HeadObject"}:
            self._permit(caller, [("s3:ListBucket", f"arn:aws:s3:::{action.bucket}")], s3_api.SECURE)

    def _permit(self, caller: Caller, wanted: list[tuple[str, str]], context: Mapping[str, str]) -> None:
        """Raise Refused unless the caller's role allows every wanted action on its resource."""
        if caller.role is None or wanted[0][0] == "sts:GetCallerIdentity":
            return
        role = self._credentials.iam.get_role(caller.role)
        inline = (json.loads(text) for text in role.policies.values())
        versions = (version for policy in role.managed_policies.values() for version in policy.versions)
        managed = (json.loads(version.document) for version in versions if version.is_default)
        documents = [*inline, *managed]
        for action, resource in wanted:
            if policies.evaluate(documents, action, resource, context) != "allow":
                code = "UnauthorizedOperation" if action.startswith("ec2:") else "AccessDenied"
                raise Refused(code, f"the role {caller.role} is not allowed to perform {action} on {resource}")

    def _zone(self, call: Call, action: str) -> str | None:
        """Return the zone a launch is for, where it names one by itself or by its subnet."""
        if action != "RunInstances":
            return None
        form = call.form
        subnet = form.get("SubnetId") or form.get("NetworkInterface.1.SubnetId")
        if subnet is None:
            return form.get("Placement.AvailabilityZone")
        zones = {item.id: item.availability_zone for item in self._ec2.get_default_subnets().values()}
        return zones.get(subnet)

    def _is_replay(self, call: Call, action: str) -> bool:
        return action == "RunInstances" and call.form.get("ClientToken", "") in self._ec2.launches


def operation(call: Call) -> str:
    """Return the name of the operation of any service but S3. Raises Refused when the call names none."""
    action = call.header("x-amz-target").rpartition(".")[2] or call.form.get("Action", "")
    if not action:
        raise Refused("MissingAction", f"the request names no operation of {call.service or 'any service'}")
    return action


def _moto(handler: Callable[..., Any], call: Call, action: str) -> Reply:
    """Return moto's answer; what it has not implemented becomes an error with a code, as clients can read."""
    request = _WsgiRequest(to_environ(call))
    try:
        status, headers, body = handler(request, request.raw_url, request.headers)
    except NotImplementedError:
        raise Refused("UnsupportedOperation", f"the sandbox's {call.service} has no {action}, or not so") from None
    except ServiceException as error:
        return error_reply(call, error.code, error.message)
    except HTTPException as error:
        return Reply(error.code or 500, dict(error.get_headers()), error.get_body())
    kind = "application/x-amz-json-1.1" if call.service in JSON_SERVICES else "text/xml;charset=UTF-8"
    headers = {"content-type": kind} | {str(name).lower(): str(value) for name, value in headers.items()}
    return Reply(int(status), headers, body.encode() if isinstance(body, str) else body)
