"""What is said of scenarios without playing any: nothing of the worlds they are played in is imported.

Read before: language/check.py, language/worlds.py. Read next: cli/scenario_commands.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from sim_sled.language import worlds
from sim_sled.play import library

EXIT_GOOD: Final = 0
EXIT_BAD_INPUT: Final = 2


def check_files(paths: Sequence[str], *, as_json: bool = False, files_from: Sequence[Path] = ()) -> tuple[str, int]:
    """Validates only: every problem of every file, what means something else in another world, then the count; 2 if
    there is an error.
    """
    loaded, problems = library.load(paths, files_from)
    code = EXIT_BAD_INPUT if problems.errors else EXIT_GOOD
    if not as_json:
        told = [note for one in loaded if one.scenario is not None for note in worlds.notes(one.scenario)]
        return "".join(f"{note}\n" for note in told) + problems.text(), code
    found = [
        {"file": p.mark.file, "line": p.line, "col": p.col, "code": p.code, "message": p.text}
        for p in sorted(problems.found)
    ]
    files = [
        {
            "file": one.shown,
            "valid": one.scenario is not None,
            "notes": [] if one.scenario is None else worlds.notes(one.scenario),
        }
        for one in loaded
    ]
    document = {"files": files, "errors": problems.errors, "warnings": problems.warnings, "problems": found}
    return json.dumps(document, indent=1) + "\n", code


def list_text(folder: Path | None = None, *, as_json: bool = False) -> str:
    """The library as a table, or as JSON."""
    listed = library.listed(folder)
    if as_json:
        return json.dumps([attrs.asdict(one) for one in listed], indent=1) + "\n"
    width = max((len(one.name) for one in listed), default=0)
    return "".join(f"{one.name:{width}}  {one.about}\n" for one in listed)
