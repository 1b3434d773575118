"""`sim-sled import`: which of several moments departed, who is meant, and what only one program tells."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.incident.importing import S, actions, import_, only, scenario_of
from support.incident.writing import START, Log, nexus, stamp, uid

from sim_sled.incident.importing import collect, import_logs
from sim_sled.incident.lines import parse_time
from sim_sled.language.actions import (
    Delay,
    ExpungeSled,
    Fail,
    Guest,
    Hang,
    KillPropolis,
    NexusReplies,
    RebootSled,
    RestartAgent,
    SetState,
)

LOGS = Path(__file__).parents[3] / "data" / "logs"


def test_of_several_moments_a_rule_means_the_one_that_departed(tmp_path):
    """The second stop is slow, the third start fails, the second migration fails, the second put is refused."""
    log = Log()
    log.register(0, "db/1", "db")
    log.starts(1, "db/1")
    log.stops(40, "db/1")
    log.register(60, "db/2", "db")
    log.starts(61, "db/2")
    log.stops(100, "db/2", teardown=70)
    log.register(200, "db/3", "db")
    log.line(201, "Configuring new Omicron zone: x", **log.ids("db/3"))
    log.request(202, "db/3", "put", latency=0.5)
    log.line(203, "failed to create Propolis VM", "E", **log.ids("db/3"), error="500")
    log.publishes(203.1, "db/3", "Failed", 4)
    _, scenario = import_(tmp_path, log)
    rule, delay = only(scenario, Delay)
    assert (rule.when.edge, rule.skip, rule.times) == ((("stopped", "destroyed"),), 1, 1)
    assert delay.base.at(0) > 60 * S
    rule, _ = only(scenario, SetState)
    assert (rule.when.edge, rule.skip, rule.times) == ((("starting", "running"),), 2, 1)


def test_a_refused_stop_is_asked_for_and_the_start_before_it_is_not_refused(tmp_path):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    log.request(30, "db", "put", status=500)
    log.stops(60, "db")
    imported, scenario = import_(tmp_path, log)
    rule, fail = only(scenario, Fail)
    assert (rule.when.request, rule.skip, rule.times, fail.status) == (("vmm_put_state",), 1, 1, 500)
    assert [load.action() for load in scenario.load] == ["create", "reboot", "stop"]
    assert "a reboot is invented" in imported.text
    assert imported.differences == ()


def test_what_propolis_was_asked_for_is_what_the_user_wanted(tmp_path):
    """A reboot that never came to anything: only Propolis's log knows that it was one (LG 0 #2)."""
    log, zone = Log(), Log(f"oxz_propolis-server_{uid('vmm db')}", "propolis-server")
    log.register(0, "db")
    log.starts(1, "db")
    log.request(30, "db", "put")
    zone.line(29.995, "requested state via API", state="Reboot")
    log.request(40, "db", "get")
    imported, scenario = import_(tmp_path, log, zone)
    assert [load.action() for load in scenario.load] == ["create", "reboot"]
    assert "inferred from what followed" not in imported.text


def test_checks_that_went_well_before_are_not_the_ones_that_were_refused(tmp_path):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    for at in range(30, 600, 30):
        log.request(at, "db", "get", status=500 if at in (300, 330) else 200, latency=0.001)
    _, scenario = import_(tmp_path, log)
    rule, _ = only(scenario, Fail)
    assert (rule.when.request, rule.times) == (("vmm_get_state",), 2)
    assert 290 * S < rule.between.low < 300 * S
    assert 330 * S < rule.between.high < 390 * S


