"""Values that cross the core's edge: `Input` in, `Effect` out. `Rack.handle(input, now_us)` is the only door.

A request carries a `ticket` (any int that the shell chose, unique while it waits). Each ticket is answered by
exactly one `Reply`, usually among the effects of the same call; a refusal that is known at once is raised as a
`SledError` instead and changes nothing. Only pokes answer later: when Nexus acknowledged (SA 2.9).

Read before: core/errors.py.
Read next: core/rack.py, core/rules.py, core/turn.py, daemon/reporting.py, play/wrong_sleds.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from msgspec import Struct

from nexus_client.outbox import Outcome
from nexus_client.registration import (
    Decommissioned,
    GetReplied,
    GetSledAgent,
    PostReplied,
    PostSledAgent,
    Registered,
    RegistrationRefused,
)
from nexus_client.types import SledAgentInfo, SledVmmState, VmmRuntimeState, VmmState, VmmStateRequested
from propolis_stub.contract import Effect as VmEffect
from propolis_stub.contract import Input as VmInput
from propolis_stub.guest_events import GuestEvent
from sim_sled.core.errors import SledError

if TYPE_CHECKING:  # only a shell makes one, and only a shell reads it
    from propolis_stub.spec.versions import SledSpec


class Nic(Struct, frozen=True, gc=False):
    """What a sled reads of a network interface: its VPC and subnets (SA 2.2 step 6)."""

    vni: int
    subnets: tuple[str, ...]  # canonical CIDR texts, IPv4 before IPv6


class ExternalIp(Struct, frozen=True, gc=False):
    kind: str  # "ephemeral" | "floating"
    ip: str  # canonical text


class MulticastMembership(Struct, frozen=True, gc=False):
    group_ip: str
    sources: tuple[str, ...]


class AttachedSubnet(Struct, frozen=True, gc=False):
    subnet: str  # canonical CIDR text
    kind: str  # "vpc" | "external"


class Registration(Struct, frozen=True, gc=False):
    """The parts of an `InstanceEnsureBody` (any version) that a sled reads (SA 4.2)."""

    instance_id: UUID
    vmm_runtime: VmmRuntimeState
    propolis_addr: str  # canonical text, as `SocketAddress` writes it
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
    disk_targets: tuple[tuple[UUID, tuple[str, ...]], ...] = ()
    """Of each Crucible disk the addresses of its regions, without those of a read-only parent (SR 4.3)."""
    file_backends: tuple[tuple[str, str], ...] = ()  # component key, path
    unbuildable: str = ""  # why no Propolis can make this VM; empty: it can
    vmm_spec: SledSpec | None = None  # as it came, for who serves the Propolis API; otherwise forgotten


class Register(Struct, frozen=True):
    ticket: int
    sled_id: UUID
    propolis_id: UUID
    body: Registration


class Unregister(Struct, frozen=True):
    ticket: int
    sled_id: UUID
    propolis_id: UUID


class GetState(Struct, frozen=True):
    ticket: int
    sled_id: UUID
    propolis_id: UUID


class PutState(Struct, frozen=True):
    ticket: int
    sled_id: UUID
    propolis_id: UUID
    requested: VmmStateRequested


class Poke(Struct, frozen=True):
    """Test-only push: one step, or `drain`: steps until nothing waits."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    drain: bool


class SimMigrationSource(Struct, frozen=True):
    """`POST /vmms/{id}/sim-migration-source`: migrate out to a peer that does not exist."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    migration_id: UUID
    succeeds: bool


class AreaCall(Protocol):
    """A call on one API area's state, e.g. networking: decides first, then changes `area` and returns the result.

    Implementations: `networking/calls.py`, and `estate.Ask` for all other areas; they raise `SledError` before
    anything has changed.
    """

    def apply(self, area: object, now_us: int) -> object: ...


class CallArea(Struct, frozen=True):
    """An operation of a sled's facts: `facts` is the attribute name on the sled. `op`: its id in the API's documents,
    for who is interested in requests; "" for a further step of one, or for what is none.
    """

    ticket: int
    sled_id: UUID
    facts: str  # "networking" | "estate"
    call: AreaCall
    op: str = ""


class InjectState(Struct, frozen=True):
    """Somebody wants this VMM in `state`. Without `illegal` only failed and destroyed: what a sled may force."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    state: VmmState
    illegal: bool = False


class KillPropolis(Struct, frozen=True):
    """The Propolis process dies. Restarted, it knows no VM, so the agent fails the VMM; else it is just silent
    (PR 3.9: "zone running: retry for ever").
    """

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    restart: bool


