"""The HTTP shell on real sockets: conventions of SA 1.1 to 1.4, and clients that misbehave.

Over 500 lines: one row per line of the tables of SA 1, in their order.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from contextlib import suppress
from uuid import UUID

import pytest
from msgspec.structs import replace
from support.daemon.sled_http import SLED, VMM, FakeHost, read_answer, register_body, request, serving
from support.rows import in_one_test

from nexus_client.dropshot.answers import new_request_id
from nexus_client.dropshot.body import BODY_MAX
from nexus_client.dropshot.listen import Patience
from sim_sled.core import contract, errors
from sim_sled.core.spoil import How, Spoil
from sim_sled.http import app
from sim_sled.http.answers import STATUS
from sim_sled.http.spoiling import SPOIL

STATE = f"/vmms/{VMM}/state"
ARTIFACT = "/artifacts/" + "a" * 64
RUN = {"state": {"type": "running"}}
JSON = {"content-type": "application/json"}


def assert_error(got, status, message=None, code=None, *, prefix=None):
    assert got.status == status, got
    assert got.header("content-type") == "application/json"
    body = got.json
    assert set(body) == ({"request_id", "error_code", "message"} if code else {"request_id", "message"})
    assert body.get("error_code") == code
    assert body["request_id"] == got.header("x-request-id")
    assert got.body == json.dumps(body, indent=2, ensure_ascii=False).encode(), "pretty-printed"
    if message is not None:
        assert body["message"] == message
    if prefix is not None:
        assert body["message"].startswith(prefix)
        assert body["message"] != prefix


# ---- version header (1.2) ------------------------------------------------------------------------------------------


@in_one_test(
    ("version", "message"),
    [
        pytest.param(None, 'missing expected header "api-version"', id="missing"),
        pytest.param("49.0.0", "server does not support this API version: 49.0.0", id="newer"),
        pytest.param("48.0.1", "server does not support this API version: 48.0.1", id="newer patch"),
        pytest.param(
            "48",
            'bad value for header "api-version": unexpected end of input while parsing major version number: 48',
            id="no full version",
        ),
        pytest.param("48.0.0\udce9", 'bad value for header "api-version": not ASCII', id="not ASCII"),
    ],
)
@in_one_test(("method", "path"), [("GET", "/v2p"), ("GET", "/nope"), ("PUT", "/%ff"), ("POST", "/v2p")])
async def test_a_bad_version_is_refused_before_the_path_is_looked_at(version, message, method, path):
    async with serving() as sled:
        assert_error(await sled.ask(method, path, version=version), 400, message)


@in_one_test("version", ["12.3.4", "0.9.0", "48.0.0-rc1", "1.0.0", "48.0.0"])
async def test_any_version_up_to_the_newest_is_accepted(version):
    async with serving() as sled:
        got = await sled.ask("GET", "/v2p", version=version)
        assert (got.status, got.json) == (200, [])


async def test_a_newer_version_can_be_taken_as_the_newest_and_is_told_once_per_client():
    told = []
    async with serving(
        accept_newer_api=True, on_newer_api=lambda peer, version: told.append((peer, version))
    ) as sled:
        for version in ("49.0.0", "49.0.0", "50.1.0"):
            assert (await sled.ask("GET", "/v2p", version=version)).status == 200
        assert_error(await sled.ask("GET", "/sled-role", version="49.0.0"), 404, "Not Found")
        assert_error(await sled.ask("GET", "/v2p", version="49"), 400, prefix="bad value")
        assert_error(await sled.ask("GET", "/v2p", version=None), 400)
    assert told == [("::1", "49.0.0"), ("::1", "50.1.0")]


async def test_many_different_versions_cost_no_memory():
    async with serving() as sled:
        reader, writer = await sled.connect()
        for patch in range(app.VERSIONS_KEPT + 50):
            writer.write(request("GET", "/v2p", version=f"1.0.{patch}"))
            assert (await read_answer(reader)).status == 200
        writer.close()
        await writer.wait_closed()


# ---- order of checks and errors (1.3) ------------------------------------------------------------------------------


@in_one_test(
    ("method", "path", "body", "status", "prefix"),
    [
        pytest.param("GET", "/nope", None, 404, "Not Found", id="no such path"),
        pytest.param("PUT", "/nope", "{", 404, "Not Found", id="the path before the body"),
        pytest.param("POST", "/v2p", "{", 405, "Method Not Allowed", id="the method before the body"),
        pytest.param("GET", "/v2p/%ff", None, 400, "invalid path encoding", id="bad encoding"),
        pytest.param("PUT", "/vmms/web-01/state", "{", 400, "bad parameter in URL path: ", id="path before body"),
        pytest.param("PUT", STATE, "{", 400, "unable to parse JSON body: ", id="the body before the VMM"),
        pytest.param("PUT", STATE, "", 400, "unable to parse JSON body: ", id="no body at all"),
        pytest.param("PUT", STATE, '{"state":{"type":"x"}}', 400, "unable to parse JSON body: ", id="unknown state"),
        pytest.param("PUT", STATE, '{"state":"stopped"}', 400, "unable to parse JSON body: ", id="wrong shape"),
        pytest.param(
            "PUT", STATE, '{"state":{"type":"migration_target"}}', 400, "unable to parse JSON body: ", id="no value"
        ),
        pytest.param(
            "PUT", STATE, '{"state":{"type":"migration_target","value":{"src_propolis_addr":"here"}}}', 400,
            "unable to parse JSON body: state.value.src_propolis_addr: ", id="no socket address",
        ),
        pytest.param("PUT", "/artifacts/cafe?generation=1", "x", 400, "bad parameter in URL path: ", id="bad hash"),
        pytest.param("PUT", ARTIFACT, "x", 400, "unable to parse query string: ", id="missing query"),
        pytest.param("PUT", ARTIFACT + "?generation=x", "x", 400, "unable to parse query string: ", id="bad query"),
        pytest.param(
            "PUT", ARTIFACT + "?generation=1&generation=1", "x", 400, "unable to parse query string: ",
            id="query twice",
        ),
        pytest.param("PUT", "/omicron-config", "{", 400, "unable to parse JSON body: ", id="body of an area"),
    ],
)  # fmt: skip
async def test_order_of_checks(method, path, body, status, prefix):
    async with serving() as sled:
        got = await sled.ask(method, path, raw_body=None if body is None else body.encode())
        assert got.status == status
        assert got.json["message"].startswith(prefix)
        assert "error_code" not in got.json
        assert sled.host.items == [], "nothing reaches the core"


async def test_405_has_one_allow_line_per_method_of_any_version():
    async with serving() as sled:
        got = await sled.ask("POST", "/v2p", {})
        assert_error(got, 405, "Method Not Allowed")
        assert got.all("allow") == ["DELETE", "GET", "PUT"]
        got = await sled.ask("GET", "/network-bootstore-config", version="23.0.0")
        assert got.all("allow") == ["GET", "PUT"]


async def test_not_implemented_has_no_allow_line():
    host = FakeHost()
    host.raises = errors.NotImplementedHere("not here")
    async with serving(host) as sled:
        got = await sled.ask("GET", "/zones")
        assert_error(got, 405, "Method not implemented in sled-agent-sim")
        assert got.all("allow") == []


async def test_head_is_not_derived_from_get_and_has_no_body():
    async with serving() as sled:
        got = await sled.ask("HEAD", "/inventory")
        assert got.status == 405
        assert got.all("allow") == ["GET"]
        reader, writer = await sled.connect()
        writer.write(request("HEAD", "/inventory") + request("GET", "/v2p"))
        assert (await read_answer(reader, head=True)).status == 405
        assert (await read_answer(reader)).json == [], "no body bytes stand between the two answers"
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(("version", "status"), [("1.0.0", 200), ("20.0.0", 200), ("21.0.0", 404)])
async def test_the_disk_operation_of_old_versions_is_served(version, status):
    """SA 6 #19: the original panics on every call."""
    runtime = {"disk_state": {"state": "creating"}, "gen": 1, "time_updated": "2026-01-01T00:00:00Z"}
    async with serving() as sled:
        body = {"initial_runtime": runtime, "target": {"state": "detached"}}
        got = await sled.ask("PUT", f"/disks/{VMM}", body, version=version)
        assert got.status == status
        assert (await sled.ask("GET", "/v2p")).status == 200


