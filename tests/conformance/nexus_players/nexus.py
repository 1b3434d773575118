"""Players of Nexus's own functions: the model's code for each decision, on rows made from a line's input.

Over 500 lines: one player per function that was recorded, which is looked up by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from msgspec.structs import replace

from nexus_client import backoff
from nexus_client.draw import DRAW_END
from nexus_client.stub import actions, background, networking
from nexus_client.stub.actions import Action, Do, Refuse
from nexus_client.stub.auto_restart import cooldown_ends_us, may_restart, needs_restart
from nexus_client.stub.behaviour import Behaviour, is_destroyable
from nexus_client.stub.config import SECOND_US, Config
from nexus_client.stub.context import Context
from nexus_client.stub.contract import (
    Answered,
    ErrorAnswered,
    IpKind,
    Malformed,
    NoConnection,
    Outcome,
    Task,
    TimedOut,
)
from nexus_client.stub.hazards import ORIGINAL, NexusPanicked
from nexus_client.stub.ingest import Applied, apply_report, mark_failed
from nexus_client.stub.nexus import PROGRAMS
from nexus_client.stub.public_state import BY_RECORD, PublicState, public_state
from nexus_client.stub.records import (
    NOT_INCARNATED,
    NOT_ON_A_SLED,
    TERMINAL,
    AutoRestartPolicy,
    FailureReason,
    Instance,
    InstanceDbState,
    IntendedState,
    IpState,
    Migration,
    Sled,
    Vmm,
    VmmDbState,
)
from nexus_client.stub.refusal import Refusal, Refused
from nexus_client.stub.rules import RULES, RuleSet
from nexus_client.stub.sagas import lock as updater_locks
from nexus_client.stub.sagas import migrate, update, vmms
from nexus_client.stub.sagas.nodes import Stuck
from nexus_client.stub.sagas.state import MigrateSaga, SagaKind, StartSaga
from nexus_client.stub.scope import WatchCall
from nexus_client.stub.sizes import check_sizes
from nexus_client.stub.sled_answers import is_gone, refused_in_saga, refused_request
from nexus_client.types import (
    Baseboard,
    MigrationRuntimeState,
    MigrationState,
    SledAgentInfo,
    SledCpuFamily,
    SledRole,
    SledVmmState,
    VmmRuntimeState,
    VmmState,
    time_of,
)

NOW_US = 1_700_000_000_000_000
IDS = {"I": 1, "A": 0xA, "T": 0xB, "O": 0xC, "M": 0xD, "M2": 0xE, "sled1": 0x51, "sled2": 0x52, "other": 2}
IDS |= {f"L{number}": 0x10 + number for number in range(1, 10)}
UUIDS = {name: UUID(int=value) for name, value in IDS.items()}
NAMES = {value: name for name, value in UUIDS.items()}
RESTARTS = (Task.REINCARNATION, Task.REAPER)


def ident(symbol: str | None) -> UUID | None:
    return None if symbol is None else UUIDS[symbol]


def known(symbol: str) -> UUID:
    return UUIDS[symbol]


def name(value: UUID | None) -> str | None:
    return None if value is None else NAMES[value]


# ---- rows ----------------------------------------------------------------------------------------------------------


def instance_of(given: dict[str, Any], **more: Any) -> Instance:
    policy = given.get("auto_restart_policy")
    cooldown, ago = given.get("auto_restart_cooldown_s"), given.get("last_auto_restarted_s_ago")
    return Instance(
        id=known("I"),
        ordinal=1,
        name="web",
        description="",
        hostname="web",
        ncpus=2,
        memory=2**30,
        project_id=UUID(int=7),
        silo_id=UUID(int=8),
        time_created=0,
        time_state_updated=0,
        state=InstanceDbState(given["state"]),
        state_generation=given.get("state_generation", 5),
        active_propolis_id=ident(given.get("active_propolis_id")),
        target_propolis_id=ident(given.get("target_propolis_id")),
        migration_id=ident(given.get("migration_id")),
        updater_id=ident(given.get("updater_id")),
        updater_gen=given.get("updater_gen", 1),
        intended_state=IntendedState(given.get("intended_state", "running")),
        auto_restart_policy=None if policy is None else AutoRestartPolicy(policy),
        auto_restart_cooldown_us=None if cooldown is None else cooldown * SECOND_US,
        time_last_auto_restarted=None if ago is None else NOW_US - ago * SECOND_US,
        time_deleted=0 if given.get("deleted") else None,
        **more,
    )


def vmm_of(given: dict[str, Any] | None) -> Vmm | None:
    if given is None:
        return None
    reason = given.get("failure_reason")
    state = VmmDbState(given["state"])
    if reason is None and state is VmmDbState.FAILED:
        reason = "from_sled_agent"  # inputs that do not name it: any will do
    return Vmm(
        id=known(given["id"]),
        instance_id=known("I"),
        sled_id=known(given.get("sled_id", "sled1")),
        propolis_ip="::1",
        state=state,
        time_created=0,
        time_state_updated=0,
        state_generation=given.get("state_generation", given.get("gen", 5)),
        failure_reason=None if reason is None else FailureReason(reason),
        time_deleted=0 if given.get("deleted") else None,
    )


def migration_of(given: dict[str, Any] | None) -> Migration | None:
    if given is None:
        return None
    return Migration(
        id=known(given["id"]),
        instance_id=known("I"),
        source_propolis_id=known(given["source_propolis_id"]),
        target_propolis_id=known(given["target_propolis_id"]),
        time_created=0,
        source_state=MigrationState(given["source_state"]),
        source_gen=given.get("source_gen", 3),
        target_state=MigrationState(given["target_state"]),
        target_gen=given.get("target_gen", 3),
        time_deleted=0 if given.get("deleted") else None,
    )


def instance_row(row: Instance, like: dict[str, Any]) -> dict[str, Any]:
    """The row with the keys that the recording shows."""
    shown = {
        "state": row.state.value,
        "state_generation": row.state_generation,
        "active_propolis_id": name(row.active_propolis_id),
        "target_propolis_id": name(row.target_propolis_id),
        "migration_id": name(row.migration_id),
        "updater_id": name(row.updater_id),
        "updater_gen": row.updater_gen,
        "intended_state": row.intended_state.value,
        "deleted": row.time_deleted is not None,
    }
    return {key: shown[key] for key in like if key in shown}


def vmm_row(row: Vmm | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "id": name(row.id),
        "state": row.state.value,
        "state_generation": row.state_generation,
        "failure_reason": None if row.failure_reason is None else row.failure_reason.value,
        "deleted": row.time_deleted is not None,
    }


def migration_row(row: Migration) -> dict[str, Any]:
    return {
        "id": name(row.id),
        "source_propolis_id": name(row.source_propolis_id),
        "target_propolis_id": name(row.target_propolis_id),
        "source_state": row.source_state.value,
        "source_gen": row.source_gen,
        "target_state": row.target_state.value,
        "target_gen": row.target_gen,
        "deleted": row.time_deleted is not None,
    }


# ---- errors and answers --------------------------------------------------------------------------------------------


def told(refusal: Refusal) -> dict[str, Any]:
    """As a client reads it; `internal_message` is what Nexus logs where the wire says nothing."""
    body: dict[str, Any] = {"status": refusal.status, "error_code": refusal.error_code, "message": refusal.message}
    if refusal.status in (500, 503) and refusal.error_code is not None:
        body["internal_message"] = refusal.detail
    return body


def error(refused: Refused) -> dict[str, Any]:
    return {"error": told(refused.refusal)}


def outcome_of(answer: dict[str, Any]) -> Outcome:
    """A sled's answer as the model's shell would hand it in."""
    match answer:
        case {"kind": "error_response", "status": status, "error_code": code, "message": message}:
            return ErrorAnswered(status, code, message)
        case {"kind": "communication", "what": "timeout"}:
            return TimedOut()
        case {"kind": "communication", "what": what}:
            return NoConnection(what)
        case {"kind": "ok", "state": state, "gen": gen}:
            return Answered(report_of({"vmm_state": {"state": state, "gen": gen}}))
        case _:
            return Malformed(str(answer))


def report_of(given: dict[str, Any]) -> SledVmmState:
    def side(told: dict[str, Any] | None) -> MigrationRuntimeState | None:
        if told is None:
            return None
        return MigrationRuntimeState(
            known(told["migration_id"]), MigrationState(told["state"]), told["gen"], time_of(NOW_US)
        )

    runtime = VmmRuntimeState(VmmState(given["vmm_state"]["state"]), given["vmm_state"]["gen"], time_of(NOW_US))
    return SledVmmState(runtime, side(given.get("migration_in")), side(given.get("migration_out")))


def bench(rules: str, instance: Instance | None = None, *vmms: Vmm | None, hazards: Any = ORIGINAL) -> Context:
    """A model's insides with these rows, put there without asking whether they may be."""
    ctx = Context(Config(rules=RuleSet(rules), hazards=hazards), Behaviour(), PROGRAMS, 0)
    ctx.now_us = NOW_US
    if instance is not None:
        ctx.records.instances[instance.id] = instance
    for vmm in vmms:
        if vmm is not None:
            ctx.records.vmms[vmm.id] = vmm
    return ctx


