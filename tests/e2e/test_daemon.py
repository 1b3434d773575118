"""The daemon on real sockets: wiring only. Rules are tested in the core, bodies and errors in the HTTP layer."""

import asyncio
import contextlib
import json
import signal
import socket
import uuid
from typing import Any

import aiohttp
import pytest
from support.command import in_process
from support.daemon.process import ports, sim_sled
from support.nexus.fake_nexus import FakeNexus
from support.rows import in_one_test
from support.wire.register_body import register_body

from nexus_client.dropshot.bearer import BadToken
from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.core.config import SimMode, SledConfig
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.language.pacer import PresetPacer

SERVE = ["serve", str(uuid.UUID(int=0x51ED)), "[::1]:0", "[::1]:1"]
HEADERS = {"api-version": "48.0.0"}
SLED = uuid.UUID(int=0x51ED)
MIGRATION = uuid.UUID(int=0x319)


@contextlib.asynccontextmanager
async def running(nexus: FakeNexus, mode: SimMode = SimMode.AUTO, pace: str = "instant", **options: Any) -> Any:
    config = SledConfig(SLED, "[::1]:0", mode=mode, poke_timeout_us=options.pop("poke_timeout_us", 15_000_000))
    daemon = Daemon([config], Options(nexus=nexus.address, pacer=PresetPacer(pace), **options))
    await daemon.start()
    try:
        async with aiohttp.ClientSession(f"http://{daemon.addresses[SLED]}", headers=HEADERS) as http:
            yield daemon, http
    finally:
        await daemon.stop()


async def put_state(http: aiohttp.ClientSession, vmm: uuid.UUID, kind: str) -> int:
    async with http.put(f"/vmms/{vmm}/state", json={"state": {"type": kind}}) as answer:
        return answer.status


async def register(http: aiohttp.ClientSession, vmm: uuid.UUID) -> None:
    async with http.put(f"/vmms/{vmm}", json=register_body()) as answer:
        assert answer.status == 200, await answer.text()


async def test_a_vm_lives_from_register_to_destroyed_and_is_forgotten_after_the_last_acknowledgement():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus) as (_, http):
        await register(http, vmm)
        assert await put_state(http, vmm, "running") == 200
        await nexus.heard(vmm, "running")
        assert await put_state(http, vmm, "stopped") == 200
        await nexus.heard(vmm, "destroyed")
        async with http.get(f"/vmms/{vmm}/state") as answer:
            # the acknowledgement may still be on its way back to the sled: then the final state is shown
            body = await answer.json()
            assert answer.status == 404 or body["vmm_state"]["state"] == "destroyed"
    gens = [body["vmm_state"]["gen"] for _, body in nexus.acked]
    assert gens == sorted(set(gens))


async def test_what_happens_while_nexus_is_away_is_told_when_it_is_back():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus) as (daemon, http):
        await nexus.until(lambda: nexus.sleds)
        await nexus.down()
        await register(http, vmm)
        assert await put_state(http, vmm, "running") == 200
        sled = daemon.rack.sleds[SLED]
        while (pending := sled.outbox.pending_of(vmm)) is None or not pending.why:
            await asyncio.sleep(0.01)  # until the first attempt has failed: the daemon has no event for it
        async with http.get(f"/vmms/{vmm}/state") as answer:
            assert (await answer.json())["vmm_state"]["state"] == "running"
        await nexus.up()
        await nexus.heard(vmm, "running")


@pytest.mark.parametrize("answer", [500, 503, "hang"])
async def test_a_nexus_that_fails_or_hangs_for_one_vm_does_not_delay_another(answer):
    slow, quick = uuid.uuid4(), uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus, shutdown_wait_s=0.1) as (_, http):
        nexus.answers.append(answer)
        for vmm in (slow, quick):
            await register(http, vmm)
            assert await put_state(http, vmm, "running") == 200
            await nexus.until(lambda vmm=vmm: any(who == str(vmm) for who, _, _ in nexus.seen))
        await nexus.heard(quick, "running")


