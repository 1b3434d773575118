"""Looking at a running daemon as a person does: names, `expect`, `events`, over the control API and the commands."""

import asyncio
import json

import aiohttp
import pytest
from support.command import in_process
from support.rows import in_one_test

from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.daemon import doing
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.looking import MISSPELT_S, NobodyMeant, Unmet
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.language.check import parse_scenario


@pytest.fixture
async def rack():
    """A rack with two VMs, `web-1` running, and its control API: (rack, address of the control API)."""
    logs.configure(level="error")
    async with SmallRack(sleds=2) as small:
        listener = await serve_control(Control(small.daemon), SocketAddress("127.0.0.1", 0))
        for name in ("web-1", "web-2"):
            await small.create_instance(name)
            await small.expect(name, "running", within_s=60)
        try:
            yield small, listener.address
        finally:
            await listener.close()


async def get(address, path, **headers):
    async with aiohttp.ClientSession() as http, http.get(f"http://{address}{path}", headers=headers) as answer:
        return answer.status, await answer.json()


async def command(*args):
    """Exit code, stdout, stderr of `sim-sled`."""
    return await asyncio.to_thread(in_process, *args)


async def test_a_vm_is_named_by_host_name_ordinal_id_or_its_beginning(rack):
    small, address = rack
    seen = small.meant("web-2")
    for who in ("web-2", "WEB-2", "v2", str(seen.propolis_id), str(seen.propolis_id)[:8], str(seen.instance_id)):
        status, answer = await get(address, f"/vmms/{who}")
        assert (status, answer["propolis_id"]) == (200, str(seen.propolis_id))


@in_one_test("who", ["web-3", "v99", "zz", "00000000-0000-4000-8000-000000000000", "%0a%1b[31m", "a" * 500])
async def test_nobody_meant_is_a_404_that_lists_who_there_is(rack, who):
    status, answer = await get(rack[1], f"/vmms/{who}")
    assert status == 404
    assert "web-1" in answer["message"]
    assert "\x1b" not in answer["message"]


async def test_who_asks_another_address_of_the_rack_is_told_that_it_is_no_control_api(rack):
    """It used to be `missing expected header "api-version"` of a sled, and `Not Found` of a model's users."""
    small, _ = rack
    for address in (small.handles[0].address, small.server.control, small.server.internal):
        for words in (["ps"], ["why", "web-1"], ["pause"]):
            code, _, err = await command(*words, "--at", address)
            assert code == 3, words
            assert err.startswith(f"sim-sled: no control API at {address}, but somebody else: 40")
            assert err.endswith(" (a rack's: sim-sled port control)\n")


async def test_several_meant_are_a_409_that_lists_them(rack):
    small, address = rack
    for sighting in small.daemon.look.sightings.all():
        sighting.hostname = "twin"
    status, answer = await get(address, "/vmms/twin")
    assert status == 409
    assert answer["message"].count("twin") >= 3


async def test_a_vm_that_is_gone_can_still_be_asked_about(rack):
    small, address = rack
    await small.stop_instance("web-1")
    await small.expect("web-1", "destroyed", within_s=60)
    await small.expect_public("web-1", "stopped", within_s=60)
    status, answer = await get(address, "/vmms/web-1")
    assert status == 200
    assert "is gone: it was destroyed" in answer["says"][0]


FAILS = """
version: 1
rules:
- name: half-way
  when: {migration: ram_push}
  do: {migration: failed}
"""


async def test_after_a_migration_that_failed_a_host_name_means_the_source_again():
    logs.configure(level="error")
    scenario, _ = parse_scenario(FAILS, "fails.yaml")
    async with SmallRack(sleds=2, scenario=scenario) as small:
        await small.create_instance("web")
        source = await small.expect("web", "running", within_s=60)
        there = next(each.id for each in small.handles if each.id != source.sled_id)
        await small.migrate_instance("web", there)
        await small.expect("v2", "failed", within_s=60)
        async with asyncio.timeout(60):
            while not small.daemon.look.sightings.gone(small.meant("v2")):
                await small.daemon.look.change(60)
        assert small.meant("web") is source
        assert small.meant(str(source.instance_id)) is source
        await small.expect("web", "running", within_s=60)
        await small.stop_instance("web")
        assert await small.expect("web", "destroyed", within_s=60) is source
        async with asyncio.timeout(60):
            while not small.daemon.look.sightings.gone(source):
                await small.daemon.look.change(60)
        assert small.meant("web") is source, "of those that are gone the one that ended last is meant"