@in_one_test(
    ("error", "status", "code", "message"),
    [
        (errors.NoSuchVmm(UUID(VMM)), 404, "NO_SUCH_INSTANCE", "Not Found"),
        (errors.VmmTerminating("x"), 410, "NO_SUCH_INSTANCE", "Instance is terminating"),
        (errors.InvalidRequest("the text"), 400, "InvalidRequest", "the text"),
        (errors.BadRequest("the text"), 400, None, "the text"),
        (errors.Conflict("the text"), 409, "Conflict", "the text"),
        (errors.PropolisRefused("the text"), 403, None, "the text"),
        (errors.ChannelFull("x"), 503, "INSTANCE_CHANNEL_FULL", "Service Unavailable"),
        (errors.NexusUnreachable("x"), 503, None, "Service Unavailable"),
        (errors.TooMany("x"), 503, None, "Service Unavailable"),
        (errors.Internal("x"), 500, "Internal", "Internal Server Error"),
        (errors.NotImplementedHere("x"), 405, None, "Method not implemented in sled-agent-sim"),
        (RuntimeError("a bug"), 500, "Internal", "Internal Server Error"),
        (AssertionError("another"), 500, "Internal", "Internal Server Error"),
    ],
)
async def test_refusals_of_the_core(error, status, code, message, caplog):
    host = FakeHost()
    host.raises = error
    async with serving(host) as sled:
        assert_error(await sled.ask("PUT", STATE, RUN), status, message, code)
        host.raises = None
        assert_error(await sled.ask("GET", STATE), 404, "Not Found", "NO_SUCH_INSTANCE")


