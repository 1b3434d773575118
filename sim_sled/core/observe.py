"""What a sled makes of what it sees: Propolis publication -> `SledVmmState` (SA 2.5, 2.6).

The only place where `vmm_gen` and `migration_gen` grow. All functions are pure: old record in, new record out;
records are the frozen wire type, so a record *is* the body that is published.

Read before: core/rules.py. Read next: core/scheduler.py, core/vmm.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from nexus_client.types import (
    MIGRATION_TERMINAL,
    TERMINAL,
    MigrationRuntimeState,
    MigrationState,
    SledVmmState,
    VmmRuntimeState,
    VmmState,
    time_of,
)
from propolis_stub.errors import RepairingRejected
from propolis_stub.types import InstanceState, MigrationPhase, MigrationStatus

_P, _S = InstanceState, VmmState

# A member of an enum, taken from its class, costs 0.1 us (CPython 3.11): these are asked for all the time.
_REPAIRING: Final = _P.REPAIRING

VMM_STATE: Final[Mapping[InstanceState, VmmState]] = {
    _P.CREATING: _S.STARTING,
    _P.STARTING: _S.STARTING,
    _P.RUNNING: _S.RUNNING,
    _P.STOPPING: _S.STOPPING,
    # deliberate, both sled agents: a VMM is `stopped` for nobody until its objects are gone
    _P.STOPPED: _S.STOPPING,
    _P.REBOOTING: _S.REBOOTING,
    _P.MIGRATING: _S.MIGRATING,
    _P.FAILED: _S.FAILED,
    _P.DESTROYED: _S.DESTROYED,
    # REPAIRING is missing on purpose: it is rejected, never converted (`docs/fidelity.md`, D01)
}

MIGRATION_STATE: Final[Mapping[MigrationPhase, MigrationState]] = dict.fromkeys(
    MigrationPhase, MigrationState.IN_PROGRESS
) | {MigrationPhase.ERROR: MigrationState.FAILED, MigrationPhase.FINISH: MigrationState.COMPLETED}

_FIRST_REPORTED_GEN: Final = 2
"""Nexus makes its own migration record at generation 1, so what a sled reports first must be newer."""


def registered(runtime: VmmRuntimeState, migration_id: UUID | None, now_us: int) -> SledVmmState:
    """The record of a VMM just registered: the caller's runtime, and a pending migration when there is one."""
    if migration_id is None:
        return SledVmmState(runtime)
    return SledVmmState(
        runtime, migration_in=MigrationRuntimeState(migration_id, MigrationState.PENDING, 1, time_of(now_us))
    )


def observe(
    record: SledVmmState,
    state: InstanceState,
    migration_in: MigrationStatus | None,
    migration_out: MigrationStatus | None,
    now_us: int,
) -> SledVmmState:
    """Apply one observation of Propolis. A migration of None is "no news".

    Raises `RepairingRejected` for the state that Propolis never uses; the record stays as it was.
    """
    if state is _REPAIRING:
        raise RepairingRejected("observed by a sled")
    now = time_of(now_us)
    into, out = record.migration_in, record.migration_out
    if migration_in is not None:
        into = _reported(into, migration_in, now)
    if migration_out is not None:
        out = _reported(out, migration_out, now)
    return _moved(record, VMM_STATE[state], into, out, now)


def transition(record: SledVmmState, state: VmmState, now_us: int) -> SledVmmState:
    """A state which the sled publishes by itself, ahead of Propolis: `stopping`, `rebooting`, or a terminal one."""
    return _moved(record, state, record.migration_in, record.migration_out, time_of(now_us))


def _moved(
    record: SledVmmState,
    state: VmmState,
    migration_in: MigrationRuntimeState | None,
    migration_out: MigrationRuntimeState | None,
    now: datetime,
) -> SledVmmState:
    if state in TERMINAL:
        # a dead VMM cannot finish a migration; Nexus must learn both in one report (NX 7 #10)
        migration_in = _failed_if_unfinished(migration_in, now)
        migration_out = _failed_if_unfinished(migration_out, now)
    return SledVmmState(VmmRuntimeState(state, record.vmm_state.gen + 1, now), migration_in, migration_out)


def _reported(known: MigrationRuntimeState | None, seen: MigrationStatus, now: datetime) -> MigrationRuntimeState:
    state = MIGRATION_STATE[seen.state]
    if known is None or known.migration_id != seen.id:
        return MigrationRuntimeState(seen.id, state, _FIRST_REPORTED_GEN, now)
    if known.state is state:
        return known  # a repeated report is no news
    return MigrationRuntimeState(seen.id, state, known.gen + 1, now)


def _failed_if_unfinished(known: MigrationRuntimeState | None, now: datetime) -> MigrationRuntimeState | None:
    if known is None or known.state in MIGRATION_TERMINAL:
        return known
    return MigrationRuntimeState(known.migration_id, MigrationState.FAILED, known.gen + 1, now)
