"""`sim-sled import`: a line is lost, or the log begins in the middle; what is left is played as it went."""

import pytest
from support.incident.importing import S, import_, only
from support.incident.writing import Log, nexus, uid

from sim_sled.language.actions import Delay, ForgetVmm, Hang, NexusReplies

MIGRATION = uid("migration")


def loads(scenario):
    return [(load.action(), round(load.at / S)) for load in scenario.load]


def test_a_start_of_which_no_line_says_that_it_ran_is_neither_slow_nor_a_reboot(tmp_path):
    """Its first Running is lost; the next one is that of a reboot."""
    log = Log()
    log.register(0, "web")
    log.request(5, "web", "put", latency=4.8)
    log.request(40, "web", "put")
    log.observes(40.1, "web", "Rebooting", gen=4)
    log.observes(44, "web", "Running", gen=5)
    imported, scenario = import_(tmp_path, log)
    assert loads(scenario) == [("create", 0), ("reboot", 40)]
    assert scenario.rules == ()
    assert (imported.differences, imported.failed) == ((), ())


def test_a_start_from_before_the_log_is_a_put_that_went_well(tmp_path):
    log = Log()
    log.request(30, "web", "put")
    log.observes(30.1, "web", "Rebooting", gen=4)
    log.observes(33, "web", "Running", gen=5)
    log.request(120, "web", "put", None, 60.0)
    imported, scenario = import_(tmp_path, log)
    assert only(scenario, Hang)[0].skip == 2, "the start and the reboot"
    assert (imported.differences, imported.failed) == ((), ())


def test_a_start_that_only_nexus_tells_of_has_its_time_in_the_replay(tmp_path):
    far = nexus()
    ids = {"propolis_id": uid("vmm web"), "instance_id": uid("instance web")}
    far.line(1, "moving instance to Starting state via saga", start_reason="User", **ids)
    far.received(209, "web", "Running", 3)
    imported, scenario = import_(tmp_path, far)
    assert only(scenario, Delay)[1].base.at(0) == 208 * S
    assert scenario.expect[-1].within > 208 * S
    assert (imported.differences, imported.failed) == ((), ())


def test_a_report_that_was_lost_for_good_is_that_one_and_no_neighbours(tmp_path):
    """Another VM's end is told at the same time, and the replay may be a second earlier or later."""
    log = Log()
    for at, vm in ((0, "web"), (1, "db")):
        log.register(at, vm)
        log.starts(at + 1, vm)
    log.stops(40, "web")
    log.not_taken(46.72, "web", 404, final=True)
    log.stops(40, "db", teardown=6.1)
    imported, scenario = import_(tmp_path, log)
    rule, _ = only(scenario, NexusReplies)
    assert (rule.for_.hostname, rule.when.publish, rule.skip, rule.times) == (("web",), ("destroyed",), 0, 1)
    assert [entry.name for entry in scenario.expect[1:]] == ["db-is-told-in-the-end"]
    assert (imported.differences, imported.failed) == ((), ())


def test_of_reports_of_one_state_the_one_is_lost_that_was(tmp_path):
    """Stopping is told twice: of Propolis's Stopping and of its Stopped (SA 3)."""
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.request(30, "web", "put")
    for at, state, gen in ((30.1, "Stopping", 4), (31, "Stopped", 5)):
        log.observes(at, "web", state, publish=False)
        log.publishes(at, "web", "Stopping", gen)
    log.not_taken(31.01, "web", 404, final=True)
    log.observes(31.5, "web", "Destroyed", gen=6)
    _, scenario = import_(tmp_path, log)
    rule, _ = only(scenario, NexusReplies)
    assert (rule.when.publish, rule.skip) == (("stopping",), 1)


def test_more_reports_that_were_refused_for_good_are_a_time_in_which_all_are(tmp_path):
    """omicron#3230: 404 for ever."""
    log = Log()
    for n in range(5):
        log.register(n, f"web-{n}")
        log.starts(n + 1, f"web-{n}")
    for n in range(5):
        log.observes(40 + n, f"web-{n}", "Stopping", gen=4)
        log.not_taken(40.02 + n, f"web-{n}", 404, final=True)
    _, scenario = import_(tmp_path, log)
    rule, replies = only(scenario, NexusReplies)
    assert rule.when.at is not None
    assert replies.lasts > 3 * S


