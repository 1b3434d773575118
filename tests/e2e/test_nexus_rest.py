"""What Nexus does with the sleds of a rack beside VMMs, over sockets, call by call (SR 7): inventory, configuration,
snapshots, instances with disks, support bundles, artifacts, sleds that come and go.

Disks alone, their import and their repair are in test_disks.py.
"""

import asyncio
import contextlib
import hashlib
import io
import json
import socket
import uuid
import zipfile

import aiohttp
import pytest
from support.daemon.cluster import BLOCK, LIMIT_S, VERSIONED, Cluster, Disk
from support.ports import a_port
from support.rack.estate import Fixed
from support.wire.register_body import register_body
from yarl import URL

from nexus_client.stub import contract as nx
from sim_sled.core.config import BareDisk, Hardware, PhysicalDisk, SledConfig
from sim_sled.core.contract import ZoneServer
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.language.check import parse_scenario

RACK = str(uuid.uuid4())
RUN_US = 150_000
"""What a run of the reconciler takes here: long enough to be seen from outside."""


class Wanted:
    """The configuration of one sled as its blueprint has it; `put` is a step of execution (SR 7.4)."""

    def __init__(self, cluster, which, inventory):
        self.cluster, self.which = cluster, which
        self.generation = 1  # the next one is the first that is told
        self.disks, self.datasets, self.zones = {}, {}, {}
        for disk, pool in zip(inventory["disks"], inventory["zpools"], strict=False):
            self.adopt(disk["identity"], pool["id"])

    def adopt(self, identity, pool_id):
        row = {"id": str(uuid.uuid4()), "identity": identity, "pool_id": pool_id}
        self.disks[row["id"]] = row
        return row

    @property
    def pools(self):
        return [row["pool_id"] for row in self.disks.values()]

    def dataset(self, kind, pool):
        row = {
            "id": str(uuid.uuid4()), "name": {"pool_name": f"oxp_{pool}", "kind": kind},
            "compression": {"type": "off"}, "quota": None, "reservation": None,
        }  # fmt: skip
        self.datasets[row["id"]] = row
        return row["id"]

    def zone(self, kind, pool, **about):
        about = {"type": kind, "address": "[fd00:1122:3344:101::10]:123"} | about
        row = {
            "id": str(uuid.uuid4()), "zone_type": about, "filesystem_pool": f"oxp_{pool}",
            "image_source": {"type": "install_dataset"},
        }  # fmt: skip
        self.zones[row["id"]] = row
        return row["id"]

    def body(self):
        slot = {"type": "current_contents"}
        return {
            "generation": self.generation, "disks": self.disks, "datasets": self.datasets, "zones": self.zones,
            "remove_mupdate_override": None, "host_phase_2": {"slot_a": slot, "slot_b": slot}, "measurements": [],
        }  # fmt: skip

    async def put(self):
        self.generation += 1
        await self.cluster.sled(self.which, "PUT", "/omicron-config", self.body())

    async def reconciled(self):
        """The inventory in which the last run has caught up."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                told = await self.cluster.sled(self.which, "GET", "/inventory")
                last = told["last_reconciliation"]
                if last is not None and last["last_reconciled_config"]["generation"] >= self.generation:
                    return told
                await asyncio.sleep(0.01)  # as Nexus: it looks again and again


async def collect(cluster, policy="in_service"):
    """One collection (SR 7.3): each sled of the database in turn; what cannot be had is an error of it."""
    found, errors = {}, {}
    for row in list(cluster.nexus.nexus.records.sleds.values()):
        if row.policy != policy:
            continue
        url = f"http://{cluster.daemon.addresses.get(row.id, '[::1]:9')}/inventory"
        try:
            async with cluster.http.get(url, headers=VERSIONED, timeout=aiohttp.ClientTimeout(60)) as answer:
                answer.raise_for_status()
                told = await answer.json()
        except aiohttp.ClientError as error:
            errors[row.id] = error
            continue
        assert told["sled_id"] not in found, "two answers with the same sled id are an error of the collection"
        found[told["sled_id"]] = told
    return found, errors


def ntp_zones(inventories):
    """Where NTP is asked: zones of what is ledgered and of what was reconciled, as the collector has it."""
    zones = {}
    for told in inventories.values():
        last = told["last_reconciliation"]
        for config in (told["ledgered_sled_config"], last and last["last_reconciled_config"]):
            for zone in (config or {"zones": {}})["zones"].values():
                if zone["zone_type"]["type"].endswith("_ntp"):
                    zones[zone["id"]] = zone["zone_type"]["address"]
    return zones


def rules(text):
    scenario, problems = parse_scenario("version: 1\nfleet: {sleds: 5}\nrules:\n" + text)
    assert scenario is not None, problems.text()
    return scenario


async def registered(cluster):
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(event.wait() for event in cluster.daemon.reporting.registered.values()))


# ---- 7.3, 7.4 ------------------------------------------------------------------------------------------------------


async def test_an_inventory_of_five_sleds_is_what_the_planner_reads_and_one_sick_sled_is_only_an_error_of_it():
    async with Cluster(5) as cluster:
        await registered(cluster)
        found, errors = await collect(cluster)
        assert (len(found), errors) == (5, {})
        for told in found.values():
            assert told["last_reconciliation"] is None, "the planner waits: NoLastReconciliation"
            assert told["reconciler_status"] == {"status": "not_yet_run"}
            assert told["file_source_resolver"]["mupdate_override"]["boot_override"] == {"ok": None}
            assert len(told["zpools"]) == len(told["disks"]) == 2
            row = cluster.nexus.nexus.records.sleds[uuid.UUID(told["sled_id"])]
            assert told["baseboard_id"]["serial_number"] == row.info.baseboard.serial
            assert told["usable_hardware_threads"] == row.info.usable_hardware_threads
        wanted = [Wanted(cluster, which, found[str(sled)]) for which, sled in enumerate(cluster.sleds)]
        zones = [each.zone("internal_ntp", each.pools[0]) for each in wanted[:3]]
        for each in wanted:
            await each.put()
        found, errors = await collect(cluster)
        assert set(ntp_zones(found)) == set(zones)

        cluster.daemon.load(
            rules("- {name: sick, for: {sled: sled-2}, when: {request: inventory}, do: {fail: 500}}\n"
                  "- {name: mute, for: {sled: sled-4}, when: {request: inventory}, do: {reset: true}}\n")
        )  # fmt: skip
        found, errors = await collect(cluster)
        assert set(errors) == {cluster.sleds[1], cluster.sleds[3]}
        assert set(found) == {str(cluster.sleds[which]) for which in (0, 2, 4)}
        cluster.daemon.load(rules("- {name: well, when: {manual: never}, do: {note: none}}\n"))
        assert (await collect(cluster))[1] == {}


async def test_a_config_goes_through_five_generations_and_inventory_is_never_ahead_of_it():
    bare = BareDisk(PhysicalDisk(uuid.uuid4(), "vendor", "model", "new-disk"), 2**39)
    hardware = Hardware(zpools=2, disks=(bare,))
    async with Cluster(1, hardware, sled_pacer=Fixed(RUN_US)) as cluster:
        wanted = Wanted(cluster, 0, await cluster.sled(0, "GET", "/inventory"))
        # 2: NTP goes first; nothing else is put on a sled before it runs
        ntp = wanted.zone("internal_ntp", wanted.pools[0])
        await wanted.put()
        told = await cluster.sled(0, "GET", "/inventory")
        assert told["ledgered_sled_config"]["generation"] == 2, "at once"
        assert (told["last_reconciliation"], told["reconciler_status"]["status"]) == (None, "running")
        told = await wanted.reconciled()
        assert told["last_reconciliation"]["zones"] == {ntp: {"result": "ok"}}

        # 3: Crucible on both pools, with debug and local storage
        crucible = {}
        for pool in wanted.pools:
            for kind in ("crucible", "debug", "local_storage_unencrypted"):
                wanted.dataset(kind, pool)
            crucible[pool] = wanted.zone("crucible", pool, dataset={"pool_name": f"oxp_{pool}"})
        await wanted.put()
        told = await cluster.sled(0, "GET", "/inventory")
        assert told["last_reconciliation"]["last_reconciled_config"]["generation"] == 2, "the old one, until it ends"
        told = await wanted.reconciled()
        assert {row["id"] for row in told["datasets"]} == set(wanted.datasets)
        assert set(told["last_reconciliation"]["zones"]) == {ntp, *crucible.values()}

        # 4: a disk is adopted with the pool id that Nexus chose
        adopted = wanted.adopt({"vendor": "vendor", "model": "model", "serial": "new-disk"}, str(uuid.uuid4()))
        await wanted.put()
        told = await wanted.reconciled()
        assert {row["id"]: row["total_size"] for row in told["zpools"]}[adopted["pool_id"]] == 2**39

        # 5: a disk is expunged with everything on it; what is on it may be cleaned up when its zone is not listed
        lost = wanted.pools[1]
        wanted.disks = {key: row for key, row in wanted.disks.items() if row["pool_id"] != lost}
        wanted.datasets = {
            key: row for key, row in wanted.datasets.items() if row["name"]["pool_name"] != f"oxp_{lost}"
        }
        del wanted.zones[crucible[lost]]
        await wanted.put()
        told = await cluster.sled(0, "GET", "/inventory")
        assert crucible[lost] in told["last_reconciliation"]["zones"], "still listed: not ready for cleanup"
        told = await wanted.reconciled()
        last = told["last_reconciliation"]
        assert crucible[lost] not in last["zones"]
        assert len(last["external_disks"]) == 2
        assert {row["name"].partition("/")[0] for row in told["datasets"]} == {f"oxp_{wanted.pools[0]}"}

        # 6: a disk that is not in the sled; only what lies on it goes wrong
        absent = wanted.adopt({"vendor": "vendor", "model": "model", "serial": "absent"}, str(uuid.uuid4()))
        dataset = wanted.dataset("debug", absent["pool_id"])
        await wanted.put()
        last = (await wanted.reconciled())["last_reconciliation"]
        bad = {key for part in ("external_disks", "datasets", "zones") for key, got in last[part].items()
               if got["result"] == "err"}  # fmt: skip
        assert bad == {absent["id"], dataset}

        # what Nexus repeats is no news, what is older or different is refused and changes nothing
        before = await cluster.sled(0, "GET", "/inventory")
        await cluster.sled(0, "PUT", "/omicron-config", wanted.body())
        for body in (wanted.body() | {"generation": 5}, wanted.body() | {"zones": {}}):
            await cluster.sled(0, "PUT", "/omicron-config", body, (400,))
        assert await cluster.sled(0, "GET", "/inventory") == before


async def _served(cluster, wanted, datasets):
    """Where the Crucible agents of these datasets are, when the sled listens for their zones and no others."""
    await wanted.put()
    await wanted.reconciled()
    beside = cluster.beside[cluster.sleds[wanted.which]].crucible
    async with asyncio.timeout(LIMIT_S):
        while set(datasets) != set(beside) - {dataset for dataset, _ in cluster.agents}:
            await asyncio.sleep(0.01)  # zones are listened for behind the answer
    return [beside[dataset] for dataset in datasets]


async def test_an_adopted_disk_gets_regions_from_the_agent_at_the_address_of_its_zone():
    bare = BareDisk(PhysicalDisk(uuid.uuid4(), "vendor", "model", "new-disk"), 2**39)
    async with Cluster(1, Hardware(zpools=1, disks=(bare,))) as cluster:
        wanted = Wanted(cluster, 0, await cluster.sled(0, "GET", "/inventory"))
        adopted = wanted.adopt({"vendor": "vendor", "model": "model", "serial": "new-disk"}, str(uuid.uuid4()))
        pool = adopted["pool_id"]
        dataset = uuid.UUID(wanted.dataset("crucible", pool))
        about = {"dataset": {"pool_name": f"oxp_{pool}"}}
        # no machine of documentation: what lies there goes unserved, and nothing else suffers
        unserved = wanted.zone("crucible_pantry", pool, address="[2001:db8::1]:17000")
        zone = wanted.zone("crucible", pool, address="[::1]:0", **about)
        (agent,) = await _served(cluster, wanted, [dataset])
        assert (await wanted.reconciled())["last_reconciliation"]["zones"][unserved] == {"result": "ok"}
        region = await cluster.create_region(agent, uuid.uuid4(), 1)
        assert region["state"] == "created"

        # what SR 8 can do to the sled's agents it can do to this one
        facts = f"{cluster.control}/sleds/{cluster.sleds[0]}/facts"
        await cluster.ask("POST", facts, {"set": {"crucible": {"born": "failed"}}})
        assert (await cluster.create_region(agent, uuid.uuid4(), 1))["state"] == "failed"
        await cluster.ask("POST", facts, {"set": {"regions": {"1": "failed"}}})
        told = await cluster.ask("GET", f"http://{agent}/crucible/0/regions/{region['id']}")
        assert told["state"] == "failed"

        # the zone goes: nobody is there; it comes back: its regions are there, with their ports
        del wanted.zones[zone]
        await _served(cluster, wanted, [])
        with pytest.raises(aiohttp.ClientConnectionError):
            await cluster.ask("GET", f"http://{agent}/crucible/0/regions")
        wanted.zone("crucible", pool, address="[::1]:0", **about)
        (agent,) = await _served(cluster, wanted, [dataset])
        listed = await cluster.ask("GET", f"http://{agent}/crucible/0/regions")
        assert (listed[0]["id"], listed[0]["port_number"]) == (region["id"], region["port_number"])


@pytest.fixture
def port():
    """Of an address that is not the sled's."""
    with a_port() as port:
        yield port


