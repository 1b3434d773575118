"""`sim-sled import`: what an incident's scenario must contain, and that nothing in a log stops it."""

import gzip
import io
import json
import sys
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command import CliRunner
from support.incident.writing import START, Log, nexus, stamp, uid

from sim_sled.cli.main import app
from sim_sled.incident.importing import NothingFound, collect, import_logs
from sim_sled.incident.lines import Reading, Source, parse_time, read_lines
from sim_sled.language.actions import (
    Delay,
    ExpungeSled,
    Fail,
    ForgetVmm,
    Guest,
    Hang,
    Hold,
    KillPropolis,
    MigrationFate,
    NexusReplies,
    Partition,
    PowerOffSled,
    RebootSled,
    RestartAgent,
    SetState,
    Stall,
)
from sim_sled.language.check import parse_scenario

LOGS = Path(__file__).parents[3] / "data" / "logs"
S = 1_000_000


def scenario_of(imported):
    scenario, problems = parse_scenario(imported.text)
    assert scenario is not None, problems.text()
    return scenario


def import_(tmp_path, *logs):
    paths = [log.save(tmp_path, f"{i}-{log.host}.log") for i, log in enumerate(logs)]
    imported = import_logs(paths, "test")
    return imported, scenario_of(imported)


def actions(scenario, kind):
    return [(rule, action) for rule in scenario.rules for action in rule.do if isinstance(action, kind)]


def only(scenario, kind):
    [(rule, action)] = actions(scenario, kind)
    return rule, action


# ---- the four incidents


def incident(*names):
    imported = import_logs([str(LOGS / f"{name}.jsonl") for name in names], "incident")
    assert imported.differences == ()
    assert imported.failed == ()
    return imported, scenario_of(imported)


def test_a_teardown_of_a_minute_becomes_a_delayed_edge_and_unanswered_checks():
    imported, scenario = incident("busy-teardown")
    rule, delay = only(scenario, Delay)
    assert list(rule.when.edge) == [("stopped", "destroyed")]
    assert delay.base.at(0) == pytest.approx(63.9 * S, abs=0.5 * S)
    rule, hang = only(scenario, Hang)
    assert (rule.when.request, rule.for_.state, hang.lasts) == (("vmm_get_state",), ("stopped",), 60 * S)
    [create, stop] = scenario.load
    assert (create.create.hostname, create.create.ncpus, create.create.memory) == ("jump-host", 2, 4 * 1024**3)
    assert stop.at - create.at == pytest.approx(29 * S, abs=0.1 * S)
    assert not actions(scenario, Fail), "the 404 after the end is harmless"
    assert "the logger dropped 17 lines" in imported.summary


def test_a_report_that_comes_after_the_404_becomes_a_vmm_that_is_forgotten_first():
    imported, scenario = incident("stop-race-404.sled-agent", "stop-race-404.nexus")
    rule, _ = only(scenario, ForgetVmm)
    delay, hold, _ = rule.do
    assert (rule.when.state, rule.times) == (("stopped",), 1)
    assert 0.6 * S <= delay.base.at(0) <= 0.9 * S
    assert 5.9 * S <= hold.lasts <= 6.1 * S
    assert isinstance(hold, Hold)
    assert scenario.load[0].create.hostname == "build-7", "known from the second registration only"
    assert scenario.load[0].create.ncpus == 4
    assert "behind" in imported.summary
    assert "1.348 s" in imported.summary
    assert "today's does not" in imported.summary, "Nexus started it again then"
    assert "SMF line" in imported.summary
    assert "cut line" in imported.summary


def test_a_refused_registration_becomes_a_failed_request_and_two_starts_by_the_user():
    imported, scenario = incident("unwind-register.nexus", "unwind-register.sled-agents")
    rule, fail = only(scenario, Fail)
    assert (rule.when.request, rule.times, fail.status, fail.message) == (
        ("vmm_register",),
        1,
        500,
        "Internal Server Error",
    )
    assert only(scenario, Delay)[1].base.at(0) == 52_000
    create, first, second = scenario.load
    assert (create.create.start, first.start is not None, second.start is not None) == (False, True, True)
    assert second.at - first.at == pytest.approx(61.1 * S, abs=0.1 * S)
    assert scenario.fleet.sleds == 2, "two host names in one file are two sleds"
    assert "OPTE" not in imported.text.replace("# ", "").split("rules:")[1].split("do:")[1], (
        "the inner text never left the sled"
    )


def test_a_storm_of_500_becomes_one_rule_between_the_last_good_and_the_first_good_report():
    imported, scenario = incident("nexus-500-storm.sled-a", "nexus-500-storm.sled-b")
    rule, replies = only(scenario, NexusReplies)
    assert 13 * S <= rule.when.at <= 39 * S
    assert 76 * S <= rule.when.at + replies.lasts <= 90 * S
    assert replies.status == 500
    assert not actions(scenario, Delay), "the agent could not observe: no delay may be made of that"
    assert "cannot be compared" in imported.summary, "the skew of the second sled is not provable"
    assert "panic text" in imported.summary


