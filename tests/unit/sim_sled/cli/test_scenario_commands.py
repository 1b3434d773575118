"""The commands on scenarios: exit codes, JSON, JUnit, files; as a person types them."""

import json
import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import attrs
import pytest
from support.command import CliRunner

from sim_sled.campaign.explore import Explored, Group
from sim_sled.cli.exploring import brief
from sim_sled.cli.main import app
from sim_sled.core.event import Event
from sim_sled.language.actions import ACTIONS
from sim_sled.play import library

LIBRARY = Path(__file__).parents[4] / "scenarios"
BAD = Path(__file__).parents[3] / "bad"


def sim_sled(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_good_run_exits_0_and_says_what_it_was():
    result = sim_sled("run", LIBRARY / "happy.yaml", "--seed", 3)
    assert result.exit_code == 0
    assert result.stdout.startswith("ok   happy  seed 3")


def test_a_failed_run_exits_1_and_explains_itself():
    result = sim_sled("run", LIBRARY / "race-404.yaml", "--seed", 1, "--variant", "restarts-stopped")
    assert result.exit_code == 1
    assert "expectation 'user-stop-wins'" in result.stdout
    assert "again: sim-sled run" in result.stdout


def test_bad_input_exits_2_and_starts_nothing():
    result = sim_sled("run", LIBRARY / "happy.yaml", BAD / "E102.yaml", "--seed", 1)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "E102" in result.stderr
    assert sim_sled("run", LIBRARY / "happy.yaml", "--variant", "none-such").exit_code == 2
    bare = sim_sled("run", LIBRARY / "happy.yaml", "--until", "5")
    assert (bare.exit_code, bare.stderr) == (2, "sim-sled: --until: '5' has no unit; write 5ms, 5s, 5m or 5h\n")
    assert sim_sled("explain", "happy", "--at", "5").stderr.startswith("sim-sled: --at: '5' has no unit")
    assert sim_sled("run", LIBRARY / "happy.yaml", "--clock", "sun").exit_code == 2
    assert sim_sled("run", "none-such.yaml").exit_code == 2


def test_a_run_that_is_cut_short_is_not_ok_while_expectations_wait(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "version: 1\nload: [{at: 1s, create: {hostname: web}}]\nlatency: console\n"
        "expect: [{name: up, after: {state: starting}, that: {vmm: running}, within: 30s}]\n"
    )
    result = sim_sled("run", path, "--seed", 1, "--until", "4s")
    assert result.exit_code == 1
    assert "expectation 'up'" in result.stdout
    assert "not yet so when the run ended" in result.stdout
    assert sim_sled("run", path, "--seed", 1).exit_code == 0
    assert sim_sled("run", path, "--seed", 1, "--until", "20s").exit_code == 0


def test_a_run_that_is_cut_short_before_anything_is_judged_is_not_ok(tmp_path):
    """0 of 0 expectations met: that is no verdict."""
    path = tmp_path / "x.yaml"
    path.write_text(
        "version: 1\nload: [{at: 5s, create: {hostname: web}}]\n"
        "expect: [{name: up, after: {state: starting}, that: {vmm: running}, within: 30s}]\n"
    )
    result = sim_sled("run", path, "--seed", 1, "--until", "2s")
    assert result.exit_code == 1
    assert "was not judged: what arms it did not happen before the run ended" in result.stdout
    assert "W310" not in result.stdout, "said once"


def test_a_run_has_the_pace_that_is_asked_for_unless_the_scenario_says_its_own(tmp_path):
    path = tmp_path / "x.yaml"
    text = (
        "version: 1\nname: paced\nload: [{at: 0s, create: {hostname: web}}]\n"
        "expect: [{name: up, after: {state: starting}, that: {vmm: running}, within: 2s}]\n"
    )
    path.write_text(text)
    assert sim_sled("run", path, "--seed", 1).exit_code == 0
    assert sim_sled("run", path, "--seed", 1, "--pace", "console").exit_code == 1
    trace = tmp_path / "x.trace"
    assert sim_sled("run", path, "--seed", 1, "--pace", "fast", "--trace", trace).exit_code == 0
    assert sim_sled("replay", trace).exit_code == 0, "the pace is in the trace"
    path.write_text(text + "latency: instant\n")
    assert sim_sled("run", path, "--seed", 1, "--pace", "console").exit_code == 0
    wrong = sim_sled("run", path, "--pace", "consol")
    assert wrong.exit_code == 2
    assert "did you mean 'console'?" in wrong.stderr


def test_instances_that_no_sled_had_room_for_are_told(tmp_path):
    """A run of nothing looked as good as any."""
    path = tmp_path / "x.yaml"
    path.write_text(
        "version: 1\nfleet: {sleds: 1, shape: {cpus: 4}}\n"
        'load: [{at: 0s, create: {hostname: "web-{n}", count: 3, ncpus: 64}}]\n'
    )
    result = sim_sled("run", path, "--seed", 1)
    assert "W314 3 instances never found room on a sled: web-1, web-2, web-3" in result.stdout
    assert "W314" in sim_sled("run", path, "--seed", 1, "--json").stdout
    explained = sim_sled("explain", path, "web-1", "--seed", 1)
    assert (explained.exit_code, explained.stdout) == (
        0, "web-1 was never placed: no sled had room for it by then (3 instances like it)\n"
    )  # fmt: skip
    other = sim_sled("explain", path, "web-9", "--seed", 1)
    assert "these found no room on any sled: web-1, web-2, web-3" in other.stderr
    checked = sim_sled("check", path)
    assert "W315 3 instances of 64 CPUs and 4GiB, but the fleet (1 sled) has room for 0 of them" in checked.stdout
    assert "W314" not in sim_sled("run", LIBRARY / "happy.yaml", "--seed", 3).stdout


def test_equal_failures_are_told_once_with_their_number(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        'version: 1\nload: [{at: 0s, create: {hostname: "web-{n}", count: 4}}]\n'
        "rules: [{name: stuck, when: {state: starting}, do: {stall: forever}}]\n"
        "expect: [{name: up, after: {state: starting}, that: {vmm: running}, within: 30s}]\n"
    )
    result = sim_sled("run", path, "--seed", 1)
    assert result.exit_code == 1
    assert result.stdout.count("expectation 'up'") == 1
    assert "and 3 more like it, the last at" in result.stdout
    assert len(json.loads(sim_sled("run", path, "--seed", 1, "--json").stdout)["runs"][0]["failures"]) == 4


def test_files_of_runs_do_not_overwrite_each_other_and_minus_is_stdout(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.yaml").write_text(
            "version: 1\nname: same\nload: [{at: 0s, create: {hostname: web}}]\n"
        )
    assert (
        sim_sled("run", tmp_path / "a", tmp_path / "b", "--seed", 1, "--events", tmp_path / "ev.jsonl").exit_code == 0
    )
    assert sorted(each.name for each in tmp_path.glob("ev*")) == ["ev-same-2.jsonl", "ev-same.jsonl"]
    result = sim_sled("run", tmp_path / "a" / "x.yaml", "--seed", 1, "--junit", "-")
    assert "<testsuite" in result.stdout
    assert not Path("-").exists()


def test_what_goes_to_stdout_is_alone_there(tmp_path):
    """So that `jq` reads it: a person is told on stderr, and of two things one has to be a file."""
    result = sim_sled("run", LIBRARY / "slow-boot.yaml", "--seed", 1, "--events", "-")
    assert {"world", "sent", "acked"} <= {json.loads(line)["kind"] for line in result.stdout.splitlines()}
    assert "ok   slow-boot" in result.stderr
    for more in (["--json"], ["--junit", "-"]):
        result = sim_sled("run", LIBRARY / "slow-boot.yaml", "--events", "-", *more)
        told = '{\n  "exit_code": 2,\n  "lines": []\n}\n' if more == ["--json"] else ""
        assert (result.exit_code, result.stdout) == (2, told)
        assert "both write to stdout; give one of them a file" in result.stderr
    result = sim_sled("explore", LIBRARY / "slow-boot.yaml", "--runs", 2, "--jobs", 1, "--out", "-")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "slow-boot.yaml: 2 runs" in result.stderr


def test_the_command_that_plays_a_failed_run_again_does(tmp_path):
    """With whatever it was played with: the same seed of a swarm, or at another pace, is another run."""
    path = tmp_path / "it's bad.yaml"
    path.write_text(
        "version: 1\nname: bad\nload: [{at: 0s, create: {hostname: web}}]\n"
        "expect: [{name: up, after: {state: starting}, that: {vmm: destroyed}, within: 1ms}]\n"
    )
    options = ("--swarm", "--pace", "console", "--hazard", "stop_before_start", "--until", "90s")
    first = sim_sled("run", path, "--seed", 3, *options)
    assert first.exit_code == 1
    again = next(line for line in first.stdout.splitlines() if line.startswith("     again: "))
    _, *words = shlex.split(again.removeprefix("     again: "))
    assert sim_sled(*words).stdout.splitlines()[1:] == first.stdout.splitlines()[1:]


WRONG = [
    # told and read where --hazard is
    pytest.param("--variant stopped-too-early", marks=pytest.mark.long),
    pytest.param("--sled-variant clock-goes-back", marks=pytest.mark.long),
    "--swarm --no-guide --first-seed 38 --hazard reservation_lags",
]


def commands_in(text):
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("sim-sled ")]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_campaign_found_can_be_pasted_where_it_is_kept(tmp_path, monkeypatch, wrong):
    """Every command of a group's folder does what it says there: the reduced run fails so, and so did the first."""
    (tmp_path / "web.yaml").write_text(
        "version: 1\nname: web\nnexus: {hazards: none}\n"
        "load: [{at: 0s, create: {hostname: web}}, {at: 20s, stop: {hostname: web}}]\n"
        "expect: [{always: [time_ordered]}]\n"
    )
    monkeypatch.chdir(tmp_path)
    options = [*wrong.split(), "--runs", 8, "--failures", 1, "--jobs", 1]
    plain = sim_sled("explore", "web.yaml", *options)
    assert plain.exit_code == 1, plain.stdout
    smaller = next(line for line in plain.stdout.splitlines() if line.startswith("    smaller: "))
    [words] = commands_in(smaller.removeprefix("    smaller: "))
    assert sim_sled(*words, "--out", "one.yaml").exit_code == 0
    assert sim_sled("explore", "web.yaml", *options, "--shrink").exit_code == 1
    [folder] = (tmp_path / "web.found").iterdir()
    monkeypatch.chdir(folder)
    key = (folder / "README.md").read_text().splitlines()[0].removeprefix("# ").partition("/")[0]
    commands = commands_in((folder / "README.md").read_text())
    assert [words[0] for words in commands] == ["run", "replay", "shrink", "run"]
    for words in commands:
        result = sim_sled(*words)
        assert result.exit_code == (1 if words[0] == "run" else 0), (words, result.stdout, result.stderr)
        assert words[0] != "run" or key in result.stdout


