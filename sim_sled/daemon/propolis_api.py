"""Each VMM of a daemon as its own Propolis on the network: `--propolis loopback|registered`.

`registered` listens at the `propolis_addr` that Nexus chose, so that a migration target on another host finds its
source by the address in the request, as in the original. `loopback` takes port 0 and shows the address in `ps`.

A VMM is served from the moment its Propolis is made until it is forgotten. An address that cannot be bound fails the
VMM, as a zone that cannot be made does on the real agent (SA 2.12); docs/propolis.md says how to make
a whole prefix bindable.

Of most VMMs nobody ever asks anything here, and all of a rack with `--workers` have an address of their own. Until
somebody knocks, a VMM is a listening socket and a list of what it has said; then a server is made that hears it all.

Read before: daemon/daemon.py, daemon/propolis_mode.py, propolis_stub/server/instance.py.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

import attrs
from msgspec.structs import replace

from nexus_client.dropshot.listen import Server, stop_accepting
from nexus_client.dropshot.text import IpNet, SocketAddress
from nexus_client.types import VmmState
from propolis_stub import contract as propolis
from propolis_stub.errors import PropolisError
from propolis_stub.server.app import make_server
from propolis_stub.server.instance import Preparation, PropolisServer
from propolis_stub.spec.read import Spec, SpecRefused, from_sled, normalised
from propolis_stub.spec.versions import InstanceMetadata, InstanceProperties, SledSpec
from propolis_stub.vm import Vm
from sim_sled import logs
from sim_sled.core import contract
from sim_sled.core.errors import SledError
from sim_sled.daemon.propolis_mode import PropolisMode

if TYPE_CHECKING:
    from sim_sled.core.rack import Rack
    from sim_sled.daemon.clock import Clock
    from sim_sled.daemon.options import Options

BACKLOG: Final = 64
"""Per VMM: a monitor, some consoles, one migration peer."""

_SHUTDOWN_S: Final = 0.5


_Key = tuple[int, int]
"""(sled id, propolis id): sleds do not know of each other, so two of them may be told of the same VMM. As numbers: a
UUID hashes in Python, and each turn of each VMM looks here.
"""


def _key(sled_id: UUID, propolis_id: UUID) -> _Key:
    return sled_id.int, propolis_id.int


_CAN_WAIT: Final = frozenset({propolis.Published, propolis.LevelChanged, propolis.EnsureFinished, propolis.Disposed})
"""What matters only to who asks: it can be told to a server later as well. All else is done at once."""

UNHEARD_MAX: Final = 64
"""Of these per VMM: a life has a dozen, and one that reboots for days should not remember it all for nobody."""


class VmHost(Protocol):
    """What listeners need of the daemon whose VMMs they serve."""

    options: Options
    clock: Clock
    rack: Rack

    @property
    def addresses(self) -> dict[UUID, str]:
        """Where the sleds are listened for, by id."""

    def ticket(self) -> int:
        """A number no waiting request has."""

    def handle(self, item: contract.Input) -> None:
        """An input to which nobody waits for an answer."""

    def propolis_input(self, sled_id: UUID, propolis_id: UUID, item: propolis.Input) -> list[propolis.Effect]:
        """An input of a VMM's Propolis API. Raises `SledError` for a refusal."""


class _Host:
    """One VMM's VM, reached through the rack; see `propolis_stub.server.instance.Host`."""

    def __init__(self, daemon: VmHost, sled_id: UUID, propolis_id: UUID) -> None:
        self._daemon = daemon
        self._sled_id = sled_id
        self._propolis_id = propolis_id
        self._nobody = Vm(propolis_id, daemon.options.pacer)

    @property
    def vm(self) -> Vm:
        sled = self._daemon.rack.sleds.get(self._sled_id)
        vmm = None if sled is None else sled.vmms.get(self._propolis_id)
        return self._nobody if vmm is None or vmm.vm is None else vmm.vm

    def handle(self, item: propolis.Input, /) -> list[propolis.Effect]:
        """Raises what `Vm.handle` raises. The rack's effects bring the VM's to `perform`."""
        if self.vm is self._nobody:
            return self._nobody.handle(item, self._daemon.clock.now_us())
        try:
            return self._daemon.propolis_input(self._sled_id, self._propolis_id, item)
        except SledError as error:
            if isinstance(error.__cause__, PropolisError):
                raise error.__cause__ from None
            raise


