"""Each row of DS, put to all three servers: they are one framework in the original (DS 1 to 3, SA 1.1 to 1.5).

What is left out (bare line feeds, the same length twice, HTTP/2) stands in docs/fidelity.md, D97.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import attrs
import pytest
from support.daemon.sled_http import FakeHost, register_body, request, serving
from support.rows import in_one_test

from nexus_client.dropshot.text import SocketAddress
from nexus_client.stub.config import Config, UnknownVmm
from nexus_client.stub.server.serve import NexusServer
from propolis_stub.server.serve import start
from sim_sled.http.routes import NEWEST as SLED_NEWEST

VMM = UUID("d31bd461-9749-4a5c-8d40-887bf363708b")
REPORT = {
    "vmm_state": {"state": "running", "gen": 3, "time_updated": "2026-03-04T05:06:07Z"},
    "migration_in": None,
    "migration_out": None,
}


@attrs.frozen
class Kind:
    """A server with an operation that takes a body of one text, and one without a body."""

    version: str
    get: str  # answers 200 or a refusal of its own; what counts is that it is reached
    put: tuple[str, str]  # method and path of an operation with a body
    body: object
    fits: int  # status of that body
    other: str  # a method that `get` has not
    allow: list[str]


KINDS = {
    "sled": Kind(f"{SLED_NEWEST}.0.0", "/v2p", ("PUT", f"/vmms/{VMM}/state"), {"state": {"type": "running"}}, 404,
                 "POST", ["DELETE", "GET", "PUT"]),
    "propolis": Kind("5.0.0", "/instance", ("PUT", "/instance/state"), "Run", 424, "POST", ["GET", "PUT"]),
    "nexus": Kind("1.0.0", "/v1/ping", ("PUT", f"/vmms/{VMM}"), REPORT, 204, "POST", ["GET"]),
}  # fmt: skip


@asynccontextmanager
async def running(name: str) -> AsyncIterator[str]:
    if name == "sled":
        async with serving(FakeHost()) as sled:
            yield f"[::1]:{sled.port}"
    elif name == "propolis":
        propolis = await start(SocketAddress("::1", 0))
        try:
            yield propolis.api.address
        finally:
            await propolis.close()
    else:
        async with NexusServer("[::1]:0", config=Config(unknown_vmm=UnknownVmm.ADOPT)) as nexus:
            yield nexus.internal


@attrs.frozen
class Got:
    status: int
    head: str
    body: bytes

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"]) if self.body else ""

    def all(self, name: str) -> list[str]:
        lines = [line.partition(":") for line in self.head.split("\r\n")[1:]]
        return [value.strip() for key, _, value in lines if key.lower() == name]


async def ask(address: str, data: bytes, *, answers: int = 1) -> list[Got]:
    """Sends `data` on a connection of its own and reads so many answers."""
    to = SocketAddress.parse(address)
    reader, writer = await asyncio.open_connection(to.host, to.port, limit=2**22)
    try:
        writer.write(data)
        got = []
        for _ in range(answers):
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode("latin-1")
            lengths = [int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")]
            status = int(head.split(" ", 2)[1])
            no_body = data.startswith(b"HEAD") or status in {100, 101, 204}
            got.append(Got(status, head, b"" if no_body or not lengths else await reader.readexactly(lengths[0])))
        return got
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture(params=list(KINDS))
async def server(request):
    async with running(request.param) as address:
        yield address, KINDS[request.param]


def with_body(kind: Kind, body: bytes, **headers: str) -> bytes:
    return request(
        *kind.put, body, version=kind.version, headers={key.replace("_", "-"): v for key, v in headers.items()}
    )


# ---- JSON and content types (DS 1) ---------------------------------------------------------------------------------


@in_one_test(
    "kind_of_content",
    [None, "application/json", "Application/JSON; charset=x", "application/x+json", "application/vnd.a.b+json"],
)
@in_one_test("behind", [b"", b"x", b" {}", b"\n]"])
async def test_json_is_taken_by_many_names_and_only_its_first_value_is_read(server, kind_of_content, behind):
    address, kind = server
    headers = {} if kind_of_content is None else {"content_type": kind_of_content}
    (got,) = await ask(address, with_body(kind, json.dumps(kind.body).encode() + behind, **headers))
    assert got.status == kind.fits, got


@in_one_test(
    ("content_type", "message"),
    [
        ("text/plain", "unsupported content-type: text/plain"),
        ("application/jsonx", "unsupported content-type: application/jsonx"),
        ("Text/Plain; charset=utf-8", "unsupported content-type: text/plain"),
        ("application/octet-stream", 'expected content type "application/json", got "application/octet-stream"'),
        ("multipart/form-data; boundary=x", 'expected content type "application/json", got "multipart/form-data"'),
    ],
)
async def test_what_is_no_json_by_name_is_refused(server, content_type, message):
    address, kind = server
    (got,) = await ask(address, with_body(kind, json.dumps(kind.body).encode(), content_type=content_type))
    assert (got.status, got.message) == (400, message)


@in_one_test(
    ("body", "message"),
    [
        (b'"a\xff"', "invalid unicode code point at line 1 column 3"),
        (b'\n\n {"a": "\xc3("}', "invalid unicode code point at line 3 column 9"),
        (b"{", ""),
        (b"", ""),
        (b"[" * 100_000, "recursion limit exceeded"),
        (b"NaN", ""),
    ],
)
async def test_a_body_that_is_no_json_is_refused(server, body, message):
    address, kind = server
    (got,) = await ask(address, with_body(kind, body))
    assert got.status == 400
    assert got.message.startswith(f"unable to parse JSON body: {message}")


async def test_a_body_over_the_limit_is_refused_as_such(server):
    address, kind = server
    (got,) = await ask(address, with_body(kind, b" " * (1024 * 1024 + 1), content_type="text/plain"))
    assert (got.status, got.message) == (400, "request body exceeded maximum size of 1048576 bytes")


SERDE = [
    # server, method, path, body, status
    ("sled", "PUT", f"/vmms/{VMM}/state", '{"state": {"type": "running"}, "state": {"type": "running"}}', 400),
    ("sled", "PUT", f"/vmms/{VMM}/state", '{"state": {"type": "running", "type": "running"}}', 400),
    ("sled", "PUT", f"/vmms/{VMM}/state", '{"state": {"type": "running"}, "x": 1, "x": 2}', 404),
    ("sled", "PUT", f"/vmms/{VMM}/state", '[{"type": "running"}]', 404),
    ("sled", "PUT", f"/vmms/{VMM}/state", '{"state": ["running", null]}', 404),
    ("sled", "PUT", f"/vmms/{VMM}/state", '{"state": ["running"]}', 400),
    ("sled", "PUT", f"/vmms/{VMM}/state", '{"state": {"type": {"running": null}}}', 400),
    ("propolis", "PUT", "/instance/state", '{"Run": null}', 424),
    ("propolis", "PUT", "/instance/state", '{"Run": 1}', 400),
    ("propolis", "PUT", "/instance/state", '["Run"]', 400),
    ("propolis", "GET", "/instance/state-monitor", "[0]", 424),
    ("propolis", "GET", "/instance/state-monitor", '{"gen": 0}', 424),
    ("propolis", "GET", "/instance/state-monitor", '{"gen": -0}', 400),
    ("propolis", "GET", "/instance/state-monitor", '{"gen": 0, "gen": 0}', 400),
    ("propolis", "GET", "/instance/state-monitor", '{"gen": 18446744073709551615}', 424),
    ("propolis", "GET", "/instance/state-monitor", '{"gen": 18446744073709551616}', 400),
    ("nexus", "PUT", f"/vmms/{VMM}", json.dumps(REPORT).replace('"gen": 3', '"gen": 3, "gen": 3'), 400),
    ("nexus", "PUT", f"/vmms/{VMM}", json.dumps(REPORT).replace('"gen": 3', '"gen": -0'), 400),
    ("nexus", "PUT", f"/vmms/{VMM}", json.dumps(REPORT).replace("{", "[", 1).replace('"vmm_state": ', "").replace(
        '"migration_in": ', "").replace('"migration_out": ', "")[:-1] + "]", 204),
    ("nexus", "PUT", f"/vmms/{VMM}", json.dumps(REPORT).replace('"running"', '{"running": null}'), 204),
]  # fmt: skip


@in_one_test(("name", "method", "path", "body", "status"), SERDE)
async def test_bodies_are_read_as_serde_reads_them(name, method, path, body, status):
    async with running(name) as address:
        (got,) = await ask(address, request(method, path, body.encode(), version=KINDS[name].version))
        assert got.status == status, got


# ---- scalars (DS 2) ------------------------------------------------------------------------------------------------


UUIDS = [
    (str(VMM), True), (str(VMM).upper(), True), (VMM.hex, True), ("%7B" + str(VMM) + "%7D", True),
    ("urn:uuid:" + str(VMM), True),
    ("%7B" + VMM.hex + "%7D", False), ("urn:uuid:" + VMM.hex, False), ("x", False), (str(VMM)[:-1], False),
]  # fmt: skip
IN_PATH = {
    "sled": ("GET", "/vmms/{}/state", b""),
    "propolis": ("POST", "/instance/disk/d/snapshot/{}", b""),
    "nexus": ("PUT", "/vmms/{}", json.dumps(REPORT).encode()),
}


@in_one_test(("text", "taken"), UUIDS)
@in_one_test("name", list(KINDS))
async def test_spellings_of_a_uuid_in_a_path(name, text, taken):
    method, path, body = IN_PATH[name]
    async with running(name) as address:
        (got,) = await ask(address, request(method, path.format(text), body, version=KINDS[name].version))
        refused = got.status == 400 and got.message.startswith("bad parameter in URL path: ")
        assert refused is not taken, got


TIMES = [
    ("2026-03-04T05:06:07Z", True), ("2026-03-04 05:06:07.891234 UTC", True), (" 2026-03-04T05:06:07Z ", True),
    ("2026-3-4T5:6:7Z", True),
    ("2026-03-04T05:06:07 +01:00", True), ("2026-03-04T05:06:07\u221201:00", True), ("2016-12-31T23:59:60Z", True),
    ("0000-01-01T00:00:00Z", True), ("-0044-03-15T00:00:00Z", True), ("+12026-01-01T00:00:00Z", True),
    ("9999-12-31T23:59:59.9999999999Z", True), ("2026-03-04T05:06:07", False), ("2026-13-04T05:06:07Z", False),
    ("yesterday", False),
]  # fmt: skip


@in_one_test(("text", "taken"), TIMES)
async def test_times_in_a_registration_and_in_a_report(text, taken):
    async with running("sled") as address:
        body = register_body(SLED_NEWEST)
        body["vmm_runtime"]["time_updated"] = text
        (got,) = await ask(address, request("PUT", f"/vmms/{VMM}", json.dumps(body).encode()))
        assert got.status == (200 if taken else 400), got
    async with running("nexus") as address:
        report = json.dumps(REPORT | {"vmm_state": REPORT["vmm_state"] | {"time_updated": text}}).encode()
        (got,) = await ask(address, request("PUT", f"/vmms/{VMM}", report, version="1.0.0"))
        assert got.status == (204 if taken else 400), got


VERSIONS = [
    (None, 'missing expected header "api-version"'),
    ("", 'bad value for header "api-version": empty string, expected a semver version: '),
    ("1", 'bad value for header "api-version": unexpected end of input while parsing major version number: 1'),
    ("v1.0.0",
     'bad value for header "api-version": unexpected character \'v\' while parsing major version number: v1.0.0'),
    ("1.0.0-01", 'bad value for header "api-version": invalid leading zero in pre-release identifier: 1.0.0-01'),
    ("18446744073709551616.0.0",
     'bad value for header "api-version": value of major version number exceeds u64::MAX: 18446744073709551616.0.0'),
    ("18446744073709551615.0.0", "server does not support this API version: 18446744073709551615.0.0"),
]  # fmt: skip


@in_one_test(("version", "message"), VERSIONS)
@in_one_test("path", [None, "/nowhere"])
async def test_versions_are_looked_at_before_anything_else(server, version, message, path):
    address, kind = server
    (got,) = await ask(address, request("GET", path or kind.get, version=version))
    assert (got.status, got.message) == (400, message)


# ---- paths and HTTP (SA 1.1, DS 3) ---------------------------------------------------------------------------------


def reached(kind: Kind, got: Got) -> bool:
    return got.status == {"/v2p": 200, "/instance": 424, "/v1/ping": 200}[kind.get]


def plain(kind: Kind, line: str, *headers: str) -> bytes:
    return "\r\n".join([line, f"api-version: {kind.version}", *headers, "", ""]).encode("latin-1")


@in_one_test("shape", ["{}", "{}/", "/{}", "{}?x=1", "{}#x", "{}?a#b", "http://somewhere:80{}"])
async def test_spellings_of_one_path(server, shape):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"GET {shape.format(kind.get)} HTTP/1.1", "host: x"))
    assert reached(kind, got), got


@in_one_test("path", ["/%ff", "/a/../b", "/a/./b", "/."])
async def test_a_path_that_cannot_be_read_is_refused(server, path):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"GET {path} HTTP/1.1", "host: x"))
    assert (got.status, got.message) == (400, "invalid path encoding")


LONG = "x: " + "y" * 20_000


@in_one_test("headers", [(), ("host: x",), ("host: x", "Host: y"), ("host: x", LONG), ("host:",)])
async def test_hosts_and_long_headers_do_not_matter(server, headers):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"GET {kind.get} HTTP/1.1", *headers))
    assert reached(kind, got), got
    assert "connection: close" not in got.head.lower()


@in_one_test("method", ["FOO", "get", "PROPFIND", "POST"])
async def test_other_methods_are_405_with_one_allow_line_each_and_the_connection_stays(server, method):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"{method} {kind.get} HTTP/1.1", "host: x"))
    assert (got.status, got.message) == (405, "Method Not Allowed")
    assert got.all("allow") == kind.allow
    assert "connection: close" not in got.head.lower()


async def test_head_is_not_derived_from_get(server):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"HEAD {kind.get} HTTP/1.1", "host: x"))
    assert got.status == 405
    assert got.all("allow") == kind.allow


@in_one_test(("path", "status"), [("/nowhere", 404), ("/" + "a" * 70_000, 414)])
async def test_paths_that_lead_nowhere(server, path, status):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"GET {path} HTTP/1.1", "host: x"))
    assert got.status == status
    assert got.body == b"" or got.message == "Not Found"


async def test_two_hundred_headers_are_too_many(server):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"GET {kind.get} HTTP/1.1", *[f"x-{n}: y" for n in range(200)]))
    assert (got.status, got.body) == (431, b"")


@in_one_test("line", ["GET /v2p", "GET /v2p HTTP/2.0", "GET /v2p HTTP/1.2", "PRI * HTTP/2.0", "hello"])
async def test_what_is_no_http_1_is_400(server, line):
    address, kind = server
    (got,) = await ask(address, plain(kind, line, "host: x"))
    assert got.status == 400
    assert "aiohttp" not in got.head.lower(), "it does not say who parses"


@in_one_test("line", ["HTTP/1.0", "HTTP/1.1"])
async def test_an_old_client_is_answered_in_its_own_version(server, line):
    address, kind = server
    (got,) = await ask(address, plain(kind, f"GET {kind.get} {line}"))
    assert got.head.startswith(f"{line} ")
    assert reached(kind, got)


async def test_a_client_that_waits_for_leave_gets_it(server):
    address, kind = server
    to = SocketAddress.parse(address)
    reader, writer = await asyncio.open_connection(to.host, to.port)
    body = json.dumps(kind.body).encode()
    data = with_body(kind, body, expect="100-continue")
    writer.write(data[: -len(body)])
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).startswith(b"HTTP/1.1 100")
    writer.write(body)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert int(head.split(b" ")[1]) == kind.fits
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_has_shut_its_sending_side_is_answered(server):
    address, kind = server
    to = SocketAddress.parse(address)
    reader, writer = await asyncio.open_connection(to.host, to.port)
    writer.write(plain(kind, f"GET {kind.get} HTTP/1.1", "host: x"))
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    assert int(answer.split(b" ")[1]) in {200, 424}
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_ends_early_is_told_so(server):
    address, kind = server
    to = SocketAddress.parse(address)
    reader, writer = await asyncio.open_connection(to.host, to.port)
    writer.write(with_body(kind, json.dumps(kind.body).encode())[:-2])
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 20)
    assert int(answer.split(b" ")[1]) == 400
    assert b"error streaming request body: " in answer
    writer.close()
    await writer.wait_closed()


async def test_every_answer_has_a_fresh_request_id_and_errors_repeat_it(server):
    address, kind = server
    seen = set()
    for line in (f"GET {kind.get} HTTP/1.1", "GET /nowhere HTTP/1.1", f"{kind.other} {kind.get} HTTP/1.1"):
        (got,) = await ask(address, plain(kind, line, "host: x", f"x-request-id: {VMM}"))
        (request_id,) = got.all("x-request-id")
        assert UUID(request_id).version == 4
        if got.status >= 400:
            assert json.loads(got.body)["request_id"] == request_id
        seen.add(request_id)
    assert len(seen) == 3


QUERIES = [
    ("sled", "PUT", "/artifacts/" + "a" * 64 + "?generation=x"),
    ("propolis", "GET", "/instance/serial/history?from_start=x"),
    ("propolis", "GET", "/instance/serial/history?from_start=-1"),
]


@in_one_test(("name", "method", "path"), QUERIES)
async def test_a_bad_query_is_told_without_the_parameters_name(name, method, path):
    async with running(name) as address:
        (got,) = await ask(address, request(method, path, version=KINDS[name].version))
        assert (got.status, got.message) == (400, "unable to parse query string: invalid digit found in string")


@in_one_test("upgrade", ["websocket", "WebSocket", "h2c, websocket", "h2c,WEBSOCKET"])
@in_one_test("key", ["dGhlIHNhbXBsZSBub25jZQ==", "x", "short"])
async def test_a_websocket_is_opened_by_any_key_and_among_other_upgrades(upgrade, key):
    kind = KINDS["propolis"]
    headers = [
        "host: x", "connection: keep-alive, Upgrade", f"upgrade: {upgrade}", "sec-websocket-version: 13",
        f"sec-websocket-key: {key}",
    ]  # fmt: skip
    async with running("propolis") as address:
        (got,) = await ask(address, plain(kind, "GET /instance/serial HTTP/1.1", *headers))
        assert got.status == 101
        assert got.all("connection") == ["Upgrade"]
        accept = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        assert got.all("sec-websocket-accept") == [accept.decode()]
