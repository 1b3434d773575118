"""The benches run, and compare like with like. Their figures are nobody's business here."""

import json
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from tests.bench import __main__ as bench
from tests.bench import lives, performance

_ROOT = Path(__file__).resolve().parents[2]


def test_both_arms_of_a_life_publish_the_same():
    assert lives.assert_same_moves(lives.rack_with(0)) == 4


def test_a_life_leaves_nothing_behind():
    rack = lives.rack_with(3)
    _, now_us = lives.our_life(rack, 1, lives.T0_US)
    assert len(rack.sleds[lives.SLED].vmms) == 3
    assert len(rack.sleds[lives.SLED].outbox) == 0
    due_us = rack.next_deadline_us()
    assert due_us is None or due_us > now_us


def test_the_page_of_figures_is_made_of_what_was_measured():
    kept = json.loads(performance.KEPT.read_text())
    text = performance.PAGE.read_text()
    assert performance.page(text, kept) == text


def test_a_bench_measured_again_replaces_what_was_kept_of_it_and_no_other():
    kept = {"a": {"rows": [1]}, "c": {"rows": [2]}}
    assert performance.merged(kept, {"b": {"rows": [3]}, "a": {"rows": [4]}}) == {
        "a": {"rows": [4]},
        "b": {"rows": [3]},
        "c": {"rows": [2]},
    }


def test_a_bench_that_starts_no_process_runs(capsys, tmp_path):
    told = tmp_path / "told.json"
    (row,) = bench.main(["--quick", "--only", "c", "--json", str(told)])
    assert row.name in capsys.readouterr().out
    assert json.loads(told.read_text())["c"]["rows"] == [attrs.asdict(row) | {"verdict": row.verdict}]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
@pytest.mark.early
@pytest.mark.long
def test_the_benches_of_few_processes_run():
    """The whole bench is no test: (a), (b), (h) and (j) start a dozen programs each, and `make bench` plays them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--only", "cdefgik"],
        cwd=_ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line[:3] for line in done.stdout.splitlines() if line.startswith("(")] == list(
        map("({})".format, "cdddeffgggggggiiik")
    )