@attrs.define(eq=False)
class _Served:
    """One VMM here. `knocker`: its listening socket, until somebody connects; then `listener` serves it."""

    sled_id: UUID
    propolis_id: UUID
    key: _Key
    server: PropolisServer | None = None
    opened: bool = False
    """Whether its VM is there, and so has been given a listener, if there could be one."""
    said: list[propolis.Effect] = attrs.Factory(list)
    """What there was no server to hear."""
    knocker: socket.socket | None = None
    name: tuple[Any, ...] | None = None
    """(host, port) of its socket, once somebody has connected."""
    listener: asyncio.Server | None = None
    web: Server | None = None
    """Who has its connections, and ends them with it: the next VMM at its address is not asked over one of these."""

    @property
    def address(self) -> str | None:
        """`ip:port`, if it listens."""
        name = self.name if self.knocker is None else self.knocker.getsockname()[:2]
        return None if name is None else str(SocketAddress(*name))


class _Knockers:
    """The listening sockets to which nobody has connected yet: one descriptor of the loop for all of them, where the
    kernel has that. Each costs one call then, and none when it is closed.
    """

    def __init__(self, knocked: Callable[[_Served], None]) -> None:
        self._knocked = knocked
        self._loop = asyncio.get_running_loop()
        self._by_number: dict[int, _Served] = {}
        self._all = select.epoll() if hasattr(select, "epoll") else None
        if self._all is not None:
            self._loop.add_reader(self._all.fileno(), self._look)

    def add(self, served: _Served, knocker: socket.socket) -> None:
        """`knocked` is called once, when somebody connects to it."""
        served.knocker = knocker
        if self._all is None:
            self._loop.add_reader(knocker.fileno(), self._knocked, served)
        else:
            self._by_number[knocker.fileno()] = served
            self._all.register(knocker.fileno(), select.EPOLLIN)

    def take(self, served: _Served) -> socket.socket | None:
        """Its socket, which is not waited for any more."""
        knocker, served.knocker = served.knocker, None
        if knocker is None:
            return None
        if self._all is None:
            self._loop.remove_reader(knocker.fileno())
        else:
            del self._by_number[knocker.fileno()]
        return knocker

    def _look(self) -> None:
        assert self._all is not None
        for number, _ in self._all.poll(0):
            served = self._by_number.get(number)
            if served is not None:  # else the one before has closed it
                self._all.unregister(number)
                self._knocked(served)

    def close(self) -> None:
        if self._all is not None:
            self._loop.remove_reader(self._all.fileno())
            self._all.close()


