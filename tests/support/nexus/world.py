"""A closed world for the Nexus model: pure fake sleds that keep properties 1 to 28, and all that is on its way.

`World` performs no effect by itself: calls and reports wait in `calls` and `waiting_reports()` until a test answers
or delivers them, in any order, as often as it likes. `settle()` does all that is left, in order; `rest()` also runs
the background tasks until nothing changes any more.
"""

from uuid import UUID

import attrs
from msgspec.structs import replace

from nexus_client.stub.config import Config
from nexus_client.stub.contract import (
    Answered,
    AttachIp,
    CallSled,
    CreateInstance,
    Delete,
    DeleteExternalIp,
    DetachIp,
    Dropped,
    ErrorAnswered,
    GetVmmState,
    Migrate,
    PutExternalIp,
    PutVmmState,
    Reboot,
    RegisterVmm,
    Reply,
    RunTask,
    SledAnswered,
    SledPosted,
    Start,
    Stop,
    Task,
    Tick,
    UnregisterVmm,
    VmmReported,
)
from nexus_client.stub.nexus import Nexus
from nexus_client.types import (
    MIGRATION_TERMINAL,
    TERMINAL,
    Asked,
    Baseboard,
    MigrationRuntimeState,
    MigrationState,
    SledAgentInfo,
    SledCpuFamily,
    SledRole,
    SledVmmState,
    UpdatedRuntime,
    VmmRuntimeState,
    VmmState,
    time_of,
)

S, M = VmmState, MigrationState
GONE = ErrorAnswered(404, "NO_SUCH_INSTANCE", "Not Found")
BAD = ErrorAnswered(400, "InvalidRequest", "the sled refuses this")
EPOCH_US = 1_700_000_000_000_000
TIRED_US = 3_600_000_000
"""So long no sled pauses before it reports again, unless nobody will ever take what it says."""


def sled_id(number):
    return UUID(int=0x51ED_0000 + number)


def sled_info(number, generation=1, **changes):
    info = SledAgentInfo(
        sa_address=f"[fd00:1122:3344:10{number}::1]:12345",
        repo_depot_port=12348,
        role=SledRole.GIMLET,
        baseboard=Baseboard(f"serial-{number}", "913-0000019", 6),
        usable_hardware_threads=128,
        usable_physical_ram=2**40,
        reservoir_size=2**39,
        cpu_family=SledCpuFamily.AMD_MILAN,
        generation=generation,
        decommissioned=False,
    )
    return replace(info, **changes)


def report(state, gen, *, into=None, out=None, now_us=EPOCH_US):
    """A body as a sled sends it; `into` and `out`: (migration id, state, gen)."""

    def side(what):
        return None if what is None else MigrationRuntimeState(what[0], what[1], what[2], time_of(now_us))

    return SledVmmState(VmmRuntimeState(state, gen, time_of(now_us)), side(into), side(out))


@attrs.define(eq=False)
class FakeVmm:
    """One VMM on a fake sled. `plan`: what will happen by itself, each (state, in, out), None for no change."""

    id: UUID
    address: str
    state: VmmState
    gen: int
    into: tuple | None = None
    out: tuple | None = None
    moving: bool = False
    plan: list = attrs.field(factory=list)
    unacknowledged: bool = False

    def body(self, now_us):
        return report(self.state, self.gen, into=self.into, out=self.out, now_us=now_us)

    def change(self, state=None, into=None, out=None):
        """One observation: generations rise by one, terminal VMMs end their migrations (property 10)."""
        if state is not None:
            self.state = state
            self.gen += 1
        if into is not None and self.into is not None and self.into[1] is not into:
            self.into = (self.into[0], into, self.into[2] + 1)
        if out is not None and self.out is not None and self.out[1] is not out:
            self.out = (self.out[0], out, self.out[2] + 1)
        if self.state in TERMINAL:
            self.plan.clear()
            if self.into is not None and self.into[1] not in MIGRATION_TERMINAL:
                self.into = (self.into[0], M.FAILED, self.into[2] + 1)
            if self.out is not None and self.out[1] not in MIGRATION_TERMINAL:
                self.out = (self.out[0], M.FAILED, self.out[2] + 1)
        self.unacknowledged = True


