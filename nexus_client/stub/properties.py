"""NX 7 #29 to #50 as checks by name: after every step, and at rest. For tests and for scenarios.

    checker = Checker(nexus)
    effects = nexus.handle(item, now_us)
    broken = checker.after(item, effects)          # after every input
    broken = checker.at_rest()                     # nothing in flight, background tasks have run

Each violation names its property. What the *database* forbids (29, 31, 34, 44, 45) the records assert themselves
(`InvariantBroken`); the checks here do not trust that and look again. Properties 47 to 50 speak of sequences; they
assume sleds that keep properties 1 to 28. Nothing here looks inside a saga: only records, public states and effects.

Read before: stub/records.py, stub/nexus.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from uuid import UUID

import attrs

from nexus_client.stub.contract import CallSled, Delete, Effect, Happened, Input, Reply, VmmReported
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.public_state import PublicState
from nexus_client.stub.records import (
    DESTROYABLE,
    TERMINAL,
    FailureReason,
    Instance,
    InstanceDbState,
    IntendedState,
    Migration,
    ReservationKind,
    Vmm,
    VmmDbState,
)
from nexus_client.types import MigrationState, SledVmmState

P = PublicState

NAMES: Final[dict[int, str]] = {
    29: "state Vmm if and only if an active VMM id",
    30: "a target id needs a migration id, and that needs state Vmm",
    31: "active and target ids never refer to a deleted VMM record",
    32: "the highest generation wins, whatever the order of posts",
    33: "replaying a stored post starts no saga and changes nothing",
    34: "generations never fall; at rest nobody holds the updater lock",
    35: "at most one update saga commits per instance and state generation",
    36: "at rest no instance has an active VMM that is over",
    37: "a destroyed VMM ends in NoVmm, a failed one in Failed",
    38: "stopped and failed can be started, stopping cannot",
    39: "destroyed is never observed on a live record",
    40: "with a migration id the public state is migrating",
    41: "a completed migration ends on the target, with no ids left",
    42: "a failed migration leaves the source, with no ids left",
    43: "what is destroyable and unreferenced ends deleted, and nothing else",
    44: "never two active reservations, none once there is no VMM",
    45: "a failure reason if and only if Failed",
    46: "no auto-restart unless the user wants it running, and no two within the cooldown",
    47: "delete needs no active VMM and calls no sled",
    48: "start to stop shows starting, running, stopping, stopped in that order",
    49: "a reboot keeps the VMM",
    50: "after a migration sled and VMM differ",
}

FORBIDDEN_STEPS: Final = frozenset(
    {
        (P.RUNNING, P.STARTING),
        (P.STOPPED, P.RUNNING),
        (P.STOPPED, P.STOPPING),
        (P.STOPPED, P.REBOOTING),
        (P.STOPPED, P.MIGRATING),
        (P.REBOOTING, P.STARTING),
    }
)
"""Pairs of public states which no life of an instance shows one after the other (property 48). A stop that
overtakes a
queued reboot does show `stopping, rebooting, running` (SA 2.3: the queue goes on)."""


@attrs.frozen
class Violation:
    """A property that does not hold: its number in NX 7, and of what."""

    prop: int
    text: str

    def __str__(self) -> str:
        return f"property {self.prop} ({NAMES[self.prop]}): {self.text}"


class PropertyBroken(AssertionError):
    """Raised by `Checker.must`; `prop` is the number of the first property that is broken."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(map(str, violations)))
        self.prop = violations[0].prop


@attrs.define(eq=False)
class _Memory:
    """What the checker remembers of earlier steps."""

    instances: dict[UUID, Instance] = attrs.field(factory=dict)
    stored: set[tuple[UUID, SledVmmState]] = attrs.field(factory=set)
    heard: dict[UUID, int] = attrs.field(factory=dict)
    commits: set[tuple[UUID, str]] = attrs.field(factory=set)
    public: dict[UUID, tuple[PublicState, UUID | None]] = attrs.field(factory=dict)


