"""Players of the recordings: our layers behind the recorded operations."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import attrs
from conformance.trace_files import ident

from nexus_client.outbox import Delivered
from nexus_client.types import (
    TERMINAL,
    Asked,
    InstanceMigrationTargetParams,
    MigrationRuntimeState,
    MigrationState,
    SledVmmState,
    VmmRuntimeState,
    VmmState,
    VmmStateRequested,
    time_of,
)
from propolis_stub.errors import RepairingRejected
from propolis_stub.types import InstanceState, MigrationPhase, MigrationStatus
from sim_sled.core import contract, observe
from sim_sled.core.config import SimMode, SledConfig
from sim_sled.core.errors import SledError
from sim_sled.core.rack import Rack
from sim_sled.core.vmm import How, Vmm
from sim_sled.language.pacer import PresetPacer

START_US = 1_700_000_000_000_000
SLED = ident("sled")
VMM = ident("vmm")
SYMBOLS = {ident(f"{kind}{number}"): f"{kind}{number}" for kind in "mc" for number in range(100)}

_STATUS = {"InvalidRequest": 400, "NoSuchVmm": 404, "VmmTerminating": 410, "PropolisRefused": 403}
_CODE = {"InvalidRequest": "InvalidRequest", "NoSuchVmm": "NO_SUCH_INSTANCE", "VmmTerminating": "NO_SUCH_INSTANCE"}

_STEPPED = How(PresetPacer("instant"), stepped=True, stop_grace_us=600_000_000, refuse_repeated_target=True)
_SIM = PresetPacer("sim")


@attrs.define
class Got:
    """What we did in one operation. `outcome`: ok, or the class of the refusal; `status`, `code` are HTTP's."""

    outcome: str
    status: int | None = None
    code: str | None = None
    vmm: list[Any] | None = None
    migration_in: list[Any] | None = None
    migration_out: list[Any] | None = None
    resting: str | None = None
    halted: bool | None = None
    touched: list[str] | None = None
    published: list[Any] = attrs.field(factory=list)
    body: Any = None


def asked(kind: str) -> VmmStateRequested:
    if kind == "migration_target":
        return VmmStateRequested(Asked(kind), InstanceMigrationTargetParams("[fd00::99]:12400"))
    return VmmStateRequested(Asked(kind))


def slot(side: MigrationRuntimeState | None) -> list[Any] | None:
    return None if side is None else [SYMBOLS[side.migration_id], side.state.value, side.gen]


def told(record: SledVmmState) -> dict[str, Any]:
    """A record in the notation of the recordings."""
    return {
        "vmm": [record.vmm_state.state.value, record.vmm_state.gen],
        "migration_in": slot(record.migration_in),
        "migration_out": slot(record.migration_out),
    }


def record_of(state: dict[str, Any]) -> SledVmmState:
    """The record that a recorded state describes."""

    def side(given: list[Any] | None) -> MigrationRuntimeState | None:
        if given is None:
            return None
        return MigrationRuntimeState(ident(given[0]), MigrationState(given[1]), given[2], time_of(START_US))

    runtime = VmmRuntimeState(VmmState(state["vmm"][0]), state["vmm"][1], time_of(START_US))
    return SledVmmState(runtime, side(state["migration_in"]), side(state["migration_out"]))


def touched(before: SledVmmState, after: SledVmmState) -> list[str]:
    """Parts whose time was rewritten."""

    def time(side: Any) -> Any:
        return None if side is None else side.time_updated

    pairs = [
        ("vmm", before.vmm_state, after.vmm_state),
        ("migration_in", before.migration_in, after.migration_in),
        ("migration_out", before.migration_out, after.migration_out),
    ]
    return [name for name, was, is_now in pairs if time(was) != time(is_now)]


def registration(state: str, migration_id: UUID | None, gen: int = 1) -> contract.Registration:
    return contract.Registration(
        instance_id=ident("instance"),
        vmm_runtime=VmmRuntimeState(VmmState(state), gen, time_of(START_US)),
        propolis_addr="[fd00::1]:12400",
        ncpus=2,
        memory_mib=1024,
        hostname="recorded",
        silo_id=ident("silo"),
        project_id=ident("project"),
        migration_id=migration_id,
    )


@attrs.define
class RecordPlayer:
    """apply_observation*: the per-VMM record, fed with observations."""

    record: SledVmmState
    now_us: int = START_US

    def play(self, op: list[Any]) -> Got:
        self.now_us += 1
        before = self.record
        try:
            self.record = self._apply(op)
        except RepairingRejected:
            return Got("RepairingRejected", halted=before.vmm_state.state in TERMINAL, touched=[], **told(before))
        return Got(
            "ok",
            halted=self.record.vmm_state.state in TERMINAL,
            touched=touched(before, self.record),
            **told(self.record),
        )

    def _apply(self, op: list[Any]) -> SledVmmState:
        def status(given: list[Any] | None) -> MigrationStatus | None:
            return None if given is None else MigrationStatus(ident(given[0]), MigrationPhase(given[1]))

        match op:
            case ["observe", state, seen_in, seen_out]:
                return observe.observe(
                    self.record, InstanceState(state), status(seen_in), status(seen_out), self.now_us
                )
            case ["force_failed"]:
                return observe.transition(self.record, VmmState.FAILED, self.now_us)
            case ["force_destroyed"]:
                return observe.transition(self.record, VmmState.DESTROYED, self.now_us)
            case ["transition", state]:
                return observe.transition(self.record, VmmState(state), self.now_us)
        raise AssertionError(f"an operation that the README does not have: {op}")


