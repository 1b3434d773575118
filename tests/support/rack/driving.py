"""A rack on a virtual clock with a Nexus that does as it is told: the driver of all tests of the sled core.

`RackDriver` asks (one verb per operation), lets time pass, and answers for Nexus. Effects are checked as they come
out: each ticket is answered once, each publication belongs to a known sled. `snapshot` is what "nothing changed"
means: everything that can be reached from an object, as plain values.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any
from uuid import UUID

import attrs

from nexus_client.outbox import Delivered, Outcome, Permanent, Transient
from nexus_client.types import (
    Asked,
    InstanceMigrationTargetParams,
    SledVmmState,
    UpdatedRuntime,
    VmmRuntimeState,
    VmmState,
    VmmStateRequested,
    time_of,
)
from propolis_stub.guest_events import GuestEvent
from propolis_stub.waiting import Pace, Pacer, Point
from sim_sled.core import contract
from sim_sled.core.config import SimMode, SledConfig
from sim_sled.core.errors import SledError
from sim_sled.core.happenings import Happening
from sim_sled.core.rack import Rack
from sim_sled.core.sled import Sled
from sim_sled.core.vmm import Vmm
from sim_sled.core.why import told

T0 = 1_700_000_000_000_000
SECOND = 1_000_000

SLED_A = UUID("00000000-0000-4000-8000-00000000005a")
SLED_B = UUID("00000000-0000-4000-8000-00000000005b")
VMMS = [UUID(f"00000000-0000-4000-8000-0000000000f{number}") for number in range(1, 9)]
MIGRATIONS = [UUID(f"00000000-0000-4000-8000-0000000000c{number}") for number in range(1, 9)]
V1, V2, V3, V4 = VMMS[:4]
M1, M2, M3 = MIGRATIONS[:3]

ACK = Delivered()
DOWN = Transient("connection refused")
GONE = Permanent("410: Gone", 410)

RUNNING, STOPPED, REBOOT = (VmmStateRequested(each) for each in (Asked.RUNNING, Asked.STOPPED, Asked.REBOOT))


def target(address: str) -> VmmStateRequested:
    """The request to migrate in from the Propolis at `address`."""
    return VmmStateRequested(Asked.MIGRATION_TARGET, InstanceMigrationTargetParams(address))


def address_of(propolis_id: UUID) -> str:
    """Where Nexus says that this VMM's Propolis listens."""
    return f"[fd00:1122:3344:101::{propolis_id.int & 0xFF:x}]:12400"


def instance_of(propolis_id: UUID) -> UUID:
    return UUID(int=propolis_id.int ^ (0x77 << 64))


def registration(
    propolis_id: UUID = V1, state: VmmState = VmmState.STARTING, *, gen: int = 2, **fields: Any
) -> contract.Registration:
    """A small body; any field can be given."""
    return contract.Registration(
        **(
            {
                "instance_id": instance_of(propolis_id),
                "vmm_runtime": VmmRuntimeState(state, gen, time_of(T0)),
                "propolis_addr": address_of(propolis_id),
                "ncpus": 2,
                "memory_mib": 2048,
                "hostname": f"host-{propolis_id.int & 0xF}",
                "silo_id": UUID(int=0x5110),
                "project_id": UUID(int=0x990),
            }
            | fields
        )
    )


@attrs.define(eq=False)
class ScriptedPacer:
    """Every point takes `usual_us`; `plan` has what is different: by point, or by (VMM, point)."""

    usual_us: int = 0
    plan: dict[Any, Pace] = attrs.field(factory=dict)

    def pace(self, vm_id: UUID, point: Point, _occurrence: int, _edge: object, /) -> Pace:
        found = self.plan.get((vm_id, point)) or self.plan.get(point)
        return found if found is not None else Pace(self.usual_us)


FAILS = Pace(0, fail=True)
FOR_EVER = Pace(None)


