"""`set` in virtual time, fact by fact: what a rule says is what the sled's areas have, and no other sled's (SR 8)."""

from uuid import UUID

import attrs
import pytest
from support.rack.estate import SLED, EstateDriver, an_id, config
from support.rows import in_one_test

from sim_sled.core.artifacts.store import Artifacts
from sim_sled.core.bootstore.store import Bootstore
from sim_sled.core.bundles.store import Bundles
from sim_sled.core.companions import Companions
from sim_sled.core.config import BareDisk, Hardware, PhysicalDisk
from sim_sled.core.crucible.values import RegionState
from sim_sled.core.errors import BadRequest
from sim_sled.core.facts import SetFacts
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.storage.local import LocalStorage
from sim_sled.core.trust_quorum.node import TrustQuorum
from sim_sled.language.check import parse_scenario
from sim_sled.language.printing import print_scenario
from sim_sled.play.run import How, run_to_end
from sim_sled.play.virtual import World

TEXT = """version: 1
fleet: {{sleds: 3, shape: {{zpools: 2}}}}
load: [{{name: db, at: 1s, task: disk}}]
rules:
- {{name: ours, for: {{sled: sled-2}}, when: {{at: {at}}}, do: {{set: {{{fact}}}}}}}
"""


def played(fact, at="0s"):
    scenario, problems = parse_scenario(TEXT.format(fact=fact, at=at))
    assert scenario is not None, problems.text()
    again, _ = parse_scenario(print_scenario(scenario))
    assert again == scenario, "what is printed says the same"
    world = World(scenario, 1)
    run_to_end(world, How())
    return world


def estate(world, name="sled-2"):
    return world.rack.sleds[world.engine.cast.sleds[name].id].estate


def agents(one):
    return [
        one.of(Companions).agents.agent(each.dataset_id) for each in one.hardware.crucible_datasets_of(one.sled_id)
    ]


OVERRIDE = "2b7a8e2c-6f4b-4d0a-9d6e-3c1f5a7b9d10"

FACTS = {
    "reconciler: 3s": lambda one: one.of(Ledger).takes_us == 3_000_000,
    "time_synchronized: false": lambda one: not one.of(Ledger).faults.time_synchronized,
    "missing_disks: [1, 2]": lambda one: len(one.of(Ledger).faults.missing_disks) == 2,
    "pools: {2: degraded}": lambda one: list(one.of(Inventory).pool_health.values()) == ["degraded"],
    "disks: {1: broken}": lambda one: list(one.of(Ledger).faults.serials.values()) == ["broken"],
    "datasets: {debug: full}": lambda one: one.of(Ledger).faults.kinds == {"debug": "full"},
    "zones: {nexus: 'no'}": lambda one: one.of(Ledger).faults.kinds == {"nexus": "no"},
    "orphans: true": lambda one: one.of(Ledger).faults.keeps_orphans,
    "m2_disks: 0": lambda one: one.of(Artifacts).disks == 0,
    "unmounted: debug": lambda one: one.of(Bundles).unmounted_kinds == {"debug"},
    "hash_mismatches: 2": lambda one: one.of(Bundles).mismatches_left == 2,
    "local_storage_errors: 3": lambda one: one.of(LocalStorage).errors_left == 3,
    "trust_quorum_silent: true": lambda one: one.of(TrustQuorum).silent,
    "bootstore_strict: true": lambda one: one.of(Bootstore).strict,
    "trust_quorum_pending: true": lambda one: one.of(TrustQuorum).pending,
    "strict_artifacts: true": lambda one: one.of(Ledger).strict_artifacts,
    "pool_sizes: {2: 3GiB}": lambda one: list(one.of(Ledger).pools().values()) == [2**40, 3 * 2**30],
    "boot_slot: b": lambda one: one.of(Ledger).boot_slot == "b",
    "boot_disk: gone": lambda one: one.of(Ledger).faults.boot_disk == "gone",
    "slots: {b: broken}": lambda one: one.of(Ledger).faults.slots == {"b": "broken"},
    f"mupdate_override: {OVERRIDE}": lambda one: one.of(Ledger).override == OVERRIDE,
    "services: {'svc:/a:default': maintenance}": lambda one: one.of(Inventory).services
    == [{"fmri": "svc:/a:default", "zone": "global", "state": "maintenance"}],
    "fmd: silent": lambda one: one.of(Inventory).fmd == {"err": "silent"},
    "crucible: {run_fails: true}": lambda one: all(agent.knobs.run_fails for agent in agents(one)),
    "pantry: {crashed: true}": lambda one: one.of(Companions).pantry.knobs.crashed,
    "crucible: {born: failed, create: 1s, ports: 3}": lambda one: {
        (agent.knobs.born, agent.knobs.create_us, agent.knobs.ports) for agent in agents(one)
    } == {(RegionState.FAILED, 1_000_000, 3)},
    "pantry: {activates: false, job: 2s}": lambda one: (
        one.of(Companions).pantry.knobs.activates, one.of(Companions).pantry.knobs.job_us,
    ) == (False, 2_000_000),
    "depot_broken: true": lambda one: one.of(Companions).depot.broken,
}  # fmt: skip


