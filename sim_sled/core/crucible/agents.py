"""All Crucible agents of a process: who answers behind an address, and what disks read and write (SR 4.3, 5.1, 5.2).

Read before: core/crucible/agent.py. Read next: core/companions.py, core/pantry/volume.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from uuid import UUID

from msgspec import Struct

from nexus_client.dropshot.text import SocketAddress
from sim_sled.core.crucible.agent import PORTS, Agent
from sim_sled.core.crucible.blocks import Blocks, Memory
from sim_sled.core.crucible.values import Region, RegionState
from sim_sled.core.errors import Internal, Missing
from sim_sled.core.sled import Sled

SLED_PORTS: Final = 1000
"""Ports of one sled: sled *i* begins at 1000 * (i + 1), its dataset *k* 50 * k above (SA 1.7)."""

PORT_MAX: Final = 65_535


class _Place(Struct, frozen=True):
    """An agent and the address its downstairs have; `host` None: all addresses of this machine."""

    host: str | None
    agent: Agent


def _split(target: str) -> tuple[str, int]:
    """Raises `ValueError`."""
    address = SocketAddress.parse(target)
    return address.host, address.port


class Agents:
    """The agents by dataset. Two sleds on one address never share a port."""

    def __init__(self) -> None:
        self.memory = Memory()
        self._places: dict[UUID, _Place] = {}
        self._next_port: dict[str | None, int] = {}

    def add_sled(self, host: str, datasets: Iterable[UUID]) -> None:
        """Agents for the datasets of a sled at `host`. ValueError if the ports are used up or a dataset is known."""
        where = None if ip_address(host).is_unspecified else host
        first = self._next_port.get(where, SLED_PORTS)
        port = first
        for dataset in datasets:
            if dataset in self._places:
                raise ValueError(f"two Crucible datasets with the id {dataset}")
            if port + PORTS - 1 > PORT_MAX:
                raise ValueError(f"{host} has no ports left for another Crucible dataset")
            self._places[dataset] = _Place(where, Agent(port, self.memory, self.source))
            port += PORTS
        self._next_port[where] = first + SLED_PORTS * max(1, -(-(port - first) // SLED_PORTS))

    def remove(self, datasets: Iterable[UUID]) -> None:
        """A sled leaves, and what lay on it with it. Its ports are not given again: old volumes still name them."""
        for dataset in datasets:
            self._places.pop(dataset, None)

    def agent(self, dataset: UUID) -> Agent:
        place = self._places.get(dataset)
        if place is None:
            raise Missing(f"no Crucible dataset {dataset}")
        return place.agent

    # --- what is behind an address ----------------------------------------------------------------------------------

    def _at(self, target: str) -> tuple[Agent, int] | None:
        try:
            host, port = _split(target)
        except ValueError:
            return None
        for place in self._places.values():
            if place.host in {None, host} and place.agent.first_port <= port < place.agent.first_port + PORTS:
                return place.agent, port
        return None

    def region(self, target: str) -> Region | None:
        """The region whose downstairs listens at `address:port`; None if that is none of this process."""
        found = self._at(target)
        return None if found is None else found[0].at_port(found[1])

    def address_of(self, dataset: UUID, port: int, host: str) -> str:
        """What volumes call the downstairs at `port` of an agent; `host` where the agent has all addresses."""
        return str(SocketAddress(self._places[dataset].host or host, port))

    def source(self, target: str) -> Blocks | None:
        """What a read-only copy from `address:port` begins with; None if that is not of this process."""
        try:
            host, port = _split(target)
        except ValueError:
            return None
        for place in self._places.values():
            if place.host in {None, host} and (found := place.agent.source_at(port)) is not None:
                return found
        return None

    # --- disks ------------------------------------------------------------------------------------------------------

    def snapshot(self, targets: Iterable[str], snapshot_id: UUID, now_us: int) -> None:
        """Make a snapshot of the region behind each target. Raises `Internal` where one is missing or unusable;
        snapshots made for earlier targets stay (SR 4.3).
        """
        for target in targets:
            found = self._at(target)
            region = None if found is None else found[0].at_port(found[1])
            if found is None or region is None:
                raise Internal(f"no region behind {target}")
            found[0].take_snapshot(region, str(snapshot_id), now_us)

    def usable(self, targets: Iterable[str]) -> list[Region]:
        """The regions behind the targets that can be read and written."""
        found = [self.region(target) for target in targets]
        return [region for region in found if region is not None and region.state is RegionState.CREATED]

    def to_write(self, targets: Iterable[str]) -> list[Region]:
        """The same, and their sleds keep that there were bytes, if these are the first."""
        targets = tuple(targets)
        regions = self.usable(targets)
        if not all(region.blocks.any_written() for region in regions):
            for found in filter(None, map(self._at, targets)):
                if found[0].heard is not None:
                    found[0].heard()
        return regions


def equip(sleds: Iterable[Sled], agents: Agents | None = None) -> Agents:
    """Give the sleds of a process their Crucible agents. `agents`: those of the sleds that they join. ValueError if
    their ports do not suffice.
    """
    agents = agents or Agents()
    for sled in sleds:
        config = sled.config
        host = SocketAddress.parse(config.address).host
        datasets = config.hardware.crucible_datasets_of(config.sled_id)
        agents.add_sled(host, [each.dataset_id for each in datasets])
        sled.regions = agents
    return agents