def test_every_refusal_of_the_core_has_its_row():
    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    inherited = {kind for kind in below(errors.SledError) if any(base in STATUS for base in kind.__mro__)}
    # what a scenario answers instead of the sled brings its own status
    assert below(errors.SledError) - inherited == {errors.SledError, errors.Injected, errors.AgentAborts}


async def test_messages_that_quote_the_client_are_cut():
    async with serving() as sled:
        got = await sled.ask("PUT", STATE, {"state": {"type": "x" * 100_000}})
        assert_error(got, 400, prefix="unable to parse JSON body: ")
        assert len(got.json["message"]) < 5000


async def test_request_ids_are_fresh_random_uuids_whatever_the_client_sends():
    mine = "11111111-1111-4111-8111-111111111111"
    async with serving() as sled:
        seen = set()
        for method, path in [("GET", "/v2p"), ("GET", "/nope"), ("PUT", "/eip-gateways"), ("HEAD", "/v2p")] * 5:
            got = await sled.ask(method, path, headers={"x-request-id": mine})
            request_id = got.header("x-request-id")
            assert UUID(request_id).version == 4
            assert UUID(request_id).variant == "specified in RFC 4122"
            seen.add(request_id)
        assert len(seen) == 20
        assert mine not in seen


# ---- paths (1.1) ---------------------------------------------------------------------------------------------------


@in_one_test("path", ["/v2p", "/v2p/", "//v2p", "//v2p//", "/v%32p", "/v2p?x=1", "http://sled:80/v2p"])
async def test_spellings_of_one_path(path):
    async with serving() as sled:
        assert (await sled.ask("GET", path)).json == []


@in_one_test("spelling", [VMM.upper(), VMM.replace("-", ""), "%7B" + VMM + "%7D", "urn:uuid:" + VMM])
async def test_spellings_of_one_uuid(spelling):
    async with serving() as sled:
        assert_error(await sled.ask("GET", f"/vmms/{spelling}/state"), 404, "Not Found", "NO_SUCH_INSTANCE")
        assert sled.host.items[0].propolis_id == UUID(VMM)


async def test_what_a_path_means_depends_on_method_and_version_each_time(monkeypatch):
    """Request lines are remembered: the same line at another version or with another method is another request."""
    monkeypatch.setattr(app, "TARGETS_KEPT", 3)
    async with serving() as sled:
        for _ in range(3):
            assert (await sled.ask("GET", "/sled-role", version="7.0.0")).status == 200
            assert (await sled.ask("GET", "/sled-role", version="8.0.0")).status == 404
            assert (await sled.ask("PUT", "/v2p", version="8.0.0")).status == 400
            assert (await sled.ask("GET", "/v2p", version="8.0.0")).status == 200
            assert (await sled.ask("PUT", ARTIFACT, version="8.0.0")).status == 400
            assert (await sled.ask("PUT", ARTIFACT + "?generation=1", version="8.0.0")).status == 400
            assert (await sled.ask("GET", f"/vmms/{VMM}/state")).status == 404
            assert sled.host.items[-1].propolis_id == UUID(VMM)
            assert (await sled.ask("GET", f"/vmms/{SLED}/state")).status == 404
            assert sled.host.items[-1].propolis_id == SLED


class _Counting:
    """A router that counts how often it is asked."""

    def __init__(self, router):
        self.router = router
        self.asked = 0

    def find(self, *key):
        self.asked += 1
        return self.router.find(*key)