@attrs.define(eq=False)
class FakeSled:
    """Answers as a correct sled does; `vmms` is what it knows."""

    id: UUID
    world: "World"
    vmms: dict = attrs.field(factory=dict)
    connected: bool = True

    def answer(self, op):
        now_us = self.world.now_us
        if isinstance(op, RegisterVmm):
            vmm = self.vmms.get(op.propolis_id)
            if vmm is None:
                into = None if op.migration_id is None else (op.migration_id, M.PENDING, 1)
                vmm = FakeVmm(op.propolis_id, op.propolis_addr, S(op.state), op.gen, into)
                self.vmms[vmm.id] = vmm
            return Answered(vmm.body(now_us))
        if isinstance(op, UnregisterVmm):
            vmm = self.vmms.pop(op.propolis_id, None)
            if vmm is None:
                return Answered(UpdatedRuntime(None))
            unlink(self.world.sleds.values(), vmm)
            vmm.change(S.FAILED)
            return Answered(UpdatedRuntime(vmm.body(now_us)))
        if isinstance(op, (PutExternalIp, DeleteExternalIp)):
            return Answered()
        vmm = self.vmms.get(op.propolis_id)
        if vmm is None:
            return GONE
        if isinstance(op, GetVmmState):
            return Answered(vmm.body(now_us))
        assert isinstance(op, PutVmmState)
        refused = self._put(vmm, op.requested)
        return refused if refused is not None else Answered(UpdatedRuntime(vmm.body(now_us)))

    def _put(self, vmm, requested):
        resting = next((step[0] for step in reversed(vmm.plan) if step[0] is not None), vmm.state)
        if requested.type is Asked.MIGRATION_TARGET:
            if vmm.moving and self.world.real_agents:
                return None  # the real agent does not wait for the result (SA 2.12)
            if vmm.plan or vmm.state is not S.MIGRATING or vmm.into is None:
                return BAD
            vmm.moving = True
            return self.world.link_migration(vmm, requested.value.src_propolis_addr)
        if requested.type is Asked.RUNNING:
            if resting is S.STARTING:
                vmm.plan.append((S.RUNNING, None, None))
            return BAD if resting in (S.STOPPING, S.STOPPED, S.DESTROYED, S.FAILED) else None
        if requested.type is Asked.STOPPED:
            if resting is S.STARTING:
                vmm.change(S.DESTROYED)
            elif resting is S.RUNNING:
                vmm.change(S.STOPPING)
                vmm.plan += [(S.STOPPING, None, None), (S.DESTROYED, None, None)]
            elif resting in (S.FAILED, S.MIGRATING):
                return BAD
            return None
        if resting is not S.RUNNING:
            return BAD
        if vmm.state is not S.REBOOTING and not any(step[0] is S.REBOOTING for step in vmm.plan):
            vmm.change(S.REBOOTING)
            vmm.plan += [(S.REBOOTING, None, None), (S.RUNNING, None, None)]
        return None

    def step(self, propolis_id):
        """One thing happens by itself on this VMM; its report then waits."""
        vmm = self.vmms[propolis_id]
        vmm.change(*vmm.plan.pop(0))

    def fail(self, propolis_id):
        vmm = self.vmms[propolis_id]
        unlink(self.world.sleds.values(), vmm)
        vmm.change(S.FAILED)

    def lose(self, propolis_id):
        """The sled forgets the VMM without a word, as after a crash of its agent."""
        unlink(self.world.sleds.values(), self.vmms.pop(propolis_id))


def link(sleds, target, src_addr):
    """Both sides will move; a source that is not there, or busy, fails the migration on the target."""
    found = [vmm for sled in sleds for vmm in sled.vmms.values() if vmm.address == src_addr]
    source = found[0] if found else None
    if source is None or source.plan or source.state is not S.RUNNING:
        target.plan.append((S.FAILED, M.FAILED, None))
        return
    source.out = (target.into[0], M.PENDING, 1)
    source.plan += [(S.MIGRATING, None, M.IN_PROGRESS), (S.STOPPING, None, M.COMPLETED), (S.DESTROYED, None, None)]
    target.plan += [(None, M.IN_PROGRESS, None), (S.RUNNING, M.COMPLETED, None)]


