"""The servers of the Nexus model on real sockets: internal, lockstep and control API, faults, restarts."""

import asyncio
import json
import os
from contextlib import AsyncExitStack
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from support.nexus.http import VERSION, HttpRack
from support.nexus.world import report, sled_id
from support.rows import in_one_test
from support.wire.documents import fits

from nexus_client.dropshot.text import SocketAddress
from nexus_client.stub.config import Config, SagaMode
from nexus_client.stub.contract import Tick
from nexus_client.stub.server.serve import NexusServer, banner, serve
from nexus_client.stub.server.sled_client import SledClient
from nexus_client.types import VmmState

S = VmmState
UNKNOWN = UUID(int=0xBAD)
A_UUID = "abcdef01-2345-4678-9abc-def012345678"


@pytest.fixture
async def rack():
    async with AsyncExitStack() as stack:
        yield await HttpRack.make(stack)


# ---- the internal API ----------------------------------------------------------------------------------------------

VERSIONS = [
    ({}, 'missing expected header "api-version"'),
    ({"api-version": "1"}, 'bad value for header "api-version": '),
    ({"api-version": "v1.0.0"}, 'bad value for header "api-version": '),
    ({"api-version": ""}, 'bad value for header "api-version": '),
    ({"api-version": "1.0.1"}, "server does not support this API version: 1.0.1"),
    ({"api-version": "48.0.0"}, "server does not support this API version: 48.0.0"),
]


@in_one_test(("headers", "message"), VERSIONS, ids=[str(headers) for headers, _ in VERSIONS])
@in_one_test("path", ["/v1/ping", "/nowhere"])
async def test_the_internal_api_wants_its_version_before_anything_else(rack, headers, message, path):
    status, value = await rack.request(rack.nexus.internal, "GET", path, headers=headers)
    assert status == 400
    assert value["message"].startswith(message)
    assert "error_code" not in value


PRODUCER = {
    "id": str(UNKNOWN), "kind": "sled_agent", "address": "[::1]:4677", "interval": {"secs": 30, "nanos": 0},
}  # fmt: skip
SWITCH = {"baseboard": {"serial": "s", "part": "p", "revision": 1}, "rack_id": str(UNKNOWN)}


async def test_ping_and_the_constants_of_the_internal_api(rack):
    assert await rack.internal("GET", "/v1/ping") == (200, {"status": "ok"})
    status, value = await rack.internal("PUT", f"/disks/{UNKNOWN}", {})
    assert (status, value["message"]) == (400, "removed due to incorrect abstraction")
    assert (await rack.internal("GET", f"/probes/{UNKNOWN}"))[0] == 410
    assert (await rack.internal("POST", "/refresh-vpc-routes"))[0] == 410
    lease = {"lease_duration": {"secs": 600, "nanos": 0}}
    assert await rack.internal("POST", "/metrics/producers", PRODUCER) == (201, lease)
    assert await rack.internal("PUT", f"/switch/{UNKNOWN}", SWITCH) == (200, {})


@in_one_test(
    ("method", "path", "body", "message"),
    [
        ("POST", "/metrics/producers", PRODUCER | {"kind": "toaster"}, "unable to parse JSON body: kind: "),
        ("POST", "/metrics/producers", PRODUCER | {"address": "localhost:1"}, "unable to parse JSON body: address: "),
        ("POST", "/metrics/producers", PRODUCER | {"interval": 30}, "unable to parse JSON body: interval: "),
        ("POST", "/metrics/producers", {"id": str(UNKNOWN)}, "unable to parse JSON body: "),
        ("PUT", f"/switch/{UNKNOWN}", {"rack_id": str(UNKNOWN)}, "unable to parse JSON body: "),
        ("PUT", f"/switch/{UNKNOWN}", SWITCH | {"rack_id": "x"}, "unable to parse JSON body: rack_id: "),
        ("GET", "/probes/x", None, "bad parameter in URL path: "),
    ],
)
async def test_constants_have_their_bodies_and_ids_read_all_the_same(rack, method, path, body, message):
    status, value = await rack.internal(method, path, body)
    assert status == 400
    assert value["message"].startswith(message)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [("GET", "/nope", 404, "Not Found"), ("DELETE", "/v1/ping", 405, "Method Not Allowed")],
)
async def test_unknown_paths_and_methods_have_json_errors(rack, method, path, status, message):
    got, value = await rack.internal(method, path)
    assert (got, value["message"]) == (status, message)


