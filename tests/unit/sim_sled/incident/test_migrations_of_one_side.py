"""`sim-sled import`: migrations of which one side's log is there, and VMMs whose end or beginning is in no line."""

from datetime import timedelta

import pytest
from support.incident.importing import S, actions, import_, only
from support.incident.writing import START, Log, nexus, stamp, uid

from sim_sled.language.actions import Guest, MigrationFate

MIGRATION = uid("migration")


def runtime(state):
    return f"Some(MigrationRuntimeState {{ migration_id: {MIGRATION}, state: {state}, gen: Generation(2) }})"


def migrates(log, at, vm, gen, outcome):
    """What the agent of a source writes."""
    log.observes(at, vm, "Migrating", publish=False)
    log.publishes(at + 0.001, vm, "Migrating", gen, migration_out=runtime("InProgress"))
    after = "Running" if outcome == "Failed" else "Stopping"
    log.observes(at + 9, vm, after, publish=False)
    log.publishes(at + 9.001, vm, after, gen + 1, migration_out=runtime(outcome))
    if outcome == "Completed":
        log.observes(at + 9.2, vm, "Destroyed", publish=False)
        log.publishes(at + 12, vm, "Destroyed", gen + 2, migration_out=runtime(outcome))


def loads(scenario):
    return [(load.action(), getattr(load, load.action())) for load in scenario.load]


def test_of_a_source_alone_each_migration_is_asked_for_and_the_one_that_failed_fails(tmp_path):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    migrates(log, 60, "db", 4, "Failed")
    migrates(log, 120, "db", 6, "Completed")
    imported, scenario = import_(tmp_path, log)
    assert [over.name for over in scenario.fleet.overrides] == ["brm1", "elsewhere"]
    assert [(verb, what.to) for verb, what in loads(scenario)[1:]] == [("migrate", "elsewhere")] * 2
    rule, fate = only(scenario, MigrationFate)
    assert (rule.skip, rule.times, fate.result) == (0, 1, "failed")
    assert "'elsewhere' stands for sleds whose logs are not here" in imported.summary
    assert (imported.differences, imported.failed) == ((), ())


def test_a_target_alone_came_from_elsewhere(tmp_path):
    log = Log()
    log.register(0, "db", migration=MIGRATION)
    log.observes(5, "db", "Migrating")
    log.observes(12, "db", "Running", gen=4)
    log.stops(60, "db")
    imported, scenario = import_(tmp_path, log)
    assert [verb for verb, _ in loads(scenario)] == ["create", "migrate", "stop"]
    assert (loads(scenario)[0][1].sled, loads(scenario)[1][1].to) == (("elsewhere",), "brm1")
    assert (imported.differences, imported.failed) == ((), ())


def phase(side, name):
    """What Propolis publishes beside its state."""
    word = f"migration_{side}: Some(InstanceMigrationStatus {{ id: {MIGRATION}, state: {name} }})"
    other = "out" if side == "in" else "in"
    return f"InstanceMigrateStatusResponse {{ {word}, migration_{other}: None }}"


def test_two_propolis_alone_are_one_vm_if_they_tell_of_one_migration(tmp_path):
    source = Log(f"oxz_propolis-server_{uid('vmm a')}", "propolis-server")
    target = Log(f"oxz_propolis-server_{uid('vmm b')}", "propolis-server")
    told = "publishing new instance state"
    source.line(5, told, gen=3, state="Running")
    target.line(60, told, gen=1, state="Migrating", migration=phase("in", "Sync"))
    source.line(60.1, told, gen=4, state="Migrating", migration=phase("out", "Sync"))
    source.line(62, told, gen=5, state="Migrating", migration=phase("out", "RamPush"))
    source.line(65, "migration out failed, resuming", error="Websocket(..)")
    source.line(65.1, told, gen=6, state="Running", migration=phase("out", "Error"))
    target.line(65.1, told, gen=2, state="Failed", migration=phase("in", "Error"))
    imported, scenario = import_(tmp_path, source, target)
    assert [verb for verb, _ in loads(scenario)] == ["create", "migrate"]
    rule, _ = only(scenario, MigrationFate)
    assert rule.when.migration == ("ram_push",)
    assert imported.differences == ()


