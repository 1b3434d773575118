"""Where a VMM goes: sled reservations and Propolis addresses (NX 4.1).

The original draws a sled at random among those that fit; here it is the one with the fewest reserved CPUs, then the
one
that registered first, so that a run can be foretold.

Read next: stub/sagas/vmms.py.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Final
from uuid import UUID

from msgspec.structs import replace

from nexus_client.stub.hazards import Hazard
from nexus_client.stub.records import PROPOLIS_PORT, Instance, Reservation, ReservationKind, Sled
from nexus_client.stub.refusal import conflict, insufficient_capacity
from nexus_client.stub.scope import Scope

VMM_ADDRESSES: Final = 0x1_0000
"""Addresses of VMMs in a sled's /64 begin here: fd00:1122:3344:101::1:1 is the first one's."""
NO_CANDIDATE: Final = "Failed to place instance: Could not find any valid sled on which this instance can be placed"
LOOPBACK_ADDRESSES_MAX: Final = 0xFFFE
"""127.NET.x.y without the first and the last address."""


def host_of(sa_address: str) -> IPv6Address:
    """The address in `[v6]:port`. Raises ValueError for anything else, as Nexus's decoder does."""
    host, bracket, port = sa_address.rpartition("]:")
    if not bracket or not host.startswith("[") or not port.isascii() or not port.isdigit() or int(port) > 0xFFFF:
        raise ValueError(f"invalid socket address syntax: {sa_address!r}")
    return IPv6Address(host[1:])


def pinned(ctx: Scope, instance: Instance) -> UUID | None:
    """The sled to which an instance's starts are pinned, while it is in service: one that is expunged frees them."""
    sled = ctx.records.sleds.get(instance.pinned_sled_id) if instance.pinned_sled_id is not None else None
    return None if sled is not None and sled.policy != "in_service" else instance.pinned_sled_id


def next_pin(ctx: Scope, instance: Instance) -> None:
    """A start has its sled: the one after it is pinned to the next of the list, if there is one."""
    if instance.then_sled_ids:
        following, *rest = instance.then_sled_ids
        ctx.records.put_instance(replace(instance, pinned_sled_id=following, then_sled_ids=tuple(rest)))


def choose_sled(ctx: Scope, instance: Instance, wanted: UUID | None) -> Sled:
    """A sled with room, or 507; an unknown wanted one is no candidate (NX 4.2)."""
    records = ctx.records
    if wanted is None:
        candidates = records.least_loaded()
    else:
        candidates = iter([records.sleds[wanted]] if wanted in records.sleds else [])
    for sled in candidates:
        ncpus, memory = records.used(sled.id)
        if (
            sled.policy == "in_service"
            and sled.state == "active"
            and ncpus + instance.ncpus <= sled.info.usable_hardware_threads
            and memory + instance.memory <= sled.info.reservoir_size
        ):
            return sled
    raise insufficient_capacity(NO_CANDIDATE)


def reserve(ctx: Scope, instance: Instance, propolis_id: UUID, sled_id: UUID, kind: ReservationKind) -> None:
    """Hold room for a VMM: at most one `active` and one `target` per instance, else 409 (NX 1.3).

    An active reservation whose start is over waits only for its release (that VMM is unlinked, or SagaUnwound and
    about to be replaced): it steps aside, because a public `stopped` or `failed` promises that a start is accepted
    (NX 7, #38). The original refuses there, too: hazard `reservation_lags`.
    """
    for held in ctx.records.reservations_of(instance.id):
        if held.kind is not kind or held.vmm_id == propolis_id:
            continue
        if kind is ReservationKind.TARGET:
            raise conflict("Instance already migrating")
        if ctx.is_starting(held.vmm_id) or Hazard.RESERVATION_LAGS in ctx.config.hazards:
            raise conflict("Instance already starting")
        ctx.records.put_reservation(replace(held, kind=ReservationKind.TOMBSTONED))
    ctx.records.put_reservation(Reservation(propolis_id, sled_id, instance.id, kind, instance.ncpus, instance.memory))


def lags(ctx: Scope, instance: Instance) -> bool:
    """Whether the room of a VMM that is over is in the way of a start, as in the original (`reservation_lags`)."""
    return Hazard.RESERVATION_LAGS in ctx.config.hazards and any(
        held.kind is ReservationKind.ACTIVE for held in ctx.records.reservations_of(instance.id)
    )


def propolis_address(ctx: Scope, sled: Sled) -> tuple[str, int]:
    """The next address for a Propolis on this sled: in its /64, or in 127/8 for a sled on a loopback address."""
    host = host_of(sled.info.sa_address)
    mapped = host.ipv4_mapped
    if host.is_loopback or (mapped is not None and mapped.is_loopback):
        number = (ctx.records.next_number("loopback address") - 1) % LOOPBACK_ADDRESSES_MAX + 1
        return f"127.{ctx.config.loopback_net}.{number >> 8}.{number & 0xFF}", ctx.config.loopback_port
    number = ctx.records.next_number(f"address on {sled.id}")
    prefix = int(host) >> 64 << 64
    return str(IPv6Address(prefix | (VMM_ADDRESSES + number))), PROPOLIS_PORT