BODIES = [
    (b"{", {}, "unable to parse JSON body: "),
    (
        b'{"vmm_state": {"state": "runing", "gen": 3, "time_updated": "2026-01-01T00:00:00Z"}}',
        {},
        "vmm_state.state",
    ),
    (
        b'{"vmm_state": {"state": "creating", "gen": 3, "time_updated": "2026-01-01T00:00:00Z"}}',
        {},
        "unable to parse",
    ),
    (b'{"vmm_state": {"state": "saga_unwound", "gen": 3, "time_updated": "2026-01-01T00:00:00Z"}}', {}, "unable to"),
    (
        b'{"vmm_state": {"state": "running", "gen": -1, "time_updated": "2026-01-01T00:00:00Z"}}',
        {},
        "unable to parse",
    ),
    (b"{}", {"content-type": "text/plain"}, "unsupported content-type: "),
    (b"{}", {"content-type": "application/octet-stream"}, 'expected content type "application/json"'),
    (b" " * (1024 * 1024 + 1), {}, "request body exceeded maximum size of 1048576 bytes"),
]


@in_one_test(("body", "headers", "words"), BODIES, ids=[words for *_, words in BODIES])
async def test_bodies_that_do_not_fit_are_400(rack, body, headers, words):
    status, value = await rack.internal("PUT", f"/vmms/{UNKNOWN}", body, VERSION | headers)
    assert status == 400
    assert words in value["message"]


async def test_a_bad_path_parameter_is_a_400(rack):
    status, value = await rack.internal("PUT", "/vmms/nonsense", report(S.RUNNING, 3))
    assert status == 400
    assert value["message"].startswith("bad parameter in URL path: ")


async def test_reports_and_registrations_have_their_documented_answers(rack):
    assert (await rack.internal("PUT", f"/vmms/{UNKNOWN}", report(S.RUNNING, 3)))[0] == 500
    one = sled_id(1)
    status, info = await rack.internal("GET", f"/sled-agents/{one}")
    assert (status, info["generation"]) == (200, 1)
    assert (await rack.internal("POST", f"/sled-agents/{one}", info))[0] == 500
    assert (await rack.internal("POST", f"/sled-agents/{one}", info | {"generation": 2}))[0] == 204
    assert (await rack.internal("GET", f"/sled-agents/{UNKNOWN}"))[0] == 404
    assert (await rack.internal("POST", f"/sled-agents/{UNKNOWN}", info | {"sa_address": "x"}))[0] == 400


# ---- a life over sockets -------------------------------------------------------------------------------------------


@in_one_test("name", ["Web", "1st", "web-", "a b", "a/b", "", "x" * 64, A_UUID])
async def test_a_name_that_is_none_is_a_400(rack, name):
    status, body = await rack.control("POST", "/v1/instances", {"name": name})
    assert status == 400
    assert "JSON body: name: " in body["message"]


async def test_a_whole_life_over_the_control_api(rack):
    await rack.running()
    status, value = await rack.control("GET", "/v1/instances")
    assert [row["name"] for row in value["items"]] == ["web"]
    status, value = await rack.control("DELETE", "/v1/instances/web")
    assert (status, value["error_code"]) == (400, "InvalidRequest")
    assert value["message"] == "cannot delete instance: instance is running or has not yet fully stopped"
    status, value = await rack.control("POST", "/v1/instances/web/reboot")
    assert (status, value["run_state"]) == (202, "rebooting")
    await rack.settle()
    sled, _ = await rack.vmm("web")
    other = next(key for key in rack.sleds if key != sled.fake.id)
    status, value = await rack.control("POST", "/v1/instances/web/migrate", {"dst_sled_id": str(other)})
    assert (status, value["run_state"]) == (200, "migrating")
    await rack.settle()
    full = (await rack.control("GET", "/v1/instances/web"))[1]
    assert (full["sled_id"], full["instance"]["run_state"]) == (str(other), "running")
    assert (await rack.control("GET", "/v1/instances/web/console"))[0] == 200
    status, value = await rack.control("POST", "/v1/instances/web/stop")
    assert (status, value["run_state"]) == (202, "stopping")
    await rack.settle()
    assert await rack.public("web") == "stopped"
    timeline = (await rack.control("GET", "/v1/instances/web"))[1]["timeline"]
    shown = " ".join(line["text"] for line in timeline if line["what"] == "public")
    life = "creating stopped starting running rebooting running migrating running stopping stopped"
    assert shown == life
    assert (await rack.control("POST", "/v1/tasks/abandoned_vmm_reaper"))[0] == 204
    assert (await rack.control("DELETE", "/v1/instances/web"))[0] == 204
    status, value = await rack.control("GET", "/v1/instances/web")
    assert (status, value["message"]) == (404, 'not found: instance with name "web"')
    for sled in rack.sleds.values():
        assert {headers["api-version"] for _, _, headers, _ in sled.requests} == {"48.0.0"}