async def test_a_pantry_zone_of_a_configuration_is_the_pantry_of_its_sled(port):
    async with Cluster(1) as cluster:
        wanted = Wanted(cluster, 0, await cluster.sled(0, "GET", "/inventory"))
        address = f"[::1]:{port}"
        wanted.zone("crucible_pantry", wanted.pools[0], address=address)
        await wanted.put()
        disk = await cluster.make_disk(agents=[cluster.agents[0]])
        await disk.attach()
        async with asyncio.timeout(LIMIT_S):
            while True:
                with contextlib.suppress(aiohttp.ClientConnectionError):
                    told = await cluster.ask("GET", f"http://{address}/crucible/pantry/0")
                    break
                await asyncio.sleep(0.01)  # zones are listened for behind the answer
        assert told["volumes"] == [str(disk.id)]


async def test_a_zone_that_starts_while_the_daemon_ends_is_not_listened_for(port):
    late = (ZoneServer(f"[::1]:{port}", None),)
    async with Cluster(1) as cluster:
        beside = cluster.daemon.listening.companions[cluster.sleds[0]]
        await beside.serve_zones(late)
        socket.create_connection(("::1", port)).close()
    await beside.serve_zones(late)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", port))


# ---- 7.5, 7.7, 7.11 ------------------------------------------------------------------------------------------------