def test_logs_of_2023_name_instances_in_their_paths_and_run_states_in_their_reports(tmp_path):
    log = Log(start=datetime(2023, 9, 5, 14, tzinfo=UTC))
    log.register(0, "db")
    log.starts(1, "db")
    instance = uid("instance db")

    def put(at, method="PUT", path="/state", **more):
        log.line(at, "request completed", uri=f"/instances/{instance}{path}", method=method, latency_us=9000,
                 component="dropshot (SledAgent)", response_code="200", **more)  # fmt: skip

    def reports(at, state, gen):
        told = (
            f"InstanceRuntimeState {{ run_state: {state}, propolis_id: {uid('vmm db')}, dst_propolis_id: None, "
            f"propolis_gen: Generation(1), ncpus: InstanceCpuCount(2), gen: Generation({gen}), time_updated: x }}"
        )
        log.line(at, "Publishing instance state update to Nexus", **log.ids("db"), state=told)

    put(40)
    log.line(40.01, "Observing new propolis state: ObservedPropolisState { instance_state: "
             "PropolisInstanceState(Stopping), migration_status: None }", **log.ids("db"))  # fmt: skip
    reports(40.02, "Stopping", 4)
    log.line(40.2, "Observing new propolis state: ObservedPropolisState { instance_state: "
             "PropolisInstanceState(Destroyed), migration_status: None }", **log.ids("db"))  # fmt: skip
    reports(48.2, "Destroyed", 5)
    imported, scenario = import_(tmp_path, log)
    assert [load.action() for load in scenario.load] == ["create", "stop"], imported.text
    assert imported.differences == ()
    assert "db-is-told-in-the-end" in imported.text


def test_a_nexus_alone_tells_who_was_refused_and_what_users_call_their_instance():
    imported = import_logs([str(LOGS / "unwind-register.nexus.jsonl")], "alone")
    scenario = scenario_of(imported)
    assert imported.differences == ()
    create, first, second = scenario.load
    assert (create.create.hostname, create.create.start) == ("etl-3", False)
    assert second.at - first.at == pytest.approx(61.1 * S, abs=0.1 * S)
    rule, fail = only(scenario, Fail)
    assert (rule.when.request, rule.times, fail.status) == (("vmm_register",), 1, 500)
    assert "it is taken for etl-3" in imported.summary


def test_a_stop_that_never_reached_a_sled_is_played_and_the_silence_is_told(tmp_path):
    log, far = Log(), nexus()
    log.register(0, "db")
    log.starts(1, "db")
    for at in (50, 110, 170):
        far.user(at, "ghost", "stop", key="ghost-vm")
    imported, scenario = import_(tmp_path, log, far)
    # its line comes when it is answered, 9 ms after it was asked for
    asked = [(load.action(), load.at + 9000) for load in scenario.load if load.stop is not None]
    assert asked == [("stop", 50 * S), ("stop", 110 * S), ("stop", 170 * S)]
    assert "nothing that they asked for reached a sled" in imported.summary


def test_a_propolis_has_the_clock_of_its_sled(tmp_path):
    """The second sled's clock is 90 s ahead, by its requests; so is that of a zone on it."""
    first, second, far = Log("BRM1"), Log("BRM2", start=START + timedelta(seconds=90)), nexus()
    zone = Log(f"oxz_propolis-server_{uid('vmm web')}", "propolis-server", START + timedelta(seconds=90))
    for log, vm in ((first, "db"), (second, "web")):
        log.register(0, vm)
        log.starts(1, vm)
        log.request(20, vm, "get", status=500, req_id=uid(f"check {vm}"))
        text = f'Error Response: status: 500 X; headers: {{"x-request-id": "{uid(f"check {vm}")}"}}'
        far.line(20, "check incomplete due to server error", error=text)
    zone.line(6.5, "publishing new instance state", state="Running", gen=3)
    paths = [log.save(tmp_path, f"{log.host}.log") for log in (first, second, far, zone)]
    collected, _ = collect(paths)
    [running] = [each for each in collected.vmms[uid("vmm web")].observed if each.exact]
    assert running.at_us == parse_time(stamp(6.5))


def test_a_second_process_of_a_propolis_has_lost_its_vm(tmp_path):
    log, zone = Log(), Log(f"oxz_propolis-server_{uid('vmm db')}", "propolis-server")
    log.register(0, "db")
    log.starts(1, "db")
    zone.line(4, "Starting server...")
    zone.line(40, "Starting server...")
    log.line(40.2, "Propolis monitor unexpectedly reported no instance, marking as failed", "W", **log.ids("db"))
    log.publishes(40.3, "db", "Failed", 5)
    _, scenario = import_(tmp_path, log, zone)
    rule, kill = only(scenario, KillPropolis)
    assert (rule.when.state, rule.times, kill.restart) == (("running",), 1, True)