async def test_an_operator_migrates_over_the_lockstep_api(rack):
    web = await rack.running()
    sled, _ = await rack.vmm("web")
    other = next(key for key in rack.sleds if key != sled.fake.id)
    lockstep = rack.nexus.lockstep
    status, value = await rack.request(lockstep, "POST", f"/instances/{web}/migrate", {"dst_sled_id": str(other)})
    assert (status, value["run_state"]) == (200, "migrating")
    status, value = await rack.request(lockstep, "POST", f"/instances/{web}/migrate", {"dst_sled_id": "x"})
    assert status == 400


async def test_instances_are_shown_as_the_lockstep_document_says(rack):
    await rack.running()
    for row in (await rack.control("GET", "/v1/instances"))[1]["items"]:
        assert not fits("other/nexus-lockstep", "Instance", row)


async def test_addresses_of_vms_on_loopback_sleds_can_be_bound_and_differ(rack):
    for name in ("a", "b"):
        await rack.running(name)
    addresses = {(await rack.vmm(name))[1].address for name in ("a", "b")}
    assert len(addresses) == 2
    for address in addresses:
        told = SocketAddress.parse(address)
        assert told.host.startswith("127.")
        server = await asyncio.start_server(lambda *_: None, told.host, told.port)
        server.close()
        await server.wait_closed()


async def test_ips_subnets_sleds_and_events(rack):
    await rack.running()
    body = {"kind": "floating", "address": "203.0.113.9"}
    assert (await rack.control("POST", "/v1/instances/web/external-ips", body))[0] == 202
    subnet = {"kind": "subnet", "address": "192.0.2.64/28"}
    assert (await rack.control("POST", "/v1/instances/web/external-ips", subnet))[0] == 202
    assert (await rack.control("DELETE", "/v1/instances/web/external-ips", subnet))[0] == 204
    sled, vmm = await rack.vmm("web")
    assert sled.requests[-1][:2] == ("DELETE", f"/vmms/{vmm.id}/attached-subnets/192.0.2.64%2F28")
    assert (await rack.control("DELETE", "/v1/instances/web/external-ips", body))[0] == 204
    assert sled.requests[-1][3] == {"type": "floating", "value": "203.0.113.9"}
    status, value = await rack.control("GET", "/v1/sleds")
    assert [row["id"] for row in value["items"]] == [str(key) for key in rack.sleds]
    status, value = await rack.control("PUT", f"/v1/sleds/{sled_id(1)}", {"power": "off"})
    assert (status, value["power"]) == (200, "off")
    first = (await rack.control("GET", "/v1/events"))[1]
    assert first["items"][0]["number"] == 1
    assert (await rack.control("GET", f"/v1/events?after={first['next']}"))[1] == {"items": [], "next": first["next"]}
    assert (await rack.control("GET", "/v1/events?after=x"))[0] == 400
    assert (await rack.control("POST", "/v1/tasks/nonsense"))[0] == 404


# ---- answers of real sockets ---------------------------------------------------------------------------------------


async def refuse(_request):
    raise web.HTTPServiceUnavailable(text=json.dumps({"request_id": "x", "message": "busy"}))


async def nonsense(_request):
    return web.Response(text="{", content_type="application/json")


async def no_error_body(_request):
    return web.Response(status=500, text="oops")


async def close(request):
    request.transport.close()
    return web.Response()


async def wrong_success(_request):
    return web.Response(status=202)


@pytest.mark.parametrize(
    ("answer", "status"), [(refuse, 503), (nonsense, 500), (no_error_body, 500), (close, 502), (wrong_success, 500)]
)
async def test_what_a_sled_says_to_a_stop_reaches_the_user(rack, answer, status):
    await rack.running()
    sled, _ = await rack.vmm("web")
    sled.answers["PUT", "state"] = answer
    got, value = await rack.control("POST", "/v1/instances/web/stop")
    assert got == status
    assert await rack.public("web") == "running"
    assert "request_id" in value


async def test_a_hanging_sled_is_a_504():
    released = asyncio.Event()

    async def hang(_request):
        await released.wait()
        return web.Response()

    async with AsyncExitStack() as stack:
        rack = await HttpRack.make(stack, sleds=1, sled_timeout_s=1.0)
        await rack.running()
        sled, _ = await rack.vmm("web")
        sled.answers["PUT", "state"] = hang
        assert (await rack.control("POST", "/v1/instances/web/stop"))[0] == 504
        released.set()


