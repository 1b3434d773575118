"""All servers beside one sled, on sockets. An address is bound at once, so that it can be told; the server behind it
is made, and its code imported, at its first connection.

Read before: companions/asking.py, companions/crucible.py, companions/depot.py, companions/dns.py,
companions/dns_wire.py, companions/pantry.py.
Read next: daemon/daemon.py, daemon/listening.py.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from msgspec import Struct, field

from nexus_client.dropshot.listen import bound, stop_accepting
from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.core.config import SledConfig
from sim_sled.core.contract import ZoneServer
from sim_sled.core.sled import Sled

if TYPE_CHECKING:
    from nexus_client.dropshot import web
    from sim_sled.companions.dns_wire import Tcp
    from sim_sled.core.dns.zones import Found
    from sim_sled.http.app import Api
    from sim_sled.http.host import Host

CRUCIBLE_PORT: Final = 32345
PANTRY_PORT: Final = 17000
REPO_DEPOT_PORT: Final = 12348
DNS_HTTP_PORT: Final = 5353
DNS_PORT: Final = 53
"""Where they are on a rack (SR 4.8); Crucible agents count up from theirs, because here they share an address."""

DNS_TRIES: Final = 8
"""Ports tried until one is free for UDP and TCP alike."""

ZONES_MAX: Final = 64
"""Zones of a configuration that are served: a sled has ten pools, with a Crucible zone each, and a pantry."""

BACKLOG: Final = 128
"""Pending connections per listener: Nexus has a handful at once for each of them."""

_NOT_TO_BE_HAD: Final = frozenset({errno.EADDRINUSE, errno.EACCES})

_log = logs.get("companions")


class Ports(Struct, frozen=True):
    """Addresses asked for. `repo_depot` None: the rack's port where the sled has an address of its own, any port on
    loopback. `dns`, `dns_http` None: any port of the sled's address.
    """

    repo_depot: int | None = None
    dns: str | None = None
    dns_http: str | None = None


class Addresses(Struct):
    """Where the servers beside one sled are."""

    crucible: dict[UUID, str] = field(default_factory=dict)
    pantry: str | None = None
    repo_depot: str | None = None
    dns_http: str | None = None
    dns: str | None = None

    @property
    def flat(self) -> dict[str, str]:
        """For a line of the log."""
        crucible = " ".join(self.crucible.values())
        told = {"crucible": crucible, "pantry": self.pantry, "repo_depot": self.repo_depot}
        told |= {"dns": self.dns, "dns_config": self.dns_http}
        return {name: address for name, address in told.items() if address}

    @property
    def json(self) -> dict[str, Any]:
        """As the port file has it."""
        return {
            "crucible": {str(dataset): address for dataset, address in self.crucible.items()},
            "pantry": self.pantry,
            "repo_depot": self.repo_depot,
            "dns": {"config": self.dns_http, "dns": self.dns},
        }


class Companions:
    """The servers beside `sled`. `start`, then `close`."""

    def __init__(self, host: Host, sled: Sled, ports: Ports) -> None:
        self.addresses = Addresses()
        self._host = host
        self._sled = sled
        self._ports = ports
        self._servers: list[web.Server] = []
        self._listeners: list[asyncio.Server] = []
        self._udp: asyncio.DatagramTransport | None = None
        self._lookup = _Lookup(sled)
        self._zones: dict[ZoneServer, _Zone | None] = {}  # None: nobody can listen there
        self._zones_turn = asyncio.Lock()
        self._closed = False

    async def start(self) -> None:
        """Bind all addresses. OSError if one that was asked for cannot be had."""
        sled_id = self._sled.config.sled_id
        ip = SocketAddress.parse(self._sled.address or self._sled.config.address).host
        own = not (ip_address(ip).is_loopback or ip_address(ip).is_unspecified)
        datasets = self._sled.config.hardware.crucible_datasets_of(sled_id)
        for number, each in enumerate(datasets):
            port = CRUCIBLE_PORT + number if own else 0
            made = partial(_crucible, each.dataset_id)
            self.addresses.crucible[each.dataset_id] = await self._bind(ip, port, made, asked=False)
        self.addresses.pantry = await self._bind(ip, PANTRY_PORT if own else 0, _pantry, asked=False)
        depot = self._ports.repo_depot
        port = depot if depot is not None else REPO_DEPOT_PORT if own else 0
        self.addresses.repo_depot = await self._bind(ip, port, _depot, asked=depot is not None)
        await self._start_dns(ip)

    async def _start_dns(self, ip: str) -> None:
        http = SocketAddress(ip, 0) if self._ports.dns_http is None else SocketAddress.parse(self._ports.dns_http)
        self.addresses.dns_http = await self._bind(http.host, http.port, _dns, asked=self._ports.dns_http is not None)
        wanted = SocketAddress(ip, 0) if self._ports.dns is None else SocketAddress.parse(self._ports.dns)
        loop = asyncio.get_running_loop()
        for attempt in range(DNS_TRIES):
            # TCP draws the port: it is what everybody else's connections have taken, UDP is mostly free
            tcp = await asyncio.start_server(self._lookup.tcp, wanted.host, wanted.port, backlog=BACKLOG)
            there = _address_of(bound(tcp, wanted.host).sockets[0])
            try:
                same = (wanted.host, SocketAddress.parse(there).port)
                self._udp, _ = await loop.create_datagram_endpoint(self._lookup.udp, same)
            except OSError:
                tcp.close()
                if wanted.port or attempt + 1 == DNS_TRIES:
                    raise
                continue
            self._listeners.append(tcp)
            self.addresses.dns = there
            return

    async def _bind(self, ip: str, port: int, api: Callable[[], Api], *, asked: bool) -> str:
        """`host:port`; another port than this one if it is taken and nobody `asked` for it."""
        loop = asyncio.get_running_loop()
        behind = _Behind(self._host, self._sled.config.sled_id, api, self._servers)
        try:
            listener = bound(await loop.create_server(behind, ip, port, backlog=BACKLOG), ip)
        except OSError as error:
            if asked or port == 0 or error.errno not in _NOT_TO_BE_HAD:
                raise
            _log.warning("the port of a rack is taken, any other one is used", address=str(SocketAddress(ip, port)))
            listener = bound(await loop.create_server(behind, ip, 0, backlog=BACKLOG), ip)
        self._listeners.append(listener)
        return _address_of(listener.sockets[0])

    async def serve_zones(self, wanted: tuple[ZoneServer, ...]) -> None:
        """Listen at the addresses of these zones, and of no others any more (SR 3.7). What is not to be had is told,
        and tried again if its zone went in between.
        """
        async with self._zones_turn:
            for gone in self._zones.keys() - set(wanted):
                zone = self._zones.pop(gone)
                if zone is not None:
                    if gone.dataset is not None and self.addresses.crucible.get(gone.dataset) == zone.address:
                        del self.addresses.crucible[gone.dataset]
                    await zone.close()
            nobody = {}
            # a run of the reconciler may end while the daemon does
            for server in wanted[:ZONES_MAX] if not self._closed else ():
                if server in self._zones or self._is_ours(server):
                    continue
                try:
                    zone = self._zones[server] = await self._zone(server)
                except (OSError, ValueError) as error:
                    self._zones[server] = None
                    nobody[server.address] = str(error)
                    continue
                if server.dataset is not None:
                    self.addresses.crucible.setdefault(server.dataset, zone.address)
                _log.info("a zone of the configuration is served", sled=str(self._sled.config.sled_id),
                          what="crucible" if server.dataset else "pantry", address=zone.address)  # fmt: skip
            for address, why in nobody.items():
                _log.warning("nobody listens for a zone of the configuration", address=address, why=why)

    def _is_ours(self, server: ZoneServer) -> bool:
        """Whether it listens there anyhow: a hand-off's zones have the addresses of what stands beside the sled."""
        there = self.addresses.pantry if server.dataset is None else self.addresses.crucible.get(server.dataset)
        return there is not None and SocketAddress.parse(there) == SocketAddress.parse(server.address)

    async def _zone(self, server: ZoneServer) -> _Zone:
        """Raises ValueError for what is no address of one machine, OSError if it is not of this one, or taken."""
        address = SocketAddress.parse(server.address)
        ip = ip_address(address.host)
        if ip.is_unspecified or ip.is_multicast:
            raise ValueError("this is no zone's address")
        made = _pantry if server.dataset is None else partial(_crucible, server.dataset)
        servers: list[web.Server] = []
        behind = _Behind(self._host, self._sled.config.sled_id, made, servers)
        loop = asyncio.get_running_loop()
        listening = await loop.create_server(behind, address.host, address.port, backlog=BACKLOG)
        listener = bound(listening, address.host)
        return _Zone(_address_of(listener.sockets[0]), listener, servers)

    def stop_accepting(self) -> None:
        """Connections that are open go on."""
        for listener in self._listeners:
            stop_accepting(listener)
        for server in self._servers:
            server.pre_shutdown()
        for zone in self._zones.values():
            if zone is not None:
                zone.stop_accepting()

    async def close(self) -> None:
        for listener in self._listeners:
            stop_accepting(listener)
        await asyncio.sleep(0)  # the turn in which what was accepted last becomes a connection
        if self._udp is not None:
            self._udp.close()
        self._lookup.close()
        for server in self._servers:
            await server.shutdown(1.0)
        self._closed = True
        await self.serve_zones(())