class PropolisApis:
    """The listeners of one daemon; `perform` gets every effect of every VM."""

    def __init__(self, daemon: VmHost, mode: PropolisMode) -> None:
        self.mode = mode
        self._daemon = daemon
        self._log = logs.get("propolis")
        self._served: dict[_Key, _Served] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = False
        self._knockers: _Knockers | None = None

    def baggage(self, sled_id: UUID, propolis_id: UUID) -> PropolisServer:
        """What a migrating VM takes along. A target's server is made here, before its VM."""
        key = _key(sled_id, propolis_id)
        served = self._served.get(key)
        if served is None:
            served = self._served[key] = _Served(sled_id, propolis_id, key)
        return self._server(served)

    def _prepare(self, sled_id: UUID, propolis_id: UUID, server: PropolisServer) -> None:
        """What the new VM consists of: the sled agent's own ensure request, without the way over the network."""
        about = self._daemon.rack.sleds[sled_id].get(propolis_id).about
        properties = InstanceProperties(
            id=about.instance_id,
            name=about.hostname,
            description="",
            metadata=InstanceMetadata(
                project_id=about.project_id,
                silo_id=about.silo_id,
                sled_id=sled_id,
                sled_model=self._daemon.rack.sleds[sled_id].config.hardware.baseboard_model,
                sled_revision=self._daemon.rack.sleds[sled_id].config.hardware.baseboard_revision,
                sled_serial=str(sled_id),
            ),
        )
        source = self._daemon.rack.sleds[sled_id].get(propolis_id).source_addr or None
        server.prepare(Preparation(properties, None if source else _spec_of(about.vmm_spec), source))

    def perform(self, effect: contract.FromPropolis) -> None:
        """In their order. The first one of a VMM opens its listener, the end of the process closes it."""
        if self._over:
            return  # its connections have just been cut, which its VMs notice, and nobody shall be there to ask them
        key = _key(effect.sled_id, effect.propolis_id)
        served = self._served.get(key)
        if served is None:
            vmm = self._daemon.rack.sleds[effect.sled_id].vmms.get(effect.propolis_id)
            if vmm is None or vmm.vm is None:
                return  # the last words of a process that is gone
            served = self._served[key] = _Served(effect.sled_id, effect.propolis_id, key)
        if not served.opened:
            self._open(served)
        said = effect.effects
        room = UNHEARD_MAX - len(served.said)
        if served.server is None and len(said) <= room and _CAN_WAIT.issuperset(map(type, said)):
            served.said += said  # as below, at once: nobody has asked most VMMs anything
            return
        for each in said:
            if type(each) is propolis.Crashed:
                if served.server is not None:  # else nobody has asked anything, and all that was said is over
                    served.server.perform([each])
                self._close(served)
                return  # nobody is there for what is said behind it
            if served.server is None and type(each) in _CAN_WAIT and len(served.said) < UNHEARD_MAX:
                served.said.append(each)
            else:
                self._server(served).perform([each])

    def _server(self, served: _Served) -> PropolisServer:
        """What answers for it: from now on it hears everything at once, and has heard what was said before."""
        server = served.server
        if server is None:
            server = served.server = PropolisServer()
        if server.host is None and served.opened:
            server.host = _Host(self._daemon, served.sled_id, served.propolis_id)
            if served.address is not None:
                server.address = served.address
            self._prepare(served.sled_id, served.propolis_id, server)
            said, served.said = served.said, []
            server.perform(said)
        return server

    def address_of(self, sled_id: UUID, propolis_id: UUID) -> str | None:
        """Where a VMM's Propolis listens; None if it does not."""
        served = self._served.get(_key(sled_id, propolis_id))
        return None if served is None else served.address

    async def close(self) -> None:
        """Close every listener and connection; none is opened any more."""
        self._over = True
        for served in list(self._served.values()):
            self._close(served)
        knockers, self._knockers = self._knockers, None
        if knockers is not None:
            knockers.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _open(self, served: _Served) -> None:
        served.opened = True
        wanted = self._wanted(served)
        try:
            address = SocketAddress.parse(wanted)
            self._check_ours(served.sled_id, address)
            knocker = bind(address.host, address.port)
        except (OSError, ValueError) as error:
            self._log.error("cannot serve Propolis", vmm=str(served.propolis_id), address=wanted, why=_advice(error))
            # not within the turn that made the VM: its effects are still being performed
            asyncio.get_running_loop().call_soon(self._fail, served)
            return
        if self._knockers is None:
            self._knockers = _Knockers(self._knocked)
        self._knockers.add(served, knocker)

    def _knocked(self, served: _Served) -> None:
        """Somebody has connected: they are let in by what serves from now on."""
        assert self._knockers is not None
        knocker = self._knockers.take(served)
        if knocker is None:
            return  # closed in this very turn of the loop
        served.name = knocker.getsockname()[:2]
        server = self._server(served)
        served.web = make_server(lambda _request: server)
        self._later(self._listen(served, served.web, knocker))

    async def _listen(self, served: _Served, web: Server, listening: socket.socket) -> None:
        listener = await asyncio.get_running_loop().create_server(web, sock=listening, backlog=BACKLOG)
        if self._served.get(served.key) is served:
            served.listener = listener
        else:
            stop_accepting(listener)

    def _wanted(self, served: _Served) -> str:
        if self.mode is PropolisMode.REGISTERED:
            return self._daemon.rack.sleds[served.sled_id].get(served.propolis_id).about.propolis_addr
        return str(replace(SocketAddress.parse(self._daemon.addresses[served.sled_id]), port=0))

    def _check_ours(self, sled_id: UUID, address: SocketAddress) -> None:
        """Raises `ValueError` for an address that the sled does not own.

        A Propolis API knows no password, and its address stands in a body: whoever may write one must not be able to
        open it on all interfaces. Nexus takes addresses of a sled's own prefix (SA 1.1), and loopback is our own.
        """
        if address.is_loopback:
            return
        host = address.host.partition("%")[0]
        nets = (*self._daemon.options.propolis_nets, *_own(SocketAddress.parse(self._daemon.addresses[sled_id])))
        if not any(net.is_v6 == (":" in host) and net.contains(host) for net in nets):
            raise ValueError(
                "the address is neither loopback nor of the sled's own prefix; --propolis-net NET allows others"
            )

    def _fail(self, served: _Served) -> None:
        try:
            self._daemon.handle(
                contract.InjectState(self._daemon.ticket(), served.sled_id, served.propolis_id, VmmState.FAILED)
            )
        except SledError:
            return  # it has ended by itself meanwhile

    def _close(self, served: _Served) -> None:
        self._served.pop(served.key, None)
        if self._knockers is not None and (knocker := self._knockers.take(served)) is not None:
            knocker.close()
        listener, served.listener = served.listener, None
        if listener is not None:
            stop_accepting(listener)
        if served.server is not None and served.server.host is not None:
            self._later(_end(served.server, served.web))

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _end(server: PropolisServer, web: Server | None) -> None:
    """As the end of a process: whoever waits is cut off, whoever does not is disconnected."""
    await server.close()
    if web is not None:
        await web.shutdown(_SHUTDOWN_S)


