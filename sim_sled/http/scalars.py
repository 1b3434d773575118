"""Scalars of the Sled Agent API that JSON itself does not know: texts checked and made canonical while decoding.

Each class is a `str` (or `int`) with a `parse` that raises `ValueError` or `TypeError`; `scalar_hook` is the
`dec_hook` of every decoder, so msgspec reports the JSON path of the failing field. Two equal values have equal texts.

Read next: http/bodies_network.py, http/json.py.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Protocol, Self, cast
from uuid import UUID

import msgspec

U8 = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Vni = Annotated[int, msgspec.Meta(ge=0, le=2**24 - 1)]
"""A Geneve virtual network identifier has 24 bits."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_ANY_CASE = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UUID_SIMPLE = re.compile(r"[0-9a-fA-F]{32}")
_NAME = re.compile(r"[a-z]([a-zA-Z0-9-]*[a-zA-Z0-9])?")
_HOST_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?")
_MAC = re.compile(r"(?:[0-9a-fA-F]{0,2}:){5}[0-9a-fA-F]{0,2}")
_PORT = re.compile(r"[0-9]{1,5}")
_ICMP = re.compile(r"[0-9]{1,3}")
_PREFIX = re.compile(r"[0-9]{1,3}")
_SOCK_V4 = re.compile(r"([0-9.]+):([0-9]+)")
_SOCK_V6 = re.compile(r"\[([0-9a-fA-F:.]+)(?:%[0-9]+)?\]:([0-9]+)")

_NAME_MAX: Final = 63
_HOSTNAME_MAX: Final = 253
_PORT_MAX: Final = 2**16 - 1


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise TypeError(f"Expected `str`, got `{_json_type(raw)}`")
    return raw


def _json_type(raw: object) -> str:
    match raw:
        case None:
            return "null"
        case bool():
            return "bool"
        case dict():
            return "object"
        case list() | tuple():
            return "array"
        case _:
            return type(raw).__name__


def ipv4(text: str) -> IPv4Address:
    """Four decimal octets without leading zeros. Raises `ValueError`."""
    return IPv4Address(text)


def ipv6(text: str) -> IPv6Address:
    """An address without zone. Raises `ValueError`."""
    if "%" in text:
        raise ValueError(f"invalid IPv6 address syntax: {text!r}")
    return IPv6Address(text)


def _ipv6_text(address: IPv6Address) -> str:
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else f"::ffff:{mapped}"


def ip_text(text: str) -> str:
    """Canonical text of an address of either family. Raises `ValueError`."""
    return _ipv6_text(ipv6(text)) if ":" in text else str(ipv4(text))


class U64(int):
    """msgspec cannot bound an integer above 2^63-1, so this does."""

    @classmethod
    def parse(cls, raw: object) -> Self:
        if type(raw) is not int:
            raise TypeError(f"Expected `int`, got `{_json_type(raw)}`")
        if not 0 <= raw < 2**64:
            raise ValueError("Expected `int` between 0 and 2^64-1")
        return cls(raw)


class Scalar(str):
    """Base of the text scalars."""

    __slots__ = ()

    @classmethod
    def parse(cls, raw: object) -> Self:
        return str.__new__(cls, cls.canonical(_text(raw)))

    @classmethod
    @abstractmethod
    def canonical(cls, text: str) -> str:
        """The one text of the value that `text` means. Raises `ValueError` if it means none."""


