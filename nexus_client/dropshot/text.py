"""Scalars that JSON itself does not know: texts checked and made canonical (DS 2, SA 1.5).

Each class is a `str` (or `int`) with a `parse` that raises `ValueError` or `TypeError`; `scalar_hook` is the
`dec_hook` of every decoder, so msgspec reports the JSON path of the failing field. Two equal values have equal texts.

Read next: dropshot/listen.py, sim_sled/http/bodies_network.py.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final, Protocol, Self, cast
from uuid import UUID

import msgspec

U8 = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)]
U16 = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Vni = U32
"""A Geneve virtual network identifier has 24 bits; the original's type takes any 32 (DS 2)."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_ANY_CASE = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_UUID_SIMPLE = re.compile(r"[0-9a-fA-F]{32}")
_NAME = re.compile(r"[a-z]([a-zA-Z0-9-]*[a-zA-Z0-9])?")
_HOST_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?")
_MAC = re.compile(r"(?:[0-9a-fA-F]{0,2}:){5}[0-9a-fA-F]{0,2}|(?:[0-9a-fA-F]{2}-){5}[0-9a-fA-F]{2}")
_PORT = re.compile(r"[0-9]{1,5}")
_ICMP = re.compile(r"[0-9]{1,3}")
_PREFIX = re.compile(r"\+?0*([0-9]{1,3})", re.ASCII)
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)
_SOCK_V4 = re.compile(r"(?P<host>[0-9.]+):0*(?P<port>[0-9]{1,5})", re.ASCII)
_SOCK_V6 = re.compile(r"\[(?P<host>[0-9a-fA-F:.]+)(?:%0*(?P<zone>[0-9]{1,10}))?\]:0*(?P<port>[0-9]{1,5})", re.ASCII)
_TIME = re.compile(
    r"\s*(?P<year>[+-]?[0-9]+)\s*-\s*(?P<month>[0-9]{1,2})\s*-\s*(?P<day>[0-9]{1,2})(?:\s*[Tt]\s*|\s+)"
    r"(?P<hour>[0-9]{1,2})\s*:\s*(?P<minute>[0-9]{1,2})\s*:\s*(?P<second>[0-9]{1,2})(?:\.(?P<fraction>[0-9]+))?\s*"
    r"(?:[Zz]|[Uu][Tt][Cc]|(?P<sign>[+\u2212-])(?P<off_hour>[0-9]{2})\s*:?\s*(?P<off_minute>[0-9]{2}))\s*",
    re.ASCII,
)

_NAME_MAX: Final = 63
_HOSTNAME_MAX: Final = 253
_PORT_MAX: Final = 2**16 - 1
_ZONE_MAX: Final = 2**32 - 1
_YEARS: Final = range(1, 10_000)
"""What RFC 3339 and Python can tell (year 0 is only the former's)."""


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


def _ipv4_text(text: str) -> str:
    """What is one is canonical: an object of the library's, ten times as dear, is made to say what is wrong."""
    return text if _IPV4.fullmatch(text) else str(ipv4(text))


def _ipv6_text(address: IPv6Address) -> str:
    mapped = address.ipv4_mapped
    return str(address) if mapped is None else f"::ffff:{mapped}"


def ip_text(text: str) -> str:
    """Canonical text of an address of either family. Raises `ValueError`."""
    return _ipv6_text(ipv6(text)) if ":" in text else _ipv4_text(text)


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
        bare = text
        if text.startswith("urn:uuid:"):
            bare = text[9:]
        elif text.startswith("{") and text.endswith("}"):
            bare = text[1:-1]
        # without hyphens only when nothing stands around it (DS 2)
        if _UUID_ANY_CASE.fullmatch(bare) or _UUID_SIMPLE.fullmatch(text):
            return str(UUID(bare))
        raise ValueError("UUID parsing failed")

    @property
    def uuid(self) -> UUID:
        return UUID(self)


class Ipv4(Scalar):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        return _ipv4_text(text)


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
        digits = _PREFIX.fullmatch(prefix)
        if not slash or digits is None:
            raise ValueError("invalid network: it needs an address, `/` and a prefix length")
        width = int(digits[1])
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
    """`1.2.3.4:5`, `[::1]:5` or `[fe80::1%7]:5`: a zone is a number, as host names are none (DS 2)."""

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        return str(SocketAddress.parse(text))