async def test_a_call_is_sent_once_even_if_the_connection_closes(rack):
    await rack.running()
    sled, _ = await rack.vmm("web")
    sled.answers["PUT", "state"] = close
    before = len(sled.requests)
    assert (await rack.control("POST", "/v1/instances/web/stop"))[0] == 502
    assert len(sled.requests) == before + 1


async def test_a_sled_that_is_gone_is_a_502(rack):
    await rack.running()
    sled, _ = await rack.vmm("web")
    await sled.runner.cleanup()
    assert (await rack.control("POST", "/v1/instances/web/stop"))[0] == 502


async def test_older_versions_shape_the_bodies():
    async with AsyncExitStack() as stack:
        rack = await HttpRack.make(stack, sleds=1, sled_api_version="10.0.0")
        await rack.running()
        (sled,) = rack.sleds.values()
        method, _, headers, body = sled.requests[0]
        assert (method, headers["api-version"]) == ("PUT", "10.0.0")
        assert "external_ips" not in body["local_config"]
        assert "source_nat" in body["local_config"]


@pytest.mark.parametrize("version", ["49.0.0", "0.1.0"])
def test_unknown_sled_api_versions_are_refused(version):
    with pytest.raises(ValueError, match="not known"):
        SledClient(version)


# ---- faults and restarts -------------------------------------------------------------------------------------------


async def test_faults_answer_delay_refuse_and_lose(rack):
    await rack.running()
    _, vmm = await rack.vmm("web")
    path = f"/vmms/{vmm.id}"
    status, made = await rack.control("POST", "/v1/faults", {"do": "answer", "status": 503, "times": 2})
    assert status == 201
    for expected in (503, 503, 204):
        assert (await rack.internal("PUT", path, report(S.RUNNING, 3)))[0] == expected
    assert (await rack.control("GET", "/v1/faults"))[1]["items"][0]["hits"] == 2
    assert (await rack.control("DELETE", f"/v1/faults/{made['id']}"))[0] == 204
    assert (await rack.control("DELETE", f"/v1/faults/{made['id']}"))[0] == 404
    for do in ("refuse", "lose"):
        await rack.control("POST", "/v1/faults", {"do": do, "times": 1})
    with pytest.raises(aiohttp.ClientError):
        await rack.internal("PUT", path, report(S.REBOOTING, 50))
    assert await rack.public("web") == "running"
    with pytest.raises(aiohttp.ClientError):
        await rack.internal("PUT", path, report(S.REBOOTING, 50))
    assert await rack.public("web") == "rebooting"
    await rack.control("DELETE", "/v1/faults")
    await rack.control("POST", "/v1/faults", {"do": "delay", "delay_ms": 1})
    assert (await rack.internal("PUT", path, report(S.RUNNING, 51)))[0] == 204
    assert (await rack.internal("GET", "/v1/ping"))[0] == 200
    assert (await rack.control("POST", "/v1/faults", {"do": "explode"}))[0] == 400


async def test_a_hanging_request_ends_with_its_fault(rack):
    await rack.running()
    _, vmm = await rack.vmm("web")
    await rack.control("POST", "/v1/faults", {"do": "hang"})
    hanging = asyncio.ensure_future(rack.internal("PUT", f"/vmms/{vmm.id}", report(S.REBOOTING, 50)))
    while (await rack.control("GET", "/v1/faults"))[1]["items"][0]["hits"] == 0:
        await asyncio.sleep(0)
    await rack.control("DELETE", "/v1/faults")
    with pytest.raises(aiohttp.ClientError):
        await hanging
    assert await rack.public("web") == "running"


async def back_up(rack):
    while not (await rack.control("GET", "/v1/state"))[1]["up"]:
        await asyncio.sleep(0.01)
    while True:
        try:
            return await rack.internal("GET", "/v1/ping")
        except aiohttp.ClientError:
            await asyncio.sleep(0.01)


async def test_a_restart_keeps_address_and_records(rack):
    await rack.running()
    before = rack.nexus.internal
    assert (await rack.control("POST", "/v1/restart", {"down_ms": 50}))[0] == 202
    while (await rack.control("GET", "/v1/state"))[1]["up"]:
        await asyncio.sleep(0)
    assert await back_up(rack) == (200, {"status": "ok"})
    assert rack.nexus.internal == before
    assert await rack.public("web") == "running"
    assert (await rack.control("POST", "/v1/restart"))[0] == 202


