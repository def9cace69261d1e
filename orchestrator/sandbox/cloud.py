"""The sandbox's cloud: one account, one region of EC2, S3, IAM, STS, SSM, Pricing and Service Quotas on loopback.

`SandboxCloud` puts the parts together, serves them over HTTP, and is what the host side asks of EC2 (`boundary.Cloud`).
It keeps everything in memory and, being moto, in globals of its process: one SandboxCloud a process at a time.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from moto.core.base_backend import BackendDict
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import Instance, InstanceState
from moto.ssm.models import Parameter, ssm_backends

from orchestrator.core.ids import TAG_RUN
from orchestrator.core.units import iso, usd
from orchestrator.errors import NotFound, OrchError
from orchestrator.sandbox import catalogue, control_api, s3_api
from orchestrator.sandbox.boundary import Hosts
from orchestrator.sandbox.credentials import ACCESS_KEY, ACCOUNT, Credentials
from orchestrator.sandbox.disturbances import NEXT
from orchestrator.sandbox.ec2_backend import Machine, SandboxEC2Backend
from orchestrator.sandbox.faults import Faults
from orchestrator.sandbox.http_server import Server
from orchestrator.sandbox.instance_connect_api import KEY_SECONDS, InstanceConnect
from orchestrator.sandbox.lifecycle import Lifecycle
from orchestrator.sandbox.meter import Life, PriceAt, Reading, read_meter
from orchestrator.sandbox.price_list import ON_DEMAND
from orchestrator.sandbox.prices import SpotMarket
from orchestrator.sandbox.quotas_api import Quotas
from orchestrator.sandbox.services import Services
from orchestrator.sandbox.wire import Call, Environ, Refused, Reply, StartResponse, error_reply, read_call, send

_log = logging.getLogger(__name__)
_TAKEABLE = frozenset({"pending", "running"})


class SandboxCloud:
    """A cloud in this process. `app` is the WSGI application; `serve` puts it on a port; `close` ends it all."""

    def __init__(
        self,
        region: str,
        seed: int,
        pending_seconds: float,
        shutting_down_seconds: float,
        hosts: Hosts,
        *,
        token: str = "",
        access_key: str = ACCESS_KEY,
        secret_key: str | None = None,
        key_seconds: float = KEY_SECONDS,
    ) -> None:
        """Make an empty account.

        `hosts` boots and halts the machines. `token` opens `/_orch/` ("" closes it to all). `secret_key` is drawn
        unless given; `key_seconds` is how long a pushed SSH key is taken. Whatever another SandboxCloud of this process
        held is gone.
        """
        BackendDict.reset()
        catalogue.install()
        s3_api.install()
        self.region, self.access_key = region, access_key
        self.secret_key = secret_key or secrets.token_hex(20)
        self._seed, self._token, self._hosts = seed, token, hosts
        self._faults, self._quotas = Faults(), Quotas()
        self._credentials = Credentials(region, access_key, self.secret_key)
        self._ec2 = ec2 = SandboxEC2Backend(region, ACCOUNT)
        ec2_backends[ACCOUNT][region] = ec2
        self._lifecycle = Lifecycle(
            hosts,
            ec2.lock,
            pending_seconds=pending_seconds,
            shutting_down_seconds=shutting_down_seconds,
            on_end=self._ended,
        )
        ec2.join(self._lifecycle, SpotMarket(seed, ON_DEMAND, datetime.now(UTC)), self._quotas)
        connect = InstanceConnect(hosts, self._state_of, self._lifecycle.after, key_seconds)
        self._services = Services(region, ec2, self._credentials, self._quotas, self._faults, connect)
        self._server: Server | None = None
        self._publish_image()

    def _publish_image(self) -> None:
        """Put the image's id under its public name, where SSM lets no client write."""
        name = catalogue.SANDBOX_AMI_PARAMETER
        parameter = Parameter(  # type: ignore[abstract]
            ACCOUNT, name, catalogue.SANDBOX_AMI, "String", None, None, None, utcnow(), 1, data_type="aws:ec2:image"
        )  # fmt: skip
        ssm_backends[ACCOUNT][self.region]._parameters[name].append(parameter)

    # Serving.

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Serve on a loopback address from a thread of its own; return host and port. Raises BadInput, OSError."""
        self._server = Server(self.app, host, port)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="sandbox-http", daemon=True).start()
        return host, self._server.port

    def close(self) -> None:
        """Stop serving and changing states. Hosts are not touched."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self._lifecycle.close()

    def app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request: AWS's, or one of `control_api`."""
        call = read_call(environ)
        if call.path.startswith(control_api.PREFIX):
            return send(control_api.answer(self, self._token, call), start_response)
        if self._hosts.swallows(int(environ.get("REMOTE_PORT") or 0)):
            # Lost on the way: it takes no effect, and the connection ends without a word.
            raise ConnectionResetError("the host is cut off")
        return send(self._answer(call), start_response)

    def _answer(self, call: Call) -> Reply:
        try:
            caller, claim = self._credentials.authenticate(call, datetime.now(UTC))
            call = replace(call, service=claim.service, region=claim.region, access_key=claim.access_key)
            return self._services.answer(call, caller)
        except Refused as refusal:
            return error_reply(_with_service(call), refusal.code, refusal.message)
        except Exception as error:
            _log.exception("the sandbox failed at %s %s", call.method, call.raw_path)
            return error_reply(_with_service(call), "InternalError", f"the sandbox itself failed: {error!r}")

    # What the host side asks (boundary.Cloud).

    def shut_down_by_host(self, instance_id: str) -> None:
        """Terminate or stop an instance whose host ran `shutdown`, by its shutdown behaviour. Raises NotFound."""
        machine = self._machine(instance_id)
        behavior = machine.instance.instance_initiated_shutdown_behavior
        # A spot instance of a one-time request cannot be stopped: it ends.
        if behavior == "stop" and machine.spot_request is None:
            self._lifecycle.stop(machine.instance, "host")
        else:
            machine.spot_status = "instance-terminated-by-user"
            self._lifecycle.end(machine.instance, "host")

    def role_credentials(self, role_name: str) -> dict[str, str]:
        """Return AccessKeyId, SecretAccessKey, Token, Expiration (ISO-8601) for a role. Raises NotFound."""
        with self._ec2.lock:
            return self._credentials.for_role(role_name)

    # What people and tests ask.

    def interrupt(self, instance_id: str, notice_seconds: float = 120.0) -> str:
        """Give a spot instance notice and take it when that is over; return the announced time (ISO-8601).

        Raises NotFound, and OrchError for an instance that is on-demand, or not running.
        """
        machine = self._spot(instance_id)
        end = _stamp(notice_seconds)
        machine.spot_status = "marked-for-termination"
        self._hosts.announce_interruption(instance_id, end)
        self._lifecycle.after(notice_seconds, partial(self._take, machine))
        return end

    def rebalance(self, instance_id: str) -> str:
        """Advise to leave a spot instance, as EC2 does when it is likely to be taken; return the time (ISO-8601).

        Whether it is taken is another matter. Raises as `interrupt`.
        """
        self._spot(instance_id)
        now = _stamp()
        self._hosts.announce_rebalance(instance_id, now)
        return now

    def disturb(self, instance_id: str, kind: str, seconds: float | None = None) -> None:
        """Do something to a host of which EC2 knows nothing, and undo it after `seconds`. See `disturbances`.

        `next` in place of an instance is the next one that boots, which can only be slow, for good. Raises NotFound,
        BadInput, OrchError (not running, or its host is not up).
        """
        if instance_id == NEXT:
            self._hosts.disturb(instance_id, kind)
            return
        self._takeable(instance_id, frozenset({"running"}))
        self._hosts.disturb(instance_id, kind)
        if seconds is not None:
            self._lifecycle.after(seconds, partial(self._hosts.heal, instance_id, kind))

    def heal(self, instance_id: str, kind: str) -> None:
        """Undo a disturbance now. Raises NotFound, BadInput, OrchError."""
        self._machine(instance_id)
        self._hosts.heal(instance_id, kind)

    def kill(self, instance_id: str) -> None:
        """Take an instance without notice, as EC2 takes it. Raises NotFound, and OrchError for one that has ended."""
        self._take(self._takeable(instance_id, _TAKEABLE))

    def add_fault(self, action: str, code: str, count: int = 1, zone: str | None = None) -> None:
        """Make the next `count` calls of `action` fail with `code`; launches in `zone` only, if given. See `faults`."""
        self._faults.add(action, code, count, zone)

    def clear_faults(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def set_quota(self, code: str, value: float) -> None:
        """Change a quota (vCPUs). Raises KeyError for a code that is none."""
        self._quotas.set(code, value)

    def status(self) -> dict[str, Any]:
        """Return the cloud's state as plain JSON values (`control_api` gives the form)."""
        with self._ec2.lock:
            machines = [
                _summary(machine) | {"end_time": _iso(self._lifecycle.ended(machine.instance))}
                for machine in self._ec2.machines.values()
            ]
        for item in machines:
            item["disturbances"] = list(self._hosts.disturbances(item["instance_id"]))
        return {
            "region": self.region,
            "account": ACCOUNT,
            "seed": self._seed,
            "faults": self._faults.pending(),
            "quotas": self._quotas.all(),
            "instances": machines,
        }

    def meter(self, run: str | None = None) -> dict[str, Any]:
        """Return what each machine (of `run`, an id, if given) has cost by the sandbox's own count (`meter`)."""
        now = datetime.now(UTC)
        with self._ec2.lock:
            lives = [replace(life) for life in self._lifecycle.lives]
            runs = {life.instance_id: self._ec2.tags.get(life.instance_id, {}).get(TAG_RUN, "") for life in lives}
        lives = [life for life in lives if run is None or runs[life.instance_id] == run]
        readings = [read_meter(life, self._feed(life), now) for life in lives]
        rows = [_metered(life, reading, runs[life.instance_id]) for life, reading in zip(lives, readings, strict=True)]
        return {"time": iso(now), "usd": usd(sum(reading.usd for reading in readings)), "instances": rows}

    def _feed(self, life: Life) -> PriceAt:
        if not life.spot:
            return lambda moment: ON_DEMAND[life.instance_type]
        return partial(self._ec2.market.price, life.instance_type, life.zone)

    def _take(self, machine: Machine) -> None:
        if machine.instance.state in _TAKEABLE:
            machine.spot_status = "instance-terminated-no-capacity"
            self._lifecycle.end(machine.instance, "spot" if machine.spot_request else "error")

    def _takeable(self, instance_id: str, states: frozenset[str]) -> Machine:
        machine = self._machine(instance_id)
        if machine.instance.state not in states:
            wanted = " or ".join(sorted(states))
            raise OrchError(f"{instance_id} is {machine.instance.state}", f"it can be taken while {wanted}")
        return machine

    def _spot(self, instance_id: str) -> Machine:
        machine = self._takeable(instance_id, frozenset({"running"}))
        if machine.spot_request is None:
            raise OrchError(f"{instance_id} is on-demand; EC2 interrupts spot instances only", "use `kill`")
        return machine

    def _machine(self, instance_id: str) -> Machine:
        with self._ec2.lock:
            machine = self._ec2.machines.get(instance_id)
        if machine is None:
            raise NotFound(f"the sandbox has no instance {instance_id}", "`orch sandbox status` lists them")
        return machine

    def _state_of(self, instance_id: str) -> str | None:
        with self._ec2.lock:
            machine = self._ec2.machines.get(instance_id)
        return None if machine is None else str(machine.instance.state)

    def _ended(self, instance: Instance, state: InstanceState) -> None:
        self._ec2.release(instance, state)


def _summary(machine: Machine) -> dict[str, Any]:
    item = machine.instance
    return {
        "instance_id": item.id,
        "state": item.state,
        "address": item.private_ip if machine.alive else None,
        "instance_type": item.instance_type,
        "zone": item.placement.zone,
        "lifecycle": "spot" if machine.spot_request else "on-demand",
        "launch_time": _iso(item.launch_time),
    }


def _metered(life: Life, reading: Reading, run: str) -> dict[str, Any]:
    return {
        "instance_id": life.instance_id,
        "instance_type": life.instance_type,
        "zone": life.zone,
        "lifecycle": "spot" if life.spot else "on-demand",
        "run": run,
        "launched": iso(life.launched),
        "ran": iso(life.ran) if life.ran else None,
        "ended": iso(life.ended) if life.ended else None,
        "taken": life.taken,
        "seconds": reading.seconds,
        "usd": usd(reading.usd),
    }


def _stamp(seconds: float = 0.0) -> str:
    """Return the time in so many seconds, as EC2 writes it."""
    return str(_iso(datetime.now(UTC) + timedelta(seconds=seconds)))


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _with_service(call: Call) -> Call:
    """Return `call` with the service it claims to be for, so that a refusal has the form its client can read."""
    if call.service:
        return call
    scope = call.header("authorization").partition("Credential=")[2].partition(",")[0].split("/")
    service = scope[3] if len(scope) == 5 else ""
    return replace(call, service=service)
