"""The judges that virtual time has judge on sockets too: wrong sleds fail there with the same key."""

import asyncio

import pytest

from sim_sled import logs
from sim_sled.daemon import on_sockets
from sim_sled.language.check import parse_scenario
from sim_sled.play.run import How

LIFE = """
version: 1
fleet: {sleds: 1}
load:
- {at: 0s, create: {hostname: web}}
- {at: STOP, stop: {hostname: web}}
"""
STOPS = ("600ms", "3s", "20s")
"""When the VM is stopped. It must run by then; what a busy machine does not show is played again with more time."""
FULL = """
version: 1
fleet: {sleds: 1, shape: {cpus: 8, ram: 64GiB, reservoir: 32GiB}}
load:
- {at: 0s, create: {hostname: "web-{n}", count: 6, ncpus: 2, memory: 1GiB}}
"""
CASES = {
    "capacity": (FULL, "boasts-of-room"),
    "no_unexplained_5xx": (LIFE, "fails-for-no-reason"),
    "gen_monotonic": (LIFE, "generation-goes-back"),
    "time_ordered": (LIFE, "clock-goes-back"),
}


async def on_real_sockets(judges, stop):
    runs = {}
    for judge in judges:
        text, variant = CASES[judge]
        scenario, problems = parse_scenario(text.replace("STOP", stop) + f"expect: [{{always: [{judge}]}}]\n")
        assert scenario is not None, problems.text()
        for name in (None, variant):
            runs[judge, name] = on_sockets.play_on_sockets(scenario, 7, lambda _line: None, How(sled_variant=name))
    return dict(zip(runs, await asyncio.gather(*runs.values()), strict=True))


def caught(judge, played):
    return judge in [failure.key for failure in played[judge, CASES[judge][1]].failures]


@pytest.fixture(scope="module")
def played():
    logs.configure(level="critical")
    found = {}
    for stop in STOPS:
        late = [judge for judge in CASES if not found or not caught(judge, found)]
        found |= asyncio.run(on_real_sockets(late, stop))
    return found


@pytest.mark.early
@pytest.mark.parametrize("judge", CASES)
def test_a_judge_passes_right_sleds_and_fails_wrong_ones_on_sockets(judge, played):
    assert [failure.text for failure in played[judge, None].failures] == []
    assert caught(judge, played)
