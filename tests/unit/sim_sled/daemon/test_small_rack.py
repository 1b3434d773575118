"""A rack's start and its end, where somebody is in the way."""

import asyncio
import errno
import os
import socket

import pytest
from support.rows import in_one_test

from nexus_client.dropshot import ending
from nexus_client.registration import RegistrationRefused
from nexus_client.types import SledRole, VmmState
from sim_sled.cli.serve import OF_A_SHAPE, shaped
from sim_sled.core import contract
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.looking import Unmet
from sim_sled.daemon.page import Feed
from sim_sled.daemon.sightings import Sightings
from sim_sled.daemon.small_rack import RackError, SmallRack, sled_id_of
from sim_sled.daemon.snapshot import Refused, Snapshots
from sim_sled.language.check import parse_scenario
from sim_sled.play.fleet import engine_for


async def test_a_start_that_waits_for_a_nexus_ends_when_somebody_asks_for_the_end():
    # it used to hear nothing for 30 s, and then told of itself in a traceback
    complaints, loop = [], asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    rack = SmallRack(nexus="[::1]:1", sleds=2, shutdown_wait_s=0.0)
    stop = loop.create_future()
    starting = asyncio.ensure_future(ending.unless(stop, rack.start()))
    while not getattr(rack, "daemon", None) or len(rack.daemon.addresses) < 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    stop.set_result(0)
    assert not await starting
    assert rack.daemon.stopping
    assert not complaints


async def test_whoever_scales_at_the_same_time_has_a_turn_each():
    """A number that was given twice, or left out, would bar all sleds that join later."""
    async with SmallRack(sleds=2) as rack:
        await asyncio.gather(*(rack.scale(sleds) for sleds in (4, 1, 3)))
        assert [handle.id for handle in rack.handles] == [sled_id_of(rack.name, number) for number in (1, 2, 3)]
        assert {handle.id for handle in rack.handles} == set(rack.daemon.rack.sleds)
        await rack.scale(4)


