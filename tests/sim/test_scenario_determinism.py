"""Byte-equal traces: in processes with different PYTHONHASHSEED, and with parallel jobs; fates do not shift."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.profile import by_profile
from support.scenarios.trace_digests import digest

from sim_sled.language.check import parse_scenario
from sim_sled.play.run import play
from sim_sled.play.trace import read_trace

TESTS = Path(__file__).parents[1]
LIBRARY = sorted((TESTS.parent / "scenarios").glob("*.yaml"))


def digests(hash_seed, jobs, nth, *seeds):
    env = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    command = [sys.executable, str(TESTS / "support" / "scenarios" / "trace_digests.py"), str(jobs), str(nth), *seeds]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=300).stdout


@pytest.mark.nightly
@pytest.mark.parametrize("nth", [8, pytest.param(1, marks=pytest.mark.long)])
def test_every_scenario_plays_the_same_in_any_process(nth):
    """As its golden trace, which some other process wrote. Each pytest worker plays all, too, with a hash seed of its
    own (test_scenario_library.py).
    """
    golden = [digest(path.name, read_trace(path.with_suffix(".trace").read_text())) for path in LIBRARY[::nth]]
    # by one player, since two are started and the bytes are the same (test_explore.py)
    assert digests(4242, by_profile(1, nightly=2), nth).splitlines() == golden
    for seed in by_profile((), nightly=("1", "2", "3")):
        assert digests(0, 1, nth, seed) == digests(4242, 2, nth, seed) != ""


RULES = """
rules:
- name: unlucky
  for: {percent: 30%}
  when: {state: running}
  chance: 60%
  do: [{delay: 1s..30s}, {note: unlucky}]
"""
LOAD = "load:\n- at: 0s\n  create: {hostname: 'web-{n}', count: 12}\n"
MORE = (
    "- at: 0s\n  create: {hostname: 'other-{n}', count: 7, spread: 3s}\n- at: 5s\n  reboot: {hostname: 'other-*'}\n"
)
LATENCY = "latency: {starting -> running: lognormal(p50=2s p99=9s)}\n"


def fates(text, seed):
    scenario, problems = parse_scenario("version: 1\nfleet: {sleds: 8}\n" + text)
    assert scenario is not None, problems.text()
    lines = play(scenario, seed).lines
    notes = [
        (line.hostname, line.at_us) for line in lines if line.kind == "note" and line.hostname.startswith("web-")
    ]
    boots = {
        line.hostname: line.at_us
        for line in lines
        if line.kind == "propolis" and "-> running" in line.text and line.hostname.startswith("web-")
    }
    return sorted(notes), boots


def test_unrelated_traffic_does_not_shift_a_fate():
    alone, boots_alone = fates(LATENCY + RULES + LOAD, 5)
    crowded, boots_crowded = fates(LATENCY + RULES + LOAD + MORE, 5)
    assert alone == crowded
    assert alone
    assert boots_alone == boots_crowded


def test_another_rule_does_not_shift_a_fate():
    other = "- {name: zz, when: {state: running}, chance: 50%, do: {note: other}}\n"
    alone, _ = fates(LATENCY + RULES + LOAD, 5)
    crowded, _ = fates(LATENCY + RULES + other + LOAD, 5)
    assert set(alone) <= set(crowded)


def test_another_seed_is_another_run():
    assert fates(LATENCY + RULES + LOAD, 5) != fates(LATENCY + RULES + LOAD, 6)
