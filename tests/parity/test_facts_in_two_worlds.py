"""Facts of sleds (SR 8), the library's incidents about them, and its scenarios of properties, each played in virtual
time and on real sockets.

The same file must come to the same judgement in both: what a fact does is seen by Nexus's own tasks, over the core in
one world and over HTTP in the other. That a scenario without its rule fails is proven for the library in tests/sim,
and here for each fact.
"""

import asyncio
import re
from pathlib import Path

import attrs
import pytest
from support.rows import in_one_test

from sim_sled import logs
from sim_sled.core.mishaps import OPERATIONS as BESIDE
from sim_sled.daemon import on_sockets
from sim_sled.language.actions import SetFacts
from sim_sled.language.check import load_scenarios, parse_scenario
from sim_sled.language.record import fields_of
from sim_sled.play.run import How, play

SEED = 7
SHOWN = How(keep=False, until_us=30_000_000)
"""All is expected within four seconds; what a broken depot makes people do again and again goes on for minutes."""
AGAIN = 3
"""What fails in company is played so often again, alone: a meaning differs each time, a late clock does not."""
LIBRARY = (
    "disk-stuck-creating", "region-out-of-space", "zpool-lost", "inventory-timeouts", "artifact-stuck",
    "bundle-half-way", "ntp-never-in-sync", "config-refused", "orphaned-datasets", "expunged-disk",
    "sagas-settle", "reservations-bounded", "life-cycle-converges", "accounting", "registration-converges",
)  # fmt: skip
"""Incidents, and scenarios of properties."""
DAILY = ("zpool-lost", "bundle-half-way", "orphaned-datasets")
"""Those that show a fact which has no row here."""
FOLDER = Path(__file__).parents[2] / "scenarios"

CONFIG = "{name: t, at: 300ms, task: {does: config, sled: sled-1, round: 200ms}}"
DISK = "{name: t, at: 300ms, task: disk}"
ARTIFACT = "{name: t, at: 300ms, task: {does: artifact, round: 200ms}}"
LOOK = "{name: t, at: 300ms, task: {does: collect, sled: sled-1}}"
ALONE = "for: {sled: sled-1}"

FACTS = {
    "reconciler": ("reconciler: 20s", CONFIG, "inventory: {reconciler_status.status: running}"),
    "time_synchronized": (
        "time_synchronized: false", CONFIG,
        'inventory: {"last_reconciliation.zones.*.message": "Time not yet synchronized"}',
    ),
    "pools": ("pools: {2: faulted}", LOOK, 'inventory: {"zpools.*.health": faulted}'),
    "disks": ("disks: {1: broken}", CONFIG, 'inventory: {"last_reconciliation.external_disks.*.message": broken}'),
    "datasets": ("datasets: {debug: full}", CONFIG, 'inventory: {"last_reconciliation.datasets.*.message": full}'),
    "zones": ("zones: {crucible: no}", CONFIG, 'inventory: {"last_reconciliation.zones.*.message": "no"}'),
    "m2_disks": ("m2_disks: 1", ARTIFACT, "task: {t: waiting}"),
    "crucible": ("crucible: {born: failed}", DISK, "task: {t: failed}"),
    "depot_broken": ("depot_broken: true", ARTIFACT, "task: {t: waiting}"),
}  # fmt: skip
"""fact -> the fact, a task that meets it, and what shows it."""
TOLD = {
    "pool_sizes": ("pool_sizes: {2: 1GiB}", CONFIG, 'inventory: {"zpools.1.total_size": "1073741824"}'),
    "boot_slot": ("boot_slot: b", CONFIG, 'inventory: {"last_reconciliation.boot_partitions.boot_disk.ok": B}'),
    "boot_disk": (
        "boot_disk: gone", CONFIG, 'inventory: {"last_reconciliation.boot_partitions.boot_disk.err": gone}',
    ),
    "slots": (
        "slots: {b: unreadable}", CONFIG, 'inventory: {"last_reconciliation.boot_partitions.slot_b.err": unreadable}',
    ),
    "mupdate_override": (
        "mupdate_override: 2b7a8e2c-6f4b-4d0a-9d6e-3c1f5a7b9d10", LOOK,
        'inventory: {"file_source_resolver.mupdate_override.boot_override.ok.mupdate_override_id": "2b7a8e2c-*"}',
    ),
    "services": (
        "services: {'svc:/system/ipcc:default': maintenance}", LOOK,
        'inventory: {"smf_services_enabled_not_online.value.services.*.state": maintenance}',
    ),
    "fmd": ("fmd: no answer", LOOK, 'inventory: {"fmd.err": "no answer"}'),
}  # fmt: skip
"""Facts that an inventory tells and nothing else is changed by: on sockets all of them are set at once, except that
a boot disk is known or not."""
ELSEWHERE = {
    "orphans": "scenarios/orphaned-datasets.yaml",
    "missing_disks": "scenarios/zpool-lost.yaml",
    "unmounted": "scenarios/bundle-half-way.yaml",
    "hash_mismatches": "CALLS",
    "local_storage_errors": "CALLS",
    "trust_quorum_silent": "CALLS",
    "trust_quorum_pending": "CALLS",
    "strict_artifacts": "CALLS",
    "bootstore_strict": "CALLS",
    "regions": "CALLS",
    "broken_downstairs": "CALLS",
    "pantry": "CALLS",
    "volumes_taken_over": "CALLS",
}
"""Facts that a scenario of the library shows, or that no task of Nexus meets: those are met by calls of a test, in
tests/unit/sim_sled/engine/test_facts.py in virtual time and in tests/e2e/test_facts.py on a live daemon."""

