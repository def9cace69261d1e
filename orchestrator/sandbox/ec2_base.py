"""What the sandbox's EC2 operations share: typed access to the backend, filters, and replies in EC2's XML.

DescribeInstances of a gang is asked for again and again by every scheduler; moto's own serializer takes a hundred
milliseconds for it, which this plain one does not.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any
from xml.sax.saxutils import escape

from moto.ec2.responses import EC2Response

from orchestrator.sandbox.ec2_backend import SandboxEC2Backend
from orchestrator.sandbox.wire import Refused

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
Filters = Mapping[str, Iterable[str]]


class EC2Operations(EC2Response):
    """Base of the classes that hold the sandbox's own EC2 operations."""

    @property
    def world(self) -> SandboxEC2Backend:
        """The backend, by its real type."""
        backend = self.ec2_backend
        assert isinstance(backend, SandboxEC2Backend)  # noqa: S101 - the sandbox serves one region, and it is this one
        return backend

    def param(self, name: str, default: Any = None) -> Any:
        """Return a request parameter by its API name, dots for members."""
        return self._get_param(name, default)

    def flag(self, name: str) -> bool:
        """Return a boolean parameter, false if absent."""
        return str(self._get_param(name, "")).lower() == "true"

    def filters(self) -> dict[str, list[str]]:
        """Return the request's filters."""
        return {name: list(values) for name, values in self._filters_from_querystring().items()}

    def page(self, items: list[Any], default: int) -> tuple[list[Any], str | None]:
        """Return the page of `items` that MaxResults and NextToken ask for, and the next token."""
        start, size = int(self.param("NextToken") or 0), int(self.param("MaxResults") or default)
        return items[start : start + size], str(start + size) if start + size < len(items) else None

    def reply(self, action: str, body: Mapping[str, Any]) -> str:
        """Return the XML of a reply; see `to_xml` for the form of `body`."""
        request_id = secrets.token_hex(16)
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="{NAMESPACE}">'
            f"<requestId>{request_id}</requestId>{to_xml(body)}</{action}Response>"
        )

    def tag_rows(self, resource_id: str) -> list[dict[str, str]]:
        """Return the tags of a resource as API rows."""
        return [{"key": k, "value": v} for k, v in self.world.tags.get(resource_id, {}).items()]

    def tag_matches(self, resource_id: str, name: str, values: Iterable[str]) -> bool | None:
        """Tell whether a tag filter holds, or None where `name` is no tag filter."""
        tags = self.world.tags.get(resource_id, {})
        if name.startswith("tag:"):
            return name[4:] in tags and matches(tags[name[4:]], values)
        if name == "tag-key":
            return any(matches(key, values) for key in tags)
        return any(matches(value, values) for value in tags.values()) if name == "tag-value" else None


def matches(value: str | None, patterns: Iterable[str]) -> bool:
    """Tell whether `value` fits one of a filter's values (`*` and `?` are wildcards)."""
    return value is not None and any(value == p or fnmatchcase(value, p.replace("[", "[[]")) for p in patterns)


def unknown_filter(name: str) -> Refused:
    """Return EC2's refusal of a filter it does not have."""
    return Refused("InvalidParameterValue", f"The filter '{name}' is invalid")


def to_xml(value: Any) -> str:
    """Return EC2's XML for plain values.

    Mappings become elements, lists `<item>`s, booleans `true` and `false`; None and empty mappings are left out.
    """
    if isinstance(value, Mapping):
        return "".join(f"<{k}>{to_xml(v)}</{k}>" for k, v in value.items() if v is not None and v != {})
    if isinstance(value, list):
        return "".join(f"<item>{to_xml(item)}</item>" for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return escape(str(value))
