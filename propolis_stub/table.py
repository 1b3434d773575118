"""The machine of one VM as a table: which event leads from which state to which (PR 1.1).

Theory
------
A VM's *published* state moves only by the rows below, and each move is one publication (generation + 1).

Rule 1: whatever changes or re-publishes a Propolis state is a row here; only `machine.fire` moves it.
Rule 2: a VM is born by `BIRTHS` (ensure), never by a row. `Repairing` has no row: it cannot be entered or left.
Rule 3: `Migrating` is one state of two roles. The role of a VM follows from its birth (a target is inbound until it
        runs) or from `MIGRATION_OUT_BEGUN`; events of the other role are never fired by the driver, and `INBOUND`
        and `OUTBOUND` name them for the diagram and for the invariant that watches all publications.
Rule 4: a start that failed, an aborted start and a migrated VM are told apart by the event that ends the rundown.

When a row changes, check again: the diagram in README (`propolis-stub diagram --write README.md`), the test of the
full (state, event) table, `vm.py` (who fires it), and `sim_sled`'s resting states.

Read before: errors.py, types.py. Read next: machine.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from nexus_client.dropshot.identity import IdentityEnum
from propolis_stub.types import InstanceState as S


class Event(IdentityEnum):
    """What drives a row: things that happened, not requests."""

    START_BEGUN = "start_begun"  # the driver popped an explicit start
    STARTED = "started"  # all backends up, vCPUs resumed
    START_ABORTED = "start_aborted"  # a stop was popped while backends were pending
    START_FAILED = "start_failed"  # told when the rundown is over (PR 3.2)
    CREATE_FAILED = "create_failed"  # the VM's objects could not be built
    HALT_BEGUN = "halt_begun"  # stop, or the guest halted
    HALTED = "halted"
    RUN_DOWN = "run_down"  # the VM's objects are released
    REBOOT_BEGUN = "reboot_begun"
    REBOOTED = "rebooted"
    NEGOTIATION_FAILED = "negotiation_failed"  # migration out failed before any phase: re-published with out=Error
    MIGRATION_OUT_BEGUN = "migration_out_begun"
    OUT_PHASE = "out_phase"
    MIGRATION_OUT_FAILED = "migration_out_failed"
    MIGRATED_OUT = "migrated_out"
    IN_PHASE = "in_phase"
    MIGRATION_IN_FAILED = "migration_in_failed"  # connect, negotiate, sync, objects or import
    AUTO_STARTED = "auto_started"
    AUTO_START_ABORTED = "auto_start_aborted"
    AUTO_START_FAILED = "auto_start_failed"


class Birth(IdentityEnum):
    """How a VM comes to be: the two kinds of ensure."""

    SPEC = "ensure_spec"
    TARGET = "ensure_target"


BIRTHS: Final[Mapping[Birth, S]] = MappingProxyType({Birth.SPEC: S.CREATING, Birth.TARGET: S.MIGRATING})

TRANSITIONS: Final[Mapping[tuple[S, Event], S]] = MappingProxyType(
    {
        (S.CREATING, Event.START_BEGUN): S.STARTING,
        (S.CREATING, Event.HALT_BEGUN): S.STOPPING,
        (S.CREATING, Event.CREATE_FAILED): S.FAILED,
        (S.STARTING, Event.STARTED): S.RUNNING,
        (S.STARTING, Event.START_ABORTED): S.STOPPED,
        (S.STARTING, Event.START_FAILED): S.FAILED,
        (S.MIGRATING, Event.IN_PHASE): S.MIGRATING,
        (S.MIGRATING, Event.AUTO_STARTED): S.RUNNING,
        (S.MIGRATING, Event.AUTO_START_ABORTED): S.STOPPED,
        (S.MIGRATING, Event.AUTO_START_FAILED): S.FAILED,
        (S.MIGRATING, Event.MIGRATION_IN_FAILED): S.FAILED,
        (S.RUNNING, Event.REBOOT_BEGUN): S.REBOOTING,
        (S.RUNNING, Event.HALT_BEGUN): S.STOPPING,
        (S.RUNNING, Event.NEGOTIATION_FAILED): S.RUNNING,
        (S.RUNNING, Event.MIGRATION_OUT_BEGUN): S.MIGRATING,
        (S.REBOOTING, Event.REBOOTED): S.RUNNING,
        (S.MIGRATING, Event.OUT_PHASE): S.MIGRATING,
        (S.MIGRATING, Event.MIGRATION_OUT_FAILED): S.RUNNING,
        (S.MIGRATING, Event.MIGRATED_OUT): S.STOPPING,
        (S.STOPPING, Event.HALTED): S.STOPPED,
        (S.STOPPING, Event.RUN_DOWN): S.DESTROYED,  # only after a migration out: Stopped is skipped
        (S.STOPPED, Event.RUN_DOWN): S.DESTROYED,
        (S.FAILED, Event.RUN_DOWN): S.FAILED,  # the second notice of a failed import
    }
)

TERMINAL: Final = frozenset({S.DESTROYED, S.FAILED})
"""No further state follows. Stopped is not terminal: the rundown does."""

INBOUND: Final = frozenset(
    {
        Event.IN_PHASE,
        Event.AUTO_STARTED,
        Event.AUTO_START_ABORTED,
        Event.AUTO_START_FAILED,
        Event.MIGRATION_IN_FAILED,
    }
)
OUTBOUND: Final = frozenset(
    {Event.MIGRATION_OUT_BEGUN, Event.OUT_PHASE, Event.MIGRATION_OUT_FAILED, Event.MIGRATED_OUT}
)
