"""Files that our texts name and that are not there: paths in backticks, files that links lead to, modules in code.

A path in backticks is held to be one of the repository if it begins with a folder of ours and ends like a file
(`nexus_client/outbox.py`) or in a slash. Pages name files of a package below it, too (`daemon/control.py`): in a page
that has a home in `ROOTS`, a path may begin in any of them. Patterns (`*.yaml`, `{a,b}.py`, `NAME.py`) name no file.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

ROOTS: Final = ("", "sim_sled/", "nexus_client/", "propolis_stub/", "nexus_client/stub/", "propolis_stub/server/")
"""Where a path that is named may begin, in this order."""
TEXTS: Final = (".md",)
ELSEWHERE: Final = ("docs/spec/",)
"""Pages about other people's code, which name that code's files."""

_TICKED = re.compile(r"`([^`\s]+)`")
_PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/(?:[\w-]+\.(?:py|md|yaml|yml|toml|json|jsonl|trace|service|gz))?")
_MODULE = re.compile(r"(?<![\w/.-])((?:[a-z_]+/)*[a-z_0-9]+\.py)\b")
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")


def named(text: str) -> Iterator[tuple[int, str]]:
    """Position and path of each path in backticks."""
    for found in _TICKED.finditer(text):
        if _PATH.fullmatch(found[1]) and not re.search(r"\b[A-Z]{2,}\b", found[1]):
            yield found.start(), found[1]


def problems_of(name: str, text: str, root: Path, tops: frozenset[str]) -> list[str]:
    """One line per path of `text` (the file `name` below `root`) that leads nowhere. `tops`: folders at the top."""
    found: list[tuple[int, str]] = []
    for at, path in named(text):
        first = PurePosixPath(path).parts[0]
        starts = [each for each in ROOTS if each == "" or (root / each / first).exists()]
        if first not in tops and len(starts) == 1:
            continue  # nothing of ours is called so
        if not any((root / each / path).exists() for each in ROOTS):
            found.append((at, f"`{path}` is not there"))
    for link in _LINK.finditer(text):
        if "://" not in link[1] and not link[1].startswith("mailto:"):
            target = (root / name).parent / link[1]
            if not target.exists():
                found.append((link.start(), f"the link to {link[1]} leads nowhere"))
    return [f"{name}:{text.count(chr(10), 0, at) + 1}: {what}" for at, what in sorted(found)]


def modules_of(name: str, text: str, files: list[str]) -> list[str]:
    """One line per file of Python that the code `name` speaks of and that is not there, wherever its path begins."""
    wholes = {f"/{each}" for each in files}
    return [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found[1]} is not there"
        for found in _MODULE.finditer(text)
        if not any(each.endswith(f"/{found[1]}") for each in wholes)
    ]


def problems(root: Path, files: list[str]) -> list[str]:
    """Every such problem in the pages among `files`, and in the code of the packages."""
    code = [name for name in files if name.endswith(".py") and name.startswith(ROOTS[1:4])]
    wrong = [line for name in code for line in modules_of(name, (root / name).read_text(), files)]
    tops = frozenset(each.name for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    return wrong + [
        line
        for name in files
        if name.endswith(TEXTS) and not name.startswith(ELSEWHERE)
        for line in problems_of(name, (root / name).read_text(), root, tops)
    ]
