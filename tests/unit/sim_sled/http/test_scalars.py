"""Texts that JSON does not know: which are taken, and what they become (SA 1.5, 4.2)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_sled.http.json import BadJson, Json
from sim_sled.http.scalars import (
    U64,
    Hostname,
    IcmpRange,
    Ip,
    IpNet,
    Ipv4,
    Ipv4Net,
    Ipv6,
    Ipv6Net,
    Mac,
    Name,
    PortRange,
    SockAddr,
    Uuid,
)

CANONICAL = "d31bd461-9749-4a5c-8d40-887bf363708b"


@pytest.mark.parametrize(
    ("kind", "text", "canonical"),
    [
        (Uuid, CANONICAL, CANONICAL),
        (Uuid, CANONICAL.upper(), CANONICAL),
        (Uuid, CANONICAL.replace("-", ""), CANONICAL),
        (Uuid, "{" + CANONICAL + "}", CANONICAL),
        (Uuid, "urn:uuid:" + CANONICAL, CANONICAL),
        (Ip, "1.2.3.4", "1.2.3.4"),
        (Ip, "FD00:0::1", "fd00::1"),
        (Ip, "::ffff:1.2.3.4", "::ffff:1.2.3.4"),
        (Ipv4, "255.255.255.255", "255.255.255.255"),
        (Ipv6, "::", "::"),
        (IpNet, "10.0.0.0/24", "10.0.0.0/24"),
        (IpNet, "10.0.0.7/24", "10.0.0.7/24"),
        (IpNet, "FD00::/064", "fd00::/64"),
        (Ipv4Net, "0.0.0.0/0", "0.0.0.0/0"),
        (Ipv6Net, "::/0", "::/0"),
        (SockAddr, "[::1]:12345", "[::1]:12345"),
        (SockAddr, "1.2.3.4:5", "1.2.3.4:5"),
        (SockAddr, "[FD00::0:1]:0", "[fd00::1]:0"),
        (Mac, "A8:40:25:f3:48:81", "A8:40:25:F3:48:81"),
        (Mac, "a8:40:25:f:0:", "A8:40:25:0F:00:00"),
        (Name, "net0", "net0"),
        (Name, "a" * 63, "a" * 63),
        (Hostname, "web-01.EXAMPLE.com", "web-01.EXAMPLE.com"),
        (Hostname, "9", "9"),
        (PortRange, "22", "22"),
        (PortRange, "1-65535", "1-65535"),
        (IcmpRange, "0-255", "0-255"),
    ],
)
def test_good_texts(kind, text, canonical):
    decoded = Json(kind).decode(b'"' + text.encode() + b'"')
    assert decoded == canonical
    assert type(decoded) is kind


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Uuid, "web-01"),
        (Uuid, "1234"),
        (Uuid, CANONICAL + "0"),
        (Uuid, "{" + CANONICAL),
        (Uuid, "urn:uuid:{" + CANONICAL + "}"),
        (Uuid, "d31bd461974-9-4a5c-8d40-887bf363708b"),
        (Ip, "203.0.113.500"),
        (Ip, "1.2.3"),
        (Ip, "01.2.3.4"),
        (Ip, "fe80::1%eth0"),
        (Ip, ""),
        (Ipv4, "::1"),
        (Ipv6, "1.2.3.4"),
        (IpNet, "10.0.0.0"),
        (IpNet, "10.0.0.0/33"),
        (IpNet, "10.0.0.0/"),
        (IpNet, "10.0.0.0/+8"),
        (IpNet, "::/129"),
        (Ipv4Net, "::/64"),
        (Ipv6Net, "10.0.0.0/8"),
        (SockAddr, "[::1]"),
        (SockAddr, "::1:80"),
        (SockAddr, "1.2.3.4"),
        (SockAddr, "1.2.3.4:65536"),
        (SockAddr, "1.2.3.4:" + "9" * 5000),
        (SockAddr, "localhost:80"),
        (Mac, "A8-40-25-F3-48-81"),
        (Mac, "A8:40:25:F3:48"),
        (Mac, "A8:40:25:F3:48:811"),
        (Name, "Net0"),
        (Name, "0net"),
        (Name, "net-"),
        (Name, "a" * 64),
        (Name, "d31bd461-9749-4a5c-8d40-887bf363708b"),
        (Name, "net0\n"),
        (Hostname, "-web"),
        (Hostname, "web-"),
        (Hostname, "web..x"),
        (Hostname, ""),
        (Hostname, "web_01"),
        (Hostname, "a" * 254),
        (PortRange, "0"),
        (PortRange, "65536"),
        (PortRange, "10-9"),
        (PortRange, "-9"),
        (PortRange, "9-"),
        (IcmpRange, "256"),
        (IcmpRange, "3-2"),
    ],
)
def test_bad_texts(kind, text):
    with pytest.raises(ValueError):
        Json(list[kind]).decode(f'["{text}"]'.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("raw", [b"null", b"5", b"true", b"[]", b"{}", b"1.5"])
@pytest.mark.parametrize("kind", [Uuid, Ip, IpNet, SockAddr, Mac, Name, Hostname, PortRange])
def test_a_text_must_be_a_text(kind, raw):
    with pytest.raises(BadJson, match="Expected `str`"):
        Json(kind).decode(raw)


@pytest.mark.parametrize(
    ("raw", "ok"),
    [
        (b"0", True),
        (b"18446744073709551615", True),
        (b"18446744073709551616", False),
        (b"-1", False),
        (b"1.0", False),
        (b"true", False),
        (b'"1"', False),
    ],
)
def test_u64_bounds(raw, ok):
    if ok:
        assert Json(U64).decode(raw) == int(raw)
    else:
        with pytest.raises(BadJson):
            Json(U64).decode(raw)


@given(st.ip_addresses())
def test_addresses_keep_their_value(ip):
    text = Ip.parse(str(ip))
    assert type(ip)(str(text)) == ip
    assert Ip.parse(text) == text


@given(st.uuids(), st.sampled_from(["{}", "{{{}}}", "urn:uuid:{}"]), st.booleans())
def test_uuids_keep_their_value(uuid: UUID, form, upper):
    text = str(uuid).upper() if upper else str(uuid)
    assert Uuid.parse(form.format(text)).uuid == uuid


@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_a_network_contains_what_shares_its_prefix(net, width, ip):
    subnet = Ipv4Net.parse(f"{IPv4Address(net)}/{width}")
    assert subnet.contains(str(IPv4Address(ip))) == (net >> (32 - width) == ip >> (32 - width))


@given(st.integers(0, 2**128 - 1), st.integers(0, 128), st.integers(0, 128))
def test_an_ipv6_network_contains_its_own_addresses_and_no_others(net, width, bit):
    subnet = Ipv6Net.parse(f"{IPv6Address(net)}/{width}")
    other = net ^ (1 << bit) if bit < 128 else net
    assert subnet.contains(str(IPv6Address(other))) == (bit < 128 - width or bit == 128)


class Thing(msgspec.Struct):
    a: int


def test_errors_name_the_field_first():
    with pytest.raises(BadJson, match=r"^\[0\]\.a: Expected `int`, got `str`$"):
        Json(list[Thing]).decode(b'[{"a": "x"}]')


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b'"\xff"', b"nul", b"{} {}",
                                  b'"\\ud800"', b"NaN"])  # fmt: skip
def test_whatever_is_no_json_is_refused_and_nothing_worse(body):
    with pytest.raises(BadJson):
        Json(Any).decode(body)
