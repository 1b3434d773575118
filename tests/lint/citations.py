"""Citations: which of those of docs/spec name no section or no row there, and which name what is not here at all.

A citation is a short name, a section and perhaps rows: `PR 3.7`, `SA 2.2 step 3`, `NX 7 #8, #9 and #11`. Further
sections of the same page may follow: `NX 4.2, 4.4`, `SA 2.9, 6 #4`, `SA 3.1 to 3.3` (docs/spec/README.md).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

PAGES: Final[Mapping[str, str]] = {
    "DS": "dropshot",
    "LG": "logs",
    "NX": "nexus",
    "PR": "propolis",
    "SA": "sled-agent-api",
    "SR": "sled-agent-rest",
}
"""Short name -> page under docs/spec."""

_ANCHOR = re.compile(r'<a id="([a-z]{2})-([0-9.]+)"></a>')
_HEADING = re.compile(r"#{2,6} (\d+(?:\.\d+)*)\.? ")
_ROW = re.compile(r"(?:\| *(\d+[a-z]?) *\||(\d+)\. )")
_SECTION = r"\d+(?:\.\d+)*"
_ROWS = r"#\d+[a-z]?(?:(?:, | and | to )#\d+[a-z]?)*"
_ONE = rf"{_SECTION}(?: {_ROWS})?"
# A number that is followed by a letter, a percent sign or a unit is not a section: "NX 3.1, 15 s" ends before the 15.
_MORE = rf"(?:(?:, | and | to |; ){_SECTION}(?: {_ROWS})?(?![\w%]| \w))*"
_CITATION = re.compile(rf"\b({'|'.join(PAGES)})\s+({_ONE}{_MORE})")
_PART = re.compile(rf"({_SECTION})(?: ({_ROWS}))?")
_OLD = re.compile(rf"(?<![\w/\[-])({'|'.join(PAGES.values())})\.md\s+(?:§ ?)?\d")
_NOT_HERE = re.compile(r"(?<![\w./-])(product\.md|[iI]ssue \d+)\b")
"""What only those could look up who have built this."""


@attrs.frozen
class Page:
    """One page: its sections, and the numbered rows (of tables and lists) below each section number."""

    sections: frozenset[str]
    rows: frozenset[tuple[str, str]]


def read_page(text: str, short: str) -> tuple[Page, list[str]]:
    """The page, and what is wrong with its own anchors."""
    sections: set[str] = set()
    rows: set[tuple[str, str]] = set()
    wrong: list[str] = []
    here, anchor = "", ""
    for line in text.splitlines():
        if found := _ANCHOR.fullmatch(line):
            anchor = found[2] if found[1] == short.lower() else ""
        elif found := _HEADING.match(line):
            here = found[1]
            if anchor != here:
                wrong.append(f'heading {here} has no anchor <a id="{short.lower()}-{here}"></a> above it')
            if here in sections:
                wrong.append(f"section {here} stands twice")
            sections.add(here)
        elif here and (found := _ROW.match(line)):
            parts = here.split(".")
            rows.update((".".join(parts[: n + 1]), found[1] or found[2]) for n in range(len(parts)))
    return Page(frozenset(sections), frozenset(rows)), wrong


def cited(text: str) -> Iterator[tuple[int, str, str, tuple[str, ...]]]:
    """Position, short name, section and rows of each citation in a text."""
    for found in _CITATION.finditer(text):
        for part in _PART.finditer(found[2]):
            rows = tuple(re.findall(r"#(\d+[a-z]?)", part[2] or ""))
            yield found.start(2) + part.start(), found[1], part[1], rows


def problems_of(name: str, text: str, pages: Mapping[str, Page]) -> list[str]:
    """One line per citation in `text` that does not resolve, and per citation in the old form (by file name)."""
    found: list[tuple[int, str]] = []
    for at, short, section, rows in cited(text):
        page = pages[short]
        if section not in page.sections:
            found.append((at, f"{short} {section}: docs/spec/{PAGES[short]}.md has no such section"))
        found += [
            (at, f"{short} {section} #{row}: no such row there") for row in rows if (section, row) not in page.rows
        ]
    for old in _OLD.finditer(text):
        short = next(key for key, stem in PAGES.items() if stem == old[1])
        found.append((old.start(), f"cite as {short} and the section, not by the page's file name"))
    found += [(one.start(), f"{one[1]} is not in this repository") for one in _NOT_HERE.finditer(text)]
    return [f"{name}:{text.count(chr(10), 0, at) + 1}: {what}" for at, what in sorted(found)]


def problems(root: Path, files: list[str]) -> list[str]:
    """Every problem with citations in `files` (paths below `root`) and with the pages themselves."""
    pages: dict[str, Page] = {}
    found: list[str] = []
    for short, stem in PAGES.items():
        path = f"docs/spec/{stem}.md"
        pages[short], wrong = read_page((root / path).read_text(), short)
        found += [f"{path}: {what}" for what in wrong]
    for name in files:
        found += problems_of(name, (root / name).read_text(), pages)
    return found
