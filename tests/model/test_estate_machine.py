"""The twelve consistencies of SR 9 over all areas, against a naive oracle, with restarts in between.

Rules are what Nexus and operators ask of a sled; each is tried on the sled over the door of its core and on `Oracle`,
a few dictionaries that know no time. Both must give the same value or both refuse. What SR 9 says of several answers
together is looked at after each step. Number 6 and 7 (ports and snapshots of regions) are the Crucible agents' own,
in test_crucible_machine.py. `tests/mutation/planted/estate.yaml` has a bug against each of the twelve.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.profile import by_profile
from support.rack.driving import registration
from support.rack.estate import POOLS, SECOND, SLED, EstateDriver, Fixed, an_id, config, dataset, disk, zone

from nexus_client.types import VmmState
from sim_sled.core import contract
from sim_sled.core.artifacts.store import ArtifactConfig, Artifacts
from sim_sled.core.bootstore.store import Bootstore, NetworkConfig
from sim_sled.core.bundles.store import Bundles, Where
from sim_sled.core.config import BareDisk, Hardware, PhysicalDisk
from sim_sled.core.errors import Internal, InvalidRequest, SledError
from sim_sled.core.identity.small import Identity
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.storage.local import LocalDataset, LocalStorage
from sim_sled.core.trust_quorum.node import TrustQuorum
from sim_sled.http.bodies_inventory import inventory_of

RUN_US = 4 * SECOND
BARE = BareDisk(PhysicalDisk(uuid.UUID(an_id(0xB0)), "vendor", "model", "bare"), 2**39)
HARDWARE = Hardware(zpools=POOLS, disks=(BARE,))
ADOPTED = {
    "id": an_id(0xB1),
    "identity": {"vendor": "vendor", "model": "model", "serial": "bare"},
    "pool_id": an_id(9),
}
ABSENT = {**disk(1), "id": an_id(0xDD), "identity": {"vendor": "v", "model": "m", "serial": "absent"}}

DISKS = [disk(1), disk(2), ADOPTED, ABSENT]
DATASETS = [
    dataset(1, "debug"),
    dataset(2, "debug", on=2),
    dataset(3, "local_storage_unencrypted"),
    dataset(4, "crucible", on=2),
    dataset(5, f"zone/oxz_ntp_{an_id(0xE01)}"),
]
ZONES = [zone(1), zone(2, "crucible", on=2), zone(3, "oximeter")]
NIC = {
    "id": an_id(0x11),
    "kind": {"type": "service", "id": an_id(0x12)},
    "name": "nic",
    "mac": "A8:40:25:FF:00:01",
    "vni": 100,
    "primary": True,
    "slot": 0,
}
V4 = {"ip": "172.30.2.5", "subnet": "172.30.2.0/24", "transit_ips": []}
V6 = {"ip": "fd77::5", "subnet": "fd77::/64", "transit_ips": []}


def nexus_zone(*, dual: bool) -> dict[str, Any]:
    ip = {"type": "dual_stack", "value": {"v4": V4, "v6": V6}} if dual else {"type": "v4", "value": V4}
    row = zone(9)
    row["zone_type"] = {
        "type": "nexus",
        "internal_address": "[fd00::1]:12221",
        "lockstep_port": 12232,
        "external_ip": "198.51.100.7",
        "nic": NIC | {"ip_config": ip},
        "external_tls": False,
        "external_dns_servers": [],
    }
    return row


some_configs = st.builds(
    lambda disks, datasets, zones, nexus: {
        "disks": disks,
        "datasets": datasets,
        "zones": zones + ([] if nexus is None else [nexus_zone(dual=nexus)]),
    },
    st.lists(st.sampled_from(DISKS), unique_by=lambda row: row["id"]),
    st.lists(st.sampled_from(DATASETS), unique_by=lambda row: row["id"]),
    st.lists(st.sampled_from(ZONES), unique_by=lambda row: row["id"]),
    st.sampled_from([None, False, True]),
)
hashes = st.sampled_from([f"{digit}" * 64 for digit in "abc"])
wheres = st.sampled_from(
    [
        Where(POOLS[0].id, uuid.UUID(an_id(0xA01))),
        Where(POOLS[0].id, uuid.UUID(an_id(0xA01))),
        Where(POOLS[1].id, uuid.UUID(an_id(0xA02))),
        Where(POOLS[1].id, uuid.UUID(an_id(0xA02))),
        Where(POOLS[0].id, uuid.UUID(an_id(0xA02))),
        Where(POOLS[1].id, uuid.UUID(an_id(0xA04))),
    ]
)
ids = st.sampled_from([uuid.UUID(an_id(n)) for n in (1, 2)])
pools = st.sampled_from([POOLS[0].id, POOLS[1].id, uuid.UUID(an_id(0x99))])
REFUSED = object()


@attrs.define
class Oracle:
    """What a sled should know, without time: `ledgered` and `reconciled` are told by the machine."""

    ledgered: Any = None
    artifacts: tuple[int, frozenset[str]] | None = None
    held: set[str] = attrs.field(factory=set)
    bundles: dict[tuple[uuid.UUID, uuid.UUID], str] = attrs.field(factory=dict)
    network: int | None = None
    volumes: dict[tuple[uuid.UUID, uuid.UUID], int] = attrs.field(factory=dict)
    vmms: set[uuid.UUID] = attrs.field(factory=set)

    def put_config(self, wanted: Any) -> object:
        old = self.ledgered
        if old is not None and wanted["generation"] < old["generation"]:
            return REFUSED
        if old is not None and wanted["generation"] == old["generation"]:
            return None if wanted == old else REFUSED
        self.ledgered = wanted
        rows = wanted["datasets"]
        self.bundles = {key: state for key, state in self.bundles.items() if str(key[0]) in rows}
        return None

    def place(self, where: Where) -> bool:
        row = (self.ledgered or {"datasets": {}})["datasets"].get(str(where.dataset_id))
        return row is not None and row["name"] == {"pool_name": f"oxp_{where.zpool_id}", "kind": "debug"}


def _configs(told: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configurations that an inventory contains, with where they stand."""
    if told["ledgered_sled_config"] is not None:
        yield "ledgered", told["ledgered_sled_config"]
    if told["last_reconciliation"] is not None:
        yield "reconciled", told["last_reconciliation"]["last_reconciled_config"]
    if told["reconciler_status"]["status"] == "running":
        yield "running", told["reconciler_status"]["config"]


