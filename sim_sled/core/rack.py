"""The core: all sleds of this process, one scheduler, and one door.

`handle(input, now_us) -> effects` is the only door; `next_deadline_us()` says when to come with the next `Tick`.
A refusal is raised as a `SledError` and has changed nothing.

It is made of the sleds, a turn (turn.py) and the links between migrating VMMs (links.py).
Over 500 lines: one function for each input.

Read before: core/contract.py, core/links.py, core/sled.py.
Read next: daemon/daemon.py, play/conductor.py, play/passage.py, play/virtual.py.
"""

from __future__ import annotations

from typing import Final, assert_never
from uuid import UUID

from nexus_client import registration as reg
from nexus_client.outbox import (
    Delivered,
    Hurry,
    OutboxEffect,
    Permanent,
    Send,
    Settled,
    Transient,
)
from nexus_client.outbox import Tick as OutboxTick
from nexus_client.types import TERMINAL, UpdatedRuntime, VmmState
from propolis_stub.contract import Guest, MigrateOut
from propolis_stub.errors import PropolisError, QueueFull, RepairingRejected, RequestDenied
from propolis_stub.pacers import SettablePacer
from propolis_stub.presets import paces
from propolis_stub.types import Level
from propolis_stub.waiting import Pacer
from sim_sled.core import contract
from sim_sled.core.config import DRAIN_STEPS_MAX, SledConfig
from sim_sled.core.contract import Effect, Input
from sim_sled.core.errors import (
    AgentAborts,
    ChannelFull,
    InvalidRequest,
    NexusUnreachable,
    NoSuchVmm,
    PropolisRefused,
    SledError,
    SledGone,
)
from sim_sled.core.estate import ESTATE, AtOnce, SledPacer
from sim_sled.core.happenings import AGENT_ABORTS, AGENT_FORGETS, Happening, Kind, Watch
from sim_sled.core.links import Links
from sim_sled.core.rules import Verdict
from sim_sled.core.sled import Sled
from sim_sled.core.turn import Turn
from sim_sled.core.vmm import BaggageOf, RunningPoke, Vmm, no_baggage

# A member of an enum, taken from its class, costs 0.1 us (CPython 3.11): these are asked for all the time.
_NO_OP: Final = Verdict.NO_OP
_ASKED: Final = Kind.ASKED

TICKS_MAX: Final = 500
"""Due actors served by one `Tick`, so that I/O gets its turn; `next_deadline_us` stays in the past until all are."""


