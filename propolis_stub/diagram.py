"""The state diagram as Mermaid, drawn from `TRANSITIONS` (house.md 3.3). README contains it; a test keeps them equal.

`Migrating` is drawn twice, once per role: the events of `INBOUND` and `OUTBOUND` say which (table.py, rule 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from propolis_stub.table import BIRTHS, INBOUND, OUTBOUND, TERMINAL, TRANSITIONS, Birth, Event
from propolis_stub.types import InstanceState

BEGIN: Final = "<!-- states -->"
END: Final = "<!-- /states -->"

_BIRTH_LABELS: Final = {Birth.SPEC: "ensure Spec, gen 1", Birth.TARGET: "ensure MigrationTarget, gen 1"}


def _name(state: InstanceState, event: Event | None) -> str:
    if state is not InstanceState.MIGRATING:
        return str(state.value)
    return "MigratingOut" if event in OUTBOUND else "MigratingIn"


def mermaid() -> str:
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


def block() -> str:
    """The diagram as it stands in a Markdown file, markers included."""
    return f"{BEGIN}\n```mermaid\n{mermaid()}```\n{END}"


def refreshed(text: str) -> str:
    """`text` with its block replaced. Raises `ValueError` if the markers are missing or doubled."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"expected exactly one {BEGIN} and, after it, one {END}")
    head, rest = text.split(BEGIN)
    return head + block() + rest.split(END)[1]


def write(path: Path) -> bool:
    """Refreshes the block of the file at `path`; says whether it had to change."""
    old = path.read_text(encoding="utf-8")
    new = refreshed(old)
    if new != old:
        path.write_text(new, encoding="utf-8")
    return new != old
