"""The diagrams as Mermaid, drawn from the tables: states (`TRANSITIONS`), and the driver's ways (`WAYS`).

README contains the one, docs/propolis.md the other; a test keeps them equal. `Migrating` is drawn twice, once per
role: the events of `INBOUND` and `OUTBOUND` say which (table.py, rule 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from propolis_stub.driver import WAYS, Doing
from propolis_stub.table import BIRTHS, INBOUND, OUTBOUND, TERMINAL, TRANSITIONS, Birth, Event
from propolis_stub.types import InstanceState

_BIRTH_LABELS: Final = {Birth.SPEC: "ensure Spec, gen 1", Birth.TARGET: "ensure MigrationTarget, gen 1"}


def _name(state: InstanceState, event: Event | None) -> str:
    if state is not InstanceState.MIGRATING:
        return str(state.value)
    return "MigratingOut" if event in OUTBOUND else "MigratingIn"


def states() -> str:
    """`stateDiagram-v2` text, one line per row of the table, in the table's order."""
    assert not INBOUND & OUTBOUND
    lines = [
        "stateDiagram-v2",
        '    state "Migrating (inbound)" as MigratingIn',
        '    state "Migrating (outbound)" as MigratingOut',
    ]
    lines += [f"    [*] --> {_name(state, None)} : {_BIRTH_LABELS[birth]}" for birth, state in BIRTHS.items()]
    lines += [
        f"    {_name(source, event)} --> {_name(target, event)} : {event.value.replace('_', ' ')}"
        for (source, event), target in TRANSITIONS.items()
    ]
    lines += [f"    {state.value} --> [*]" for state in InstanceState if state in TERMINAL]
    return "\n".join(lines) + "\n"


_IDS: Final = {doing: "".join(word.capitalize() for word in doing.name.split("_")) for doing in Doing}


def driver() -> str:
    """`stateDiagram-v2` text of the driver: one line per way, in the table's order."""
    lines = ["stateDiagram-v2", f"    [*] --> {_IDS[Doing.NOTHING]}"]
    lines += [f"    {_IDS[doing]} : {doing.value}" for doing in Doing]
    lines += [f"    {_IDS[source]} --> {_IDS[target]} : {why}" for (source, target), why in WAYS.items()]
    return "\n".join(lines) + "\n"


DRAWINGS: Final[Mapping[str, Callable[[], str]]] = {"states": states, "driver": driver}


def block(name: str) -> str:
    """A diagram as it stands in a Markdown file, markers included."""
    return f"{_begin(name)}\n```mermaid\n{DRAWINGS[name]()}```\n{_end(name)}"


def _begin(name: str) -> str:
    return f"<!-- {name} -->"


def _end(name: str) -> str:
    return f"<!-- /{name} -->"


def refreshed(text: str) -> str:
    """`text` with its blocks replaced. Raises `ValueError` if there are none, or markers are missing or doubled."""
    found = [name for name in DRAWINGS if _begin(name) in text or _end(name) in text]
    if not found:
        raise ValueError(f"expected one of {', '.join(map(_begin, DRAWINGS))}, and its end after it")
    for name in found:
        begin, end = _begin(name), _end(name)
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f"expected exactly one {begin} and, after it, one {end}")
        head, rest = text.split(begin)
        text = head + block(name) + rest.split(end)[1]
    return text


def write(path: Path) -> bool:
    """Refreshes the blocks of the file at `path`; says whether it had to change."""
    old = path.read_text(encoding="utf-8")
    new = refreshed(old)
    if new != old:
        path.write_text(new, encoding="utf-8")
    return new != old