async def test_a_snapshot_of_a_detached_disk_goes_through_the_pantry():
    async with Cluster() as cluster:
        disk = await cluster.make_disk()
        await disk.attach()
        await disk.write(0, b"s" * BLOCK)
        await disk.detach()
        destination = [await cluster.create_region(address, uuid.uuid4(), 1) for _, address in cluster.agents]
        assert [region["state"] for region in destination] == ["created"] * 3
        snapshot = str(uuid.uuid4())
        await cluster.ask("POST", f"{disk.volume()}/snapshot", {"snapshot_id": snapshot}, (404,))
        await disk.attach()
        await cluster.ask("POST", f"{disk.volume()}/snapshot", {"snapshot_id": snapshot})
        await disk.detach()
        ports = await disk.run_snapshot(snapshot)
        everything = [port for *_, port in disk.regions] + [region["port_number"] for region in destination] + ports
        for which in range(3):
            of_one = everything[which::3]
            assert len(set(of_one)) == len(of_one), "one agent never gives a port twice"

        # the snapshot keeps its region from being deleted
        address, region, _ = disk.regions[0]
        await cluster.ask("DELETE", f"http://{address}/crucible/0/regions/{region}", status=(400,))
        await disk.delete_snapshot(snapshot)
        for (address, *_), region in zip(disk.regions, destination, strict=True):
            await cluster.ask("DELETE", f"http://{address}/crucible/0/regions/{region['id']}")
        await disk.delete()


