"""Invariants: what must be so in every run, whatever the rules do (names.INVARIANTS), and what the Nexus model
itself promises (NX 7 #29 to #35, #37 and #38 at any time; #36, #43, #44 at the end).

Read before: engine/cast.py, play/judge/failures.py. Read next: play/judge/expect.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from uuid import UUID

import attrs

from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import (
    DESTROYABLE,
    TERMINAL,
    Instance,
    InstanceDbState,
    IntendedState,
    ReservationKind,
    VmmDbState,
)
from nexus_client.types import MigrationState, SledVmmState
from sim_sled.core.happenings import AGENT_ABORTS, Happening
from sim_sled.engine.cast import Subject
from sim_sled.engine.plans import Event
from sim_sled.play.explain import why_it_failed
from sim_sled.play.judge.failures import Failure
from sim_sled.play.stage import Stage

_Says = tuple[InstanceDbState, UUID | None, UUID | None, UUID | None]
"""An instance's record: its state, the active VMM, the target, the migration."""
FAILURES_MAX: Final = 50
"""Kept of one run: after that many nobody reads on."""
_GUEST_RUNS: Final = frozenset({"running", "rebooting"})
_RUNS: Final = frozenset({PublicState.RUNNING, PublicState.REBOOTING})


@attrs.define(eq=False)
class Invariants:
    """`names`: which of `names.INVARIANTS` are watched; the promises of the model always are."""

    world: Stage
    names: tuple[str, ...]
    failures: list[Failure]
    _sent: dict[int, SledVmmState] = attrs.field(factory=dict)
    """By ordinals, as below: they hash in C."""
    _told: set[str] = attrs.field(factory=set)
    changed: dict[UUID, None] = attrs.field(factory=dict)
    """Instances that the model spoke of since it was last looked at."""
    _committed: dict[int, tuple[int, _Says]] = attrs.field(factory=dict)
    _commits: dict[UUID, str] = attrs.field(factory=dict)
    _stored: tuple[object, ...] | None = None
    _runs: dict[UUID, set[UUID]] = attrs.field(factory=dict)
    _shown: dict[UUID, str] = attrs.field(factory=dict)
    """What users saw last."""
    _stops: dict[UUID, bool] = attrs.field(factory=dict)
    """Whether a stop was accepted since the instance's user last wanted it to run. No entry: none is answered."""
    _unheard: set[UUID] = attrs.field(factory=set)
    """VMMs of which Nexus gave up a registration, or its undo, without a good answer: its saga unwinds, nobody asks
    again (NX 4.3), and so a rule that lost the answer has left the VMM where it is.
    """
    _left: set[UUID] = attrs.field(factory=set)
    """Instances that have failed and of which no user has asked to run since: who starts them is Nexus itself."""

    def fail(self, key: str, text: str, who: Subject | None = None, seen: str = "") -> None:
        """Each fault is told once. `seen`: which of several faults that `key` stands for, in words without names."""
        if text in self._told or len(self.failures) >= FAILURES_MAX:
            return
        self._told.add(text)
        why = why_it_failed(self.world, who)
        same = f"{key}/{text.partition(':')[0]}" if key == "nexus_properties" else key
        hostname = "" if who is None else who.hostname
        told = f"invariant {key}: {text}"
        self.failures.append(Failure(same, told, self.world.elapsed_us, None, why, seen, hostname))
        self.world.line("failed", told, who)

    # ---- at any time

    def sent(self, who: Subject | None, happening: Happening) -> None:
        """A sled hands a report over to be sent."""
        if who is None:
            return
        assert isinstance(happening.data, tuple)
        body: SledVmmState = happening.data[0]
        before = self._sent.get(who.ordinal)
        self._sent[who.ordinal] = body
        if before is None:
            return
        old, new = before.vmm_state, body.vmm_state
        if "gen_monotonic" in self.names:
            if new.gen < old.gen:
                self.fail("gen_monotonic", f"{who.short}: generation {new.gen} after {old.gen}", who, "goes back")
            elif new.gen == old.gen and new != old:
                self.fail("gen_monotonic", f"{who.short}: two different states in generation {new.gen}", who, "twice")
        if "time_ordered" in self.names and new.time_updated < old.time_updated:
            self.fail("time_ordered", f"{who.short}: time_updated went back", who)

    def injected(self, who: Subject | None, happening: Happening) -> None:
        """Somebody misbehaved, or an agent has aborted."""
        aborted = happening.data == AGENT_ABORTS
        if aborted and who is not None and "agents_live" in self.names:
            self.fail(
                "agents_live",
                f"the agent of {who.sled.name} aborts, and takes {who.short} of {who.hostname} with it",
                who,
            )

    def panicked(self, why: str) -> None:
        """Nexus has ended by itself. Who dies again at each start does it for one reason, which is told once."""
        if "nexus_lives" in self.names:
            self.fail("nexus_lives", why)

    def unheard(self, who: Subject) -> None:
        """Nexus wanted this VMM registered or unregistered, and got no good answer."""
        self._unheard.add(who.propolis_id)

    def entered(self, who: Subject, event: Event) -> None:
        """A VMM enters a state."""
        runs = self._runs.setdefault(who.instance_id, set())
        if event.words[0] not in _GUEST_RUNS:
            runs.discard(who.propolis_id)
            if not runs:
                del self._runs[who.instance_id]
            return
        runs.add(who.propolis_id)
        if "one_running_vmm" not in self.names or len(runs) < 2:
            return
        engine = self.world.engine
        both = [engine.cast.subjects[one] for one in runs]
        present = [one for one in both if not one.gone and not _resumed_at_hand_over(one, both)]
        living = sorted(present, key=lambda one: one.ordinal)
        if len(living) > 1:
            names = " and ".join(one.short for one in living)
            self.fail("one_running_vmm", f"{names} of {who.hostname} run at once", who)
        runs.difference_update(one.propolis_id for one in both if one.gone)

    def nexus_moved(self) -> None:
        """The model took an input: what it promises about the instances that it touched."""
        for instance_id in self.changed:
            self._promises(instance_id)
        self.changed.clear()
        if self.world.nexus_5xx and "no_unexplained_5xx" in self.names:
            for text in self.world.nexus_5xx:
                self.fail("no_unexplained_5xx", self.world.readable(text))
        self.world.nexus_5xx.clear()

    def _promises(self, instance_id: UUID) -> None:
        nexus = self.world.nexus
        row = nexus.records.instances.get(instance_id)
        if row is None or row.time_deleted is not None:
            return
        if row.migration_id is not None and row.state is InstanceDbState.VMM:
            public = nexus.public_state(instance_id).value
            if public != "migrating":
                self.fail("nexus_properties", f"40: {row.hostname} migrates, but users see {public}")
        committed = self._committed.get(row.ordinal)
        says = (row.state, row.active_propolis_id, row.target_propolis_id, row.migration_id)
        if committed is not None:
            gen, said = committed
            self._ends(row, said)
            if gen == row.state_generation:
                if said != says:
                    self.fail("nexus_properties", f"35: {row.hostname} was written twice in generation {gen}")
                    self._committed[row.ordinal] = (gen, says)
                return
        self._committed[row.ordinal] = (row.state_generation, says)

    def _ends(self, row: Instance, said: _Says) -> None:
        """Its only VMM was unlinked: a failed one leaves a failed instance, any other a stopped one (NX 7 #37)."""
        if said[1] is None or said[3] is not None or row.active_propolis_id is not None:
            return
        vmm = self.world.nexus.records.vmms.get(said[1])
        if vmm is None or vmm.state not in TERMINAL:
            return
        wanted = InstanceDbState.FAILED if vmm.state is VmmDbState.FAILED else InstanceDbState.NO_VMM
        if row.state is not wanted:
            told = f"its VMM is {vmm.state.value}, but the instance {row.state.value}, not {wanted.value}"
            self.fail("nexus_properties", f"37: {row.hostname}: {told}")

    def commit(self, instance_id: UUID, text: str) -> None:
        """An update saga writes its record: at most one per generation (property 35)."""
        gen = text.rpartition(" ")[2]
        if self._commits.get(instance_id) == gen:
            row = self.world.nexus.records.instances[instance_id]
            self.fail("nexus_properties", f"35: two update sagas of {row.hostname} committed generation {gen}")
        self._commits[instance_id] = gen

    def public(self, instance_id: UUID, state: str) -> None:
        """Users see this now: `stopped` and `failed` promise that a start is accepted (property 38)."""
        nexus = self.world.nexus
        row = nexus.records.instances[instance_id]
        before, self._shown[instance_id] = self._shown.get(instance_id), state
        unasked = before == "failed" and state == "stopped" and row.intended_state is IntendedState.RUNNING
        if unasked and "wishes_kept" in self.names:
            told = f"{row.hostname} had failed, and is stopped now, which nobody asked for"
            self.fail("wishes_kept", told, seen="stopped; wanted running")
        if state == "failed":
            self._left.add(instance_id)
        elif state == "starting" and instance_id in self._left:
            self._left.discard(instance_id)
            stopped = row.intended_state is IntendedState.STOPPED and self._stops.get(instance_id, False)
            if stopped and "wishes_kept" in self.names:  # at once: its user may stop it again before the end
                told = f"{row.hostname} had failed, and is started again, but its user has stopped it"
                self.fail("wishes_kept", told, seen="starts; wanted stopped")
        promises = state in ("stopped", "failed") and nexus.up and row.time_deleted is None
        if promises and not nexus.would_start(instance_id):
            self.fail("nexus_properties", f"38: {row.hostname} is {state}, but a start would be refused")

    def checked(self, propolis_id: UUID) -> None:
        """The health check asks a sled for this VMM."""
        row = self.world.nexus.records.vmms.get(propolis_id)
        if "over_left_alone" in self.names and row is not None and row.state in TERMINAL:
            who = self.world.engine.cast.subjects.get(propolis_id)
            name = "a VMM" if who is None else f"{who.short} of {who.hostname}"
            self.fail("over_left_alone", f"Nexus knows that {name} is {row.state.value}, and asks for it", who)

    def before_report(self, propolis_id: UUID, body: SledVmmState) -> None:
        """Remember what a report must not change if it says nothing new (property 33)."""
        row = self.world.nexus.records.vmms.get(propolis_id)
        stale = row is not None and body.vmm_state.gen <= row.state_generation and _sides_are_old(self.world, body)
        self._stored = (row,) if stale else None

    def after_report(self, propolis_id: UUID) -> None:
        """... and look whether it did."""
        if self._stored is not None:
            now = self.world.nexus.records.vmms.get(propolis_id)
            if now is not self._stored[0] and now is not None and now.time_deleted is None:
                who = self.world.engine.cast.subjects.get(propolis_id)
                self.fail("nexus_properties", "33: a report that says nothing new changed a record", who)
        self._stored = None

    def registered(self, sled_id: UUID) -> None:
        """A sled took a VMM: it may not carry more than it has."""
        if "capacity" not in self.names:
            return
        sled = self.world.rack.sleds[sled_id]
        hardware = sled.config.hardware
        name = self.world.engine.cast.by_id[sled_id].name
        # one that has ended carries nothing any more, however late its end is told; Nexus may have asked for it
        living = [vmm.about for vmm in sled.vmms.values() if not vmm.terminal]
        cpus, memory_mib = sum(one.ncpus for one in living), sum(one.memory_mib for one in living)
        if cpus > hardware.hardware_threads:
            self.fail("capacity", f"{name} carries {cpus} of {hardware.hardware_threads} CPUs", seen="CPUs")
        if memory_mib * 2**20 > hardware.reservoir_size:
            self.fail("capacity", f"{name} carries {memory_mib} MiB, more than its reservoir", seen="memory")

    # ---- at the end

    def finish(self, *, settled: bool, leaks: bool = False) -> None:
        """The run is over. What only holds at rest is asked if it came to rest. `leaks`: look for leaks although
        Nexus's background tasks have not had their turn (on the wall clock nobody waits for them).
        """
        if "final_state_acked" in self.names:
            self._final_states()
        if settled:
            self._model_at_rest()
        if (settled or leaks) and "no_leaks" in self.names:
            self._leaks()
        if (settled or leaks) and "wishes_kept" in self.names:
            self._wishes()

    def _final_states(self) -> None:
        engine, now_us = self.world.engine, self.world.now_us
        for who in engine.cast.subjects.values():
            if who.gone or who.record is None or who.told_gen >= who.record.vmm_state.gen:
                continue
            if engine.post.held_of(who) or who.sled.down or engine.post.cut(who.sled.name, "nexus", "out", now_us):
                continue  # a rule keeps it back
            if any(now_us < one.until_us for one in engine.post.replying):
                continue
            gen, state = who.record.vmm_state.gen, who.record.vmm_state.state.value
            told = f"{who.short} {who.hostname}: {state} gen {gen} was never confirmed (Nexus has gen {who.told_gen})"
            self.fail("final_state_acked", told, who)

    def _model_at_rest(self) -> None:
        """NX 7 #36, #43 and #44: for VMMs on sleds that can speak."""
        records = self.world.nexus.records
        for row in records.live_instances():
            vmm = records.active_vmm(row)
            if vmm is not None and vmm.state in TERMINAL:
                self.fail("nexus_properties", f"36: {row.hostname} still points to a VMM that is {vmm.state.value}")
            if row.updater_id is not None:
                self.fail("nexus_properties", f"34: {row.hostname} is still locked")
            active = [
                held
                for held in records.reservations_of(row.id)
                if held.kind is ReservationKind.ACTIVE and not self._goes_on(held.vmm_id)
            ]
            if row.state is not InstanceDbState.VMM and active:
                self.fail("nexus_properties", f"44: {row.hostname} has no VMM but holds room on a sled")
        for vmm in records.vmms.values():
            instance = records.instances.get(vmm.instance_id)
            linked = () if instance is None else (instance.active_propolis_id, instance.target_propolis_id)
            if vmm.time_deleted is None and vmm.state in DESTROYABLE and vmm.id not in linked:
                hostname = instance.hostname if instance is not None else "?"
                self.fail("nexus_properties", f"43: a VMM of {hostname} is {vmm.state.value} and was never reaped")

    def _goes_on(self, propolis_id: UUID) -> bool:
        """Whether this VMM has resumed at its hand-over: nobody will tell Nexus of its end."""
        who = self.world.engine.cast.subjects.get(propolis_id)
        return who is not None and not who.gone and _resumed_at_hand_over(who, ())

    def wished(self, instance_id: UUID, verb: str) -> None:
        """A user of the scenario asks for this."""
        if verb in ("start", "reboot"):
            self._stops.pop(instance_id, None)
            self._left.discard(instance_id)

    def stop_answered(self, instance_id: UUID, *, accepted: bool) -> None:
        """What the user was told. A stop that is refused, or not answered, promises nothing, although it has changed
        the intended state already (NX 4.2, quirk): its user knows, and may ask again.
        """
        self._stops[instance_id] = accepted or self._stops.get(instance_id, False)

    def _wishes(self) -> None:
        """Whose user has stopped it does not run, unless its sled cannot be reached."""
        for row in self.world.nexus.instances():
            vmm = self.world.nexus.records.active_vmm(row)
            if row.intended_state is not IntendedState.STOPPED or vmm is None or not self._stops.get(row.id, True):
                continue
            sled = self.world.engine.cast.by_id.get(vmm.sled_id)
            if self.world.nexus.public_state(row.id) in _RUNS and (sled is None or not sled.down):
                told = f"{row.hostname} runs at the end, but its user has stopped it"
                self.fail("wishes_kept", told, seen="runs; wanted stopped")

    def _leaks(self) -> None:
        engine, records = self.world.engine, self.world.nexus.records
        for who in engine.cast.subjects.values():
            row = records.vmms.get(who.propolis_id)
            if who.gone or who.record is None or who.sled.down or engine.post.held_of(who):
                continue
            if who.propolis_id in self._unheard or _resumed_at_hand_over(who, ()):
                continue  # what the original leaves behind, too
            if row is None or row.time_deleted is not None:
                told = f"{who.short} {who.hostname} is on {who.sled.name} ({who.truth}), but Nexus has forgotten it"
                self.fail("no_leaks", told, who, "forgotten VMM")
                continue
            instance = records.instances.get(who.instance_id)
            deleted = instance is None or instance.time_deleted is not None
            if deleted and row.state is VmmDbState.RUNNING and who.truth in _GUEST_RUNS:
                told = f"{who.short} {who.hostname} runs on {who.sled.name}, but the instance is deleted"
                self.fail("no_leaks", told, who, "guest of a deleted instance")
        self._believed_alive()
        for reservation in records.reservations.values():
            row = records.vmms.get(reservation.vmm_id)
            if row is None or row.time_deleted is not None:
                whom = self.world.readable(str(reservation.vmm_id))
                self.fail("no_leaks", f"room on a sled is held for {whom}, which is gone", seen="room")

    def _believed_alive(self) -> None:
        """At rest Nexus has asked for each VMM (NX 4.5): none runs that its sled, if it can say so, does not know."""
        engine, records, now_us = self.world.engine, self.world.nexus.records, self.world.now_us
        for row in records.live_instances():
            vmm = records.active_vmm(row)
            sled = None if vmm is None else engine.cast.by_id.get(vmm.sled_id)
            if vmm is None or sled is None or vmm.state is not VmmDbState.RUNNING or sled.down:
                continue
            cut = any(engine.post.cut(sled.name, "nexus", way, now_us) for way in ("in", "out"))
            if not cut and vmm.id not in self.world.rack.sleds[sled.id].vmms:
                who = engine.cast.subjects.get(vmm.id)
                told = f"{row.hostname} runs on {sled.name}, as Nexus has it, but that knows no such VMM"
                self.fail("no_leaks", told, who, "believed in")


def _sides_are_old(world: Stage, body: SledVmmState) -> bool:
    for side, role in ((body.migration_in, "target"), (body.migration_out, "source")):
        if side is None:
            continue
        row = world.nexus.records.migrations.get(side.migration_id)
        if row is None or side.gen > (row.target_gen if role == "target" else row.source_gen):
            return False
    return True


def _resumed_at_hand_over(who: Subject, others: Iterable[Subject]) -> bool:
    """Whether this is a source that goes on because its target died between the source's `Finish` and the hand-over
    (PR 3.5). Its agent has told `completed` by then, and takes no word back (NX 7 #8): Nexus, and so everybody who
    judges it, takes the guest for moved. Not so if the target is among the others: then the guest has moved indeed.
    """
    record = who.record
    out = None if record is None else record.migration_out
    if out is None or out.state is not MigrationState.COMPLETED or who.truth not in _GUEST_RUNS:
        return False
    sides = (other.record.migration_in for other in others if other.record is not None)
    return not any(side is not None and side.migration_id == out.migration_id for side in sides)
