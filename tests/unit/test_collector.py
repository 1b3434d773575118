"""The collector's policy: one place, and every program that runs long follows it."""

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import processes

from nexus_client.dropshot import collector
from sim_sled.play.many import play_all

REPOSITORY = Path(__file__).parents[2]

LOOK = """
import gc, importlib, json, os, sys
from nexus_client.dropshot import collector

def stop(*_):
    print(json.dumps([gc.get_threshold(), gc.get_freeze_count()]), flush=True)
    os._exit(0)

gc.unfreeze()  # what it was forked from is frozen, and has no policy
gc.set_threshold(*json.loads(sys.argv[1]))
real = collector.started
def started():
    real()
    stop()
collector.started = started
for program, *words in json.loads(sys.argv[2]):
    if not os.fork():
        sys.argv = ["it", *words]
        importlib.import_module(f"{program}.__main__").main()
        os._exit(1)
    os.wait()
    print(flush=True)
"""

LONG: list[list[str]] = [
    ["sim_sled", "serve", "914e42ed-0e74-4719-90d7-21c1b5c132a2", "[::1]:0", "[::1]:1"],
    ["sim_sled", "nexus", "[::1]:0"],
    ["sim_sled", "run", "happy"],
    ["sim_sled", "explore", "happy", "--jobs", "1"],
    ["sim_sled", "shrink", "happy", "--seed", "1"],
    ["propolis_stub", "serve", "[::1]:0"],
]


def test_every_program_that_runs_long_follows_the_policy(tmp_path):
    (tmp_path / "look.py").write_text(LOOK)
    done = subprocess.run(
        processes.forked("look", json.dumps(gc.get_threshold()), json.dumps(LONG)),
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    said = done.stdout.split("\n\n")
    assert len(said) == len(LONG) + 1, done.stderr
    for words, each in zip(LONG, said[:-1], strict=True):
        assert each, (words, done.stderr)
        thresholds, frozen = json.loads(each.splitlines()[-1])
        assert tuple(thresholds) == collector.THRESHOLDS != gc.get_threshold(), words
        assert frozen > 10_000, words


def test_a_worker_of_a_rack_follows_it(tmp_path):
    """It is a program of its own, and for long had the interpreter's thresholds."""
    (tmp_path / "look.py").write_text(
        "import gc, json, runpy\ntry:\n    runpy.run_module('sim_sled.daemon.worker', run_name='__main__')\n"
        "except SystemExit:\n    print(json.dumps(gc.get_threshold()))"
    )
    done = subprocess.run(
        processes.forked("look"), check=True, capture_output=True, text=True, cwd=tmp_path, input="", timeout=60
    )
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
