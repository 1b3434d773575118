"""`sim-sled import`: a replay of many VMs and sleds goes as the logs did, in the order of their files and causes."""

import json
import random
import re
from datetime import UTC, date, datetime

import pytest
from support.incident.importing import S, actions, import_, only, scenario_of
from support.incident.writing import START, Log, nexus, uid

from sim_sled.incident.archives import Shelf, sources
from sim_sled.incident.importing import import_logs
from sim_sled.language.actions import (
    Delay,
    Fail,
    Guest,
    Hang,
    KillPropolis,
    MigrationFate,
    NexusReplies,
    Partition,
    PowerOffSled,
    RebootSled,
    RestartAgent,
    SetState,
)


def rotated(log, folder):
    """As logadm leaves them: the newest lines in `.log`, some of the seam in both."""
    lines, third = log.lines, len(log.lines) // 3
    parts = {".log.1": lines[:third], ".log.0": lines[third - 2 : 2 * third], ".log": lines[2 * third - 1 :]}
    for name, part in parts.items():
        (folder / f"oxide-sled-agent:default{name}").write_text("".join(f"{line}\n" for line in part))
    return sorted(str(folder / f"oxide-sled-agent:default{name}") for name in parts)


def test_rotated_files_are_read_oldest_first_whatever_their_order(tmp_path):
    """The newest file comes first by name; what came first is what happened first, also of a clock of 1986."""
    log = Log(start=datetime(1986, 12, 28, tzinfo=UTC))
    log.agent_starts(64, 66)
    log.request(67, "old", "get", status=404)
    log.start = START
    log.line(70, "Successfully put SledAgentInfo to nexus", component="SledAgent")
    log.register(80, "web")
    log.starts(81, "web")
    log.stops(120, "web")
    parts = rotated(log, tmp_path)
    imported = import_logs(parts, "test")
    scenario = scenario_of(imported)
    assert parts[0].endswith(".log"), "the newest is named first"
    assert [(load.action(), load.at // S) for load in scenario.load if load.at] == [("create", 30), ("stop", 70)]
    only(scenario, RebootSled)
    assert (imported.differences, imported.failed) == ((), ())


@pytest.mark.parametrize("with_nexus", [True, False])
def test_a_stop_that_was_asked_for_while_it_started_comes_when_it_has_run(tmp_path, with_nexus):
    """The agent is busy with the start and takes the stop only then (LG 0 #8)."""
    log, far = Log(), nexus()
    log.register(0, "web")
    log.starts(1, "web", took=20)
    log.request(21.2, "web", "put", latency=6.2)
    if with_nexus:
        far.user(15, "web", "stop")
    for at, state in ((21.3, "Stopping"), (22, "Stopped"), (22.5, "Destroyed")):
        log.observes(at, "web", state, gen=round(at))
    imported, scenario = import_(tmp_path, log, *([far] if with_nexus else []))
    [stop] = [load for load in scenario.load if load.stop]
    assert stop.at == pytest.approx(21.1 * S, abs=0.2 * S)
    assert "asked for while it started" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


@pytest.mark.parametrize("ends", ["it runs", "it fails", "it is unregistered"])
def test_a_start_for_which_nexus_did_not_wait_is_slow_and_not_unanswered(tmp_path, ends):
    """omicron#7918: the caller gave up after a minute, and the sled went on."""
    log = Log()
    log.register(0, "web")
    log.line(1, f"Configuring new Omicron zone: oxz_propolis-server_{uid('vmm web')}", **log.ids("web"))
    log.request(61, "web", "put", status=None, latency=60.0)
    if ends == "it runs":
        log.observes(126, "web", "Running")
    elif ends == "it fails":
        log.line(126, "failed to set up Propolis zone", "E", **log.ids("web"), error="timed out")
        log.publishes(126.1, "web", "Failed")
    else:
        log.request(126, "web", "unregister")
        log.observes(126.1, "web", "Destroyed")
    imported, scenario = import_(tmp_path, log)
    assert (imported.differences, imported.failed) == ((), ())
    if ends == "it is unregistered":  # the saga unwound for want of an answer: that is what plays it
        assert only(scenario, Hang)[1].lasts == 60 * S
        log.register(160, "web/2")
        log.starts(161, "web/2")
        imported, scenario = import_(tmp_path, log)
        assert [load.action() for load in scenario.load] == ["create", "start"], "nobody but a user starts it again"
        assert (imported.differences, imported.failed) == ((), ())
        return
    assert not actions(scenario, Hang)
    rule, slow = only(scenario, Delay)
    assert rule.when.edge
    assert slow.base.at(0) == pytest.approx(125 * S, abs=S)
    assert len(actions(scenario, SetState)) == (ends == "it fails")
    assert "gave up" in imported.summary


@pytest.mark.parametrize("with_nexus", [True, False])
def test_a_sled_without_power_is_off_and_its_vm_is_started_elsewhere(tmp_path, with_nexus):
    """Without Nexus's log, a sled that says nothing any more tells it, as its VM is registered anew."""
    log, other, far = Log(), Log("BRM2"), nexus()
    log.register(0, "web")
    log.starts(1, "web")
    ids = {"instance_id": uid("instance web"), "vmm_id": uid("vmm web"), "sled_serial": "BRM1"}
    if with_nexus:
        far.line(40, "sled-agent is unreachable", background_task="instance_watcher", **ids)
        not_on = "instance is assigned to a VMM on a sled that is not in A0, marking it as Failed"
        far.line(70, not_on, sled_power_state="A2", **ids)
        reason = {"reincarnation_reason": "instance failed", "instance_id": ids["instance_id"]}
        far.line(70.5, "attempting to reincarnate instance...", **reason)
    other.register(71, "web/2")
    other.starts(72, "web/2")
    imported, scenario = import_(tmp_path, log, other, *([far] if with_nexus else []))
    rule, _ = only(scenario, PowerOffSled)
    assert (rule.for_.sled, rule.when.at // S) == (("brm1",), 8), "as its log ends at 7 s"
    assert [load.action() for load in scenario.load] == ["create"], "nobody has to start it again"
    assert (imported.differences, imported.failed) == ((), ())


def test_nobody_starts_what_nexus_starts_again_after_an_agent_has_lost_it(tmp_path):
    log, other = Log(), Log("BRM2")
    log.register(0, "web")
    log.starts(1, "web")
    log.request(60, "web", "get", latency=2)
    log.agent_starts(65, 70)
    log.request(80, "web", "get", 404)
    other.register(81, "web/2")
    other.starts(82, "web/2")
    imported, scenario = import_(tmp_path, log, other)
    only(scenario, RestartAgent)
    assert [load.action() for load in scenario.load] == ["create"]
    assert (imported.differences, imported.failed) == ((), ())


def test_each_vm_is_on_the_sled_that_it_was_on_so_that_what_befalls_a_sled_befalls_the_same(tmp_path):
    """Nexus places as it likes: four VMs and then one, which a replay's Nexus would spread evenly."""
    log, other = Log("BRM2"), Log("BRM1")
    for n in range(4):
        log.register(n, f"web-{n}", memory_mb=32 * 1024)
        log.starts(n + 1, f"web-{n}")
    other.register(5, "db")
    other.starts(6, "db")
    log.line(58, "accepted connection", component="dropshot (SledAgent)")
    log.pid = 700
    log.agent_starts(60, 64)
    for n in range(4):
        log.request(70 + n, f"web-{n}", "get", 404)
        other.register(80 + n, f"web-{n}/2", memory_mb=32 * 1024)
        other.starts(81 + n, f"web-{n}/2")
    imported, scenario = import_(tmp_path, log, other)
    assert [load.create.sled for load in scenario.load] == [("brm2", "brm1")] * 4 + [("brm1",)]
    rule, restart = only(scenario, RestartAgent)
    assert rule.for_.sled == ("brm2",)
    assert restart.down.at(0) == pytest.approx(6 * S, abs=0.1 * S), "since the last line of the process before"
    assert scenario.fleet.shape.reservoir >= 4 * 32 * 2**30, "and there is room for all"
    assert (imported.differences, imported.failed) == ((), ())


def test_a_vm_that_is_started_again_is_on_the_sled_that_the_logs_name(tmp_path):
    """First on BRM2, then on BRM3, which boots and loses it, though a replay's Nexus had room on BRM1 first."""
    logs = {host: Log(host) for host in ("BRM1", "BRM2", "BRM3")}
    logs["BRM1"].request(30, "other", "get")
    logs["BRM2"].register(0, "db/1", "db")
    logs["BRM2"].starts(1, "db/1")
    logs["BRM2"].stops(30, "db/1")
    logs["BRM3"].register(60, "db/2", "db")
    logs["BRM3"].starts(61, "db/2")
    logs["BRM3"].request(90, "db/2", "get")
    logs["BRM3"].pid = 700
    logs["BRM3"].agent_starts(93, 96)
    logs["BRM3"].request(120, "db/2", "get", 404)
    logs["BRM1"].register(130, "db/3", "db")
    logs["BRM1"].starts(131, "db/3")
    imported, scenario = import_(tmp_path, *logs.values())
    assert scenario.load[0].create.sled == ("brm2", "brm3", "brm1")
    assert imported.differences == ()


def test_what_waits_in_the_replay_for_a_slower_vm_is_asked_for_later(tmp_path):
    """One latency for all: a start may take as long as the slowest, and what was asked right after it waits."""
    log = Log()
    for at, vm, took in ((0, "slow", 20), (1, "quick", 3)):
        log.register(at, vm)
        log.starts(at + 1, vm, took=took)
    log.stops(6, "quick", teardown=2)
    log.register(10, "quick/2")
    log.starts(11, "quick/2", took=4)
    imported, scenario = import_(tmp_path, log)
    assert [load.action() for load in scenario.load] == ["create", "create", "stop", "start"]
    assert (imported.differences, imported.failed) == ((), ())


def test_a_slow_teardown_is_the_agents_whatever_propolis_says_of_its_own_end(tmp_path):
    log, zone = Log(), Log(f"oxz_propolis-server_{uid('vmm web')}", "propolis-server")
    log.register(0, "web")
    log.starts(1, "web")
    log.stops(60, "web", teardown=90)
    for at, state in ((60.009, "Stopping"), (60.039, "Stopped"), (60.69, "Destroyed")):
        zone.line(at, "publishing new instance state", state=state, gen=1, migration="x")
    imported, scenario = import_(tmp_path, log, zone)
    assert only(scenario, Delay)[1].base.at(0) == pytest.approx(90 * S, abs=0.1 * S)
    assert (imported.differences, imported.failed) == ((), ())


def test_a_guest_that_halts_ends_its_runner_as_any_end_does(tmp_path):
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.stops(60, "web")
    unasked = [n for n, line in enumerate(log.lines) if '"method":"PUT"' in line and "/state" in line][-1]
    del log.lines[unasked]
    imported, scenario = import_(tmp_path, log)
    assert only(scenario, Guest)[1].event == "halt"
    assert not any(load.stop for load in scenario.load)
    assert (imported.differences, imported.failed) == ((), ())


def test_a_guest_that_resets_soon_after_a_reboot_that_was_asked_for_has_done_it_by_itself(tmp_path):
    """Each request brings one thing about, however near the next one is."""
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.request(30, "web", "put")
    for at in (30.1, 45):
        log.observes(at, "web", "Rebooting", gen=round(at))
        log.observes(at + 3, "web", "Running", gen=round(at) + 2)
    imported, scenario = import_(tmp_path, log)
    assert [load.action() for load in scenario.load] == ["create", "reboot"]
    assert only(scenario, Guest)[1].event == "reset"
    assert (imported.differences, imported.failed) == ((), ())


@pytest.mark.parametrize("status", [500, None])
def test_reports_of_one_sled_alone_that_are_not_taken_are_a_rule_for_that_sled(tmp_path, status):
    log, other = Log(), Log("BRM2")
    for n, each in enumerate((log, other)):
        each.register(n, f"web-{n}")
        each.starts(n + 1, f"web-{n}")
    log.request(40, "web-0", "put")
    for at in (40.1, 41, 43, 47):
        log.publishes(at, "web-0", "Rebooting", gen=5)
        log.not_taken(at + 0.01, "web-0", status=status)
    log.observes(56, "web-0", "Rebooting", gen=5)
    log.observes(56.1, "web-0", "Running", gen=6)
    other.request(42, "web-1", "put")
    other.observes(42.1, "web-1", "Rebooting", gen=5)
    other.observes(45, "web-1", "Running", gen=6)
    imported, scenario = import_(tmp_path, log, other)
    rule, _ = only(scenario, NexusReplies if status else Partition)
    assert rule.for_.sled == ("brm1",)
    assert (imported.differences, imported.failed) == ((), ())


def test_a_migration_of_which_only_nexus_says_that_it_failed_fails(tmp_path):
    log, other, far = Log(), Log("BRM2"), nexus()
    log.register(0, "web")
    log.starts(1, "web")
    other.register(30, "web/2", migration=uid("m"))
    log.observes(31, "web", "Migrating", gen=5)
    other.observes(31, "web/2", "Migrating", gen=5)
    log.observes(33, "web", "Running", gen=6)
    other.observes(33, "web/2", "Failed", gen=6)
    sides = {
        "src_propolis_id": uid("vmm web"),
        "target_propolis_id": uid("vmm web/2"),
        "instance_id": uid("instance web"),
    }
    far.line(33.5, "instance update (migration failed): clearing migration IDs", migration_id=uid("m"), **sides)
    imported, scenario = import_(tmp_path, log, other, far)
    assert only(scenario, MigrationFate)[1].result == "failed"
    assert (imported.differences, imported.failed) == ((), ())


@pytest.mark.parametrize("ran", [True, False])
def test_a_vm_that_failed_and_no_line_says_why_fails_as_late(tmp_path, ran):
    log = Log()
    log.register(0, "web")
    if ran:
        log.starts(1, "web")
    else:
        log.request(9, "web", "put", status=500, latency=8)
    log.observes(9 if not ran else 47, "web", "Failed", gen=4)
    imported, scenario = import_(tmp_path, log)
    rule, to = only(scenario, SetState)
    assert (to.state, bool(rule.when.state)) == ("failed", ran)
    assert [delay.base.at(0) // S for _, delay in actions(scenario, Delay)] == ([40] if ran else [])
    assert not actions(scenario, Fail), "the answer says the same"
    assert (imported.differences, imported.failed) == ((), ())


def test_a_service_that_smf_enables_is_of_a_host_that_boots(tmp_path):
    """SMF's lines have no year and name nobody: the record after them does (LG 1.1, 6)."""
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    log.raw("[ Aug 24 09:01:02 Enabled. ]")
    log.raw("[ Aug 24 09:01:02 Executing start method. ]")
    log.agent_starts(65, 70)
    log.request(80, "web", "get", 404)
    imported, scenario = import_(tmp_path, log)
    assert only(scenario, RebootSled)[0].for_.sled == ("brm1",)
    assert "2 lines (SMF line)" in imported.text


def test_a_sled_that_nexus_could_not_reach_for_minutes_has_booted(tmp_path):
    log, far = Log(), nexus()
    log.register(1, "web")
    log.starts(2, "web")
    ids = {"instance_id": uid("instance web"), "vmm_id": uid("vmm web"), "sled_serial": "BRM1"}
    for at in (35, 65, 95):
        far.line(at, "sled-agent is unreachable", background_task="instance_watcher", **ids)
    log.agent_starts(120, 125)
    log.request(130, "web", "get", 404)
    imported, scenario = import_(tmp_path, log, far)
    assert only(scenario, RebootSled)[1].down.at(0) == pytest.approx(117 * S, abs=S)
    assert "Nexus could not reach it" in imported.text


def test_in_a_form_that_names_no_hosts_each_file_is_of_one(tmp_path):
    """As `looker` prints by default: time, level, name, no host."""

    def printed(log):
        for line in map(json.loads, log.lines):
            time, component = line.pop("time")[11:].rstrip("Z").ljust(12, "0"), line.pop("component", "")
            time = time if "." in time else time[:8] + ".000"
            yield f"{time}Z INFO {line.pop('name')} ({component}): {line.pop('msg')}"
            yield from (f"    {key} = {line[key]}" for key in sorted(line.keys() - {"hostname", "pid", "v", "level"}))

    log, other = Log(), Log("BRM2")
    log.register(1, "web")
    log.starts(2, "web")
    other.register(30, "web/2", migration=uid("m"))
    log.observes(31, "web", "Migrating", gen=5)
    other.observes(31, "web/2", "Migrating", gen=5)
    other.observes(33, "web/2", "Running", gen=6)
    log.observes(33, "web", "Stopping", gen=6)
    log.observes(34, "web", "Destroyed", gen=7)
    files = []
    for name, each in (("west.log", log), ("east.log", other)):
        (tmp_path / name).write_text("\n".join(printed(each)) + "\n")
        files.append(str(tmp_path / name))
    imported = import_logs(files, "test", date(2026, 8, 24))
    scenario = scenario_of(imported)
    assert {over.name for over in scenario.fleet.overrides} == {"west", "east"}
    assert [load.migrate.to for load in scenario.load if load.migrate] == ["east"]
    assert "names no hosts" in imported.summary
    assert (imported.differences, imported.failed) == ((), ())


def test_a_propolis_alone_says_what_it_was_asked_for(tmp_path):
    zone = Log(f"oxz_propolis-server_{uid('vmm web')}", "propolis-server")
    for at, asked, states in (
        (1, "Run", ((1.1, "Starting"), (3, "Running"))),
        (30, "Reboot", ((30.1, "Rebooting"), (33, "Running"))),
        (60, "Stop", ((60.1, "Stopping"), (61, "Stopped"), (62, "Destroyed"))),
    ):
        zone.line(at, "requested state via API", state=asked)
        for when, state in states:
            zone.line(when, "publishing new instance state", component="vm_state_driver", state=state, migration="x")
    imported, scenario = import_(tmp_path, zone)
    assert [load.action() for load in scenario.load] == ["create", "reboot", "stop"]
    assert "the request to the sled is in no log" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


def test_an_expectation_has_time_for_the_slowest_vmm_of_its_instance(tmp_path):
    """The first one's end took a minute and a half, the last one's seconds."""
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.stops(60, "web", teardown=90)
    log.register(170, "web/2")
    log.starts(171, "web/2")
    log.stops(200, "web/2")
    imported, scenario = import_(tmp_path, log)
    [expected] = [each for each in scenario.expect if each.within]
    assert expected.within > 90 * S
    assert (imported.differences, imported.failed) == ((), ())


def test_a_guest_that_resets_before_its_propolis_is_lost_does_both(tmp_path):
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.observes(30, "web", "Rebooting", gen=5)
    log.observes(33, "web", "Running", gen=6)
    log.line(60, "Propolis zone is gone, marking VMM as failed", "W", **log.ids("web"))
    log.observes(60.1, "web", "Failed", gen=7)
    imported, scenario = import_(tmp_path, log)
    assert only(scenario, Guest)[1].event == "reset"
    only(scenario, KillPropolis)
    assert (imported.differences, imported.failed) == ((), ())


def test_lines_of_files_of_one_name_are_quoted_by_the_folders_that_tell_them_apart(tmp_path):
    logs = (Log(), Log("BRM2"))
    for n, log in enumerate(logs):
        log.register(n, f"web-{n}")
        log.starts(n + 1, f"web-{n}")
        folder = tmp_path / "bundle" / f"sled-{n}" / "logs"
        folder.mkdir(parents=True)
        log.save(folder, "agent.log")
    imported = import_logs([str(tmp_path / "bundle")], "test")
    assert "# sled-0/logs/agent.log:1  registered" in imported.text
    assert "# sled-1/logs/agent.log:1  registered" in imported.text


def test_who_starts_a_vm_after_a_migration_of_it_had_failed_is_a_user(tmp_path):
    """The target fell, and the VM itself ended as it was asked to."""
    log, other = Log(), Log("BRM2")
    log.register(0, "web")
    log.starts(1, "web")
    other.register(30, "web/2", migration=uid("m"))
    log.observes(31, "web", "Migrating", gen=5)
    other.observes(31, "web/2", "Migrating", gen=5)
    failed = f"Some(MigrationRuntimeState {{ migration_id: {uid('m')}, state: Failed }})"
    log.observes(33, "web", "Running", gen=6, publish=False)
    log.publishes(33.1, "web", "Running", gen=6, migration_out=failed)
    other.observes(33, "web/2", "Failed", gen=6)
    log.stops(60, "web")
    log.register(90, "web/3")
    log.starts(91, "web/3")
    imported, scenario = import_(tmp_path, log, other)
    assert [load.action() for load in scenario.load] == ["create", "migrate", "stop", "start"]
    assert (imported.differences, imported.failed) == ((), ())


def test_a_put_that_ends_late_is_the_one_that_was_cancelled_and_no_other(tmp_path):
    log = Log(start=datetime(2025, 3, 31, tzinfo=UTC))
    log.register(0, "web")
    log.line(1, f"Configuring new Omicron zone: oxz_propolis-server_{uid('vmm web')}", **log.ids("web"))
    late = {"uri": f"/vmms/{uid('vmm web')}/state", "method": "PUT", "component": "dropshot (SledAgent)"}
    log.request(61, "web", "put", status=None, latency=60.0, req_id=uid("put"))
    msg = "request completed after handler was already cancelled"
    log.line(126, msg, "W", **late, req_id=uid("put"), response_code="204")
    log.observes(126.1, "web", "Running")
    log.observes(160, "web", "Rebooting", gen=5)
    log.observes(163, "web", "Running", gen=6)
    imported, scenario = import_(tmp_path, log)
    assert [load.action() for load in scenario.load] == ["create"], "the guest has rebooted itself"
    assert only(scenario, Guest)[1].event == "reset"
    assert (imported.differences, imported.failed) == ((), ())


def test_a_user_asks_when_a_request_begins_and_its_line_comes_when_it_was_answered(tmp_path):
    """Else a reboot would wait for the one that it has brought about itself."""
    log, far = Log(), nexus()
    log.register(0, "web")
    log.starts(1, "web")
    log.request(30.02, "web", "put", latency=0.02)
    far.line(30.2, "request completed", uri=f"/v1/instances/{uid('instance web')}/reboot", method="POST",
             component="dropshot_external", req_id=uid("x"), latency_us=200_000, response_code=202)  # fmt: skip
    log.observes(30.05, "web", "Rebooting", gen=5)
    log.observes(35, "web", "Running", gen=6)
    imported, scenario = import_(tmp_path, log, far)
    [reboot] = [load for load in scenario.load if load.reboot]
    assert reboot.at == 30 * S
    assert (imported.differences, imported.failed) == ((), ())


def test_a_propolis_is_lost_so_long_after_it_ran_again(tmp_path):
    log = Log()
    log.register(0, "web")
    log.starts(1, "web")
    log.request(30, "web", "put")
    log.observes(30.1, "web", "Rebooting", gen=5)
    log.observes(33, "web", "Running", gen=6)
    log.line(60, "Propolis zone is gone, marking VMM as failed", "W", **log.ids("web"))
    log.observes(60.1, "web", "Failed", gen=7)
    _, scenario = import_(tmp_path, log)
    rule, _ = only(scenario, KillPropolis)
    assert (only(scenario, Delay)[1].base.at(0), rule.skip) == (27 * S, 1)


def test_what_a_user_wants_of_a_vm_that_was_lost_waits_until_a_check_may_have_noticed(tmp_path):
    log, other = Log(), Log("BRM2")
    log.register(0, "web")
    log.starts(1, "web")
    log.request(59, "web", "get")
    log.agent_starts(62, 65)
    log.request(66, "web", "get", 404)
    other.register(67, "web/2")
    other.starts(68, "web/2")
    other.stops(80, "web/2")
    imported, scenario = import_(tmp_path, log, other)
    [stop] = [load for load in scenario.load if load.stop]
    assert stop.at >= 74 * S + 30 * S
    assert "Nexus may notice later" in imported.text
    assert (imported.differences, imported.failed) == ((), ())


def test_a_path_in_a_quote_is_never_broken(tmp_path):
    log = Log()
    log.register(1, "web")
    log.starts(2, "web")
    folder = tmp_path / ("a-long-name-with-hyphens-" * 8)
    folder.mkdir()
    log.save(folder, "x.log")
    (tmp_path / "x.log").write_text("")
    imported = import_logs([str(tmp_path)], "x")
    assert f"# {folder.name}/x.log:1" in imported.text


@pytest.mark.parametrize("order", ["in order", "in any order"])
def test_a_log_that_was_cut_into_pieces_is_the_same_log(tmp_path, order):
    """Paths of 2024 name instances: which VMM is meant is not what the order of files says."""
    log = Log(start=datetime(2024, 6, 1, tzinfo=UTC))
    for n in (1, 2):
        log.register(100 * n, f"db/{n}", "db")
        log.starts(100 * n + 1, f"db/{n}")
        log.request(100 * n + 30, f"db/{n}", "get", 503)
        log.stops(100 * n + 40, f"db/{n}")
    vmms = {uid(f"vmm db/{n}"): uid("instance db") for n in (1, 2)}
    for vmm, instance in vmms.items():
        log.lines = [line.replace(f"/vmms/{vmm}", f"/instances/{instance}") for line in log.lines]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    log.save(whole)
    numbers = list(range(1, 12))
    if order == "in any order":
        random.Random(1).shuffle(numbers)
    size = -(-len(log.lines) // len(numbers))
    for i, number in enumerate(numbers):
        piece = log.lines[i * size : (i + 1) * size]
        (cut / f"sled.part{number}.log").write_text("".join(f"{line}\n" for line in piece))
    one, many = (
        "".join(re.findall(r"^(?!#| +#).*\n", import_logs([str(each)], "x").text, re.MULTILINE))
        for each in (whole, cut)
    )
    assert one == many
    assert "times: 1" in one


def test_parts_are_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / f"sled.part{number}.log").write_text("x\n")
    with Shelf() as shelf:
        found = sources([str(tmp_path)], print, shelf)
    assert [each.shown for each in found] == ["sled.part1.log", "sled.part2.log", "sled.part10.log"]


def test_what_comes_late_in_a_log_is_at_its_time_to_the_millisecond(tmp_path):
    """Two requests within a second would else be at one time."""
    log, far = Log(), nexus()
    log.register(0, "db")
    log.starts(1, "db")
    far.user(5000.1, "db", "reboot")
    far.user(5000.4, "db", "stop")
    _, scenario = import_(tmp_path, log, far)
    reboot, stop = [load.at for load in scenario.load[1:]]
    assert (stop - reboot) / S == pytest.approx(0.3, abs=0.001)
