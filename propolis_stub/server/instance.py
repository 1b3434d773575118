"""One VM as its API shows it: specification, monitors, console, migration connections. The shell around a `Vm`.

`PropolisServer` performs the effects of its VM and answers for it; it owns neither the VM nor a clock nor a socket.
Whoever does is its `Host`: the standalone process (host.py) or a sled daemon with thousands of VMs. The host gives
every effect of the VM to `perform`, once and in order, and lends its `handle` to the HTTP handlers
(operations.py, streams.py). Nothing here polls: a waiting monitor call is a future in a dict.

Read before: migration/link.py, serial/console.py, server/monitor.py, spec/build.py, spec/read.py.
Read next: server/host.py, server/operations.py, server/streams.py, sim_sled/daemon/propolis_api.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol, assert_never
from uuid import UUID

import attrs

from nexus_client.dropshot.answers import not_found
from propolis_stub import contract
from propolis_stub.contract import Effect, Input, ReconfigureResult
from propolis_stub.errors import NoInstance, PropolisError, RequestDenied
from propolis_stub.migration.link import PeerLink
from propolis_stub.migration.messages import Message
from propolis_stub.migration.script import PROTOCOLS, Payload
from propolis_stub.serial.console import Console, Moved, Stopped
from propolis_stub.serial.guest import Guest
from propolis_stub.serial.history import Serial
from propolis_stub.server.monitor import Answer, Channel, Gone
from propolis_stub.server.refusals import backend_error, destroyed_before_handled, monitor_gone
from propolis_stub.spec import types as t
from propolis_stub.spec import versions as v
from propolis_stub.spec import volumes
from propolis_stub.spec.build import unbuildable
from propolis_stub.spec.read import Spec, SpecRefused, from_preamble, to_preamble
from propolis_stub.types import InstanceState, Level, Publication
from propolis_stub.vm import Vm

log = logging.getLogger("propolis_stub")

_KEPT_PUBLICATIONS: Final = 1_000
"""For the control API: some dozens of reboots and migrations."""


class Host(Protocol):
    """Who owns the VM. `handle` feeds it now, gives its effects to the server's `perform`, and returns them."""

    @property
    def vm(self) -> Vm: ...

    def handle(self, item: Input, /) -> list[Effect]: ...


@attrs.frozen
class Preparation:
    """What an ensure brings along, beside the ensure itself."""

    properties: v.InstanceProperties | None
    spec: Spec | None = None  # None: comes with the migration
    source: str | None = None  # `ip:port` of the source's Propolis
    replacements: Mapping[str, v.Replacement] = attrs.Factory(dict)


@attrs.define(eq=False)
class Knobs:
    """What the control API can make this server do."""

    vcr_result: str | None = None  # instead of "started" or "vcr_matches"
    failing_disks: dict[str, str] = attrs.Factory(dict)  # backend key -> Crucible's complaint
    protocols: tuple[str, ...] = PROTOCOLS


