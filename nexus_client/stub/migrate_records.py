"""The data migration of schema 70.0.0: rows of the old shared state enum to the new ones (NX 1.4).

Input and output are JSON: `{"instances": [{"id", "state", "active_propolis_id"}, …], "vmms": [{"id", "state"}, …]}`;
other fields are passed through. What the original's later steps would fail on is reported, all of it at once, and
nothing is written then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import attrs
import msgspec

from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import InstanceDbState

OLD_STATES: Final = frozenset(state.value for state in PublicState)
"""The one enum which instances and VMMs shared before #5854; users still read it (NX 1.1)."""

NEW_VMM_STATES: Final = OLD_STATES - {"creating", "repairing"}
"""What the text of an old VMM state can be cast to; the other two were never used."""

_KEPT: Final[Mapping[str, InstanceDbState]] = {
    "creating": InstanceDbState.CREATING,
    "failed": InstanceDbState.FAILED,
    "destroyed": InstanceDbState.DESTROYED,
}
_NEW: Final = frozenset({"no_vmm", "vmm"})
"""Each step is idempotent: rows which have been migrated already stay as they are."""

Json = dict[str, Any]


class MigrationError(ValueError):
    """`problems`: one line for each row that cannot be migrated."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@attrs.frozen
class _Rows:
    instances: Annotated[list[Json], msgspec.Meta(max_length=1_000_000)] = attrs.field(factory=list)
    vmms: Annotated[list[Json], msgspec.Meta(max_length=1_000_000)] = attrs.field(factory=list)


_DECODER: Final = msgspec.json.Decoder(_Rows)


def new_instance_state(old: str, *, has_vmm: bool) -> InstanceDbState:
    """The table of NX 1.4, top to bottom. Raises ValueError for no state of either enum."""
    if old in _NEW:
        return InstanceDbState(old)
    if old not in OLD_STATES:
        raise ValueError(f"{old!r} is no state of an instance")
    return _KEPT.get(old) or (InstanceDbState.VMM if has_vmm else InstanceDbState.NO_VMM)


def migrate(raw: bytes) -> bytes:
    """The migrated rows, as JSON in the order of the input. Raises `MigrationError` if any row cannot be."""
    try:
        rows = _DECODER.decode(raw)
    except msgspec.DecodeError as error:
        raise MigrationError([str(error)]) from None
    problems: list[str] = []
    instances = [_instance(row, number, problems) for number, row in enumerate(rows.instances)]
    for number, row in enumerate(rows.vmms):
        state = row.get("state")
        if state not in NEW_VMM_STATES:
            problems.append(f"vmms[{number}] {row.get('id')}: {state!r} cannot be cast to a VMM state")
    if problems:
        raise MigrationError(problems)
    return msgspec.json.encode({"instances": instances, "vmms": rows.vmms})


def _instance(row: Json, number: int, problems: list[str]) -> Json:
    where = f"instances[{number}] {row.get('id')}"
    has_vmm = row.get("active_propolis_id") is not None
    try:
        state = new_instance_state(str(row.get("state")), has_vmm=has_vmm)
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return row
    if (state is InstanceDbState.VMM) != has_vmm:
        # the last step adds the check, and it fails
        problems.append(f"{where}: state {state.value} breaks vmm_iff_active_propolis")
    return row | {"state": state.value}
