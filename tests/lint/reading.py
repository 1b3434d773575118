"""The reading order, `Read before: a.py. Read next: b.py.` at the end of a docstring, and whether it holds together.

A name is a path below the module's own package (`core/vmm.py`, `stub/sagas/update.py`), or below the repository for
a module of another package (`propolis_stub/vm.py`). Whoever says "next" is named "before" there, and the other way
round; nobody stands before itself by any way around. The fixer (`python -m tests.lint --fix`) adds the missing half
of a pair.
"""

import ast
import re
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import attrs

PACKAGES: Final = ("nexus_client", "propolis_stub", "sim_sled")
WIDTH: Final = 118  # columns: what the fixer writes stays inside ruff's line length
_NAME = r"[\w/]+\.py"
_LIST = rf"{_NAME}(?:,\s+{_NAME})*"
_LINE = re.compile(rf"(?:Read before:\s+(?P<before>{_LIST})\.)?(?:\s*Read next:\s+(?P<next>{_LIST})\.)?")
_DOCSTRING = re.compile(r'(?:\s|#[^\n]*\n)*[rR]?""".*?"""', re.DOTALL)
"""Of a module, as ruff has it: to parse all of the module for it takes a hundred times as long."""
_START = re.compile(r"Read (?:before|next):\s")


@attrs.frozen
class Place:
    """What one module says: the modules before and next, as it spells them; `span` is where in the file."""

    before: tuple[str, ...]
    next: tuple[str, ...]
    span: tuple[int, int]


def place_of(source: str) -> Place | None:
    """What a module's docstring says of its place. None: nothing. Raises ValueError for what cannot be read."""
    doc = _DOCSTRING.match(source)
    if doc is None or not (start := _START.search(source, 0, doc.end())):
        return None
    line = _LINE.match(source, start.start())
    if line is None or line.end() == start.start():
        raise ValueError("the line on the reading order cannot be read: `Read before: a.py, b.py. Read next: c.py.`")
    names = {side: tuple(re.findall(_NAME, line[side] or "")) for side in ("before", "next")}
    return Place(names["before"], names["next"], line.span())


def spelled(target: str, reader: str) -> str:
    """How `reader` names `target` (both paths below the repository)."""
    package = reader.split("/", 1)[0] + "/"
    return target.removeprefix(package)


def resolve(name: str, reader: str, modules: Mapping[str, object]) -> str | None:
    """The path that a name means where `reader` says it. None: there is no such module."""
    package = reader.split("/", 1)[0]
    return next((path for path in (f"{package}/{name}", name) if path in modules), None)


def _circle(nexts: Mapping[str, set[str]]) -> list[str]:
    """Some way from a module back to itself; empty: there is none."""
    done: set[str] = set()
    for first in sorted(nexts):
        way: list[str] = []
        stack = [(first, iter(sorted(nexts[first])))]
        on_way = {first}
        while stack:
            module, rest = stack[-1]
            step = next(rest, None)
            if step is None:
                done.add(module)
                on_way.discard(module)
                stack.pop()
            elif step in on_way:
                way = [place for place, _ in stack]
                return [*way[way.index(step) :], step]
            elif step not in done:
                on_way.add(step)
                stack.append((step, iter(sorted(nexts.get(step, ())))))
    return []


@attrs.frozen
class Order:
    """The whole reading order: per module, who is before and who is next (paths), and what is wrong."""

    before: Mapping[str, set[str]]
    next: Mapping[str, set[str]]
    problems: tuple[str, ...]