def unlink(sleds, target):
    """The target of a migration is gone: a source that has not completed yet notices and runs on."""
    if target.into is None or target.into[1] in MIGRATION_TERMINAL:
        return
    for sled in sleds:
        for vmm in sled.vmms.values():
            if vmm.out is not None and vmm.out[0] == target.into[0] and vmm.out[1] not in MIGRATION_TERMINAL:
                vmm.plan[:] = [(S.RUNNING, None, M.FAILED)]


@attrs.define(eq=False)
class World:
    nexus: Nexus
    now_us: int = EPOCH_US
    sleds: dict = attrs.field(factory=dict)
    calls: list = attrs.field(factory=list)
    replies: dict = attrs.field(factory=dict)
    lines: list = attrs.field(factory=list)
    sent: list = attrs.field(factory=list)
    exchanges: list = attrs.field(factory=list)
    checker: object = None
    real_agents: bool = False
    _ticket: int = 0

    @classmethod
    def make(cls, sleds=2, seed=0, behaviour=None, **config):
        world = cls(Nexus(Config(**config), seed, behaviour))
        for number in range(1, sleds + 1):
            world.add_sled(number)
        return world

    def add_sled(self, number, **changes):
        key = sled_id(number)
        self.sleds[key] = FakeSled(key, self)
        assert self.ask(SledPosted, key, sled_info(number, **changes)).status == 204

    # -- inputs

    def do(self, item):
        """One input now; its calls wait, its replies are kept."""
        return self.hear(item, self.nexus.handle(item, self.now_us))

    def hear(self, item, effects):
        """What becomes of the effects of one input."""
        if self.nexus.broken:
            raise self.nexus.broken[0]
        for effect in effects:
            if isinstance(effect, CallSled):
                self.calls.append(effect)
            elif isinstance(effect, (Reply, Dropped)):
                assert effect.ticket not in self.replies, "a ticket is answered once"
                self.replies[effect.ticket] = effect
        self.lines += effects
        if self.checker is not None:
            self.checker.must(self.checker.after(item, effects))
        return effects

    def ask(self, kind, *args, **kwargs):
        """An input with a new ticket; the reply, or None while it is open."""
        return self.replies.get(self.open(kind, *args, **kwargs))

    def open(self, kind, *args, **kwargs):
        self._ticket += 1
        ticket = self._ticket
        self.do(kind(ticket, *args, **kwargs))
        return ticket

    def wait(self, us):
        """Time passes, with a Tick at every deadline on the way."""
        end_us = self.now_us + us
        for _ in range(1000):
            due_us = self.nexus.next_deadline_us()
            if due_us is None or due_us > end_us:
                break
            self.now_us = max(self.now_us, due_us)
            self.do(Tick())
        self.now_us = end_us
        self.do(Tick())

    # -- what is on its way

    def answer(self, call, outcome=None):
        """Answer a waiting call, by default with what its sled says."""
        self.calls.remove(call)
        if outcome is None:
            outcome = self.sleds[call.sled_id].answer(call.op)
        self.exchanges.append((call, outcome))
        return self.do(SledAnswered(call.call_id, outcome))

    def waiting_reports(self):
        """(sled, VMM) pairs whose newest state Nexus has not acknowledged."""
        return [(sled, vmm) for sled in self.sleds.values() for vmm in list(sled.vmms.values()) if vmm.unacknowledged]

    def deliver(self, sled, vmm):
        """The sled reports this VMM's state; acknowledged, a terminal one is forgotten."""
        body = vmm.body(self.now_us)
        self.sent.append((vmm.id, body))
        reply = self.ask(VmmReported, vmm.id, body)
        if isinstance(reply, Reply) and reply.status < 500:
            vmm.unacknowledged = False
            if vmm.state in TERMINAL:
                sled.vmms.pop(vmm.id, None)
        return reply

    def report(self, propolis_id, body):
        """Any report at all, as from an unknown sled."""
        return self.ask(VmmReported, propolis_id, body)

    def link_migration(self, target, src_addr):
        return link(self.sleds.values(), target, src_addr)

    def settle(self, rounds=200):
        """Answer and deliver everything, and let every VMM do what it plans."""
        pause_us = 10_000
        for _ in range(rounds):
            if not self.nexus.up:
                return  # an armed crash has struck: nothing moves before `Boot`
            if self.calls:
                self.answer(self.calls[0])
            elif self.waiting_reports():
                reply = self.deliver(*self.waiting_reports()[0])
                if isinstance(reply, Reply) and reply.status >= 500:
                    self.wait(pause_us)  # the sled tries again later; a saga to come may make it welcome
                    pause_us *= 2
                    assert pause_us < TIRED_US, "a sled asks until the end of time"
            else:
                due = [(sled, vmm) for sled in self.sleds.values() for vmm in sled.vmms.values() if vmm.plan]
                if due:
                    due[0][0].step(due[0][1].id)
                elif any(saga.due_us is not None for saga in self.nexus.sagas):
                    self.wait(max(0, self.nexus.next_deadline_us() - self.now_us))
                else:
                    return
        raise AssertionError("the world does not come to rest")

    def rest(self):
        """Quiescent: nothing in flight, and the background tasks have nothing left to do."""
        for _ in range(20):
            self.settle()
            before = self.settled()
            for task in Task:
                self.ask(RunTask, task)
                self.settle()
                if not self.nexus.up:
                    return
            if before == self.settled() and not self.calls:
                return
        # a wrong variant may keep its tasks busy for ever; what is wrong then is for the checker to say
        assert self.nexus.config.variant is not None, "the background tasks never rest"

    def settled(self):
        """All records but the updater generations, which move with every saga that finds nothing to do."""
        rows = {key: replace(row, updater_gen=1) for key, row in self.nexus.records.instances.items()}
        return rows, dict(self.nexus.records.vmms), dict(self.nexus.records.migrations)

    # -- users

    def create(self, name="web", **kwargs):
        """The new instance's id; with `start` its start is on its way."""
        self.open(CreateInstance, name, name, **kwargs)
        return self.nexus.find(name).id

    def running(self, name="web", **kwargs):
        """An instance that runs."""
        instance_id = self.create(name, **kwargs)
        self.settle()
        assert self.public(instance_id) == "running", self.story(instance_id)
        return instance_id

    def act(self, kind, instance_id, *args):
        return self.open(kind, instance_id, *args)

    def start(self, instance_id):
        return self.act(Start, instance_id)

    def stop(self, instance_id):
        return self.act(Stop, instance_id)

    def reboot(self, instance_id):
        return self.act(Reboot, instance_id)

    def delete(self, instance_id):
        return self.act(Delete, instance_id)

    def migrate(self, instance_id, number=2):
        return self.act(Migrate, instance_id, sled_id(number))

    def attach(self, instance_id, kind, address=None):
        return self.act(AttachIp, instance_id, kind, address)

    def detach(self, instance_id, kind, address=None):
        return self.act(DetachIp, instance_id, kind, address)

    # -- looking

    def public(self, instance_id):
        return self.nexus.public_state(instance_id).value

    def row(self, instance_id):
        return self.nexus.records.instances[instance_id]

    def active(self, instance_id):
        return self.nexus.records.active_vmm(self.row(instance_id))

    def fake(self, propolis_id):
        """(sled, VMM) of a VMM that is on some sled."""
        return next((sled, sled.vmms[propolis_id]) for sled in self.sleds.values() if propolis_id in sled.vmms)

    def seen(self, instance_id):
        """The public states in order."""
        return [line.text for line in self.nexus.timeline(instance_id) if line.what == "public"]

    def story(self, instance_id):
        return "\n".join(f"{line.what}: {line.text}" for line in self.nexus.timeline(instance_id))