async def _started(cluster, which, vmm):
    async with asyncio.timeout(LIMIT_S):
        while (await cluster.sled(which, "GET", f"/vmms/{vmm}/state"))["vmm_state"]["state"] != "running":
            await asyncio.sleep(0.01)


def _body_with(disk, local, addr):
    nvme = {"pci_path": {"bus": 0, "device": 16, "function": 0}, "serial_number": [0] * 20, "has_write_cache": True}
    second = nvme | {"pci_path": {"bus": 0, "device": 17, "function": 0}}
    path = f"/dev/zvol/rdsk/oxp_{local['zpool_id']}/local_storage_unencrypted/{local['dataset_id']}/vol"
    body = register_body(addr=addr)
    body["vmm_spec"]["components"] |= {
        "disk-0": {"type": "nvme_disk", "component": nvme | {"backend_id": str(disk.id)}},
        str(disk.id): {
            "type": "crucible_storage_backend",
            "component": {"readonly": False, "request_json": json.dumps(disk.request())},
        },
        "disk-1": {"type": "nvme_disk", "component": second | {"backend_id": local["dataset_id"]}},
        local["dataset_id"]: {
            "type": "file_storage_backend",
            "component": {"path": path, "readonly": False, "block_size": 4096, "workers": None},
        },
    }
    ids = {"zpool_id": local["zpool_id"], "dataset_id": local["dataset_id"]}
    body["local_config"]["delegated_zvols"] = [{"type": "local_storage_unencrypted", **ids}]
    return body