TEXT = """version: 1
fleet: {{sleds: 4, shape: {{zpools: 3}}}}
latency: {{preset: instant}}
load: [{load}]
rules:
- {{name: ours, {whom}, when: {{at: 0s}}, do: {{set: {{{fact}}}}}}}
expect:
- {{name: shows, {whom}, after: {{at: 4s}}, within: 10ms, that: {{{shows}}}}}
"""


def scenario_of(fact):
    said, load, shows = (FACTS | TOLD)[fact]
    return parsed(said, load, shows)


def parsed(said, load, *shows):
    further = "".join(
        f"- {{name: also-{n}, {ALONE}, after: {{at: 4s}}, within: 10ms, that: {{{show}}}}}\n"
        for n, show in enumerate(shows[1:])
    )
    text = TEXT.format(fact=said, load=load, shows=shows[0], whom=ALONE) + further
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return scenario


def without_rules(scenario):
    return attrs.evolve(scenario, rules=tuple(attrs.evolve(rule, enabled=False) for rule in scenario.rules))


@pytest.fixture(name="quick_ends")
def _quick_ends(monkeypatch):
    """What is judged has been judged by the time nothing is planned any more; some tasks are tried for ever."""
    logs.configure(level="critical")
    monkeypatch.setattr(on_sockets, "SETTLE_S", 0.5)
    monkeypatch.setattr(on_sockets, "OVERTIME_S", 5.0)


async def on_real_sockets(wanted, side_by_side=20):
    """Most of a run is waiting: a second of processor time is enough for five of them."""
    room = asyncio.Semaphore(side_by_side)

    async def one(scenario):
        async with room:
            return await on_sockets.play_on_sockets(scenario, SEED, lambda _line: None)

    return dict(zip(wanted, await asyncio.gather(*map(one, wanted.values())), strict=True))


def judged_on_sockets(wanted):
    results = asyncio.run(on_real_sockets(wanted))
    for _ in range(AGAIN):
        again = {name: wanted[name] for name, result in results.items() if result.failures}
        results |= asyncio.run(on_real_sockets(again, 1))
    return results


def test_every_fact_is_shown_somewhere():
    assert set(FACTS) | set(TOLD) | set(ELSEWHERE) == set(fields_of(SetFacts))