class _Zone(Struct, frozen=True):
    """A zone's listener, and the server behind it once somebody has connected."""

    address: str
    listener: asyncio.Server
    servers: list[web.Server]

    def stop_accepting(self) -> None:
        stop_accepting(self.listener)
        for server in self.servers:
            server.pre_shutdown()

    async def close(self) -> None:
        """Connections end with the zone."""
        stop_accepting(self.listener)
        await asyncio.sleep(0)  # the turn in which what was accepted last becomes a connection
        for server in self.servers:
            await server.shutdown(1.0)


class _Behind:
    """What is behind an address: a server, made at the first connection."""

    def __init__(self, host: Host, sled_id: UUID, api: Callable[[], Api], made: list[web.Server]) -> None:
        self._host = host
        self._sled_id = sled_id
        self._api = api
        self._made = made
        self._server: web.Server | None = None

    def __call__(self) -> asyncio.Protocol:
        if self._server is None:
            from sim_sled.http.app import make_server  # noqa: PLC0415 -- the daemon imports this module

            self._server = make_server(self._host, self._sled_id, api=self._api())
            self._made.append(self._server)
        return self._server()


class _Lookup:
    """DNS questions, answered from the sled's DNS server; the code that knows the wire is imported at the first."""

    def __init__(self, sled: Sled) -> None:
        self._sled = sled
        self._tcp: Tcp | None = None

    def _ask(self, name: str, kind: str) -> Found:
        from sim_sled.core.companions import Companions as Area  # noqa: PLC0415 -- only when somebody asks

        return self._sled.estate.of(Area).dns.ask(name, kind)

    def udp(self) -> asyncio.DatagramProtocol:
        return _Datagrams(self._ask)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._tcp is None:
            from sim_sled.companions.dns_wire import Tcp  # noqa: PLC0415 -- only when somebody asks

            self._tcp = Tcp(self._ask)
        await self._tcp.serve(reader, writer)

    def close(self) -> None:
        if self._tcp is not None:
            self._tcp.close()


