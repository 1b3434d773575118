"""The records of the Nexus model and their invariants, asserted after every single mutation (NX 1.2, 1.3).

Rows are frozen; a change is `replace` plus one of the `put_*` methods, which is one statement of the original's
database: what must change together is in one row, or the constraint fails in between. A broken invariant raises
`InvariantBroken` with the number of the property in NX 7 and leaves the old row in place. Property 30
(target id => migration id => Vmm) is no constraint of the database: a sled that breaks property 10 brings it about
(NX 5.2, last row), so it is a question (`breaches`) and not an assertion.

Over 500 lines: the rows, and what is asserted when each is written.

Read before: stub/contract.py.
Read next: stub/auto_restart.py, stub/context.py, stub/ingest.py, stub/networking.py, stub/nexus.py,
stub/properties.py, stub/public_state.py, stub/sagas/lock.py, stub/sagas/state.py, stub/scope.py,
stub/update_decision.py.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.stub.contract import IpKind
from nexus_client.types import GENERATION_MAX, MigrationState, SledAgentInfo

PROPOLIS_PORT: Final = 12400


def following(generation: int) -> int:
    """The generation after this one. At the end of the range (which only a sled can have told) it stays: whoever
    compares finds no news, and nothing breaks.
    """
    return min(generation + 1, GENERATION_MAX)


class InstanceDbState(IdentityEnum):
    """State in the instance record (`instance_state_v2`); the public state is computed (public_state.py)."""

    CREATING = "creating"
    NO_VMM = "no_vmm"
    VMM = "vmm"
    FAILED = "failed"
    DESTROYED = "destroyed"

    @property
    def label(self) -> str:
        """As the original prints it in messages (NX 1.1)."""
        return {"no_vmm": "no_VMM", "vmm": "VMM"}.get(self.value, self.value)


class VmmDbState(IdentityEnum):
    """State in the VMM record: the eight a sled may publish, and two of Nexus's own."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    REBOOTING = "rebooting"
    MIGRATING = "migrating"
    FAILED = "failed"
    DESTROYED = "destroyed"
    SAGA_UNWOUND = "saga_unwound"


class IntendedState(IdentityEnum):
    """What the user wants; decides about auto-restart (#8053)."""

    RUNNING = "running"
    STOPPED = "stopped"
    GUEST_SHUTDOWN = "guest_shutdown"
    DESTROYED = "destroyed"


class FailureReason(IdentityEnum):
    PREHISTORIC = "prehistoric"
    FROM_SLED_AGENT = "from_sled_agent"
    NO_SUCH_INSTANCE = "no_such_instance"
    SLED_EXPUNGED = "sled_expunged"
    SLED_OFF = "sled_off"


class AutoRestartPolicy(IdentityEnum):
    NEVER = "never"
    BEST_EFFORT = "best_effort"


class ReservationKind(IdentityEnum):
    """Why a VMM holds resources of a sled: start, migration, or nothing any more (source of a finished migration)."""

    ACTIVE = "active"
    TARGET = "target"
    TOMBSTONED = "tombstoned"


class IpState(IdentityEnum):
    DETACHED = "detached"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    DETACHING = "detaching"


TERMINAL: Final = frozenset({VmmDbState.DESTROYED, VmmDbState.FAILED})
DESTROYABLE: Final = TERMINAL | {VmmDbState.SAGA_UNWOUND}
NOT_INCARNATED: Final = frozenset({InstanceDbState.CREATING, InstanceDbState.NO_VMM, InstanceDbState.FAILED})
"""No VMM now, but perhaps later."""
NOT_ON_A_SLED: Final = frozenset({VmmDbState.CREATING, VmmDbState.SAGA_UNWOUND, VmmDbState.DESTROYED})


class Instance(Struct, frozen=True):
    """The user's VM. Times, here and in all rows, in microseconds since the Unix epoch, `memory` in bytes; `ordinal`
    numbers instances in order of creation.
    """

    id: UUID
    ordinal: int
    name: str
    description: str
    hostname: str
    ncpus: int
    memory: int
    project_id: UUID
    silo_id: UUID
    time_created: int
    time_state_updated: int
    state: InstanceDbState = InstanceDbState.CREATING
    state_generation: int = 1
    active_propolis_id: UUID | None = None
    target_propolis_id: UUID | None = None
    migration_id: UUID | None = None
    updater_id: UUID | None = None
    updater_gen: int = 1
    intended_state: IntendedState = IntendedState.STOPPED
    auto_restart_policy: AutoRestartPolicy | None = None
    auto_restart_cooldown_us: int | None = None
    time_last_auto_restarted: int | None = None
    uses_local_storage: bool = False
    pinned_sled_id: UUID | None = None
    then_sled_ids: tuple[UUID, ...] = ()
    time_deleted: int | None = None