class ForgetVmm(Struct, frozen=True):
    """The agent loses this VMM: from now on 404 `NO_SUCH_INSTANCE`, and nothing is published (omicron#6809)."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID


class InjectGuest(Struct, frozen=True):
    """The guest halts, resets or triple-faults (PR 3.4)."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    event: GuestEvent


class JumpClock(Struct, frozen=True):
    """The sled's clock is `us` ahead of where it was (behind, if negative): times in what it says, and no wait."""

    ticket: int
    sled_id: UUID
    us: int


class PropolisInput(Struct, frozen=True):
    """Anything of the Propolis API for the VM of this VMM; answered by the `propolis_stub` effects it caused."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID
    item: VmInput


class NexusReplied(Struct, frozen=True):
    """How one `PutToNexus` ended."""

    sled_id: UUID
    propolis_id: UUID
    serial: int
    outcome: Outcome


class Announce(Struct, frozen=True):
    """This sled shall be known to Nexus as `info` (its generation is decided by the registration machine)."""

    sled_id: UUID
    info: SledAgentInfo


class RegistrationReplied(Struct, frozen=True):
    """How one `AskNexus` ended."""

    sled_id: UUID
    answer: GetReplied | PostReplied


class HurryOutbox(Struct, frozen=True):
    """Whatever waits for a retry is tried now (shutdown)."""

    sled_id: UUID


class Tick(Struct, frozen=True):
    """Time has passed: whatever is due by now happens, in order."""


Injection = InjectState | KillPropolis | ForgetVmm | InjectGuest | PropolisInput | CallArea | JumpClock
"""What somebody does to a VMM or a sled that no API offers: its `ticket` may be 0, then nobody waits for it."""

Input = (
    Register
    | Unregister
    | GetState
    | PutState
    | Poke
    | SimMigrationSource
    | CallArea
    | InjectState
    | KillPropolis
    | ForgetVmm
    | InjectGuest
    | PropolisInput
    | NexusReplied
    | Announce
    | RegistrationReplied
    | HurryOutbox
    | Tick
)


class Reply(Struct, frozen=True):
    """Answers `ticket`. `value` is what the operation returns: `SledVmmState`, `UpdatedRuntime`, None, ..."""

    ticket: int
    value: object


class ReplyError(Struct, frozen=True):
    """Refuses `ticket` late: a poke, or a request during which the agent aborts."""

    ticket: int
    error: SledError


class PutToNexus(Struct, frozen=True):
    """Please send `PUT NEXUS/vmms/{propolis_id}`; answer with `NexusReplied` and the same serial."""

    sled_id: UUID
    propolis_id: UUID
    body: SledVmmState
    attempt: int
    serial: int


class AskNexus(Struct, frozen=True):
    """Please send this registration call; answer with `RegistrationReplied`."""

    sled_id: UUID
    call: GetSledAgent | PostSledAgent


class RegistrationNews(Struct, frozen=True):
    """Where the registration has come to: registered, decommissioned or refused."""

    sled_id: UUID
    news: Registered | Decommissioned | RegistrationRefused


class FromPropolis(Struct, frozen=True):
    """What the VM of a VMM says to whoever serves its Propolis API: all of it, in order (`Rack.expose`)."""

    sled_id: UUID
    propolis_id: UUID
    effects: list[VmEffect]


class DropFiles(Struct, frozen=True):
    """Please delete the stored bytes of these keys: no fact refers to them any more. A key that ends in `/` means all
    that begin with it.
    """

    sled_id: UUID
    keys: tuple[str, ...]


class ZoneServer(Struct, frozen=True):
    """A server in a zone, at `[ip]:port` (SR 4.8): the Crucible agent of `dataset`, or a pantry."""

    address: str
    dataset: UUID | None


class ServeZones(Struct, frozen=True):
    """Please listen for these servers, and for none of other zones any more."""

    sled_id: UUID
    servers: tuple[ZoneServer, ...]


class TellNexus(Struct, frozen=True):
    """Please POST `body` to Nexus's internal API, after everything that was to be told before; nobody waits for the
    answer.
    """

    sled_id: UUID
    path: str
    body: dict[str, Any]


Effect = (
    Reply | ReplyError | PutToNexus | AskNexus | RegistrationNews | FromPropolis | DropFiles | ServeZones | TellNexus
)


def operation(item: object) -> str:
    """The operation id of an input ("" for what is no operation of the API)."""
    if isinstance(item, CallArea):
        return item.op
    return _OPERATIONS.get(type(item), "")


_OPERATIONS: Final[dict[type, str]] = {
    Register: "vmm_register",
    Unregister: "vmm_unregister",
    GetState: "vmm_get_state",
    PutState: "vmm_put_state",
}