def test_the_last_line_of_several_runs_says_how_many_failed(tmp_path):
    (tmp_path / "bad.yaml").write_text(
        "version: 1\nload: [{at: 0s, create: {hostname: web}}]\n"
        "expect: [{name: up, after: {state: starting}, that: {vmm: destroyed}, within: 1ms}]\n"
    )
    result = sim_sled("run", tmp_path / "bad.yaml", LIBRARY / "slow-boot.yaml", "--seed", 1)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == f"1 of 2 runs failed: {tmp_path / 'bad.yaml'}"
    result = sim_sled("run", LIBRARY / "slow-boot.yaml", LIBRARY / "agent-hang.yaml", "--seed", 1)
    assert result.stdout.splitlines()[-1] == "all 2 runs are good"
    alone = sim_sled("run", LIBRARY / "slow-boot.yaml", "--seed", 1)
    assert "runs" not in alone.stdout, "of one run its own line says it"


def test_a_rule_that_never_fired_exits_4_on_demand(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("version: 1\nrules: [{name: never, when: {state: running}, do: {note: hi}}]\n")
    result = sim_sled("run", path, "--seed", 1)
    assert (result.exit_code, "never fired: never" in result.stdout) == (0, True), "said anyway"
    result = sim_sled("run", path, "--seed", 1, "--require-fired")
    assert result.exit_code == 4
    assert "never fired: never" in result.stdout


def test_a_random_seed_is_told_and_repeats_the_run(tmp_path):
    traces = [tmp_path / "a.trace", tmp_path / "b.trace"]
    first = sim_sled("run", LIBRARY / "slow-boot.yaml", "--trace", traces[0])
    seed = first.stderr.partition("seed ")[2].split()[0]
    sim_sled("run", LIBRARY / "slow-boot.yaml", "--trace", traces[1], "--seed", seed)
    assert traces[0].read_text() == traces[1].read_text()


def test_a_seed_on_the_command_line_wins_with_a_note():
    result = sim_sled("run", LIBRARY / "migration-matrix.yaml", "--seed", 9)
    assert result.exit_code == 0
    assert "--seed 9 wins over its seed 7" in result.stderr


def test_a_run_can_be_told_to_machines(tmp_path):
    files = {name: tmp_path / name for name in ("junit.xml", "events.jsonl", "timeline.json", "sequence.mmd")}
    result = sim_sled(
        "run", LIBRARY / "stuck-stop.yaml", "--seed", 1, "--json", "--junit", files["junit.xml"],
        "--events", files["events.jsonl"], "--timeline", files["timeline.json"],
        "--sequence", f"stuck-1={files['sequence.mmd']}",
    )  # fmt: skip
    assert result.exit_code == 0
    [run] = json.loads(result.stdout)["runs"]
    assert (run["scenario"], run["passed"], run["failures"]) == ("stuck-stop", True, [])
    suites = ET.parse(files["junit.xml"]).getroot()
    assert (len(suites), suites.attrib["failures"]) == (1, "0")
    assert [case.get("name") for case in suites.iter("testcase")][-1] == "the run"
    events = [json.loads(line) for line in files["events.jsonl"].read_text().splitlines()]
    assert [event["number"] for event in events] == list(range(1, len(events) + 1))
    assert all({"number", *Event(0, "", "").plain()} == set(event) for event in events), "as a daemon's"
    asked = next(event for event in events if event["kind"] == "request" and event["hostname"] == "stuck-1")
    assert (asked["status"], asked["sled"], len(asked["instance"])) == (200, "sled-1", 36)
    ended = [e for e in events if e["kind"] == "observed" and e["hostname"] == "stuck-1"][-1]
    assert (ended["from"], ended["to"], ended["gen"] > 4) == ("stopping", "destroyed", True)
    assert "never-stops (stuck-stop.yaml:16): stall" in [e["text"] for e in events if e["kind"] == "rule"]
    assert json.loads(files["timeline.json"].read_text())["traceEvents"]
    assert files["sequence.mmd"].read_text().startswith("sequenceDiagram")


def test_explain_lists_rules_in_the_order_in_which_they_fire(tmp_path):
    result = sim_sled("explain", LIBRARY / "stuck-stop.yaml", "--seed", 7)
    assert result.exit_code == 0
    head, *lines = result.stdout.splitlines()
    assert head == "rules of stuck-stop, seed 7, in the order in which they fire:"
    times = [float(line.split()[0]) for line in lines]
    assert times == sorted(times)
    assert any(line.endswith("v1 stuck-1 on sled-1: never-stops (stuck-stop.yaml:16): stall") for line in lines)
    early = sim_sled("explain", LIBRARY / "stuck-stop.yaml", "--seed", 7, "--at", "5s").stdout.splitlines()
    assert early[-1].startswith("never fired: never-stops")
    (tmp_path / "x.yaml").write_text("version: 1\nname: x\nseed: 1\n")
    assert sim_sled("explain", tmp_path / "x.yaml").stdout.splitlines()[1:] == ["  it has none"]
    assert sim_sled("explain", LIBRARY / "stuck-stop.yaml", "--variant", "none-such").exit_code == 2


def test_explain_plays_what_run_played():
    """A VMM that sticks at one pace, or in a swarm, sticks in what is explained; what there is not is told."""
    quick, slow = (
        sim_sled("explain", LIBRARY / "happy.yaml", "web-1", "--at", "3s", "--seed", 3, "--pace", pace).stdout
        for pace in ("instant", "rack")
    )
    assert "is running" in quick
    assert "is starting" in slow
    assert "--swarm" in sim_sled("explain", "--help").stdout
    for option in ("--variant", "--sled-variant", "--hazard"):
        refused = sim_sled("explain", LIBRARY / "happy.yaml", "web-1", option, "none-such")
        assert (refused.exit_code, "'none-such'; there are: " in refused.stderr) == (2, True)


def test_a_scenario_of_the_library_is_told_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        "again: sim-sled run happy --seed 1 --pace rack"
        in sim_sled("run", "happy", "--seed", 1, "--pace", "rack").stdout
    )
    Path("happy").mkdir()
    assert library.named(str(library.folder() / "happy.yaml")) == str(library.folder() / "happy.yaml")
    assert library.named("happy.yaml") == "happy.yaml"