def test_nexus_says_which_two_vmms_a_migration_is_of(tmp_path):
    far = nexus()
    far.received(5, "db/1", "Running", 3)
    far.line(
        60, "initiating migration from destination sled", migration_id=MIGRATION,
        src_propolis_id=uid("vmm db/1"), dst_propolis_id=uid("vmm db/2"), sled_id=uid("sled"),
    )  # fmt: skip
    far.received(61, "db/2", "Migrating", 2)
    far.received(66, "db/2", "Running", 3)
    imported, scenario = import_(tmp_path, far)
    assert [verb for verb, _ in loads(scenario)] == ["create", "migrate"]
    assert imported.differences == ()


@pytest.mark.parametrize("told", [True, False], ids=["Nexus has the user's start", "nobody has it"])
def test_a_vm_that_is_registered_anew_was_stopped_before_although_no_line_says_so(tmp_path, told):
    log, far = Log(), nexus()
    log.register(0, "db/1", "db")
    log.starts(1, "db/1")
    log.register(90, "db/2", "db")
    log.starts(91, "db/2")
    if told:
        far.user(90, "db", "start")
    imported, scenario = import_(tmp_path, log, *([far] if told else []))
    assert [verb for verb, _ in loads(scenario)] == ["create", "stop", "start"]
    assert "that it was stopped is invented" in imported.text
    assert imported.differences == ()


def test_a_later_vmm_whose_registration_is_lost_was_started_too(tmp_path):
    log = Log()
    log.register(0, "db/1", "db")
    log.starts(1, "db/1")
    log.stops(30, "db/1")
    log.starts(91, "db/2")
    imported, scenario = import_(tmp_path, log)
    assert [verb for verb, _ in loads(scenario)] == ["create", "stop", "start"]
    assert imported.differences == ()


def test_an_end_that_is_all_a_log_has_of_a_vmm_was_asked_for(tmp_path):
    log = Log()
    log.publishes(1, "db/1", "Destroyed", 7)
    log.register(60, "db/2", "db")
    log.starts(61, "db/2")
    imported, scenario = import_(tmp_path, log)
    assert [verb for verb, _ in loads(scenario)] == ["create", "stop", "start"]
    assert imported.differences == ()


def test_a_reboot_that_only_nexus_tells_of_and_nobody_asked_it_for_is_the_guests(tmp_path):
    far = nexus()
    far.user(1, "db", "start")
    for at, state, gen in ((3, "Starting", 2), (9, "Running", 3), (50, "Rebooting", 4), (55, "Running", 5)):
        told = f"VmmRuntimeState {{ state: {state}, generation: Generation({gen}), time_updated: {stamp(at)} }}"
        about = {**far.ids("db"), "uri": f"/vmms/{uid('vmm db')}", "vmm_state": told}
        far.line(at, "received new VMM runtime state from sled agent", **about)
    imported, scenario = import_(tmp_path, far)
    [(rule, guest)] = actions(scenario, Guest)
    assert guest.event == "reset"
    assert rule.do[0].base.at(0) == pytest.approx(41 * S, abs=0.1 * S)
    assert "no user's request for it is in Nexus's log" in imported.text
    assert imported.differences == ()


def test_a_target_whose_registration_is_lost_is_a_target_and_nobody_else_is(tmp_path):
    log, other = Log(), Log("BRM2")
    log.register(0, "db/1", "db")
    log.starts(1, "db/1")
    migrates(log, 60, "db/1", 4, "Completed")
    other.observes(61, "db/2", "Migrating")
    other.observes(68, "db/2", "Running", gen=4)
    imported, scenario = import_(tmp_path, log, other)
    assert [over.name for over in scenario.fleet.overrides] == ["brm1", "brm2"]
    assert [(verb, getattr(what, "to", None)) for verb, what in loads(scenario)] == [
        ("create", None),
        ("migrate", "brm2"),
    ]
    assert imported.differences == ()


def test_the_end_of_a_source_is_not_what_a_request_before_the_migration_asked_for(tmp_path):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    log.request(30, "db", "put")  # what came of it is in lines that are lost
    migrates(log, 60, "db", 4, "Completed")
    imported, scenario = import_(tmp_path, log)
    assert [verb for verb, _ in loads(scenario)] == ["create", "migrate"]
    assert imported.differences == ()


