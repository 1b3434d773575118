"""Rules of a scenario on a live daemon, over real sockets: the same file as in the closed world."""

import asyncio
import contextlib
import json
import os
import signal
import uuid
from pathlib import Path

import aiohttp
import pytest
from support.daemon.process import ports, sim_sled
from support.nexus.fake_nexus import FakeNexus
from support.wire.register_body import register_body

from nexus_client.stub.server.serve import NexusServer
from sim_sled.core.config import SledConfig
from sim_sled.daemon import serve
from sim_sled.daemon.daemon import Daemon, Played
from sim_sled.daemon.options import Options
from sim_sled.daemon.serve import BadScenario, load_one, reload_from
from sim_sled.play.fleet import NotInFleet, engine_for

HEADERS = {"api-version": "48.0.0"}
SLED = uuid.UUID(int=0x51ED)
LIBRARY = Path(__file__).parents[2] / "scenarios"


HEAD = """
version: 1
name: live
fleet: {sleds: 1}
nexus: {internal: "http://[::1]:12221"}
agent: {stop_grace: 300ms, retry: {first: 10ms, factor: 2, max: 1s}}
latency: {starting -> running: 1ms}
rules:
"""


@contextlib.asynccontextmanager
async def playing(tmp_path, rules):
    """A daemon that plays `rules`, its Nexus, and a client."""
    file = tmp_path / "live.yaml"
    file.write_text(HEAD + rules)
    scenario = load_one(file)
    async with FakeNexus() as nexus:
        config = SledConfig(SLED, "[::1]:0", stop_grace_us=scenario.agent.stop_grace)
        options = Options(nexus=nexus.address, engine=engine_for(scenario, 7, [SLED]), shutdown_wait_s=0.1)
        daemon = Daemon([config], options)
        await daemon.start()
        try:
            await asyncio.wait_for(daemon.reporting.registered[SLED].wait(), 20)
            async with aiohttp.ClientSession(f"http://{daemon.addresses[SLED]}", headers=HEADERS) as http:
                yield daemon, nexus, http
        finally:
            await daemon.stop()


async def register(http, vmm, hostname, ncpus=2):
    async with http.put(
        f"/vmms/{vmm}", json=register_body(hostname=hostname, ncpus=ncpus, instance_id=uuid.uuid4())
    ) as answer:
        return answer.status, await answer.json()


async def ask(http, vmm, kind):
    async with http.put(f"/vmms/{vmm}/state", json={"state": {"type": kind}}) as answer:
        return answer.status


async def test_a_rule_fails_the_requests_it_means_and_no_others(tmp_path):
    rules = """
- name: too-big
  for: {ncpus: 129..}
  when: {request: vmm_register}
  do: {fail: {status: 507, code: InsufficientCapacity, message: "ran out of CPUs"}}
"""
    async with playing(tmp_path, rules) as (daemon, _, http):
        status, answer = await register(http, uuid.uuid4(), "big", 200)
        assert (status, answer["error_code"], answer["message"]) == (507, "InsufficientCapacity", "ran out of CPUs")
        assert (await register(http, uuid.uuid4(), "small"))[0] == 200
        assert len(daemon.rack.sleds[SLED].vmms) == 1


async def test_a_stop_that_a_rule_stalls_is_ended_by_the_agent(tmp_path):
    rules = """
- name: never-stops
  for: {hostname: "stuck-*"}
  when: {state: stopping}
  do: {stall: forever}
"""
    vmm = uuid.uuid4()
    async with playing(tmp_path, rules) as (_, nexus, http):
        await register(http, vmm, "stuck-1")
        await ask(http, vmm, "running")
        await nexus.heard(vmm, "running")
        assert await ask(http, vmm, "stopped") == 200
        await nexus.heard(vmm, "destroyed")
    gens = {b["vmm_state"]["state"]: b["vmm_state"]["gen"] for who, b in nexus.acked if who == str(vmm)}
    assert gens["destroyed"] == max(gens.values())


