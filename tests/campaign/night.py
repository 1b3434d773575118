"""The campaign of a night: every scenario of the library with many seeds, resumed where it stood, and what it found.

    python -m tests.campaign.night [--runs 100000] [--jobs 1] [--into night] [--only NAME,...]

Each scenario has its file of results in the folder, each group of failures its own below `found/`. A table for
docs/campaigns.md comes at the end, with date, commit and machine.
"""

import argparse
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

from sim_sled.cli.exploring import ExploreOptions, explore_file, figures
from sim_sled.play import library

ROOT = Path(__file__).parents[2]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--into", type=Path, default=Path("night"))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    options.into.mkdir(parents=True, exist_ok=True)
    names = [name for name in options.only.split(",") if name] or library.names()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    today = datetime.now(UTC).date()
    print(
        f"{today}, commit {commit or 'unknown'}, {machine}\n\n| scenario | campaign | seconds |\n|---|---|---|",
        flush=True,
    )
    failed = False
    for name in names:
        started = time.perf_counter()
        explored, outcome = explore_file(
            name,
            ExploreOptions(
                runs=options.runs,
                jobs=options.jobs,
                stop_after=None,
                results=options.into / f"{name}.jsonl",
                resume=True,
                shrink=True,
                found=options.into / "found" / name,
            ),
        )
        told = outcome.err.strip() if explored is None else figures(explored)
        print(f"| {name} | {told} | {time.perf_counter() - started:.0f} |", flush=True)
        failed |= outcome.code != 0
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