async def test_a_publication_that_nexus_refuses_for_good_does_not_stop_the_next_one():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus) as (_, http):
        nexus.answers.append(400)
        await register(http, vmm)
        await put_state(http, vmm, "running")
        await nexus.until(lambda: nexus.seen)
        assert await put_state(http, vmm, "reboot") == 200
        await nexus.heard(vmm, "rebooting")


async def test_a_poke_answers_after_nexus_has_acknowledged():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus, SimMode.EXPLICIT) as (_, http):
        await register(http, vmm)
        await put_state(http, vmm, "running")
        async with http.post(f"/vmms/{vmm}/poke") as answer:
            assert answer.status == 204
        assert nexus.states(vmm) == ["running"]


async def test_a_poke_without_a_nexus_answers_503_and_the_state_is_told_later():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus, SimMode.EXPLICIT, poke_timeout_us=100_000) as (_, http):
        await nexus.until(lambda: nexus.sleds)
        await nexus.down()
        await register(http, vmm)
        await put_state(http, vmm, "running")
        async with http.post(f"/vmms/{vmm}/poke") as answer:
            assert answer.status == 503
        await nexus.up()
        await nexus.heard(vmm, "running")


async def test_a_client_that_hangs_up_during_a_poke_disturbs_nobody():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus, SimMode.EXPLICIT, shutdown_wait_s=0.1) as (_, http):
        await register(http, vmm)
        await put_state(http, vmm, "running")
        nexus.answers.append("hang")
        poke = asyncio.create_task(http.post(f"/vmms/{vmm}/poke"))
        await nexus.until(lambda: nexus.seen)
        poke.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await poke
        async with http.get(f"/vmms/{vmm}/state") as answer:
            assert (await answer.json())["vmm_state"]["state"] == "running"


async def test_a_sled_that_nexus_knows_registers_again_with_the_next_generation():
    async with FakeNexus() as nexus:
        async with running(nexus) as (daemon, _):
            await asyncio.wait_for(daemon.reporting.registered[SLED].wait(), 60)
        async with running(nexus) as (daemon, _):  # another port, so other info
            await asyncio.wait_for(daemon.reporting.registered[SLED].wait(), 60)
        assert nexus.sleds[str(SLED)]["generation"] == 2


async def test_shutdown_delivers_what_waits_and_says_what_it_could_not():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus, shutdown_wait_s=0.2) as (daemon, http):
        nexus.status = 503
        await register(http, vmm)
        await put_state(http, vmm, "running")
        await nexus.until(lambda: nexus.seen)
        left_over = await daemon.stop()
        assert [(each.propolis_id, each.state) for each in left_over] == [(vmm, "running")]
        assert "503" in left_over[0].why


async def test_two_sleds_of_one_process_that_know_the_same_vmm_do_not_disturb_each_other():
    vmm, other = uuid.uuid4(), uuid.UUID(int=0x51EE)
    sleds = [SledConfig(SLED), SledConfig(other)]
    options = {"pacer": PresetPacer("instant"), "propolis": PropolisMode.LOOPBACK, "shutdown_wait_s": 0.2}
    async with FakeNexus() as nexus:
        daemon = Daemon(sleds, Options(nexus=nexus.address, **options))
        await daemon.start()
        try:
            for sled in (SLED, other):
                async with aiohttp.ClientSession(f"http://{daemon.addresses[sled]}", headers=HEADERS) as http:
                    await register(http, vmm)
                    assert await put_state(http, vmm, "running") == 200
            await nexus.until(lambda: nexus.states(vmm) == ["running", "running"])
            listening = {daemon.propolis.address_of(sled, vmm) for sled in (SLED, other)}
            assert len(listening - {None}) == 2
            async with (
                aiohttp.ClientSession(f"http://{daemon.addresses[SLED]}", headers=HEADERS) as http,
                http.delete(f"/vmms/{vmm}") as answer,
            ):
                assert answer.status == 200
            assert daemon.propolis.address_of(other, vmm) in listening
        finally:
            assert await daemon.stop() == []


