"""`sim-sled import`: each kind of thing that happens to VMs, sleds and Nexus, and what plays it."""

from datetime import UTC, datetime

import pytest
from support.incident.importing import S, actions, import_, only
from support.incident.writing import Log, nexus, uid
from support.rows import in_one_test

from sim_sled.language.actions import (
    Delay,
    Fail,
    Hang,
    KillPropolis,
    MigrationFate,
    NexusReplies,
    Partition,
    RebootSled,
    RestartAgent,
    SetState,
    Stall,
)


def test_a_vm_that_never_stops_within_the_grace_is_stalled_and_the_grace_is_the_one_seen(tmp_path):
    log = Log()
    log.register(1, "db-1")
    log.starts(2, "db-1")
    log.request(30, "db-1", "put")
    log.observes(30.1, "db-1", "Stopping", gen=5)
    log.line(
        150.1, "Instance failed to stop within the grace period, terminating it violently!", "W", **log.ids("db-1")
    )
    log.publishes(151, "db-1", "Destroyed", gen=7)
    _, scenario = import_(tmp_path, log)
    rule, _ = only(scenario, Stall)
    assert rule.when.state == ("stopping",)
    assert scenario.agent.stop_grace == 120 * S


@pytest.mark.parametrize(
    ("message", "restart"),
    [
        pytest.param("Propolis zone is gone, marking VMM as failed", True, id="a zone that vanished"),
        pytest.param(
            "Propolis monitor unexpectedly reported no instance, marking as failed", True, id="an empty Propolis"
        ),
        pytest.param(
            "communication error checking up on Propolis, but the zone is still running...",
            False,
            id="a silent Propolis",
        ),
    ],
)
def test_a_propolis_that_is_lost_is_killed_as_long_after_its_start(tmp_path, message, restart):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    log.line(40, message, "W", **log.ids("web-1"))
    if restart:
        log.observes(40.1, "web-1", "Failed", gen=4)
    _, scenario = import_(tmp_path, log)
    rule, kill = only(scenario, KillPropolis)
    assert kill.restart is restart
    assert only(scenario, Delay)[1].base.at(0) == pytest.approx(32 * S, abs=0.2 * S)
    assert rule.for_.hostname == ("web-1",)


@pytest.mark.parametrize(
    "message", ["failed to set up Propolis zone", "failed to create Propolis VM", "vmm setup failed: Err(X)"]
)
def test_a_start_that_fails_in_the_zone_leaves_the_vmm_failed(tmp_path, message):
    log = Log()
    log.register(1, "web-1")
    log.line(3, message, "E", **log.ids("web-1"), error="no U.2 devices found")
    log.publishes(3.1, "web-1", "Failed", gen=3)
    _, scenario = import_(tmp_path, log)
    rule, to = only(scenario, SetState)
    assert (to.state, rule.times) == ("failed", 1)


