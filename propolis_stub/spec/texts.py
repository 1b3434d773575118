"""Texts that a specification is made of: checked, and brought to their one form, while they are read (DS 2).

Read next: types.py.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final, Self
from uuid import UUID

_UUID: Final = re.compile(
    r"(?:urn:uuid:)?[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    r"|\{[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\}|[0-9a-fA-F]{32}"
)
_SOCKET_V4: Final = re.compile(r"(?P<host>[0-9.]+):0*(?P<port>[0-9]{1,5})")
_SOCKET_V6: Final = re.compile(r"\[(?P<host>[0-9a-fA-F:.]+)(?:%0*(?P<zone>[0-9]{1,10}))?\]:0*(?P<port>[0-9]{1,5})")


class Uuid(UUID):
    """A UUID as serde reads one: hyphenated, 32 digits, `{hyphenated}` or `urn:uuid:hyphenated`, in any case."""

    @classmethod
    def parse(cls, raw: object) -> Self:
        """Raises `ValueError` or `TypeError`."""
        if not isinstance(raw, str):
            raise TypeError(f"Expected `str`, got `{type(raw).__name__}`")
        if not _UUID.fullmatch(raw):
            raise ValueError(f"UUID parsing failed: {raw[:100]!r}")
        return cls(raw)


def spec_key(text: str) -> str:
    """The canonical form of a component key (PR 4.2): UUIDs in lower case with hyphens, names as they are."""
    return str(UUID(text)) if _UUID.fullmatch(text) else text


def socket_address(text: str) -> str:
    """`1.2.3.4:5` or `[::1%6]:5` in its one form: a zone is a number of 32 bits, the port may have zeros before it.

    Raises `ValueError` for whatever Rust's `SocketAddr` does not read: names of hosts and of zones, larger numbers.
    """
    match = _SOCKET_V6.fullmatch(text)
    if match is not None:
        zone = int(match["zone"] or 0)
        host = f"[{IPv6Address(match['host'])}{f'%{zone}' if zone else ''}]"
    else:
        match, zone = _SOCKET_V4.fullmatch(text), 0
        if match is None:
            raise ValueError("invalid socket address syntax")
        host = str(IPv4Address(match["host"]))
    if int(match["port"]) >= 2**16 or zone >= 2**32:
        raise ValueError("invalid socket address syntax")
    return f"{host}:{int(match['port'])}"


def hook(kind: Any, raw: object) -> object:
    """The `dec_hook` of every decoder of this package: `kind` is a class with a `parse`."""
    return kind.parse(raw)