class Vmm(Struct, frozen=True):
    """One Propolis process. `network` is the sled NAT points to while this is the active VMM."""

    id: UUID
    instance_id: UUID
    sled_id: UUID
    propolis_ip: str
    state: VmmDbState
    time_created: int
    time_state_updated: int
    propolis_port: int = PROPOLIS_PORT
    state_generation: int = 1
    failure_reason: FailureReason | None = None
    time_deleted: int | None = None

    @property
    def address(self) -> str:
        host = f"[{self.propolis_ip}]" if ":" in self.propolis_ip else self.propolis_ip
        return f"{host}:{self.propolis_port}"


class Migration(Struct, frozen=True):
    """An instance on its way from one VMM to another; each side has a state and a generation, as its sled tells."""

    id: UUID
    instance_id: UUID
    source_propolis_id: UUID
    target_propolis_id: UUID
    time_created: int
    source_state: MigrationState = MigrationState.PENDING
    source_gen: int = 1
    time_source_updated: int | None = None
    target_state: MigrationState = MigrationState.PENDING
    target_gen: int = 1
    time_target_updated: int | None = None
    time_deleted: int | None = None

    @property
    def either_side_failed(self) -> bool:
        return MigrationState.FAILED in (self.source_state, self.target_state)

    @property
    def either_side_completed(self) -> bool:
        return MigrationState.COMPLETED in (self.source_state, self.target_state)

    @property
    def is_terminal(self) -> bool:
        """A side has told its end."""
        return self.either_side_failed or self.either_side_completed


POWERS: Final = ("a0", "a1", "a2", "a3", "off", "unknown")
"""What hardware says of a sled's power: on is A0 alone; `unknown`: nobody knows."""


class Sled(Struct, frozen=True):
    """A registered sled. policy: in_service | expunged; state: active | decommissioned; power: one of `POWERS`."""

    id: UUID
    ordinal: int
    info: SledAgentInfo
    time_modified: int
    policy: str = "in_service"
    state: str = "active"
    power: str = "unknown"


class Reservation(Struct, frozen=True):
    """What a VMM has of a sled: hardware threads, and bytes of its reservoir."""

    vmm_id: UUID
    sled_id: UUID
    instance_id: UUID
    kind: ReservationKind
    ncpus: int
    memory: int


class ExternalIp(Struct, frozen=True):
    """An external IP or subnet, attached or on its way; a detached one is no row."""

    address: str
    kind: IpKind
    instance_id: UUID
    state: IpState


class Network(Struct, frozen=True):
    """Where NAT sends an instance's traffic: the active VMM's sled. No row: nowhere."""

    instance_id: UUID
    sled_id: UUID


class Provision(Struct, frozen=True):
    """Provisioning counters: what a project is charged for an instance that has a VMM."""

    instance_id: UUID
    ncpus: int
    memory: int


class InvariantBroken(AssertionError):
    """A rule of NX 1.3 would not hold; `prop` is its number in NX 7."""

    def __init__(self, prop: int, text: str) -> None:
        super().__init__(f"property {prop}: {text}")
        self.prop = prop


def _must(holds: bool, prop: int, text: str) -> None:
    if not holds:
        raise InvariantBroken(prop, text)


Row = Instance | Vmm | Migration | Sled | Reservation | ExternalIp | Network | Provision


def key_of(row: Row) -> str:
    """What tells a row from the others of its kind."""
    match row:
        case Reservation():
            return str(row.vmm_id)
        case ExternalIp():
            return row.address
        case Network() | Provision():
            return str(row.instance_id)
        case _:
            return str(row.id)


def _ignore(_row: Row, _gone: bool) -> None:
    return None


def _baseboard(sled: Sled) -> tuple[str, str]:
    return (sled.info.baseboard.serial, sled.info.baseboard.part)