class EstateMachine(RuleBasedStateMachine):
    """See the module."""

    generations: Bundle[int] = Bundle("generations")

    def __init__(self) -> None:
        super().__init__()
        self.driver = EstateDriver(hardware=HARDWARE, pacer=Fixed(RUN_US))
        self.oracle = Oracle()
        self.seen = 0
        self.completed = ""
        self.saved: dict[str, str] = {}
        """What a state directory has: each area as it was when it last said that it had changed."""

    # --- both sides -------------------------------------------------------------------------------------------------

    def ask(self, area: type, how: Any, *args: Any) -> object:
        try:
            return self.driver.ask(area, how, *args)
        except SledError:
            return REFUSED

    def inventory(self) -> dict[str, Any]:
        return dict(json.loads(json.dumps(self.driver.look(Inventory, Inventory.read))))

    def look(self, area: type, how: Any, *args: Any) -> object:
        """What an invariant asks: that nothing changes by it is seen by `the_state_directory_follows`."""
        try:
            return self.driver.look(area, how, *args)
        except SledError:
            return REFUSED

    # --- verbs ------------------------------------------------------------------------------------------------------

    @initialize(target=generations)
    def first(self) -> int:
        """A sled that has what most verbs need."""
        made = config(1, datasets=DATASETS[:3], zones=ZONES[:1])
        assert self.ask(Ledger, configure.put, made) is None
        self.oracle.put_config(json.loads(json.dumps(made.wire)))
        return 1

    @rule(target=generations, wanted=some_configs, step=st.sampled_from([-1, 0, 1, 1, 1, 3]), base=generations)
    def put_config(self, wanted: dict[str, Any], step: int, base: int) -> int:
        generation = max(0, base + step)
        made = config(generation, **wanted)
        before = self.inventory()
        got = self.ask(Ledger, configure.put, made)
        assert got is self.oracle.put_config(json.loads(json.dumps(made.wire)))
        if got is REFUSED:
            assert self.inventory() == before, "a refusal changes nothing"
        return generation

    @rule(target=generations, row=st.sampled_from([*DATASETS[:3], *ZONES, *DISKS]))
    def change_one_thing(self, row: dict[str, Any]) -> int:
        """Take one disk, dataset or zone out of the configuration, or put it back."""
        old = self.oracle.ledgered
        parts = {part: dict(old[part]) if old else {} for part in ("disks", "datasets", "zones")}
        part = "datasets" if row in DATASETS else "zones" if row in ZONES else "disks"
        if parts[part].pop(row["id"], None) is None:
            parts[part][row["id"]] = row
        made = config(
            (old["generation"] if old else 0) + 1, **{key: list(rows.values()) for key, rows in parts.items()}
        )
        assert self.ask(Ledger, configure.put, made) is None
        self.oracle.put_config(json.loads(json.dumps(made.wire)))
        return made.generation

    @precondition(lambda self: self.oracle.ledgered is not None)
    @rule()
    def put_the_same_config(self) -> None:
        ledger = self.driver.of(Ledger)
        before = self.inventory()
        self.driver.ask(Ledger, configure.put, ledger.ledgered)
        assert self.inventory() == before

    @rule(us=st.sampled_from([1, RUN_US // 2, RUN_US, 3 * RUN_US]))
    def wait(self, us: int) -> None:
        self.driver.wait(us)

    @rule(step=st.sampled_from([-1, 0, 1, 1, 2]), wanted=st.frozensets(hashes))
    def put_artifact_config(self, step: int, wanted: frozenset[str]) -> None:
        old = self.oracle.artifacts
        generation = max(0, (old[0] if old else 1) + step)
        fine = old is None or generation > old[0] or (generation, wanted) == old
        got = self.ask(Artifacts, Artifacts.put_config, ArtifactConfig(generation, wanted))
        assert (got is not REFUSED) == fine
        if fine:
            self.oracle.artifacts = (generation, wanted)
            self.oracle.held &= wanted

    @rule(sha256=hashes, step=st.sampled_from([0, 0, 0, 1, -1]))
    def put_artifact(self, sha256: str, step: int) -> None:
        config_ = self.oracle.artifacts
        generation = max(0, (config_[0] if config_ else 1) + step)
        fine = config_ is not None and config_[0] == generation and sha256 in config_[1]
        assert (self.ask(Artifacts, Artifacts.check_put, sha256, generation) is not REFUSED) == fine
        if fine:
            self.ask(Artifacts, Artifacts.stored, sha256, 1, b"x")
            self.oracle.held.add(sha256)

    @rule(where=wheres, bundle=ids)
    def start_bundle(self, where: Where, bundle: uuid.UUID) -> None:
        got = self.ask(Bundles, Bundles.start, where, bundle)
        if not self.oracle.place(where):
            assert got is REFUSED
            return
        key = (where.dataset_id, bundle)
        if self.oracle.bundles.get(key) != "complete":
            self.oracle.bundles[key] = "incomplete"
        assert got == self.oracle.bundles[key]

    @rule(where=wheres, bundle=ids, good=st.booleans(), found=hashes)
    def finalize_bundle(self, where: Where, bundle: uuid.UUID, good: bool, found: str) -> None:
        key = (where.dataset_id, bundle)
        state = self.oracle.bundles.get(key) if self.oracle.place(where) else None
        if state != "incomplete":
            return  # a complete one is compared by its hash: test_bundles.py
        wanted = found if good else "0" * 64
        which = self.ask(Bundles, Bundles.check_finalize, where, bundle, wanted)
        got = self.ask(Bundles, Bundles.finalize, where, bundle, wanted, found, which)
        assert (got is not REFUSED) == good
        if good:
            self.oracle.bundles[key] = "complete"

    @rule(where=wheres, bundle=ids)
    def delete_bundle(self, where: Where, bundle: uuid.UUID) -> None:
        there = self.oracle.place(where) and (where.dataset_id, bundle) in self.oracle.bundles
        assert (self.ask(Bundles, Bundles.delete, where, bundle) is not REFUSED) == there
        if there:
            del self.oracle.bundles[where.dataset_id, bundle]

    @rule(generation=st.integers(0, 5))
    def put_network(self, generation: int) -> None:
        self.ask(Bootstore, Bootstore.put, NetworkConfig(generation, 48, {}))
        self.oracle.network = generation

    @rule(pool=pools, dataset_id=ids, size=st.sampled_from([1, 2]))
    def ensure_volume(self, pool: uuid.UUID, dataset_id: uuid.UUID, size: int) -> None:
        place = self.local_storage(pool)
        key = (pool, dataset_id)
        fine = place and self.oracle.volumes.get(key, size) == size
        got = self.ask(LocalStorage, LocalStorage.ensure, pool, dataset_id, LocalDataset(size, size), False)
        assert (got is not REFUSED) == fine
        if fine:
            self.oracle.volumes[key] = size

    @rule(pool=pools, dataset_id=ids)
    def delete_volume(self, pool: uuid.UUID, dataset_id: uuid.UUID) -> None:
        got = self.ask(LocalStorage, LocalStorage.delete, pool, dataset_id, False)
        assert (got is not REFUSED) == self.local_storage(pool)
        if got is not REFUSED:
            self.oracle.volumes.pop((pool, dataset_id), None)

    def local_storage(self, pool: uuid.UUID) -> bool:
        """Whether the pool has a place for it: what the inventory says decides."""
        told = self.inventory()
        if told["ledgered_sled_config"] is None:
            return str(pool) in {row["id"] for row in told["zpools"]}
        return f"oxp_{pool}/local_storage_unencrypted" in {row["name"] for row in told["datasets"]}

    @rule(vmm=ids)
    def register(self, vmm: uuid.UUID) -> None:
        if vmm not in self.oracle.vmms:
            self.driver.rack.handle(contract.Register(1, SLED, vmm, registration(vmm)), self.driver.now_us)
            self.oracle.vmms.add(vmm)

    @rule(vmm=ids)
    def unregister(self, vmm: uuid.UUID) -> None:
        self.driver.rack.handle(contract.Unregister(1, SLED, vmm), self.driver.now_us)
        self.oracle.vmms.discard(vmm)

    @rule(state=st.sampled_from(["maintenance", "unrecognized", None]))
    def services(self, state: str | None) -> None:
        """SMF has a word for a service; the state is none that every version of the API knows."""
        row = {"fmri": "svc:/system/fault:default", "zone": "global", "state": str(state)}
        self.driver.of(Inventory).services = None if state is None else [row]

    @rule(row=st.sampled_from(DATASETS[:2]), bundle=ids)
    def a_dataset_with_a_bundle_goes_and_comes_back(self, row: dict[str, Any], bundle: uuid.UUID) -> None:
        """Steps that chance alone seldom puts in this order."""
        if row["id"] not in (self.oracle.ledgered or {"datasets": {}})["datasets"]:
            self.change_one_thing(row)
        pool = uuid.UUID(row["name"]["pool_name"].removeprefix("oxp_"))
        self.start_bundle(Where(pool, uuid.UUID(row["id"])), bundle)
        self.change_one_thing(row)
        self.change_one_thing(row)

    @rule(sha256=hashes)
    def an_artifact_comes_and_is_not_listed_any_more(self, sha256: str) -> None:
        """The same of artifacts."""
        self.put_artifact_config(1, frozenset({sha256}))
        self.put_artifact(sha256, 0)
        self.put_artifact_config(1, frozenset())

    @rule()
    def restart(self) -> None:
        """The process ends and another one takes up what was kept; VMMs end with it."""
        self.the_state_directory_follows()
        old = self.driver
        self.driver = EstateDriver(hardware=HARDWARE, pacer=Fixed(RUN_US))
        self.driver.now_us = old.now_us
        self.driver.rack.sleds[SLED].estate.kept |= {key: json.loads(text) for key, text in self.saved.items()}
        self.oracle.vmms.clear()
        self.driver.ask(Inventory, Inventory.read)  # as the daemon does at its start
        for area in (Ledger, Artifacts, Bundles, Bootstore, LocalStorage, TrustQuorum):
            self.driver.of(area)

    @invariant()
    def the_state_directory_follows(self) -> None:
        """As a daemon does after each turn; nothing that was acknowledged is missing after a restart."""
        estate = self.driver.rack.sleds[SLED].estate
        for kind, area in estate.made.items():
            if kind.kept_as is not None:
                told = json.dumps(area.dump(), sort_keys=True)
                if kind in estate.unsaved:
                    self.saved[kind.kept_as] = told
                assert told == self.saved.setdefault(kind.kept_as, told), f"{kind.__name__} changed and told nobody"
        estate.unsaved.clear()

    # --- SR 9 -------------------------------------------------------------------------------------------------------

    @invariant()
    def what_the_inventory_says_fits(self) -> None:
        """It is asked for once, and says the same when all have looked."""
        told = self.inventory()
        self.the_ledgered_config_is_the_last_accepted_one(told)
        self.what_was_reconciled_is_not_ahead(told)
        self.results_have_the_keys_of_the_config(told)
        self.zones_are_those_that_run(told)
        self.the_sled_says_everywhere_the_same_of_itself(told)
        self.old_versions_say_the_same_or_refuse(told)
        assert told == self.inventory(), "looking changes nothing"

    def the_ledgered_config_is_the_last_accepted_one(self, told: dict[str, Any]) -> None:
        """1: and its generation never falls."""
        ledgered = told["ledgered_sled_config"]
        assert ledgered == self.oracle.ledgered
        if ledgered is not None:
            assert ledgered["generation"] >= self.seen
            self.seen = ledgered["generation"]

    def what_was_reconciled_is_not_ahead(self, told: dict[str, Any]) -> None:
        """2: and has caught up when the reconciler is idle."""
        last, status = told["last_reconciliation"], told["reconciler_status"]
        if status["status"] == "not_yet_run":
            assert told["ledgered_sled_config"] is None
        if last is not None:
            assert last["last_reconciled_config"]["generation"] <= told["ledgered_sled_config"]["generation"]
        if status["status"] == "idle":
            assert last["last_reconciled_config"] == told["ledgered_sled_config"]
            assert status["completed_at"] >= self.completed
            self.completed = status["completed_at"]
        else:
            assert self.driver.rack.next_deadline_us() is not None or status["status"] == "not_yet_run"

    def results_have_the_keys_of_the_config(self, told: dict[str, Any]) -> None:
        """3, 4."""
        last = told["last_reconciliation"]
        if last is None:
            assert told["datasets"] == []
            return
        made = last["last_reconciled_config"]
        for results, part in (("external_disks", "disks"), ("datasets", "datasets"), ("zones", "zones")):
            assert last[results].keys() == made[part].keys()
        names = [row["name"] for row in told["datasets"]]
        assert len(names) == len(set(names))
        zpools = {f"oxp_{row['id']}" for row in told["zpools"]}
        for row in told["datasets"]:
            assert row["id"] in made["datasets"]
            assert row["name"].partition("/")[0] in zpools
            assert last["datasets"][row["id"]] == {"result": "ok"}
        assert len(told["datasets"]) == sum(each["result"] == "ok" for each in last["datasets"].values())

    @invariant()
    def bundles_are_those_of_datasets_that_are_there(self) -> None:
        """5."""
        for number, on in ((0xA01, 0), (0xA02, 1)):
            where = Where(POOLS[on].id, uuid.UUID(an_id(number)))
            got = self.look(Bundles, Bundles.list, where)
            if not self.oracle.place(where):
                assert got is REFUSED
                continue
            mine = [(key[1], state) for key, state in self.oracle.bundles.items() if key[0] == where.dataset_id]
            assert got == sorted(mine)

    @invariant()
    def artifacts_are_those_of_the_config(self) -> None:
        """8."""
        got = self.look(Artifacts, Artifacts.list)
        if self.oracle.artifacts is None:
            assert got is REFUSED
        else:
            assert got == (self.oracle.artifacts[0], dict.fromkeys(sorted(self.oracle.held), 2))

    def zones_are_those_that_run(self, told: dict[str, Any]) -> None:
        """9."""
        last = told["last_reconciliation"]
        running = {"oxz_switch"} | {f"oxz_propolis-server_{vmm}" for vmm in self.oracle.vmms}
        for key, result in (last or {"zones": {}})["zones"].items():
            if result["result"] == "ok":
                kind = last["last_reconciled_config"]["zones"][key]["zone_type"]["type"]
                running.add(f"oxz_{'ntp' if kind.endswith('ntp') else kind}_{key}")
        assert self.look(Identity, Identity.zones) == sorted(running)
        states = {vmm.state for vmm in self.driver.rack.sleds[SLED].vmms.values()}
        assert states <= {VmmState.STARTING}

    def the_sled_says_everywhere_the_same_of_itself(self, told: dict[str, Any]) -> None:
        """10."""
        ids_ = self.driver.look(Identity, Identity.identifiers)
        info = self.driver.rack.sleds[SLED].info("[::1]:1", 1)
        assert told["sled_id"] == ids_["sled_id"] == str(SLED)
        assert told["baseboard_id"] == {"part_number": info.baseboard.part, "serial_number": info.baseboard.serial}
        assert (ids_["model"], ids_["serial"]) == (info.baseboard.part, info.baseboard.serial)
        assert self.look(Identity, Identity.role) == told["sled_role"] == info.role.value

    @invariant()
    def the_bootstore_has_the_last_written_generation(self) -> None:
        """11."""
        assert (
            self.driver.look(Bootstore, Bootstore.status)["network_config_ledger_generation"] == self.oracle.network
        )

    def old_versions_say_the_same_or_refuse(self, newest: dict[str, Any]) -> None:
        """12: a zone is never left out."""
        places = list(_configs(newest))
        text = json.dumps([config for _, config in places])
        unrecognized = "unrecognized" in json.dumps(newest["smf_services_enabled_not_online"])
        for level in (1, 9, 10, 15, 27, 33, 45):
            unheard = 28 <= level < 46 and unrecognized
            try:
                told = inventory_of(newest, level)
            except InvalidRequest:
                assert level < 10
                assert "dual_stack" in text
                continue
            except Internal:
                assert unrecognized
                continue
            assert not unheard, level
            assert not (level < 10 and "dual_stack" in text)
            assert [(place, config["zones"].keys()) for place, config in _configs(told)] == [
                (place, config["zones"].keys()) for place, config in places
            ]
            for part in ("zpools", "disks", "datasets"):
                assert len(told[part]) == len(newest[part])
            for part in ("external_disks", "datasets", "zones"):
                assert newest["last_reconciliation"] is None or (
                    told["last_reconciliation"][part] == newest["last_reconciliation"][part]
                )


TestEstate = EstateMachine.TestCase
TestEstate.settings = settings(
    settings.default,
    max_examples=by_profile(20, nightly=settings.default.max_examples),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
