"""One VMM on a sled: its record, its Propolis, and the sled's rules between the two.

A VMM is registered without a Propolis, as on the real agent: the first accepted `running` or `migration_target`
makes one. What Propolis publishes is seen by `see`, once per turn of the rack: a monitor client gets the latest
publication, not each (PR 3.7).

Read before: core/observe.py, core/rules.py, core/scheduler.py, propolis_stub/vm.py.
Read next: core/sled.py, core/turn.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.types import (
    MIGRATION_TERMINAL,
    TERMINAL,
    Asked,
    MigrationRuntimeState,
    SledVmmState,
    VmmState,
    VmmStateRequested,
)
from propolis_stub.contract import (
    Crash,
    Disposed,
    EnsureSpec,
    EnsureTarget,
    MigrateOut,
    Published,
    Request,
    Step,
    Tick,
)
from propolis_stub.contract import Effect as VmEffect
from propolis_stub.contract import Input as VmInput
from propolis_stub.errors import NoInstance, Reason, RequestDenied
from propolis_stub.migration.script import NO_BAGGAGE, Baggage
from propolis_stub.request_queue import Disposition
from propolis_stub.types import InstanceState, MigrationStatus, Publication, RequestKind, Role
from propolis_stub.vm import Vm
from propolis_stub.waiting import Edge, Pacer, Point
from sim_sled.core import observe
from sim_sled.core.config import ASKED_KEPT, MIGRATIONS_OUT_MAX, POKES_WAITING_MAX
from sim_sled.core.contract import Registration
from sim_sled.core.errors import (
    AgentAborts,
    ChannelFull,
    Internal,
    InvalidRequest,
    PropolisRefused,
    PropolisSilent,
    VmmTerminating,
)
from sim_sled.core.rules import RULES, Verdict, refusal

_NOTHING: Final[list[VmEffect]] = []
_LOOKS: Final = Edge(InstanceState.MIGRATING, role=Role.TARGET)
"""A target, as its agent looks at it for the first time."""
_RESTING: Final = {
    InstanceState.CREATING: VmmState.STARTING,
    InstanceState.STARTING: VmmState.STARTING,
    InstanceState.RUNNING: VmmState.RUNNING,
    InstanceState.FAILED: VmmState.FAILED,
    InstanceState.DESTROYED: VmmState.DESTROYED,
}
"""All states that a Propolis can rest in."""

_ENSURE, _ENSURE_FAILS = EnsureSpec(), EnsureSpec(fails=True)
_RUN, _TICK, _CRASH = Request(RequestKind.RUN), Tick(), Crash()
_REQUESTS: Final = {kind: Request(kind) for kind in RequestKind}
# A member of an enum, taken from its class, costs 0.1 us (CPython 3.11): these are asked for all the time.
_NO_OP: Final = Verdict.NO_OP
_REFUSE: Final = Verdict.REFUSE
_STOPPED: Final = Asked.STOPPED
_MIGRATION_TARGET: Final = Asked.MIGRATION_TARGET

_NEEDS_PROPOLIS: Final = frozenset({Verdict.STOP, Verdict.REBOOT})


BaggageOf = Callable[[UUID, UUID], Baggage]
"""(sled_id, propolis_id) -> what this VMM's Propolis takes along when it migrates."""


def no_baggage(_sled_id: UUID, _propolis_id: UUID) -> Baggage:
    """Nobody serves the Propolis API, so there is nothing to take along."""
    return NO_BAGGAGE


class How(Struct, frozen=True):
    """What a VMM takes from its sled: who decides on durations, whether it is stepped, how long a stop may take."""

    pacer: Pacer
    stepped: bool
    stop_grace_us: int
    baggage: BaggageOf = no_baggage
    refuse_repeated_target: bool = False
    aborts_on_early_stop: bool = False


class WasAsked(Struct, frozen=True, gc=False):
    """A request for a state that was accepted. A tuple would be twice as large, and each VMM has some."""

    at_us: int
    requested: VmmStateRequested