REFUSES = """
version: 1
rules:
- name: refuses
  for: {hostname: web}
  when: {request: vmm_register}
  do: {fail: 503}
  times: 1
- name: hangs
  for: {hostname: db}
  when: {request: vmm_register}
  do: {hang: true}
"""


async def test_of_a_vmm_whose_registration_was_refused_or_hangs_it_is_told_by_which_rule(monkeypatch):
    logs.configure(level="error")
    scenario, _ = parse_scenario(REFUSES, "refuses.yaml")
    async with SmallRack(sleds=1, scenario=scenario) as small:
        look = small.daemon.look
        await small.create_instance("web")
        with pytest.raises(
            NobodyMeant, match=r"^web has no VMM: sled-1 was asked to register .* not taken it\."
        ) as nobody:
            look.meant("web")
        assert str(nobody.value).endswith(" rule refuses (refuses.yaml:4) answers 503")
        with pytest.raises(Unmet, match=r"^after 0\.01 s web has no VMM: "):
            await look.expect("web", "running", within_s=0.01)
        creating = asyncio.create_task(small.create_instance("db"))
        async with asyncio.timeout(60):
            while "db" not in {each.hostname for _, each in look.after(0)}:
                await look.change(60)
        with pytest.raises(NobodyMeant, match=r" and has not taken it\. .* rule hangs .* hangs for ever$"):
            look.meant("db")
        creating.cancel()
        await small.start_instance("web")
        web = small.meant("web")
        assert web.short == small.daemon.engine.cast.subjects[web.propolis_id].short == "v3", (
            "rules count what was asked"
        )
        await small.expect("web", "running", within_s=60)
        ordinals = {each.ordinal: each.vmm for _, each in look.after(0) if each.hostname == "web"}
        assert ordinals.keys() == {"v1", "v3"}
        assert ordinals["v3"] == str(small.meant("web").propolis_id)


@in_one_test(
    "query",
    [
        "",
        "state=paused",
        "state=running&within_ms=x",
        "state=running&within_ms=-5",
        f"state=running&within_ms={'9' * 30}",
    ],
)
async def test_a_bad_expectation_is_a_400(rack, query):
    status, _ = await get(rack[1], f"/vmms/web-1/expect?{query}")
    assert status == 400


async def test_expect_waits_over_the_control_api(rack):
    small, address = rack
    asked = asyncio.create_task(get(address, "/vmms/web-1/expect?state=destroyed&within_ms=20000"))
    await small.stop_instance("web-1")
    assert (await asked)[1]["met"] is True
    status, answer = await get(address, "/vmms/web-1/expect?state=running&within_ms=10")
    assert (status, answer["met"]) == (200, False)
    assert any("asked stopped" in line for line in answer["says"])
    assert (await get(address, "/vmms/web-1/expect?state=running&within_ms=10&since_us=0"))[1]["met"] is True


async def test_events_are_numbered_and_resumable_and_have_their_fields(rack):
    small, address = rack
    while any(sighting.acked != "running" for sighting in small.daemon.look.sightings.all()):
        await small.daemon.look.change(5)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"http://{address}/events") as answer:
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        numbers = [line["number"] for line in lines]
        assert numbers == sorted(set(numbers))
        [running] = [
            line
            for line in lines
            if line["kind"] == "propolis" and line["hostname"] == "web-1" and line["to"] == "running"
        ]
        assert (running["from"], running["ordinal"]) == ("creating", "v1")
        assert running["sled_id"]
        assert running["instance"]
        acked = [line for line in lines if line["kind"] == "acked" and line["to"] == "running"]
        assert len(acked) == 2
        assert all(line["gen"] > 0 for line in acked)
        async with http.get(f"http://{address}/events?after={numbers[-2]}") as answer:
            assert [json.loads(line)["number"] for line in (await answer.text()).splitlines()] == [numbers[-1]]


