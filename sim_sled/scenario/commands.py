"""What the command line calls: plain functions from files to text and an exit code. No wiring, no colours.

Exit codes (product.md 5): 0 good, 1 an expectation or invariant failed, 2 bad input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

from sim_sled.scenario.check import load_scenarios
from sim_sled.scenario.reference import reference_md, schema_json

__all__ = ["check_files", "list_scenarios", "reference_md", "scenario_folder", "schema_json"]

EXIT_GOOD: Final = 0
EXIT_FAILED: Final = 1
EXIT_BAD_INPUT: Final = 2


def check_files(paths: Sequence[str], *, as_json: bool = False) -> tuple[str, int]:
    """Validates only: every problem of every file, then the count; 2 if there is an error."""
    loaded, problems = load_scenarios(paths)
    code = EXIT_BAD_INPUT if problems.errors else EXIT_GOOD
    if not as_json:
        return problems.text(), code
    found = [
        {"file": p.mark.file, "line": p.line, "col": p.col, "code": p.code, "message": p.text}
        for p in sorted(problems.found)
    ]
    files = [{"file": one.shown, "valid": one.scenario is not None} for one in loaded]
    document = {"files": files, "errors": problems.errors, "warnings": problems.warnings, "problems": found}
    return json.dumps(document, indent=1) + "\n", code


def scenario_folder() -> Path:
    """The library: `scenarios/` of the checkout, or of the folder one stands in."""
    beside = Path(__file__).resolve().parents[2] / "scenarios"
    return beside if beside.is_dir() else Path("scenarios")


@attrs.frozen
class Listed:
    """One scenario of the library."""

    name: str
    file: str
    about: str
    issues: tuple[str, ...]


def list_scenarios(folder: Path | None = None) -> list[Listed]:
    """Name, file and opening comment (the incident) of every scenario in a folder, sorted."""
    return [_listed(path) for path in sorted((folder or scenario_folder()).glob("*.yaml"))]


def _listed(path: Path) -> Listed:
    comment = _opening_comment(path.read_text().splitlines())
    words = comment.replace(",", " ").replace(".", " ").replace("(", " ").replace(")", " ").split()
    issues = tuple(dict.fromkeys(w.strip(";:") for w in words if w.startswith(("omicron#", "propolis#"))))
    return Listed(path.stem, str(path), comment, issues)


def _opening_comment(lines: Iterable[str]) -> str:
    said = []
    for line in lines:
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# ").rstrip())
    return " ".join(said)


def list_text(folder: Path | None = None, *, as_json: bool = False) -> str:
    """The library as a table, or as JSON."""
    listed = list_scenarios(folder)
    if as_json:
        return json.dumps([attrs.asdict(one) for one in listed], indent=1) + "\n"
    width = max((len(one.name) for one in listed), default=0)
    return "".join(f"{one.name:{width}}  {one.about}\n" for one in listed)
