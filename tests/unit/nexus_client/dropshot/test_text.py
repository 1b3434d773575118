"""Texts that JSON does not know: which are taken, and what they become (DS 2, SA 1.5)."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client.dropshot.json import BadJson, Json
from nexus_client.dropshot.text import (
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
    SocketAddress,
    Uuid,
    shown,
    shown_lines,
    time,
    utc,
)

CANONICAL = "d31bd461-9749-4a5c-8d40-887bf363708b"


@in_one_test(
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
        (IpNet, "10.0.0.0/+8", "10.0.0.0/8"),
        (IpNet, "10.0.0.0/00000008", "10.0.0.0/8"),
        (IpNet, "fd00::/+064", "fd00::/64"),
        (Ipv4Net, "0.0.0.0/0", "0.0.0.0/0"),
        (Ipv6Net, "::/0", "::/0"),
        (SockAddr, "[::1]:12345", "[::1]:12345"),
        (SockAddr, "1.2.3.4:5", "1.2.3.4:5"),
        (SockAddr, "[FD00::0:1]:0", "[fd00::1]:0"),
        (SockAddr, "[fd00::1]:012400", "[fd00::1]:12400"),
        (SockAddr, "1.2.3.4:" + "0" * 500 + "65535", "1.2.3.4:65535"),
        (SockAddr, "1.2.3.4:00000", "1.2.3.4:0"),
        (SockAddr, "[fd00::1%7]:1", "[fd00::1%7]:1"),
        (SockAddr, "[fd00::1%0]:1", "[fd00::1]:1"),
        (SockAddr, "[fd00::1%0004294967295]:1", "[fd00::1%4294967295]:1"),
        (Mac, "A8-40-25-F3-48-81", "A8:40:25:F3:48:81"),
        (Mac, "a8-40-25-f3-48-8b", "A8:40:25:F3:48:8B"),
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


@in_one_test(
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
        (IpNet, "10.0.0.0/-8"),
        (IpNet, "10.0.0.0/++8"),
        (IpNet, "10.0.0.0/8 "),
        (IpNet, "10.0.0.0/0000" + "9" * 4),
        (IpNet, "::/129"),
        (Ipv4Net, "::/64"),
        (Ipv6Net, "10.0.0.0/8"),
        (SockAddr, "[::1]"),
        (SockAddr, "::1:80"),
        (SockAddr, "1.2.3.4"),
        (SockAddr, "1.2.3.4:65536"),
        (SockAddr, "1.2.3.4:" + "9" * 5000),
        (SockAddr, "localhost:80"),
        (Uuid, "{" + CANONICAL.replace("-", "") + "}"),
        (Uuid, "urn:uuid:" + CANONICAL.replace("-", "")),
        (Uuid, "URN:UUID:" + CANONICAL),
        (SockAddr, "[fd00::1%4294967296]:1"),
        (SockAddr, "[fe80::1%eth0]:1"),
        (SockAddr, "[fe80::1%]:1"),
        (SockAddr, "[fe80::1]:0000099999"),
        (SockAddr, "[fe80::1]:"),
        (SockAddr, "1.2.3.4%1:1"),
        (Mac, "A8-40-25-F3-48"),
        (Mac, "A8-40-25-F3-48-8"),
        (Mac, "A8-40:25-F3-48-81"),
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


@in_one_test("raw", [b"null", b"5", b"true", b"[]", b"{}", b"1.5"])
@in_one_test("kind", [Uuid, Ip, IpNet, SockAddr, Mac, Name, Hostname, PortRange])
def test_a_text_must_be_a_text(kind, raw):
    with pytest.raises(BadJson, match="Expected `str`"):
        Json(kind).decode(raw)


@in_one_test(
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


@in_one_test("body", [b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b'"\xff"', b"nul",
                                  b'"\\ud800"', b"NaN"])  # fmt: skip
def test_whatever_is_no_json_is_refused_and_nothing_worse(body):
    with pytest.raises(BadJson):
        Json(Any).decode(body)


@in_one_test(
    ("told", "instant"),
    [
        ("2026-03-04T05:06:07Z", "2026-03-04T05:06:07+00:00"),
        ("2026-03-04 05:06:07.891234 UTC", "2026-03-04T05:06:07.891234+00:00"),
        (" 2026-03-04T05:06:07Z ", "2026-03-04T05:06:07+00:00"),
        ("2026-03-04T05:06:07 Z", "2026-03-04T05:06:07+00:00"),
        ("2026-03-04T05:06:07 +01:00", "2026-03-04T04:06:07+00:00"),
        ("2026-03-04T05:06:07\u221201:30", "2026-03-04T06:36:07+00:00"),
        ("2026-3-4T5:6:7Z", "2026-03-04T05:06:07+00:00"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2026-03-04T05:06:07.9999999999Z", "2026-03-04T05:06:07.999999+00:00"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999+00:00"),
        ("0000-02-29T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("-0044-03-15T12:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("+12026-01-01T00:00:00Z", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_time_is_read_as_chrono_does(told, instant):
    assert time(told) == datetime.fromisoformat(instant)
    assert Json(datetime).decode(f'"{told}"'.encode()) == datetime.fromisoformat(instant)


@pytest.mark.parametrize(
    ("told", "instant"),
    [
        ("0001-01-01T00:00:00+23:00", datetime.min.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:59-23:00", datetime.max.replace(tzinfo=UTC)),
    ],
)
def test_an_offset_that_leads_out_of_the_years_gives_the_nearest_instant(told, instant):
    assert time(told) == utc(datetime.fromisoformat(told)) == instant


@in_one_test(
    "told",
    ["2026-03-04T05:06:07", "2026-03-04", "yesterday", "", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z",
     "0003-02-29T00:00:00Z",
     "-0001-02-29T00:00:00Z", "2026-03-04T24:00:00Z", "2026-03-04T05:06:61Z", "2026-03-04T05:06:07+24:00",
     "2026-03-04T05:06:07+00:60", "2026-03-04T05:06:07.Z",
     "9" * 5000 + "-01-01T00:00:00Z", "2026-03-04T05:06:07 CET"],
)  # fmt: skip
def test_what_is_no_time_is_refused(told):
    with pytest.raises(ValueError):
        time(told)


@in_one_test(
    ("address", "loopback"),
    [("[::1]:0", True), ("127.0.0.1:0", True), ("127.9.9.9:0", True), ("[::ffff:127.0.0.1]:0", True),
     ("[::]:0", False), ("0.0.0.0:0", False), ("[fd00::1]:0", False),
     ("[::ffff:10.0.0.1]:0", False), ("[fe80::1%1]:0", False)],
)  # fmt: skip
def test_only_loopback_is_loopback(address, loopback):
    assert SocketAddress.parse(address).is_loopback is loopback


@in_one_test(
    "text",
    ["", ":1", "::1:80", "[::1]", "[::1]:", "[::1]:-1", "[::1]:+1", "[::1]:65536", "[::1]:\u0663", "[::1]80",
     "[127.0.0.1]:80",      "127.0.0.1", "127.1:80", "localhost:80", "1.2.3.4:5:6", "[::1]:8 ", "[::1%1%2]:8"],
)  # fmt: skip
def test_what_is_no_socket_address_is_refused(text):
    with pytest.raises(ValueError):
        SocketAddress.parse(text)
    with pytest.raises(ValueError, match="is no address"):
        SocketAddress.typed(text)


@given(st.ip_addresses().filter(lambda ip: not getattr(ip, "scope_id", None)), st.integers(0, 65535))
def test_an_address_survives_being_written(ip, port):
    address = SocketAddress.parse(f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}")
    assert SocketAddress.parse(str(address)) == address
    assert type(ip)(address.host) == ip
    assert address.port == port


@in_one_test(
    ("text", "line"),
    [
        ("plain ä € \U0001f600 text", "plain ä € \U0001f600 text"),
        ("\x1b[2J\x1b]0;owned\x07red", r"\x1b[2J\x1b]0;owned\x07red"),
        ("one\ntwo\r\nthree", r"one\ntwo\r\nthree"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2028c\u200b", r"a\u202eb\u2028c\u200b"),
        ("\x00\x7f\t", r"\x00\x7f\t"),
        ("\udcff", r"\udcff"),
        ("", ""),
    ],
)
def test_foreign_text_is_shown_of_letters(text, line):
    assert shown(text) == line
    assert shown(text).isprintable()


@given(st.text())
def test_no_text_reaches_a_terminal_as_anything_but_letters(text):
    assert shown(text).isprintable()
    assert all(line.isprintable() for line in shown_lines(text).split("\n"))
    assert shown_lines(text).count("\n") == text.count("\n")
