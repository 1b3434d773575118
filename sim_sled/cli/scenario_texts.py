"""What is said of scenarios without playing any: nothing of the worlds they are played in is imported.

Read before: language/check.py, language/worlds.py. Read next: cli/scenario_commands.py.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from nexus_client.dropshot.command_line import BAD_INPUT, GOOD
from sim_sled.language import worlds
from sim_sled.play import library


def check_files(paths: Sequence[str], *, as_json: bool = False, files_from: Sequence[Path] = ()) -> tuple[str, int]:
    """Validates only: every problem of every file, what means something else in another world, then the count; 2 if
    there is an error.
    """
    loaded, problems = library.load(paths, files_from)
    code = BAD_INPUT if problems.errors else GOOD
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


def list_text(
    folder: Path | None = None, *, as_json: bool = False, width: int | None = None, long: bool = False
) -> str:
    """The library as JSON, as a table of the terminal's `width`, or (None: a pipe) a line each, tabs between. In the
    table stands the first sentence of each, unless it shall be `long`.
    """
    listed = library.listed(folder)
    if as_json:
        return json.dumps([attrs.asdict(one) for one in listed], indent=1) + "\n"
    if width is None:
        return "".join(f"{one.name}\t{one.about}\n" for one in listed)
    names = max((len(one.name) for one in listed), default=0) + 2
    lines = [
        line
        for one in listed
        for line in textwrap.wrap(
            f"{one.name:{names}}{one.about if long else first_sentence(one.about)}", max(width, names + 20),
            subsequent_indent=" " * names, break_long_words=False, break_on_hyphens=False, drop_whitespace=True,
        )
    ]  # fmt: skip
    return "".join(f"{line}\n" for line in lines)


_HEAD: Final = 40
"""Letters before a colon from which on they say something by themselves."""


def first_sentence(about: str) -> str:
    """Up to the first stop behind which more is said; what is in brackets stays whole."""
    depth = 0
    for i, letter in enumerate(about):
        depth += (letter == "(") - (letter == ")")
        if depth == 0 and about[i + 1 : i + 2] == " " and (letter in ".;" or (letter == ":" and i > _HEAD)):
            return about[:i] + "."
    return about