class SocketAddress(msgspec.Struct, frozen=True):
    """An address that can be bound or connected to. `host` is canonical text, as `parse` and the system write it: it
    has no brackets, but its zone if it is not 0.
    """

    host: str
    port: int

    @classmethod
    @lru_cache(maxsize=256)  # of a fleet each sled is told the same address to listen on
    def parse(cls, text: str) -> SocketAddress:
        """As Rust's `SocketAddr` reads it; names are not resolved. Raises `ValueError`."""
        match = _SOCK_V6.fullmatch(text) or _SOCK_V4.fullmatch(text)
        if match is None or int(match["port"]) > _PORT_MAX:
            raise ValueError("invalid socket address syntax")
        port = int(match["port"])
        if match.re is _SOCK_V4:
            return cls(_ipv4_text(match["host"]), port)
        host = _ipv6_text(ipv6(match["host"]))
        zone = int(match["zone"] or 0)
        if zone > _ZONE_MAX:
            raise ValueError("invalid socket address syntax")
        return cls(f"{host}%{zone}" if zone else host, port)

    @classmethod
    def typed(cls, text: str) -> SocketAddress:
        """As `parse`, with a sentence for the person who wrote it. Raises `ValueError`."""
        try:
            return cls.parse(text)
        except ValueError:
            raise ValueError(f"{text!r} is no address; write [::1]:12221 or 127.0.0.1:12221") from None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody else can reach it. `::ffff:127.0.0.1` is 127.0.0.1 to the system, and so it is here."""
        # by its canonical text, for each VMM of a worker asks: the library's object takes seven times as long
        if ":" in self.host:
            return self.host.partition("%")[0] == "::1" or self.host.startswith("::ffff:127.")
        return self.host.startswith("127.")


def peer_address(text: str) -> str:
    """Of whoever is connected to: an address, or a name with a port (`nexus:12221` of a compose file), or either as
    a URL (`http://nexus:12221`). A name is resolved at each connect: it may lead elsewhere after a restart. Raises
    `ValueError` with a sentence.
    """
    scheme, found, rest = text.partition("://")
    if found and scheme.lower() != "http":
        raise ValueError(f"{text!r}: this is spoken to by http, not by {scheme}")
    plain = rest.removesuffix("/") if found else text
    try:
        address = SocketAddress.parse(plain)
    except ValueError:
        name, _, port = plain.rpartition(":")
        numbered = port.isascii() and port.isdigit() and len(port) <= len(str(_PORT_MAX)) and int(port) <= _PORT_MAX
        labels = name.removesuffix(".").split(".")
        dotted = labels[-1].isdigit()  # an IPv4 address that is none
        named = len(name) <= _HOSTNAME_MAX and not dotted and all(map(_HOST_LABEL.fullmatch, labels))
        if not (numbered and named):
            what = f"{text!r} is no address: write [::1]:12221, nexus:12221 or http://nexus:12221"
            raise ValueError(what) from None
        plain, number = f"{name.lower()}:{int(port)}", int(port)
    else:
        plain, number = str(address), address.port
    if number == 0:
        raise ValueError(f"nobody listens on port 0 of {text!r}")
    return plain


def shown(text: str) -> str:
    r"""Foreign text as one line for a terminal or a log: what would move its cursor, colour it or break the line is
    spelled out (`\x1b`, `\n`), also what only reorders letters.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode() for each in text
    )


def shown_lines(text: str) -> str:
    """Our own lines with foreign text in them: line breaks stay, nothing else does that is no letter."""
    return "\n".join(map(shown, text.split("\n")))


def canonical_address(text: str) -> str:
    """One text for each socket address; what is none stays as it is."""
    try:
        return str(SocketAddress.parse(text))
    except ValueError:
        return text


class Mac(Scalar):
    """Six octets with colons, where a missing digit counts as zero, or with dashes (DS 2). Canonical: upper case, two
    digits each, colons.
    """

    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if not _MAC.fullmatch(text):
            raise ValueError(f"invalid MAC address: {text!r}")
        return ":".join(octet.rjust(2, "0") for octet in text.replace("-", ":").split(":")).upper()


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
    """The same instant in UTC, or the nearest that can be told."""
    if when.tzinfo is UTC:
        return when
    try:
        return when.astimezone(UTC)
    except OverflowError:
        return _FIRST if when.year == _YEARS.start else _LAST


def time(text: str) -> datetime:
    """The instant that `text` tells, in UTC, as chrono reads it (DS 2). Raises `ValueError`.

    Digits beyond microseconds are cut, not rounded. A leap second is the second after it. What lies outside of the
    years 1 to 9999 becomes the nearest instant within.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("input contains invalid characters")
    digits = match["year"]
    if len(digits.lstrip("+-").lstrip("0")) > _YEAR_DIGITS_MAX:
        raise ValueError("input is out of range")
    year, leap = int(digits), match["second"] == "60"
    within = min(max(year, _YEARS.start), _YEARS.stop - 1)
    offset = timedelta(hours=int(match["off_hour"] or 0), minutes=int(match["off_minute"] or 0))
    if offset >= timedelta(days=1) or int(match["off_minute"] or 0) > 59:
        raise ValueError("input is out of range")
    try:
        local = datetime(
            # a leap day outside of the years must be one: the calendar repeats after 400
            year if year in _YEARS else 2000 + year % 400,
            int(match["month"]),
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            59 if leap else int(match["second"]),
            int((match["fraction"] or "0")[:6].ljust(6, "0")),
            tzinfo=UTC,
        )
    except ValueError:
        raise ValueError("input is out of range") from None
    if within != year:
        return _FIRST if year < within else _LAST
    try:
        return local + timedelta(seconds=leap) + (offset if match["sign"] in {"-", "\u2212"} else -offset)
    except OverflowError:
        return _LAST if year == _YEARS.stop - 1 else _FIRST


_YEAR_DIGITS_MAX: Final = 6
"""chrono knows the years up to 262,143."""
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class _Parsed(Protocol):
    @classmethod
    def parse(cls, raw: object) -> object: ...


def scalar_hook(kind: type, raw: object) -> Any:
    """The `dec_hook` of every decoder: `kind` is one of the classes above."""
    return cast("type[_Parsed]", kind).parse(raw)  # msgspec hands over only classes that it does not know itself


def counted(count: int, what: str) -> str:
    """`1 sled`, `2 sleds`, `1,000 sleds`: for people."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