# ---- public state and verdicts -------------------------------------------------------------------------------------


def effective_state(rules: str, given: dict[str, Any]) -> Any:
    row, active = instance_of(given["instance"]), vmm_of(given["active_vmm"])
    state = None if active is None else active.state
    shown = public_state(RuleSet(rules), row.state, state, migrating=row.migration_id is not None)
    return {"state": shown.value}


def verdict(rules: str, given: dict[str, Any], action: Action) -> tuple[Any, Instance, Vmm | None]:
    row, active = instance_of(given["instance"]), vmm_of(given["active_vmm"])
    state = None if active is None else active.state
    shown = public_state(RuleSet(rules), row.state, state, migrating=row.migration_id is not None)
    judged = actions.judge(RULES[RuleSet(rules)], action, shown, active)
    if isinstance(judged, Refuse):
        return error(actions.refused(judged, action, shown)), row, active
    return judged, row, active


def select_runtime_change_action(rules: str, given: dict[str, Any]) -> Any:
    judged, row, active = verdict(rules, given, Action(given["request"]))
    match judged:
        case Do.NOTHING:
            return {"do": "already_done"}
        case Do.SEND:
            assert active is not None
            sent = {"do": "send_to_sled", "sled_id": name(active.sled_id)}
            names_vmm = RULES[RuleSet(rules)].names_public_state  # since #6429 calls are made by VMM id
            return sent | {"propolis_id": name(active.id)} if names_vmm else sent
        case Do.RECORD:
            ctx = bench(rules, row)
            actions.clear_failed(ctx, row, row.state_generation)
            after = ctx.records.instances[row.id]
            return {"do": "update_runtime", "state": after.state.value, "state_generation": after.state_generation}
        case _:
            return judged