async def test_an_instance_starts_with_a_crucible_and_a_local_disk_and_a_region_is_replaced_while_it_runs():
    async with Cluster(propolis=PropolisMode.LOOPBACK) as cluster:
        wanted = Wanted(cluster, 2, await cluster.sled(2, "GET", "/inventory"))
        wanted.zone("internal_ntp", wanted.pools[0])
        await wanted.put()
        local = {
            "zpool_id": wanted.pools[0], "dataset_id": str(uuid.uuid4()), "dataset_size": 2**31,
            "volume_size": 2**30, "encrypted_at_rest": False,
        }  # fmt: skip
        refused = await cluster.sled(2, "POST", "/local-storage", local, (503,))
        assert f"dataset for pool {wanted.pools[0]} missing!" in refused["error_code"], (
            "the saga waits and asks again"
        )
        wanted.dataset("local_storage_unencrypted", wanted.pools[0])
        await wanted.put()
        await wanted.reconciled()
        for _ in range(2):  # a saga that goes on after a crash asks again
            await cluster.sled(2, "POST", "/local-storage", local)
        await cluster.sled(2, "POST", "/local-storage", local | {"volume_size": 2**20}, (500,))

        disk, vmm = await cluster.make_disk(), uuid.uuid4()
        body = _body_with(disk, local, "[::1]:0")
        assert (await cluster.sled(2, "PUT", f"/vmms/{vmm}", body))["vmm_state"]["state"] == "starting"
        await cluster.sled(2, "PUT", f"/vmms/{vmm}/state", {"state": {"type": "running"}})
        await _started(cluster, 2, vmm)
        assert f"oxz_propolis-server_{vmm}" in await cluster.sled(2, "GET", "/zones")

        snapshot = str(uuid.uuid4())
        asked = f"/vmms/{vmm}/disks/{disk.id}/snapshot"
        assert await cluster.sled(2, "POST", asked, {"snapshot_id": snapshot}) == {"snapshot_id": snapshot}
        await disk.run_snapshot(snapshot)
        await disk.delete_snapshot(snapshot)

        # 7.11: one region on another dataset of the first sled, and the request to the running upstairs
        (_, spare), *_ = list(cluster.beside[cluster.sleds[0]].crucible.items())[1:]
        new = await cluster.create_region(spare, uuid.uuid4(), 1)
        old, disk.regions[0] = disk.regions[0], (spare, new["id"], new["port_number"])
        at = cluster.daemon.propolis.address_of(cluster.sleds[2], vmm)
        replace = f"http://{at}/instance/disk/{disk.id}/vcr"
        answers = []
        for _ in range(2):  # each time with a generation one higher
            request = {"vcr_json": json.dumps(disk.request())}
            answers.append(await cluster.ask("PUT", replace, request, (200,), **{"api-version": "5.0.0"}))
        assert answers == ["started", "vcr_matches"], "polled until the upstairs has it"
        status = await cluster.ask(
            "GET", f"http://{at}/instance/disk/{disk.id}/status", None, (200,), **{"api-version": "5.0.0"}
        )
        (upstairs,) = status["volume_info"]["volume"]["sub_volumes"]
        assert upstairs["upstairs"]["state"] == "active", "not degraded: that ends the replacement"
        address, region, _ = old
        await cluster.ask("DELETE", f"http://{address}/crucible/0/regions/{region}")

        await cluster.sled(2, "PUT", f"/vmms/{vmm}/state", {"state": {"type": "stopped"}})
        async with asyncio.timeout(LIMIT_S):
            while f"oxz_propolis-server_{vmm}" in await cluster.sled(2, "GET", "/zones"):
                await asyncio.sleep(0.01)  # until Nexus has acknowledged the end and the sled forgets it
        await disk.delete()
        gone = {key: local[key] for key in ("zpool_id", "dataset_id", "encrypted_at_rest")}
        for _ in range(2):
            await cluster.sled(2, "DELETE", "/local-storage", gone)