# ---- other kinds of incidents


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


@pytest.mark.parametrize("hostname", ["no", "1e3", "123", "true", "Web.Example", "a: {b}", "x" * 80, "-", "ü"])
def test_any_host_name_makes_a_scenario(tmp_path, hostname):
    log = Log()
    log.register(1, "a", hostname=hostname)
    log.starts(2, "a")
    log.request(30, "a", "get", None, 60.0)
    _, scenario = import_(tmp_path, log)
    assert len(scenario.rules) == 1


# ---- forms


def busy():
    return (LOGS / "busy-teardown.jsonl").read_bytes()


def test_gzip_zip_folder_and_stdin_say_the_same(tmp_path, monkeypatch):
    plain = import_logs([str(LOGS / "busy-teardown.jsonl")], "x")
    rules = plain.text.split("rules:")[1].count("- name")
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(busy()))
    bundle = tmp_path / "bundle.zip"
    with zipfile.ZipFile(bundle, "w") as file:
        file.writestr("rack/r/sled/s/logs/global/sled-agent/current/oxide-sled-agent:default.log", busy())
        file.writestr("rack/r/sled/s/zfs.json", "{}")
        file.writestr("meta/report.json", "{}")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.log").write_bytes(busy())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(busy())))
    for given_ in (str(packed), str(bundle), str(folder), "-"):
        imported = import_logs([given_], "x")
        assert imported.text.split("rules:")[1].count("- name") == rules, given_
        assert imported.differences == ()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(busy())))))
    assert import_logs(["-"], "x").text.split("rules:")[1].count("- name") == rules, "packed, through a pipe"


def test_a_line_that_two_files_have_is_one_line(tmp_path):
    """A log is copied, then cut; an archive has what the current file still has (LG 1.3)."""
    once, _ = incident("unwind-register.nexus", "unwind-register.sled-agents")
    bundle = tmp_path / "bundle.zip"
    sleds = (LOGS / "unwind-register.sled-agents.jsonl").read_bytes()
    zone = (LOGS / "unwind-register.nexus.jsonl").read_bytes()
    with zipfile.ZipFile(bundle, "w") as file:
        logs = "rack/r/sled/s/logs"
        file.writestr(f"{logs}/global/sled-agent/current/oxide-sled-agent:default.log", sleds)
        file.writestr(f"{logs}/global/sled-agent/archive/oxide-sled-agent:default.log.1786999999", sleds)
        file.writestr(f"{logs}/oxz_nexus_1/nexus/current/oxide-nexus:default.log", zone)
        file.writestr(f"{logs}/oxz_nexus_1/nexus/archive/oxide-nexus:default.log.1786999999", gzip.compress(zone))
    twice = import_logs([str(bundle)], "incident")

    def said(imported):
        return [line for line in imported.text.splitlines() if not line.lstrip().startswith("#")]

    assert said(twice) == said(once)


@pytest.mark.parametrize("form", ["long", "short"])
def test_what_looker_prints_can_be_read_too(tmp_path, form):
    out = []
    for raw in busy().decode().splitlines():
        try:
            record = json.loads(raw)
        except ValueError:
            out.append(raw)
            continue
        moment = record["time"][:10] + " " + record["time"][11:23].rstrip("Z").ljust(12, "0") + "Z"
        level = {30: "INFO", 40: "WARN", 50: "ERRO", 20: "DEBG"}[record["level"]]
        msg = record["msg"].replace("\n", "\n    ")
        if form == "long":
            who = f"SledAgent/{record['pid']} ({record.get('component', 'x')}) on {record['hostname']}"
            out.append(f"{moment} {level} {who}: {msg}")
        else:
            out.append(f"{moment[11:]} {level} SledAgent ({record.get('component', 'x')}): {msg}")
        keys = sorted(
            k for k in record if k not in ("msg", "v", "name", "level", "time", "hostname", "pid", "component")
        )
        out += [f"    {key} = {record[key]}" for key in keys]
    path = tmp_path / "pasted.txt"
    path.write_text("\n".join(out))
    imported = import_logs([str(path)], "x", date(2026, 8, 24) if form == "short" else None)
    scenario = scenario_of(imported)
    [(rule, _)] = actions(scenario, Delay)
    assert list(rule.when.edge) == [("stopped", "destroyed")]


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-08-24T09:00:00Z", 0),
        ("2026-08-24T09:00:00.5Z", 500_000),
        ("2026-08-24T09:00:00.123456789Z", 123_456),
        ("2026-08-24T02:00:00.5-07:00", 500_000),
        ("2026-08-24T11:30:00+02:30", 0),
    ],
)
def test_times_have_up_to_nine_digits_and_any_offset(text, micros):
    assert parse_time(text) == 1_787_562_000_000_000 + micros


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-08-24", "2026-08-24T25:00:00Z", "2026-13-01T00:00:00Z", "None"]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)