@pytest.mark.early
async def test_a_scenario_of_the_library_behaves_so_against_the_nexus_stub(tmp_path):
    """scenarios/stuck-stop.yaml as it is, but for a grace of 20 s."""
    file, port_file = tmp_path / "stuck-stop.yaml", tmp_path / "p.json"
    text = (LIBRARY / "stuck-stop.yaml").read_text()
    assert "stop_grace: 20s" in text
    file.write_text(text.replace("stop_grace: 20s", "stop_grace: 3s"))
    async with NexusServer() as nexus:
        process = await sim_sled(
            "serve", str(SLED), "[::1]:0", nexus.internal, "--scenario", str(file), "--port-file", str(port_file),
            "--pace", "instant",
        )  # fmt: skip
        try:
            control = f"http://{(await ports(port_file, process))['control']}"
            users = f"http://{nexus.control}/v1/instances"
            async with aiohttp.ClientSession() as http:

                async def shows(state):
                    async with asyncio.timeout(30):
                        while True:
                            async with http.get(f"{users}/stuck-1") as answer:
                                full = await answer.json()
                            if full["instance"]["run_state"] == state:
                                return full
                            await asyncio.sleep(0.05)  # another process has no event

                async with asyncio.timeout(30):
                    while (await (await http.get(f"{control}/ready")).json())["not_registered"]:
                        await asyncio.sleep(0.05)  # same
                async with http.post(users, json={"name": "stuck-1"}) as answer:
                    assert answer.status == 201
                vmm = (await shows("running"))["record"]["active_propolis_id"]
                async with http.post(f"{users}/stuck-1/stop") as answer:
                    assert (answer.status, (await answer.json())["run_state"]) == (202, "stopping")
                async with http.get(f"{control}/vmms/{vmm}") as answer:
                    told = await answer.json()
                assert told["propolis"] == "Stopping"
                assert [each["rule"] for each in told["rules"]] == ["never-stops"]
                assert any("rule never-stops (stuck-stop.yaml:16) stalls it" in said for said in told["says"])
                assert any("the agent acts in" in said for said in told["says"])
                timeline = (await shows("stopped"))["timeline"]
            assert [line["text"] for line in timeline if line["what"] == "public"][-2:] == ["stopping", "stopped"]
        finally:
            process.terminate()
            await asyncio.wait_for(process.communicate(), 20)


async def test_reports_are_dropped_and_doubled_as_the_rules_say(tmp_path):
    rules = """
- name: lost-once
  when: {publish: running}
  times: 1
  do: {drop: {retry: true}}
- name: doubled
  when: {publish: destroyed}
  do: {duplicate: {copies: 1, gap: 1ms}}
"""
    vmm = uuid.uuid4()
    async with playing(tmp_path, rules) as (_, nexus, http):
        await register(http, vmm, "web")
        await ask(http, vmm, "running")
        await nexus.heard(vmm, "running")
        await ask(http, vmm, "stopped")
        await nexus.until(lambda: nexus.states(vmm).count("destroyed") == 2)


async def test_a_held_report_goes_when_it_is_released(tmp_path):
    rules = """
- name: keep-it
  when: {publish: running}
  times: 1
  do: {hold: {lasts: 10m}}
"""
    vmm = uuid.uuid4()
    async with playing(tmp_path, rules) as (daemon, nexus, http):
        await register(http, vmm, "web")
        await ask(http, vmm, "running")
        async with asyncio.timeout(20):
            while not daemon.engine.post.held:
                await asyncio.sleep(0.01)  # the daemon has no event for what a rule keeps back
        assert "running" not in nexus.states(vmm)
        assert daemon.release("keep-it")
        await nexus.heard(vmm, "running")


async def test_a_reset_closes_the_connection_without_an_answer(tmp_path):
    rules = """
- name: cut
  when: {request: vmm_get_state}
  do: {reset: true}
"""
    vmm = uuid.uuid4()
    async with playing(tmp_path, rules) as (_, _nexus, http):
        await register(http, vmm, "web")
        with pytest.raises(aiohttp.ClientConnectionError):
            await http.get(f"/vmms/{vmm}/state")
        assert await ask(http, vmm, "running") == 200


async def test_a_reload_replaces_the_rules_and_a_bad_file_does_not(tmp_path):
    deny = """
- name: deny
  when: {request: vmm_register}
  do: {fail: {status: 503}}
"""
    async with playing(tmp_path, deny) as (daemon, _, http):
        assert (await register(http, uuid.uuid4(), "a"))[0] == 503
        (tmp_path / "live.yaml").write_text(HEAD + deny.replace("503", "999"))
        with pytest.raises(BadScenario, match="E231"):
            load_one(tmp_path / "live.yaml")
        assert (await register(http, uuid.uuid4(), "b"))[0] == 503
        (tmp_path / "live.yaml").write_text(HEAD.replace("rules:\n", ""))
        daemon.load(load_one(tmp_path / "live.yaml"))
        assert (await register(http, uuid.uuid4(), "c"))[0] == 200


async def test_rules_that_come_later_count_vmms_as_those_who_look_have_counted_them(tmp_path):
    names = ["gone", "stays", "gone too"]
    async with FakeNexus() as nexus:
        daemon = Daemon([SledConfig(SLED, "[::1]:0")], Options(nexus=nexus.address, shutdown_wait_s=0.1))
        await daemon.start()
        sightings = daemon.look.sightings
        vmms = {name: uuid.uuid4() for name in (*names, "new")}

        def counted():
            there = [each for each in sightings.all() if not sightings.gone(each)]
            return [(each.short, daemon.engine.cast.subjects[each.propolis_id].short) for each in there]

        try:
            async with aiohttp.ClientSession(f"http://{daemon.addresses[SLED]}", headers=HEADERS) as http:
                for name in names:
                    assert (await register(http, vmms[name], "host"))[0] == 200
                for name in ("gone", "gone too"):
                    async with http.delete(f"/vmms/{vmms[name]}") as answer:
                        assert answer.status == 200
                    async with asyncio.timeout(20):
                        while not sightings.gone(sightings.get(vmms[name])):
                            await daemon.look.change(20)
                file = tmp_path / "late.yaml"
                file.write_text(HEAD + "- {name: r, when: {state: running}, do: {note: it runs}}\n")
                assert not daemon.passage.has_rules
                daemon.load(load_one(file))
                assert counted() == [("v2", "v2")]
                assert (await register(http, vmms["new"], "host"))[0] == 200
                assert counted() == [("v2", "v2"), ("v4", "v4")]
        finally:
            await daemon.stop()