# ---- 7.8 -----------------------------------------------------------------------------------------------------------

QUERIES = (
    "zoneadm-info", "dladm-info", "ipadm-info", "nvmeadm-info", "pargs-info", "pfiles-info", "pstack-info",
    "zfs-info", "zpool-info", "health-check",
)  # fmt: skip


async def test_a_bundle_is_collected_from_all_sleds_stored_on_one_and_downloaded_by_ranges():
    async with Cluster() as cluster:
        wanted = Wanted(cluster, 1, await cluster.sled(1, "GET", "/inventory"))
        debug = wanted.dataset("debug", wanted.pools[0])
        wanted.zone("internal_ntp", wanted.pools[0])
        await wanted.put()
        await wanted.reconciled()
        packed, members = io.BytesIO(), {}
        for which, sled in enumerate(cluster.sleds):
            folder = f"sled_{sled}"
            for query in QUERIES:
                told = await cluster.sled(which, "GET", f"/support/{query}")
                for number, each in enumerate(told if isinstance(told, list) else [told]):
                    members[f"{folder}/{query}_{number}"] = json.dumps(each).encode()
            zones = await cluster.sled(which, "GET", "/support/logs/zones")
            for zone in zones:
                logs = await cluster.sled(which, "GET", f"/support/logs/download/{zone}?max_rotated=5")
                with zipfile.ZipFile(io.BytesIO(logs)) as there:
                    for name in there.namelist():
                        members[f"{folder}/logs/{zone}/{name}"] = there.read(name)
        assert any("oxz_ntp_" in text.decode(errors="replace") for text in members.values())
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, text in members.items():
                zipped.writestr(name, text)
        data = packed.getvalue()

        path = f"/support-bundles/{wanted.pools[0]}/{debug}"
        bundle = f"{path}/{uuid.uuid4()}"
        started = await cluster.sled(1, "POST", bundle, None, (201,))
        assert started["state"] == "incomplete"
        url = f"http://{cluster.daemon.addresses[cluster.sleds[1]]}"
        chunk = len(data) // 3 + 1
        for at in range(0, len(data), chunk):
            piece = io.BytesIO(data[at : at + chunk])
            put = f"{url}{bundle}/transfer?offset={at}"
            async with cluster.http.put(put, data=piece, headers=VERSIONED) as answer:
                assert (answer.status, (await answer.json())["state"]) == (201, "incomplete")
        await cluster.sled(1, "POST", f"{bundle}/finalize?hash={'0' * 64}", None, (400,))
        digest = hashlib.sha256(data).hexdigest()
        done = await cluster.sled(1, "POST", f"{bundle}/finalize?hash={digest}", None, (201,))
        assert done["state"] == "complete"
        async with cluster.http.head(f"{url}{bundle}/download", headers=VERSIONED) as head:
            assert head.headers["content-length"] == str(len(data))
        got = b""
        while len(got) < len(data):  # as `oxide bundle download` goes on after a broken connection
            ranged = VERSIONED | {"range": f"bytes={len(got)}-{len(got) + chunk - 1}"}
            async with cluster.http.get(f"{url}{bundle}/download", headers=ranged) as answer:
                assert answer.status == 206
                got += await answer.read()
        assert got == data
        index = (await cluster.sled(1, "GET", f"{bundle}/index")).decode().split("\n")
        assert index == list(members)
        name = index[0].replace("/", "%2F")
        # a member's name is one encoded segment
        async with cluster.http.get(URL(f"{url}{bundle}/download/{name}", encoded=True), headers=VERSIONED) as answer:
            assert await answer.read() == members[index[0]]
        await cluster.sled(1, "DELETE", bundle)
        refused = await cluster.sled(1, "DELETE", bundle, None, (404,))
        assert "Nested dataset not found" in refused["error_code"], "that alone Nexus takes for gone"

        # the dataset leaves: what was in it goes along
        await cluster.sled(1, "POST", bundle, None, (201,))
        del wanted.datasets[debug]
        await wanted.put()
        await cluster.sled(1, "GET", path, None, (404,))