async def test_request_lines_are_remembered_and_all_forgotten_when_there_are_too_many(monkeypatch):
    """A client that asks for something new each time takes no memory."""
    router = _Counting(app.SLED.router)
    monkeypatch.setattr(app, "TARGETS_KEPT", 3)
    async with serving(api=replace(app.SLED, router=router)) as sled:

        async def asks(*numbers):
            before = router.asked
            for n in numbers:
                await sled.ask("GET", f"/vmms/{UUID(int=n)}/state")
            return router.asked - before

        assert await asks(1, 2, 3, 1, 2, 3) == 3, "each is looked up once"
        assert await asks(4) == 1
        assert await asks(1, 2, 4) == 2, "the fourth made it forget the first three"
        assert await asks(3) == 1
        assert await asks(3, 1) == 1


# ---- bodies (1.4) --------------------------------------------------------------------------------------------------


@in_one_test(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=latin1",
        None,
    ],
)
async def test_content_types_that_are_json(content_type):
    async with serving() as sled:
        headers = {"content-type": content_type} if content_type else {}
        assert_error(await sled.ask("PUT", STATE, RUN, headers=headers), 404, "Not Found", "NO_SUCH_INSTANCE")


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("application/octet-stream", "application/octet-stream"),
        ("application/x-www-form-urlencoded", "application/x-www-form-urlencoded"),
        ("Multipart/form-data; boundary=x", "multipart/form-data"),
    ],
)
async def test_known_content_types_that_are_not_json(content_type, shown):
    async with serving() as sled:
        got = await sled.ask("PUT", STATE, RUN, headers={"content-type": content_type})
        assert_error(got, 400, f'expected content type "application/json", got "{shown}"')


@in_one_test("content_type", ["text/plain", "application/jsonx", "x", ""])
async def test_unknown_content_types(content_type):
    async with serving() as sled:
        got = await sled.ask("PUT", STATE, RUN, headers={"content-type": content_type})
        assert_error(got, 400, prefix="unsupported content-type:")


async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_refused():
    """SA 6 #3: 1 MiB, where the original's binary takes 1024 bytes."""

    def body(size):
        return b'{"mappings":{},"pad":"' + b"A" * (size - 24) + b'"}'

    async with serving() as sled:
        assert len(body(BODY_MAX)) == 1_048_576
        assert (await sled.ask("PUT", "/eip-gateways", raw_body=body(BODY_MAX))).status == 204
        got = await sled.ask("PUT", "/eip-gateways", raw_body=body(BODY_MAX + 1))
        assert_error(got, 400, "request body exceeded maximum size of 1048576 bytes")


async def test_the_size_is_looked_at_before_the_content_type():
    async with serving() as sled:
        got = await sled.ask(
            "PUT", "/eip-gateways", raw_body=b" " * 2_000_000, headers={"content-type": "text/plain"}
        )
        assert_error(got, 400, "request body exceeded maximum size of 1048576 bytes")


def chunked(path, *chunks, end=b"0\r\n\r\n"):
    head = f"PUT {path} HTTP/1.1\r\nhost: x\r\napi-version: 48.0.0\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks) + end


async def test_chunked_bodies():
    async with serving() as sled:
        (got,) = await sled.raw(chunked("/eip-gateways", b'{"mapp', b'ings":', b"{}}"))
        assert got.status == 204
        (got,) = await sled.raw(chunked("/eip-gateways", *[b" " * 65536] * 17))
        assert_error(got, 400, "request body exceeded maximum size of 1048576 bytes")


async def test_a_body_that_comes_slowly():
    async with serving() as sled:
        reader, writer = await sled.connect()
        data = request("PUT", "/eip-gateways", b'{"mappings":{}}')
        writer.write(data[:-5])
        await writer.drain()
        ping = await sled.ask("GET", "/v2p")  # someone else is served meanwhile
        assert ping.status == 200
        writer.write(data[-5:])
        assert (await read_answer(reader)).status == 204
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on():
    async with serving() as sled:
        reader, writer = await sled.connect()
        body = b'{"mappings":{}}'
        data = request("PUT", "/eip-gateways", body, headers={"expect": "100-continue"})
        writer.write(data[: -len(body)])
        assert (await read_answer(reader)).status == 100
        writer.write(body)
        assert (await read_answer(reader)).status == 204
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_never_comes_is_given_up():
    async with serving(patience=Patience(body_s=0.05)) as sled:
        data = request("PUT", "/eip-gateways", b'{"mappings":{}}')
        (got,) = await sled.raw(data[:-5])
        assert_error(got, 400, prefix="request body did not arrive within")


