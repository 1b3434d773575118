"""What stands beside a sled: Crucible agents, a pantry, a DNS server, a depot (SR 5), and how they misbehave (SR 8).

One area of the sled's estate, made when somebody first talks to one of these servers. The Crucible agents of all
sleds of a process know each other (`Agents`), because a disk lies on three sleds.

Read before: core/crucible/agents.py, core/dns/zones.py, core/estate.py, core/pantry/pantry.py.
Read next: companions/asking.py.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs

from sim_sled.core.artifacts.store import Artifacts
from sim_sled.core.config import derived_id
from sim_sled.core.crucible.agent import Agent
from sim_sled.core.crucible.agents import Agents
from sim_sled.core.dns.zones import Dns, DnsConfig
from sim_sled.core.errors import Injected
from sim_sled.core.estate import Area, Estate
from sim_sled.core.pantry.pantry import Pantry

R = TypeVar("R")

REFUSALS_MAX: Final = 100
"""Kinds of refusals that wait at once: a person writes them down."""


class Server(Enum):
    """Which kind of companion."""

    CRUCIBLE = "crucible"
    PANTRY = "pantry"
    DNS = "dns"
    REPO_DEPOT = "repo-depot"


@attrs.frozen
class Where:
    """One server. `dataset`: of a Crucible agent."""

    server: Server
    dataset: UUID | None = None


@attrs.define
class Refusal:
    """The next `left` answers of an operation. `dataset` None: at any agent."""

    op: str
    status: int
    left: int
    dataset: UUID | None = None


class Companions(Area):
    """The servers beside one sled. `depot_broken`: the depot fails whoever asks."""

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        regions = estate.sled.regions
        assert isinstance(regions, Agents), "only sleds that were equipped have servers beside them"
        self.agents = regions
        self.pantry = Pantry(regions, derived_id(estate.sled_id, "pantry"))
        self.dns = Dns()
        self.depot_broken = False
        self.refusals: list[Refusal] = []
        datasets = estate.hardware.crucible_datasets_of(estate.sled_id)
        self._own: Final = tuple(regions.agent(each.dataset_id) for each in datasets)

    def call(self, where: Where, op: str, how: Callable[..., R], args: tuple[Any, ...]) -> R:
        """`how` of the server at `where`, unless somebody wants `op` to be refused. Methods that are marked `timed`
        get the time as their last argument.
        """
        self._gate(where, op)
        now_us = self.estate.now_us
        if getattr(how, "timed", False):
            args = (*args, now_us)
        return how(self._server(where), *args)

    def _server(self, where: Where) -> Agent | Pantry | Dns | Companions:
        match where.server:
            case Server.CRUCIBLE:
                assert where.dataset is not None, "an agent is one of a dataset"
                return self.agents.agent(where.dataset)
            case Server.PANTRY:
                return self.pantry
            case Server.DNS:
                return self.dns
            case Server.REPO_DEPOT:
                return self

    def _gate(self, where: Where, op: str) -> None:
        for refusal in self.refusals:
            if refusal.op == op and refusal.dataset in {None, where.dataset}:
                refusal.left -= 1
                if refusal.left <= 0:
                    self.refusals.remove(refusal)
                raise Injected(refusal.status, None, "somebody wants this to be refused", {})

    def fill_dns(self, config: DnsConfig) -> None:
        """What a hand-off does to the DNS server of this sled. Raises `DnsGeneration` as for everybody."""
        self.dns.put(config, self.estate.now_us)

    def has_artifact(self, sha256: str) -> bool:
        """Whether the depot has it."""
        if self.depot_broken:
            raise Injected(500, "Internal", "Internal Server Error", {})
        return self.estate.of(Artifacts).has(sha256)

    # --- time -------------------------------------------------------------------------------------------------------

    def next_deadline_us(self) -> int | None:
        dues = [self.pantry.next_deadline_us(), *(agent.next_deadline_us() for agent in self._own)]
        return min((due for due in dues if due is not None), default=None)

    def tick(self) -> None:
        now_us = self.estate.now_us
        for agent in self._own:
            agent.tick(now_us)
        self.pantry.tick(now_us)