async def test_a_sled_for_which_there_is_no_socket_is_not_there_and_may_come_later(monkeypatch):
    def none_left(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with SmallRack(sleds=1) as rack:
        with monkeypatch.context() as without:
            without.setattr(socket, "socket", none_left)
            with pytest.raises(OSError, match="Too many open files"):
                await rack.scale(2)
        assert len(rack.daemon.rack.sleds) == 1
        await rack.scale(2)


async def test_a_sled_that_nexus_refused_and_that_has_left_is_in_nobodys_way():
    async with SmallRack(sleds=2) as rack:
        refusal = RegistrationRefused("Nexus does not like its serial", 400)
        rack.daemon.reporting.news(contract.RegistrationNews(sled_id_of(rack.name, 2), refusal))
        with pytest.raises(RackError, match="does not like its serial"):
            await rack.scale(3)
        await rack.scale(1)
        await rack.scale(3)


async def test_a_vm_whose_sled_has_left_the_rack_can_still_be_asked_about():
    async with SmallRack(sleds=2) as rack:
        await rack.create_instance("web", sled_id=sled_id_of(rack.name, 2))
        seen = await rack.expect("web", "running", within_s=60)
        await rack.scale(1)
        look = rack.daemon.look
        assert "is gone: it was running. Nexus acknowledged" in look.why(seen)["says"][0]
        assert look.why(seen)["says"][0].endswith("Its sled has left the rack.")
        assert "Its sled has left the rack." in look.unmet(seen, "stopped", 1)
        assert Feed(rack.daemon).story(seen)["lives"][0]["sled"]
        assert look.rows() == []
        file = await Snapshots(rack.daemon).take()
        await Snapshots(rack.daemon).restore(file.text.encode())
        assert look.why(rack.meant("web"))["gone"]


async def test_all_vmms_are_gone_through_once_for_the_rows_of_all_and_not_once_for_each_row(monkeypatch):
    """`ps` of 10,000 VMMs stopped the daemon for a minute."""
    rounds, everybody = [], Sightings.all
    async with SmallRack() as rack:
        for name in ("a", "b", "c"):
            await rack.create_instance(name)
            await rack.expect(name, "running", within_s=60)
        monkeypatch.setattr(Sightings, "all", lambda self: rounds.append(self) or everybody(self))
        assert [row["restarts"] for row in rack.daemon.look.rows()] == [0, 0, 0]
    assert len(rounds) == 1


@pytest.mark.parametrize(
    ("says", "breaker"),
    [
        pytest.param("", True, id="nobody counts attempts"),
        pytest.param("rules:\n- {name: n, when: {publish: running}, do: {note: seen}}\n", False, id="rules do"),
        pytest.param("expect:\n- always: [gen_monotonic]\n", False, id="expectations do"),
    ],
)
async def test_while_nexus_is_away_one_probe_asks_unless_a_scenario_counts_attempts(says, breaker):
    """A rack without a scenario tried every report: its rules may come later, and so it has some, none of them."""
    scenario, _ = parse_scenario(f"version: 1\nname: counting\n{says}")
    async with SmallRack(scenario=scenario) as rack:
        assert rack.daemon.reporting.senders.breaker is breaker
    async with SmallRack() as rack:
        assert rack.daemon.reporting.senders.breaker
        rack.load(scenario)
        assert rack.daemon.reporting.senders.breaker is breaker


async def test_rules_that_come_later_are_played_at_the_pace_of_the_daemon_unless_they_have_their_own():
    """Those that came over the control API, or by SIGHUP, were played at `latency: dev`, whatever `--pace` says."""
    none, _ = parse_scenario("version: 1\nname: later\n")
    own, _ = parse_scenario("version: 1\nname: later\nlatency: rack\n")
    async with SmallRack(pace="console") as rack:
        for load in (rack.load, rack.daemon.load):
            for scenario, pace in ((own, "rack"), (none, "console")):
                load(scenario)
                assert rack.daemon.engine.scenario.latency.preset == pace


async def test_a_vm_that_has_left_with_its_sled_is_in_no_state_any_more():
    """It used to be `running` for ever to whoever waited for that."""
    async with SmallRack(sleds=2) as rack:
        await rack.create_instance("web", sled_id=sled_id_of(rack.name, 2))
        seen = await rack.expect("web", "running", within_s=60)
        ran_us = seen.since_us
        await rack.scale(1)
        with pytest.raises(Unmet, match=r"it is gone, and was 'running'\n"):
            await rack.expect("web", "running", within_s=0)
        assert not rack.daemon.look.is_in("web", "running")
        assert await rack.daemon.look.expect("web", "running", within_s=0, since_us=ran_us) is seen


async def test_what_happened_on_a_sled_that_has_left_is_told_with_its_name():
    """Its id stood there, in lines that had had its name until then."""
    async with SmallRack(sleds=2) as rack:
        await rack.create_instance("web", sled_id=sled_id_of(rack.name, 2))
        await rack.expect("web", "running", within_s=60)
        await rack.scale(1)
        assert {event.sled for _, event in rack.daemon.look.after(0)} == {"sled-1", "sled-2"}


async def test_why_names_the_vmm_that_an_instance_had_before():
    """Whoever asks for `web` after a restart is told of the new VMM alone, and wonders what became of the old one."""
    async with SmallRack(sleds=1) as rack:
        await rack.create_instance("web")
        first = await rack.expect("web", "running", within_s=60)
        assert not [said for said in rack.daemon.look.why(first)["says"] if said.startswith("Before it")]
        failed = contract.InjectState(rack.daemon.ticket(), first.sled_id, first.propolis_id, VmmState.FAILED)
        await rack.daemon.submit(failed)
        second = await rack.expect("v2", "running", within_s=60)
        assert "Before it, web was v1: failed (sim-sled log v1)." in rack.daemon.look.why(second)["says"]


async def test_nothing_is_kept_or_replaced_while_a_sled_is_about_to_listen():
    async with SmallRack(sleds=1) as rack:
        file = await Snapshots(rack.daemon).take()
        rack.daemon.addresses.popitem()  # as between two steps of `join`
        with pytest.raises(Refused, match="1 sleds are about to listen"):
            await Snapshots(rack.daemon).take()
        with pytest.raises(Refused, match="1 sleds are about to listen"):
            await Snapshots(rack.daemon).restore(file.text.encode())


@in_one_test("name", ["null", "1e3", "2026-01-01", "é"])
async def test_a_rack_may_have_any_name_that_a_person_gives_it(name):
    """Some of them are no text in YAML."""
    async with SmallRack(name=name) as rack:
        assert rack.daemon.engine.scenario.name == (name if name.isascii() else "rack")


@in_one_test(
    ("asked", "text", "sleds"),
    [(4, "fleet: {sleds: 2}", 4), (1, "fleet: {sleds: 2}", 2), (3, "seed: 1", 3), (1, "seed: 1", 1)],
)
def test_there_are_as_many_sleds_as_asked_for_and_at_least_those_of_the_fleet(asked, text, sleds):
    """`up --sleds 4` with a scenario of two sleds started two, and said nothing."""
    scenario, _ = parse_scenario(f"version: 1\n{text}\n")
    assert SmallRack(sleds=asked, scenario=scenario).sleds_wanted == sleds


SHAPED = """version: 1
fleet: {sleds: 2, name: "gimlet-{n}", shape: {cpus: 256, role: gimlet}, overrides: [{sled: gimlet-2, cpus: 8}]}
"""


async def test_sleds_are_made_as_the_scenarios_fleet_says():
    """Those that join later are like the others; without a word of it they are as every sled."""
    scenario, _ = parse_scenario(SHAPED)
    async with SmallRack(scenario=scenario) as rack:
        await rack.scale(3)
        made = [rack.daemon.rack.sleds[each.id].config.hardware for each in rack.handles]
        assert [each.hardware_threads for each in made] == [256, 8, 256]
        assert [each.name for each in rack.handles] == ["gimlet-1", "gimlet-2", "gimlet-3"], "as ps has them"
        known = [rack.daemon.passage.known_as(each.id) for each in rack.handles]
        assert known == ["gimlet-1", "gimlet-2", "gimlet-3"]
        assert {each.role for each in made} == {SledRole.GIMLET}
        assert len({each.baseboard_serial for each in made}) == 3
    plain, _ = parse_scenario("version: 1\nfleet: {sleds: 2}\n")
    async with SmallRack(scenario=plain, hardware=Hardware(hardware_threads=7)) as rack:
        assert {sled.config.hardware.hardware_threads for sled in rack.daemon.rack.sleds.values()} == {7}


def test_a_served_sled_is_made_so_too_and_options_win():
    scenario, _ = parse_scenario(SHAPED)
    config = SledConfig(sled_id_of("rack", 1), "[::1]:0", hardware=Hardware(zpools=3, baseboard_serial="BRM1"))
    flags = dict.fromkeys(OF_A_SHAPE) | {"zpools": 3}
    engine = engine_for(scenario, 1, [config.sled_id], "gimlet-2")
    [made] = [sled.hardware for sled in shaped([config], engine, flags)]
    assert (made.hardware_threads, made.role, made.zpools) == (8, SledRole.GIMLET, 3)
    assert made.baseboard_serial == "BRM1"
    unshaped, _ = parse_scenario("version: 1\n")
    assert shaped([config], engine_for(unshaped, 1, [config.sled_id]), flags) == [config]