def test_what_is_asked_of_a_vm_that_nexus_has_started_again_waits_for_both_starts(tmp_path):
    """Each may take as long as the slowest of all, and the second begins when the first has failed."""
    log, far = Log(), nexus()
    log.register(0, "slow")
    log.starts(1, "slow", took=20)
    log.register(30, "web")
    log.starts(31, "web", took=4)
    log.publishes(60, "web", "Failed", 4)
    ids = {"propolis_id": uid("vmm web/2"), "instance_id": uid("instance web")}
    far.line(60.2, "moving instance to Starting state via saga", start_reason="AutoRestart", **ids)
    log.register(60.3, "web/2", "web")
    log.starts(61, "web/2", took=4)
    far.user(70, "web", "stop")
    log.stops(70.1, "web/2")
    imported, scenario = import_(tmp_path, log, far)
    [stop] = [load for load in scenario.load if load.stop]
    assert stop.at == pytest.approx((65 + 2 * 16) * S, abs=S)
    assert (imported.differences, imported.failed) == ((), ())


def test_a_source_whose_log_begins_with_its_migration_was_there_before_its_target(tmp_path):
    source, target = Log("BRM1"), Log("BRM2")

    def runtime(state):
        return f"Some(MigrationRuntimeState {{ migration_id: {MIGRATION}, state: {state}, gen: Generation(2) }})"

    target.register(60, "db/2", "db", migration=MIGRATION)
    target.observes(64, "db/2", "Migrating", gen=2)
    target.observes(70, "db/2", "Running", gen=3)
    source.observes(64, "db/1", "Migrating", publish=False)
    source.publishes(64, "db/1", "Migrating", 4, migration_out=runtime("InProgress"))
    source.observes(70, "db/1", "Stopping", publish=False)
    source.publishes(70, "db/1", "Stopping", 5, migration_out=runtime("Completed"))
    source.observes(70.5, "db/1", "Destroyed", gen=6)
    imported, scenario = import_(tmp_path, source, target)
    assert [over.name for over in scenario.fleet.overrides] == ["brm1", "brm2"]
    assert [verb for verb, _ in loads(scenario)] == ["create", "migrate"]
    assert (imported.differences, imported.failed) == ((), ())


def test_what_is_asked_of_a_vm_whose_first_start_failed_waits_as_long_as_that_may_take_to_fail(tmp_path):
    """A replay fails a start when it would have run; in the logs it failed at once. Nobody has Nexus's log."""
    log = Log()
    log.register(0, "slow")
    log.starts(1, "slow", took=20)
    log.register(30, "web")
    log.line(31, "failed to set up Propolis zone", "E", **log.ids("web"), error="No U.2 devices found")
    log.publishes(31.1, "web", "Failed", 4)
    log.register(32, "web/2", "web")
    log.starts(33, "web/2", took=4)
    log.stops(40, "web/2")
    imported, scenario = import_(tmp_path, log)
    [stop] = [load for load in scenario.load if load.stop]
    assert stop.at == pytest.approx((37 + 19 + 16) * S, abs=S)
    assert (imported.differences, imported.failed) == ((), ())


def test_what_was_stopping_had_run_although_no_line_says_so(tmp_path):
    """A start that is stopped before it ran goes to Stopped at once (PR 1.1)."""
    log = Log()
    log.register(0, "web")
    log.request(5, "web", "put", latency=4.8)
    log.stops(90, "web")
    imported, scenario = import_(tmp_path, log)
    assert scenario.rules == ()
    assert (imported.differences, imported.failed) == ((), ())


def test_a_log_that_ends_with_stopped_and_has_lost_stopping_is_no_difference(tmp_path):
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.request(40, "web", "put")
    log.observes(41, "web", "Stopped", gen=5)
    imported, _ = import_(tmp_path, log)
    assert imported.differences == ()


def test_a_vm_of_which_a_log_knows_only_a_404_was_lost_before_it_begins(tmp_path):
    """Its agent had started anew: the log of that is not here, and Nexus starts it elsewhere."""
    log, other, far = Log("BRM1"), Log("BRM2"), nexus()
    ids = {"instance_id": uid("instance web"), "vmm_id": uid("vmm web"), "sled_serial": "BRM1"}
    far.line(1, "updating instance state", "D", background_task="instance_watcher", **ids)
    log.request(30, "web", "get", 404)
    other.register(31, "web/2", "web")
    other.starts(32, "web/2")
    imported, scenario = import_(tmp_path, log, other, far)
    rule, _ = only(scenario, ForgetVmm)
    assert rule.for_.hostname == ("web",)
    assert len(scenario.rules) == 1, "and the check is answered by the sled, which has forgotten it"
    assert "the log of its sled begins later" in imported.text
    assert (imported.differences, imported.failed) == ((), ())
