"""What stands beside a sled: Crucible agents, a pantry, a DNS server, a depot (SR 5), and how they misbehave (SR 8).

One area of the sled's estate, made when somebody first talks to one of these servers. The Crucible agents of all
sleds of a process know each other (`Agents`), because a disk lies on three sleds.

Read before: core/crucible/agents.py, core/crucible/repairs.py, core/dns/zones.py, core/estate.py, core/mishaps.py,
core/pantry/pantry.py.
Read next: companions/asking.py, core/facts.py, daemon/companion_faults.py, play/asks.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs

from nexus_client.dropshot.text import SocketAddress
from sim_sled.core.artifacts.store import Artifacts
from sim_sled.core.config import derived_id
from sim_sled.core.contract import TellNexus
from sim_sled.core.crucible.agent import Agent
from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.repairs import Repair
from sim_sled.core.crucible.values import RegionState
from sim_sled.core.dns.zones import Dns, DnsConfig
from sim_sled.core.errors import BadRequest, ConnectionDropped, Injected, Missing
from sim_sled.core.estate import Area, Estate
from sim_sled.core.mishaps import (
    OPERATIONS,
    REFUSALS_MAX,
    TIMES_MAX,
    Adjust,
    BreakDownstairs,
    Mishap,
    Refuse,
    SetRegion,
    TakeOver,
)
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.pantry.pantry import Pantry
from sim_sled.core.pantry.request import regions_of

R = TypeVar("R")

KNOB_MAX: Final = 10**15
"""Microseconds: some 30 years. Counts are far below."""

READS: Final = frozenset(
    {
        "",  # a further step of an operation that was counted already, or a look at whether something has happened
        "region_list", "region_get", "region_get_snapshots", "region_get_snapshot", "pantry_status", "volume_status",
        "bulk_read", "bulk_write", "is_job_finished", "job_result_ok", "dns_config_get", "artifact_get_by_sha256",
    }
)  # fmt: skip
"""Operations after which nothing has to be stored: volumes and their bytes do not outlive a process."""


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
class DepotKnobs:
    """How a depot misbehaves (SR 8). `broken`: it fails whoever asks."""

    broken: bool = False


class Companions(Area):
    """The servers beside one sled."""

    kept_as = "companions"

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        regions = estate.sled.regions
        assert isinstance(regions, Agents), "only sleds that were equipped have servers beside them"
        self.agents = regions
        self.pantry = Pantry(regions, derived_id(estate.sled_id, "pantry"))
        self.dns = Dns()
        self.depot = DepotKnobs()
        self.refusals: list[Refuse] = []
        self._telling: list[tuple[int, int, TellNexus]] = []  # when, in which order, what
        self._repairs = 0
        datasets = estate.hardware.crucible_datasets_of(estate.sled_id)
        self._host: Final = SocketAddress.parse(estate.sled.address).host
        self._own: Final = {each.dataset_id: self._agent(each.dataset_id) for each in datasets}
        self._adopted: Final[dict[UUID, str]] = {}  # dataset of a configuration: host of its downstairs

    def _agent(self, dataset: UUID) -> Agent:
        agent = self.agents.agent(dataset)
        agent.heard = self.changed
        return agent

    def call(self, where: Where, op: str, how: Callable[..., R], args: tuple[Any, ...]) -> R:
        """`how` of the server at `where`, unless somebody wants `op` to be refused. Methods that are marked `timed`
        get the time as their last argument.
        """
        self._gate(where, op)
        if where.server is Server.PANTRY and self.pantry.knobs.crashed:
            raise ConnectionDropped("somebody wants this pantry to have crashed")
        now_us = self.estate.now_us
        if getattr(how, "timed", False):
            args = (*args, now_us)
        result = how(self._server(where), *args)
        if op not in READS:
            self.changed()
        return result

    def _server(self, where: Where) -> Agent | Pantry | Dns | Companions:
        match where.server:
            case Server.CRUCIBLE:
                assert where.dataset is not None, "an agent is one of a dataset"
                self.datasets()
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
                refusal.times -= 1
                if refusal.times <= 0:
                    self.refusals.remove(refusal)
                if refusal.status is None:
                    raise ConnectionDropped("somebody wants this connection to break")
                raise Injected(refusal.status, None, "somebody wants this to be refused", {})

    # --- mishaps ----------------------------------------------------------------------------------------------------

    def suffer(self, mishap: Mishap) -> None:
        """Let it happen. Raises `BadRequest` for what cannot, `Missing` for what it should happen to."""
        match mishap:
            case Refuse():
                self._refuse(mishap)
            case Adjust():
                self._adjust(mishap)
            case SetRegion():
                self._own_agent(mishap.dataset).set_state(str(mishap.region_id), mishap.state)
            case TakeOver():
                self.pantry.take_over(mishap.volume_id)
            case BreakDownstairs():
                self._break(mishap)
        self.changed()

    def overview(self) -> dict[str, Any]:
        """Knobs of all servers, and what waits to be refused, as JSON values."""
        knobs: dict[str, Any] = {
            "crucible": {str(dataset): _shown(self._own[dataset].knobs) for dataset in self.datasets()},
            "pantry": _shown(self.pantry.knobs),
            "dns": _shown(self.dns.knobs),
            "repo-depot": _shown(self.depot),
        }
        return {"knobs": knobs, "refusals": [_shown(each) for each in self.refusals]}

    def _refuse(self, mishap: Refuse) -> None:
        if mishap.op not in OPERATIONS:
            raise BadRequest(f"op is one of {', '.join(sorted(OPERATIONS))}, not {mishap.op!r}")
        if not 1 <= mishap.times <= TIMES_MAX:
            raise BadRequest(f"times is a number from 1 to {TIMES_MAX}")
        if mishap.status is not None and not 400 <= mishap.status <= 599:
            raise BadRequest("status is one of 400 to 599, or null for a connection that breaks")
        if len(self.refusals) >= REFUSALS_MAX:
            raise BadRequest(f"{REFUSALS_MAX} refusals wait already")
        self.refusals.append(attrs.evolve(mishap))

    def _adjust(self, mishap: Adjust) -> None:
        knobs = self._knobs(mishap)
        known = {field.name: field for field in attrs.fields(type(knobs))}
        for name, value in mishap.changes:
            if name not in known:
                raise BadRequest(f"{mishap.server} has the knobs {', '.join(sorted(known))}, not {name!r}")
            now = getattr(knobs, name)
            if type(value) is not type(now) or (isinstance(value, int) and not 0 <= value <= KNOB_MAX):
                raise BadRequest(f"{name} is {type(now).__name__} (0 to {KNOB_MAX} if a number), not {value!r}")
        for name, value in mishap.changes:
            setattr(knobs, name, value)
        now_us = self.estate.now_us
        if mishap.server == Server.CRUCIBLE.value:
            assert mishap.dataset is not None, "it had knobs"
            self._own_agent(mishap.dataset).go_on(now_us)
        self.pantry.go_on(now_us)

    def _knobs(self, mishap: Adjust) -> attrs.AttrsInstance:
        match mishap.server:
            case "crucible":
                if mishap.dataset is None:
                    raise BadRequest("which agent? dataset_id is missing")
                return self._own_agent(mishap.dataset).knobs
            case "pantry":
                return self.pantry.knobs
            case "dns":
                return self.dns.knobs
            case "repo-depot":
                return self.depot
        raise BadRequest(f"server is one of {', '.join(each.value for each in Server)}, not {mishap.server!r}")

    def datasets(self) -> tuple[UUID, ...]:
        """Those with an agent: the ones that the sled has from the start, then those of a configuration's Crucible
        zones (SR 3.7), in the order in which they came. They stay when their zone goes, with the regions on them.
        """
        for server in self.estate.of(Ledger).zone_servers():
            if server.dataset is not None and server.dataset not in self._own:
                self._adopt(server.dataset, SocketAddress.parse(server.address).host)
        return tuple(self._own)

    def _adopt(self, dataset: UUID, host: str) -> None:
        """Nothing happens where the id is another sled's, or no ports are left: then nobody is there."""
        try:
            self.agents.add_sled(host, [dataset])
        except ValueError as error:
            self.estate.note(f"no Crucible agent for dataset {dataset}: {error}")
            return
        self._own[dataset] = self._agent(dataset)
        self._adopted[dataset] = host

    def _own_agent(self, dataset: UUID) -> Agent:
        self.datasets()
        agent = self.agents.agent(dataset)
        if dataset not in self._own:
            raise Missing(f"Crucible dataset {dataset} is another sled's")
        return agent

    def _break(self, mishap: BreakDownstairs) -> None:
        region = self._own_agent(mishap.dataset).get(str(mishap.region_id))
        if region.state is not RegionState.CREATED:
            raise BadRequest(f"region {mishap.region_id} is {region.state.value}, nobody writes to it")
        target = self.agents.address_of(mishap.dataset, region.port, self._host)
        now_us = self.estate.now_us
        for upstairs_id in self._writers(target):
            self._repairs += 1
            repair_id = derived_id(self.estate.sled_id, f"repair/{self._repairs}")
            session_id = derived_id(self.estate.sled_id, f"session/{upstairs_id}")
            repair = Repair(upstairs_id, session_id, repair_id, mishap.region_id, target)
            for number, (at_us, path, body) in enumerate(
                repair.messages(now_us, mishap.repair_us, aborted=mishap.aborted)
            ):
                told = TellNexus(self.estate.sled_id, path, body)
                heapq.heappush(self._telling, (at_us, self._repairs * 10 + number, told))
        if mishap.aborted:
            region.state = RegionState.FAILED
        self._tell()

    def _writers(self, target: str) -> list[UUID]:
        """Upstairs that write to a downstairs: of volumes in pantries and of VMMs, on all sleds of this process."""
        found: dict[UUID, None] = {}
        for estate in (self.estate, *self.estate.neighbours):
            for disk_id, targets in (each for vmm in estate.sled.vmms.values() for each in vmm.about.disk_targets):
                if target in targets:
                    found[disk_id] = None
            if (beside := estate.made.get(Companions)) is not None:
                assert isinstance(beside, Companions), "made as one"
                for volume in beside.pantry.volumes.values():
                    for part in regions_of(volume.request):
                        if target in part.opts.target:
                            found[part.opts.id] = None
        return list(found)

    def _tell(self) -> None:
        while self._telling and self._telling[0][0] <= self.estate.now_us:
            self.estate.effects.append(heapq.heappop(self._telling)[2])

    def fill_dns(self, config: DnsConfig) -> None:
        """What a hand-off does to the DNS server of this sled. Raises `DnsGeneration` as for everybody."""
        self.dns.put(config, self.estate.now_us)
        self.changed()

    def has_artifact(self, sha256: str) -> bool:
        """Whether the depot has it."""
        if self.depot.broken:
            raise Injected(500, "Internal", "Internal Server Error", {})
        return self.estate.of(Artifacts).has(sha256)

    # --- time -------------------------------------------------------------------------------------------------------

    def next_deadline_us(self) -> int | None:
        dues = [self.pantry.next_deadline_us(), *(agent.next_deadline_us() for agent in self._own.values())]
        if self._telling:
            dues.append(self._telling[0][0])
        return min((due for due in dues if due is not None), default=None)

    def tick(self) -> None:
        now_us = self.estate.now_us
        for agent in self._own.values():
            due_us = agent.next_deadline_us()
            if due_us is not None and due_us <= now_us:
                agent.tick(now_us)
                self.changed()
        self.pantry.tick(now_us)
        self._tell()

    # --- restarts ---------------------------------------------------------------------------------------------------

    def dump(self) -> Any:
        """Regions, snapshots and what DNS was told. Bytes, volumes of the pantry and knobs are not kept."""
        return {
            "agents": {str(dataset): agent.dump() for dataset, agent in self._own.items()},
            "adopted": {str(dataset): host for dataset, host in self._adopted.items()},
            "dns": self.dns.dump(),
        }

    def load(self, kept: Any) -> None:
        for adopted, host in kept.get("adopted", {}).items():  # an older one kept none
            self._adopt(UUID(adopted), host)
        for dataset, agent in self._own.items():
            if str(dataset) in kept["agents"]:
                agent.load(kept["agents"][str(dataset)], self.estate.now_us)
        self.dns.load(kept["dns"])


def _shown(knobs: attrs.AttrsInstance) -> dict[str, Any]:
    found = attrs.asdict(knobs)
    return {
        name: value.value if isinstance(value, Enum) else str(value) if isinstance(value, UUID) else value
        for name, value in found.items()
    }
