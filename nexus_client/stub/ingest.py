"""What a sled's report changes: three guards in one transaction (NX 3.2).

All decisions are made before the first row is written, so a refusal has rolled everything back. Nexus does not ask
whether the order of states makes sense; only the generations count.

Read before: stub/records.py. Read next: stub/sagas/update.py.
"""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from nexus_client.stub.records import (
    TERMINAL,
    AutoRestartPolicy,
    FailureReason,
    Instance,
    InstanceDbState,
    IntendedState,
    Migration,
    Vmm,
    VmmDbState,
    following,
)
from nexus_client.stub.refusal import conflict, gone, internal, invalid_value, not_found
from nexus_client.stub.scope import Facts
from nexus_client.types import (
    GENERATION_MAX,
    MIGRATION_TERMINAL,
    MigrationRuntimeState,
    SledVmmState,
    VmmState,
    us_of,
)

IFF_FAILED: Final = 'database error: Check("failure_reason_iff_failed")'
NOT_FOUND: Final = "database error: NotFound"
AS_TOLD: Final = {state: VmmDbState(state.value) for state in VmmState}
"""What is recorded of a state that a sled publishes: it has the same name."""
UNKNOWN_SLED = UUID(int=0)
"""Sled of an adopted VMM when several sleds are registered: the report does not say."""


class Applied(Struct, frozen=True):
    """Which of the three rows this very call changed, and the instance that needs an update saga because of it."""

    vmm: bool
    migration_out: bool
    migration_in: bool
    update: UUID | None


def apply_report(ctx: Facts, propolis_id: UUID, report: SledVmmState) -> Applied:
    """Apply a sled's words. Raises `Refused` (404 after the rows are written, everything else before)."""
    out, into = report.migration_out, report.migration_in
    if out is not None and into is not None and out.migration_id == into.migration_id:
        raise conflict("migrating from a VMM to itself is nonsensical")
    vmm = ctx.records.vmms.get(propolis_id)
    if vmm is None and ctx.rules.unknown_vmm_is_error:
        raise internal(NOT_FOUND)
    heard = report.vmm_state
    reason = FailureReason.FROM_SLED_AGENT if heard.state is VmmState.FAILED else None
    new_vmm = _newer_vmm(ctx, vmm, (AS_TOLD[heard.state], heard.gen, us_of(heard.time_updated)), reason)
    new_out = _newer_side(ctx, propolis_id, out, "source")
    new_in = _newer_side(ctx, propolis_id, into, "target")
    return _write(ctx, new_vmm, new_out, new_in)


def mark_failed(ctx: Facts, propolis_id: UUID, read_gen: int, reason: FailureReason) -> Applied:
    """Nexus's own verdict on a VMM, in the generation after the one it had read: silently lost if the sled was
    faster. A VMM that has Failed for this very reason stays as it is: no generation, no saga (NX 4.5).
    """
    vmm = ctx.records.vmms[propolis_id]
    if ctx.rules.head and vmm.failure_reason is reason and vmm.state is VmmDbState.FAILED:
        return Applied(vmm=False, migration_out=False, migration_in=False, update=None)
    new_vmm = _newer_vmm(ctx, vmm, (VmmDbState.FAILED, following(read_gen), ctx.now_us), reason)
    if new_vmm is None and vmm.state_generation == read_gen == GENERATION_MAX and vmm.time_deleted is None:
        # a sled has told the last generation there is: Nexus's own word still counts, or nobody could end this VMM
        new_vmm = replace(vmm, state=VmmDbState.FAILED, time_state_updated=ctx.now_us, failure_reason=reason)
    if new_vmm is None:
        ctx.tell("record", f"{reason.value} from gen {read_gen} comes too late", vmm.instance_id, vmm.id)
    return _write(ctx, new_vmm, None, None)


def _newer_vmm(
    ctx: Facts, vmm: Vmm | None, news: tuple[VmmDbState, int, int], reason: FailureReason | None
) -> Vmm | None:
    """The changed row, or None if the report is stale, or there is no row and that is no error.

    news: (state, generation, time in microseconds).
    """
    state, gen, time_us = news
    if vmm is None or vmm.time_deleted is not None or not ctx.behaviour.is_news(vmm.state_generation, gen):
        return None
    if vmm.failure_reason is not None and reason is None and ctx.rules.head:
        # nothing clears the reason: the constraint fails (property 7 of a sled), or the reason stays (#11294)
        if ctx.rules.reason_needs_failed:
            raise internal(IFF_FAILED)
        reason = vmm.failure_reason
    return replace(vmm, state=state, state_generation=gen, time_state_updated=time_us, failure_reason=reason)