async def test_a_stream_of_events_goes_on_and_resumes_behind_the_last_id(rack):
    small, address = rack
    last = small.daemon.look.number
    async with aiohttp.ClientSession() as http:
        headers = {"accept": "text/event-stream", "last-event-id": str(last)}
        async with http.get(f"http://{address}/events?follow=1", headers=headers) as stream:
            assert stream.content_type == "text/event-stream"
            await small.reboot_instance("web-1")
            first = await asyncio.wait_for(stream.content.readline(), 60)
            assert first == f"id: {last + 1}\n".encode()
            async with asyncio.timeout(60):
                while b'"to": "rebooting"' not in await stream.content.readline():
                    pass


async def test_the_commands_take_names_and_exit_as_they_should(rack):
    small, address = rack
    at = ("--at", address)
    code, out, _ = await command("ps", *at)
    assert code == 0
    assert all(word in out for word in ("v1", "web-1", "running", "host name", "asked", "unacked"))
    assert (await command("why", "web-1", *at))[1].startswith(str(small.meant("web-1").propolis_id))
    assert "propolis" in (await command("log", "v2", *at))[1]
    code, _, err = await command("why", "web-9", *at)
    assert (code, "web-1" in err) == (2, True)
    assert (await command("inject", "web-2", '{"state": "failed"}', *at))[0] == 0
    code, out, _ = await command("expect", "web-1", "running", "--within", "5s", *at)
    assert (code, out) == (0, "web-1 is running\n")
    code, out, _ = await command("expect", "web-1", "failed", "--within", "50ms", *at)
    assert code == 1
    assert "why:" in out
    assert (await command("expect", "web-1", "failed", "--within", "5", *at))[0] == 2
    assert (await command("expect", "web-1", "broken", *at))[0] == 2
    code, out, _ = await command("events", *at)
    assert code == 0
    assert all(json.loads(line)["number"] for line in out.splitlines())


@in_one_test(
    "words", [["why", ""], ["inject", " ", "failed"], ["fire", ""], ["release", ""], ["wait", "", "running"]]
)
async def test_an_empty_name_is_nobodys(rack, words):
    _, address = rack
    code, _, err = await command(*words, "--at", address)
    assert (code, "an empty text is nobody's name" in err) == (2, True), err


@in_one_test("name", ["a b", "a/b", "ü?x#y", "%2f", "-x", "-a b/ü?x#y%2f"])
async def test_whatever_a_name_is_made_of_it_is_looked_for(rack, name):
    """One command for each, and each command for one that has all of it."""
    _, address = rack
    await injected(address, "web-1", "note: there are rules")  # without rules there is nothing to fire
    for word in ("fire", "release", "why", "log") if len(name) > 5 else ("why",):
        code, _, err = await command(word, "--at", address, "--", name)
        assert code == 2, err
        assert repr(name) in err, err


async def test_ps_names_the_rule_that_holds_or_stalls_a_vm_and_none_that_did(rack):
    small, address = rack

    async def rule(name):
        _, rows = await get(address, "/vmms")
        return next(row["rule"] for row in rows if row["hostname"] == name)

    assert (await injected(address, "web-1", "hold: {publish: '*'}"))[0] == 200
    assert await rule("web-1") is None, "nothing is held yet"
    await small.stop_instance("web-1")
    await small.expect("web-1", "destroyed", within_s=60)
    assert await rule("web-1") == "injected-1"
    assert (await injected(address, "web-2", "stall: 1h"))[0] == 200
    assert await rule("web-2") == "injected-2"
    assert (await injected(address, "web-2", "note: a hand in it"))[0] == 200
    assert await rule("web-2") == "injected-2", "a note keeps nobody where he is"
    async with aiohttp.ClientSession() as http, http.post(f"http://{address}/release/injected-1") as answer:
        assert answer.status == 200
    says = (await get(address, "/vmms/web-1"))[1]["says"]
    assert [line.rpartition(") ")[2] for line in says if "injected-1" in line][-2:] == [
        "holds destroyed.", "lets destroyed go.",
    ]  # fmt: skip
    sleds = {str(each.id): each.name for each in small.handles}
    assert all(row["sled"] == sleds[row["sled_id"]] for row in (await get(address, "/vmms"))[1])