async def test_delete_with_a_body_is_read():
    mapping = {"virtual_ip": "10.0.0.1", "virtual_mac": "A8:40:25:00:00:01", "physical_host_ip": "fd00::1", "vni": 1}
    async with serving() as sled:
        reader, writer = await sled.connect()
        body = json.dumps(mapping).encode()
        writer.write(request("PUT", "/v2p", body) + request("GET", "/v2p") + request("DELETE", "/v2p", body))
        writer.write(request("GET", "/v2p"))
        answers = [await read_answer(reader) for _ in range(4)]
        assert [got.status for got in answers] == [204, 200, 204, 200]
        assert [answers[1].json, answers[3].json] == [[mapping], []]
        writer.close()
        await writer.wait_closed()


async def test_success_is_compact_json_and_204_has_no_body():
    async with serving() as sled:
        got = await sled.ask("PUT", f"/vmms/{VMM}", register_body(48))
        assert got.status == 200
        assert got.header("content-type") == "application/json"
        assert b" " not in got.body
        assert got.json["migration_in"] is None, "options are written as null"
        got = await sled.ask("PUT", "/eip-gateways", {"mappings": {}})
        assert (got.status, got.body, got.header("content-type"), got.header("content-length")) == (
            204,
            b"",
            None,
            None,
        )


async def test_a_body_where_none_is_expected_is_ignored():
    async with serving() as sled:
        reader, writer = await sled.connect()
        writer.write(request("GET", "/v2p", b"garbage") + request("GET", "/v2p"))
        assert [(await read_answer(reader)).status for _ in range(2)] == [200, 200]
        writer.close()
        await writer.wait_closed()


async def test_compressed_bodies_are_not_unpacked():
    """A megabyte of zeros packs into a kilobyte: the limit counts what arrives, and JSON it is not."""
    packed = gzip.compress(b'{"mappings":{}}' + b" " * 1_000_000)
    async with serving() as sled:
        got = await sled.ask("PUT", "/eip-gateways", raw_body=packed, headers={"content-encoding": "gzip"})
        assert_error(got, 400, prefix="unable to parse JSON body: ")


# ---- clients that misbehave ----------------------------------------------------------------------------------------


@in_one_test(
    "data",
    [
        pytest.param(b"\r\n\r\nGARBAGE\r\n\r\n", id="no request line"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"GET /v2p HTTP/1.1\r\nhost: x\r\na\x00b: c\r\n\r\n", id="a NUL in a header"),
        pytest.param(b"GET /v2p HTTP/9.9\r\nhost: x\r\n\r\n", id="an HTTP that is not there yet"),
        pytest.param(b"GET /v2p HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", id="a length that is no number"),
        pytest.param(
            b"GET /v2p HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", id="two lengths"
        ),
        pytest.param(
            b"PUT /v2p HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunks: request smuggling",
        ),
        pytest.param(chunked("/eip-gateways", b"{", end=b"zz\r\n"), id="a chunk whose size is no number"),
    ],
)
async def test_malformed_http_gets_a_dropshot_error_and_the_connection_ends(data):
    async with serving() as sled:
        reader, writer = await sled.connect()
        writer.write(data)
        got = await read_answer(reader)
        assert_error(got, 400, prefix="malformed")
        await asyncio.wait_for(reader.read(), 60)  # until the server closes
        writer.close()
        with suppress(ConnectionError):  # it closed with our bytes unread
            await writer.wait_closed()
        assert (await sled.ask("GET", "/v2p")).status == 200


async def test_malformed_http_leaves_no_traceback(caplog):
    with caplog.at_level("INFO"):
        async with serving() as sled:
            await sled.raw(b"GET /v2p HTTP/1.1\r\na\x00b: c\r\n\r\n")
    assert [record for record in caplog.records if record.exc_info or record.levelname != "DEBUG"] == []


async def test_pipelined_requests_are_answered_in_order():
    async with serving() as sled:
        reader, writer = await sled.connect()
        writer.write(b"".join(request("GET", "/v2p" if i % 2 else "/nope") for i in range(100)))
        assert [(await read_answer(reader)).status for _ in range(100)] == [404, 200] * 50
        writer.close()
        await writer.wait_closed()


