"""`sim-sled import`: what spec/logs.md says that no incident of the other files has."""

import json
from datetime import UTC, datetime

import pytest
from support.incident.importing import S, actions, import_, only
from support.incident.writing import Log, nexus, uid
from support.rows import in_one_test

from sim_sled.language.actions import (
    Fail,
    ForgetVmm,
    Hang,
    MigrationFate,
    NexusReplies,
    Partition,
    RebootSled,
    RestartAgent,
)


@in_one_test(
    ("text", "phase"),
    [
        ("migration failed due to error from source: Protocol", "ram_push"),
        ("source and destination instance specs incompatible", "sync"),
        ("no compatible destination protocols", "sync"),
        ("Can't migrate instance with non-migratable device (p9fs)", "device"),
        ("Migration task failed: x", "ram_push"),
        ("Migration source task exited: Err(RemoteError(Destination, DeviceState(x)))", "device"),
    ],
)
def test_a_migration_fails_in_the_words_of_any_year(tmp_path, text, phase):
    log, own = Log(), Log(f"oxz_propolis-server_{uid('vmm web')}", "propolis-server")
    log.register(0, "web")
    log.starts(1, "web")
    log.register(30, "web/2", hostname="web", migration=uid("m"))
    log.observes(31, "web", "Migrating", gen=5)
    own.line(32, text)
    log.observes(32.1, "web", "Running", gen=6)
    _, scenario = import_(tmp_path, log, own)
    rule, fate = only(scenario, MigrationFate)
    assert (rule.when.migration, fate.result) == ((phase,), "failed")


@pytest.mark.parametrize(
    ("text", "error", "boots"),
    [
        ("sled-agent is unreachable", "error sending request", True),
        ("error checking up on instance", "Communication Error: error sending request", True),
        ("error checking up on instance", "Error Response: status: 500 X", False),
    ],
)
def test_a_nexus_of_any_year_says_that_it_reached_nobody(tmp_path, text, error, boots):
    log, far = Log(start=datetime(2025, 4, 15, 18, tzinfo=UTC)), nexus()
    far.start = log.start
    log.register(1, "web")
    log.starts(2, "web")
    ids = {"instance_id": uid("instance web"), "vmm_id": uid("vmm web"), "sled_serial": "BRM1"}
    for at in (35, 65, 95):
        far.line(at, text, background_task="instance_watcher", error=error, **ids)
    log.agent_starts(120, 125)
    log.request(130, "web", "get", 404)
    _, scenario = import_(tmp_path, log, far)
    assert bool(actions(scenario, RebootSled)) is boots


def test_an_agent_whose_first_words_were_dropped_is_another_process(tmp_path):
    """After a boot thousands of lines are lost (omicron#10306); the number of the process is in each of the rest."""
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.line(58, "accepted connection", component="dropshot (SledAgent)")
    log.pid = 999
    log.line(65, "listening", component="dropshot (SledAgent)", local_addr="[fd00::1]:12345")
    log.line(72, "SledAgent::new(..) starting", component="SledAgent")
    log.request(80, "web", "get", 404)
    _, scenario = import_(tmp_path, log)
    _, restart = only(scenario, RestartAgent)
    assert restart.down.at(0) == pytest.approx(7 * S, abs=0.1 * S)


def test_logs_of_fewer_nexuses_than_asked_are_told(tmp_path):
    log, far = Log(), nexus()
    log.register(1, "web")
    log.starts(2, "web")
    for n in (3, 4, 5):
        log.request(20 + n, "web", "get", remote_addr=f"[fd00:1122:3344:10{n}::4]:4098{n}")
    far.user(30, "web", "reboot", 400)
    imported, _ = import_(tmp_path, log, far)
    assert "3 Nexuses asked these sleds for VMMs, and logs of 1 are here" in imported.summary


def test_requests_that_no_replay_makes_are_told(tmp_path):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    uri = f"/vmms/{uid('vmm web')}/external-ip"
    log.line(30, "request completed", uri=uri, method="PUT", response_code=500, latency_us=9, component="x")
    imported, scenario = import_(tmp_path, log)
    assert "PUT external-ip of a VMM was answered 500" in imported.summary
    assert scenario.rules == ()


