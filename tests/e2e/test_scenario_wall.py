"""`run --clock wall`: the same scenario file over real sockets, with users and expectations."""

import asyncio

from sim_sled.scenario.check import parse_scenario
from sim_sled.wall import play_on_sockets, run_wall

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
    failures = asyncio.run(play_on_sockets(scenario, 1, said.append))
    return failures, "\n".join(said)


def test_a_scenario_plays_on_real_sockets():
    failures, said = play(TEXT)
    assert failures == []
    assert "stop took too long: the agent ends the VMM" in said
    assert "never-stops (-:11): stall" in said


def test_an_expectation_that_is_not_met_fails_there_too():
    failures, _ = play(TEXT.replace("enabled", "").replace("do: {stall: forever}", "do: {note: hi}"))
    assert any("hangs" in text for text in failures)


def test_a_bad_file_starts_nothing(tmp_path, capsys):
    path = tmp_path / "x.yaml"
    path.write_text("version: 1\nload: [{at: 5}]\n")
    assert run_wall([str(path)], 1) == 2
    assert "E180" in capsys.readouterr().err
