"""The trace of a run: one line per happening, stable and diffable; written, read, compared.

    # sim-sled trace 1
    # seed 7
    #| version: 1            the whole scenario, so that a trace alone can be replayed
          0.000000 user    - -         create web-1: 201
          0.003500 sled-2  v1 web-1    propolis creating -> starting
    # end at 93.250000, 412 steps

Read next: play/export.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Final

import attrs

from sim_sled.language.load import TRACE_HEAD

VERSION: Final = 1
LINES_MAX: Final = 2_000_000
"""Lines kept in memory of one run (about 300 MB); beyond, the run ends and says so."""
_HEAD: Final = f"{TRACE_HEAD}{VERSION}"


@attrs.frozen
class Line:
    """One happening. `at_us` counts from the registration of the fleet; `vmm` is its short name, "-" if none."""

    at_us: int
    kind: str
    sled: str
    vmm: str
    hostname: str
    text: str

    def __str__(self) -> str:
        seconds, rest = divmod(self.at_us, 1_000_000)
        who = self.vmm if self.hostname == "-" else f"{self.vmm} {self.hostname}"
        return f"{seconds:>7}.{rest:06d} {self.kind:<9} {self.sled} {who} {self.text}"


@attrs.frozen
class Trace:
    """A whole run: what was played, what happened."""

    seed: int
    scenario: str
    """The scenario as YAML (`printing.print_scenario`)."""
    lines: tuple[str, ...]
    end: str = ""
    variant: str = ""
    marks: tuple[str, ...] = ()
    """`rule NAME FILE:LINE` and `expect N FILE:LINE`: where things stood in the file that was played."""

    sled_variant: str = ""

    def text(self) -> str:
        """The file."""
        head = [_HEAD, f"# seed {self.seed}"]
        if self.variant:
            head.append(f"# variant {self.variant}")
        if self.sled_variant:
            head.append(f"# sled-variant {self.sled_variant}")
        head += [f"# at {mark}" for mark in self.marks]
        head += [f"#| {line}".rstrip() for line in self.scenario.splitlines()]
        return "\n".join([*head, *self.lines, f"# end {self.end}"]) + "\n"


class BadTrace(Exception):
    """The text is no trace of this version."""


def read_trace(text: str) -> Trace:
    """The trace in a file. Raises `BadTrace`."""
    lines = text.splitlines()
    if not lines or lines[0] != _HEAD:
        raise BadTrace(f"this is no trace: it should begin with '{_HEAD}'")
    seed, variant, sled_variant, end = None, "", "", ""
    scenario, events, marks = [], [], []
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("# seed "):
            if not line[7:].isdigit():
                raise BadTrace(f"line {number}: the seed is no number")
            seed = int(line[7:])
        elif line.startswith("# variant "):
            variant = line[10:]
        elif line.startswith("# sled-variant "):
            sled_variant = line[15:]
        elif line.startswith("# at "):
            marks.append(line[5:])
        elif line.startswith("# end "):
            end = line[6:]
        elif line.startswith("#|"):
            scenario.append(line[3:])
        elif not line.startswith("#"):
            events.append(line)
    if seed is None or not scenario:
        raise BadTrace("this trace does not say what was played: its '# seed' or '#|' lines are missing")
    return Trace(seed, "\n".join(scenario) + "\n", tuple(events), end, variant, tuple(marks), sled_variant)


def compare(before: Trace, after: Trace, *, context: int = 3, lines_max: int = 40) -> str:
    """Nothing if both runs are the same; else the first differences, as a diff."""
    if before.lines == after.lines and before.end == after.end:
        return ""
    old, new = [*before.lines, f"# end {before.end}"], [*after.lines, f"# end {after.end}"]
    first = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    # a diff of millions of lines takes for ever, and what matters is where they part
    low, high = max(0, first - context), first + lines_max
    diff = difflib.unified_diff(old[low:high], new[low:high], "recorded", "now", n=context, lineterm="")
    return f"the runs part at line {first + 1}:\n" + "\n".join(list(diff)[: lines_max + 2]) + "\n"


def parse_line(text: str) -> Line:
    """A written line again (without knowing where the host name ends, if there is one)."""
    at, kind, sled, vmm, *rest = text.split(None, 4)
    seconds, _, micro = at.partition(".")
    told = rest[0] if rest else ""
    hostname = "-"
    if vmm != "-":
        hostname, _, told = told.partition(" ")
    return Line(int(seconds) * 1_000_000 + int(micro), kind, sled, vmm, hostname, told)


def summary(lines: Iterable[Line]) -> dict[str, Any]:
    """How many lines of each kind."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line.kind] = counts.get(line.kind, 0) + 1
    return dict(sorted(counts.items()))
