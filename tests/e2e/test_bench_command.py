"""`sim-sled bench`: a rack under load, in this process and beside a Nexus of another, and its limits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.deploying import ended, line_with, started

from sim_sled.cli.bench import Limits

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "sim_sled"]


@pytest.fixture
def environ(tmp_path):
    return {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(tmp_path),
        "PYTHONUNBUFFERED": "1",
    }


def bench(environ, *words):
    command = [*PROGRAM, "bench", "--sleds", "2", "--vms-per-sled", "3", "--min-transitions", "0", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=110)


def test_figures_are_told_and_limits_kept(environ):
    done = bench(environ, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["sleds"], figures["vms"], figures["broken"]) == (2, 6, [])
    assert figures["transitions"] >= 2 * 6, "each VM starts to run and is destroyed"
    assert figures["reports"] >= 2 * 6
    assert 0 < figures["report_p50_ms"] <= figures["report_p99_ms"]
    assert figures["rss_mib"] > 10
    assert figures["transitions_per_cpu_s"] == pytest.approx(figures["transitions"] / figures["cpu_s"], rel=0.05)


def test_beyond_a_limit_is_exit_1_and_a_sentence(environ):
    done = bench(environ, "--max-rss", "1")
    assert done.returncode == 1
    assert "beyond its limit: rss_mib is" in done.stdout
    assert "at most 1 MiB were wanted" in done.stdout


def test_the_nexus_may_be_a_process_of_its_own(environ, tmp_path):
    nexus = started([*PROGRAM, "nexus", "[::1]:0", "--port-file", str(tmp_path / "n.json")], environ, tmp_path)
    try:
        line_with(nexus, "control API")
        found = json.loads((tmp_path / "n.json").read_text())
        # as a person has them from a browser
        done = bench(environ, "--nexus", f"http://{found['address']}/", "--users", f"http://{found['control']}")
        assert done.returncode == 0, done.stderr
        assert "all limits are kept" in done.stdout
        assert bench(environ, "--nexus", found["address"]).returncode == 2
        # the names are taken by now: a user is refused, and that is no result
        again = bench(environ, "--nexus", found["address"], "--users", found["control"])
        assert again.returncode == 3
        assert "a user was refused: 400" in again.stderr
    finally:
        assert ended(nexus) == 0


def test_each_limit_has_its_own_sentence():
    limits = Limits(transitions_per_cpu_s_min=10, rss_mib_max=10, start_s_max=1, report_p99_ms_max=5)
    good = {"transitions_per_cpu_s": 10, "rss_mib": 10, "start_s": 1, "report_p99_ms": 5}
    assert limits.broken(good) == []
    for name, bad in (("transitions_per_cpu_s", 9), ("rss_mib", 11), ("start_s", 2), ("report_p99_ms", 6)):
        assert len(limits.broken(good | {name: bad})) == 1, name