def _newer_side(
    ctx: Facts, propolis_id: UUID, side: MigrationRuntimeState | None, role: Literal["source", "target"]
) -> Migration | None:
    """The changed migration row, or None if there is no news. Raises `Refused`: 500, 410 or 400."""
    if side is None:
        return None
    row = ctx.records.migrations.get(side.migration_id)
    if row is None:
        raise internal(NOT_FOUND)
    if row.time_deleted is not None:
        raise gone()
    is_source = role == "source"
    if propolis_id != (row.source_propolis_id if is_source else row.target_propolis_id):
        raise invalid_value(f"{role} propolis UUID", f"{propolis_id} is not the {role} VMM of this migration")
    if not ctx.behaviour.is_news(row.source_gen if is_source else row.target_gen, side.gen):
        return None
    time_us = us_of(side.time_updated)
    if is_source:
        return replace(row, source_state=side.state, source_gen=side.gen, time_source_updated=time_us)
    return replace(row, target_state=side.state, target_gen=side.gen, time_target_updated=time_us)


def _write(ctx: Facts, new_vmm: Vmm | None, new_out: Migration | None, new_in: Migration | None) -> Applied:
    instance_ids = []
    if new_vmm is not None:
        told = f"{new_vmm.state.value} gen {new_vmm.state_generation}"
        ctx.tell("record", told, new_vmm.instance_id, new_vmm.id)
        ctx.records.put_vmm(new_vmm)
        if new_vmm.state in TERMINAL and (new_vmm.state is VmmDbState.DESTROYED or ctx.rules.failed_is_terminal):
            instance_ids.append(new_vmm.instance_id)
    for role, row in (("source", new_out), ("target", new_in)) if new_out or new_in else ():
        if row is None:
            continue
        # in and out are different rows: equal ids were refused
        ctx.records.put_migration(row)
        state, gen = (row.source_state, row.source_gen) if role == "source" else (row.target_state, row.target_gen)
        side_vmm = row.source_propolis_id if role == "source" else row.target_propolis_id
        ctx.tell("record", f"migration {role} {state.value} gen {gen}", row.instance_id, side_vmm)
        if state in MIGRATION_TERMINAL:
            instance_ids.append(row.instance_id)
    update = instance_ids[0] if instance_ids else None
    if update is not None:
        instance = ctx.records.instances.get(update)
        if instance is None or instance.time_deleted is not None:
            raise not_found("instance", update)
    return Applied(new_vmm is not None, new_out is not None, new_in is not None, update)


def adopt(ctx: Facts, propolis_id: UUID, report: SledVmmState) -> None:
    """Make records for a VMM that somebody registered by hand, so that its reports are news (not in the original)."""
    instance_id = ctx.new_id("instance")
    sleds = list(ctx.records.sleds)
    ordinal = ctx.records.next_number("ordinal")
    instance = Instance(
        id=instance_id,
        ordinal=ordinal,
        name=f"adopted-{ordinal}",
        description="registered by hand on its sled",
        hostname=f"adopted-{ordinal}",
        ncpus=1,
        memory=1024**3,
        project_id=ctx.named_id("project", "adopted"),
        silo_id=ctx.named_id("silo", "adopted"),
        time_created=ctx.now_us,
        time_state_updated=ctx.now_us,
        intended_state=IntendedState.RUNNING,
        # whoever registered it by hand takes it away by hand: nobody wants it back on some sled
        auto_restart_policy=AutoRestartPolicy.NEVER,
    )
    ctx.records.put_instance(instance)
    first = VmmDbState.CREATING if ctx.rules.has_creating_vmm else VmmDbState.STARTING
    ctx.records.put_vmm(
        Vmm(
            id=propolis_id,
            instance_id=instance_id,
            sled_id=sleds[0] if len(sleds) == 1 else UNKNOWN_SLED,
            propolis_ip="::",
            state=first,
            time_created=ctx.now_us,
            time_state_updated=us_of(report.vmm_state.time_updated),
        )
    )
    ctx.records.put_instance(
        replace(instance, state=InstanceDbState.VMM, state_generation=2, active_propolis_id=propolis_id)
    )
    ctx.tell("record", "adopted a VMM that this Nexus never registered", instance_id, propolis_id)