@pytest.mark.parametrize(("state", "verb"), [("Stopping", "stop"), ("Rebooting", "reboot")])
def test_what_was_asked_for_before_a_log_begins_is_asked_for(tmp_path, state, verb):
    log = Log()
    log.observes(1, "web", state, gen=5)
    log.observes(4, "web", *(("Running", 6) if verb == "reboot" else ("Destroyed", 6)))
    imported, scenario = import_(tmp_path, log)
    assert [load.action() for load in scenario.load] == ["create", verb]
    assert "is before the logs begin" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


def test_a_start_whose_lines_are_lost_is_not_the_one_that_was_refused(tmp_path):
    """The replay registers and starts what ran before the log begins."""
    log = Log()
    log.observes(1, "web", "Stopping", gen=5)
    log.observes(2, "web", "Destroyed", gen=6)
    log.register(30, "web/2", status=500)
    log.register(60, "web/3")
    log.starts(61, "web/3")
    imported, scenario = import_(tmp_path, log)
    assert only(scenario, Fail)[0].skip == 1
    assert (imported.differences, imported.failed) == ((), ())


def test_of_a_nexus_alone_a_vmm_that_its_sled_does_not_know_is_forgotten(tmp_path):
    far = nexus()
    ids = {"instance_id": uid("instance web"), "vmm_id": uid("vmm web"), "sled_serial": "BRM1"}
    far.line(1, "updating instance state", "D", background_task="instance_watcher", **ids)
    far.received(2, "web", "Running", 3)
    text = "sled-agent error indicates that this instance's VMM has failed!"
    far.line(40, text, background_task="instance_watcher", error="Error Response: status: 404 Not Found", **ids)
    imported, scenario = import_(tmp_path, far)
    only(scenario, ForgetVmm)
    assert "the log of its sled is missing" in imported.text