async def test_a_rule_or_a_vm_that_is_not_there_is_told_with_the_nearest_name(rack):
    _, address = rack
    await injected(address, "web-1", "hold: {publish: '*'}")
    for words, near in ((["release", "injcted-1"], "injected-1"), (["why", "wbe-1"], "web-1")):
        code, _, err = await command(*words, "--at", address)
        assert (code, f"(did you mean '{near}'?)" in err) == (2, True), err


async def test_waiting_takes_its_time_but_no_more_than_a_daemon_has(rack):
    _, address = rack
    assert (await command("wait", "web-1", "running", "--at", address))[:2] == (0, "web-1 is running\n")
    assert (await command("wait", "web-1", "failed", "--within", "50ms", "--at", address))[0] == 1
    for asking in ("wait", "expect"):
        code, _, err = await command(asking, "web-1", "running", "--within", "2h", "--at", address)
        assert (code, "longer than an hour" in err) == (2, True), err


async def injected(address, who, action):
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"http://{address}/vmms/{who}/inject", json={"do": action}) as answer,
    ):
        return answer.status, await answer.json()


async def test_an_action_is_done_to_one_vm_by_a_rule_of_its_own(rack):
    """It is held what web-1 says, and nobody else; `why` names the rule, and it can be released."""
    small, address = rack
    status, told = await injected(address, "web-1", "hold: {publish: '*'}")
    assert (status, told["rule"]) == (200, "injected-1")
    for name in ("web-1", "web-2"):
        await small.stop_instance(name)
    await small.expect("web-2", "destroyed", within_s=20)
    await small.expect("web-1", "destroyed", within_s=20)
    assert small.meant("web-1").acked == "running", "nothing was told"
    assert any("injected-1" in line for line in (await get(address, "/vmms/web-1"))[1]["says"])
    async with aiohttp.ClientSession() as http, http.post(f"http://{address}/release/injected-1") as answer:
        assert answer.status == 200
    while small.meant("web-1").acked != "destroyed":
        await small.daemon.look.change(5)


async def test_an_action_that_nothing_could_be_done_by_is_told(rack):
    small, address = rack
    nothing = (2, "", "sim-sled: 'migration' had no effect: the VM was not migrating\n")
    assert await command("inject", "web-1", "migration", "failed", "--at", address) == nothing
    assert (await get(address, "/rules"))[1] == [], "nothing was changed"
    await small.stop_instance("web-1")
    await small.expect_public("web-1", "stopped", within_s=60)
    async with asyncio.timeout(60):
        while not small.daemon.look.sightings.gone(small.meant("web-1")):
            await small.daemon.look.change(60)
    status, told = await injected(address, "web-1", "stall: 1s")
    assert (status, told["message"]) == (409, "'stall' had no effect: the VMM was gone by then")


async def test_a_vm_that_was_stalled_for_ever_goes_on_when_its_rule_is_released(rack):
    small, address = rack
    code, out, _ = await command("inject", "web-1", "stall", "--at", address)
    assert (code, out) == (0, "web-1: stall (rule injected-1; sim-sled release injected-1)\n")
    await small.stop_instance("web-1")
    says = (await get(address, "/vmms/web-1"))[1]["says"]
    assert " is stopping " in says[0]
    assert " (its Propolis: Running) and will rest in destroyed" in says[0]
    assert says[2].startswith("Propolis waits: held while idle; the agent acts in ")
    assert " rule injected-1 (sim-sled inject web-1 stall, at 2" in says[-1], "what, when, and by which command"
    assert says[-1].endswith("stalls it for ever.")
    code, out, _ = await command("events", "--at", address)
    events = [json.loads(line) for line in out.splitlines()]
    [fired] = [event for event in events if event["kind"] == "rule"]
    assert fired["text"].startswith("injected-1 (sim-sled inject web-1 stall, at 2")
    names = {str(each.id): each.name for each in small.handles}
    assert (fired["hostname"], fired["sled"]) == ("web-1", names[fired["sled_id"]])
    assert all(event["sled"] == names[event["sled_id"]] for event in events)
    assert (await get(address, "/vmms"))[1][0]["rule"] == "injected-1"
    assert (await command("release", "injected-1", "--at", address))[0] == 0
    await small.expect("web-1", "destroyed", within_s=60)
    says = (await get(address, "/vmms/web-1"))[1]["says"]
    assert says[-1].endswith(" lets it go on.")
    assert (await command("release", "injected-1", "--at", address))[0] == 2