def instance_start(rules: str, given: dict[str, Any]) -> Any:
    judged, _, _ = verdict(rules, given, Action.START)
    done = {Do.SAGA: {"do": "start"}, Do.NOTHING: {"do": "already_started"}}
    return done[judged] if isinstance(judged, Do) else judged


def serial_console(rules: str, given: dict[str, Any]) -> Any:
    row, active = instance_of(given["instance"]), vmm_of(given["active_vmm"])
    state = None if active is None else active.state
    shown = public_state(RuleSet(rules), row.state, state, migrating=row.migration_id is not None)
    refused = networking.console_refusal(RULES[RuleSet(rules)], row, state, shown.value)
    return {"connect": name(row.active_propolis_id)} if refused is None else error(refused)


def ip_instance_state(rules: str, given: dict[str, Any]) -> Any:
    row, active = instance_of(given["instance"]), vmm_of(given["active_vmm"])
    state = None if active is None else active.state
    try:
        tell = networking.whom_to_tell(RULES[RuleSet(rules)], row, state, attach=given["verb"] == "attach")
    except Refused as refused:
        return error(refused)
    return {"tell": name(row.active_propolis_id) if tell is networking.Tell.SLED else None}


def instance_migrate(_rules: str, given: dict[str, Any]) -> Any:
    row = instance_of(given["instance"], uses_local_storage=given["uses_local_storage"])
    try:
        actions.judge_migration(row, vmm_of(given["active_vmm"]), known(given["dst_sled_id"]))
    except Refused as refused:
        return error(refused)
    return {"do": "saga", "saga": True}