@in_one_test(
    ("cpus", "memory_mb", "made"),
    [
        (0, 4096, (2, 4)),
        (10**30, 10**30, (2, 4)),
        (254, 1536 * 1024, (254, 1536)),
        (255, 4096, (2, 4)),
        (2, 4095, (2, 4)),
        (2, 5000, (2, 5)),
        (2, 0, (2, 4)),
    ],
)
def test_sizes_that_no_nexus_takes_are_garbled_and_the_scenario_plays(tmp_path, cpus, memory_mb, made):
    log = Log()
    log.register(1, "web", cpus=cpus, memory_mb=memory_mb)
    log.starts(2, "web")
    imported, scenario = import_(tmp_path, log)
    create = scenario.load[0].create
    assert (create.ncpus, create.memory // 2**30) == made
    assert (imported.differences, imported.failed) == ((), ())


@in_one_test("latency", [2**63, -1, 10**30, "x", None, 1.5])
def test_a_latency_that_cannot_be_is_none(tmp_path, latency):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.request(30, "web", "get", status=None)
    record = json.loads(log.lines[-1]) | {"latency_us": latency}
    log.lines[-1] = json.dumps(record)
    _, scenario = import_(tmp_path, log)
    assert only(scenario, Hang)[1].lasts == 0


@pytest.mark.parametrize(("status", "taken_for"), [(599, 599), (600, None), (100, None), ("000", None)])
def test_a_status_that_is_none_is_no_answer(tmp_path, status, taken_for):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.observes(30, "web", "Rebooting", gen=4)
    log.not_taken(30.1, "web", status)
    log.observes(40, "web", "Running", gen=5)
    log.request(50, "web", "get", status=2**63)
    _, scenario = import_(tmp_path, log)
    kind = Partition if taken_for is None else NexusReplies
    assert getattr(only(scenario, kind)[1], "status", None) == taken_for
    assert not actions(scenario, Fail)


def test_a_rule_that_cannot_be_is_left_out_and_said(tmp_path, monkeypatch):
    from sim_sled.incident import hosts

    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.request(60, "web", "get")
    log.agent_starts(65, 70)
    log.request(80, "web", "get", 404)
    log.request(90, "web", "get", 500)
    monkeypatch.setattr(hosts, "duration", lambda us: "soon")
    imported, scenario = import_(tmp_path, log)
    assert not actions(scenario, RestartAgent)
    assert "A rule is left out, as its figures cannot be: brm1-restarts" in imported.text


def test_every_sled_and_the_grace_of_agents_say_which_lines_they_rest_on(tmp_path):
    log, other = Log(), Log("BRM2")
    other.register(0, "db")
    other.starts(1, "db")
    log.register(1, "web")
    log.starts(2, "web")
    log.request(30, "web", "put")
    log.observes(30.1, "web", "Stopping", gen=5)
    told = "Instance failed to stop within the grace period, terminating it violently!"
    log.line(150.1, told, "W", **log.ids("web"))
    log.publishes(151, "web", "Destroyed", gen=7)
    imported, _ = import_(tmp_path, log, other)
    assert "  # 0-BRM1.log:1  BRM1\n  - {sled: sled-1, name: brm1}" in imported.text
    assert "  # 1-BRM2.log:1  BRM2\n  - {sled: sled-2, name: brm2}" in imported.text
    assert "  the grace period is over\nagent: {stop_grace: 120s}" in imported.text


def test_of_a_nexus_alone_reports_that_it_did_not_take_are_its_answers_and_the_user_is_known(tmp_path):
    far = nexus()
    ids = {"instance_id": uid("instance web"), "vmm_id": uid("vmm web"), "sled_serial": "BRM1"}
    far.line(1, "updating instance state", "D", background_task="instance_watcher", **ids)
    far.received(2, "web", "Running", 3)
    far.user(40, "web", "reboot", key="shop")
    for at in (40.2, 41, 43, 48):
        report = {"uri": f"/vmms/{uid('vmm web')}", "method": "PUT", "component": "dropshot_internal"}
        far.line(at, "request completed", response_code=500, latency_us=9, **report)
    far.received(60, "web", "Rebooting", 4)
    far.received(61, "web", "Running", 5)
    imported, scenario = import_(tmp_path, far)
    assert only(scenario, NexusReplies)[1].status == 500
    assert [load.action() for load in scenario.load] == ["create", "reboot"]
    assert imported.differences == ()


def test_of_a_nexus_alone_checks_that_a_sled_answered_with_an_error_are_refused(tmp_path):
    far = nexus()
    ids = {"instance_id": uid("instance web"), "vmm_id": uid("vmm web"), "sled_serial": "BRM1"}
    far.received(2, "web", "Running", 3)
    error = "Error Response: status: 503 Service Unavailable; headers: {}"
    for at in (40, 70):
        far.line(at, "check incomplete due to server error", background_task="instance_watcher", error=error, **ids)
    _, scenario = import_(tmp_path, far)
    rule, refused = only(scenario, Fail)
    assert (rule.when.request, rule.times, refused.status) == (("vmm_get_state",), 2, 503)


def test_a_stop_that_never_ends_quotes_what_propolis_was_at_last(tmp_path):
    log, zone = Log(), Log(f"oxz_propolis-server_{uid('vmm web')}", "propolis-server")
    log.register(0, "web")
    log.starts(1, "web")
    log.request(30, "web", "put")
    zone.line(30, "publishing new instance state", gen=4, state="Stopping")
    zone.line(30.1, "sending halt request to vioblk-nvme0")
    zone.line(30.2, "stopping and detaching block backend crucible-disk-7")
    log.line(300, "accepted connection", component="x")
    imported, _ = import_(tmp_path, log, zone)
    said = imported.text.replace("\n# ", " ")
    assert "stopping and detaching block backend crucible-disk-7" in said
    assert "sending halt request" not in said


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda log: log.observes(30, "web", "Rebooting", gen=4), "built since 2026-04-21."),
        (
            lambda log: log.line(
                30, "Observing new propolis state: x", **log.ids("web"), state="PropolisInstanceState(Running)"
            ),
            "programs of several versions",
        ),
    ],
    ids=["of today", "of two years in one log"],
)
def test_the_forms_of_lines_say_of_which_years_the_programs_are(tmp_path, write, said):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    write(log)
    imported, _ = import_(tmp_path, log)
    assert said in imported.summary


def test_agents_that_forgot_before_they_reported_are_named(tmp_path):
    log = Log(start=datetime(2025, 3, 1, tzinfo=UTC))
    log.line(1, "Observing new propolis state: PropolisInstanceState(Running)", **log.ids("web"))
    log.line(
        2, "request completed", uri=f"/vmms/{uid('vmm web')}/state", method="GET", response_code="500", latency_us=1
    )
    imported, _ = import_(tmp_path, log)
    assert "since 2024-08-27 and before 2025-04-08" in imported.summary
    assert "Agents of then forgot a VMM before they reported its end" in imported.summary