def order_of(sources: Mapping[str, str]) -> Order:
    """`sources`: text by path. Names are resolved, pairs are matched, circles are looked for."""
    before: dict[str, set[str]] = {path: set() for path in sources}
    nexts: dict[str, set[str]] = {path: set() for path in sources}
    wrong: list[str] = []
    for path, source in sources.items():
        try:
            place = place_of(source)
        except ValueError as error:
            wrong.append(f"{path}: {error}")
            continue
        for side, names in (("before", place.before), ("next", place.next)) if place else ():
            for name in names:
                target = resolve(name, path, sources)
                if target is None or target == path:
                    wrong.append(
                        f"{path}: Read {side}: {name} is no other module (a path below its package is meant)"
                    )
                else:
                    (before if side == "before" else nexts)[path].add(target)
    for path in sources:
        wrong += [
            f"{path} says `Read next: {spelled(to, path)}`, which does not name it before"
            for to in sorted(nexts[path])
            if path not in before[to]
        ]
        wrong += [
            f"{path} says `Read before: {spelled(to, path)}`, which does not name it next"
            for to in sorted(before[path])
            if path not in nexts[to]
        ]
    merged = {path: nexts[path] | {to for to in sources if path in before[to]} for path in sources}
    if circle := _circle(merged):
        wrong.append("the reading order goes in a circle: " + " -> ".join(circle))
    return Order(before, nexts, tuple(wrong))


def sources_of(root: Path, files: list[str]) -> dict[str, str]:
    """The modules of the three packages."""
    return {
        name: (root / name).read_text()
        for name in files
        if name.endswith(".py") and name.split("/", 1)[0] in PACKAGES
    }


def _said(before: list[str], after: list[str]) -> str:
    parts = [f"Read {side}: {', '.join(names)}." for side, names in (("before", before), ("next", after)) if names]
    joined = " ".join(parts)
    return joined if len(joined) <= WIDTH else "\n".join(textwrap.fill(part, WIDTH) for part in parts)


def _readable(source: str) -> Place | None:
    """`place_of` for the fixer: what cannot be read is reported, not mended."""
    try:
        return place_of(source)
    except ValueError:
        return None


def _meant(found: re.Match[str], *, reader: str, sources: Mapping[str, str]) -> str:
    """A name as it should be spelled, where a neighbour or the only module of that name is meant."""
    name = found[0]
    if resolve(name, reader, sources) is not None:
        return name
    neighbour = f"{reader.rsplit('/', 1)[0]}/{name}"
    alike = [path for path in sources if path.endswith("/" + name)]
    target = neighbour if neighbour in sources else alike[0] if len(alike) == 1 else name
    return spelled(target, reader)


def fixed(sources: Mapping[str, str]) -> dict[str, str]:
    """New texts of the modules whose line has to change so that every pair is named on both sides, by path."""
    changed: dict[str, str] = {}
    for path, source in sources.items():
        if place := _readable(source):
            line = source[slice(*place.span)]
            meant = re.sub(_NAME, partial(_meant, reader=path, sources=sources), line)
            if meant != line:
                changed[path] = source[: place.span[0]] + meant + source[place.span[1] :]
    sources = {**sources, **changed}
    order = order_of(sources)
    for path, source in sources.items():
        place = _readable(source)
        before = order.before[path] | {other for other in sources if path in order.next[other]}
        after = order.next[path] | {other for other in sources if path in order.before[other]}
        said = _said(sorted(spelled(p, path) for p in before), sorted(spelled(p, path) for p in after))
        if place is None and said and not _START.search(source):
            doc = ast.get_docstring(ast.parse(source), clean=False)
            if doc is None:
                continue
            end = source.find(doc) + len(doc)
            text = source[:end].rstrip() + "\n\n" + said + "\n" + source[end:]
        elif place is not None:
            if set(place.before) == {spelled(p, path) for p in before} and set(place.next) == {
                spelled(p, path) for p in after
            }:
                continue
            ahead, behind = source[: place.span[0]], source[place.span[1] :]
            if not ahead.endswith("\n"):  # it gets a line of its own
                ahead = ahead.rstrip() + "\n\n"
                behind = "\n" + behind if behind.startswith('"') else behind
            text = ahead + said + behind
        else:
            continue
        if text != source:
            changed[path] = text
    return changed
