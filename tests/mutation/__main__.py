"""`python -m tests.mutation [--only ID,ID] [--jobs N] [--baseline]`: plants each bug in a copy and runs its tests.

Per bug: `killed` (a test failed, as it should), `SURVIVED` (all passed) or `UNFIT` (the row does not fit the code, or
its tests could not be run). `--baseline` first runs the named tests without any bug: they have to pass.
The working tree is not touched: every worker has a copy of it, without any compiled file.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutation.rows import ROOT, Planted, all_rows

LONGEST_S: Final = 600
"""One bug's tests: beyond it the bug has made something wait for ever, and pytest's own time-out did not help."""

_SOON: Final = ("-o", "faulthandler_timeout=240")
"""Nobody waits here for a failure to be reduced."""

_PASSED, _FAILED = 0, 1  # exit codes of pytest; all others are no verdict


class Fate(Enum):
    KILLED = "killed"
    SURVIVED = "SURVIVED"
    UNFIT = "UNFIT"


def copy_of_the_tree(into: Path) -> Path:
    """What git knows or would know of, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in set(listed.stdout.decode().split("\0")) - {""}:
        if (ROOT / name).is_file():
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    return into


def run_tests(tree: Path, tests: tuple[str, ...]) -> tuple[int | None, str]:
    """Exit code of pytest (None: it had to be ended) and what it said last."""
    # no compiled files: a bug of the same length, planted within a second, would not be seen
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    # nor plugins that nobody has named: each would be loaded, and ours have its modules rewritten, for every bug
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment.setdefault("SIM_SLED_PROFILE", "ci")  # what CI plays is what must notice
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *_SOON, *tests]
    try:
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"ended after {LONGEST_S} s"
    return done.returncode, next((line for line in reversed(done.stdout.splitlines()) if line.strip()), "")


def play(row: Planted, tree: Path) -> tuple[Fate, str]:
    """Plant, run, take it out again."""
    file = tree / row.file
    before = file.read_text() if file.is_file() else ""
    try:
        file.write_text(row.planted_in(before))
    except (ValueError, OSError) as error:
        return Fate.UNFIT, str(error)
    try:
        code, said = run_tests(tree, row.tests)
    finally:
        file.write_text(before)
    fate = {_PASSED: Fate.SURVIVED, _FAILED: Fate.KILLED, None: Fate.KILLED}.get(code, Fate.UNFIT)
    return fate, said


def main(arguments: list[str]) -> int:
    """0: every bug was noticed."""
    options = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").split("\n")[0])
    options.add_argument("--only", default="", help="ids (or their beginnings), separated by commas")
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--baseline", action="store_true")
    chosen = options.parse_args(arguments)
    wanted = tuple(filter(None, chosen.only.split(",")))
    rows = [row for row in all_rows() if not wanted or row.id.startswith(wanted)]
    counts: Counter[Fate] = Counter()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(chosen.jobs):
            trees.put(copy_of_the_tree(Path(folder) / str(number)))
        if chosen.baseline:
            code, said = run_tests(Path(folder) / "0", tuple(sorted({test for row in rows for test in row.tests})))
            print(f"without any bug: {said}")
            if code != _PASSED:
                return 1

        def one(row: Planted) -> None:
            tree, began = trees.get(), time.monotonic()
            try:
                fate, said = play(row, tree)
            finally:
                trees.put(tree)
            counts[fate] += 1
            print(
                f"{fate.value:9} {row.id:8} {row.bug[:80]:80} {time.monotonic() - began:5.1f} s  {said[:100]}",
                flush=True,
            )

        with ThreadPoolExecutor(chosen.jobs) as pool:
            list(pool.map(one, rows))
    print(", ".join(f"{counts[fate]} {fate.value}" for fate in Fate))
    return 0 if rows and counts[Fate.KILLED] == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