async def test_a_start_survives_a_restart_in_the_middle(rack):
    (sled, *_) = rack.sleds.values()
    asked = asyncio.Event()
    released = asyncio.Event()

    async def slow(request):
        asked.set()
        await released.wait()
        raise web.HTTPServiceUnavailable(text=json.dumps({"request_id": "x", "message": "too late"}))

    sled.answers["*"] = slow
    creating = asyncio.ensure_future(rack.control("POST", "/v1/instances", {"name": "web"}))
    await asked.wait()
    create, start = (await rack.control("GET", "/v1/state"))[1]["sagas"]
    assert (create["kind"], create["awaits"]) == ("instance-create", start["id"])
    assert (start["kind"], start["at"]) == ("instance-start", "register")
    assert start["propolis_id"] is not None
    await rack.control("POST", "/v1/restart")
    with pytest.raises(aiohttp.ClientError):
        await creating
    sled.answers.clear()
    released.set()
    await back_up(rack)
    while (await rack.control("GET", "/v1/state"))[1]["sagas"]:
        await asyncio.sleep(0.01)
    await rack.settle()
    assert await rack.public("web") == "running"


async def test_an_armed_crash_takes_the_listener_down_until_a_restart(rack):
    await rack.running()
    _, vmm = await rack.vmm("web")
    assert (await rack.control("POST", "/v1/arm-crash", {"point": "after_commit"}))[0] == 204
    with pytest.raises(aiohttp.ClientError):
        await rack.internal("PUT", f"/vmms/{vmm.id}", report(S.DESTROYED, 50))
    assert not (await rack.control("GET", "/v1/state"))[1]["up"]
    await rack.control("POST", "/v1/restart")
    await back_up(rack)
    assert await rack.public("web") == "stopping"
    await rack.control("POST", "/v1/tasks/instance_updater")
    assert await rack.public("web") == "stopped"


# ---- serving -------------------------------------------------------------------------------------------------------


async def test_serve_says_what_it_is_and_writes_the_port_file(tmp_path):
    said, stop = [], asyncio.get_running_loop().create_future()
    server = NexusServer(config=Config(variant="no-watcher", saga_mode=SagaMode.QUEUED))
    port_file = tmp_path / "n.json"
    task = asyncio.ensure_future(serve(server, port_file=port_file, say=said.append, stop=stop))
    while not said:
        await asyncio.sleep(0)
    ports = json.loads(port_file.read_text())
    assert ports.pop("pid") == os.getpid()
    assert ports == {"address": server.internal, "lockstep": server.lockstep, "control": server.control}
    assert said == [banner(server)]
    assert said[0].startswith("This is not Nexus.")
    assert "WRONG ON PURPOSE: variant no-watcher" in said[0]
    stop.set_result(0)
    await task
    assert not port_file.exists(), "nobody is there any more"


async def test_a_bug_of_the_core_ends_the_server(monkeypatch):
    server, ready = NexusServer(), asyncio.Event()
    task = asyncio.ensure_future(serve(server, say=lambda _: ready.set()))
    await ready.wait()

    def broken(_item, _now_us):
        raise AssertionError("no rest")

    monkeypatch.setattr(server.nexus, "handle", broken)
    with pytest.raises(AssertionError):
        server.host.feed(Tick())
    with pytest.raises(AssertionError, match="no rest"):
        await task


async def test_a_taken_address_is_an_os_error_and_leaves_nothing_open(rack):
    with pytest.raises(OSError, match="address already in use"):
        async with NexusServer(rack.nexus.internal):
            pass


@in_one_test("text", ["", "::1", "[::1]", "[::1]:x", "[::1]:99999", "nowhere:1"])
def test_bad_addresses_are_value_errors(text):
    with pytest.raises(ValueError, match="is no address"):
        NexusServer(text)


async def test_the_control_api_beyond_loopback_needs_a_token():
    with pytest.raises(ValueError, match="needs a token"):
        NexusServer(control="[::]:0")
    async with AsyncExitStack() as stack:
        rack = await HttpRack.make(stack, sleds=0, control_token="secret")
        assert (await rack.control("GET", "/v1/state"))[0] == 401
        assert (await rack.control("GET", "/v1/state", headers={"authorization": "Bearer wrong"}))[0] == 401
        assert (await rack.control("GET", "/v1/state", headers={"authorization": "Bearer secret"}))[0] == 200


def test_an_unknown_variant_is_named():
    with pytest.raises(KeyError, match="no-watcher"):
        NexusServer(config=Config(variant="nonsense"))