class PropolisServer:
    """See the module. `address` is what consoles are told after a migration to here (`ip:port`)."""

    def __init__(self, address: str = "[::1]:0") -> None:
        self.host: Host | None = None
        self.address = address
        self.knobs = Knobs()
        self.properties: v.InstanceProperties | None = None
        self.spec: Spec | None = None
        self.channel: Channel[asyncio.Future[Answer]] = Channel()
        self.publications: deque[Publication] = deque(maxlen=_KEPT_PUBLICATIONS)
        self.serial = Serial()
        self.console: Console | None = None
        self.vnc_over = asyncio.Event()
        self.connections: set[asyncio.Transport] = set()  # of requests under way: what a crash cuts
        self.nmis = 0
        self._next = Preparation(None)
        self._source: str | None = None
        self._replacements: Mapping[str, v.Replacement] = {}
        self._ensured: asyncio.Future[bool] | None = None
        self._reconfigures: dict[int, asyncio.Future[ReconfigureResult]] = {}
        self._ticket = 0
        self._links: dict[UUID, PeerLink] = {}
        self._dials: set[asyncio.Task[None]] = set()
        self._closed = False
        self._locked_out: list[asyncio.Future[None]] = []  # calls that wait for the VM's objects

    # --- what the handlers read ---

    @property
    def vm(self) -> Vm:
        assert self.host is not None, "attach a host first"
        return self.host.vm

    def handle(self, item: Input) -> list[Effect]:
        assert self.host is not None, "attach a host first"
        return self.host.handle(item)

    def require_active(self) -> None:
        """Raises `NoInstance` unless the VM is Active (PR 3.1)."""
        if self.vm.level is not Level.ACTIVE:
            raise NoInstance(self.vm.level)

    def require_vm(self) -> None:
        """Raises `NoInstance` if this process never had a VM."""
        if self.vm.level is Level.NO_VM:
            raise NoInstance(self.vm.level)

    @property
    def peers(self) -> set[UUID]:
        """Migrations that have a connection."""
        return set(self._links)

    @property
    def reconfigures_waiting(self) -> int:
        return len(self._reconfigures)

    async def objects(self) -> None:
        """Waits while the driver has the VM's objects to itself. Raises `NoInstance` if there never was a VM."""
        self.require_vm()
        while self.vm.objects_locked:
            free: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._locked_out.append(free)
            await free

    # --- what the handlers ask for ---

    def prepare(self, preparation: Preparation) -> None:
        """To be called before `EnsureSpec` or `EnsureTarget` is handled: what the new VM consists of."""
        self._next = preparation

    async def ensure(self, item: contract.EnsureSpec | contract.EnsureTarget, preparation: Preparation) -> bool:
        """Ensures and waits for the result: True 201, False 500. Raises `AlreadyInitialized`."""
        before = self._next
        self.prepare(preparation)
        ensured: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting, self._ensured = self._ensured, ensured
        try:
            self.handle(item)
        except PropolisError:
            self._next, self._ensured = before, waiting
            raise
        return await asyncio.shield(ensured)

    async def monitor(self, gen: int) -> Publication:
        """The long poll of PR 3.7. Raises `NoInstance`, or the 410 as a `Refused`."""
        self.require_vm()
        channel = self.channel
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        now = channel.ask(gen, waiter)
        if now is None:
            try:
                now = await waiter
            finally:
                channel.forget(gen, waiter)
        if isinstance(now, Gone):
            raise monitor_gone(gen)
        assert channel.newest is not None
        return channel.newest  # of the moment of answering: what was told in between is never seen

    async def reconfigure(self, key: str, vcr_json: str) -> str:
        """Replaces a volume: a `ReplaceResult`. Raises `NoInstance`, `RequestDenied` or the `Refused` to answer."""
        self.require_active()
        self._ticket += 1
        ticket = self._ticket
        done: asyncio.Future[ReconfigureResult] = asyncio.get_running_loop().create_future()
        self._reconfigures[ticket] = done
        try:
            self.handle(contract.Reconfigure(ticket, key))
        except PropolisError:
            del self._reconfigures[ticket]
            raise
        match await asyncio.shield(done):
            case ReconfigureResult.GONE:
                raise destroyed_before_handled()
            case ReconfigureResult.FAILED:
                self._backend(key)
                raise backend_error("Crucible error: replacement failed on request")
            case ReconfigureResult.EXECUTED:
                return self._replace(key, vcr_json)
            case other:
                assert_never(other)

    def _backend(self, key: str) -> t.CrucibleStorageBackend:
        backend = None if self.spec is None else self.spec.crucible(key)
        if backend is None:
            raise not_found(f"No crucible backend for id {key}")
        return backend

    def _replace(self, key: str, vcr_json: str) -> str:
        backend = self._backend(key)
        try:
            if self.knobs.vcr_result is None:
                result = volumes.replacement_result(backend.request_json, vcr_json)
            else:
                result = self.knobs.vcr_result
                volumes.read(vcr_json)
        except ValueError as problem:
            raise backend_error(str(problem)) from None
        assert self.spec is not None
        changed = t.CrucibleStorageBackend(readonly=backend.readonly, request_json=vcr_json)
        self.spec = self.spec.with_component(key, changed)
        return result

    def disk_status(self, key: str, level: int) -> dict[str, object]:
        """Body of `GET /instance/disk/{id}/status`. Raises the `Refused` to answer."""
        self.require_active()
        backend = self._backend(key)
        self._refuse_failing(key)
        active = self.vm.state not in {InstanceState.CREATING, InstanceState.STARTING}
        if level < 5:
            return {"active": active}
        return {"volume_info": volumes.volume_info(key, backend.request_json, active=active)}

    def snapshot(self, key: str) -> None:
        """Pretends to take one. Raises the `Refused` to answer."""
        self.require_active()
        if self.spec is None or self.spec.crucible(key) is None:
            raise not_found(f"no disk with id {key}!")
        self._refuse_failing(key)

    def _refuse_failing(self, key: str) -> None:
        complaint = self.knobs.failing_disks.get(key)
        if complaint is not None:
            raise backend_error(complaint)

    def inject_nmi(self) -> None:
        self.require_active()
        self.nmis += 1

    # --- the guest ---

    def guest_output(self, data: bytes) -> None:
        """The guest writes to its serial port."""
        if self.console is not None and self.console.ended is None:
            self.console.output(data)
        else:
            self.serial.history.add(data)

    def guest_typed(self, data: bytes) -> None:
        """A console client has typed; a guest without running vCPUs does not notice."""
        if self.vm.level is not Level.ACTIVE or self.vm.state is not InstanceState.RUNNING:
            return
        output, events = self.serial.guest.typed(data)
        if output:
            self.guest_output(output)
        for event in events:
            self.handle(contract.Guest(event))

    # --- effects ---

    def perform(self, effects: list[Effect]) -> None:
        """Every effect of the VM, once and in order."""
        if self._closed:
            return
        for effect in effects:
            match effect:
                case contract.Published(publication):
                    self._published(publication)
                case contract.LevelChanged(level):
                    self._level_changed(level)
                case contract.EnsureFinished(ok):
                    if self._ensured is not None and not self._ensured.done():
                        self._ensured.set_result(ok)
                    self._ensured = None
                case contract.Dial(migration_id):
                    self._dial(migration_id)
                case contract.ToPeer(message, migration_id):
                    link = self._links.get(migration_id)
                    if link is not None:
                        link.send(message)
                case contract.PeerClosed(migration_id, code):
                    link = self._links.pop(migration_id, None)
                    if link is not None:
                        link.close(code)
                case contract.ReconfigureDone(ticket, result):
                    done = self._reconfigures.pop(ticket, None)
                    if done is not None and not done.done():
                        done.set_result(result)
                case contract.ConsoleMoved(destination):
                    if self.console is not None:
                        self.console.end(Moved(destination, self.serial.history.total))
                case contract.Crashed():
                    self._crash()
                case contract.Disposed():
                    pass
                case _:
                    assert_never(effect)
        if self._locked_out and not self.vm.objects_locked:
            waiting, self._locked_out = self._locked_out, []
            for free in waiting:
                if not free.done():
                    free.set_result(None)

    def _published(self, publication: Publication) -> None:
        before = self.publications[-1].state if self.publications else None
        self.publications.append(publication)
        for waiter in self.channel.publish(publication):
            if not waiter.done():
                waiter.set_result(publication)
        booted = before in {InstanceState.STARTING, InstanceState.REBOOTING}
        if publication.state is InstanceState.RUNNING and booted:
            self.guest_output(self.serial.guest.boot())

    def _level_changed(self, level: Level) -> None:
        match level:
            case Level.WAITING_FOR_INIT:
                self._close_channel()
                self._begin_vm()
            case Level.ACTIVE:
                self.console = Console(self.serial, self.guest_typed)
            case Level.RUNDOWN:
                self._stop_services()
            case Level.RUNDOWN_COMPLETE:
                # An init that failed never was Active: its channel stays open and later calls hang (PR 3.7).
                if self.console is not None:
                    self._close_channel()
                self._stop_services()
            case Level.NO_VM:
                pass

    def _begin_vm(self) -> None:
        self.properties = self._next.properties
        self.spec = self._next.spec
        self._source = self._next.source
        self._replacements = self._next.replacements
        self._next = Preparation(None)
        self.channel = Channel()
        self.publications.clear()
        name = "stub" if self.properties is None else self.properties.name
        self.serial = Serial(guest=Guest(name or "stub"))
        self.console = None
        self.vnc_over = asyncio.Event()

    def _close_channel(self) -> None:
        for waiter in self.channel.close():
            if not waiter.done():
                waiter.set_result(Gone.GONE)

    def _stop_services(self) -> None:
        if self.console is not None:
            self.console.end(Stopped())
        self.vnc_over.set()

    def _crash(self) -> None:
        for link in self._links.values():
            link.abort()
        self._links.clear()
        for transport in list(self.connections):
            transport.abort()
        for waiting in (*self._reconfigures.values(), self._ensured):
            if waiting is not None:
                waiting.cancel()
        self._reconfigures.clear()
        self._ensured = None
        self._stop_services()
        self._close_channel()
        self._begin_vm()

    # --- migration ---

    def accept_peer(self, migration_id: UUID, link: PeerLink) -> None:
        """A target has connected. Raises `NoInstance` or `RequestDenied`: drop it without a frame."""
        self.require_active()
        if migration_id in self._links:
            raise NoInstance(self.vm.level)
        self._links[migration_id] = link
        try:
            self.handle(contract.MigrateOut(migration_id, baggage=self, protocols=self.knobs.protocols))
        except (NoInstance, RequestDenied):
            del self._links[migration_id]
            raise

    def link(self, migration_id: UUID) -> PeerLink:
        """A connection whose messages and end go to this VM."""

        def deliver(message: Message) -> None:
            self.handle(contract.FromPeer(message, migration_id))

        def lost(why: str) -> None:
            self._links.pop(migration_id, None)
            self.handle(contract.PeerLost(why, migration_id))

        return PeerLink(deliver, lost)

    def target_of(self, migration_id: UUID) -> contract.EnsureTarget:
        """The input that makes this VM a target which brings this server's baggage."""
        return contract.EnsureTarget(migration_id, baggage=self, protocols=self.knobs.protocols)

    def _dial(self, migration_id: UUID) -> None:
        link = self.link(migration_id)
        self._links[migration_id] = link
        task = link.dial(self._source or "", migration_id)
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    def pack(self, payload: Payload, /) -> str:
        """`Baggage`: what this VM sends along."""
        match payload:
            case Payload.PREAMBLE:
                return to_preamble(self.spec) if self.spec is not None else "()"
            case Payload.ADDRESS:
                return self.address
            case Payload.HISTORY:
                return self.serial.pack()
            case Payload.TIME | Payload.DEVICES:
                return f"({payload.value})"

    def unpack(self, payload: Payload, text: str, /) -> str | None:
        """`Baggage`: what came from the peer."""
        if payload is Payload.PREAMBLE:
            try:
                self.spec = from_preamble(text, self._replacements)
            except SpecRefused as refused:
                return str(refused)
        elif payload is Payload.HISTORY:
            try:
                packed = Serial.unpack(text)
            except ValueError as problem:
                return str(problem)
            self.serial.take_over(packed)
        return None

    def unbuildable(self) -> bool:
        """`Baggage`: whether nothing can be made of the specification that came."""
        return self.spec is not None and bool(unbuildable(self.spec))

    async def close(self) -> None:
        """The process ends in good order: connections are cut, nobody is left waiting, and what the VM may still say
        (a peer's last message can be on its way) is not heard.
        """
        self._crash()
        self._closed = True
        tasks = list(self._dials)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
