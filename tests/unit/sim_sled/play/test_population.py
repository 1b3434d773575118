"""What is kept by index says the same as looking at everybody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_client.stub import background
from nexus_client.stub.records import DESTROYABLE
from sim_sled.language.check import parse_scenario
from sim_sled.play import population
from sim_sled.play.population import Ordered, Population
from sim_sled.play.virtual import World

CHURN = """version: 1
fleet: {sleds: 3, shape: {cpus: 64, ram: 256GiB, reservoir: 200GiB}}
latency: {starting -> running: 1s..4s, stopped -> destroyed: 1s..9s}
rules:
- {name: unlucky, for: {percent: 20%}, when: {edge: starting -> running}, do: {set_state: failed}}
load:
- at: 0s
  create: {hostname: "web-{n}", count: 10}
- every: 100ms..1s
  from: 1s
  to: 80s
  churn: {hostname: "web-c{n}", population: 25, create: 5, stop: 3, start: 2, reboot: 1, migrate: 2, delete: 2}
"""


@given(numbers=st.lists(st.integers(0, 60), max_size=200), chunk=st.integers(1, 8))
def test_the_nth_of_an_ordered_set_is_the_nth_of_its_sorted_members(numbers, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(population, "CHUNK_MAX", chunk)
        ordered, members = Ordered(), set()
        for number in numbers:  # a number that is there already leaves
            if number in members:
                ordered.remove(number)
            else:
                ordered.add(number)
            members ^= {number}
            assert [ordered[nth] for nth in range(len(ordered))] == sorted(members)


def test_an_ordered_set_refuses_what_it_does_not_have():
    ordered = Ordered()
    ordered.add(3)
    with pytest.raises(KeyError):
        ordered.remove(4)
    for nth in (-1, 1):
        with pytest.raises(IndexError):
            ordered[nth]


def test_all_indexes_agree_with_the_tables_at_any_time_of_a_churn():
    scenario, problems = parse_scenario(CHURN)
    assert scenario is not None, problems.text()
    world = World(scenario, 3)
    world.begin()
    running, resting = frozenset({"running"}), frozenset({"stopped", "failed"})
    crowd = Population("web-c", (running, resting))
    looked = reused = suspected = 0
    while world.elapsed_us < 100_000_000 and world.step():
        if world.elapsed_us > 5_000_000 and not looked:
            crowd.follow(world.nexus)  # late: it counts who is there already
            looked = 1
        if looked and world.steps % 25 == 0:
            looked += 1
            records, nexus = world.nexus.records, world.nexus
            live = [row for row in records.instances.values() if row.time_deleted is None]
            reused += len(records.instances) > len(live)
            assert records.live_instances() == live
            assert records.live_vmms() == [vmm for vmm in records.vmms.values() if vmm.time_deleted is None]
            assert all(nexus.find(row.name) is row for row in live)
            for sled_id in records.sleds:
                held = [row for row in records.reservations.values() if row.sled_id == sled_id]
                assert records.used(sled_id) == (sum(r.ncpus for r in held), sum(r.memory for r in held))
            by_load = sorted(records.sleds.values(), key=lambda one: (records.used(one.id)[0], one.ordinal))
            assert list(records.least_loaded()) == by_load
            ctx, suspects = nexus._ctx, records.suspects()
            suspected += len(suspects)
            assert suspects == [row for row in live if row in suspects]
            assert {row.id for row in live if background.seems_due(ctx, row)} <= {row.id for row in suspects}
            for row in live:
                never = ctx.config.cooldown_us, 10**18
                assert row in suspects or not ctx.behaviour.may_auto_restart(row, records.active_vmm(row), *never)
            assert records.suspect_vmms() == [vmm for vmm in records.live_vmms() if vmm.state in DESTROYABLE]
            mine = [row for row in live if row.hostname.startswith("web-c")]
            assert len(crowd) == len(mine)
            for group in (running, resting):
                wanted = [row.id for row in mine if nexus.public_state(row.id).value in group]
                assert [crowd.nth(group, nth) for nth in range(crowd.of(group))] == wanted
    assert looked > 50
    assert reused, "nothing was ever deleted"
    assert suspected, "no background task ever had anything to look at"