def test_a_daemon_cannot_play_more_sleds_than_the_fleet_has(tmp_path):
    (tmp_path / "live.yaml").write_text(HEAD.replace("rules:\n", ""))
    with pytest.raises(NotInFleet):
        engine_for(load_one(tmp_path / "live.yaml"), 0, [uuid.uuid4(), uuid.uuid4()])


async def test_sighup_reads_the_file_again_and_keeps_the_old_rules_if_it_is_bad(tmp_path):
    file, port_file = tmp_path / "s.yaml", tmp_path / "p.json"
    file.write_text(HEAD.replace("rules:\n", ""))
    async with FakeNexus() as nexus:
        process = await sim_sled(
            "serve", str(SLED), "[::1]:0", nexus.address, "--scenario", str(file), "--port-file", str(port_file)
        )
        address = (await ports(port_file, process))["address"]
        lines = process.stderr
        async with aiohttp.ClientSession(f"http://{address}", headers=HEADERS) as http:
            await nexus.until(lambda: nexus.sleds)
            file.write_text("version: 1\nrules: 3\n")
            process.send_signal(signal.SIGHUP)
            await _said(lines, "the scenario is bad")
            assert (await register(http, uuid.uuid4(), "a"))[0] == 200
            file.write_text(HEAD + "- name: deny\n  when: {request: vmm_register}\n  do: {fail: {status: 503}}\n")
            process.send_signal(signal.SIGHUP)
            await _said(lines, "scenario reloaded")
            assert (await register(http, uuid.uuid4(), "b"))[0] == 503
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 0


async def hangs_up():
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL, "by default a process ends at once"
    signal.raise_signal(signal.SIGHUP)
    for _ in range(5):  # the loop hears that there is one, reads which, and calls who wants to know
        await asyncio.sleep(0)


async def test_a_sighup_that_comes_while_a_daemon_ends_does_not_kill_it():
    read = []
    reload = serve.Reload(None)
    async with contextlib.AsyncExitStack() as stack:
        reload.follow(stack, lambda: read.append("again"))
    await hangs_up()
    assert read == []


async def test_a_sighup_that_comes_while_a_daemon_starts_makes_it_read_its_rules_again_once_it_plays_them():
    read = []
    reload = serve.Reload(None)
    await hangs_up()
    await hangs_up()
    async with contextlib.AsyncExitStack() as stack:
        reload.follow(stack, lambda: read.append("again"))
        assert read == ["again"]
        await hangs_up()
    assert read == ["again", "again"]


async def test_a_watched_file_that_is_another_while_a_daemon_starts_is_read_again_once_it_plays_it(tmp_path):
    file, read = tmp_path / "s.yaml", asyncio.Event()
    file.write_text("version: 1\n")
    reload = serve.Reload(file)
    file.write_text("version: 1\nname: other\n")
    async with contextlib.AsyncExitStack() as stack:
        reload.follow(stack, read.set)
        await asyncio.wait_for(read.wait(), 20)


async def _said(stream, words):
    async with asyncio.timeout(20):
        async for line in stream:
            if words in json.loads(line)["msg"]:
                return
    raise AssertionError(f"{words!r} was never said")


async def test_a_rule_that_is_due_by_the_clock_fires_although_nothing_else_is(tmp_path):
    rules = "- {name: by-the-clock, when: {at: 300ms}, do: {note: struck}}\n"
    async with playing(tmp_path, rules) as (daemon, _, _http):
        assert daemon.rack.next_deadline_us() is None, "no VMM, no report, no registration"
        struck = asyncio.Event()
        daemon.tellers.append(lambda _kind, _who, _sled, text: struck.set() if "struck" in text else None)
        await asyncio.wait_for(struck.wait(), 20)
        assert daemon.engine.counters["by-the-clock"].fired == 1


def test_a_pipe_in_the_place_of_a_file_that_is_read_again_keeps_nobody_waiting(tmp_path):
    """All of a daemon stood for as long as something may take to come."""
    os.mkfifo(tmp_path / "rules.yaml")
    played = Played()
    reload_from(pytest.fail, tmp_path / "rules.yaml", played)
    assert played.last_error == f"{tmp_path / 'rules.yaml'}: not a regular file"