class Uuid(Scalar):
    """Hyphenated lower case; read also upper case, without hyphens, in braces, as URN (SA 1.5)."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if _UUID.fullmatch(text):
            return text
        if text.startswith("urn:uuid:"):
            text = text[9:]
        elif text.startswith("{") and text.endswith("}"):
            text = text[1:-1]
        if _UUID_ANY_CASE.fullmatch(text) or _UUID_SIMPLE.fullmatch(text):
            return str(UUID(text))
        raise ValueError("UUID parsing failed")

    @property
    def uuid(self) -> UUID:
        return UUID(self)


class Ipv4(Scalar):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        return str(ipv4(text))


class Ipv6(Scalar):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        return _ipv6_text(ipv6(text))


class Ip(Scalar):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        return ip_text(text)


class IpNet(Scalar):
    """`address/prefix`; bits after the prefix are kept, as the original's type does."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        address, slash, prefix = text.partition("/")
        if not slash or not _PREFIX.fullmatch(prefix):
            raise ValueError(f"invalid network: {text!r} needs an address, `/` and a prefix length")
        width = int(prefix)
        if width > (128 if ":" in address else 32):
            raise ValueError(f"invalid network: prefix length {width} is too large")
        return f"{ip_text(address)}/{width}"

    @property
    def is_v6(self) -> bool:
        return ":" in self

    @property
    def width(self) -> int:
        return int(self.rpartition("/")[2])

    def contains(self, ip: str) -> bool:
        """Whether `ip`, of the same family, lies in this network."""
        net = self.rpartition("/")[0]
        if self.is_v6:
            shift = 128 - self.width
            return int(IPv6Address(ip)) >> shift == int(IPv6Address(net)) >> shift
        shift = 32 - self.width
        return int(IPv4Address(ip)) >> shift == int(IPv4Address(net)) >> shift


class Ipv4Net(IpNet):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if ":" in text:
            raise ValueError(f"invalid IPv4 network: {text!r}")
        return super().canonical(text)


class Ipv6Net(IpNet):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if ":" not in text:
            raise ValueError(f"invalid IPv6 network: {text!r}")
        return super().canonical(text)


class SockAddr(Scalar):
    """`1.2.3.4:5` or `[::1]:5`."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if match := _SOCK_V6.fullmatch(text):
            host = f"[{_ipv6_text(IPv6Address(match[1]))}]"
        elif match := _SOCK_V4.fullmatch(text):
            host = str(ipv4(match[1]))
        else:
            raise ValueError("invalid socket address syntax")
        # compared by length first: int() of a megabyte of digits is slow
        if len(match[2]) > 5 or int(match[2]) > _PORT_MAX:
            raise ValueError("invalid socket address syntax")
        return f"{host}:{int(match[2])}"


class Mac(Scalar):
    """Six octets; a missing digit counts as zero. Canonical: upper case, two digits each."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if not _MAC.fullmatch(text):
            raise ValueError(f"invalid MAC address: {text!r}")
        return ":".join(octet.rjust(2, "0") for octet in text.split(":")).upper()


class Name(Scalar):
    """A lower-case letter, then letters, digits and inner hyphens; not a UUID."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if len(text) > _NAME_MAX or not _NAME.fullmatch(text) or _UUID_ANY_CASE.fullmatch(text):
            raise ValueError("invalid name: 1 to 63 letters, digits and hyphens, the first a lower-case letter")
        return text


class Hostname(Scalar):
    """RFC 1035 labels of letters, digits and inner hyphens, joined by dots; 253 characters at most."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if len(text) > _HOSTNAME_MAX or not all(_HOST_LABEL.fullmatch(label) for label in text.split(".")):
            raise ValueError("invalid hostname")
        return text


def _range(text: str, part: re.Pattern[str], least: int, most: int, what: str) -> str:
    first, _, last = text.partition("-")
    ends = (first, last) if "-" in text else (first, first)
    if not all(part.fullmatch(end) and least <= int(end) <= most for end in ends) or int(ends[0]) > int(ends[1]):
        raise ValueError(f"invalid {what}: {text!r}")
    return text


class PortRange(Scalar):
    """`22` or `1024-2048`."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        return _range(text, _PORT, 1, _PORT_MAX, "port range")


class IcmpRange(Scalar):
    """`3` or `3-5`."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        return _range(text, _ICMP, 0, 2**8 - 1, "ICMP type or code range")


def utc(when: datetime) -> datetime:
    """The same instant in UTC. Raises `ValueError` if that is outside of the years that can be told."""
    if when.tzinfo is UTC:
        return when
    try:
        return when.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("time out of range") from error


class _Parsed(Protocol):
    @classmethod
    def parse(cls, raw: object) -> object: ...


def scalar_hook(kind: type, raw: object) -> Any:
    """The `dec_hook` of every decoder: `kind` is one of the classes above."""
    return cast("type[_Parsed]", kind).parse(raw)  # msgspec hands over only classes that it does not know itself