@in_one_test("fact", FACTS)
def test_a_fact_holds_on_the_sled_that_is_meant_and_on_no_other(fact):
    world = played(fact)
    assert FACTS[fact](estate(world))
    assert not FACTS[fact](estate(world, "sled-1"))
    assert [line.text for line in world.lines if "cannot" in line.text] == []


def test_all_regions_of_a_sled_take_a_state():
    world = played("regions: failed", at="5s")
    states = {region.state for agent in agents(estate(world)) for region in agent.regions.values()}
    assert states == {RegionState.FAILED}
    states = {region.state for agent in agents(estate(world, "sled-1")) for region in agent.regions.values()}
    assert states == {RegionState.CREATED}


def test_single_regions_take_a_state_by_number_or_id_and_the_others_keep_theirs():
    text = TEXT.format(fact="regions: {1: failed}", at="5s").replace(
        "task: disk}", "task: {does: disk, sled: [sled-1, sled-2, sled-3]}}, {name: more, at: 2s, task: disk}"
    )
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    again, _ = parse_scenario(print_scenario(scenario))
    assert again == scenario
    world = World(scenario, 1)
    run_to_end(world, How())
    first, second = (region for agent in agents(estate(world)) for region in agent.regions.values())
    assert (first.state, second.state) == (RegionState.FAILED, RegionState.CREATED)
    driver = estate(world)
    SetFacts(some_regions={str(second.request.id): RegionState.TOMBSTONED}).apply(driver, driver.now_us)
    assert (first.state, second.state) == (RegionState.FAILED, RegionState.TOMBSTONED)
    with pytest.raises(BadRequest, match="the sled has 2 regions, none is 3"):
        SetFacts(some_regions={"1": RegionState.CREATED, "3": RegionState.CREATED}).apply(driver, driver.now_us)
    assert first.state is RegionState.FAILED, "what cannot be set changes nothing"
    at = next(agent for agent in agents(driver) if first in agent.all())
    at.delete(str(first.request.id), 0)
    at.delete(str(at.create(attrs.evolve(first.request, id=UUID(int=77)), 0).request.id), 0)
    with pytest.raises(BadRequest, match="its port"):
        SetFacts(regions=RegionState.CREATED).apply(driver, driver.now_us)
    kept = [region.state for region in at.all() if region.port == first.port]
    assert kept == [RegionState.DESTROYED] * 2, "two of one port: neither comes back"


def test_a_broken_downstairs_that_is_given_up_loses_its_region_and_a_repaired_one_does_not():
    for said, state in (("1s", RegionState.CREATED), ("forever", RegionState.FAILED)):
        world = played(f"broken_downstairs: {{1: {said}}}", at="5s")
        states = [region.state for agent in agents(estate(world)) for region in agent.regions.values()]
        assert states == [state]
    driver = estate(world)
    with pytest.raises(BadRequest, match="is failed, nobody writes to it"):
        SetFacts(m2_disks=0, broken_downstairs={"1": 0}).apply(driver, driver.now_us)
    assert driver.of(Artifacts).disks == 2, "nothing is set"


def test_a_pool_that_is_not_there_is_told_even_if_there_is_a_disk_for_it():
    bare = BareDisk(PhysicalDisk(UUID(an_id(1)), "vendor", "model", "serial"), 2**30)
    driver = EstateDriver(hardware=Hardware(zpools=1, disks=(bare,)))
    one = driver.rack.sleds[SLED].estate
    SetFacts(missing_disks=(2,), pool_health={1: "faulted"}).apply(one, 0)
    with pytest.raises(BadRequest, match="the sled has 1 pools, none with the number 2"):
        SetFacts(pool_health={2: "faulted"}).apply(one, 0)


def test_what_the_sled_has_not_is_told_and_nothing_is_set():
    world = played("missing_disks: [9], m2_disks: 0")
    told = [line.text for line in world.lines if "cannot set" in line.text]
    assert told == ["cannot set: the sled has 2 disks, none with the number 9"]
    assert estate(world).of(Artifacts).disks == 2
    assert world.engine.counters["ours"].futile["set"][0] == 1