def test_what_only_nexus_suffers_is_quoted_and_plays_nothing(tmp_path):
    log, far = Log(), nexus()
    log.register(0, "db")
    log.starts(1, "db")
    far.line(60, "saga stuck", "E", error="undo failed", saga_id=uid("saga"))
    imported, scenario = import_(tmp_path, log, far)
    assert scenario.rules == ()
    assert "a saga is stuck" in imported.summary


@pytest.mark.parametrize(
    ("line", "state", "event"),
    [
        ("Halting due to VM suspend event", "Stopping", "halt"),
        ("Resetting due to chipset-driven reset", "Rebooting", "reset"),
        ("Resetting due to triple fault on vCPU 0", "Rebooting", "triple-fault"),
        (None, "Rebooting", "reset"),
        (None, "Stopping", "halt"),
    ],
)
def test_what_a_guest_does_by_itself_is_played_as_its_own(tmp_path, line, state, event):
    """Propolis says it, or nobody has asked the sled for it, although what it was asked is in its log."""
    log, zone = Log(), Log(f"oxz_propolis-server_{uid('vmm db')}", "propolis-server")
    log.register(0, "db")
    log.starts(1, "db")
    if line is not None:
        zone.line(60, line)
    log.observes(60.1, "db", state, gen=5)
    log.observes(62, "db", *(("Running", 6) if state == "Rebooting" else ("Destroyed", 6)))
    _, scenario = import_(tmp_path, log, zone)
    rule, guest = only(scenario, Guest)
    assert (rule.when.state, rule.times, guest.event) == (("running",), 1, event)
    assert not any(load.stop or load.reboot for load in scenario.load), "no user wanted it"


def test_a_reboot_that_a_user_asked_for_is_not_the_guests(tmp_path):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    log.request(60, "db", "put")
    log.observes(60.1, "db", "Rebooting", gen=5)
    _, scenario = import_(tmp_path, log)
    assert not actions(scenario, Guest)
    assert len([load for load in scenario.load if load.reboot]) == 1


def test_a_sled_that_was_expunged_is_expunged_once_for_all_its_vms(tmp_path):
    log, far = Log(), nexus()
    for vm in ("db", "web"):
        log.register(0, vm)
        log.starts(1, vm)
        ids = {"instance_id": uid(f"instance {vm}"), "vmm_id": uid(f"vmm {vm}"), "sled_serial": "BRM1"}
        told = "instance is assigned to a VMM on an Expunged sled; marking it as Failed"
        far.line(60, told, background_task="instance_watcher", **ids)
    _, scenario = import_(tmp_path, log, far)
    rule, _ = only(scenario, ExpungeSled)
    assert (rule.for_.sled, rule.when.at) == (("brm1",), 60 * S)


def test_checks_that_went_well_say_how_long_an_agent_lived(tmp_path):
    log = Log()
    log.register(1, "db")
    log.starts(2, "db")
    for at in range(30, 3600, 30):
        log.request(at, "db", "get")
    log.agent_starts(3580, 3585)
    log.request(3600, "db", "get", 404)
    _, scenario = import_(tmp_path, log)
    _, restart = only(scenario, RestartAgent)
    assert restart.down.at(0) == pytest.approx(15 * S, abs=0.1 * S), "since its last check, not since its last event"


def test_an_agent_that_nobody_checked_for_minutes_was_away_for_seconds(tmp_path):
    log = Log()
    log.register(1, "db")
    log.starts(2, "db")
    log.agent_starts(900, 903)
    log.request(910, "db", "get", 404)
    _, scenario = import_(tmp_path, log)
    _, restart = only(scenario, RestartAgent)
    assert restart.down.at(0) == pytest.approx(8 * S, abs=0.1 * S)


def test_a_log_that_knows_1986_alone_begins_there(tmp_path):
    log = Log(start=datetime(1986, 12, 28, tzinfo=UTC))
    log.agent_starts(64, 66)
    log.request(67, "old", "get", 404)
    log.register(70, "db")
    log.starts(71, "db")
    _, scenario = import_(tmp_path, log)
    assert max(load.at for load in scenario.load) < 100 * S
    only(scenario, RebootSled)