def test_the_first_name_tells_the_program():
    line = '{"msg":"x","name":"nexus","level":30,"time":"2026-08-24T09:00:00Z","hostname":"h","pid":1,"name":"id"}\n'
    [found] = read_lines(Source("text", lambda: io.BytesIO(line.encode()), len(line.encode())), Reading())
    assert found.program == "nexus"
    assert found.fields["name"] == "id"


def test_a_log_that_says_nothing_is_told_and_nothing_is_written(tmp_path):
    empty = tmp_path / "empty.log"
    empty.write_text("hello\n\n{]\n")
    with pytest.raises(NothingFound):
        import_logs([str(empty)], "x")
    for given_ in (str(empty), str(tmp_path / "missing.log"), "/dev/zero"):
        said = CliRunner().invoke(app, ["import", given_, "--out", str(tmp_path / "out.yaml")])
        assert said.exit_code == 2
        assert not (tmp_path / "out.yaml").exists()
        assert "Traceback" not in said.stderr


def test_text_of_a_log_never_becomes_a_line_of_the_scenario(tmp_path):
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    evil = 'x"\n- name: evil\n  when: {at: 1s}\n\x1b[31m\u2028boo'
    log.request(30, "web-1", "put", 500, error_message_internal=evil, error_message_external=evil)
    imported, scenario = import_(tmp_path, log)
    assert [rule.name for rule in scenario.rules] == ["web-1-put-refused"]
    assert "\x1b" not in imported.text
    assert "\u2028" not in imported.text


LINES = busy().splitlines(keepends=True)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_whatever_is_cut_lost_or_garbled_the_result_is_a_scenario_that_runs(tmp_path_factory, data):
    """Lines missing, doubled, in another order, cut in the middle, with bytes replaced."""
    lines = list(LINES)
    for _ in range(data.draw(st.integers(0, 12))):
        i = data.draw(st.integers(0, len(lines) - 1))
        what = data.draw(st.sampled_from(["drop", "double", "swap", "cut", "garble", "noise"]))
        if what == "drop" and len(lines) > 1:
            del lines[i]
        elif what == "double":
            lines.insert(i, lines[i])
        elif what == "swap":
            j = data.draw(st.integers(0, len(lines) - 1))
            lines[i], lines[j] = lines[j], lines[i]
        elif what == "cut":
            lines[i] = lines[i][: data.draw(st.integers(0, len(lines[i])))] + b"\n"
        elif what == "garble":
            at = data.draw(st.integers(0, max(0, len(lines[i]) - 1)))
            lines[i] = lines[i][:at] + data.draw(st.binary(max_size=8)) + lines[i][at + 4 :]
        else:
            lines.insert(i, data.draw(st.binary(max_size=40)) + b"\n")
    path = tmp_path_factory.mktemp("garbled") / "log"
    path.write_bytes(b"".join(lines))
    try:
        imported = import_logs([str(path)], "x")
    except NothingFound:
        return
    assert scenario_of(imported)


# ---- the command


def test_the_command_writes_checks_and_verifies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["import", str(LOGS / "busy-teardown.jsonl"), "--verify", "--out", "mine.yaml"])
    assert done.exit_code == 0, done.stderr
    assert "verified" in done.stderr
    assert CliRunner().invoke(app, ["check", "mine.yaml"]).exit_code == 0
    assert CliRunner().invoke(app, ["run", "mine.yaml", "--seed", "1"]).exit_code == 0
    assert "busy-teardown.jsonl:66" in (tmp_path / "mine.yaml").read_text(), "each rule quotes file and line"


def test_a_replay_that_goes_another_way_is_found_by_verify(tmp_path, monkeypatch):
    """The judge is proven by something wrong: a VM that stops and then runs again, as none does."""
    log = Log()
    log.register(1, "web-1")
    log.starts(2, "web-1")
    log.observes(20, "web-1", "Stopping", gen=4)
    log.observes(21, "web-1", "Running", gen=5)
    path = log.save(tmp_path)
    done = CliRunner().invoke(app, ["import", path, "--verify"])
    assert done.exit_code == 1
    assert "the replay differs: web-1" in done.stderr


# ---- which of several, who is meant, and what only one program tells


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
    assert (rule.for_.sled, rule.when.at // S) == (("brm1",), 40 if with_nexus else 8)
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
    assert [load.create.sled for load in scenario.load] == ["brm2"] * 4 + ["brm1"]
    rule, restart = only(scenario, RestartAgent)
    assert rule.for_.sled == ("brm2",)
    assert restart.down.at(0) == pytest.approx(6 * S, abs=0.1 * S), "since the last line of the process before"
    assert scenario.fleet.shape.reservoir >= 4 * 32 * 2**30, "and there is room for all"
    assert (imported.differences, imported.failed) == ((), ())


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


# ---- what spec/logs.md says that no incident above has


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("latency", [2**63, -1, 10**30, "x", None, 1.5])
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
