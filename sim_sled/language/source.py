"""Where things stand in a file, and how problems are told: `file:line:col: Ennn text`, the line, a caret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import msgspec

from nexus_client.dropshot.text import shown
from sim_sled.language.codes import CODES

PROBLEMS_MAX: Final = 1_000
"""Told of one check; a person reads a few, a hostile file must not print megabytes."""
LINE_MAX: Final = 160
"""Columns of a source line that are shown around the caret."""


class Mark(msgspec.Struct, frozen=True):
    """A stretch of one line; lines and columns count from 1. Line 0: `file` is no file, but says where it is from."""

    file: str = "-"
    line: int = 0
    col: int = 0
    width: int = 1

    def __str__(self) -> str:
        # without folders: traces must not depend on where one stands
        return f"{self.file.rpartition('/')[2]}:{self.line}" if self.line else self.file


NOWHERE: Final = Mark()


@attrs.frozen(order=True)
class Problem:
    """One finding. `code` starts with E (error) or W (warning)."""

    file_index: int
    line: int
    col: int
    code: str
    text: str
    mark: Mark = attrs.field(order=False)


@attrs.define(eq=False)
class Problems:
    """Collects findings of all files; `text()` tells them in the order of the files."""

    sources: dict[str, Sequence[str]] = attrs.field(factory=dict)
    found: list[Problem] = attrs.field(factory=list)

    def add(self, code: str, mark: Mark, text: str) -> None:
        assert code in CODES, code
        if mark.file not in self.sources:
            self.sources[mark.file] = ()
        index = list(self.sources).index(mark.file)
        problem = Problem(index, mark.line, mark.col, code, text, mark)
        if not self.full and problem not in self.found[-20:]:
            self.found.append(problem)

    @property
    def full(self) -> bool:
        """Nothing more is shown, so nobody has to think of its words."""
        return len(self.found) > PROBLEMS_MAX

    @property
    def errors(self) -> int:
        return sum(p.code.startswith("E") for p in self.found)

    @property
    def warnings(self) -> int:
        return sum(p.code.startswith("W") for p in self.found)

    def text(self) -> str:
        parts = [told(p, self.sources) for p in sorted(self.found)[:PROBLEMS_MAX]]
        if len(self.found) > PROBLEMS_MAX:
            parts.append(f"(only the first {PROBLEMS_MAX} problems are shown)\n")
        return "".join(parts) + f"{_count(self.errors, 'error')}, {_count(self.warnings, 'warning')}\n"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def told(problem: Problem, sources: Mapping[str, Sequence[str]]) -> str:
    """The lines of SC 7: position, code and text; then the source line with a caret where there is one."""
    mark = problem.mark
    if mark.line == 0:
        return f"{shown(mark.file)}: {problem.code} {shown(problem.text)}\n"
    head = f"{shown(mark.file)}:{mark.line}:{mark.col}: {problem.code} {shown(problem.text)}\n"
    lines = sources.get(mark.file, ())
    if not 0 < mark.line <= len(lines):
        return head
    line = lines[mark.line - 1]
    skipped = max(0, mark.col - LINE_MAX // 2) if len(line) > LINE_MAX else 0
    # cut first: a line may be as long as its file, and each of its problems shows a piece of it
    part = "".join(c if c.isprintable() else " " for c in line[skipped : skipped + LINE_MAX])
    at = mark.col - 1 - skipped
    carets = "^" * max(1, min(mark.width, len(part) - at))
    return f"{head}{mark.line:5} | {part}\n      | {' ' * at}{carets}\n"