# ---- 7.9 -----------------------------------------------------------------------------------------------------------


async def replicate(cluster, generation, artifacts, sleds):
    """One round of the replication task (SR 4.2). `artifacts`: what Nexus has itself, by hash."""
    listed, has = {"generation": generation, "artifacts": sorted(artifacts)}, {}
    for which in sleds:
        await cluster.sled(which, "PUT", "/artifacts-config", listed)
        told = await cluster.sled(which, "GET", "/artifacts")
        assert told["generation"] == generation
        has[which] = told["list"]
    calls = []
    for sha256, data in artifacts.items():
        copies = [which for which in sleds if has[which].get(sha256) == 2]
        for which in sleds:
            if which in copies:
                continue
            url = f"http://{cluster.daemon.addresses[cluster.sleds[which]]}/artifacts/{sha256}"
            if len(copies) < 3:
                put = f"{url}?generation={generation}"
                async with cluster.http.put(put, data=io.BytesIO(data), headers=VERSIONED) as answer:
                    assert (await answer.json()) == {"datasets": 2, "successful_writes": 2}
                copies.append(which)
                calls.append("put")
            else:
                depot = cluster.beside[cluster.sleds[copies[0]]].repo_depot
                await cluster.sled(
                    which, "POST", f"/artifacts/{sha256}/copy-from-depot?generation={generation}",
                    {"depot_base_url": f"http://{depot}"},
                )  # fmt: skip
                calls.append("copy")
    return calls


async def test_artifacts_are_put_to_three_sleds_and_copied_by_the_others():
    blobs = [f"artifact {number}".encode() * 50_000 for number in range(2)]
    artifacts = {hashlib.sha256(blob).hexdigest(): blob for blob in blobs}
    async with Cluster(5) as cluster:
        calls = await replicate(cluster, 1, artifacts, range(3))
        assert calls == ["put"] * 6, "three sleds have everything from Nexus itself"
        assert sorted(await replicate(cluster, 1, artifacts, range(5))) == ["copy"] * 4
        async with asyncio.timeout(LIMIT_S):
            while await replicate(cluster, 1, artifacts, range(5)):
                await asyncio.sleep(0.01)  # copies go on behind their answers; the task comes again
        # another generation without the first: it goes everywhere, and nobody can write by the old one
        first, second = artifacts
        assert await replicate(cluster, 2, {second: artifacts[second]}, range(5)) == []
        for which in range(5):
            assert await cluster.sled(which, "GET", "/artifacts") == {"generation": 2, "list": {second: 2}}
        got = f"http://{cluster.beside[cluster.sleds[4]].repo_depot}/artifact/sha256/"
        async with cluster.http.get(got + second, headers={"api-version": "1.0.0"}) as answer:
            assert await answer.read() == artifacts[second]
        await cluster.ask("GET", got + first, None, (404,), **{"api-version": "1.0.0"})
        stale = {"generation": 1, "artifacts": sorted(artifacts)}
        refused = await cluster.sled(0, "PUT", "/artifacts-config", stale, (409,))
        assert refused["error_code"] == "CONFIG_GENERATION", "which ends the round"


# ---- 7.1, 7.2 ------------------------------------------------------------------------------------------------------


async def quorum(cluster, epoch, members, coordinator=0):
    """A trust quorum configuration from its wish to its last commit."""
    boards = [(await cluster.sled(which, "GET", "/inventory"))["baseboard_id"] for which in members]
    wish = {
        "rack_id": RACK, "epoch": epoch, "last_committed_epoch": epoch - 1 or None, "members": boards,
        "threshold": len(members) // 2 + 1,
    }  # fmt: skip
    await cluster.sled(coordinator, "POST", "/trust-quorum/configuration", wish)
    async with asyncio.timeout(LIMIT_S):
        while True:
            told = await cluster.sled(coordinator, "GET", "/trust-quorum/coordinator-status")
            if len(told["acked_prepares"]) == len(members):
                break
            await asyncio.sleep(0.01)  # the task of Nexus comes every 60 s
    for which in members:
        for _ in range(2):  # a commit may be told again
            await cluster.sled(which, "PUT", "/trust-quorum/commit", {"rack_id": RACK, "epoch": epoch})
        state = (await cluster.sled(which, "GET", "/trust-quorum/status"))["persistent_state"]
        assert epoch in state["commits"]