def whole_migration(apart, tell):
    """A migration as the two sides write it down, whose clocks are `apart` seconds; `tell` writes what both did."""
    source, target = Log("BRM1"), Log("BRM2", start=START + timedelta(seconds=apart))
    source.register(0, "db/1", "db")
    source.starts(1, "db/1")
    target.register(60, "db/2", "db", migration=MIGRATION)
    migrates(source, 65, "db/1", 4, "Completed")
    told = tell(source, target)
    target.observes(65, "db/2", "Migrating", gen=2, publish=False)
    target.observes(74, "db/2", "Running", gen=4, publish=False)
    return [source, target, *told]


def told_by_agents(_source, target):
    target.publishes(65.001, "db/2", "Migrating", 2, migration_in=runtime("InProgress"))
    return []


def told_by_propolis(_source, target):
    found = []
    for side, vm, start in (("out", "db/1", START), ("in", "db/2", target.start)):
        own = Log(f"oxz_propolis-server_{uid(f'vmm {vm}')}", "propolis-server", start=start)
        for at, name in ((65, "Sync"), (66, "RamPush"), (70, "Device")):
            told = phase(side, name)
            own.line(at, "publishing new instance state", gen=at, state="Migrating", migration=told)
        found.append(own)
    return found


@pytest.mark.parametrize("apart", [90, -600])
@pytest.mark.parametrize("tell", [told_by_agents, told_by_propolis])
def test_two_sides_of_a_migration_set_clocks_right_where_nothing_else_does(tmp_path, apart, tell):
    """Else the target seemed to be another one, on a sled that nobody has."""
    imported, scenario = import_(tmp_path, *whole_migration(apart, tell))
    assert [over.name for over in scenario.fleet.overrides] == ["brm1", "brm2"]
    assert [verb for verb, _ in loads(scenario)] == ["create", "migrate"]
    assert scenario.load[1].at == pytest.approx(60 * S, abs=S)
    assert f"The clock of BRM2 is {abs(apart)}.000 s {'ahead of' if apart > 0 else 'behind'}" in imported.summary
    assert (imported.differences, imported.failed) == ((), ())


def test_a_target_is_known_by_the_id_of_its_migration_if_nothing_sets_its_clock_right(tmp_path):
    imported, scenario = import_(tmp_path, *whole_migration(300, lambda *_: []))
    assert [over.name for over in scenario.fleet.overrides] == ["brm1", "brm2"]
    assert [verb for verb, _ in loads(scenario)] == ["create", "migrate"]
    assert "The clock of BRM2 cannot be compared" in imported.summary


def test_a_migration_that_takes_long_is_no_slow_start(tmp_path):
    source, target = whole_migration(0, told_by_agents)
    target.lines.clear()
    target.register(60, "db/2", "db", migration=MIGRATION)
    target.line(60.2, f"Configuring new Omicron zone: oxz_propolis-server_{uid('vmm db/2')}", **target.ids("db/2"))
    target.observes(65, "db/2", "Migrating", gen=2)
    target.observes(140, "db/2", "Running", gen=4)
    _, scenario = import_(tmp_path, source, target)
    assert scenario.rules == ()


def test_a_second_migration_waits_until_the_updater_has_cleared_the_one_that_came_to_nothing(tmp_path):
    """Both are of one id: its first target refused."""
    source, refuses, takes = Log("BRM1"), Log("BRM2"), Log("BRM3")
    source.register(0, "db/1", "db")
    source.starts(1, "db/1")
    refuses.register(60, "db/2", "db", migration=MIGRATION, status=500)
    takes.register(64, "db/3", "db", migration=MIGRATION)
    migrates(source, 69, "db/1", 4, "Completed")
    takes.observes(69, "db/3", "Migrating", gen=2)
    takes.observes(78, "db/3", "Running", gen=4)
    imported, scenario = import_(tmp_path, source, refuses, takes)
    asked = [(load.action(), round(load.at / S)) for load in scenario.load]
    assert asked == [("create", 0), ("migrate", 60), ("migrate", 90)]
    assert "cleared by the updater's next pass" in imported.text
    assert (imported.differences, imported.failed) == ((), ())
