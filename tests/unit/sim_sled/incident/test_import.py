"""`sim-sled import`: what the given incidents' scenarios must contain, and that nothing in a log stops it."""

import gzip
import io
import json
import sys
import zipfile
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command import CliRunner
from support.incident.importing import S, actions, import_, only, scenario_of
from support.incident.writing import Log
from support.profile import by_profile
from support.rows import in_one_test

from sim_sled.cli.main import app
from sim_sled.incident.archives import Source
from sim_sled.incident.importing import NothingFound, import_logs
from sim_sled.incident.lines import Reading, parse_time
from sim_sled.incident.reading import read_lines
from sim_sled.language.actions import (
    Delay,
    Fail,
    ForgetVmm,
    Hang,
    Hold,
    NexusReplies,
)

LOGS = Path(__file__).parents[3] / "data" / "logs"


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


@in_one_test(
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


@in_one_test("text", ["", "yesterday", "2026-08-24", "2026-08-24T25:00:00Z", "2026-13-01T00:00:00Z", "None"])
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


@pytest.mark.nightly
@settings(deadline=None, max_examples=by_profile(15, nightly=400))
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
    assert done.stderr.endswith("\nwrote mine.yaml; to play it: sim-sled run mine.yaml\n")
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
    told = json.loads(CliRunner().invoke(app, ["import", path, "--verify", "--json"]).stdout)
    assert told["summary"][0] == done.stderr.splitlines()[0]
    assert [each.partition(",")[0] for each in told["differences"]] == ["web-1"]
    assert (told["verified"], told["file"], told["scenario"]) == (False, None, done.stdout)