class VmmPlayer:
    """sim_instance*: one VMM, stepped, without anybody around it."""

    def __init__(self, start: dict[str, Any]) -> None:
        self.now_us = START_US
        migration = None if start["migration_id"] is None else ident(start["migration_id"])
        about = registration(start["vmm_state"], migration)
        self.vmm = Vmm(SLED, VMM, about, observe.registered(about.vmm_runtime, migration, self.now_us))

    def play(self, op: list[Any]) -> Got:
        before = self.vmm.record
        outcome = "ok"
        try:
            self._apply(op)
        except SledError as error:
            outcome = type(error).__name__
        record = self.vmm.record
        return Got(
            outcome,
            resting=self.vmm.resting().value,
            halted=self.vmm.terminal,
            touched=touched(before, record),
            **told(record),
        )

    def _apply(self, op: list[Any]) -> None:
        self.now_us += 1
        vmm = self.vmm
        match op:
            case ["request", kind]:
                vmm.put_state(asked(kind), _STEPPED, scripted=True, now_us=self.now_us)
            case ["step"]:
                vmm.step(self.now_us)
            case ["drain"]:
                while vmm.step(self.now_us) is not None:
                    vmm.see(self.now_us)
                    self.now_us += 1
            case ["migration_source", migration, result]:
                vmm.migrate_out_scripted(ident(migration), result == "success", self.now_us)
            case ["terminate"]:
                vmm.unregister(self.now_us)
            case _:
                raise AssertionError(f"an operation that the README does not have: {op}")
        vmm.see(self.now_us)


class RackPlayer:
    """sim_collection: a sled with a Nexus that records and acknowledges everything."""

    def __init__(self, mode: str) -> None:
        self.now_us = START_US
        self.rack = Rack(pacer=_SIM)
        self.sled = self.rack.add_sled(SledConfig(SLED, mode=SimMode(mode), refuse_repeated_target=True))
        self.published: list[SledVmmState] = []
        self.ticket = 0

    def play(self, op: list[Any]) -> Got:
        self.now_us += 1
        self.published = []
        got = Got("ok")
        try:
            got.body = self._body(self._apply(op))
        except SledError as error:
            got.outcome = type(error).__name__
            got.status, got.code = _STATUS[got.outcome], _CODE.get(got.outcome)
        got.published = [told(body) for body in self.published]
        vmm = self.sled.vmms.get(VMM)
        if vmm is not None:
            got.resting, got.halted = vmm.resting().value, vmm.terminal
            for name, value in told(vmm.record).items():
                setattr(got, name, value)
        return got

    def _body(self, answer: Any) -> Any:
        if isinstance(answer, SledVmmState):
            return told(answer)
        runtime = getattr(answer, "updated_runtime", None)
        return None if runtime is None else told(runtime)

    def _apply(self, op: list[Any]) -> Any:
        self.ticket += 1
        ticket = self.ticket
        match op:
            case ["register", state, migration]:
                body = registration(state, None if migration is None else ident(migration))
                return self._submit(contract.Register(ticket, SLED, VMM, body))
            case ["unregister"]:
                return self._submit(contract.Unregister(ticket, SLED, VMM))
            case ["put_state", kind]:
                return self._submit(contract.PutState(ticket, SLED, VMM, asked(kind)))
            case ["get"]:
                return self._submit(contract.GetState(ticket, SLED, VMM))
            case ["poke" | "poke_single" as kind]:
                return self._submit(contract.Poke(ticket, SLED, VMM, drain=kind == "poke"))
            case ["migration_source", migration, result]:
                return self._submit(
                    contract.SimMigrationSource(ticket, SLED, VMM, ident(migration), succeeds=result == "success")
                )
            case ["timers"]:
                return self._timers()
        raise AssertionError(f"an operation that the README does not have: {op}")

    def _submit(self, item: Any) -> Any:
        answers = [each for each in self._turns(item) if getattr(each, "ticket", None) == item.ticket]
        assert len(answers) == 1, "each ticket is answered once"
        if isinstance(answers[0], contract.ReplyError):
            raise answers[0].error
        return answers[0].value

    def _turns(self, item: contract.Input) -> list[contract.Effect]:
        todo, effects = [item], []
        while todo:
            for effect in self.rack.handle(todo.pop(0), self.now_us):
                if isinstance(effect, contract.PutToNexus):
                    self.published.append(effect.body)
                    todo.append(contract.NexusReplied(SLED, effect.propolis_id, effect.serial, Delivered()))
                else:
                    effects.append(effect)
        return effects

    def _timers(self) -> None:
        """Enough time for whatever waits, but not for the grace period of a stop."""
        limit_us = self.now_us + 60_000_000
        while (due_us := self.rack.next_deadline_us()) is not None and due_us <= limit_us:
            self.now_us = max(self.now_us, due_us)
            self._turns(contract.Tick())
