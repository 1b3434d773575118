"""What was measured, kept as data, and the table of `docs/performance.md` that is made of it: no figure is typed.

    python -m tests.bench --only gh --json rows.json
    python -m tests.bench.performance rows.json          keep these rows, write the table anew

A bench (a letter) that was measured again replaces what was kept of it, whoever measured which: each says by itself
with which command, at which commit, on which machine and under which load.
"""

import argparse
import json
from pathlib import Path

_DOCS = Path(__file__).resolve().parents[2] / "docs"
KEPT = _DOCS / "performance.json"
PAGE = _DOCS / "performance.md"
BEGIN, END = "<!-- rows: by tests/bench/performance.py -->", "<!-- end of rows -->"


def figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def merged(kept: dict[str, dict], told: dict[str, dict]) -> dict[str, dict]:
    """By letter, in the order of the letters."""
    return {letter: (kept | told)[letter] for letter in sorted(kept | told)}


def table(benches: dict[str, dict]) -> str:
    lines = ["| row | ours | floor | unit | ratio | by CPU | aim |", "|---|---|---|---|---|---|---|"]
    for letter, bench in benches.items():
        for row in bench["rows"]:
            name = row["name"].strip()
            name = name if name.startswith("(") else f"({letter}) {name}"
            by_cpu = "-" if row["cpu_ratio"] is None else f"{row['cpu_ratio']:.2f}"
            lines.append(
                f"| {name} | {figure(row['ours'])} | {figure(row['floor'])} | {row['unit']} "
                f"| {row['ratio']:.2f} | {by_cpu} | {row['verdict']} |"
            )
    lines += ["", "| bench | measured | commit | load before, after | command |", "|---|---|---|---|---|"]
    for letter, bench in benches.items():
        load = ", ".join(f"{one:.1f}" for one in bench["load"])
        lines.append(f"| ({letter}) | {bench['at']} | {bench['commit'][:7]} | {load} | `{bench['command']}` |")
    machines = dict.fromkeys(bench["machine"] for bench in benches.values())
    return "\n".join([*lines, "", *(f"{machine}." for machine in machines)])


def page(text: str, benches: dict[str, dict]) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(benches)}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description="keep what was measured, and write the table")
    parser.add_argument("files", nargs="*", type=Path, help="what `python -m tests.bench --json` wrote")
    files = parser.parse_args().files
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for file in files:
        kept = merged(kept, json.loads(file.read_text()))
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), kept))


if __name__ == "__main__":
    main()