async def set_sled(cluster, sled, **change):
    await cluster.nexus.host.submit(lambda ticket: nx.SetSled(ticket, sled, **change))


async def test_a_sled_is_added_to_a_rack_and_expunged_again_after_which_nobody_calls_it():
    async with Cluster(3, propolis=PropolisMode.LOOPBACK) as cluster:
        await registered(cluster)
        await quorum(cluster, 1, range(3))
        # (2) to (6): the new one is known to its coordinator, acknowledges, and registers itself
        new = SledConfig(uuid.UUID(int=4), "[::1]:0", hardware=Hardware(zpools=2))
        await cluster.daemon.join(new, "sled-4")
        cluster.sleds.append(new.sled_id)
        await quorum(cluster, 2, range(4))
        board = (await cluster.sled(3, "GET", "/inventory"))["baseboard_id"]
        start = {"id": str(new.sled_id), "rack_id": RACK, "use_trust_quorum": True, "is_lrtq_learner": True,
                 "subnet": {"net": "fd00:1122:3344:104::/64"}}  # fmt: skip
        await cluster.sled(0, "PUT", "/sleds", {
            "sled_id": board,
            "start_request": {"generation": 0, "schema_version": 1, "body": start},
        })  # fmt: skip
        await registered(cluster)
        # (7): NTP first, and when it runs the rest
        found, errors = await collect(cluster)
        assert (len(found), errors) == (4, {})
        wanted = Wanted(cluster, 3, found[str(new.sled_id)])
        ntp = wanted.zone("internal_ntp", wanted.pools[0])
        await wanted.put()
        assert (await wanted.reconciled())["last_reconciliation"]["zones"][ntp] == {"result": "ok"}
        for pool in wanted.pools:
            wanted.dataset("crucible", pool)
            wanted.zone("crucible", pool, dataset={"pool_name": f"oxp_{pool}"})
        await wanted.put()
        assert len((await wanted.reconciled())["last_reconciliation"]["zones"]) == 3
        disk = Disk(cluster, uuid.uuid4(), 1)
        address = next(iter(cluster.daemon.listening.companion_addresses()[new.sled_id].crucible.values()))
        region = await cluster.create_region(address, disk.id, 1)
        assert region["state"] == "created"

        # an instance runs on it when it is expunged
        other = [sled for sled in cluster.sleds if sled != new.sled_id]
        for sled in other:
            await set_sled(cluster, sled, policy="expunged")  # for a moment: so that it is put there
        made = await cluster.nexus.host.submit(
            lambda ticket: nx.CreateInstance(ticket, "doomed", "doomed", 1, 2**30, True)
        )
        doomed = made.body["id"]
        async with asyncio.timeout(LIMIT_S):
            while cluster.nexus.nexus.public_state(doomed).value != "running":
                await asyncio.sleep(0.01)
        for sled in other:
            await set_sled(cluster, sled, policy="in_service")

        # a quorum without it, then the policy; from now on nobody calls it, and its VMM is given up without a word
        await quorum(cluster, 3, range(3))
        asked = []
        cluster.daemon.load(rules("- {name: seen, for: {sled: sled-4}, when: {request: '*'}, do: {note: called}}\n"))
        cluster.daemon.tellers.append(lambda kind, _who, sled, _text: asked.append((kind, sled)))
        await set_sled(cluster, new.sled_id, policy="expunged")
        await cluster.nexus.host.submit(lambda ticket: nx.RunTask(ticket, nx.Task.WATCHER))
        async with asyncio.timeout(LIMIT_S):
            while cluster.nexus.nexus.public_state(doomed).value == "running":
                await asyncio.sleep(0.01)
        found, errors = await collect(cluster)
        assert str(new.sled_id) not in found
        assert asked == []
        with pytest.raises(AssertionError, match="500"):
            await quorum(cluster, 4, range(4), coordinator=3)  # it was expunged from the quorum, too