class RackDriver:
    """A rack of sled A and sled B. `acks`: Nexus acknowledges by itself whatever it is told."""

    def __init__(
        self,
        mode: SimMode = SimMode.AUTO,
        *,
        mode_b: SimMode | None = None,
        pacer: Pacer | None = None,
        acks: bool = True,
        config: Mapping[str, Any] | None = None,
        **rack: Any,
    ) -> None:
        self.now_us = T0
        self.acks = acks
        self.happened: list[Happening] = []
        # 1 ms per point: slow enough that every phase is seen, in order
        self.rack = Rack(pacer=pacer or ScriptedPacer(1_000), watch=self.happened.append, **rack)
        for sled_id, its_mode in ((SLED_A, mode), (SLED_B, mode_b or mode)):
            self.rack.add_sled(SledConfig(sled_id, mode=its_mode, **(config or {})))
        self.posts: list[contract.PutToNexus] = []
        self.flying: list[contract.PutToNexus] = []
        self.acked: list[contract.PutToNexus] = []
        self.answers: dict[int, contract.Reply | contract.ReplyError] = {}
        self.others: list[contract.Effect] = []
        self.ticket = 0

    # --- the rack ---------------------------------------------------------------------------------------------------

    def do(self, item: contract.Input) -> list[contract.Effect]:
        """One turn, and what Nexus's answers cause if it answers by itself."""
        effects = self.turn(item)
        while self.acks and self.flying:
            self.nexus_answers(ACK)
        return effects

    def turn(self, item: contract.Input) -> list[contract.Effect]:
        """One turn of the rack alone."""
        effects = self.rack.handle(item, self.now_us)
        for effect in effects:
            if isinstance(effect, contract.PutToNexus):
                self.posts.append(effect)
                self.flying.append(effect)
            elif isinstance(effect, contract.Reply | contract.ReplyError):
                assert effect.ticket not in self.answers, "a ticket is answered once"
                self.answers[effect.ticket] = effect
            else:
                self.others.append(effect)
        return effects

    def wait(self, time_us: int) -> None:
        """Time passes; whatever is due meanwhile happens when it is due."""
        end_us = self.now_us + time_us
        for _ in range(100_000):
            due_us = self.rack.next_deadline_us()
            if due_us is None or due_us > end_us:
                self.now_us = end_us
                return
            self.now_us = max(self.now_us, due_us)
            self.do(contract.Tick())
        raise AssertionError("the rack is never idle")

    def run_until_idle(self, steps_max: int = 2_000) -> None:
        """Time jumps from deadline to deadline until there is none."""
        for _ in range(steps_max):
            due_us = self.rack.next_deadline_us()
            if due_us is None:
                return
            self.now_us = max(self.now_us, due_us)
            self.do(contract.Tick())
        raise AssertionError(f"not idle after {steps_max} deadlines")

    # --- what is asked ----------------------------------------------------------------------------------------------

    def new_ticket(self) -> int:
        self.ticket += 1
        return self.ticket

    def ask(self, kind: type, *fields: Any, **named: Any) -> Any:
        """The value of the answer; raises the refusal. `LATER` if there is no answer yet."""
        item = kind(self.new_ticket(), *fields, **named)
        self.do(item)
        return self.answer(item.ticket)

    def answer(self, ticket: int) -> Any:
        answer = self.answers.get(ticket)
        if isinstance(answer, contract.ReplyError):
            raise answer.error
        return LATER if answer is None else answer.value

    def register(
        self, propolis_id: UUID = V1, state: VmmState = VmmState.STARTING, *, on: UUID = SLED_A, **fields: Any
    ) -> SledVmmState:
        return self.ask(contract.Register, on, propolis_id, registration(propolis_id, state, **fields))

    def put(self, requested: VmmStateRequested, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> SledVmmState:
        """The record in the answer."""
        answer = self.ask(contract.PutState, on, propolis_id, requested)
        assert isinstance(answer, UpdatedRuntime)
        assert answer.updated_runtime is not None
        return answer.updated_runtime

    def get(self, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> SledVmmState:
        return self.ask(contract.GetState, on, propolis_id)

    def unregister(self, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> SledVmmState | None:
        return self.ask(contract.Unregister, on, propolis_id).updated_runtime

    def poke(self, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> Any:
        return self.ask(contract.Poke, on, propolis_id, drain=True)

    def step(self, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> Any:
        return self.ask(contract.Poke, on, propolis_id, drain=False)

    def migrate_out(
        self, migration_id: UUID = M1, propolis_id: UUID = V1, *, succeeds: bool = True, on: UUID = SLED_A
    ) -> Any:
        return self.ask(contract.SimMigrationSource, on, propolis_id, migration_id, succeeds)

    def inject(self, state: VmmState, propolis_id: UUID = V1, *, illegal: bool = False, on: UUID = SLED_A) -> Any:
        return self.ask(contract.InjectState, on, propolis_id, state, illegal)

    def kill(self, propolis_id: UUID = V1, *, restart: bool, on: UUID = SLED_A) -> Any:
        return self.ask(contract.KillPropolis, on, propolis_id, restart)

    def forget(self, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> Any:
        return self.ask(contract.ForgetVmm, on, propolis_id)

    def guest(self, event: GuestEvent, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> Any:
        return self.ask(contract.InjectGuest, on, propolis_id, event)

    def running(self, propolis_id: UUID = V1, *, on: UUID = SLED_A, **fields: Any) -> None:
        """Register, start, and wait (or poke) until it runs; what was published so far is forgotten."""
        self.register(propolis_id, on=on, **fields)
        self.put(RUNNING, propolis_id, on=on)
        if self.sled(on).config.mode is SimMode.EXPLICIT:
            self.poke(propolis_id, on=on)
        else:
            self.wait(SECOND)
        assert self.vmm(propolis_id, on=on).state is VmmState.RUNNING
        self.posts.clear()

    # --- Nexus ------------------------------------------------------------------------------------------------------

    def nexus_answers(self, outcome: Outcome = ACK, propolis_id: UUID | None = None) -> list[contract.Effect]:
        """Nexus answers the oldest publication that is in flight (of one VMM)."""
        post = next(each for each in self.flying if propolis_id in {None, each.propolis_id})
        self.flying.remove(post)
        if outcome == ACK:
            self.acked.append(post)
        return self.turn(contract.NexusReplied(post.sled_id, post.propolis_id, post.serial, outcome))

    # --- what is seen -----------------------------------------------------------------------------------------------

    def sled(self, sled_id: UUID = SLED_A) -> Sled:
        return self.rack.sleds[sled_id]

    def vmm(self, propolis_id: UUID = V1, *, on: UUID = SLED_A) -> Vmm:
        return self.sled(on).get(propolis_id)

    def published(self, propolis_id: UUID = V1) -> list[str]:
        """What was sent about this VMM so far: `running gen 3`, attempts included."""
        return [told(post.body) for post in self.posts if post.propolis_id == propolis_id]


LATER = object()
"""In place of an answer that has not come."""


def refused(call: Any, *args: Any, **named: Any) -> SledError:
    """The refusal that `call` ends with."""
    try:
        call(*args, **named)
    except SledError as error:
        return error
    raise AssertionError("not refused")


# --- nothing changed ------------------------------------------------------------------------------------------------

_PLAIN = (int, str, bytes, bool, type(None), UUID, datetime, Enum)
_NOT_STATE = {"pacer", "watch", "now_us"}
"""Of a rack: who decides and who watches; the time of the last input moves with every input."""


def snapshot(thing: Any) -> Any:
    """All that can be reached from `thing` as plain values; objects that meet again are named by their number."""
    return _walk(thing, {})


def _walk(thing: Any, met: dict[int, tuple[int, Any]]) -> Any:
    if isinstance(thing, _PLAIN):
        return thing
    if callable(thing):
        return getattr(thing, "__qualname__", type(thing).__name__)
    if id(thing) in met:
        return f"<{met[id(thing)][0]}>"
    met[id(thing)] = (len(met), thing)
    if isinstance(thing, Mapping):
        return {str(key): _walk(value, met) for key, value in thing.items()}
    if isinstance(thing, list | tuple | deque):
        return [_walk(each, met) for each in thing]
    if isinstance(thing, set | frozenset):
        return sorted(repr(_walk(each, met)) for each in thing)
    names = (*_slots(type(thing)), *filter(_is_state, getattr(thing, "__dict__", ())))
    found = {name: _walk(getattr(thing, name), met) for name in names if hasattr(thing, name)}
    return {"": type(thing).__name__, **found}


@cache
def _slots(kind: type) -> list[str]:
    return [name for cls in kind.__mro__ for name in getattr(cls, "__slots__", ()) if _is_state(name)]


def _is_state(name: str) -> bool:
    return name not in _NOT_STATE and not name.startswith("__")