def instance_delete(rules: str, given: dict[str, Any]) -> Any:
    row, active = instance_of(given["instance"]), vmm_of(given["active_vmm"])
    ctx = bench(rules, row, active)
    ctx.tickets[1] = None
    try:
        actions.act(ctx, 1, row.id, Action.DELETE)
    except Refused as refused:
        return error(refused)
    return {"ok": True, "instance": instance_row(ctx.records.instances[row.id], given["instance"])}


# ---- the update saga -----------------------------------------------------------------------------------------------


def update_decision(rules: str, given: dict[str, Any], hazards: Any = ORIGINAL) -> Any:
    row = instance_of(given["instance"])
    found = (vmm_of(given["active_vmm"]), vmm_of(given["target_vmm"]), migration_of(given["migration"]))
    try:
        decided = Behaviour().decide(RULES[RuleSet(rules)], row, *found, hazards=hazards)
    except NexusPanicked as panic:
        return {"panic": str(panic)}
    if decided is None:
        return None
    network = None if decided.network_to is None else name(decided.network_to)
    answer = {
        "state": decided.state.value,
        "state_generation": row.state_generation + 1,
        "active_propolis_id": name(decided.active),
        "target_propolis_id": name(decided.target),
        "migration_id": name(decided.migration),
        "destroy_active_vmm": name(decided.destroy_active),
        "destroy_target_vmm": name(decided.destroy_target),
        "deprovision": decided.deprovision,
        "network": "delete" if decided.deprovision else network,
    }
    if RULES[RuleSet(rules)].head:
        answer["intended_state"] = None if decided.intended is None else decided.intended.value
        swap = decided.swap
        answer["reservations"] = None if swap is None else {"source": name(swap[0]), "target": name(swap[1])}
    return answer


def locked(given: dict[str, Any], change: Callable[[Instance], Any]) -> Any:
    """A lock operation on the instance's row; a deleted one is not found, whatever its lock says."""
    row = instance_of(given["instance"])
    try:
        if row.time_deleted is not None:
            bench("head", row).instance(row.id)
        result, after = change(row)
    except Refused as refused:
        return {"result": error(refused), "instance": instance_row(row, given["instance"])}
    return {"result": result, "instance": instance_row(after or row, given["instance"])}


def updater_lock(_rules: str, given: dict[str, Any]) -> Any:
    def change(row: Instance) -> tuple[Any, Instance | None]:
        after = updater_locks.acquired(row, known(given["updater_id"]))
        if after is None:
            return {"already_locked": True}, None
        return {"updater_id": name(after.updater_id), "locked_gen": after.updater_gen}, after

    return locked(given, change)


def updater_inherit_lock(_rules: str, given: dict[str, Any]) -> Any:
    def change(row: Instance) -> tuple[Any, Instance | None]:
        parent = given["parent"]
        child = known(given["child_lock_id"])
        after = updater_locks.inherited(row, known(parent["updater_id"]), parent["locked_gen"], child)
        if after is None:
            return {"already_locked": True}, None
        return {"updater_id": name(after.updater_id), "locked_gen": after.updater_gen}, after

    return locked(given, change)


def updater_unlock(_rules: str, given: dict[str, Any]) -> Any:
    row, lock = instance_of(given["instance"]), given["lock"]
    after = updater_locks.unlocked(row, known(lock["updater_id"]), lock["locked_gen"])
    return {"result": {"unlocked": after is not None}, "instance": instance_row(after or row, given["instance"])}


def commit_update(_rules: str, given: dict[str, Any]) -> Any:
    def change(row: Instance) -> tuple[Any, Instance | None]:
        new, lock = given["new"], given["lock"]
        intended = new["intended_state"]
        wanted = replace(
            row,
            state=InstanceDbState(new["state"]),
            state_generation=new["state_generation"],
            active_propolis_id=ident(new["active_propolis_id"]),
            intended_state=row.intended_state if intended is None else IntendedState(intended),
        )
        after = updater_locks.committed(row, wanted, known(lock["updater_id"]), lock["locked_gen"])
        return {"committed": after is not None}, after

    return locked(given, change)


# ---- ingest and Nexus's own verdicts -------------------------------------------------------------------------------