@attrs.define(eq=False)
class Records:
    """All tables. `counters` make ids and addresses; `changed` is told every row that was written (False) or
    removed (True).
    """

    instances: dict[UUID, Instance] = attrs.field(factory=dict)
    vmms: dict[UUID, Vmm] = attrs.field(factory=dict)
    migrations: dict[UUID, Migration] = attrs.field(factory=dict)
    sleds: dict[UUID, Sled] = attrs.field(factory=dict)
    reservations: dict[UUID, Reservation] = attrs.field(factory=dict)
    external_ips: dict[str, ExternalIp] = attrs.field(factory=dict)
    networks: dict[UUID, Network] = attrs.field(factory=dict)
    provisions: dict[UUID, Provision] = attrs.field(factory=dict)
    counters: dict[str, int] = attrs.field(factory=dict)
    changed: Callable[[Row, bool], None] = _ignore
    reason_needs_failed: bool = True
    """The constraint of failure reasons (NX 1.3): if and only if Failed; False: a reason may outlive it (#11294)."""
    _vmms_of: dict[UUID, list[UUID]] = attrs.field(factory=dict, init=False)
    _migrations_of: dict[UUID, list[UUID]] = attrs.field(factory=dict, init=False)
    _ips_of: dict[UUID, dict[str, None]] = attrs.field(factory=dict, init=False)
    _reserved_by: dict[UUID, dict[UUID, None]] = attrs.field(factory=dict, init=False)
    _live: dict[UUID, None] = attrs.field(factory=dict, init=False)
    _live_vmms: dict[UUID, int] = attrs.field(factory=dict, init=False)
    _named: dict[str, dict[UUID, None]] = attrs.field(factory=dict, init=False)
    _used: dict[UUID, tuple[int, int]] = attrs.field(factory=dict, init=False)
    _by_load: list[tuple[int, int, UUID]] = attrs.field(factory=list, init=False)
    _with_baseboard: dict[tuple[str, str], dict[UUID, None]] = attrs.field(factory=dict, init=False)
    _suspects: set[UUID] = attrs.field(factory=set, init=False)
    _suspect_vmms: set[UUID] = attrs.field(factory=set, init=False)

    def next_number(self, kind: str) -> int:
        """1, 2, 3 … per kind; never reused."""
        number = self.counters.get(kind, 0) + 1
        self.counters[kind] = number
        return number

    # -- reading

    def active_vmm(self, instance: Instance) -> Vmm | None:
        """The active VMM's record; None if there is none or if it is deleted."""
        return self._linked(instance.active_propolis_id)

    def target_vmm(self, instance: Instance) -> Vmm | None:
        return self._linked(instance.target_propolis_id)

    def _linked(self, propolis_id: UUID | None) -> Vmm | None:
        vmm = self.vmms.get(propolis_id) if propolis_id is not None else None
        return vmm if vmm is not None and vmm.time_deleted is None else None

    def migration_of(self, instance: Instance) -> Migration | None:
        """The migration the instance points to, deleted or not."""
        return self.migrations.get(instance.migration_id) if instance.migration_id is not None else None

    def vmms_of(self, instance_id: UUID) -> Iterator[Vmm]:
        return (self.vmms[key] for key in self._vmms_of.get(instance_id, ()))

    def external_ips_of(self, instance_id: UUID) -> list[ExternalIp]:
        """All external addresses and subnets that an instance has, or is about to have or lose."""
        return [self.external_ips[address] for address in self._ips_of.get(instance_id, ())]

    def migrations_of(self, instance_id: UUID) -> Iterator[Migration]:
        return (self.migrations[key] for key in self._migrations_of.get(instance_id, ()))

    def reservations_of(self, instance_id: UUID) -> list[Reservation]:
        # by instance, not by its VMM records: a reservation comes first
        return [self.reservations[key] for key in self._reserved_by.get(instance_id, ())]

    def live_instances(self) -> list[Instance]:
        """Undeleted, in order of creation."""
        return [self.instances[key] for key in self._live]

    def live_vmms(self) -> list[Vmm]:
        """Undeleted, in order of creation."""
        return [self.vmms[key] for key in self._live_vmms]

    def suspects(self) -> list[Instance]:
        """Undeleted instances about which a background task may have to do something, in order of creation: those
        that failed, migrate, or whose active VMM is over. Of all the others no task ever wants anything, and they
        are nearly all.
        """
        return sorted((self.instances[key] for key in self._suspects), key=lambda row: row.ordinal)

    def suspect_vmms(self) -> list[Vmm]:
        """Undeleted VMMs that are over, in order of creation: what the reaper may have to delete."""
        return [self.vmms[key] for key in sorted(self._suspect_vmms, key=self._live_vmms.__getitem__)]

    def least_loaded(self) -> Iterator[Sled]:
        """Sleds by the CPUs that reservations hold there, then in order of registration."""
        return (self.sleds[key] for _, _, key in self._by_load)

    def with_baseboard(self, serial: str, part: str) -> Iterator[Sled]:
        """Sleds that registered with this baseboard."""
        return (self.sleds[key] for key in self._with_baseboard.get((serial, part), ()))

    def named(self, name: str) -> Instance | None:
        """The undeleted instance of that name, the oldest if there are several."""
        return next((self.instances[key] for key in self._named.get(name, ())), None)

    def used(self, sled_id: UUID) -> tuple[int, int]:
        """CPUs and bytes of memory that reservations hold on a sled."""
        return self._used.get(sled_id, (0, 0))

    def breaches(self) -> list[str]:
        """Where property 30 does not hold: the rules which only upstream's tests check (NX 1.3)."""
        found = []
        for row in self.live_instances():
            if row.target_propolis_id is not None and row.migration_id is None:
                found.append(f"instance {row.id} has a target but no migration")
            if row.migration_id is not None and row.state is not InstanceDbState.VMM:
                found.append(f"instance {row.id} in state {row.state.label} has a migration")
        return found

    # -- writing: one statement each

    def put_instance(self, new: Instance) -> None:
        old = self.instances.get(new.id)
        _must(1 <= new.state_generation <= GENERATION_MAX, 34, "state generation out of range")
        if old is not None:
            _must(new.state_generation >= old.state_generation, 34, "state generation fell")
            step = 0 if new.updater_id == old.updater_id and new.updater_gen == old.updater_gen else 1
            _must(new.updater_gen == old.updater_gen + step, 34, "a lock change is exactly +1")
        is_vmm = new.state is InstanceDbState.VMM
        _must(is_vmm == (new.active_propolis_id is not None), 29, "state Vmm if and only if an active VMM id")
        for linked in (new.active_propolis_id, new.target_propolis_id):
            if linked is not None and self._linked(linked) is None:
                raise InvariantBroken(31, f"points to a deleted VMM {linked}")
        self.instances[new.id] = new
        if new.time_deleted is not None:
            self._forget_name(new)
        elif old is None:
            self._live[new.id] = None
            self._named.setdefault(new.name, {})[new.id] = None
        self._suspect(new)
        self.changed(new, False)

    def _suspect(self, row: Instance | None) -> None:
        """Keep or forget an instance for the background tasks, by what its row and its active VMM's say now."""
        if row is None:
            return
        active = self.vmms.get(row.active_propolis_id) if row.active_propolis_id is not None else None
        if row.time_deleted is None and (
            row.migration_id is not None
            or (row.state is InstanceDbState.FAILED if active is None else active.state in DESTROYABLE)
        ):
            self._suspects.add(row.id)
        elif self._suspects:
            self._suspects.discard(row.id)

    def _forget_name(self, gone: Instance) -> None:
        self._live.pop(gone.id, None)
        same = self._named.get(gone.name)
        if same is not None:
            same.pop(gone.id, None)
            if not same:
                del self._named[gone.name]

    def put_vmm(self, new: Vmm) -> None:
        old = self.vmms.get(new.id)
        failed = new.state is VmmDbState.FAILED
        has_reason = new.failure_reason is not None
        _must(has_reason or not failed, 45, "a Failed VMM has a failure reason")
        _must(failed or not has_reason or not self.reason_needs_failed, 45, "a failure reason if and only if Failed")
        _must(1 <= new.state_generation <= GENERATION_MAX, 32, "VMM generation out of range")
        if old is not None:
            _must(new.state_generation >= old.state_generation, 32, "VMM generation fell")
        if new.time_deleted is not None:
            instance = self.instances.get(new.instance_id)
            linked = () if instance is None else (instance.active_propolis_id, instance.target_propolis_id)
            if new.id in linked:
                raise InvariantBroken(31, f"VMM {new.id} is deleted while its instance points to it")
        if old is None:
            self._vmms_of.setdefault(new.instance_id, []).append(new.id)
        self.vmms[new.id] = new
        if new.time_deleted is None and new.state in DESTROYABLE:
            self._suspect_vmms.add(new.id)
        elif self._suspect_vmms:
            self._suspect_vmms.discard(new.id)
        if new.time_deleted is not None:
            self._live_vmms.pop(new.id, None)
        elif old is None:
            self._live_vmms[new.id] = len(self.vmms)
        self._suspect(self.instances.get(new.instance_id))
        self.changed(new, False)

    def put_migration(self, new: Migration) -> None:
        old = self.migrations.get(new.id)
        if old is not None:
            _must(new.source_gen >= old.source_gen and new.target_gen >= old.target_gen, 32, "a migration gen fell")
        else:
            self._migrations_of.setdefault(new.instance_id, []).append(new.id)
        self.migrations[new.id] = new
        self.changed(new, False)

    def put_sled(self, new: Sled) -> None:
        old = self.sleds.get(new.id)
        if old is not None:
            self._with_baseboard[_baseboard(old)].pop(new.id)
            self._by_load.pop(bisect_left(self._by_load, self._load(old)))
        self._with_baseboard.setdefault(_baseboard(new), {})[new.id] = None
        insort(self._by_load, self._load(new))
        self.sleds[new.id] = new
        self.changed(new, False)

    def put_reservation(self, new: Reservation) -> None:
        if new.kind is ReservationKind.ACTIVE:
            others = [r for r in self.reservations_of(new.instance_id) if r.kind is ReservationKind.ACTIVE]
            _must(all(r.vmm_id == new.vmm_id for r in others), 44, "two active reservations for one instance")
        self._hold(self.reservations.get(new.vmm_id), -1)
        self._hold(new, 1)
        self.reservations[new.vmm_id] = new
        self._reserved_by.setdefault(new.instance_id, {})[new.vmm_id] = None
        self.changed(new, False)

    def put_external_ip(self, new: ExternalIp) -> None:
        old = self.external_ips.get(new.address)
        if old is not None and old.instance_id != new.instance_id:
            self._no_longer_of(old)
        self.external_ips[new.address] = new
        self._ips_of.setdefault(new.instance_id, {})[new.address] = None
        self.changed(new, False)

    def put_network(self, new: Network) -> None:
        self.networks[new.instance_id] = new
        self.changed(new, False)

    def put_provision(self, new: Provision) -> None:
        self.provisions[new.instance_id] = new
        self.changed(new, False)

    def put(self, row: Row) -> None:
        """Any row, by its kind."""
        match row:
            case Instance():
                self.put_instance(row)
            case Vmm():
                self.put_vmm(row)
            case Migration():
                self.put_migration(row)
            case Sled():
                self.put_sled(row)
            case Reservation():
                self.put_reservation(row)
            case ExternalIp():
                self.put_external_ip(row)
            case Network():
                self.put_network(row)
            case Provision():
                self.put_provision(row)

    def drop_reservation(self, vmm_id: UUID) -> None:
        """Release what a VMM holds; nothing to release is no error (saga nodes may run twice)."""
        row = self.reservations.pop(vmm_id, None)
        if row is not None:
            del self._reserved_by[row.instance_id][vmm_id]
            self._hold(row, -1)
            self.changed(row, True)

    def _hold(self, row: Reservation | None, sign: int) -> None:
        if row is None:
            return
        ncpus, memory = self.used(row.sled_id)
        sled = self.sleds.get(row.sled_id)
        if sled is not None:
            self._by_load.pop(bisect_left(self._by_load, self._load(sled)))
        self._used[row.sled_id] = (ncpus + sign * row.ncpus, memory + sign * row.memory)
        if sled is not None:
            insort(self._by_load, self._load(sled))

    def _load(self, sled: Sled) -> tuple[int, int, UUID]:
        return (self.used(sled.id)[0], sled.ordinal, sled.id)

    def drop_external_ip(self, address: str) -> None:
        row = self.external_ips.pop(address, None)
        if row is not None:
            self._no_longer_of(row)
            self.changed(row, True)

    def _no_longer_of(self, row: ExternalIp) -> None:
        its = self._ips_of[row.instance_id]
        del its[row.address]
        if not its:
            del self._ips_of[row.instance_id]

    def drop_network(self, instance_id: UUID) -> None:
        row = self.networks.pop(instance_id, None)
        if row is not None:
            self.changed(row, True)

    def drop_provision(self, instance_id: UUID) -> None:
        row = self.provisions.pop(instance_id, None)
        if row is not None:
            self.changed(row, True)