RUN_AGAIN = (
    {"disks": {1: "broken"}}, {"disks": {1: "ok"}}, {"missing_disks": (1,)}, {"datasets": {"debug": "full"}},
    {"zones": {"nexus": "no"}}, {"time_synchronized": False}, {"boot_disk": "gone"}, {"slots": {"a": "broken"}},
    {"pool_sizes": {1: 2**30}}, {"override": OVERRIDE}, {"keeps_orphans": True},
)  # fmt: skip


@in_one_test("said", RUN_AGAIN, ids=str)
def test_the_reconciler_runs_again_for_each_fact_that_it_depends_on(said):
    driver = EstateDriver()
    one = driver.rack.sleds[SLED].estate
    SetFacts(disks={1: "sick"}).apply(one, driver.now_us)
    driver.ask(Ledger, configure.put, config(2))
    runs = one.of(Ledger).runs
    SetFacts(**said).apply(one, driver.now_us)
    assert one.of(Ledger).runs == runs + 1


def test_a_text_ok_ends_what_another_began():
    text = TEXT.format(fact="zones: {nexus: broken}", at="0s") + (
        "- {name: well, for: {sled: sled-2}, when: {at: 2s}, do: {set: {zones: {nexus: ok}}}}\n"
    )
    scenario, _ = parse_scenario(text)
    world = World(scenario, 1)
    run_to_end(world, How())
    assert estate(world).of(Ledger).faults.kinds == {}


@in_one_test(
    ("said", "code"),
    [
        ("pools: {0: online}", "E111"),
        ("pools: {1: unwell}", "E111"),
        ("zones: {zone: x}", "E111"),
        ("datasets: [debug]", "E111"),
        ("m2_disks: 3", "E111"),
        ("crucible: {born: alive}", "E111"),
        ("regions: {0: failed}", "E111"),
        ("regions: {1: alive}", "E111"),
        ("regions: alive", "E111"),
        ("pool_sizes: {1: many}", "E140"),
        ("boot_slot: c", "E111"),
        ("slots: {c: broken}", "E111"),
        ("mupdate_override: yes", "E111"),
        ("services: {x: unwell}", "E111"),
        ("pantry: {attaches: false}", "E102"),
        ("reconciler: 5", "E180"),
    ],
)
def test_what_no_sled_has_is_refused_where_it_stands(said, code):
    scenario, problems = parse_scenario(TEXT.format(fact=said, at="0s"))
    assert scenario is None
    assert f": {code} " in problems.text()
    assert "-:5:" in problems.text()


def test_a_fact_needs_a_sled():
    text = TEXT.format(fact="m2_disks: 1", at="0s").replace("for: {sled: sled-2}, ", "")
    assert "E243" in parse_scenario(text)[1].text()


THAT = """version: 1
fleet: {{sleds: 1}}
load: [{{name: look, at: 1s, task: collect}}]
expect: [{{name: e, after: {{at: 1s}}, within: 1s, that: {{{that}}}}}]
"""


@in_one_test(
    ("that", "code"),
    [
        ("task: {lok: done}", "did you mean 'look'"),
        ("task: {look: finished}", "E253"),
        ("task: {look: done}, vmm: running", "E250"),
        ("inventory: x", "E111"),
    ],
)
def test_expectations_about_tasks_name_tasks_and_stand_alone(that, code):
    scenario, problems = parse_scenario(THAT.format(that=that))
    assert scenario is None
    assert code in problems.text()


def test_a_task_and_an_inventory_are_seen_or_told_what_they_are_instead():
    scenario, problems = parse_scenario(
        THAT.format(that='task: {look: failed}, inventory: {"zpools.0.health": "o*"}')
    )
    assert scenario is not None, problems.text()
    world = World(scenario, 1)
    run_to_end(world, How())
    [failure] = world.judge.failures
    assert failure.text.endswith("not within 1s: task look is done, not failed")