def process_vmm_update(rules: str, given: dict[str, Any]) -> Any:
    vmm = vmm_of(given["vmm"])
    active = "A" if given["instance"]["state"] == "vmm" else None
    ctx = bench(rules, instance_of(given["instance"] | {"active_propolis_id": active}), vmm)
    for row in given["migrations"]:
        made = migration_of(row)
        assert made is not None
        ctx.records.migrations[made.id] = made
    answer: dict[str, Any] = {}
    try:
        applied = apply_report(ctx, known("A"), report_of(given["report"]))
        answer = {"ok": True, "saga": applied.update is not None}
    except Refused as refused:
        answer = {"ok": False} | error(refused)
    answer["vmm"] = vmm_row(ctx.records.vmms.get(known("A")))
    answer["migrations"] = [migration_row(ctx.records.migrations[known(row["id"])]) for row in given["migrations"]]
    return answer


def mark_vmm_failed(rules: str, given: dict[str, Any]) -> Any:
    stored = vmm_of(given["stored"])
    assert stored is not None
    ctx = bench(rules, instance_of({"state": "vmm", "active_propolis_id": "A"}), stored)
    applied = mark_failed(ctx, stored.id, given["read"]["state_generation"], FailureReason(given["reason"]))
    return {"result": {"updated": applied.vmm}, "vmm": vmm_row(ctx.records.vmms[stored.id])}


def vmm_mark_deleted(rules: str, given: dict[str, Any]) -> Any:
    vmm = vmm_of(given["vmm"])
    assert vmm is not None
    ctx = bench(rules, None, vmm)
    may = is_destroyable(ctx.rules, vmm.state) and vmm.time_deleted is None
    if may:
        update.destroy_vmm(ctx, vmm.id)
    return {"result": {"updated": may}, "vmm": vmm_row(ctx.records.vmms[vmm.id])}


def vmm_mark_saga_unwound(rules: str, given: dict[str, Any]) -> Any:
    vmm = vmm_of(given["vmm"])
    assert vmm is not None
    ctx = bench(rules, None, vmm)
    try:
        result: Any = {"updated": vmms.mark_unwound(ctx, vmm)}
    except Refused as refused:
        result = error(refused)
    return {"result": result, "vmm": vmm_row(ctx.records.vmms[vmm.id])}


def migration_mark_failed(rules: str, given: dict[str, Any]) -> Any:
    row = migration_of(given["migration"])
    assert row is not None
    ctx = bench(rules)
    ctx.records.migrations[row.id] = row
    updated = migrate.mark_migration_failed(ctx, row)
    return {"result": {"updated": updated}, "migration": migration_row(ctx.records.migrations[row.id])}


def stop_failed_write(rules: str, given: dict[str, Any]) -> Any:
    row = instance_of(given["stored"])
    ctx = bench(rules, row)
    try:
        actions.clear_failed(ctx, row, given["read_generation"])
        updated = True
    except Refused:
        updated = False
    after = ctx.records.instances[row.id]
    return {"result": {"updated": updated}, "instance": instance_row(after, given["stored"])}


def watcher_check(rules: str, given: dict[str, Any]) -> Any:
    """One health check, from the list to what is fed to the records."""
    vmm = vmm_of(given["vmm"])
    assert vmm is not None
    ctx = bench(rules, instance_of({"state": "vmm", "active_propolis_id": "A"}), vmm)
    ctx.records.put_sled(sled_of(given["sled"]))
    outcome, sled = outcome_of(given["answer"]), ctx.records.sleds[vmm.sled_id]
    judged = background.judge_unasked(sled) or background.judge_answer(sled, outcome)
    reason = judged if isinstance(judged, FailureReason) else None
    if reason is not None:
        same = vmm.state is VmmDbState.FAILED and vmm.failure_reason is reason
        gen = vmm.state_generation if same else vmm.state_generation + 1
        report = {"state": "failed", "gen": gen, "failure_reason": reason.value, "migrations": False}
        assert applied_by(ctx, vmm, outcome, reason).vmm is (not same)
        title = "".join(word.capitalize() for word in reason.value.split("_"))
        return {"report": report, "outcome": f"Failure({title})", "result": "Ok(())"}
    if isinstance(judged, SledVmmState):
        state = judged.vmm_state
        shown = {"state": state.state.value, "gen": state.gen, "failure_reason": None, "migrations": False}
        if state.state is VmmState.FAILED:
            shown["failure_reason"] = "from_sled_agent"
        public = public_state(RuleSet(rules), InstanceDbState.VMM, VmmDbState(state.state.value), migrating=False)
        return {"report": shown, "outcome": f"Success({public.value.capitalize()})", "result": "Ok(())"}
    return {"report": None, "outcome": "Unknown", "result": inconclusive(outcome)}


