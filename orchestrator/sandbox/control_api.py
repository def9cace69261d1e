"""The sandbox's own requests, beside AWS's on the same port: paths under `/_orch/`, with a token in `X-Orch-Token`.

Bodies and answers are JSON. A failure answers `{"error": "<one line>"}` with 403 (token), 404 (no such path, instance),
500 (a fault of the sandbox) or 400 (the rest).

    GET  /_orch/status     -> {"region", "account", "seed", "faults": [{"action", "code", "count", "zone"}],
                               "quotas": {code: vcpus}, "instances": [{"instance_id", "state", "address",
                               "instance_type", "zone", "lifecycle", "launch_time", "end_time",
                               "disturbances": [kind]}]}
    POST /_orch/meter      {"run": null}     -> {"time", "usd", "instances": [{"instance_id", "instance_type", "zone",
                               "lifecycle", "run", "launched", "ran", "ended", "taken", "seconds", "usd"}]}
    POST /_orch/interrupt  {"instance_id", "notice_seconds": 120.0}                     -> {"time": "<ISO-8601>"}
    POST /_orch/kill       {"instance_id"}                                              -> {}
    POST /_orch/rebalance  {"instance_id"}                                              -> {"time": "<ISO-8601>"}
    POST /_orch/disturb    {"instance_id", "kind", "seconds": null}                     -> {}
    POST /_orch/heal       {"instance_id", "kind"}                                      -> {}
    POST /_orch/fault      {"action", "code", "count": 1, "zone": null}                 -> {}
    POST /_orch/clear-faults  {}                                                        -> {}
    POST /_orch/quota      {"code", "value"}                                            -> {}
    POST /_orch/shutdown   {"instance_id"}   (the host ran `shutdown`)                  -> {}
    POST /_orch/credentials  {"role_name"}   -> {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
"""

from __future__ import annotations

import hmac
import json
import logging
from typing import Any, Protocol

from orchestrator.errors import NotFound, OrchError
from orchestrator.sandbox.wire import Call, Reply

_log = logging.getLogger(__name__)
PREFIX = "/_orch/"
TOKEN_HEADER = "X-Orch-Token"  # noqa: S105 - the name of a header


class Controlled(Protocol):
    """What can be asked of a cloud here; `SandboxCloud` is one."""

    def status(self) -> dict[str, Any]:
        """Return its state as JSON values."""

    def meter(self, run: str | None = None) -> dict[str, Any]:
        """Return what its machines have cost by its own count."""

    def interrupt(self, instance_id: str, notice_seconds: float = 120.0) -> str:
        """Announce the end of an instance and take it after the notice; return the announced time."""

    def kill(self, instance_id: str) -> None:
        """Take an instance without notice."""

    def rebalance(self, instance_id: str) -> str:
        """Advise to leave an instance; return the time of the advice."""

    def disturb(self, instance_id: str, kind: str, seconds: float | None = None) -> None:
        """Do something to a host, and undo it after so many seconds."""

    def heal(self, instance_id: str, kind: str) -> None:
        """Undo it now."""

    def add_fault(self, action: str, code: str, count: int = 1, zone: str | None = None) -> None:
        """Make the next calls of an action fail."""

    def clear_faults(self) -> None:
        """Forget all faults."""

    def set_quota(self, code: str, value: float) -> None:
        """Change a quota."""

    def shut_down_by_host(self, instance_id: str) -> None:
        """Act on a host's own shutdown."""

    def role_credentials(self, role_name: str) -> dict[str, str]:
        """Return credentials of a role."""


def answer(cloud: Controlled, token: str, call: Call) -> Reply:  # noqa: PLR0911 - one a kind of answer
    """Answer a request under `PREFIX`."""
    if not token or not hmac.compare_digest(call.header(TOKEN_HEADER.lower()).encode(), token.encode()):
        return _json(403, {"error": f"the header {TOKEN_HEADER} does not hold the sandbox's token"})
    try:
        asked = json.loads(call.body or b"{}")
        done = _do(cloud, call.method, call.path.removeprefix(PREFIX), asked)
    except NotFound as error:
        return _json(404, {"error": error.message})
    except OrchError as error:
        return _json(400, {"error": error.message})
    except KeyError as error:
        return _json(400, {"error": f"missing or unknown: {error.args[0]}"})
    except (TypeError, ValueError) as error:
        return _json(400, {"error": str(error)})
    except Exception as error:
        _log.exception("the sandbox failed at %s %s", call.method, call.path)
        return _json(500, {"error": f"the sandbox itself failed: {error!r}"})
    return _json(404, {"error": f"the sandbox has no {call.method} {call.path}"}) if done is None else _json(200, done)


def _do(cloud: Controlled, method: str, verb: str, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Carry out one request; None when there is no such one."""
    match (method, verb):
        case ("GET", "status"):
            return cloud.status()
        case ("POST", "meter"):
            return cloud.meter(asked.get("run"))
        case ("POST", "interrupt"):
            return {"time": cloud.interrupt(asked["instance_id"], float(asked.get("notice_seconds", 120.0)))}
        case ("POST", "rebalance"):
            return {"time": cloud.rebalance(asked["instance_id"])}
        case ("POST", "credentials"):
            return dict(cloud.role_credentials(asked["role_name"]))
    return {} if method == "POST" and _change(cloud, verb, asked) else None


def _change(cloud: Controlled, verb: str, asked: dict[str, Any]) -> bool:
    """Carry out a request that has nothing to answer; tell whether there is such one."""
    match verb:
        case "kill":
            cloud.kill(asked["instance_id"])
        case "disturb":
            seconds = asked.get("seconds")
            cloud.disturb(asked["instance_id"], asked["kind"], None if seconds is None else float(seconds))
        case "heal":
            cloud.heal(asked["instance_id"], asked["kind"])
        case "fault":
            cloud.add_fault(asked["action"], asked["code"], int(asked.get("count", 1)), asked.get("zone"))
        case "clear-faults":
            cloud.clear_faults()
        case "quota":
            cloud.set_quota(asked["code"], float(asked["value"]))
        case "shutdown":
            cloud.shut_down_by_host(asked["instance_id"])
        case _:
            return False
    return True


def _json(status: int, value: dict[str, Any]) -> Reply:
    return Reply(status, {"content-type": "application/json"}, json.dumps(value).encode())
