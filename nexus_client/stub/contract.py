"""Values that cross the edge of the Nexus model's core: inputs in, effects out (NX 3 to 6).

A *ticket* is a number which the caller chooses; the one answer to an input that has a ticket is a `Reply` (or a
`Dropped` if Nexus died before it could answer) with the same ticket, in this or in a later call of `handle`.
A *call id* is a number which the core chooses; `CallSled` is answered with `SledAnswered` and the same call id.
A `SledAnswered` for a call nobody waits for any more (Nexus crashed meanwhile) is ignored.

Read next: stub/nexus.py, stub/records.py, stub/server/sled_client.py.
"""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import UUID

from msgspec import Struct

from nexus_client.dropshot.identity import IdentityEnum
from nexus_client.types import SledAgentInfo, SledVmmState, UpdatedRuntime, VmmStateRequested

# ---- what sleds and users say --------------------------------------------------------------------------------------


class VmmReported(Struct, frozen=True):
    """`PUT /vmms/{propolis_id}` of a sled (NX 3.2)."""

    ticket: int
    propolis_id: UUID
    state: SledVmmState


class SledPosted(Struct, frozen=True):
    """`POST /sled-agents/{sled_id}` (NX 3.3)."""

    ticket: int
    sled_id: UUID
    info: SledAgentInfo


class SledGot(Struct, frozen=True):
    """`GET /sled-agents/{sled_id}` (NX 3.3)."""

    ticket: int
    sled_id: UUID


class CreateInstance(Struct, frozen=True):
    """A user creates an instance. `memory` in bytes. `sled_id` pins its starts to one sled while that
    is in service (not in the original); `then_sled_ids`: each start after the first to the next of these.
    """

    ticket: int
    name: str
    hostname: str
    ncpus: int = 2
    memory: int = 4 * 1024**3
    start: bool = True
    description: str = ""
    auto_restart_policy: str | None = None
    auto_restart_cooldown_us: int | None = None
    uses_local_storage: bool = False
    sled_id: UUID | None = None
    then_sled_ids: tuple[UUID, ...] = ()
    project: str = "default"
    silo: str = "default"


class Start(Struct, frozen=True):
    ticket: int
    instance_id: UUID


class Stop(Struct, frozen=True):
    ticket: int
    instance_id: UUID


class Reboot(Struct, frozen=True):
    ticket: int
    instance_id: UUID


class Migrate(Struct, frozen=True):
    """An operator moves an instance (lockstep `POST /instances/{id}/migrate`)."""

    ticket: int
    instance_id: UUID
    dst_sled_id: UUID


class Delete(Struct, frozen=True):
    ticket: int
    instance_id: UUID


class IpKind(IdentityEnum):
    """What is attached: the first two have their sled call `external-ip`, the last one `attached-subnets`."""

    EPHEMERAL = "ephemeral"
    FLOATING = "floating"
    SUBNET = "subnet"


class AttachIp(Struct, frozen=True):
    """Attach an external IP or subnet (NX 6.1). No address for an ephemeral IP: Nexus draws one from its
    pool.
    """

    ticket: int
    instance_id: UUID
    kind: IpKind
    address: str | None = None


class DetachIp(Struct, frozen=True):
    """Detach an external IP or subnet. An ephemeral IP needs no address."""

    ticket: int
    instance_id: UUID
    kind: IpKind
    address: str | None = None


class CheckConsole(Struct, frozen=True):
    """May a user connect to the serial console now (NX 6.2)? Answers 200 with the Propolis address, or the
    400.
    """

    ticket: int
    instance_id: UUID


class GetInstance(Struct, frozen=True):
    ticket: int
    instance_id: UUID


class ListInstances(Struct, frozen=True):
    ticket: int


class ListSleds(Struct, frozen=True):
    ticket: int


# ---- operators and faults ------------------------------------------------------------------------------------------


class SetSled(Struct, frozen=True):
    """What an operator or the hardware says about a sled; None leaves a value alone.

    policy: in_service | expunged; state: active | decommissioned; power: a0 | a1 | a2 | a3 | off | unknown.
    """

    ticket: int
    sled_id: UUID
    policy: str | None = None
    state: str | None = None
    power: str | None = None


class Task(IdentityEnum):
    """The background tasks (NX 4.5, 5.4)."""

    WATCHER = "instance_watcher"
    UPDATER = "instance_updater"
    REAPER = "abandoned_vmm_reaper"
    REINCARNATION = "instance_reincarnation"


class RunTask(Struct, frozen=True):
    """Activate one background task now, whatever its period says. Answered 204 at once; its work goes on."""

    ticket: int
    task: Task


class CrashPoint(IdentityEnum):
    """Where an armed crash strikes."""

    AFTER_COMMIT = "after_commit"
    """The next report that needs an update saga: its rows are written, no saga is started, nobody is answered."""
    IN_COMMIT = "in_commit"
    """The next update saga which writes its record dies before it can log that: the node runs again after `Boot`."""


class ArmCrash(Struct, frozen=True):
    """Nexus dies at this point the next time it is reached. Volatile: a crash or `Boot` disarms it."""

    ticket: int
    point: CrashPoint


class Crash(Struct, frozen=True):
    """Nexus dies now: tickets, calls and tasks in flight are forgotten, records and the saga log stay."""


class Boot(Struct, frozen=True):
    """Nexus starts (again): background tasks are armed and the sagas of the log go on, repeating their last node."""


class Tick(Struct, frozen=True):
    """Time has passed."""


# ---- answers of sleds ----------------------------------------------------------------------------------------------


