"""Values that cross the core's edge: `Input` in, `Effect` out. `Rack.handle(input, now_us)` is the only door.

A request carries a `ticket` (any int that the shell chose, unique while it waits). Each ticket is answered by
exactly one `Reply`, usually among the effects of the same call; a refusal that is known at once is raised as a
`SledError` instead and changes nothing. Only pokes answer later: when Nexus acknowledged (product.md 4).

Read before: errors.py. Read next: rack.py.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

import attrs

from nexus_client.types import SledVmmState, VmmRuntimeState, VmmStateRequested


@attrs.frozen
class Nic:
    """What a sled reads of a network interface: its VPC and subnets (sled-agent-api.md 2.2 step 6)."""

    vni: int
    subnets: tuple[str, ...]  # canonical CIDR texts, IPv4 before IPv6


@attrs.frozen
class ExternalIp:
    kind: str  # "ephemeral" | "floating"
    ip: str  # canonical text


@attrs.frozen
class MulticastMembership:
    group_ip: str
    sources: tuple[str, ...]


@attrs.frozen
class AttachedSubnet:
    subnet: str  # canonical CIDR text
    kind: str  # "vpc" | "external"


@attrs.frozen
class Registration:
    """The parts of an `InstanceEnsureBody` (any version) that a sled reads (sled-agent-api.md 4.2)."""

    instance_id: UUID
    vmm_runtime: VmmRuntimeState
    propolis_addr: str
    ncpus: int
    memory_mib: int
    hostname: str
    silo_id: UUID
    project_id: UUID
    migration_id: UUID | None = None
    nics: tuple[Nic, ...] = ()
    external_ips: tuple[ExternalIp, ...] = ()
    multicast_groups: tuple[MulticastMembership, ...] = ()
    attached_subnets: tuple[AttachedSubnet, ...] = ()
    crucible_disks: tuple[tuple[UUID, str], ...] = ()  # disk id, request_json (already known to parse)
    file_backends: tuple[tuple[str, str], ...] = ()  # component key, path


@attrs.frozen
class Register:
    ticket: int
    sled_id: UUID
    propolis_id: UUID
    body: Registration


@attrs.frozen
class Unregister:
    ticket: int
    sled_id: UUID
    propolis_id: UUID


@attrs.frozen
class GetState:
    ticket: int
    sled_id: UUID
    propolis_id: UUID


@attrs.frozen
class PutState:
    ticket: int
    sled_id: UUID
    propolis_id: UUID
    requested: VmmStateRequested


@attrs.frozen
class Poke:
    """Test-only push: one step, or `drain`: steps until nothing waits."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    drain: bool


@attrs.frozen
class SimMigrationSource:
    """`POST /vmms/{id}/sim-migration-source`: migrate out to a peer that does not exist."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    migration_id: UUID
    succeeds: bool


class AreaCall(Protocol):
    """A call on one API area's state, e.g. networking: decides first, then changes `area` and returns the result.

    Implementations live in `sim_sled/facts/`; they raise `SledError` before anything has changed.
    """

    def apply(self, area: object, now_us: int) -> object: ...


@attrs.frozen
class CallArea:
    """An operation of a sled's facts (networking and so on): `facts` is the attribute name on the sled."""

    ticket: int
    sled_id: UUID
    facts: str  # "networking"
    call: AreaCall


@attrs.frozen
class Reply:
    """Answers `ticket`. `value` is what the operation returns: `SledVmmState`, `UpdatedRuntime`, None, ..."""

    ticket: int
    value: object


@attrs.frozen
class ReplyError:
    """Refuses `ticket` late (pokes only)."""

    ticket: int
    error: Exception


@attrs.frozen
class PutToNexus:
    """Please send `PUT NEXUS/vmms/{propolis_id}`; answer with `NexusReplied`."""

    sled_id: UUID
    propolis_id: UUID
    body: SledVmmState
    attempt: int