async def test_what_a_client_asked_for_is_done_although_it_hung_up():
    host = FakeHost()
    host.gate.clear()
    async with serving(host) as sled:
        reader, writer = await sled.connect()
        writer.write(request("PUT", f"/vmms/{VMM}", json.dumps(register_body(48)).encode()))
        await writer.drain()
        while not host.items:
            await asyncio.sleep(0)
        writer.transport.abort()
        del reader
        assert (await sled.ask("GET", "/vmms")).status == 404  # the abort has been seen by now
        host.gate.set()
        while not host.finished:
            await asyncio.sleep(0)
        assert (await sled.ask("GET", STATE)).status == 200


async def test_what_a_rule_wants_of_one_answer_is_not_done_to_the_next_one_of_its_connection():
    class Spoiling(FakeHost):
        async def submit(self, item):
            if isinstance(item, contract.PutState):
                SPOIL.set(Spoil(How.GARBAGE))  # it is refused: nobody asks what shall become of the answer
            return await super().submit(item)

    async with serving(Spoiling()) as sled:
        stop = request("PUT", STATE, b'{"state":{"type":"stopped"}}')
        refused, next_one = await sled.raw(stop + request("GET", "/v2p"), answers=2)
        assert refused.status == 404
        assert (next_one.status, next_one.json) == (200, [])


async def test_a_client_that_leaves_in_the_middle_of_its_body_costs_nothing(caplog):
    with caplog.at_level("INFO"):
        async with serving() as sled:
            for _ in range(20):
                _, writer = await sled.connect()
                writer.write(request("PUT", "/eip-gateways", b'{"mappings":{}}')[:-3])
                await writer.drain()
                writer.transport.abort()
            assert (await sled.ask("GET", "/v2p")).status == 200
            assert sled.host.items[-1].call is not None
            assert len(sled.host.items) == 1
    assert [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}] == []


async def test_an_upgrade_that_is_not_offered_is_answered_as_if_it_were_not_asked_for():
    headers = {"connection": "upgrade, http2-settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"}
    async with serving() as sled:
        assert (await sled.ask("GET", "/v2p", headers=headers)).status == 200


# ---- what reaches the core -----------------------------------------------------------------------------------------


async def test_operations_on_vmms_become_inputs_of_the_core():
    async with serving() as sled:
        await sled.ask("PUT", f"/vmms/{VMM}", register_body(48))
        await sled.ask("GET", STATE)
        await sled.ask("PUT", STATE, {"state": {"type": "reboot"}})
        target = {"type": "migration_target", "value": {"src_propolis_addr": "[::1]:12400"}}
        await sled.ask("PUT", STATE, {"state": target})
        assert (await sled.ask("POST", f"/vmms/{VMM}/poke", version="1.0.0")).status == 204
        assert (await sled.ask("POST", f"/vmms/{VMM}/poke-single-step")).status == 204
        migration = {"migration_id": "00000000-0000-4000-8000-00000000000c", "result": "Failure"}
        assert (await sled.ask("POST", f"/vmms/{VMM}/sim-migration-source", migration)).status == 204
        gone = await sled.ask("DELETE", f"/vmms/{VMM}")
        assert gone.json["updated_runtime"]["vmm_state"] == {
            "state": "failed", "gen": 3, "time_updated": "2026-08-21T10:00:00.123456Z"
        }  # fmt: skip
        items = sled.host.items
        assert [type(item) for item in items] == [
            contract.Register, contract.GetState, contract.PutState, contract.PutState, contract.Poke, contract.Poke,
            contract.SimMigrationSource, contract.Unregister,
        ]  # fmt: skip
        assert {item.sled_id for item in items} == {SLED}
        assert {item.propolis_id for item in items} == {UUID(VMM)}
        assert len({item.ticket for item in items}) == len(items)
        assert items[3].requested.value.src_propolis_addr == "[::1]:12400"
        assert [items[4].drain, items[5].drain] == [True, False]
        assert items[6].succeeds is False


@pytest.mark.parametrize(
    "body",
    [{"migration_id": VMM, "result": "success"}, {"migration_id": VMM}, {"migration_id": "x", "result": "Success"}],
)
async def test_sim_migration_source_checks_its_body(body):
    async with serving() as sled:
        got = await sled.ask("POST", f"/vmms/{VMM}/sim-migration-source", body)
        assert_error(got, 400, prefix="unable to parse JSON body: ")


def test_request_ids_look_like_uuids():
    pattern = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    ids = {new_request_id() for _ in range(600)}
    assert len(ids) == 600
    assert all(pattern.fullmatch(request_id) for request_id in ids)
    assert {request_id[19] for request_id in ids} == set("89ab")