def applied_by(ctx: Context, vmm: Vmm, outcome: Outcome, reason: FailureReason) -> Applied:
    """What a failed check really writes: the same as `mark_failed` from the generation it had read."""
    before = ctx.records.vmms[vmm.id]
    ctx.watch.checking.add(vmm.id)
    if reason is FailureReason.SLED_EXPUNGED:
        ctx.watch.waiting.append(vmm.id)
        ctx.watch.checking.clear()
        background.check_more(ctx)
    else:
        background.checked(ctx, WatchCall(vmm.id, vmm.state_generation), outcome)
    after = ctx.records.vmms[vmm.id]
    return Applied(vmm=after != before, migration_out=False, migration_in=False, update=None)


def inconclusive(outcome: Outcome) -> str:
    match outcome:
        case ErrorAnswered(status):
            return f"Err(SledAgentHttpError({status}))"
        case NoConnection() | TimedOut():
            return "Err(SledAgentUnreachable)"
        case _:
            return "Err(ClientError)"


def sled_of(given: dict[str, Any]) -> Sled:
    info = SledAgentInfo(
        sa_address="[::1]:1",
        repo_depot_port=1,
        role=SledRole.GIMLET,
        baseboard=Baseboard("s", "p", 1),
        usable_hardware_threads=8,
        usable_physical_ram=2**40,
        reservoir_size=2**39,
        cpu_family=SledCpuFamily.UNKNOWN,
        generation=1,
        decommissioned=False,
    )
    return Sled(known("sled1"), 1, info, 0, policy=given["policy"], power=given["power"] or "unknown")


# ---- answers of sleds ----------------------------------------------------------------------------------------------


def sled_error_gone(_rules: str, given: dict[str, Any]) -> Any:
    return {"vmm_gone": is_gone(outcome_of(given))}


def sled_error(given: dict[str, Any], judge: Callable[[Outcome], Refused | None]) -> Any:
    refused = judge(outcome_of(given))
    assert refused is not None
    refusal = refused.refusal
    return {"status": refusal.status, "error_code": refusal.error_code, "message": refusal.message}


def sled_error_to_user(_rules: str, given: dict[str, Any]) -> Any:
    return sled_error(given, refused_request)


def sled_error_in_saga(_rules: str, given: dict[str, Any]) -> Any:
    return sled_error(given, refused_in_saga)


# ---- parts of the start and migrate sagas --------------------------------------------------------------------------


def saga_of(kind: SagaKind, **more: Any) -> StartSaga | MigrateSaga:
    here = {"id": UUID(int=0x77), "instance_id": known("I"), "propolis_id": known("T"), "sled_id": known("sled2")}
    if kind is SagaKind.START:
        return StartSaga(**here, **more)
    return MigrateSaga(**here, source_propolis_id=known("A"), **more)


def node(kind: SagaKind, wanted: str) -> Any:
    return next(node for node in PROGRAMS[kind] if node.name == wanted)


def start_link(rules: str, given: dict[str, Any]) -> Any:
    row = instance_of(given["instance"])
    ctx = bench(rules, row, vmm_of(given["active_vmm"]))
    if known("T") not in ctx.records.vmms:
        ctx.records.vmms[known("T")] = vmm_of({"id": "T", "state": "creating"})
    saga = saga_of(
        SagaKind.START, read_generation=given["read_generation"], auto_restart=given["reason"] == "auto_restart"
    )
    result: Any = "linked"
    try:
        node(SagaKind.START, "link VMM").act(ctx, saga)
    except Refused as refused:
        result = error(refused)
    after = ctx.records.instances[row.id]
    shown = instance_row(after, given["instance"]) | {"auto_restarted": after.time_last_auto_restarted == NOW_US}
    return {"result": result, "instance": shown, "reaper_woken": Task.REAPER in ctx.task_due_us}


def start_unlink(rules: str, given: dict[str, Any]) -> Any:
    row = instance_of(given["instance"])
    ctx = bench(rules, row)
    saga = saga_of(SagaKind.START, written_generation=given["written_generation"])
    node(SagaKind.START, "link VMM").undo(ctx, saga)
    return {"ok": True, "instance": instance_row(ctx.records.instances[row.id], given["instance"])}