NEVER_STOPS = """
version: 1
rules:
- name: never-stops
  when: {state: stopping}
  do: {stall: forever}
"""


async def test_what_a_release_cannot_let_go_is_told_with_who_is_stalled_and_what_ends_it():
    scenario, _ = parse_scenario(NEVER_STOPS, "never.yaml")
    async with SmallRack(sleds=1, scenario=scenario) as small:
        listener = await serve_control(Control(small.daemon), SocketAddress("127.0.0.1", 0))
        try:
            await small.create_instance("web")
            await small.expect("web", "running", within_s=60)
            nothing = (await command("release", "never-stops", "--at", listener.address))[2]
            for stall in (("50s",), ()):
                await command("inject", "web", "stall", *stall, "--at", listener.address)
            shorter = (await command("release", "injected-1", "--at", listener.address))[2]
            assert (await command("release", "injected-2", "--at", listener.address))[0] == 0
            await small.stop_instance("web")
            await small.expect("web", "stopping", within_s=60)
            code, _, err = await command("release", "never-stops", "--at", listener.address)
            unknown = (await command("release", "xyz", "--at", listener.address))[2]
        finally:
            await listener.close()
    assert nothing == "sim-sled: rule never-stops holds nothing\n"
    assert shorter == "sim-sled: rule injected-1 holds nothing by itself: injected-2 stalls web for longer\n"
    assert code == 2
    assert err == (
        "sim-sled: rule never-stops holds nothing that can be let go: a request or a fault ends the stall of web\n"
    )
    assert unknown == "sim-sled: no rule is called 'xyz'; there are: never-stops, injected-1, injected-2\n"


async def test_actions_that_are_bad_or_many_do_no_harm(rack, monkeypatch):
    monkeypatch.setattr(doing, "KEPT_MAX", 10)
    small, address = rack
    before = small.daemon.engine.scenario
    status, told = await injected(address, "web-1", "stall: soon")
    assert (status, "is not a duration" in told["message"]) == (400, True)
    assert small.daemon.engine.scenario is before
    assert (await injected(address, "web-9", "stall: 1s"))[0] == 404
    for _ in range(15):
        status, told = await injected(address, "web-1", "note: again")
        assert status == 200
    assert told["rule"] == "injected-15"
    assert len(small.daemon.engine.scenario.rules) == 10


async def test_a_misspelt_name_is_told_soon(rack):
    """Nobody wants to wait for a minute to read that `wbe-1` never came."""
    small, _ = rack
    with pytest.raises(Unmet, match=r"no VMM is called 'wbe-1'.*did you mean 'web-1'"):
        await small.expect("wbe-1", "running", within_s=10_000)


async def test_at_the_end_of_the_time_the_nearest_name_is_told_however_unlike(rack):
    small, _ = rack
    await small.create_instance("app")
    for who, near in (("pap", " (did you mean 'app'?)"), ("app2", ""), ("xyz", "")):
        with pytest.raises(Unmet) as told:
            await small.expect(who, "running", within_s=0)
        said = f"after 0 s no VMM is called '{who}': "
        assert str(told.value).startswith(said)
        assert str(told.value).endswith(near or str(small.meant("app").propolis_id)), told.value
        assert small.daemon.look.not_in(who, "running", 0) == [str(told.value)]


@pytest.mark.early
async def test_the_next_of_a_numbered_row_is_not_misspelt(rack):
    small, _ = rack
    waiting = asyncio.ensure_future(small.expect("web-3", "running", within_s=60))
    await asyncio.sleep(MISSPELT_S * 1.5)
    assert not waiting.done()
    await small.create_instance("web-3")
    assert (await waiting).hostname == "web-3"
