"""The collector's policy: one place, and every program that runs long follows it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_client.dropshot import collector
from sim_sled.play.many import play_all

REPOSITORY = Path(__file__).parents[2]

LOOK = """
import gc, json, sys
from nexus_client.dropshot import collector

def stop(*_):
    print(json.dumps([gc.get_threshold(), gc.get_freeze_count()]), flush=True)
    import os
    os._exit(0)

real = collector.started
def started():
    real()
    stop()
collector.started = started
sys.argv = ["it", *sys.argv[2:]]
"""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("sim_sled", ["serve", "914e42ed-0e74-4719-90d7-21c1b5c132a2", "[::1]:0", "[::1]:1"]),
        ("sim_sled", ["nexus", "[::1]:0"]),
        ("sim_sled", ["run", "happy"]),
        ("sim_sled", ["explore", "happy", "--jobs", "1"]),
        ("sim_sled", ["shrink", "happy", "--seed", "1"]),
        ("propolis_stub", ["serve", "[::1]:0"]),
    ],
)
def test_every_program_that_runs_long_follows_the_policy(program, arguments):
    script = f"{LOOK}\nfrom {program}.__main__ import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, program, *arguments],
        check=False, capture_output=True, text=True, timeout=60, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.stdout.strip(), done.stderr
    thresholds, frozen = json.loads(done.stdout.splitlines()[-1])
    assert tuple(thresholds) == collector.THRESHOLDS
    assert frozen > 10_000


def test_a_worker_of_a_rack_follows_it():
    """It is a program of its own, and for long had the interpreter's thresholds."""
    script = (
        "import gc, json, runpy\ntry:\n    runpy.run_module('sim_sled.daemon.worker', run_name='__main__')\n"
        "except SystemExit:\n    print(json.dumps(gc.get_threshold()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True, capture_output=True, text=True, cwd=REPOSITORY, input="", timeout=60,
    )  # fmt: skip
    assert tuple(json.loads(done.stdout)) == collector.THRESHOLDS, done.stderr


def test_workers_of_a_campaign_follow_it():
    script = (
        "import gc, json\nfrom nexus_client.dropshot import collector\ncollector.worker()\n"
        "print(json.dumps([gc.get_threshold(), gc.get_freeze_count()]))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=REPOSITORY)
    thresholds, frozen = json.loads(done.stdout)
    assert tuple(thresholds) == collector.THRESHOLDS
    assert frozen > 1_000
    many = (REPOSITORY / "sim_sled/play/many.py").read_text(encoding="utf-8")
    assert "    collector.worker()\n" in many
    assert many.count("    worker_begins()\n") == 1
    assert "initializer=_begin" in many
    assert "    worker_begins()\n" in (REPOSITORY / "sim_sled/campaign/places.py").read_text(encoding="utf-8")


def test_a_program_of_ours_that_has_not_begun_is_told_so():
    """A worker of a rack had the interpreter's thresholds for long: `started` passed in silence."""
    with pytest.raises(RuntimeError, match=r"without collector\.begin"):
        collector.started()


def test_a_process_that_is_not_ours_is_left_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(collector.gc, "freeze", lambda: calls.append("freeze"))
    assert not collector.ours()
    assert list(play_all([], 1)) == []
    assert calls == []