class WaitingPoke(Struct, frozen=True):
    """A poke that has not been answered yet."""

    ticket: int
    drain: bool


class RunningPoke(Struct, eq=False):
    """The poke that is being carried out: it waits for Nexus to settle what its last step published."""

    ticket: int
    drain: bool
    until_us: int
    steps: int = 0
    gen: int = 0  # of the record that Nexus must settle before it goes on


@attrs.define(eq=False, weakref_slot=False)
class Vmm:
    """All state of one VMM. `record` is what the sled publishes; it is replaced, never changed."""

    sled_id: UUID
    propolis_id: UUID
    about: Registration
    record: SledVmmState
    registered: bool = False
    vm: Vm | None = None
    latest: Publication | None = None  # published by Propolis, not yet seen by the sled
    seen: Publication | None = None
    blind: bool = False  # the agent has not yet looked at a new migration target
    see_at_us: int | None = None  # when it will
    grace_us: int | None = None  # when the agent ends a VMM whose stop takes too long
    silent: VmmState | None = None  # Propolis died and nobody noticed: where the VMM was going to rest
    acked: SledVmmState | None = None
    refused: str = ""  # Nexus's reason, when it has finally refused the last publication that was settled
    poke: RunningPoke | None = None
    pokes: deque[WaitingPoke] | None = None
    peer: Vmm | None = None  # the other VMM of a migration within this rack
    source_addr: str = ""  # a target's: where Nexus says its source is
    source_gone: bool = False  # a target's: a VMM of this rack was there, and nobody is
    tried: tuple[UUID, ...] = ()  # migrations out, whatever became of them
    asked: tuple[WasAsked, ...] = ()
    clock_us: int = 0  # how far its sled's clock is ahead: in times that are told, and in no wait
    due_us: int | None = None  # both for the scheduler
    armed: int = 0

    @property
    def state(self) -> VmmState:
        return self.record.vmm_state.state

    @property
    def terminal(self) -> bool:
        return self.record.vmm_state.state in TERMINAL

    def resting(self) -> VmmState:
        """Where this VMM will be once everything accepted is done (SA 2.1)."""
        state = self.record.vmm_state.state
        if state in TERMINAL:
            return state
        if self.vm is None:
            return self.silent or state
        return _RESTING[self.vm.resting_state()]

    def deadline_us(self) -> int | None:
        """When something here is due next."""
        vm, grace_us, poke = self.vm, self.grace_us, self.poke
        soonest = None if vm is None else vm.next_deadline_us()
        if grace_us is not None and (soonest is None or grace_us < soonest):
            soonest = grace_us
        if self.see_at_us is not None and (soonest is None or self.see_at_us < soonest):
            soonest = self.see_at_us
        if poke is not None and (soonest is None or poke.until_us < soonest):
            soonest = poke.until_us
        return soonest

    def judge(self, requested: VmmStateRequested, *, refuse_repeated_target: bool = False) -> Verdict:
        """What the table says to `requested`. Raises the refusal; changes nothing."""
        resting = self.resting()
        told_before = requested.type is _MIGRATION_TARGET and self.source_addr and not self.terminal
        if told_before and not refuse_repeated_target:
            # Propolis refuses the second ensure with a 409, and the agent goes on all the same (SA 2.12, PR 3.9).
            return _NO_OP
        verdict = RULES[requested.type, resting]
        if verdict is _NO_OP:
            return verdict
        if verdict is _REFUSE:
            if self.terminal:
                raise VmmTerminating("Instance is terminating")
            raise InvalidRequest(refusal(requested.type, resting, self.state))
        assert not self.terminal, "the table lets nothing pass at the end"
        if requested.type is _MIGRATION_TARGET and self.record.migration_in is None:
            raise InvalidRequest("can't request migration in for a vmm that wasn't created with a migration ID")
        if self.silent is not None:
            raise PropolisSilent("Propolis does not answer")
        if self.vm is None and verdict in _NEEDS_PROPOLIS:
            return self._without_propolis(verdict)
        return verdict

    def _without_propolis(self, verdict: Verdict) -> Verdict:
        """An injected state may be one that only a Propolis can be in: as the real agent (SA 2.12)."""
        if verdict is Verdict.REBOOT:
            raise Internal("this VMM was never started")
        return Verdict.DESTROY_NOW

    def put_state(
        self, requested: VmmStateRequested, how: How, *, scripted: bool, now_us: int
    ) -> tuple[Verdict, list[VmEffect]]:
        """Judge `requested` and carry it out. Raises a `SledError` and changes nothing if it is refused; raises
        `AgentAborts` for a stop before the start if that hazard is on.

        `scripted`: the source of a migration in is imagined.
        """
        if how.aborts_on_early_stop and requested.type is Asked.STOPPED and self.vm is None and not self.terminal:
            raise AgentAborts("should have an active Propolis zone by now")
        verdict = self.judge(requested, refuse_repeated_target=how.refuse_repeated_target)
        effects = self._carry_out(verdict, requested, how, scripted=scripted, now_us=now_us)
        self.asked = (*self.asked[1 - ASKED_KEPT :], WasAsked(now_us, requested))
        return verdict, effects

    def _carry_out(
        self, verdict: Verdict, requested: VmmStateRequested, how: How, *, scripted: bool, now_us: int
    ) -> list[VmEffect]:
        if verdict is _NO_OP:  # the most frequent by far
            return self._stop_quietly(now_us) if requested.type is _STOPPED else _NOTHING
        match verdict:
            case Verdict.START:
                return self._start(how, now_us)
            case Verdict.STOP:
                return self._stop(how.stop_grace_us, now_us)
            case Verdict.REBOOT:
                return self._reboot(now_us)
            case Verdict.MIGRATE_IN:
                return self._migrate_in(requested, how, scripted, now_us)
            case Verdict.DESTROY_NOW:
                return self.force(VmmState.DESTROYED, now_us)
            case Verdict.REFUSE:
                raise AssertionError("`judge` raises what is refused")

    def _start(self, how: How, now_us: int) -> list[VmEffect]:
        """A fresh Propolis is told to run. Nothing is published yet: the sled's monitor starts after the ensure."""
        vm = Vm(self.propolis_id, how.pacer, stepped=how.stepped)
        effects = vm.handle(_ENSURE_FAILS if self.about.unbuildable else _ENSURE, now_us)
        self.vm = vm
        self.take(effects)
        if vm.queue is None:
            return effects  # its objects could not be made: it has failed already, and is seen to have
        self.seen, self.latest = self.latest, None
        return effects + self.drive(_RUN, now_us)

    def _migrate_in(self, requested: VmmStateRequested, how: How, scripted: bool, now_us: int) -> list[VmEffect]:
        """A fresh Propolis is told to pull its state from a source (`scripted`: an imagined one)."""
        assert self.record.migration_in is not None, "judged before"
        assert requested.value is not None, "the codec refuses a migration_target without a value"
        self.source_addr = requested.value.src_propolis_addr
        vm = Vm(self.propolis_id, how.pacer, stepped=how.stepped)
        baggage = how.baggage(self.sled_id, self.propolis_id)
        target = EnsureTarget(
            self.record.migration_in.migration_id,
            scripted=scripted,
            baggage=baggage,
            fails=bool(self.about.unbuildable),
        )
        effects = vm.handle(target, now_us)
        self.vm = vm
        # The request changes nothing that is published yet (SA 2.3): stepped, the VM itself waits for
        # the first step; else the agent looks at it in its own time, before the first phase is through.
        self.blind = not how.stepped
        if self.blind:
            wake = how.pacer.pace(self.propolis_id, Point.WAKE, 0, _LOOKS).after_us
            self.see_at_us = None if wake is None else now_us + wake
        return self.take(effects)

    def _stop(self, grace_us: int, now_us: int) -> list[VmEffect]:
        """Propolis is told to stop and the record says `stopping` at once, as the real agent has it."""
        effects = self._request(RequestKind.STOP, now_us)[1]
        self.record = observe.transition(self.record, VmmState.STOPPING, now_us + self.clock_us)
        self.grace_us = now_us + grace_us
        return effects

    def _stop_quietly(self, now_us: int) -> list[VmEffect]:
        """A stop that is a no-op to the table still counts for a source: it is carried out if the migration
        fails, as Propolis does (PR 3.5).
        """
        if self.vm is None or self.terminal:
            return _NOTHING
        try:
            return self.take(self.vm.handle(Request(RequestKind.STOP), now_us))
        except (RequestDenied, NoInstance):
            return _NOTHING

    def _reboot(self, now_us: int) -> list[VmEffect]:
        """Propolis is told to reboot; the record says `rebooting` at once, unless a reboot is pending already."""
        if self.state is VmmState.REBOOTING:
            return _NOTHING
        disposition, effects = self._request(RequestKind.REBOOT, now_us)
        if disposition is Disposition.QUEUED:
            self.record = observe.transition(self.record, VmmState.REBOOTING, now_us + self.clock_us)
        return effects

    def migrate_out_scripted(self, migration_id: UUID, succeeds: bool, now_us: int) -> list[VmEffect]:
        """Migrate out to a peer that does not exist; on demand the peer fails while RAM is pushed."""
        resting = self.resting()
        if self.vm is None or resting is not VmmState.RUNNING or self.state is not VmmState.RUNNING:
            raise InvalidRequest(
                f"can't migrate out with pending resting state {resting.value} (current state: {self.state.value})"
            )
        self.check_untried(migration_id)
        fails_in = None if succeeds else Point.M_RAM_PUSH
        return self.migrate_out(MigrateOut(migration_id, scripted=True, fails_in=fails_in), now_us)

    def migrate_out(self, item: MigrateOut, now_us: int) -> list[VmEffect]:
        """Hand Propolis a migration out that was not tried before. Raises `PropolisRefused`."""
        assert self.vm is not None, "judged before"
        try:
            effects = self.vm.handle(item, now_us)
        except (RequestDenied, NoInstance) as denied:
            raise PropolisRefused(str(denied)) from denied
        self.tried += (item.migration_id,)
        return self.take(effects)

    def check_untried(self, migration_id: UUID) -> None:
        """Raises `InvalidRequest` for a migration that this VMM has seen before: Nexus takes the first end of each
        side for good, and one VMM is never both sides (NX 7 #8, #9 and #11).
        """
        came_by = self.record.migration_in
        if migration_id in self.tried or (came_by is not None and came_by.migration_id == migration_id):
            known = RequestDenied(Reason.ALREADY_MIGRATION_SOURCE)  # what the Propolis API would say
            raise InvalidRequest(f"migration {migration_id} was tried before") from known
        if len(self.tried) >= MIGRATIONS_OUT_MAX:
            raise InvalidRequest(f"{MIGRATIONS_OUT_MAX} migrations out of this VMM were tried")

    def unregister(self, now_us: int) -> list[VmEffect]:
        """Rude termination. A VMM that has ended already keeps its end: nothing follows a terminal state."""
        return _NOTHING if self.terminal else self.force(VmmState.FAILED, now_us)

    def step(self, now_us: int) -> list[VmEffect] | None:
        """Go to the next waiting point; the first step of a target is the look at it. None: nothing waits."""
        if self.blind:
            self.blind = False
            return []
        if self.vm is None or self.terminal:
            return None
        effects = self.drive(Step(), now_us)
        while self.latest is None and self.vm.can_step:
            effects = effects + self.drive(Step(), now_us)  # nobody pokes to see nothing
        return effects or None

    def tick(self, now_us: int) -> list[VmEffect]:
        """Whatever of this VMM is due by now; the stop grace comes last, so that a stop in time is in time."""
        effects = _NOTHING
        if self.see_at_us is not None and self.see_at_us <= now_us:
            self.see_at_us, self.blind = None, False
        if self.vm is not None:
            due_us = self.vm.next_deadline_us()
            if due_us is not None and due_us <= now_us:
                self.see_at_us, self.blind = None, False
                effects = self.drive(_TICK, now_us)
        return effects

    def grace_is_over(self, now_us: int) -> bool:
        return self.grace_us is not None and self.grace_us <= now_us and not self.terminal

    def drive(self, item: VmInput, now_us: int) -> list[VmEffect]:
        """Give `item` to Propolis; publications are kept for `see`, the other effects returned."""
        assert self.vm is not None
        return self.take(self.vm.handle(item, now_us))

    def see(self, now_us: int) -> SledVmmState | None:
        """Look at the latest publication; the record after it if there was one, to be told to Nexus."""
        if self.latest is None or self.blind:
            return None
        self.seen, self.latest = self.latest, None
        if self.terminal:
            return None  # whatever Propolis still says: nothing follows a terminal state (NX 7 #6)
        seen, known = self.seen, self.record
        into, out = seen.migration_in, seen.migration_out
        if into is not None or out is not None:
            into, out = _news(known.migration_in, into), _news(known.migration_out, out)
        self.record = record = observe.observe(known, seen.state, into, out, now_us + self.clock_us)
        if record.vmm_state.state in TERMINAL:
            self.grace_us = None
        return record

    def force(self, state: VmmState, now_us: int) -> list[VmEffect]:
        """The agent itself says how this VMM ends (or, for tests, anything else); a terminal one loses Propolis."""
        self.record = observe.transition(self.record, state, now_us + self.clock_us)
        if state not in TERMINAL:
            return _NOTHING
        return self.lose_propolis(now_us)

    def lose_propolis(self, now_us: int) -> list[VmEffect]:
        """The Propolis process is gone; its peer, if any, notices."""
        self.grace_us = None
        self.see_at_us, self.blind = None, False
        vm, self.vm = self.vm, None
        if vm is None:
            return _NOTHING
        effects = self.take(vm.handle(_CRASH, now_us))
        self.latest = None
        return effects

    def queue_poke(self, ticket: int, drain: bool) -> None:
        """Let a poke wait for the one before it. Raises `ChannelFull` beyond the limit of the real agent."""
        if self.pokes is None:
            self.pokes = deque()
        if len(self.pokes) >= POKES_WAITING_MAX:
            raise ChannelFull("too many pokes wait for this VMM")
        self.pokes.append(WaitingPoke(ticket, drain))

    def _request(self, kind: RequestKind, now_us: int) -> tuple[Disposition, list[VmEffect]]:
        assert self.vm is not None, "the table lets nothing pass without a Propolis"
        try:
            effects = self.vm.handle(_REQUESTS[kind], now_us)
        except RequestDenied as denied:
            raise PropolisRefused(str(denied)) from denied
        first = effects[0]
        assert isinstance(first, Disposed), "the queue answers before the driver does anything"
        return first.disposition, self.take(effects)

    def go_silent(self, now_us: int) -> list[VmEffect]:
        """The Propolis process dies and the agent, whose monitor is retried for ever, does not notice. Only the
        grace period of a stop goes on: it is what ends such a VMM.
        """
        resting, grace_us = self.resting(), self.grace_us
        effects = self.lose_propolis(now_us)
        self.silent, self.grace_us = resting, grace_us
        return effects

    def take(self, effects: list[VmEffect]) -> list[VmEffect]:
        """Keep what was published for `see`; returns the same effects."""
        for effect in effects:
            if type(effect) is Published:
                self.latest = effect.publication
        return effects


def _news(known: MigrationRuntimeState | None, seen: MigrationStatus | None) -> MigrationStatus | None:
    """What is worth telling of `seen`. A side may still fail when it has said `Finish`; but Nexus acts on the first
    end it hears, so a side that has ended stays as it is (NX 7 #8).
    """
    if known is None or seen is None or known.state not in MIGRATION_TERMINAL or known.migration_id != seen.id:
        return seen
    return None