class Answered(Struct, frozen=True):
    """A 2xx with a body that could be read: of register and get state, of put state and unregister, or of the
    rest.
    """

    body: SledVmmState | UpdatedRuntime | None = None


class ErrorAnswered(Struct, frozen=True):
    """A 4xx or 5xx with a readable error body."""

    status: int
    error_code: str | None = None
    message: str = ""


class NoConnection(Struct, frozen=True):
    """Refused, reset, no route, name unknown."""

    text: str = "connection refused"


class TimedOut(Struct, frozen=True):
    """No answer within the sled's time-out."""

    text: str = "timed out"


class Malformed(Struct, frozen=True):
    """An answer which fits no expectation: unreadable body, unexpected status."""

    text: str = "malformed answer"


Outcome: TypeAlias = Answered | ErrorAnswered | NoConnection | TimedOut | Malformed


class SledAnswered(Struct, frozen=True):
    """What came of a call to a sled (`CallSled`)."""

    call_id: int
    outcome: Outcome


Input: TypeAlias = (
    VmmReported
    | SledPosted
    | SledGot
    | CreateInstance
    | Start
    | Stop
    | Reboot
    | Migrate
    | Delete
    | AttachIp
    | DetachIp
    | CheckConsole
    | GetInstance
    | ListInstances
    | ListSleds
    | SetSled
    | RunTask
    | ArmCrash
    | Crash
    | Boot
    | Tick
    | SledAnswered
)

# ---- calls to sleds (NX 4.1) ---------------------------------------------------------------------------------


class NetworkInterface(Struct, frozen=True):
    """The one NIC of an instance: IPv4, in the subnet and VPC of its project."""

    id: UUID
    name: str
    ip: str
    subnet: str
    mac: str
    vni: int


class SourceNat(Struct, frozen=True):
    """A 16384-aligned slice of the ports of an external address (SA 4.2)."""

    ip: str
    first_port: int
    last_port: int


class VmSpec(Struct, frozen=True):
    """What Nexus knows of the virtual machine; bodies.py writes it down in the shape of an API version."""

    hostname: str
    ncpus: int
    memory_mb: int
    project_id: UUID
    silo_id: UUID
    nic: NetworkInterface
    source_nat: SourceNat
    boot_disk_id: UUID
    ephemeral_ip: str | None = None
    floating_ips: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()


class RegisterVmm(Struct, frozen=True):
    """`PUT /vmms/{propolis_id}`; `state` is `starting` or `migrating`, `gen` the record's generation + 1."""

    propolis_id: UUID
    instance_id: UUID
    propolis_addr: str
    state: str
    gen: int
    time_us: int
    migration_id: UUID | None
    spec: VmSpec


class UnregisterVmm(Struct, frozen=True):
    """`DELETE /vmms/{propolis_id}`."""

    propolis_id: UUID


class PutVmmState(Struct, frozen=True):
    """`PUT /vmms/{propolis_id}/state`."""

    propolis_id: UUID
    requested: VmmStateRequested


class GetVmmState(Struct, frozen=True):
    """`GET /vmms/{propolis_id}/state`."""

    propolis_id: UUID


class PutExternalIp(Struct, frozen=True):
    """`PUT /vmms/{propolis_id}/external-ip`."""

    propolis_id: UUID
    kind: IpKind
    address: str


class DeleteExternalIp(Struct, frozen=True):
    """`DELETE /vmms/{propolis_id}/external-ip` (with a body)."""

    propolis_id: UUID
    kind: IpKind
    address: str


class AttachSubnet(Struct, frozen=True):
    """`POST /vmms/{propolis_id}/attached-subnets`; a 409 counts as success."""

    propolis_id: UUID
    subnet: str


class DetachSubnet(Struct, frozen=True):
    """`DELETE /vmms/{propolis_id}/attached-subnets/{subnet}`."""

    propolis_id: UUID
    subnet: str


class ReadInventory(Struct, frozen=True):
    """`GET /inventory`: asked of a sled that registered anew or changed (NX 3.3). The answer is not used."""


SledOp: TypeAlias = (
    RegisterVmm
    | UnregisterVmm
    | PutVmmState
    | GetVmmState
    | PutExternalIp
    | DeleteExternalIp
    | AttachSubnet
    | DetachSubnet
    | ReadInventory
)

# ---- effects -------------------------------------------------------------------------------------------------------


class ErrorBody(Struct, frozen=True):
    """What an error says; the HTTP shell adds `request_id`. `detail` is what Nexus would only log."""

    error_code: str | None
    message: str
    detail: str | None = None


class Reply(Struct, frozen=True):
    """The answer to the input with this ticket. `body`: an `ErrorBody` if status >= 400, else a value for JSON, or
    None.
    """

    ticket: int
    status: int
    body: Any = None


class Dropped(Struct, frozen=True):
    """Nexus died with this ticket open, or was down when it came: the connection closes without an answer."""

    ticket: int


class CallSled(Struct, frozen=True):
    """Ask a sled; answer with `SledAnswered(call_id, outcome)`. `address` is the sled's `sa_address`."""

    call_id: int
    sled_id: UUID
    address: str
    op: SledOp


class Happened(Struct, frozen=True):
    """One line of the timeline. `what` is one of: asked, answered, refused, called, returned, reported, record,
    public,
    saga, task, sled, crash, broken. For `public`, `text` is the new public state.
    """

    at_us: int
    what: str
    text: str
    instance_id: UUID | None = None
    propolis_id: UUID | None = None


class Crashed(Struct, frozen=True):
    """Nexus is down (an armed crash struck, or `Crash` came). Nothing but `Boot` is understood until then."""


Effect: TypeAlias = Reply | Dropped | CallSled | Happened | Crashed
