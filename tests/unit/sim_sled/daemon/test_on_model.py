"""A rack that has its model of Nexus beside it does to it what rules want of Nexus."""

import asyncio
import contextlib

from sim_sled import logs
from sim_sled.daemon.small_rack import RackError, SmallRack
from sim_sled.language.check import parse_scenario

RULES = """version: 1
fleet: {sleds: 1}
rules:
- {name: off, for: {sled: sled-1}, when: {manual: off}, do: {power_off_sled: {lasts: 100ms}}}
- {name: dies, when: {manual: dies}, do: {restart_nexus: {down: 50ms}}}
- {name: dies-later, when: {manual: dies-later}, do: {restart_nexus: {down: 50ms, point: after_commit}}}
"""
PATIENCE_S = 20


def rack_with_rules():
    logs.configure(level="critical")
    scenario, problems = parse_scenario(RULES)
    assert scenario is not None, problems.text()
    return SmallRack(scenario=scenario)


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_sled_without_power_is_off_in_the_model_and_on_again():
    async with rack_with_rules() as rack:

        def power():
            [row] = rack.server.nexus.records.sleds.values()
            return row.power

        assert power() == "unknown"
        rack.daemon.fire("off")
        await until(lambda: power() == "off")
        await until(lambda: power() == "a0")


async def test_the_model_dies_now_and_comes_back():
    async with rack_with_rules() as rack:
        rack.daemon.fire("dies")
        await until(lambda: not rack.server.nexus.up)
        await until(lambda: rack.server.nexus.up)


async def test_the_model_dies_after_a_commit_and_comes_back():
    async with rack_with_rules() as rack:
        await rack.create_instance("web")
        await rack.expect("web", "running", within_s=PATIENCE_S)
        rack.daemon.fire("dies-later")
        with contextlib.suppress(RackError):  # the sled's report may be there before its answer: who asks is dropped
            await rack.stop_instance("web")  # its end needs a commit
        await until(lambda: not rack.server.nexus.up)
        await until(lambda: rack.server.nexus.up)