class Checker:
    """Watches one Nexus from its beginning."""

    def __init__(self, nexus: Nexus) -> None:
        self._nexus = nexus
        self._memory = _Memory()
        self.checked: dict[int, int] = dict.fromkeys(NAMES, 0)
        """How often each property was looked at."""

    def must(self, violations: Iterable[Violation]) -> None:
        """Raises `PropertyBroken` if there are any."""
        found = list(violations)
        if found:
            raise PropertyBroken(found)

    # -- after every step

    def after(self, item: Input, effects: Sequence[Effect]) -> list[Violation]:
        """Look at everything once `handle(item)` has returned these effects."""
        found: list[Violation] = []
        committed = {e.instance_id for e in effects if isinstance(e, Happened) and e.what == "commit"}
        for row in self._nexus.records.instances.values():
            found += self._instance(row)
            old = self._memory.instances.get(row.id)
            if old is not None and row.id in committed:  # a start that unwinds unlinks its VMM as well
                found += self._ending(old, row)
        found += self._vmms()
        found += self._reservations()
        found += self._effects(item, effects)
        self._memory.instances = dict(self._nexus.records.instances)
        return found

    def _see(self, prop: int, holds: bool, text: str) -> list[Violation]:
        self.checked[prop] += 1
        return [] if holds else [Violation(prop, text)]

    def _instance(self, row: Instance) -> list[Violation]:
        records = self._nexus.records
        see = self._see
        is_vmm = row.state is InstanceDbState.VMM
        found = see(29, is_vmm == (row.active_propolis_id is not None), f"{row.name} is {row.state.value}")
        found += see(30, row.target_propolis_id is None or row.migration_id is not None, f"{row.name} has a target")
        sound = row.migration_id is None or is_vmm or self._excused(row, at_rest=False)
        found += see(30, sound, f"{row.name}: migration in {row.state.value}")
        for key in (row.active_propolis_id, row.target_propolis_id):
            live = key is None or (key in records.vmms and records.vmms[key].time_deleted is None)
            found += see(31, live, f"{row.name} points to deleted {key}")
        old = self._memory.instances.get(row.id)
        if old is not None:
            grows = row.state_generation >= old.state_generation and row.updater_gen >= old.updater_gen
            found += see(34, grows, f"{row.name}: a generation fell")
            found += self._restart(old, row)
        if row.time_deleted is None:
            found += self._public(row)
        return found

    def _excused(self, row: Instance, *, at_rest: bool) -> bool:
        """The gaps in property 30 which the decision of NX 5.2 leaves (blocks a and d): the source ended
        while no
        side of the migration had failed. Either its sled had not heard of the migration yet (closed by the target's
        failure), or Nexus itself failed a VMM of it, which leaves migrations untouched (4.5).
        """
        records = self._nexus.records
        migration = records.migration_of(row)
        if migration is None:
            return False
        vmms = (records.vmms[migration.source_propolis_id], records.vmms[migration.target_propolis_id])
        if any(vmm.failure_reason not in (None, FailureReason.FROM_SLED_AGENT) for vmm in vmms):
            return True
        known = (MigrationState.IN_PROGRESS, MigrationState.COMPLETED)
        return not at_rest and migration.source_state not in known

    def _public(self, row: Instance) -> list[Violation]:
        public = self._nexus.public_state(row.id)
        see = self._see
        found = see(39, public is not P.DESTROYED, row.name)
        if row.state is InstanceDbState.VMM and row.migration_id is not None:
            found += see(40, public is P.MIGRATING, f"{row.name} shows {public.value}")
        if public in (P.STOPPED, P.FAILED):
            found += see(38, self._nexus.would_start(row.id), f"{row.name} is {public.value} and cannot start")
        if public is P.STOPPING:
            found += see(38, not self._nexus.would_start(row.id), f"{row.name} is stopping and can start")
        return found

    def _ending(self, old: Instance, row: Instance) -> list[Violation]:
        """The only VMM of an instance was unlinked in this step."""
        gone = old.active_propolis_id
        if gone is None or old.migration_id is not None or row.active_propolis_id is not None:
            return []
        vmm = self._nexus.records.vmms[gone]
        if row.time_deleted is not None or vmm.state not in TERMINAL:
            return []
        wanted = InstanceDbState.FAILED if vmm.state is VmmDbState.FAILED else InstanceDbState.NO_VMM
        return self._see(37, row.state is wanted, f"{row.name}: VMM {vmm.state.value}, instance {row.state.value}")

    def _restart(self, old: Instance, row: Instance) -> list[Violation]:
        last, now = old.time_last_auto_restarted, row.time_last_auto_restarted
        if last is None or now is None or last == now:
            return []
        own = row.auto_restart_cooldown_us
        cooldown = self._nexus.config.cooldown_us if own is None else own
        return self._see(46, now - last >= cooldown, f"{row.name} restarted after {now - last} us")

    def _vmms(self) -> list[Violation]:
        found: list[Violation] = []
        for vmm in self._nexus.records.vmms.values():
            found += self._see(45, (vmm.state is VmmDbState.FAILED) == (vmm.failure_reason is not None), str(vmm.id))
            if vmm.time_deleted is not None:
                found += self._see(43, vmm.state in DESTROYABLE, f"deleted VMM {vmm.id} is {vmm.state.value}")
            else:
                heard = self._memory.heard.get(vmm.id, 0)
                found += self._see(32, vmm.state_generation >= heard, f"VMM {vmm.id} lost generation {heard}")
        return found

    def _reservations(self) -> list[Violation]:
        found: list[Violation] = []
        records = self._nexus.records
        for row in records.instances.values():
            held = [r for r in records.reservations_of(row.id) if r.kind is ReservationKind.ACTIVE]
            found += self._see(44, len(held) <= 1, f"{row.name} has {len(held)} active reservations")
        return found

    # -- what happened in this step

    def _effects(self, item: Input, effects: Sequence[Effect]) -> list[Violation]:
        found: list[Violation] = []
        memory = self._memory
        for effect in effects:
            if not isinstance(effect, Happened) or effect.instance_id is None:
                continue
            if effect.what == "commit":
                key = (effect.instance_id, effect.text.rpartition(" ")[2])
                found += self._see(35, key not in memory.commits, f"second commit of generation {key[1]}")
                memory.commits.add(key)
            elif effect.what == "task" and effect.text == "auto-restart":
                wants = self._nexus.records.instances[effect.instance_id].intended_state
                found += self._see(46, wants is IntendedState.RUNNING, f"the user wants it {wants.value}")
            elif effect.what == "public":
                found += self._step(effect.instance_id, PublicState(effect.text), effect.propolis_id)
        if isinstance(item, VmmReported):
            found += self._replay(item, effects)
        if isinstance(item, Delete):
            found += self._delete(item, effects)
        return found

    def _step(self, instance_id: UUID, public: PublicState, active: UUID | None) -> list[Violation]:
        last = self._memory.public.get(instance_id)
        self._memory.public[instance_id] = (public, active)
        if last is None:
            return []
        found = self._see(48, (last[0], public) not in FORBIDDEN_STEPS, f"{last[0].value}, then {public.value}")
        if (last[0], public) == (P.REBOOTING, P.RUNNING):
            found += self._see(49, last[1] == active, f"rebooted from VMM {last[1]} to {active}")
        return found

    def _replay(self, item: VmmReported, effects: Sequence[Effect]) -> list[Violation]:
        key = (item.propolis_id, item.state)
        replayed = key in self._memory.stored
        good = any(isinstance(e, Reply) and e.ticket == item.ticket and e.status == 204 for e in effects)
        if good:
            self._memory.stored.add(key)
            heard = self._memory.heard
            heard[item.propolis_id] = max(heard.get(item.propolis_id, 0), item.state.vmm_state.gen)
        if not replayed:
            return []
        # up to the answer: what tasks and earlier sagas do in the same step is not the replay's doing
        done: list[str] = []
        for effect in effects:
            if isinstance(effect, Reply) and effect.ticket == item.ticket:
                break
            if isinstance(effect, Happened) and effect.what in ("record", "saga"):
                done.append(effect.text)
        return self._see(33, not done, f"a replay did {done}")

    def _delete(self, item: Delete, effects: Sequence[Effect]) -> list[Violation]:
        row = self._nexus.records.instances.get(item.instance_id)
        old = self._memory.instances.get(item.instance_id)
        if row is None or old is None or row.time_deleted is None or old.time_deleted is not None:
            return []
        asked = [e for e in effects if isinstance(e, CallSled) and getattr(e.op, "propolis_id", None) is not None]
        mine = [e for e in asked if self._vmm(e).instance_id == row.id]
        return self._see(47, old.active_propolis_id is None and not mine, f"{row.name} was {old.state.value}")

    def _vmm(self, call: CallSled) -> Vmm:
        key: UUID = getattr(call.op, "propolis_id")  # noqa: B009 - all operations but one have it
        return self._nexus.records.vmms[key]

    # -- at rest

    def at_rest(self, lost: Iterable[UUID] = ()) -> list[Violation]:
        """Once nothing is in flight and the background tasks have run. `lost`: VMMs their sleds have forgotten."""
        records = self._nexus.records
        forgotten = frozenset(lost)
        found: list[Violation] = []
        for row in records.live_instances():
            found += self._see(34, row.updater_id is None, f"{row.name} is locked")
            is_vmm = row.state is InstanceDbState.VMM
            sound = row.migration_id is None or is_vmm or self._excused(row, at_rest=True)
            found += self._see(30, sound, f"{row.name}: migration in {row.state.value}")
            active = records.active_vmm(row)
            over = active is not None and (active.state in TERMINAL or active.id in forgotten)
            found += self._see(36, not over, f"{row.name} still has VMM {row.active_propolis_id}")
            if row.active_propolis_id is None:
                found += self._see(44, not self._held(row), f"{row.name} still holds reservations")
        for vmm in records.vmms.values():
            if vmm.time_deleted is None and vmm.state in DESTROYABLE:
                found += self._see(43, self._is_linked(vmm), f"VMM {vmm.id} is {vmm.state.value} and not deleted")
        for migration in records.migrations.values():
            found += self._migrated(migration)
        return found

    def _held(self, row: Instance) -> bool:
        vmms = self._nexus.records.vmms
        return any(vmms[r.vmm_id].time_deleted is not None for r in self._nexus.records.reservations_of(row.id))

    def _is_linked(self, vmm: Vmm) -> bool:
        row = self._nexus.records.instances[vmm.instance_id]
        return vmm.id in (row.active_propolis_id, row.target_propolis_id)

    def _migrated(self, migration: Migration) -> list[Violation]:
        records = self._nexus.records
        row = records.instances[migration.instance_id]
        sides = (migration.source_state, migration.target_state)
        if row.time_deleted is not None:
            return []
        source, target = records.vmms[migration.source_propolis_id], records.vmms[migration.target_propolis_id]
        see = self._see
        cleared = row.migration_id != migration.id
        found: list[Violation] = []
        if MigrationState.FAILED in sides:
            found += see(42, cleared, f"{row.name} still has failed migration {migration.id}")
            stays = row.active_propolis_id == source.id or self._moved_on(source, migration)
            found += see(42, source.state in TERMINAL or stays, f"{row.name} left its source {source.id}")
        elif sides == (MigrationState.COMPLETED, MigrationState.COMPLETED):
            on = target.state in TERMINAL or row.active_propolis_id == target.id or self._moved_on(target, migration)
            found += see(41, cleared and on, f"{row.name} is on {row.active_propolis_id}")
            found += see(50, source.sled_id != target.sled_id, f"{row.name} went nowhere")
            if source.state in TERMINAL:
                found += see(50, source.time_deleted is not None, f"old VMM {source.id} is not deleted")
        return found

    def _moved_on(self, vmm: Vmm, but: Migration) -> bool:
        """Another migration took this VMM away."""
        done = MigrationState.COMPLETED
        return any(
            other.source_propolis_id == vmm.id and done in (other.source_state, other.target_state)
            for other in self._nexus.records.migrations_of(vmm.instance_id)
            if other.id != but.id
        )
