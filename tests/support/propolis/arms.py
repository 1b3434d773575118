"""One body, two arms: how the cases of PR 7 drive a Propolis (cases.py has the bodies).

`Arm` is what a body may do and see. `CoreArm` does it on `Vm` directly; the wire arm (wire.py) over
real sockets. Dispositions that a socket does not tell apart (queued, ignored) are compared only by the core arm.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol
from uuid import UUID

from propolis_stub import contract
from propolis_stub.contract import Effect, GuestEvent, Input, ReconfigureResult
from propolis_stub.errors import AlreadyInitialized, NoInstance, RequestDenied
from propolis_stub.migration.messages import Text
from propolis_stub.server.monitor import Channel, Gone
from propolis_stub.types import Level, Publication, RequestKind
from propolis_stub.vm import Hazard, Vm
from propolis_stub.waiting import Pace, Point

R, S, B = RequestKind.RUN, RequestKind.STOP, RequestKind.REBOOT
FOR_EVER = Pace(None)
FAILS = Pace(0, fail=True)

QUEUED, IGNORED = "queued", "ignored"  # both 204
NO_INSTANCE = "424"


def denied(name: str) -> str:
    return f"403 {name}"


def spell(publication: Publication) -> str:
    """`4 Migrating out=Sync`, as PR 7 writes it."""
    text = f"{publication.gen} {publication.state.value}"
    if publication.migration_in is not None:
        text += f" in={publication.migration_in.state.value}"
    if publication.migration_out is not None:
        text += f" out={publication.migration_out.state.value}"
    return text


class Arm(Protocol):
    """One Propolis. Methods that ask for something return what was answered, spelled as above."""

    async def ensure(self) -> str: ...
    async def ensure_begin(self) -> None: ...
    async def ensure_end(self) -> str: ...
    async def ensure_target(self, source: Arm | None, *, bad_replacement: bool = False) -> str: ...
    async def target_begin(self, source: Arm | None, *, bad_replacement: bool = False) -> None: ...
    async def put(self, kind: RequestKind) -> str: ...
    async def migrate_to(self, target: Arm) -> str: ...
    async def migrate_raw(self, offer: str | None) -> str: ...
    async def reconfigure(self, ticket: int, disk: str = ...) -> None: ...
    async def reconfigured(self, ticket: int) -> str: ...
    async def guest(self, event: GuestEvent, at_us: int | None = None) -> None: ...
    async def pace(self, point: Point, pace: Pace) -> None: ...
    async def hold(self) -> None: ...
    async def go(self) -> None: ...
    async def step(self) -> None: ...
    async def settle(self, *, fail: bool = False) -> None: ...
    async def crash(self) -> None: ...
    async def strict(self) -> None: ...
    async def told(self, expected: str) -> None: ...
    async def ask(self, name: str, gen: int) -> None: ...
    async def answered(self, name: str) -> str | None: ...
    async def get(self) -> str: ...
    async def reached(self, point: Point) -> None: ...
    async def another(self) -> Arm: ...


async def run(vm: Arm) -> None:
    """`RUN` of PR 7: E, R, instant, at `3 Running`."""
    assert await vm.ensure() == "201"
    assert await vm.put(R) == QUEUED
    await vm.told("1 Creating, 2 Starting, 3 Running")


class SettablePacer:
    """Paces that a test sets; everything else is instant."""

    def __init__(self) -> None:
        self.paces: dict[Point, Pace] = {}

    def pace(self, _vm_id: UUID, point: Point, _occurrence: int, _edge: object, /) -> Pace:
        return self.paces.get(point, Pace())


class Net:
    """Processes of one test, and the connections between them: effects go round until nobody has anything to say."""

    def __init__(self) -> None:
        self.now_us = 1_000_000
        self.todo: deque[tuple[CoreArm, Effect]] = deque()
        self.ids = 0

    def new_id(self) -> UUID:
        self.ids += 1
        return UUID(int=self.ids)

    def pump(self) -> None:
        for _ in range(100_000):
            if not self.todo:
                return
            arm, effect = self.todo.popleft()
            arm.perform(effect)
        raise AssertionError("the two sides talk for ever")


class CoreArm:
    """`Vm` with a small shell around it that keeps all it says."""

    def __init__(self, net: Net | None = None, *, stepped: bool = False) -> None:
        self.net = net or Net()
        self.pacer = SettablePacer()
        self.vm = Vm(self.net.new_id(), self.pacer, stepped=stepped)
        self.log: list[str] = []  # of the current VM
        self.publications: list[Publication] = []
        self.levels: list[Level] = []
        self.channel: Channel[str] | None = None
        self.asked: dict[str, str | None] = {}
        self.ensured: str | None = None
        self.reconfigures: dict[int, str] = {}
        self.peers: dict[UUID, CoreArm] = {}
        self.source: CoreArm | None = None
        self.dropped = False  # the last connection that asked us to migrate was dropped
        self.redirected: list[str] = []

    # --- shell ---

    def handle(self, item: Input) -> list[Effect]:
        effects = self.vm.handle(item, self.net.now_us)
        self.net.todo.extend((self, effect) for effect in effects)
        self.net.pump()
        return effects

    def perform(self, effect: Effect) -> None:
        match effect:
            case contract.Published(publication):
                self.log.append(spell(publication))
                self.publications.append(publication)
                assert self.channel is not None
                for name in self.channel.publish(publication):
                    self.asked[name] = f"200 {spell(publication)}"
            case contract.LevelChanged(level):
                self.levels.append(level)
                self._level(level)
            case contract.EnsureFinished(ok):
                self.ensured = "201" if ok else "500"
            case contract.Dial(migration_id):
                self._dial(migration_id)
            case contract.ToPeer(message, migration_id):
                peer = self.peers.get(migration_id)
                if peer is not None:
                    self._post(peer, contract.FromPeer(message, migration_id))
            case contract.PeerClosed(migration_id):
                peer = self.peers.pop(migration_id, None)
                if peer is not None and peer.peers.pop(migration_id, None) is not None:
                    self._post(peer, contract.PeerLost(migration_id=migration_id))
                self.dropped = True
            case contract.ReconfigureDone(ticket, result):
                self.reconfigures[ticket] = {
                    ReconfigureResult.EXECUTED: "200",
                    ReconfigureResult.FAILED: "400",
                    ReconfigureResult.GONE: "410",
                }[result]
            case contract.ConsoleMoved(destination):
                self.redirected.append(destination)
            case contract.Crashed():
                for migration_id, peer in list(self.peers.items()):
                    peer.peers.pop(migration_id, None)
                    self._post(peer, contract.PeerLost("connection reset", migration_id))
                self.peers.clear()
            case contract.Disposed():
                pass

    def _post(self, to: CoreArm, item: Input) -> None:
        to.net.todo.extend((to, effect) for effect in to.vm.handle(item, to.net.now_us))

    def _level(self, level: Level) -> None:
        if level is Level.WAITING_FOR_INIT:
            if self.channel is not None:
                for name in self.channel.close():
                    self.asked[name] = "410"
            self.channel = Channel()
            self.log = []
            self.publications = []
            self.ensured = None
        elif level is Level.RUNDOWN_COMPLETE and self.channel is not None:
            if self.levels[-2] is not Level.WAITING_FOR_INIT:  # a failed init leaves its channel open
                for name in self.channel.close():
                    self.asked[name] = "410"
        elif level is Level.NO_VM:
            self.channel = None

    def _dial(self, migration_id: UUID) -> None:
        source = self.source
        if source is None:
            self._post(self, contract.PeerLost("connection refused", migration_id))
            return
        try:
            self._post(source, contract.MigrateOut(migration_id))
        except (NoInstance, RequestDenied) as refusal:
            source.dropped = True
            self._post(self, contract.PeerLost(str(refusal), migration_id))
            return
        self.peers[migration_id] = source
        source.peers[migration_id] = self
        source.dropped = False

    # --- the arm ---

    async def reached(self, point: Point) -> None:
        assert point.value in (self.vm.waits_for() or "")

    async def another(self) -> CoreArm:
        return CoreArm(self.net)

    async def ensure_begin(self) -> None:
        self.handle(contract.EnsureSpec())

    async def ensure_end(self) -> str:
        assert self.ensured is not None, "ensure is not answered yet"
        return self.ensured

    async def ensure(self) -> str:
        try:
            await self.ensure_begin()
        except AlreadyInitialized:
            return "409"
        return await self.ensure_end()

    async def target_begin(self, source: Arm | None, *, bad_replacement: bool = False) -> None:
        assert source is None or isinstance(source, CoreArm)
        self.source = source
        baggage = _Refusing() if bad_replacement else contract.NO_BAGGAGE
        self.handle(contract.EnsureTarget(self.net.new_id(), baggage=baggage))

    async def ensure_target(self, source: Arm | None, *, bad_replacement: bool = False) -> str:
        try:
            await self.target_begin(source, bad_replacement=bad_replacement)
        except AlreadyInitialized:
            return "409"
        return await self.ensure_end()

    async def put(self, kind: RequestKind) -> str:
        try:
            (disposed, *_rest) = self.handle(contract.Request(kind))
        except RequestDenied as refusal:
            return denied(refusal.reason.code_name)
        except NoInstance:
            return NO_INSTANCE
        assert isinstance(disposed, contract.Disposed)
        return disposed.disposition.value

    async def migrate_to(self, target: Arm) -> str:
        """`M`: what the websocket on the source comes to; the target is the one that starts it."""
        assert isinstance(target, CoreArm)
        self.dropped = False
        await target.target_begin(self)
        return "dropped" if target.ensured == "500" and not self._migrates() else "accepted"

    def _migrates(self) -> bool:
        return bool(self.peers)

    async def migrate_raw(self, offer: str | None) -> str:
        """`M` by a peer that sends this text and nothing else; None: it hangs up at once."""
        migration_id = self.net.new_id()
        try:
            self.handle(contract.MigrateOut(migration_id))
        except (NoInstance, RequestDenied):
            return "dropped"
        self.dropped = False
        item = contract.PeerLost() if offer is None else contract.FromPeer(Text(offer), migration_id)
        self.handle(item)
        return "dropped" if self.dropped else "accepted"

    async def reconfigure(self, ticket: int, disk: str = "disk") -> None:
        try:
            self.handle(contract.Reconfigure(ticket, disk))
        except RequestDenied as refusal:
            self.reconfigures[ticket] = denied(refusal.reason.code_name)
        except NoInstance:
            self.reconfigures[ticket] = NO_INSTANCE

    async def reconfigured(self, ticket: int) -> str:
        return self.reconfigures[ticket]

    async def guest(self, event: GuestEvent, at_us: int | None = None) -> None:
        self.handle(contract.Guest(event, at_us))

    async def pace(self, point: Point, pace: Pace) -> None:
        self.pacer.paces[point] = pace

    async def hold(self) -> None:
        self.handle(contract.Hold())

    async def go(self) -> None:
        self.handle(contract.Release())

    async def step(self) -> None:
        self.handle(contract.Step())

    async def settle(self, *, fail: bool = False) -> None:
        self.handle(contract.Settle(fail))

    async def crash(self) -> None:
        self.handle(contract.Crash())

    async def strict(self) -> None:
        self.vm.strict = ~Hazard.NONE

    async def told(self, expected: str) -> None:
        wanted = expected.split(", ")
        first = int(wanted[0].split()[0])
        assert self.log[first - 1 :] == wanted

    async def ask(self, name: str, gen: int) -> None:
        if self.channel is None:
            self.asked[name] = NO_INSTANCE
            return
        answer = self.channel.ask(gen, name)
        self.asked[name] = None if answer is None else "410" if isinstance(answer, Gone) else f"200 {spell(answer)}"

    async def answered(self, name: str) -> str | None:
        return self.asked[name]

    async def get(self) -> str:
        if self.vm.level is Level.NO_VM:
            return NO_INSTANCE
        assert self.vm.state is not None
        return f"200 {self.vm.state.value}"


class _Refusing:
    """A target whose replacement component is not in the source's spec."""

    def pack(self, _payload: object, /) -> str:
        return ""

    def unpack(self, _payload: object, _text: str, /) -> str | None:
        return "component to replace is not in the source's spec"
