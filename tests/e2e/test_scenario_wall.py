"""`run --clock wall`: the same scenario file over real sockets, with users and expectations."""

import asyncio
import json

import pytest
import structlog
from support.command import CliRunner

from sim_sled.cli.main import app
from sim_sled.daemon import on_sockets
from sim_sled.daemon.on_sockets import play_on_sockets
from sim_sled.language.check import parse_scenario
from sim_sled.play.run import play as in_virtual_time

TEXT = """version: 1
name: wall
fleet: {sleds: 2}
agent: {stop_grace: 500ms}
latency: {preset: instant, starting -> running: 50ms, stopping -> stopped: 50ms}
load:
- {at: 0s, create: {hostname: "web-1"}}
- {at: 0s, create: {hostname: "stuck-1"}}
- {at: 800ms, stop: {}}
rules:
- {name: never-stops, for: {hostname: "stuck-*"}, when: {state: stopping}, do: {stall: forever}}
expect:
- {name: boots, after: {request: vmm_put_state, to: running}, within: 20s, that: {acked: running, instance: running}}
- {name: hangs, for: {hostname: "stuck-*"}, after: {state: stopping}, lasts: 300ms, never: {state: stopped}}
- {name: ends, after: {request: vmm_put_state, to: stopped}, within: 20s, that: {acked: destroyed, instance: stopped}}
"""


def play(text):
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    said = []
    result = asyncio.run(play_on_sockets(scenario, 1, said.append))
    assert result.clock == "wall"
    return [failure.text for failure in result.failures], "\n".join(said)


@pytest.mark.early
def test_a_scenario_plays_on_real_sockets():
    failures, said = play(TEXT)
    assert failures == []
    assert "stop took too long: the agent ends the VMM" in said
    assert "never-stops (-:11): stall" in said


STOPPED_WHILE_IT_MOVES = """version: 1
name: wall
nexus: {hazards: none}
fleet: {sleds: 2}
latency: {preset: instant, migration ram_push: 1s}
load:
- {at: 0s, create: {hostname: web}}
- {at: 1s, migrate: {hostname: web}}
- {at: 1.5s, stop: {hostname: web}}
expect:
- {name: is-stopped, after: {request: vmm_put_state, to: stopped}, within: 10s, that: {instance: stopped}}
"""


@pytest.mark.early
@pytest.mark.parametrize(
    ("hazards", "within", "fails"),
    [("none", "10s", False), ("stop_lost_in_migration", "2s", True)],  # what never comes need not be waited for long
)
def test_a_stop_in_a_migration_is_lost_on_sockets_as_in_virtual_time(hazards, within, fails):
    text = STOPPED_WHILE_IT_MOVES.replace("hazards: none", f"hazards: {hazards}").replace("10s", within)
    failures, _ = play(text)
    assert any("is-stopped" in text for text in failures) is fails


IT_GOES_ON = """version: 1
name: wall
fleet: {sleds: 1}
latency: {preset: instant, starting -> running: 600ms}
load:
- {at: 0s, create: {hostname: web}}
rules:
- {name: later, for: {hostname: web}, when: {state: running}, do: [{delay: 600ms}, {kill_propolis: {}}]}
expect: []
"""


def test_a_run_waits_for_what_a_vmm_or_a_rule_has_begun_however_quiet_it_is(monkeypatch):
    """Both sleds of a migration were lost between two phases, and the run was over before (`both-sleds-lost`)."""
    monkeypatch.setattr(on_sockets, "SETTLE_S", 0.1)
    _, said = play(IT_GOES_ON)
    assert "starting -> running" in said
    assert "propolis killed" in said


SOURCE_WITHOUT_POWER = """version: 1
name: wall
nexus: {hazards: none}
fleet: {sleds: 2}
latency: instant
load:
- {at: 0s, create: {hostname: web}}
- {at: 2200ms, migrate: {hostname: web}}
rules:
- {name: dark, for: {hostname: web}, when: {at: 2s}, do: {power_off_sled: {lasts: forever}}}
expect: []
"""


@pytest.mark.early
@pytest.mark.parametrize("world", ["virtual", "sockets"])
def test_no_guest_comes_out_of_a_sled_without_power(world, monkeypatch):
    """Nexus does not know yet, and migrates it: the target fails, in both worlds."""
    if world == "virtual":
        lines = [str(line) for line in in_virtual_time(parse_scenario(SOURCE_WITHOUT_POWER)[0], 1).lines]
    else:
        monkeypatch.setattr(on_sockets, "SETTLE_S", 0.3)
        lines = play(SOURCE_WITHOUT_POWER)[1].splitlines()
    told = [line for line in lines if "sent" in line and "v2 web" in line]
    assert "failed" in told[-1]
    assert not [line for line in told if "completed" in line]


@pytest.mark.early
def test_an_expectation_that_is_not_met_fails_there_too():
    failures, _ = play(TEXT.replace("enabled", "").replace("do: {stall: forever}", "do: {note: hi}"))
    assert any("hangs" in text for text in failures)


@pytest.fixture(autouse=True)
def logs_as_they_were():
    yield
    structlog.reset_defaults()  # the command has sent them to a stream that is closed by now


def run_wall(*words):
    return CliRunner().invoke(app, ["run", "--clock", "wall", *map(str, words)])


def test_a_bad_file_starts_nothing(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("version: 1\nload: [{at: 5}]\n")
    result = run_wall(path)
    assert result.exit_code == 2
    assert "E180" in result.stderr


@pytest.mark.early
def test_a_run_on_real_sockets_is_told_to_machines_as_well(tmp_path):
    path, junit, events = tmp_path / "wall.yaml", tmp_path / "j.xml", tmp_path / "e.jsonl"
    path.write_text(TEXT.replace("do: {stall: forever}", "do: {note: hi}"))
    result = run_wall(path, "--seed", 1, "--json", "--junit", junit, "--events", events)
    assert result.exit_code == 1
    [run] = json.loads(result.stdout)["runs"]
    assert (run["clock"], run["passed"], run["counts"]["vmms"]) == ("wall", False, 2)
    assert any("hangs" in failure["text"] for failure in run["failures"])
    assert 'failures="1"' in junit.read_text()
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert any((each["kind"], each["to"]) == ("acked", "running") for each in told)
    assert any((each["kind"], each["from"], each["to"]) == ("observed", "starting", "running") for each in told)


@pytest.mark.early
def test_a_rule_that_never_fired_exits_4_there_too(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("version: 1\nfleet: {sleds: 1}\nrules: [{name: never, when: {manual: go}, do: {note: hi}}]\n")
    assert run_wall(path, "--seed", 1, "--require-fired").exit_code == 4


def test_a_wrong_nexus_can_be_had_there_and_a_trace_cannot(tmp_path):
    path = tmp_path / "wall.yaml"
    path.write_text(TEXT)
    assert run_wall(path, "--variant", "none-such").exit_code == 2
    refused = run_wall(path, "--trace", tmp_path / "t")
    assert refused.exit_code == 2
    assert "--trace is for --clock virtual" in refused.stderr
