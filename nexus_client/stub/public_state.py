"""What a user of the public API sees of an instance: the table of NX 2, one column per rule set.

The *target* VMM's state never matters, and neither does a target id alone. `stopped` and `failed` may be shown only
when a
start can proceed, and that needs the old VMM to be unlinked; hence the many `stopping` of the later rule sets.

Read before: stub/records.py. Read next: stub/actions.py, stub/server/control_answers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.stub.records import InstanceDbState as I
from nexus_client.stub.records import VmmDbState as V
from nexus_client.stub.rules import RuleSet


class PublicState(IdentityEnum):
    """`InstanceState` of the external API (NX 1.1)."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REBOOTING = "rebooting"
    MIGRATING = "migrating"
    REPAIRING = "repairing"
    """Never produced; PR and NX know no way to it."""
    FAILED = "failed"
    DESTROYED = "destroyed"


class ImpossibleRecord(AssertionError):
    """A cell marked n/a in NX 2: this rule set has no such VMM state."""


P = PublicState

_OWN: Final = {
    V.STARTING: P.STARTING,
    V.RUNNING: P.RUNNING,
    V.STOPPING: P.STOPPING,
    V.REBOOTING: P.REBOOTING,
    V.MIGRATING: P.MIGRATING,
}
"""Rows 3, 4, 5, 7, 8: the same in every rule set."""

_BY_ACTIVE_VMM: Final[dict[RuleSet, Mapping[V, P | None]]] = {
    # rows 2, 6, 9, 10, 11; None: this rule set has no such VMM state
    RuleSet.R5854: _OWN
    | {V.CREATING: None, V.STOPPED: P.STOPPED, V.DESTROYED: P.DESTROYED, V.FAILED: P.FAILED, V.SAGA_UNWOUND: None},
    RuleSet.R5855: _OWN
    | {V.CREATING: None, V.STOPPED: P.STOPPED, V.DESTROYED: P.DESTROYED, V.FAILED: P.FAILED}
    | {V.SAGA_UNWOUND: P.STOPPED},
    RuleSet.R5749: _OWN
    | {V.CREATING: None, V.STOPPED: P.STOPPING, V.DESTROYED: P.STOPPING, V.FAILED: P.FAILED}
    | {V.SAGA_UNWOUND: P.STOPPED},
    RuleSet.R6455: _OWN
    | {V.CREATING: P.STARTING, V.STOPPED: P.STOPPING, V.DESTROYED: P.STOPPING, V.FAILED: P.STOPPING}
    | {V.SAGA_UNWOUND: P.STOPPED},
    RuleSet.HEAD: _OWN
    | {V.CREATING: P.STARTING, V.STOPPED: P.STOPPING, V.DESTROYED: P.STOPPING, V.FAILED: P.STOPPING}
    | {V.SAGA_UNWOUND: P.FAILED},
}
BY_ACTIVE_VMM: Final[Mapping[RuleSet, Mapping[V, P | None]]] = _BY_ACTIVE_VMM | {
    RuleSet.R11294: _BY_ACTIVE_VMM[RuleSet.HEAD]
}
"""`#11294` shows what HEAD shows."""

MIGRATION_HIDES_VMM: Final = frozenset({RuleSet.R5749, RuleSet.R6455, RuleSet.HEAD, RuleSet.R11294})
"""Row 1: hides the gap between "source VMM destroyed" and "record points to the target"."""

WITHOUT_VMM: Final[Mapping[RuleSet, P]] = {
    # row 12, impossible by the constraint on the record
    RuleSet.R5854: P.RUNNING,
    RuleSet.R5855: P.RUNNING,
    RuleSet.R5749: P.RUNNING,
    RuleSet.R6455: P.RUNNING,
    RuleSet.HEAD: P.STOPPED,
    RuleSet.R11294: P.STOPPED,
}

BY_RECORD: Final[Mapping[I, P]] = {
    # rows 13 to 16
    I.NO_VMM: P.STOPPED,
    I.CREATING: P.CREATING,
    I.FAILED: P.FAILED,
    I.DESTROYED: P.DESTROYED,
}


def public_state(rules: RuleSet, state: I, active: V | None, *, migrating: bool) -> PublicState:
    """The public state; `active` is the state of the active VMM's undeleted record, `migrating`: the migration id
    is set.
    """
    by_record = BY_RECORD.get(state)  # of every state but `VMM`
    if by_record is not None:
        return by_record
    if active is None:
        return WITHOUT_VMM[rules]
    if migrating and rules in MIGRATION_HIDES_VMM:
        return P.MIGRATING
    shown = BY_ACTIVE_VMM[rules][active]
    if shown is None:
        raise ImpossibleRecord(f"rule set {rules.value} has no VMM state {active.value}")
    return shown
