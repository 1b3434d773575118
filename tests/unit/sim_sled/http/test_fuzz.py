"""Whatever bytes arrive: an answer or a closed connection, no 5xx of our own making, no traceback, and the next
client is served."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.daemon.sled_http import NIC_V10, RULE, VMM, FakeHost, Got, Server, read_answer, register_body, request
from support.daemon.sled_http import SLED as SLED_ID
from support.profile import by_profile

from sim_sled.http.app import make_server
from sim_sled.http.operations import ROUTER

MANY = settings(max_examples=by_profile(25, nightly=5_000), deadline=None, suppress_health_check=list(HealthCheck))
JSON_TYPE = {"content-type": "application/json"}
FIREWALL = json.dumps({"vni": 1, "rules": [RULE | {"targets": [NIC_V10]}]}).encode()
CHUNKS = [b'5\r\n{"map\r\n', b'8;x=y\r\npings":{\r\n', b"2\r\n}}\r\n", b"0\r\ntrailer: x\r\n\r\n"]
VALID = [
    request("GET", "/v2p"),
    request("GET", f"/vmms/{VMM}/state"),
    request("PUT", f"/vmms/{VMM}/state", b'{"state":{"type":"stopped"}}', headers=JSON_TYPE),
    request("PUT", f"/vmms/{VMM}", json.dumps(register_body(48)).encode()),
    request("DELETE", f"/vmms/{VMM}/external-ip", b'{"type":"ephemeral","value":"1.2.3.4"}'),
    request("PUT", f"/vpc/{VMM}/firewall/rules", FIREWALL),
    request("GET", "/eip-gateways", headers={"transfer-encoding": "chunked"}).replace(b"GET", b"PUT")
    + b"".join(CHUNKS),
    request("GET", "/v2p", headers={"connection": "upgrade", "upgrade": "websocket"}),
    request("HEAD", "/zones").replace(b"HEAD", b"OPTIONS"),
]


@pytest.fixture(name="sled")
def _sled(caplog):
    """A server whose loop runs only while a test asks it something."""
    with asyncio.Runner() as runner:

        async def start():
            host = FakeHost()
            server = make_server(host, SLED_ID)
            listener = await asyncio.get_running_loop().create_server(server, "::1", 0)
            return server, listener, Server(host, listener.sockets[0].getsockname()[1])

        server, listener, client = runner.run(start())

        def run(make):
            return runner.run(make(client))

        with caplog.at_level(logging.INFO):
            yield run
            assert runner.run(client.ask("GET", "/v2p")).status == 200
        assert [record.getMessage() for record in caplog.records] == [], "nothing went wrong on the quiet"

        async def stop():
            listener.close()
            await server.shutdown(1.0)
            await listener.wait_closed()

        runner.run(stop())


def assert_sane(got: Got) -> None:
    assert got.status < 500 or got.json.get("error_code") == "Internal", got  # an unregistered VMM's addresses
    assert got.status != 500 or got.json["message"] == "Internal Server Error"
    if got.status >= 400 and got.body:
        assert set(got.json) <= {"request_id", "error_code", "message"}
        assert got.json["request_id"] == got.header("x-request-id")


async def send(sled: Server, *pieces: bytes, answers: int | None = None) -> list[Got]:
    """That many answers to these pieces; or whatever comes until the server closes or has nothing more to say."""
    reader, writer = await sled.connect()
    got: list[Got] = []
    try:
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            while answers is None or len(got) < answers:
                got.append(await asyncio.wait_for(read_answer(reader), 0.02 if answers is None else 60))
    finally:
        writer.transport.abort()
    return got


def mutated(data: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in cuts:
        at = place % (len(data) + 1)
        data = data[:at] + new + data[at + length :]
    return data


_NASTY = [
    b"\0",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\xff",
    b"%",
    b"%00",
    b":",
    b" ",
    b"{",
    b'"',
    b"[" * 50,
    b"-1",
    b"1e999",
]
_NASTY += [
    b"9" * 30,
    b"e\xcc\x81",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"api-version: 1.0.0\r\n",
]


@pytest.mark.nightly
@MANY
@given(
    st.sampled_from(VALID),
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 8), st.sampled_from(_NASTY) | st.binary(max_size=6)),
        min_size=1, max_size=4,
    ),
)  # fmt: skip
def test_spoilt_requests(sled, data, cuts):
    for got in sled(lambda client: send(client, mutated(data, cuts))):
        assert_sane(got)


@pytest.mark.nightly
@MANY
@given(st.lists(st.sampled_from(VALID), min_size=1, max_size=4), st.lists(st.integers(0, 6000), max_size=5))
def test_good_requests_in_any_pieces(sled, requests, cuts):
    """Pipelined, and cut anywhere: one answer each."""
    data = b"".join(requests)
    ends = sorted({cut % len(data) for cut in cuts} | {len(data)})
    pieces = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    answers = sled(lambda client: send(client, *pieces, answers=len(requests)))
    assert len(answers) == len(requests)
    for got in answers:
        assert_sane(got)


_SEGMENT = st.sampled_from(["vmms", VMM, "state", "v2p", "%2F", "..", "%ff", "a" * 300, "10.0.0.0%2F8", "é"])
_TEXT = st.text(st.characters(exclude_characters=" \r\n", exclude_categories=["Cs"]), max_size=5)
_PATH = st.lists(_SEGMENT | _TEXT, max_size=5).map(lambda parts: "/" + "/".join(parts))
_TEMPLATES = sorted({route.template.replace("{propolis_id}", VMM) for route in ROUTER.routes})
_HEADERS = st.dictionaries(
    st.sampled_from(["content-type", "api-version", "expect", "connection", "x-request-id", "content-encoding"]),
    st.sampled_from(["", "48.0.0", "text/plain", "close", "100-continue", "gzip", "upgrade", "é"]),
    max_size=3,
)
_WITH_BODY = [route for route in ROUTER.routes if route.body is not None and route.since <= 48 < route.until]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.nightly
@MANY
@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS"]),
    _PATH
    | st.sampled_from(sorted({route.template for route in ROUTER.routes})).map(
        lambda t: t.replace("{propolis_id}", VMM)
    ),
    st.binary(max_size=40) | _JSON.map(lambda value: json.dumps(value).encode()),
    _HEADERS,
)
def test_any_method_path_headers_and_body(sled, method, path, body, headers):
    async def ask(client):
        with suppress(ConnectionError):
            return await client.ask(method, path, raw_body=body, headers=headers)

    got = sled(ask)
    if got is not None:
        assert_sane(got)


@pytest.mark.nightly
@MANY
@given(st.sampled_from(_WITH_BODY), _JSON)
def test_any_json_to_any_operation(sled, route, body):
    path = route.template.replace("{sha256}", "a" * 64).replace("{rot}", "oxide")
    for name in route.variables:
        path = path.replace("{" + name + "}", VMM)
    query = "&".join(f"{key}={'a' * 64 if key == 'hash' else 1}" for key in route.query)
    assert_sane(sled(lambda client: client.ask(route.method, f"{path}?{query}", body)))


def test_connections_that_are_cut_at_every_byte(sled):
    data = VALID[2]

    async def cut(client):
        for end in range(len(data)):
            _, writer = await client.connect()
            writer.write(data[:end])
            await writer.drain()
            writer.transport.abort()

    sled(cut)