async def test_a_fault_while_serving_propolis_costs_nobody_a_publication(monkeypatch):
    logs.configure(level="critical")  # a traceback in colours takes longer than all the rest
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus, propolis=PropolisMode.LOOPBACK) as (daemon, http):

        def broken(_effect):
            raise ValueError("a bug")

        monkeypatch.setattr(daemon.propolis, "perform", broken)
        await register(http, vmm)
        assert await put_state(http, vmm, "running") == 200
        await nexus.heard(vmm, "running")


async def test_the_control_api_lists_explains_and_injects():
    vmm = uuid.uuid4()
    async with FakeNexus() as nexus, running(nexus) as (daemon, http):
        listener = await serve_control(Control(daemon, "secret"), SocketAddress("::1", 0))
        try:
            headers = {"authorization": "Bearer secret"}
            async with aiohttp.ClientSession(f"http://{listener.address}", headers=headers) as control:
                await register(http, vmm)
                await put_state(http, vmm, "running")
                await nexus.heard(vmm, "running")
                async with control.get("/vmms") as answer:
                    assert [row["state"] for row in await answer.json()] == ["running"]
                async with control.get(f"/vmms/{vmm}") as answer:
                    assert "Nexus last asked for running" in " ".join((await answer.json())["says"])
                async with control.post(f"/vmms/{vmm}/inject", json={"state": "paused"}) as answer:
                    assert answer.status == 400
                for bad in (b"[" * 60_000, b"\xff", b'{"guest": "halt", "state": "failed"}', b'{"guest": "sleep"}'):
                    async with control.post(
                        f"/vmms/{vmm}/inject", data=bad, headers={"content-type": "application/json"}
                    ) as answer:
                        assert answer.status == 400, bad[:40]
                async with control.post(f"/vmms/{vmm}/inject", json={"state": "failed"}) as answer:
                    assert answer.status == 200
                await nexus.heard(vmm, "failed")
                async with control.get(f"/vmms/{vmm}/log") as answer:
                    assert any("failed" in line["text"] for line in await answer.json())
                async with control.get("/metrics") as answer:
                    injected = f'sim_sled_happenings_total{{kind="injected",sled_id="{SLED}"}} 1.0'
                    assert injected in await answer.text()
                async with control.get("/ready") as answer:
                    assert answer.status == 200
                async with control.get(f"/sleds/{SLED}/networking") as answer:
                    assert answer.status == 200
            async with (
                aiohttp.ClientSession(f"http://{listener.address}") as stranger,
                stranger.get("/vmms") as answer,
            ):
                assert answer.status == 401
        finally:
            await listener.close()


async def test_the_control_api_beyond_loopback_needs_a_token():
    async with FakeNexus() as nexus, running(nexus) as (daemon, _):
        with pytest.raises(BadToken):
            await serve_control(Control(daemon), SocketAddress("0.0.0.0", 0))


# --- the process ---


async def test_sigterm_under_load_says_what_was_not_delivered_and_exits_0(tmp_path):
    vmm, file = uuid.uuid4(), tmp_path / "p.json"
    async with FakeNexus() as nexus:
        process = await sim_sled(
            "serve", str(SLED), "[::1]:0", nexus.address, "--port-file", str(file), "--pace", "instant",
            "--shutdown-wait", "0.2",
        )  # fmt: skip
        address = (await ports(file, process))["address"]
        async with aiohttp.ClientSession(f"http://{address}", headers=HEADERS) as http:
            nexus.status = "hang"
            await register(http, vmm)
            await put_state(http, vmm, "running")
            await nexus.until(lambda: nexus.seen)
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0, errors.decode()
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["vmm"] for line in lines if line["msg"] == "not delivered to Nexus"] == [str(vmm)]


