"""User-data as cloud-init reads it, as far as the sandbox goes: what runs at the first boot, what at every one.

Pure. Knows plain scripts and MIME multiparts of scripts; may not run anything.
"""

from __future__ import annotations

import email
from dataclasses import dataclass

EVERY_BOOT = "text/x-shellscript-per-boot"
FIRST_BOOT = "text/x-shellscript"


@dataclass(frozen=True, slots=True)
class Scripts:
    """The scripts of user-data, in their order. `passed_over` says for each part that is none what it is."""

    every_boot: tuple[bytes, ...] = ()
    first_boot: tuple[bytes, ...] = ()
    passed_over: tuple[str, ...] = ()


def scripts_of(user_data: bytes) -> Scripts:
    """Return the scripts of `user_data`. Like cloud-init it takes for a multipart what says so near its beginning."""
    if user_data.startswith(b"#!"):
        return Scripts(first_boot=(user_data,))
    if b"mime-version:" not in user_data[:4096].lower():
        return Scripts(passed_over=("no script (it does not begin with #!)",) if user_data else ())
    found: dict[str, list[bytes]] = {EVERY_BOOT: [], FIRST_BOOT: []}
    others = []
    for part in email.message_from_bytes(user_data).walk():
        kind, content = part.get_content_type(), part.get_payload(decode=True)
        if kind in found and isinstance(content, bytes):
            found[kind].append(content)
        elif not part.is_multipart():
            others.append(f"a part of type {kind}")
    return Scripts(tuple(found[EVERY_BOOT]), tuple(found[FIRST_BOOT]), tuple(others))
