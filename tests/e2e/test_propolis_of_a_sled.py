"""Each VMM of a daemon as its own Propolis on the network, and migrations between two daemons over it."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import types
import unittest.mock
import uuid
from contextlib import nullcontext
from pathlib import Path

import aiohttp
import attrs
import pytest
from support.nexus.fake_nexus import FakeNexus
from support.propolis.side import PROPOLIS_HEADERS, Side, address
from support.propolis.specs import a_blob, a_disk, a_sled_spec, serial
from support.rows import in_one_test
from support.wire.register_body import register_body

from nexus_client.dropshot.text import IpNet, SocketAddress
from propolis_stub.contract import Request
from propolis_stub.pacers import SettablePacer
from propolis_stub.presets import paces
from propolis_stub.types import RequestKind
from propolis_stub.waiting import Pace, Point
from sim_sled.core.config import SledConfig
from sim_sled.daemon import propolis_api
from sim_sled.daemon.propolis_mode import PropolisMode


async def test_a_vmm_on_loopback_answers_as_a_propolis_and_shows_where():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.LOOPBACK) as side:
        await side.run(nexus, vmm, "[fd00:1122:3344:101::1]:12400")
        at = side.daemon.propolis.address_of(side.sled_id, vmm)
        async with aiohttp.ClientSession(f"http://{at}", headers=PROPOLIS_HEADERS) as propolis:
            async with propolis.get("/instance") as answer:
                shown = await answer.json()
                assert (answer.status, shown["instance"]["state"]) == (200, "Running")
                assert shown["instance"]["properties"]["name"] == "web"
            async with propolis.put("/instance/state", json="Reboot") as answer:
                assert answer.status == 204  # somebody else than the sled agent reboots it: the sled sees it
            await nexus.heard(vmm, "rebooting")
            async with propolis.get("/instance/serial/history", params={"from_start": "0"}) as answer:
                assert "login:" in bytes((await answer.json())["data"]).decode()
            poll = asyncio.create_task(propolis.get("/instance/state-monitor", json={"gen": 1000}))
            await side.ask(vmm, "stopped")
            await nexus.heard(vmm, "destroyed")
            with contextlib.suppress(aiohttp.ClientError):
                assert (await poll).status == 410


@pytest.mark.parametrize("unheard", [64, 3], ids=["all of it waits for somebody", "more than is kept for nobody"])
async def test_who_is_the_first_to_ask_a_vmm_is_told_all_that_it_has_said_before(monkeypatch, unheard):
    monkeypatch.setattr(propolis_api, "UNHEARD_MAX", unheard)
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.LOOPBACK) as side:
        await side.run(nexus, vmm, "[fd00:1122:3344:101::1]:12400")
        await side.ask(vmm, "reboot")
        await nexus.until(lambda: nexus.states(vmm).count("running") == 2)
        at = side.daemon.propolis.address_of(side.sled_id, vmm)
        async with aiohttp.ClientSession(f"http://{at}", headers=PROPOLIS_HEADERS) as propolis:
            async with propolis.get("/instance/serial/history", params={"from_start": "0"}) as answer:
                assert bytes((await answer.json())["data"]).decode().count("login:") == 2
            async with propolis.get("/instance/state-monitor", json={"gen": 0}) as answer:
                told = await answer.json()
                assert told["state"] == "Running"
            poll = asyncio.create_task(propolis.get("/instance/state-monitor", json={"gen": told["gen"] + 1}))
            await side.ask(vmm, "reboot")
            assert (await (await poll).json())["gen"] > told["gen"]


async def test_a_vmm_that_nobody_asks_is_a_socket_and_no_server():
    """All VMMs of a rack with `--workers` have an address of their own: a life must not pay for what nobody wants."""
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.LOOPBACK) as side:
        with unittest.mock.patch.object(propolis_api, "PropolisServer") as server:
            await side.run(nexus, vmm, "[fd00:1122:3344:101::1]:12400")
            assert side.daemon.propolis.address_of(side.sled_id, vmm)
            await side.ask(vmm, "stopped")
            await nexus.heard(vmm, "destroyed")
        server.assert_not_called()


@pytest.mark.parametrize("kernel", [propolis_api.select, types.SimpleNamespace()], ids=["with epoll", "without"])
async def test_whoever_knocks_at_one_of_many_vmms_is_let_in_and_no_other_is_woken(monkeypatch, kernel):
    monkeypatch.setattr(propolis_api, "select", kernel)
    vmms = [uuid.uuid4() for _ in range(3)]
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.LOOPBACK) as side:
        for vmm in vmms:
            await side.run(nexus, vmm, "[fd00:1122:3344:101::1]:12400")
        async with aiohttp.ClientSession(headers=PROPOLIS_HEADERS) as propolis:
            for _ in range(2):  # a connection of its own each time
                at = side.daemon.propolis.address_of(side.sled_id, vmms[1])
                async with propolis.get(f"http://{at}/instance", headers={"connection": "close"}) as answer:
                    assert (await answer.json())["instance"]["state"] == "Running"
        served = side.daemon.propolis._served
        assert [served[side.sled_id.int, vmm.int].server is not None for vmm in vmms] == [False, True, False]


async def test_a_vmm_that_is_gone_does_not_listen_any_more():
    vmm, addr = uuid.uuid4(), address(1)
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.REGISTERED) as side:
        await side.run(nexus, vmm, addr)
        assert side.daemon.propolis.address_of(side.sled_id, vmm) == addr
        await side.ask(vmm, "stopped")
        await nexus.heard(vmm, "destroyed")
        while side.daemon.propolis.address_of(side.sled_id, vmm) is not None:
            await asyncio.sleep(0.01)  # until the acknowledgement has come back; the daemon has no event for it
        async with aiohttp.ClientSession(headers=PROPOLIS_HEADERS) as propolis:
            with pytest.raises(aiohttp.ClientConnectionError):
                await propolis.get(f"http://{addr}/instance")


def migrating_for_ever():
    """A pacer with which all else takes no time."""
    pacer = SettablePacer(paces("instant"))
    pacer.set(Point.M_RAM_PUSH, Pace(None))
    return pacer


async def said_by(addr):
    """A connection to a VMM that has asked something, and has been answered."""
    at = SocketAddress.parse(addr)
    reader, writer = await asyncio.open_connection(at.host, at.port)
    writer.write(b"GET /instance/migration-status HTTP/1.1\r\napi-version: 5.0.0\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_the_end_of_a_vmm_ends_its_connections_so_the_next_one_at_its_address_is_not_asked_over_them():
    """As the end of a process: one that rests between two requests, and one over which nothing was ever asked."""
    first, second, addr = uuid.uuid4(), uuid.uuid4(), address(9)
    at = SocketAddress.parse(addr)
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.REGISTERED) as side:
        await side.run(nexus, first, addr)
        silent, one = await asyncio.open_connection(at.host, at.port)
        resting, other = await said_by(addr)
        async with side.http.delete(f"/vmms/{first}") as answer:
            assert answer.status == 200
        await side.run(nexus, second, addr)
        async with asyncio.timeout(20):
            assert await silent.read() == b""
            assert (await resting.read()).endswith(b"}")  # of the answer that it had
        for each in (one, other):
            each.close()


async def test_a_sled_that_leaves_takes_the_propolis_apis_of_its_vmms_along():
    vmm, addr = uuid.uuid4(), address(10)
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.REGISTERED) as side:
        await side.run(nexus, vmm, addr)
        resting, writer = await said_by(addr)
        await side.daemon.leave(side.sled_id)
        async with asyncio.timeout(20):
            await resting.read()
        writer.close()
        async with aiohttp.ClientSession(headers=PROPOLIS_HEADERS) as propolis:
            with pytest.raises(aiohttp.ClientConnectionError):
                await propolis.get(f"http://{addr}/instance")


async def test_a_sled_that_leaves_in_the_middle_of_a_migration_fails_the_other_side_as_everybody_sees():
    source, target = uuid.uuid4(), uuid.uuid4()
    async with (
        FakeNexus() as nexus,
        Side(nexus, PropolisMode.REGISTERED, pacer=migrating_for_ever()) as side,
        aiohttp.ClientSession(f"http://{address(12)}", headers=PROPOLIS_HEADERS) as propolis,
    ):
        other = SledConfig(uuid.uuid4(), "[::1]:0")
        await side.daemon.join(other)
        await side.run(nexus, source, address(11))
        at = f"http://{side.daemon.addresses[other.sled_id]}/vmms/{target}"
        body = register_body("migrating", migration_id=uuid.uuid4(), addr=address(12))
        async with side.http.put(at, json=body) as answer:
            assert answer.status == 200
        asked = {"type": "migration_target", "value": {"src_propolis_addr": address(11)}}
        async with side.http.put(f"{at}/state", json={"state": asked}) as answer:
            assert answer.status == 200
        await nexus.until(lambda: any(who == str(source) and told["migration_out"] for who, told in nexus.acked))
        async with propolis.get("/instance/state-monitor", json={"gen": 0}) as answer:
            seen = await answer.json()
        poll = asyncio.create_task(propolis.get("/instance/state-monitor", json={"gen": seen["gen"] + 1}))
        await side.daemon.leave(side.sled_id)
        async with asyncio.timeout(20):
            assert (await (await poll).json())["migration"]["migration_in"]["state"] == "Error"
        await nexus.heard(target, "failed")


async def test_a_daemon_that_has_ended_opens_nothing_for_a_vm_that_says_one_thing_more():
    """What ends with its connections may be an input: the loss of a peer, a key at a console."""
    vmm, addr = uuid.uuid4(), address(13)
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.REGISTERED) as side:
        await side.run(nexus, vmm, addr)
        await side.daemon.stop()
        side.daemon.propolis_input(side.sled_id, vmm, Request(RequestKind.REBOOT))
        assert side.daemon.propolis.address_of(side.sled_id, vmm) is None
        async with aiohttp.ClientSession(headers=PROPOLIS_HEADERS) as propolis:
            with pytest.raises(aiohttp.ClientConnectionError):
                await propolis.get(f"http://{addr}/instance")


async def test_an_address_that_cannot_be_bound_fails_the_vmm():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.REGISTERED) as side:
        await side.register(vmm, "[2001:db8::1]:12400")
        await side.ask(vmm, "running")
        await nexus.heard(vmm, "failed")


@pytest.fixture
async def registered():
    """A Nexus and a sled whose Propolis servers are where it is told to have them."""
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.REGISTERED) as side:
        yield nexus, side


@in_one_test(
    "addr",
    ["[::]:0", "0.0.0.0:0", "[::ffff:0.0.0.0]:0", "[::2]:0", "10.0.0.1:0", "[fe80::1%1]:0", "[2001:db8::1]:0"],
)
async def test_a_body_opens_no_address_that_is_not_the_sleds_own(registered, addr):
    nexus, side = registered
    with pytest.raises(ValueError, match="neither loopback nor of the sled's own prefix"):
        side.daemon.propolis._check_ours(side.sled_id, SocketAddress.parse(addr))
    if not addr.startswith(("10.", "[::ffff")):
        vmm = uuid.uuid4()
        await side.register(vmm, addr.replace(":0", ":18080"))
        await side.ask(vmm, "running")
        await nexus.heard(vmm, "failed")


@in_one_test(
    ("sled", "addr", "nets", "ours"),
    [
        ("[fd00:1:2:3::1]:1", "[fd00:1:2:3::9]:1", (), True),
        ("[fd00:1:2:3::1]:1", "[fd00:1:2:4::9]:1", (), False),
        ("[fd00:1:2:3::1]:1", "[fd00:1:2:4::9]:1", ("fd00:1:2::/48",), True),
        ("[fd00:1:2:3::1]:1", "[::1]:1", (), True),
        ("[fd00:1:2:3::1]:1", "[::]:1", (), False),
        ("[::1]:1", "[::]:1", ("::/0",), True),
        ("[::]:1", "[::]:1", (), False),
        ("10.0.0.1:1", "10.0.0.1:2", (), True),
        ("10.0.0.1:1", "10.0.0.2:2", (), False),
        ("10.0.0.1:1", "0.0.0.0:2", (), False),
    ],
)
async def test_the_sleds_own_prefix_and_what_is_allowed_beside_it(registered, sled, addr, nets, ours):
    _, side = registered
    side.daemon.addresses[side.sled_id] = sled
    side.daemon.options = attrs.evolve(side.daemon.options, propolis_nets=tuple(map(IpNet.parse, nets)))
    with nullcontext() if ours else pytest.raises(ValueError):
        side.daemon.propolis._check_ours(side.sled_id, SocketAddress.parse(addr))


UNBUILDABLE = [
    pytest.param({"spare": a_blob()}, {}, id="a backend that nobody uses"),
    pytest.param({"d": a_disk("nothing")}, {}, id="a disk without its backend"),
    pytest.param({"d": a_disk("b"), "b": a_blob("%")}, {}, id="a blob that is no base64"),
    pytest.param({"p": serial(), "q": serial()}, {}, id="a serial port twice"),
    pytest.param({"d": a_disk("b"), "b": a_blob(), "e": a_disk("c"), "c": a_blob()}, {}, id="a PCI path twice"),
    pytest.param({}, {"cpus": 0}, id="no vCPUs"),
    pytest.param({}, {"cpus": 255}, id="255 vCPUs"),
]


@pytest.fixture(params=[PropolisMode.NONE, PropolisMode.LOOPBACK])
async def served_or_not(request):
    async with FakeNexus() as nexus, Side(nexus, request.param) as side:
        yield nexus, side


@in_one_test(("components", "board"), UNBUILDABLE)
async def test_a_vmm_that_propolis_refuses_is_failed_told_and_forgotten(served_or_not, components, board):
    """One rule, whether or not its Propolis is served (SA 2.12)."""
    nexus, side = served_or_not
    vmm = uuid.uuid4()
    body = register_body() | {"vmm_spec": a_sled_spec(components, **board)}
    async with side.http.put(f"/vmms/{vmm}", json=body) as answer:
        assert answer.status == 200, await answer.text()
    await side.ask(vmm, "running")
    await nexus.heard(vmm, "failed")
    assert [told["vmm_state"]["state"] for who, told in nexus.acked if who == str(vmm)] == ["failed"]
    while vmm in side.daemon.rack.sleds[side.sled_id].vmms:
        await asyncio.sleep(0.01)  # until the acknowledgement has come back; the daemon has no event for it
    async with side.http.get(f"/vmms/{vmm}/state") as answer:
        assert answer.status == 404


@pytest.mark.parametrize("mode", [PropolisMode.NONE, PropolisMode.LOOPBACK])
async def test_a_vmm_of_254_vcpus_runs(mode):
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, Side(nexus, mode) as side:
        body = register_body() | {"vmm_spec": a_sled_spec({"d": a_disk("b"), "b": a_blob("YQ==")}, cpus=254)}
        async with side.http.put(f"/vmms/{vmm}", json=body) as answer:
            assert answer.status == 200, await answer.text()
        await side.ask(vmm, "running")
        await nexus.heard(vmm, "running")


async def test_a_vm_migrates_between_two_daemons_and_back():
    v1, v2, v3, m1, m2 = (uuid.uuid4() for _ in range(5))
    async with (
        FakeNexus() as nexus,
        Side(nexus, PropolisMode.REGISTERED) as a,
        Side(nexus, PropolisMode.REGISTERED) as b,
    ):
        await a.run(nexus, v1, address(2))
        await b.register(v2, address(3), "migrating", m1)
        await b.ask(v2, "migration_target", {"src_propolis_addr": address(2)})
        await nexus.heard(v2, "running")
        await nexus.heard(v1, "destroyed")
        await a.register(v3, address(4), "migrating", m2)
        await a.ask(v3, "migration_target", {"src_propolis_addr": address(3)})
        await nexus.heard(v3, "running")
        await nexus.heard(v2, "destroyed")
    for vmm, side in ((v1, "migration_out"), (v2, "migration_in"), (v2, "migration_out"), (v3, "migration_in")):
        last = [told[side] for who, told in nexus.acked if who == str(vmm)][-1]
        assert last["state"] == "completed", (vmm, side)


async def test_a_console_is_told_where_its_vm_has_gone():
    source, target = uuid.uuid4(), uuid.uuid4()
    async with (
        FakeNexus() as nexus,
        Side(nexus, PropolisMode.REGISTERED) as a,
        Side(nexus, PropolisMode.REGISTERED) as b,
        aiohttp.ClientSession(headers=PROPOLIS_HEADERS) as http,
    ):
        await a.run(nexus, source, address(15))
        async with http.ws_connect(f"ws://{address(15)}/instance/serial?most_recent=0") as console:
            await b.register(target, address(16), "migrating", uuid.uuid4())
            await b.ask(target, "migration_target", {"src_propolis_addr": address(15)})
            async with asyncio.timeout(20):
                while (message := await console.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
        assert message.json()["Migrating"]["destination"] == address(16)


async def test_a_source_that_does_not_exist_fails_the_target():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, Side(nexus, PropolisMode.REGISTERED) as side:
        await side.register(vmm, address(5), "migrating", uuid.uuid4())
        await side.ask(vmm, "migration_target", {"src_propolis_addr": address(6)})
        await nexus.heard(vmm, "failed")
    last = [told for who, told in nexus.acked if who == str(vmm)][-1]
    assert last["migration_in"]["state"] == "failed"


async def test_a_target_that_is_unregistered_in_the_middle_leaves_the_source_running():
    v1, v2 = uuid.uuid4(), uuid.uuid4()
    async with (
        FakeNexus() as nexus,
        Side(nexus, PropolisMode.REGISTERED) as a,
        Side(nexus, PropolisMode.REGISTERED) as b,
    ):
        await a.run(nexus, v1, address(7))
        await b.register(v2, address(8), "migrating", uuid.uuid4())
        nexus.status = 503  # nothing is acknowledged, so that the target cannot get to its end unseen
        await b.ask(v2, "migration_target", {"src_propolis_addr": address(7)})
        await nexus.until(lambda: any(who == str(v1) and told["migration_out"] for who, told, _ in nexus.seen))
        async with b.http.delete(f"/vmms/{v2}") as answer:
            answered = await answer.json()
            assert answer.status == 200, answered
            ended = answered["updated_runtime"]
        nexus.status = 204
        if ended is not None and ended["migration_in"]["state"] == "failed":
            await nexus.until(
                lambda: any(
                    who == str(v1) and told["migration_out"] and told["migration_out"]["state"] == "failed"
                    for who, told in nexus.acked
                )
            )
            async with a.http.get(f"/vmms/{v1}/state") as answer:
                assert (await answer.json())["vmm_state"]["state"] == "running"
        else:
            await nexus.heard(v1, "destroyed")  # it was quicker than the DELETE


@pytest.mark.long
@pytest.mark.skipif(
    shutil.which("ip") is None or shutil.which("unshare") is None, reason="needs `ip` and `unshare` for a namespace"
)
def test_a_prefix_that_is_local_makes_every_address_of_it_bindable():
    """In a network namespace of its own: docs/propolis.md's recipe for production-like addresses."""
    script = (
        "ip link set lo up && ip -6 route add local fd00:1122:3344::/48 dev lo && "
        f'{sys.executable} -c "from sim_sled.daemon.propolis_api import bind; '
        "print(bind('fd00:1122:3344:101::7', 12400).getsockname()[:2])\""
    )
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-ec", script],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=60,
    )  # fmt: skip
    if "unshare" in done.stderr and "not permitted" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.stdout.strip() == "('fd00:1122:3344:101::7', 12400)", done.stderr