async def test_two_daemons_on_one_port_are_one_too_many(tmp_path):
    file = tmp_path / "p.json"
    async with FakeNexus() as nexus:
        first = await sim_sled("serve", str(SLED), "[::1]:0", nexus.address, "--port-file", str(file))
        address = (await ports(file, first))["address"]
        second = await sim_sled("serve", str(uuid.uuid4()), address, nexus.address)
        _, errors = await asyncio.wait_for(second.communicate(), 30)
        first.send_signal(signal.SIGTERM)
        await asyncio.wait_for(first.communicate(), 30)
    assert (first.returncode, second.returncode) == (0, 5), errors.decode()


async def test_a_registration_that_nexus_refuses_ends_the_daemon_with_3():
    async with FakeNexus() as nexus:
        nexus.post_status = 400
        process = await sim_sled("serve", str(SLED), "[::1]:0", nexus.address)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3, errors.decode()
    assert b"no such rack" in errors


@in_one_test(
    "arguments",
    [
        pytest.param(["serve", "no-uuid", "[::1]:0", "[::1]:1"], id="a sled id that is no UUID"),
        pytest.param(["serve", str(SLED), "localhost:0", "[::1]:1"], id="a name instead of an address"),
        pytest.param(
            ["serve", str(SLED), "[::1]:0", "[::1]:1", "--reservoir-size", "1PB"], id="a size without sense"
        ),
        pytest.param(["serve", str(SLED), "[::1]:0", "[::1]:1", "--reservoir-size", "64GiB"], id="reservoir = RAM"),
        pytest.param(["serve", str(SLED), "[::1]:0", "[::1]:1", "--hardware", "/nonexistent"], id="no such file"),
        pytest.param(["serve", str(SLED), "[::1]:0", "[::1]:1", "--control", "0.0.0.0:0"], id="an open control API"),
        pytest.param([*SERVE, "--port-file", "/nonexistent/p.json"], id="a port file that cannot be written"),
        pytest.param([*SERVE, "--log-level", "loud"], id="an unknown log level"),
        pytest.param([*SERVE, "--stop-grace", "inf"], id="for ever is no number of seconds"),
        pytest.param([*SERVE, "--nexus-wait", "nan"], id="not a number of seconds"),
        pytest.param(["serve", str(SLED), "127.0.0.1:0", "[::1]:1"], id="a sled on IPv4, which Nexus does not take"),
        pytest.param([*SERVE, "--also", f"{uuid.UUID(int=1)}=127.0.0.1:0"], id="nor as a further sled"),
        pytest.param([*SERVE, "--also", f"{uuid.UUID(int=1)}"], id="a further sled without an address"),
        pytest.param(["serve", str(SLED), "[::1]:0", "[::1]:0"], id="a Nexus that listens nowhere"),
        pytest.param(["nexus", "[::1]:0", "--port-file", "/nonexistent/n.json"], id="nor can the Nexus stub's"),
    ],
)
def test_bad_input_exits_with_2_and_starts_nothing(arguments):
    """In this process: a start takes longer than to be refused."""
    code, out, errors = in_process(*arguments)
    assert (code, out) == (2, "")
    assert errors


async def test_bad_input_of_a_program_is_a_sentence_and_exit_2():
    process = await sim_sled("serve", str(SLED), "[::1]:0", "[::1]:1", "--reservoir-size", "1PB")
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (2, b"")
    assert errors.decode().startswith("sim-sled: --reservoir-size: ")


async def test_the_port_file_of_an_earlier_daemon_is_gone_before_the_next_one_starts(tmp_path):
    file = tmp_path / "p.json"
    file.write_text('{"address": "[::1]:1"}')
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        address = f"[::1]:{taken.getsockname()[1]}"
        process = await sim_sled(*SERVE, "--port-file", str(file), "--control", address)
        await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 5
    assert not file.exists()