def test_of_several_nexuses_one_log_does_not_tell_what_all_users_did(tmp_path):
    """A second Nexus took the stop of `db`; the first one's log has that of `web`, and neither is played twice."""
    log, far = Log(), nexus()
    for vm in ("db", "web"):
        log.register(0, vm)
        log.starts(1, vm)
    log.stops(60, "db")
    log.stops(90, "web")
    far.user(90.1, "web", "stop")
    imported, scenario = import_(tmp_path, log, far)
    assert [(load.action(), load.stop.hostname) for load in scenario.load if load.stop is not None] == [
        ("stop", ("db",)),
        ("stop", ("web",)),
    ]
    assert "no user's request for it is in Nexus's log" in imported.text
    assert imported.differences == ()


def test_a_put_that_is_never_answered_is_asked_for_and_does_not_hold_up_the_start(tmp_path):
    """omicron#7983: the caller gives up again and again, then the queue is full of health checks."""
    log = Log(start=datetime(2025, 4, 15, 18, tzinfo=UTC))
    log.register(0, "db")
    log.starts(1, "db")
    for n in range(5):
        log.request(100 + 20 * n, "db", "put", status=None, latency=60.002)
    full = "Failed to send request to Instance: channel at capacity (32)"
    for n in range(4):
        log.request(210 + 30 * n, "db", "get", status=503, latency=0.0001, error_message_internal=full)
    cut = tmp_path / "cut.log.gz"
    cut.write_bytes(gzip.compress(log.text().encode())[:-20])
    imported = import_logs([str(cut)], "test")
    scenario = scenario_of(imported)
    rule, hang = only(scenario, Hang)
    assert (rule.when.request, rule.skip, rule.times, hang.lasts) == (("vmm_put_state",), 1, 5, 60 * S)
    assert [load.action() for load in scenario.load] == ["create", *["stop"] * 5]
    assert only(scenario, Fail)[1].status == 503
    assert (imported.differences, imported.failed) == ((), ())
    assert "ended before the end" in imported.summary


def test_a_sled_whose_log_begins_with_its_boot_has_lost_what_nexus_asks_it_for(tmp_path):
    """omicron#9095: it believes in 1986, knows nothing of the VMM, and has no disks yet when it accepts the next."""
    log = Log(start=datetime(1986, 12, 28, tzinfo=UTC))
    log.agent_starts(64, 66)
    log.request(67, "old", "get", status=404)
    log.register(68, "db/1", "db")
    log.request(72.6, "db/1", "put", latency=4.0)
    log.line(72.76, "failed to set up Propolis zone", "E", **log.ids("db/1"), error="No U.2 devices found")
    log.publishes(72.8, "db/1", "Failed", 3)
    log.start = datetime(2025, 9, 25, 16, tzinfo=UTC)
    log.register(100, "db/2", "db")
    log.starts(101, "db/2")
    imported, scenario = import_(tmp_path, log)
    rule, reboot = only(scenario, RebootSled)
    assert rule.when.at > 0
    assert reboot.down.at(0) == 2 * S
    assert "how long it was down before its log begins is not known" in imported.text
    assert only(scenario, SetState)[0].skip == 0
    assert (imported.differences, imported.failed) == ((), ())


def test_a_report_that_was_lost_for_good_is_not_expected_to_be_known_in_the_end(tmp_path):
    log = Log()
    log.register(0, "db")
    log.starts(1, "db")
    log.stops(50, "db")
    log.not_taken(56.75, "db", 404, final=True)
    imported, scenario = import_(tmp_path, log)
    assert only(scenario, NexusReplies)[1].status == 404
    assert not [expect for expect in scenario.expect if expect.name]
    assert imported.failed == ()


def test_a_registration_of_2024_has_name_and_size_in_its_hardware(tmp_path):
    log = Log(start=datetime(2024, 3, 31, 2, tzinfo=UTC))
    spec = 'InstanceHardware { properties: InstanceProperties { ncpus: InstanceCpuCount(4), hostname: "db", memory: '
    hardware = f"{spec}ByteCount(ByteCount(8589934592)) }} }}"
    log.line(0, "ensuring instance is registered", **log.ids("x"), hardware=hardware, migration_id="None")
    log.request(0.05, "x", "register")
    log.starts(1, "x")
    _, scenario = import_(tmp_path, log)
    create = scenario.load[0].create
    assert (create.hostname, create.ncpus, create.memory) == ("db", 4, 8 * 1024**3)