def test_an_agent_that_starts_in_the_middle_of_its_log_was_restarted_and_lost_its_vmms(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    log.agent_starts(65, 70)
    log.request(80, "web-1", "get", 404)
    _, scenario = import_(tmp_path, log)
    rule, restart = only(scenario, RestartAgent)
    assert restart.keep_vmms == 0
    assert restart.down.at(0) == pytest.approx(62 * S, abs=0.1 * S), "from its last word to its first answer"
    assert rule.for_.sled == ("brm1",)
    assert not actions(scenario, Fail), "the 404 follows from the restart"


def test_a_sled_that_believes_in_1986_was_booted(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    log.start = datetime(1986, 12, 28, tzinfo=UTC)
    log.agent_starts(61, 66)
    log.start = Log().start
    log.request(200, "web-1", "get", 404)
    _, scenario = import_(tmp_path, log)
    _, reboot = only(scenario, RebootSled)
    # its last line of 1986 lies just before the first of today, so it began five seconds earlier
    assert reboot.down.at(0) == pytest.approx(192 * S, abs=0.1 * S)


def test_a_user_who_was_refused_is_told_of_and_not_played(tmp_path):
    log, told = Log(), nexus()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    told.user(20, "web-1", "reboot", 400)
    told.user(30, "web-1", "reboot", 202)
    log.observes(31, "web-1", "Rebooting")
    imported, scenario = import_(tmp_path, log, told)
    assert len([each for each in scenario.load if each.reboot]) == 1
    assert "was refused (400)" in imported.text


def test_an_expectation_has_half_as_much_time_again_and_ten_seconds(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    _, scenario = import_(tmp_path, log)
    [runs] = [each for each in scenario.expect if each.name == "web-1-runs"]
    # 7 s from the registration until it ran: 20.5 s, in whole five seconds
    assert runs.within == 25 * S


def test_checks_of_many_vms_on_one_sled_that_hang_at_one_time_have_one_cause(tmp_path):
    log = Log()
    for i in range(4):
        log.register(1 + i, f"vm-{i}")
        log.starts(2 + i, f"vm-{i}")
    for i in range(4):
        log.request(100 + i, f"vm-{i}", "get", None, 60.003)
    imported, scenario = import_(tmp_path, log)
    rule, hang = only(scenario, Hang)
    assert (rule.for_.sled, rule.when.request) == (("brm1",), ("vmm_get_state",))
    assert hang.lasts == pytest.approx(60 * S, abs=0.1 * S)
    assert "one cause is assumed" in imported.text


def test_a_full_queue_is_a_503_with_its_own_code(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    for i in range(3):
        log.request(
            30 + i,
            "web-1",
            "get",
            503,
            0.000126,
            error_message_internal="Failed to send request to Instance: channel at capacity (32)",
        )
    _, scenario = import_(tmp_path, log)
    rule, fail = only(scenario, Fail)
    assert (fail.status, fail.code, rule.times) == (503, "INSTANCE_CHANNEL_FULL", 3)


def test_reports_that_meet_no_answer_are_a_partition(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    log.request(30, "web-1", "put")
    log.observes(30.1, "web-1", "Rebooting", gen=4)
    for i in range(5):
        log.not_taken(31 + i, "web-1", status=None)
        log.publishes(31.5 + i, "web-1", "Rebooting", gen=4)
    log.observes(40, "web-1", "Running", gen=5)
    _, scenario = import_(tmp_path, log)
    rule, partition = only(scenario, Partition)
    assert rule.when.at <= 30 * S
    assert rule.when.at + partition.lasts >= 34 * S


def test_a_report_that_was_refused_for_good_is_not_demanded_in_the_replay(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    log.stops(30, "web-1")
    log.lines.pop()  # the runner goes on until its report is answered
    log.not_taken(37, "web-1", status=404, final=True)
    _, scenario = import_(tmp_path, log)
    assert only(scenario, NexusReplies)[1].status == 404
    [always] = [each.always for each in scenario.expect if each.always]
    assert "final_state_acked" not in always


def test_a_failed_migration_fails_in_the_phase_that_propolis_last_told(tmp_path):
    log, own = Log(), Log(f"oxz_propolis-server_{uid('vmm app-1')}", "propolis-server")
    log.register(1, "app-1")
    log.starts(2, "app-1")
    log.register(30, "app-1/2", hostname="app-1", migration=uid("migration"))
    for at, phase in ((31, "Sync"), (32, "RamPush"), (33, "Pause"), (34, "Device")):
        status = f"InstanceMigrationStatus {{ id: {uid('m')}, state: {phase} }}"
        out = f"InstanceMigrateStatusResponse {{ migration_in: None, migration_out: Some({status}) }}"
        own.line(at, "publishing new instance state", gen=at, state="Migrating", migration=out)
    own.line(35, "migration out failed, resuming", error="RemoteError(Destination, x)")
    own.line(35.1, "publishing new instance state", gen=36, state="Running", migration="None")
    _, scenario = import_(tmp_path, log, own)
    rule, fate = only(scenario, MigrationFate)
    assert (rule.when.migration, fate.result, fate.source) == (("device",), "failed", "resumes")
    assert any(load.migrate is not None for load in scenario.load), "inferred from the registration of a target"


def test_a_state_that_never_ends_is_stuck_and_says_that_the_end_is_invented(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    log.request(30, "web-1", "put")
    log.observes(30.1, "web-1", "Stopping", gen=5)
    log.request(400, "web-1", "get", 200, 0.001)
    imported, scenario = import_(tmp_path, log)
    assert only(scenario, Stall)[0].when.state == ("stopping",)
    assert "'forever' is invented" in imported.text


@pytest.mark.parametrize("ahead", [-90.0, -1.348, 0.0, 0.4, 3600.0])
def test_a_nexus_with_another_clock_is_set_right_by_request_ids(tmp_path, ahead):
    log, control = Log(), nexus(ahead)
    log.register(1, "web-1")
    log.starts(2, "web-1")
    control.user(30, "web-1", "stop")
    log.stops(30, "web-1")
    log.request(60, "web-1", "get", 404, 0.0001, req_id=uid("the one"))
    error = f'Error Response: status: 404 Not Found; headers: {{"x-request-id": "{uid("the one")}"}}'
    control.line(60.002, "check incomplete due to client error", "W", error=error)
    _, scenario = import_(tmp_path, log, control)
    [stop] = [load for load in scenario.load if load.stop is not None]
    assert stop.at == pytest.approx(29 * S, abs=0.1 * S)


def test_two_instances_of_one_host_name_stay_two(tmp_path):
    log = Log()
    log.register(1, "a", hostname="twin")
    log.register(2, "b", hostname="twin")
    log.starts(3, "a")
    log.starts(4, "b")
    _, scenario = import_(tmp_path, log)
    assert len({load.create.hostname for load in scenario.load}) == 2


@in_one_test("hostname", ["no", "1e3", "123", "true", "Web.Example", "a: {b}", "x" * 80, "-", "ü", "9lives"])
def test_any_host_name_makes_a_scenario(tmp_path, hostname):
    log = Log()
    log.register(1, "a", hostname=hostname)
    log.starts(2, "a")
    log.request(30, "a", "get", None, 60.0)
    imported, scenario = import_(tmp_path, log)
    assert len(scenario.rules) == 1
    assert imported.differences == ()