def unregister_undo(kind: SagaKind, rules: str, given: dict[str, Any]) -> tuple[str, Context]:
    registered = given.get("registered_gen", 2)
    row = vmm_of({"id": "T", "state": "starting", "state_generation": given.get("stored_gen", registered)})
    ctx = bench(rules, instance_of({"state": "vmm", "active_propolis_id": "T"}), row)
    wanted = "register" if kind is SagaKind.START else "register on target"
    try:
        node(kind, wanted).undo_answered(ctx, saga_of(kind, registered_gen=registered), outcome_of(given["answer"]))
    except Stuck:
        return "stuck", ctx
    return "goes on", ctx


def start_unregister_undo(rules: str, given: dict[str, Any]) -> Any:
    undo, ctx = unregister_undo(SagaKind.START, rules, given)
    after = ctx.records.vmms[known("T")]
    marked = None
    if after.state is VmmDbState.FAILED:
        marked = after.state_generation - 1
    for effect in ctx.effects:  # a mark that came too late is told, and nothing else of it is to be seen
        text = getattr(effect, "text", "")
        if text.endswith("comes too late"):
            marked = int(text.split(" from gen ")[1].split()[0])
    return {"undo": undo, "marks_failed_from_gen": marked}


def migrate_unregister_undo(rules: str, given: dict[str, Any]) -> Any:
    undo, ctx = unregister_undo(SagaKind.MIGRATE, rules, given)
    assert ctx.records.vmms[known("T")].state is VmmDbState.STARTING, "a migration marks nothing"
    return {"undo": undo}


def start_vmm_undo(rules: str, given: dict[str, Any]) -> Any:
    vmm = vmm_of(given["vmm"])
    row = instance_of({"state": "no_vmm", "auto_restart_policy": given["auto_restart_policy"]})
    ctx = bench(rules, row, vmm)
    undo = "goes on"
    try:
        node(SagaKind.START, "create VMM record").undo(ctx, saga_of(SagaKind.START))
    except Refused:
        undo = "stuck"
    after = ctx.records.vmms[known("T")]
    return {
        "undo": undo,
        "vmm": {"state": after.state.value, "state_generation": after.state_generation},
        "reincarnation_woken": Task.REINCARNATION in ctx.task_due_us,
    }


# ---- predicates, restarts, sizes, delays ---------------------------------------------------------------------------


def vmm_state_predicates(rules: str, given: dict[str, Any]) -> Any:
    state = VmmDbState(given["state"])
    answer: dict[str, Any] = {"label": state.value}
    if RULES[RuleSet(rules)].has_saga_unwound and rules != "5855":
        answer["is_destroyable"] = is_destroyable(RULES[RuleSet(rules)], state)
    if RULES[RuleSet(rules)].failed_is_terminal:
        answer |= {"is_terminal": state in TERMINAL, "exists_on_sled": state not in NOT_ON_A_SLED}
    return answer


def migration_predicates(_rules: str, given: dict[str, Any]) -> Any:
    row = migration_of({"id": "M", "source_propolis_id": "A", "target_propolis_id": "T"} | given)
    assert row is not None
    return {
        "is_terminal": row.is_terminal,
        "either_side_failed": row.either_side_failed,
        "either_side_completed": row.either_side_completed,
    }


def instance_state_label(_rules: str, given: dict[str, Any]) -> Any:
    state = InstanceDbState(given["state"])
    return {
        "label": state.label,
        "not_incarnated": state in NOT_INCARNATED,
        # the original converts the state alone where it does not look for a VMM
        "public_without_vmm": BY_RECORD.get(state, PublicState.RUNNING).value,
    }