class Rack:
    """All sleds of one process.

    `pacer` and `sled_pacer` decide how long things take, all chance follows from `seed`. `remote_peers`: a migration
    source that is not in this rack is looked for on the network; without it such a source is imagined, as the
    existing simulator does. `expose` and `baggage`: for shells that serve the Propolis API (links.py). `watch` is
    told what happens.
    """

    def __init__(
        self,
        *,
        pacer: Pacer | None = None,
        sled_pacer: SledPacer | None = None,
        seed: int = 0,
        remote_peers: bool = False,
        expose: bool = False,
        baggage: BaggageOf = no_baggage,
        watch: Watch | None = None,
    ) -> None:
        self.sleds: dict[UUID, Sled] = {}
        self.pacer: Pacer = SettablePacer(paces("sim")) if pacer is None else pacer
        self.sled_pacer: SledPacer = AtOnce() if sled_pacer is None else sled_pacer
        self.seed = seed
        self.remote_peers = remote_peers
        self._turn = Turn(watch)
        self._links = Links(self._turn, expose, baggage)

    @property
    def watch(self) -> Watch | None:
        return self._turn.watch

    @watch.setter
    def watch(self, watch: Watch | None) -> None:
        self._turn.watch = watch

    def serve_propolis(self, baggage: BaggageOf, *, remote_peers: bool) -> None:
        """To be called before there are sleds: the shell serves each VMM's Propolis API."""
        assert not self.sleds
        self._links.expose, self._links.baggage, self.remote_peers = True, baggage, remote_peers

    def add_sled(self, config: SledConfig) -> Sled:
        """Add a sled. ValueError if its id is taken."""
        if config.sled_id in self.sleds:
            raise ValueError(f"two sleds with the id {config.sled_id}")
        sled = Sled(config, self.pacer, self.seed, self._links.baggage, self._links.expose, rack=self.sleds)
        sled.sled_pacer = self.sled_pacer
        self.sleds[config.sled_id] = sled
        return sled

    def remove_sled(self, sled_id: UUID, now_us: int) -> None:
        """A sled leaves: its VMMs are forgotten, what it had not told is lost. ValueError if there is none such."""
        sled = self.sleds.get(sled_id)
        if sled is None:
            raise ValueError(f"no sled with the id {sled_id}")
        for propolis_id in list(sled.vmms):
            self.handle(contract.ForgetVmm(0, sled_id, propolis_id), now_us)
        self._turn.scheduler.set(sled, None)
        del self.sleds[sled_id]

    def _sled(self, sled_id: UUID) -> Sled:
        sled = self.sleds.get(sled_id)
        if sled is None:
            raise SledGone(sled_id)
        return sled

    def next_deadline_us(self) -> int | None:
        """When the next `Tick` has something to do; None: never, as things are."""
        return self._turn.scheduler.next_us()

    def handle(self, item: Input, now_us: int) -> list[Effect]:
        """Take one input; returns what shall be done about it, in this order. Raises `SledError` for a refusal."""
        turn = self._turn
        turn.now_us = now_us
        effects: list[Effect] = []
        self._let_in(item, effects)
        if turn.touched or self._links.messages:
            self._settle(effects)
        return effects

    def _let_in(self, item: Input, effects: list[Effect]) -> None:
        """One door per input, the busiest first."""
        match item:
            case contract.Tick():
                self._tick(effects)
            case contract.NexusReplied():
                self._nexus_replied(item, effects)
            case contract.PutState():
                self._put_state(item, effects)
            case contract.GetState():
                self._get_state(item, effects)
            case contract.Register():
                self._register(item, effects)
            case contract.Unregister():
                self._unregister(item, effects)
            case contract.Poke():
                self._poke(item, effects)
            case contract.CallArea():
                self._call_area(item, effects)
            case contract.PropolisInput():
                self._propolis_input(item, effects)
            case contract.SimMigrationSource():
                self._sim_migration_source(item, effects)
            case contract.InjectState():
                self._inject_state(item, effects)
            case contract.KillPropolis():
                self._kill_propolis(item, effects)
            case contract.ForgetVmm():
                self._forget_vmm(item, effects)
            case contract.InjectGuest():
                self._inject_guest(item, effects)
            case contract.JumpClock(ticket, sled_id, us):
                self._sled(sled_id).jump(us)
                effects.append(contract.Reply(ticket, None))
            case contract.Announce():
                self._announce(item, effects)
            case contract.RegistrationReplied():
                self._registration_replied(item, effects)
            case contract.HurryOutbox():
                self._hurry(item, effects)
            case _:
                assert_never(item)

    def _settle(self, effects: list[Effect]) -> None:
        """What migrating VMMs have to say is said, then each VMM that moved is looked at, once."""
        turn = self._turn
        if self._links.messages:
            self._links.deliver_all(effects)
        for vmm in turn.take_touched():
            published = vmm.latest
            if published is not None:
                before, seen_before = vmm.record, vmm.seen
                record = vmm.see(turn.now_us)
                if turn.watch is not None and vmm.seen is published:
                    turn.tell(vmm, Kind.PROPOLIS, (seen_before, published))
                if record is not None and vmm.registered:
                    if turn.watch is not None:
                        turn.tell(vmm, Kind.OBSERVED, (before, record))
                    self._publish(self.sleds[vmm.sled_id], vmm, effects)
            turn.rearm(vmm)

    # --- requests of Nexus ------------------------------------------------------------------------------------------

    def _register(self, item: contract.Register, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        vmm, new = sled.register(item.propolis_id, item.body, self._turn.now_us)
        if new:
            self._links.add_source(vmm)
            if self._turn.watch is not None:
                self._turn.tell(vmm, Kind.REGISTERED, vmm.record)
        effects.append(contract.Reply(item.ticket, vmm.record))

    def _unregister(self, item: contract.Unregister, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        vmm = sled.vmms.get(item.propolis_id)
        if vmm is None:
            # 404 would jam an unwinding saga (NX 4.3)
            effects.append(contract.Reply(item.ticket, UpdatedRuntime(None)))
            return
        self._links.after(vmm, vmm.unregister(self._turn.now_us), effects)
        self._turn.tell(vmm, Kind.UNREGISTERED, vmm.record)
        self._remove(sled, vmm, effects)
        effects.append(contract.Reply(item.ticket, UpdatedRuntime(vmm.record)))

    def _get_state(self, item: contract.GetState, effects: list[Effect]) -> None:
        effects.append(contract.Reply(item.ticket, self._sled(item.sled_id).get(item.propolis_id).record))

    def _put_state(self, item: contract.PutState, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        vmm = sled.get(item.propolis_id)
        before = vmm.record
        where = item.requested.value
        source, gone = None, False
        if where is not None:
            source = self._links.source_at(where.src_propolis_addr, vmm)
            gone = source is None and self._links.is_gone(where.src_propolis_addr)
        scripted = source is None and not gone and not self.remote_peers
        try:
            verdict, rest = vmm.put_state(item.requested, sled.how, scripted=scripted, now_us=self._turn.now_us)
        except AgentAborts as aborts:
            self._abort_agent(sled, effects)
            effects.append(contract.ReplyError(item.ticket, aborts))
            return
        except SledError as refused:
            self._turn.tell(vmm, Kind.REFUSED, (item.requested, refused))
            raise
        if self._turn.watch is not None:
            self._turn.tell(vmm, _ASKED, (item.requested, verdict))
            if vmm.record is not before:
                self._turn.tell(vmm, Kind.OBSERVED, (before, vmm.record))
        effects.append(contract.Reply(item.ticket, UpdatedRuntime(vmm.record)))
        if verdict is _NO_OP and not rest:
            return
        if verdict is Verdict.MIGRATE_IN:
            vmm.peer, vmm.source_gone = source, gone and not self.remote_peers
            how = (
                "in this rack" if source
                else "imagined" if scripted
                else "gone from this rack" if vmm.source_gone
                else "looked for on the network"
            )  # fmt: skip
            self._turn.tell(vmm, Kind.MIGRATION, f"source {vmm.source_addr} {how}")
        elif verdict is Verdict.DESTROY_NOW:
            self._publish(sled, vmm, effects)  # nothing else would ever report it (SA 6 #15)
        elif vmm.record is not before and sled.outbox.pending_of(vmm.propolis_id) is not None:
            # the answer tells it, but a retry carries the newest (NX 7 #23)
            self._publish(sled, vmm, effects)
        self._links.after(vmm, rest, effects)

    def _sim_migration_source(self, item: contract.SimMigrationSource, effects: list[Effect]) -> None:
        vmm = self._sled(item.sled_id).get(item.propolis_id)
        rest = vmm.migrate_out_scripted(item.migration_id, item.succeeds, self._turn.now_us)
        effects.append(contract.Reply(item.ticket, None))
        self._links.after(vmm, rest, effects)

    def _call_area(self, item: contract.CallArea, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        effects.append(contract.Reply(item.ticket, item.call.apply(getattr(sled, item.facts), self._turn.now_us)))
        if item.facts == ESTATE:
            self._estate_moved(sled, effects)

    def _estate_moved(self, sled: Sled, effects: list[Effect]) -> None:
        effects += sled.estate.effects
        sled.estate.effects.clear()
        self._turn.scheduler.set(sled, sled.deadline_us())

    # --- pokes ------------------------------------------------------------------------------------------------------

    def _poke(self, item: contract.Poke, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        vmm = sled.get(item.propolis_id)
        if vmm.poke is not None:
            vmm.queue_poke(item.ticket, item.drain)
            return
        self._start_poke(sled, vmm, item.ticket, item.drain, effects)

    def _start_poke(self, sled: Sled, vmm: Vmm, ticket: int, drain: bool, effects: list[Effect]) -> None:
        self._turn.tell(vmm, Kind.POKED, drain)
        vmm.poke = RunningPoke(ticket, drain, self._turn.now_us + sled.config.poke_timeout_us)
        self._step_poke(sled, vmm, effects)

    def _step_poke(self, sled: Sled, vmm: Vmm, effects: list[Effect]) -> None:
        """One step of a poke. Whatever it changed, Nexus hears of it; a first step also when nothing changed
        (SA 2.10). A drain ends when nothing waits.
        """
        poke = vmm.poke
        assert poke is not None
        rest = vmm.step(self._turn.now_us)
        if rest is None and poke.steps > 0:
            self._end_poke(sled, vmm, effects)
            return
        poke.steps += 1
        before = vmm.record
        self._links.after(vmm, rest or [], effects)
        self._settle(effects)
        poke.gen = vmm.record.vmm_state.gen
        if vmm.record is before:
            self._publish(sled, vmm, effects)
        self._turn.rearm(vmm)

    def _poke_heard(self, sled: Sled, vmm: Vmm, effects: list[Effect]) -> None:
        """Nexus has settled what the poke published: the next step, or the answer and the next poke."""
        assert vmm.poke is not None
        if vmm.poke.drain and vmm.poke.steps < DRAIN_STEPS_MAX:
            self._step_poke(sled, vmm, effects)
        else:
            self._end_poke(sled, vmm, effects)

    def _end_poke(self, sled: Sled, vmm: Vmm, effects: list[Effect]) -> None:
        assert vmm.poke is not None
        effects.append(contract.Reply(vmm.poke.ticket, None))
        vmm.poke = None
        if vmm.pokes:
            following = vmm.pokes.popleft()
            self._start_poke(sled, vmm, following.ticket, following.drain, effects)

    def _fail_pokes(self, vmm: Vmm, error: SledError, effects: list[Effect]) -> None:
        if vmm.poke is not None:
            effects.append(contract.ReplyError(vmm.poke.ticket, error))
            vmm.poke = None
        while vmm.pokes:
            effects.append(contract.ReplyError(vmm.pokes.popleft().ticket, error))

    # --- faults and the Propolis API --------------------------------------------------------------------------------

    def _inject_state(self, item: contract.InjectState, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        vmm = sled.get(item.propolis_id)
        if not item.illegal and (vmm.terminal or item.state not in TERMINAL):
            raise InvalidRequest(f"a sled cannot force {vmm.state.value} to {item.state.value}")
        self._turn.tell(vmm, Kind.INJECTED, f"state {item.state.value}")
        self._force(sled, vmm, item.state, effects)
        effects.append(contract.Reply(item.ticket, vmm.record))

    def _kill_propolis(self, item: contract.KillPropolis, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        vmm = sled.get(item.propolis_id)
        if vmm.vm is None or vmm.terminal:
            raise InvalidRequest("this VMM has no Propolis")
        self._turn.tell(vmm, Kind.INJECTED, f"propolis killed, {'restarted' if item.restart else 'not restarted'}")
        if item.restart:
            self._force(sled, vmm, VmmState.FAILED, effects)
        else:
            self._links.after(vmm, vmm.go_silent(self._turn.now_us), effects)
        effects.append(contract.Reply(item.ticket, None))

    def _abort_agent(self, sled: Sled, effects: list[Effect]) -> None:
        """The agent is gone, and is there again without its VMMs: nobody is told, Nexus finds out by asking."""
        for vmm in list(sled.vmms.values()):
            self._turn.tell(vmm, Kind.INJECTED, AGENT_ABORTS)
            self._links.after(vmm, vmm.lose_propolis(self._turn.now_us), effects)
            self._remove(sled, vmm, effects)

    def _forget_vmm(self, item: contract.ForgetVmm, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        vmm = sled.get(item.propolis_id)
        self._turn.tell(vmm, Kind.INJECTED, AGENT_FORGETS)
        self._links.after(vmm, vmm.lose_propolis(self._turn.now_us), effects)
        self._remove(sled, vmm, effects)
        effects.append(contract.Reply(item.ticket, None))

    def _inject_guest(self, item: contract.InjectGuest, effects: list[Effect]) -> None:
        self._propolis_input(
            contract.PropolisInput(item.ticket, item.sled_id, item.propolis_id, Guest(item.event)), effects
        )

    def _propolis_input(self, item: contract.PropolisInput, effects: list[Effect]) -> None:
        vmm = self._sled(item.sled_id).get(item.propolis_id)
        if vmm.vm is None:
            raise InvalidRequest("this VMM has no Propolis")
        try:
            if isinstance(item.item, MigrateOut):
                vmm.check_untried(item.item.migration_id)
                done = vmm.migrate_out(item.item, self._turn.now_us)
            else:
                done = vmm.drive(item.item, self._turn.now_us)
        except RequestDenied as denied:
            raise PropolisRefused(str(denied)) from denied
        except QueueFull as full:
            raise ChannelFull(str(full)) from full
        except RepairingRejected:
            raise  # it keeps its name in every layer
        except PropolisError as refused:
            raise InvalidRequest(str(refused)) from refused
        effects.append(contract.Reply(item.ticket, done))
        self._links.after(vmm, done, effects)

    # --- Nexus answers ----------------------------------------------------------------------------------------------

    def _nexus_replied(self, item: contract.NexusReplied, effects: list[Effect]) -> None:
        sled = self.sleds.get(item.sled_id)
        if sled is None:
            return  # it has left while Nexus answered
        vmm = sled.vmms.get(item.propolis_id)
        done = sled.outbox.replied(item.propolis_id, item.serial, item.outcome, self._turn.now_us)
        if isinstance(item.outcome, Transient):
            if vmm is not None:
                self._turn.tell(vmm, Kind.RETRYING, item.outcome)
            self._turn.scheduler.set(sled, sled.deadline_us())  # only a failure sets a timer
        if done and vmm is not None:
            self._outbox_effects(sled, done, effects, vmm)

    def _outbox_effects(
        self, sled: Sled, done: list[OutboxEffect], effects: list[Effect], all_of: Vmm | None = None
    ) -> None:
        """Perform what an outbox wants; `all_of` is the one VMM it speaks of, where the caller knows."""
        for effect in done:
            vmm = all_of if all_of is not None else sled.vmms.get(effect.propolis_id)
            if vmm is None or not vmm.registered:
                continue  # it was removed by the effect before this one: its end was settled, nothing may follow
            if isinstance(effect, Send):
                effects.append(
                    contract.PutToNexus(
                        sled.config.sled_id, effect.propolis_id, effect.body, effect.attempt, effect.serial
                    )
                )
                if self._turn.watch is not None:
                    self._turn.tell(vmm, Kind.SENT, (effect.body, effect.attempt))
            else:
                self._settled(sled, vmm, effect, effects)

    def _settled(self, sled: Sled, vmm: Vmm, effect: Settled, effects: list[Effect]) -> None:
        if isinstance(effect.outcome, Delivered):
            vmm.acked, vmm.refused = effect.body, ""
            if self._turn.watch is not None:
                self._turn.tell(vmm, Kind.ACKED, effect.body)
        else:
            assert isinstance(effect.outcome, Permanent)
            vmm.refused = effect.outcome.why
            self._turn.tell(vmm, Kind.GIVEN_UP, effect.outcome)
        if vmm.terminal and effect.body is vmm.record:
            # only now: who asks before Nexus has heard the end must not get a 404 (omicron#7282)
            if self._turn.watch is not None:
                self._turn.tell(vmm, Kind.FORGOTTEN, vmm.record)
            poke, vmm.poke = vmm.poke, None
            if poke is not None:
                effects.append(contract.Reply(poke.ticket, None))
            self._remove(sled, vmm, effects)
        elif vmm.poke is not None and effect.body.vmm_state.gen >= vmm.poke.gen:
            self._poke_heard(sled, vmm, effects)
            self._turn.rearm(vmm)

    def _announce(self, item: contract.Announce, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        if sled.registration is None:
            sled.registration = reg.Registration(
                item.sled_id, item.info, seed=self.seed, recheck_us=sled.config.recheck_us
            )
            done = sled.registration.handle(OutboxTick(), self._turn.now_us)
        else:
            done = sled.registration.handle(reg.InfoChanged(item.info), self._turn.now_us)
        self._registration_effects(sled, done, effects)

    def _registration_replied(self, item: contract.RegistrationReplied, effects: list[Effect]) -> None:
        sled = self.sleds.get(item.sled_id)
        if sled is None:
            return  # it has left while Nexus answered
        assert sled.registration is not None, "nothing was asked"
        self._registration_effects(sled, sled.registration.handle(item.answer, self._turn.now_us), effects)

    def _registration_effects(self, sled: Sled, done: list[reg.RegistrationEffect], effects: list[Effect]) -> None:
        for effect in done:
            if isinstance(effect, reg.GetSledAgent | reg.PostSledAgent):
                effects.append(contract.AskNexus(sled.config.sled_id, effect))
            else:
                effects.append(contract.RegistrationNews(sled.config.sled_id, effect))
                if self._turn.watch is not None:
                    self._turn.watch(Happening(self._turn.now_us, sled.config.sled_id, None, Kind.SLED, effect))
        self._turn.scheduler.set(sled, sled.deadline_us())

    def _hurry(self, item: contract.HurryOutbox, effects: list[Effect]) -> None:
        sled = self._sled(item.sled_id)
        self._outbox_effects(sled, sled.outbox.handle(Hurry(), self._turn.now_us), effects)
        self._turn.scheduler.set(sled, sled.deadline_us())

    # --- time -------------------------------------------------------------------------------------------------------

    def _tick(self, effects: list[Effect]) -> None:
        for _count in range(TICKS_MAX):
            actor = self._turn.scheduler.pop_due(self._turn.now_us)
            if actor is None:
                return
            if isinstance(actor, Sled):
                self._outbox_effects(actor, actor.outbox.handle(OutboxTick(), self._turn.now_us), effects)
                if actor.registration is not None:
                    due_us = actor.registration.next_deadline_us()
                    if due_us is not None and due_us <= self._turn.now_us:
                        self._registration_effects(
                            actor, actor.registration.handle(OutboxTick(), self._turn.now_us), effects
                        )
                if actor.has_estate:
                    actor.estate.tick(self._turn.now_us)
                    self._estate_moved(actor, effects)
                else:
                    self._turn.scheduler.set(actor, actor.deadline_us())
            else:
                assert isinstance(actor, Vmm)
                self._vmm_tick(actor, effects)

    def _vmm_tick(self, vmm: Vmm, effects: list[Effect]) -> None:
        self._links.after(vmm, vmm.tick(self._turn.now_us), effects)
        self._settle(effects)  # what happened in time counts before the grace period does
        if vmm.grace_us is not None and vmm.grace_is_over(self._turn.now_us):
            self._turn.tell(vmm, Kind.INJECTED, "stop took too long: the agent ends the VMM")
            self._force(self.sleds[vmm.sled_id], vmm, VmmState.DESTROYED, effects)
            self._turn.rearm(vmm)
        if vmm.poke is not None and vmm.poke.until_us <= self._turn.now_us:
            self._fail_pokes(vmm, NexusUnreachable("Nexus has not acknowledged in time"), effects)
            self._turn.rearm(vmm)

    # --- what a turn does to Nexus and to the registry --------------------------------------------------------------

    def _publish(self, sled: Sled, vmm: Vmm, effects: list[Effect]) -> None:
        done = sled.outbox.submit(vmm.propolis_id, vmm.record)
        if done:  # nothing is settled by a submit, so no timer changes
            self._outbox_effects(sled, done, effects, vmm)

    def _force(self, sled: Sled, vmm: Vmm, state: VmmState, effects: list[Effect]) -> None:
        before = vmm.record
        self._links.after(vmm, vmm.force(state, self._turn.now_us), effects)
        self._turn.tell(vmm, Kind.OBSERVED, (before, vmm.record))
        self._publish(sled, vmm, effects)

    def _remove(self, sled: Sled, vmm: Vmm, effects: list[Effect]) -> None:
        if vmm.vm is not None and vmm.vm.level is not Level.RUNDOWN_COMPLETE:
            self._links.after(vmm, vmm.lose_propolis(self._turn.now_us), effects)
        elif vmm.vm is not None:  # it has nothing left to lose but the connections of who talks to it
            self._links.over(vmm, effects)
            vmm.vm = None  # a target that has been told of it and dials now finds nobody
        if vmm.peer is not None:
            self._links.disconnect(vmm, effects)
        sled.outbox.forget(vmm.propolis_id)
        sled.remove(vmm)
        self._links.remove_source(vmm)
        if vmm.poke is not None or vmm.pokes:
            self._fail_pokes(vmm, NoSuchVmm(vmm.propolis_id), effects)
        self._turn.scheduler.set(vmm, None)