def test_explain_tells_why_a_vmm_is_where_it_is():
    result = sim_sled("explain", LIBRARY / "stuck-stop.yaml", "stuck-1", "--at", "20s", "--seed", 3)
    assert result.exit_code == 0
    assert "rule never-stops (stuck-stop.yaml:" in result.stdout
    assert "is stopping" in result.stdout
    assert sim_sled("explain", LIBRARY / "stuck-stop.yaml", "nobody", "--seed", 3).exit_code == 2


def test_after_a_migration_that_failed_explain_means_the_source_by_the_host_name(tmp_path):
    file = tmp_path / "fails.yaml"
    file.write_text(
        "version: 1\nname: fails\nfleet: {sleds: 2}\n"
        "load:\n- {at: 0s, create: {hostname: web}}\n- {at: 9s, migrate: {}}\n"
        "rules:\n- {name: half-way, when: {migration: ram_push}, do: {migration: failed}}\n"
    )
    result = sim_sled("explain", file, "web", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "v1 (web) on sled-" in result.stdout
    assert " is running." in result.stdout


def test_record_and_replay(tmp_path):
    trace = tmp_path / "x.trace"
    sim_sled("run", LIBRARY / "nexus-500.yaml", "--seed", 5, "--trace", trace)
    result = sim_sled("replay", trace)
    assert result.exit_code == 0, result.output
    assert "the same" in result.stdout


def test_the_trace_of_a_failed_run_says_again_what_failed_and_can_be_explained(tmp_path):
    trace = tmp_path / "night.trace"
    failed = sim_sled(
        "run", LIBRARY / "race-404.yaml", "--seed", 1, "--variant", "restarts-stopped", "--trace", trace
    )
    [what] = [line for line in failed.stdout.splitlines() if "expectation 'user-stop-wins'" in line]
    played = sim_sled("replay", trace)
    assert played.exit_code == 0
    assert played.stdout.splitlines()[0].endswith("; it failed the same way:")
    assert what in played.stdout.splitlines()
    assert json.loads(sim_sled("replay", trace, "--json").stdout)["failures"][0] in what
    options = ("race-1", "--at", "9s")
    of_file = sim_sled("explain", LIBRARY / "race-404.yaml", *options, "--seed", 1, "--variant", "restarts-stopped")
    assert sim_sled("explain", trace, *options).stdout == of_file.stdout
    assert sim_sled("explain", trace).stdout.startswith("rules of race-404, seed 1,")
    beside = sim_sled("explain", trace, "--seed", 2)
    assert (beside.exit_code, "leave out --seed" in beside.stderr) == (2, True)


@pytest.mark.parametrize("command", ["run", "check", "shrink"])
def test_who_gives_a_trace_for_a_scenario_is_told_what_to_do_with_it(command, tmp_path):
    trace = tmp_path / "x.trace"
    sim_sled("run", LIBRARY / "happy.yaml", "--seed", 5, "--trace", trace)
    result = sim_sled(command, trace)
    assert result.exit_code == 2
    assert "x.trace:1:1: E106 this is the trace of a run, and no scenario: `sim-sled replay`" in result.output


def test_the_reference_says_which_actions_there_are_and_what_one_does():
    there = sim_sled("scenario", "reference", "actions").stdout
    assert [line.split("`")[1] for line in there.splitlines() if line.startswith("* ")] == list(ACTIONS)
    assert "* `reset`: Close the connection without an answer, nothing carried out.\n" in there
    one = sim_sled("scenario", "reference", "Stall").stdout
    assert one.startswith("### stall\n")
    assert (one.count("#"), "`lasts`" in one) == (3, True)
    typed = sim_sled("scenario", "reference", "stal")
    said = "sim-sled: the reference has no part 'stal' (did you mean 'stall'?)\n"
    assert (typed.exit_code, typed.stderr) == (2, said)
    assert "; there are: scenario, fleet, shape, " in sim_sled("scenario", "reference", "x").stderr


@pytest.mark.parametrize("command", ["list", "schema", "reference"])
def test_the_language_documents_itself(command):
    result = sim_sled("scenario", command)
    assert result.exit_code == 0
    assert len(result.stdout) > 500


def test_the_library_is_listed_as_json():
    listed = json.loads(sim_sled("scenario", "list", "--json").stdout)
    assert len(listed) == len(list(LIBRARY.glob("*.yaml")))
    assert {"name", "file", "about", "issues"} == set(listed[0])
    assert next(one for one in listed if one["name"] == "race-404")["issues"] == ["omicron#6809"]


def test_check_on_the_whole_library():
    result = sim_sled("check", *sorted(LIBRARY.glob("*.yaml")))
    assert result.exit_code == 0
    assert result.stdout.endswith("0 errors, 0 warnings\n")


def test_explore_and_shrink_on_the_command_line(tmp_path):
    seeds, small = tmp_path / "seeds", tmp_path / "small.yaml"
    path = LIBRARY / "unwind-ensure.yaml"
    result = sim_sled("explore", path, "--runs", 5, "--jobs", 1, "--variant", "lazy-reaper", "--out", seeds)
    assert result.exit_code == 1
    seed = seeds.read_text().split()[0]
    reduced = sim_sled("shrink", path, "--seed", seed, "--variant", "lazy-reaper", "--out", small)
    assert reduced.exit_code == 0
    assert sim_sled("run", small, "--variant", "lazy-reaper").exit_code == 1
    assert not re.search(r"\(\S+:\d+\)", small.read_text()), "it was shrunk in no file that anybody has"
    assert sim_sled("run", small).exit_code == 0
    assert sim_sled("explore", path, "--runs", 3, "--jobs", 1).exit_code == 0


def test_what_cannot_be_written_is_told_before_anything_is_played(tmp_path):
    nowhere = tmp_path / "none" / "x"
    for option in ("--junit", "--events", "--trace", "--timeline"):
        result = sim_sled("run", LIBRARY / "happy.yaml", "--seed", 1, option, nowhere)
        assert (result.exit_code, result.stdout) == (2, ""), option
        assert f"cannot write {nowhere}: there is no folder" in result.stderr
    assert sim_sled("run", LIBRARY / "happy.yaml", "--sequence", f"web-1={tmp_path}").exit_code == 2
    for command in ("explore", "shrink"):
        assert sim_sled(command, LIBRARY / "happy.yaml", "--out", nowhere).exit_code == 2


def test_a_sequence_of_nobody_is_told(tmp_path):
    result = sim_sled("run", LIBRARY / "happy.yaml", "--seed", 1, "--sequence", f"nobody={tmp_path / 'x.mmd'}")
    assert result.exit_code == 0
    assert "there was no nobody; its sequence is empty" in result.stderr


def test_the_bar_of_a_night_fits_into_80_columns_with_the_bar_itself_and_the_time_left():
    groups = {str(n): Group(str(n), "") for n in range(20)}
    night = Explored(99_999, 9_999, virtual_us=5_800 * 3_600_000_000, groups=groups, covered=9_999)
    assert brief(night, 99.0) == "99999 runs, 99/s, 5800 h, 9999 failed in 20, 9999 tuples"
    most = attrs.evolve(night, runs=9_999_999, failed=99_999, covered=99_999, virtual_us=600_000 * 3_600_000_000)
    assert len(brief(most, 9_999.0)) + len(" ") + 6 + len(" 0:00:00") <= 80