def auto_restart_status(rules: str, given: dict[str, Any]) -> Any:
    row, active = instance_of(given["instance"]), vmm_of(given["active_vmm"])
    default_us = Config().cooldown_us
    may, needs = may_restart(row, default_us, NOW_US), needs_restart(row, active)
    ends_us = cooldown_ends_us(row, default_us)
    can: Any = "nirvana" if may.never else "will_reincarnate"
    if not may.never and may.waits_us > 0:
        can = {"cooling_down_s": may.waits_us // SECOND_US}
    assert Behaviour().may_auto_restart(row, active, default_us, NOW_US) is (needs and may.now)
    state = None if active is None else active.state
    shown = public_state(RuleSet(rules), row.state, state, migrating=False)
    policy = row.auto_restart_policy
    return {
        "needs_reincarnation": needs,
        "can_reincarnate": can,
        "should_reincarnate": needs and may.now,
        "view": {
            "auto_restart_enabled": policy is not AutoRestartPolicy.NEVER,
            "auto_restart_policy": None if policy is None else policy.value,
            "cooldown_expiration_s": None if ends_us is None else (ends_us - NOW_US) // SECOND_US,
            "run_state": shown.value,
        },
    }


def check_instance_cpu_memory_sizes(rules: str, given: dict[str, Any]) -> Any:
    try:
        check_sizes(RULES[RuleSet(rules)], given["ncpus"], given["memory"])
    except Refused as refused:
        return error(refused)
    return {"ok": True}


POLICIES = {
    "internal_service": backoff.INTERNAL_SERVICE,
    "internal_service_aggressive": backoff.INTERNAL_SERVICE_AGGRESSIVE,
    "local": backoff.LOCAL,
}


def retry_delay(_rules: str, given: dict[str, Any]) -> Any:
    """Exact: the base and the bounds of what may be drawn. The recorded extremes of draws are judged by bounds."""
    policy, attempt = POLICIES[given["policy"]], given["attempt"]
    return {
        "base_us": backoff.base_us(policy, attempt),
        "least_us": backoff.delay_us(policy, attempt, 0),
        "most_us": backoff.delay_us(policy, attempt, DRAW_END - 1),
        "multiplier": policy.multiplier_percent / 100,
    }


# ---- addresses -----------------------------------------------------------------------------------------------------


def gate(_rules: str, given: dict[str, Any], *, attach: bool, kind: IpKind | None = None) -> Any:
    row = instance_of({"active_propolis_id": None} | given["instance"])
    ip = given["ip"]
    counted = given.get("attached_count_with_snat", 1)
    what = networking.Resource(
        kind=kind or IpKind(given["kind"]),
        state=IpState(ip["state"]),
        owner=ident(ip["instance"]),
        attached=max(0, counted - 1),
        stack_fits=given.get("nic_matches", True),
    )
    try:
        do_saga = networking.gate(row, what, attach=attach)
    except Refused as refused:
        return error(refused)
    return {"ok": True, "do_saga": do_saga}


NEXUS: dict[str, Callable[[str, dict[str, Any]], Any]] = {
    "effective_state": effective_state,
    "select_runtime_change_action": select_runtime_change_action,
    "instance_start": instance_start,
    "serial_console": serial_console,
    "ip_instance_state": ip_instance_state,
    "instance_migrate": instance_migrate,
    "instance_delete": instance_delete,
    "update_decision": update_decision,
    "updater_lock": updater_lock,
    "updater_inherit_lock": updater_inherit_lock,
    "updater_unlock": updater_unlock,
    "commit_update": commit_update,
    "process_vmm_update": process_vmm_update,
    "mark_vmm_failed": mark_vmm_failed,
    "vmm_mark_deleted": vmm_mark_deleted,
    "vmm_mark_saga_unwound": vmm_mark_saga_unwound,
    "migration_mark_failed": migration_mark_failed,
    "stop_failed_write": stop_failed_write,
    "watcher_check": watcher_check,
    "sled_error_gone": sled_error_gone,
    "sled_error_to_user": sled_error_to_user,
    "sled_error_in_saga": sled_error_in_saga,
    "start_link": start_link,
    "start_unlink": start_unlink,
    "start_unregister_undo": start_unregister_undo,
    "migrate_unregister_undo": migrate_unregister_undo,
    "start_vmm_undo": start_vmm_undo,
    "vmm_state_predicates": vmm_state_predicates,
    "migration_predicates": migration_predicates,
    "instance_state_label": instance_state_label,
    "auto_restart_status": auto_restart_status,
    "check_instance_cpu_memory_sizes": check_instance_cpu_memory_sizes,
    "retry_delay": retry_delay,
    "ip_begin_attach": partial(gate, attach=True),
    "ip_begin_detach": partial(gate, attach=False),
    "subnet_begin_attach": partial(gate, attach=True, kind=IpKind.SUBNET),
}