def test_guests_halt_reset_and_fault_and_a_sled_is_expunged():
    text = """version: 1
fleet: {sleds: 2}
latency: {preset: instant, rebooting -> running: 100ms}
load: [{at: 0s, create: {hostname: "web-{n}", count: 3}}]
rules:
- {name: reset, for: {hostname: web-1}, when: {at: 2s}, do: {guest: reset}}
- {name: halt, for: {hostname: web-2}, when: {at: 2s}, do: {guest: halt}}
- {name: fault, for: {hostname: web-3}, when: {at: 2s}, do: {guest: triple-fault}}
- {name: gone, for: {sled: sled-1}, when: {at: 5s}, do: {expunge_sled: true}}
expect:
- {name: reboots, for: {hostname: [web-1, web-3]}, after: {rule: gone}, within: 120s, that: {instance: running}}
- {name: stops, for: {hostname: web-2}, after: {at: 2s}, within: 5s, that: {instance: stopped}}
# an expunged sled is not told to stop anything: its VMMs go on while Nexus has them restarted elsewhere
- always: [gen_monotonic]
"""
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    world = World(scenario, 1)
    run_to_end(world, How())
    assert [failure.text for failure in world.judge.failures] == []
    rebooted = {line.hostname for line in world.lines if line.kind == "propolis" and "-> rebooting" in line.text}
    assert rebooted == {"web-1", "web-3"}
    gone = world.engine.cast.sleds["sled-1"].id
    assert world.nexus.records.sleds[gone].policy == "expunged"


def test_nexuss_own_record_of_a_migration_is_a_subject():
    text = """version: 1
fleet: {sleds: 2}
latency: {preset: instant, migration sync: 500ms}
load:
- {at: 0s, create: {hostname: web}}
- {at: 2s, migrate: {hostname: web}}
expect: [{name: moves, after: {request: vmm_put_state, to: migration_target}, within: 10s, that: {migration: STATE}}]
"""
    for state, met in (("completed", True), ("failed", False), ("in_progress", True)):
        scenario, problems = parse_scenario(text.replace("STATE", state))
        assert scenario is not None, problems.text()
        world = World(scenario, 1)
        run_to_end(world, How())
        assert (world.judge.failures == []) is met, state


SPOILT = """version: 1
fleet: {{sleds: 1}}
latency: {{preset: instant}}
load: [{{at: 0s, create: {{hostname: web}}}}, {{at: 2s, stop: {{hostname: web}}}}]
rules:
- {{name: ours, for: {{hostname: web}}, when: {{request: vmm_put_state, to: stopped}}, times: 1, do: {{{do}}}}}
expect: [{{name: stops, after: {{at: 2s}}, within: 30s, that: {{vmm: destroyed, instance: stopped}}}}]
"""


@in_one_test(
    ("do", "said"),
    [
        ("truncate: true", "broke off"),
        ("garbage: true", "was garbage"),
        ("dribble: 7s", ""),
        ("dribble: 90s", "60 s"),
    ],
)
def test_a_spoilt_answer_is_one_to_a_request_that_was_carried_out(do, said):
    scenario, problems = parse_scenario(SPOILT.format(do=do))
    assert scenario is not None, problems.text()
    world = World(scenario, 1)
    run_to_end(world, How())
    assert [failure.text for failure in world.judge.failures] == []
    lines = [str(line) for line in world.lines]
    assert any("vmm_put_state stopped: 200" in line for line in lines), "the sled has done it"
    assert any(said in line for line in lines)
    user = next(line for line in world.lines if line.kind == "user" and "stop web" in line.text)
    if do == "dribble: 7s":
        assert user.at_us == pytest.approx(9_000_000, abs=200_000)


def test_a_clock_jumps_and_with_it_every_time_that_the_sled_tells_and_no_wait():
    text = """version: 1
fleet: {sleds: 2}
latency: {preset: instant, stopping -> stopped: 1s}
load: [{at: 0s, create: {hostname: "web-{n}", count: 2}}, {at: 5s, stop: {}}]
rules: [{name: ours, for: {sled: sled-1}, when: {at: 1s}, do: {clock: {jump: 1h}}}]
expect: [{name: stops, after: {at: 5s}, within: 3s, that: {instance: stopped}}]
"""
    ahead = {}
    for said, by in (("jump: 1h", 3_600_000_000), ("jump: 1h, back: true", -3_600_000_000)):
        scenario, problems = parse_scenario(text.replace("jump: 1h", said))
        assert scenario is not None, problems.text()
        world = World(scenario, 1)
        run_to_end(world, How(until_us=20_000_000))
        for name in ("sled-1", "sled-2"):
            sled = world.engine.cast.sleds[name]
            told = [
                world.nexus.records.vmms[who.propolis_id].time_state_updated
                for who in world.engine.cast.subjects.values()
                if who.sled is sled
            ]
            ahead[name, by] = max(told)
            assert world.rack.sleds[sled.id].clock_us == (by if name == "sled-1" else 0)
        apart_us = ahead["sled-1", by] - ahead["sled-2", by]
        assert apart_us == pytest.approx(by, abs=1_000_000)
        stops = [failure.text for failure in world.judge.failures if "stops" in failure.text]
        assert stops == [], "no wait is longer or shorter for it"
