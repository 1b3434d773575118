"""Where the sleds of a daemon are listened for, and what stands beside them. Shell.

Read before: companions/servers.py, core/sled.py, daemon/options.py.
Read next: daemon/daemon.py, http/app.py.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from uuid import UUID

from msgspec.structs import replace

from nexus_client.dropshot.body import Bodies
from nexus_client.dropshot.listen import Listener, PortRange, listen
from nexus_client.dropshot.text import SocketAddress
from sim_sled import logs
from sim_sled.companions.servers import Addresses, Companions
from sim_sled.core.sled import Sled
from sim_sled.daemon.options import Options
from sim_sled.http.app import OnRequest, make_server

if TYPE_CHECKING:
    from sim_sled.daemon.recorder import Recorder
    from sim_sled.http.host import Host

DRAWN_MAX: Final = 512
"""Sleds of a daemon up to which the kernel draws ports; beyond that its search costs more than all the rest."""


class Listening:
    """The listeners of one daemon. `listen` and `start_companions` of each sled, then `close`."""

    def __init__(
        self,
        host: Host,
        options: Options,
        on_request: OnRequest | None,
        tap: Recorder | None,
    ) -> None:
        """`on_request` is told of each request to a sled, `tap` of each with its body and its answer."""
        self.addresses: dict[UUID, str] = {}
        """Of the sleds that are listened for, by id."""
        self.companions: dict[UUID, Companions] = {}
        self._host, self._options, self._on_request, self._tap = host, options, on_request, tap
        self._listeners: dict[UUID, Listener] = {}
        self._ports: PortRange | None = None  # of a fleet too large for ports that the kernel draws
        self._bodies = Bodies()
        self._log = logs.get("daemon")

    async def listen(self, sled: Sled, of: int) -> str:
        """Bind this sled's address, one `of` so many; returns where. OSError if it is in use."""
        sled_id = sled.config.sled_id
        server = make_server(
            self._host,
            sled_id,
            accept_newer_api=self._options.accept_newer_api,
            on_newer_api=lambda peer, version: self._log.warning("newer API accepted", peer=peer, version=version),
            bodies=self._bodies,
            on_request=self._on_request,
            tap=self._tap,
        )
        address = SocketAddress.parse(sled.config.address)
        if address.port == 0 and (self._options.own_ports or of > DRAWN_MAX):
            if self._ports is None:
                self._ports = PortRange(sled_id.int)
            listener = await self._ports.listen(server, address.host)
        else:
            listener = await listen(server, address)
        self._listeners[sled_id] = listener
        sled.address = self.addresses[sled_id] = listener.address
        return listener.address

    async def start_companions(self, sled: Sled) -> None:
        """The servers beside this sled, if the daemon has any."""
        ports = self._options.companions
        if ports is None:
            return
        if sled.config.repo_depot_port:
            ports = replace(ports, repo_depot=sled.config.repo_depot_port)
        if self.companions:
            ports = replace(ports, dns=None, dns_http=None)  # one sled of a rack has the address that was given
        started = self.companions[sled.config.sled_id] = Companions(self._host, sled, ports)
        await started.start()
        if sled.has_estate:  # an earlier daemon kept what it knew
            from sim_sled.core.omicron_config.ledger import Ledger  # noqa: PLC0415 -- most have nothing kept

            await started.serve_zones(sled.estate.of(Ledger).zone_servers())

    def depot_port(self, sled: Sled) -> int:
        """What Nexus is told."""
        there = self.companions.get(sled.config.sled_id)
        depot = None if there is None else there.addresses.repo_depot
        if depot is not None:
            return SocketAddress.parse(depot).port
        return sled.config.repo_depot_port or self._listeners[sled.config.sled_id].port

    def companion_addresses(self) -> dict[UUID, Addresses]:
        """Where the servers beside each sled are."""
        return {sled_id: companions.addresses for sled_id, companions in self.companions.items()}

    async def leave(self, sled_id: UUID) -> None:
        """Nobody listens for this sled any more, nor for what stood beside it."""
        self.addresses.pop(sled_id, None)
        beside = self.companions.pop(sled_id, None)
        if beside is not None:
            beside.stop_accepting()
            await beside.close()
        await self._listeners.pop(sled_id).close()

    def accept_no_more(self) -> None:
        """Connections that are open go on."""
        for listener in self._listeners.values():
            listener.accept_no_more()
        for companions in self.companions.values():
            companions.stop_accepting()

    async def close(self) -> None:
        """Connections end."""
        await asyncio.gather(*(listener.close() for listener in self._listeners.values()))
        for companions in self.companions.values():
            await companions.close()
