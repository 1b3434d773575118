"""What Nexus asks of sleds and of the servers beside them for its own tasks, each once: as a call on a sled's estate,
for virtual time, and as a request over HTTP, for the wall clock. Rules see the same operation in both.

Read before: core/companions.py, core/estate.py. Read next: play/tasks.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import attrs

from sim_sled.core.artifacts.store import ArtifactConfig, Artifacts
from sim_sled.core.bundles.store import Bundles, Where
from sim_sled.core.companions import Companions, Server
from sim_sled.core.companions import Where as Beside
from sim_sled.core.contract import AreaCall
from sim_sled.core.crucible.agent import Agent
from sim_sled.core.crucible.values import Region, RegionRequest
from sim_sled.core.diagnostics.queries import Diagnostics
from sim_sled.core.errors import Missing
from sim_sled.core.estate import Estate, OnEstate, ask
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.omicron_config.values import OmicronConfig

BLOCK: Final = 4096
EXTENT: Final = 64 * 2**20
"""Bytes of an extent: whatever the block size, 64 MiB (SR 5.1)."""

GONE: Final = 0
"""As a status: there was no answer."""


@attrs.frozen
class Answer:
    """`status` GONE: no answer came, and `body` says why. `body`: JSON values; of a refusal its message."""

    status: int
    body: Any = None

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def again(self) -> bool:
        """Whether Nexus asks again: broken connections and what may pass (SR 2)."""
        return self.status in (GONE, 429, 502, 503, 504)


def _as_it_is(value: Any) -> Any:
    return value


@attrs.frozen
class Ask:
    """One request. `told`: makes of what the core returns what the wire would say. `data`: a body that is not JSON.
    `dataset`: of the Crucible agent that is asked; None: the sled itself is. `depot`: whose depot the body names.
    """

    sled_id: UUID
    op: str
    call: AreaCall
    method: str
    path: str
    body: Any = None
    data: bytes | None = None
    dataset: UUID | None = None
    depot: UUID | None = None
    told: Callable[[Any], Any] = _as_it_is


# ---- the sled itself


def inventory(sled: UUID) -> Ask:
    return Ask(sled, "inventory", ask(Inventory, Inventory.read), "GET", "/inventory")


def put_config(sled: UUID, wire: dict[str, Any]) -> Ask:
    config = OmicronConfig(wire)
    return Ask(sled, "omicron_config_put", ask(Ledger, configure.put, config), "PUT", "/omicron-config", wire)


def put_artifact_config(sled: UUID, generation: int, hashes: frozenset[str]) -> Ask:
    config = ArtifactConfig(generation, hashes)
    body = {"generation": generation, "artifacts": sorted(hashes)}
    call = ask(Artifacts, Artifacts.put_config, config)
    return Ask(sled, "artifact_config_put", call, "PUT", "/artifacts-config", body)


def list_artifacts(sled: UUID) -> Ask:
    def told(value: tuple[int, dict[str, int]]) -> dict[str, Any]:
        return {"generation": value[0], "list": value[1]}

    return Ask(sled, "artifact_list", ask(Artifacts, Artifacts.list), "GET", "/artifacts", told=told)


@attrs.frozen
class _PutArtifact(OnEstate[None]):
    """Both steps of writing one, with nothing between."""

    sha256: str
    generation: int
    data: bytes

    def on(self, estate: Estate) -> None:
        artifacts = estate.of(Artifacts)
        artifacts.check_put(self.sha256, self.generation)
        artifacts.stored(self.sha256, len(self.data), self.data)


def put_artifact(sled: UUID, data: bytes, generation: int) -> Ask:
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"/artifacts/{sha256}?generation={generation}"
    return Ask(sled, "artifact_put", _PutArtifact(sha256, generation, data), "PUT", path, data=data)


@attrs.frozen
class _CopyArtifact(OnEstate[None]):
    """The same from the depot beside another sled of this rack."""

    put: _PutArtifact
    source: UUID

    def on(self, estate: Estate) -> None:
        estate.of(Artifacts).check_put(self.put.sha256, self.put.generation)
        there = next(each for each in estate.neighbours if each.sled_id == self.source)
        there.now_us = estate.now_us
        if not there.of(Companions).has_artifact(self.put.sha256):
            raise Missing(f"the depot has no artifact {self.put.sha256}")
        self.put.on(estate)


def copy_artifact(sled: UUID, data: bytes, generation: int, source: UUID) -> Ask:
    sha256 = hashlib.sha256(data).hexdigest()
    call = _CopyArtifact(_PutArtifact(sha256, generation, data), source)
    path = f"/artifacts/{sha256}/copy-from-depot?generation={generation}"
    return Ask(sled, "artifact_copy_from_depot", call, "POST", path, depot=source)


# ---- support bundles

QUERIES: Final = ("zoneadm", "ipadm", "dladm", "nvmeadm", "pargs", "pfiles", "pstack", "zfs", "zpool")


def query(sled: UUID, what: str) -> Ask:
    """One of QUERIES, or `health-check`."""
    which = what if what == "health-check" else f"{what}-info"
    op = f"support_{which.replace('-', '_')}"
    return Ask(sled, op, ask(Diagnostics, Diagnostics.run, which), "GET", f"/support/{which}")


def log_zones(sled: UUID) -> Ask:
    return Ask(sled, "support_logs", ask(Diagnostics, Diagnostics.log_zones), "GET", "/support/logs/zones")


def _bundle_path(where: Where, bundle: UUID) -> str:
    return f"/support-bundles/{where.zpool_id}/{where.dataset_id}/{bundle}"


def start_bundle(sled: UUID, where: Where, bundle: UUID) -> Ask:
    call = ask(Bundles, Bundles.start, where, bundle)
    return Ask(sled, "support_bundle_start_creation", call, "POST", _bundle_path(where, bundle))


@attrs.frozen
class _Transfer(OnEstate[object]):
    where: Where
    bundle: UUID

    def on(self, estate: Estate) -> object:
        bundles = estate.of(Bundles)
        return bundles.transferred(self.where, self.bundle, bundles.check_transfer(self.where, self.bundle))


def transfer(sled: UUID, where: Where, bundle: UUID, offset: int, data: bytes) -> Ask:
    path = f"{_bundle_path(where, bundle)}/transfer?offset={offset}"
    return Ask(sled, "support_bundle_transfer", _Transfer(where, bundle), "PUT", path, data=data)


@attrs.frozen
class _Finalize(OnEstate[None]):
    """In virtual time all bytes arrive, so the hash that was announced is the one that is found."""

    where: Where
    bundle: UUID
    sha256: str

    def on(self, estate: Estate) -> None:
        bundles = estate.of(Bundles)
        which = bundles.check_finalize(self.where, self.bundle, self.sha256)
        if which is not None:
            bundles.finalize(self.where, self.bundle, self.sha256, self.sha256, which)


def finalize(sled: UUID, where: Where, bundle: UUID, sha256: str) -> Ask:
    path = f"{_bundle_path(where, bundle)}/finalize?hash={sha256}"
    return Ask(sled, "support_bundle_finalize", _Finalize(where, bundle, sha256), "POST", path)


# ---- Crucible agents


def create_region(sled: UUID, dataset: UUID, region: UUID, extents: int) -> Ask:
    wanted = RegionRequest(region, BLOCK, EXTENT // BLOCK, extents, encrypted=True)
    body = {
        "id": str(region), "block_size": BLOCK, "extent_size": EXTENT // BLOCK, "extent_count": extents,
        "encrypted": True, "cert_pem": None, "key_pem": None, "root_pem": None, "source": None,
    }  # fmt: skip
    call = _crucible(dataset, "region_create", Agent.create, wanted)
    return Ask(sled, "region_create", call, "POST", _REGIONS, body, dataset=dataset, told=_region)


def delete_region(sled: UUID, dataset: UUID, region: UUID) -> Ask:
    call = _crucible(dataset, "region_delete", Agent.delete, str(region))
    return Ask(sled, "region_delete", call, "DELETE", f"{_REGIONS}/{region}", dataset=dataset)


_REGIONS: Final = "/crucible/0/regions"


def _crucible(dataset: UUID, op: str, how: Callable[..., Any], arg: object) -> AreaCall:
    return ask(Companions, Companions.call, Beside(Server.CRUCIBLE, dataset), op, how, (arg,))


def _region(value: Region) -> dict[str, Any]:
    return {"state": value.state.value, "port_number": value.port}
