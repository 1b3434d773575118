"""One sled: its VMMs, what it has to tell Nexus, and its facts.

Read before: core/vmm.py. Read next: core/estate.py, core/rack.py, core/turn.py, daemon/listening.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

import attrs
from msgspec.structs import replace

from nexus_client.outbox import Outbox
from nexus_client.registration import Registration as NexusRegistration
from nexus_client.types import GENERATION_MAX, Baseboard, SledAgentInfo, VmmState
from propolis_stub.waiting import Pacer
from sim_sled.core import observe
from sim_sled.core.config import GENERATIONS_LEFT, VMMS_MAX, SimMode, SledConfig
from sim_sled.core.contract import Registration
from sim_sled.core.errors import Internal, InvalidRequest, NoSuchVmm
from sim_sled.core.estate import AtOnce, Estate, Regions, SledPacer
from sim_sled.core.networking.facts import Networking
from sim_sled.core.vmm import BaggageOf, How, Vmm, no_baggage

ENDED_KEPT: Final = 64
"""Past VMMs whose zone bundles are told; a real sled keeps what fits a quarter of a quota (SR 4.7)."""

_FIRST_STATES = frozenset({VmmState.STARTING, VmmState.MIGRATING})


@attrs.define(eq=False)
class Sled:
    """State of one simulated sled. `due_us` and `armed` belong to the rack's scheduler."""

    config: SledConfig
    pacer: Pacer
    seed: int
    baggage: BaggageOf = no_baggage
    keep_specs: bool = False  # 10 KB per VMM that only a Propolis API needs
    vmms: dict[UUID, Vmm] = attrs.field(factory=dict)
    networking: Networking = attrs.field(factory=Networking)
    rack: Mapping[UUID, Sled] = attrs.field(factory=dict)
    """All sleds of this process, this one too."""
    regions: Regions | None = None
    """The Crucible agents of this process, where it has any."""
    sled_pacer: SledPacer = attrs.field(factory=AtOnce)
    address: str = ""
    """Where this sled's API is served, once it is bound; until then what the configuration says."""
    ended: list[tuple[UUID, datetime]] = attrs.field(factory=list)
    """VMMs that are gone and when they last changed, the oldest first: their zone bundles (SR 4.7)."""
    outbox: Outbox = attrs.field(init=False)
    registration: NexusRegistration | None = None
    threads_used: int = 0
    memory_mib_used: int = 0
    how: How = attrs.field(init=False)
    clock_us: int = 0
    """How far its clock is ahead of the time that passes: in times that it tells, and in no wait."""
    due_us: int | None = None
    armed: int = 0
    _estate: Estate | None = None

    def __attrs_post_init__(self) -> None:
        self.address = self.address or self.config.address
        self.outbox = Outbox(seed=self.seed)
        self.how = How(
            self.pacer,
            self.config.mode is SimMode.EXPLICIT,
            self.config.stop_grace_us,
            self.baggage,
            self.config.refuse_repeated_target,
            self.config.stop_before_start,
        )

    @property
    def has_estate(self) -> bool:
        """Whether anybody has asked for it."""
        return self._estate is not None

    @property
    def estate(self) -> Estate:
        """All that this sled has beside VMMs and networks; made at the first use."""
        if self._estate is None:
            self._estate = Estate(self)
        return self._estate

    def get(self, propolis_id: UUID) -> Vmm:
        """The VMM, or `NoSuchVmm`."""
        vmm = self.vmms.get(propolis_id)
        if vmm is None:
            raise NoSuchVmm(propolis_id)
        return vmm

    def register(self, propolis_id: UUID, body: Registration, now_us: int) -> tuple[Vmm, bool]:
        """Make the sled know a VMM; idempotent: a known one is returned as it is (SA 2.2).

        Returns the VMM and whether it is new. Raises `InvalidRequest` for an initial state that is none,
        `Internal` for another instance's id, a VMM that is too large, or a full sled.
        """
        if self.config.max_vcpus is not None and body.ncpus > self.config.max_vcpus:
            raise Internal(f"could not allocate an instance: ran out of CPUs ({body.ncpus} requested)")
        known = self.vmms.get(propolis_id)
        if known is not None:
            if known.about.instance_id != body.instance_id:
                raise Internal(f"VMM {propolis_id} belongs to instance {known.about.instance_id}")
            self.networking.vmm_registered(propolis_id, body)  # may add routers (SA 2.2 step 6)
            return known, False
        if body.vmm_runtime.state not in _FIRST_STATES:
            raise InvalidRequest(f"a VMM cannot be registered in state {body.vmm_runtime.state.value}")
        if body.vmm_runtime.gen > GENERATION_MAX - GENERATIONS_LEFT:
            raise InvalidRequest(f"generation {body.vmm_runtime.gen} leaves no room for a life")
        self._check_room(body)
        record = observe.registered(body.vmm_runtime, body.migration_id, now_us + self.clock_us)
        if not self.keep_specs and (body.vmm_spec is not None or body.crucible_disks):
            body = replace(body, vmm_spec=None, crucible_disks=())
        vmm = Vmm(self.config.sled_id, propolis_id, body, record, registered=True, clock_us=self.clock_us)
        self.vmms[propolis_id] = vmm
        self.threads_used += body.ncpus
        self.memory_mib_used += body.memory_mib
        self.networking.vmm_registered(propolis_id, body)
        return vmm, True

    def jump(self, us: int) -> None:
        """The clock jumps ahead, or back."""
        self.clock_us += us
        for vmm in self.vmms.values():
            vmm.clock_us = self.clock_us

    def remove(self, vmm: Vmm) -> None:
        """Forget a VMM and all that belongs to it."""
        del self.vmms[vmm.propolis_id]
        vmm.registered = False
        self.threads_used -= vmm.about.ncpus
        self.memory_mib_used -= vmm.about.memory_mib
        self.networking.vmm_removed(vmm.propolis_id)
        self.ended.append((vmm.propolis_id, vmm.record.vmm_state.time_updated))
        del self.ended[:-ENDED_KEPT]

    def deadline_us(self) -> int | None:
        soonest = self.outbox.next_deadline_us()
        registration = self.registration.next_deadline_us() if self.registration is not None else None
        if soonest is None or (registration is not None and registration < soonest):
            soonest = registration
        if self._estate is not None:
            estate = self._estate.next_deadline_us()
            if soonest is None or (estate is not None and estate < soonest):
                soonest = estate
        return soonest

    def info(self, address: str, repo_depot_port: int) -> SledAgentInfo:
        """What Nexus is told of this sled; the registration machine decides on the generation."""
        hardware = self.config.hardware
        serial = hardware.serial_of(self.config.sled_id)
        return SledAgentInfo(
            sa_address=address,
            repo_depot_port=repo_depot_port,
            role=hardware.role,
            baseboard=Baseboard(serial, hardware.baseboard_model, hardware.baseboard_revision),
            usable_hardware_threads=hardware.hardware_threads,
            usable_physical_ram=hardware.physical_ram,
            reservoir_size=hardware.reservoir_size,
            cpu_family=hardware.cpu_family,
            generation=1,
            decommissioned=False,
        )

    def describe(self, each: Callable[[Vmm], dict[str, object]]) -> list[dict[str, object]]:
        """All VMMs in the order of their ids, each as `each` tells it."""
        return [each(self.vmms[propolis_id]) for propolis_id in sorted(self.vmms)]

    def _check_room(self, body: Registration) -> None:
        if len(self.vmms) >= VMMS_MAX:
            raise Internal(f"{VMMS_MAX} VMMs are registered already")
        if not self.config.enforce_capacity:
            return
        hardware = self.config.hardware
        if self.threads_used + body.ncpus > hardware.hardware_threads:
            raise Internal(f"no room for {body.ncpus} more CPUs: {self.threads_used} are in use")
        if (self.memory_mib_used + body.memory_mib) * 2**20 > hardware.reservoir_size:
            raise Internal(f"no room for {body.memory_mib} MiB more: {self.memory_mib_used} MiB are in use")