@in_one_test("fact", [*FACTS, *TOLD])
def test_a_fact_shows_in_virtual_time_and_nothing_shows_without_it(fact):
    scenario = scenario_of(fact)
    assert [failure.text for failure in play(scenario, SEED, SHOWN).failures] == []
    assert play(without_rules(scenario), SEED, SHOWN).failures, "the expectation notices nothing"


@pytest.mark.early
def test_facts_mean_the_same_on_real_sockets(quick_ends):
    wanted = {fact: scenario_of(fact) for fact in FACTS}
    said, _, shows = zip(*(row for fact, row in TOLD.items() if fact != "boot_disk"), strict=True)
    wanted["told"] = parsed(", ".join(said), CONFIG, *shows)
    wanted["boot_disk"] = scenario_of("boot_disk")
    assert_right_on_sockets(wanted | of_the_library(DAILY))


@pytest.mark.early
@pytest.mark.long
def test_incidents_and_properties_mean_the_same_on_real_sockets(quick_ends):
    assert_right_on_sockets(of_the_library(LIBRARY))


def of_the_library(names):
    found = {}
    for name in names:
        [loaded], problems = load_scenarios([str(FOLDER / f"{name}.yaml")])
        assert loaded.scenario is not None, problems.text()
        found[name] = loaded.scenario
    return found


def assert_right_on_sockets(wanted):
    results = judged_on_sockets(wanted)
    assert {name: [f.text for f in result.failures] for name, result in results.items() if result.failures} == {}


MIGRATES = """version: 1
fleet: {{sleds: 2}}
latency: {{preset: instant, migration sync: 200ms}}
load:
- {{at: 0s, create: {{hostname: web}}}}
- {{at: 800ms, migrate: {{hostname: web}}}}
rules:
- {{name: ours, when: {{migration: sync}}, times: 1, do: {{migration: {{result: {result}}}}}}}
expect: [{{name: ends, for: {{hostname: web}}, after: {{rule: ours}}, within: 10s, that: {{migration: {ends}}}}}]
"""


def test_nexuss_own_record_of_a_migration_means_the_same_in_both_worlds(quick_ends):
    wanted = {}
    for result, ends in (("completed", "completed"), ("failed", "failed"), ("failed", "completed")):
        scenario, problems = parse_scenario(MIGRATES.format(result=result, ends=ends))
        assert scenario is not None, problems.text()
        wanted[result, ends] = scenario
    wrong = wanted.pop(("failed", "completed"))
    for pair, result in judged_on_sockets(wanted).items():
        assert [failure.text for failure in (*result.failures, *play(wanted[pair], SEED).failures)] == [], pair
    assert play(wrong, SEED).failures, "the expectation notices nothing"


REQUESTS = {
    "omicron_config_put": CONFIG,
    "artifact_put": ARTIFACT,
    "region_create": DISK,
    "inventory": LOOK,
}


@pytest.mark.early
def test_any_operation_can_be_failed_hung_up_and_delayed_in_both_worlds(quick_ends):
    doings = {"fail": "fail: 503", "reset": "reset: true", "delay": "delay: 100ms", "hang": "hang: 100ms"}
    wanted = {}
    for op, load in REQUESTS.items():
        for name, doing in doings.items():
            text = TEXT.format(fact="", load=load, shows="task: {t: done}", whom=ALONE)
            text = re.sub(r"when: \{at: 0s\}, do: .*", f"when: {{request: {op}}}, times: 1, do: {{{doing}}}}}", text)
            scenario, problems = parse_scenario(text)
            assert scenario is not None, problems.text()
            wanted[op, name] = scenario
    assert set(REQUESTS) & BESIDE, "one of them is asked of a server beside a sled"
    virtual = {key: play(scenario, SEED) for key, scenario in wanted.items()}
    sockets = judged_on_sockets(wanted)
    for key in wanted:
        for result in (virtual[key], sockets[key]):
            assert [failure.text for failure in result.failures] == [], key
            assert any(line.kind == "rule" and "ours" in line.text for line in result.lines), f"{key}: never fired"