class _Datagrams(asyncio.DatagramProtocol):
    """One packet in, one packet out."""

    def __init__(self, ask: Callable[[str, str], Found]) -> None:
        self._ask = ask
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # of some loops it is no subclass

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        from sim_sled.companions.dns_wire import UDP_MAX, answer  # noqa: PLC0415 -- only when somebody asks

        reply = answer(data, self._ask, UDP_MAX)
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)


def _address_of(listening: Any) -> str:
    name = listening.getsockname()
    return str(SocketAddress(name[0], name[1]))


# Imported when somebody connects: a daemon that is only asked about VMMs pays for none of them.


def _crucible(dataset: UUID) -> Api:
    from sim_sled.companions.crucible import api  # noqa: PLC0415 -- see above

    return api(dataset)


def _pantry() -> Api:
    from sim_sled.companions.pantry import api  # noqa: PLC0415 -- see above

    return api()


def _depot() -> Api:
    from sim_sled.companions.depot import api  # noqa: PLC0415 -- see above

    return api()


def _dns() -> Api:
    from sim_sled.companions.dns import api  # noqa: PLC0415 -- see above

    return api()


def foreseen(sleds: list[SledConfig], ports: Ports) -> dict[UUID, Addresses]:
    """Where the servers beside these sleds will be if every port of a rack is free. On loopback, where any port is
    taken, this is what it would be without the others.
    """
    made: dict[UUID, Addresses] = {}
    for sled in sleds:
        ip = SocketAddress.parse(sled.address).host
        datasets = sled.hardware.crucible_datasets_of(sled.sled_id)
        made[sled.sled_id] = Addresses(
            crucible={
                each.dataset_id: str(SocketAddress(ip, CRUCIBLE_PORT + number))
                for number, each in enumerate(datasets)
            },
            pantry=str(SocketAddress(ip, PANTRY_PORT)),
            repo_depot=str(SocketAddress(ip, sled.repo_depot_port or ports.repo_depot or REPO_DEPOT_PORT)),
            dns_http=ports.dns_http or str(SocketAddress(ip, DNS_HTTP_PORT)),
            dns=ports.dns or str(SocketAddress(ip, DNS_PORT)),
        )
    return made