def _spec_of(vmm_spec: SledSpec | None) -> Spec | None:
    """The specification of a register body, of whatever version. None if Propolis does not take it."""
    if vmm_spec is None:
        return None
    try:
        return normalised(from_sled(vmm_spec))
    except SpecRefused:
        return None


def _own(address: SocketAddress) -> tuple[IpNet, ...]:
    """The prefix of a sled at `address`: it owns the last half of an IPv6 address, and an IPv4 address alone."""
    host = address.host.partition("%")[0]
    if address.is_loopback or ipaddress.ip_address(host).is_unspecified:
        return ()  # what lies beside `::1` is everybody's: `::`, and IPv4 in IPv6
    return (IpNet(f"{host}/{64 if ':' in host else 32}"),)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket at this address, also at one of a prefix that is only routed to here. OSError if neither."""
    try:
        return _listen_at(host, port, free=False)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        listening = _listen_at(host, port, free=True)
        if not _reaches_itself(listening):
            listening.close()
            raise
        return listening


def _listen_at(host: str, port: int, *, free: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if free:
            level, option = _FREEBIND[family]
            listening.setsockopt(level, option, 1)
        listening.bind((host, port))
        # here and not in a task: whoever connects in this very moment is let in
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def _reaches_itself(listening: socket.socket) -> bool:
    """Whether the address leads here: binding freely says nothing about it."""
    with socket.socket(listening.family, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(listening.getsockname())
        except OSError:
            return False
        return True


_FREEBIND: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),  # IP_FREEBIND, which the socket module does not name
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),  # IPV6_FREEBIND
}
_PROBE_S: Final = 0.1
"""A local connection is made at once; somebody else's host may keep us waiting, and the loop with us."""


def _advice(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EADDRNOTAVAIL:
        return (
            "the address does not exist on this host; make its prefix local (sim-sled docs propolis), "
            "or start the daemon with --propolis loopback or none"
        )
    return str(error)
