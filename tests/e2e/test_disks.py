"""What Nexus does with disks, over sockets, against the servers beside three sleds (SR 7.5, 7.6, 7.9, 7.11)."""

import asyncio
import hashlib
import json
import uuid

import aiohttp
import pytest
from support.daemon.cluster import BLOCK, CHUNK, EXTENT, LIMIT_S, Cluster
from support.rows import in_one_test
from support.wire.register_body import register_body

from nexus_client.dropshot.text import SocketAddress
from sim_sled.companions.servers import Ports
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options


@pytest.fixture(name="cluster")
async def _cluster():
    async with Cluster() as cluster:
        yield cluster


async def test_a_blank_disk_is_made_and_deleted_and_its_ports_are_free_again(cluster):
    first = await cluster.make_disk()
    await first.delete()
    second = await cluster.make_disk()
    assert [port for *_, port in second.regions] == [port for *_, port in first.regions]
    assert len({port for *_, port in second.regions}) == 3


@pytest.mark.parametrize(
    "every", [pytest.param(11, id="some of it"), pytest.param(1, id="all of it", marks=pytest.mark.long)]
)
async def test_an_image_of_64_mib_is_imported_by_bulk_writes_and_has_the_right_hash(cluster, every):
    """What is not written is blank."""
    disk = await cluster.make_disk()
    await disk.attach()
    pattern = hashlib.sha256(b"image").digest() * (CHUNK // 32)
    chunks = [bytes(CHUNK)] * 128
    for number in range(0, 128, every):
        chunks[number] = pattern[number:] + pattern[:number]
    turns = asyncio.Semaphore(8)

    async def write(number):
        async with turns:
            await disk.write(number * CHUNK, chunks[number])

    await asyncio.gather(
        *(write(number) for number in reversed(range(0, 128, every)))
    )  # any order, several at a time
    digest = hashlib.sha256(b"".join(chunks)).hexdigest()
    for expected, ok in ((digest, True), ("00" * 32, False)):
        job = await cluster.ask("POST", f"{disk.volume()}/validate", {"expected_digest": {"sha256": expected}})
        assert await disk.job(job["job_id"]) is ok
    snapshot = uuid.uuid4()
    await cluster.ask("POST", f"{disk.volume()}/snapshot", {"snapshot_id": str(snapshot)})
    await disk.detach()
    ports = await disk.run_snapshot(snapshot)

    # a disk of the image: blank regions over the snapshot
    copy = await cluster.make_disk()
    opts = {"id": str(uuid.uuid4()), "target": [f"[::1]:{port}" for port in ports], "lossy": False, "read_only": True}
    below = {
        "type": "region", "block_size": BLOCK, "blocks_per_extent": EXTENT, "extent_count": 1, "gen": 1, "opts": opts,
    }  # fmt: skip
    copy.parent = {"type": "volume", "id": str(uuid.uuid4()), "block_size": BLOCK, "sub_volumes": [below]}
    await copy.attach()
    await copy.write(BLOCK, b"n" * BLOCK)
    assert await copy.read(0, 3 * BLOCK) == chunks[0][:BLOCK] + b"n" * BLOCK + chunks[0][2 * BLOCK : 3 * BLOCK]
    assert await copy.read(77 * CHUNK, CHUNK) == chunks[77]
    await copy.detach()
    await copy.delete()
    await disk.delete_snapshot(snapshot)
    await disk.delete()


async def test_a_snapshot_of_an_attached_disk_has_what_was_there_and_a_vm_that_writes_tells_of_repairs(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    await disk.write(0, b"before".ljust(BLOCK, b"."))
    await disk.detach()
    vmm = uuid.uuid4()
    body = register_body()
    body["vmm_spec"]["components"] |= {
        "disk": {
            "type": "nvme_disk",
            "component": {
                "backend_id": str(disk.id),
                "pci_path": {"bus": 0, "device": 16, "function": 0},
                "serial_number": [0] * 20,
                "has_write_cache": True,
            },
        },
        str(disk.id): {
            "type": "crucible_storage_backend",
            "component": {"readonly": False, "request_json": json.dumps(disk.request())},
        },
    }
    api = f"http://{cluster.daemon.addresses[cluster.sleds[2]]}/vmms/{vmm}"
    await cluster.ask("PUT", api, body, **{"api-version": "48.0.0"})
    snapshot = uuid.uuid4()
    asked = f"{api}/disks/{disk.id}/snapshot"
    for _ in range(2):
        told = await cluster.ask("POST", asked, {"snapshot_id": str(snapshot)}, **{"api-version": "48.0.0"})
        assert told == {"snapshot_id": str(snapshot)}
    ports = await disk.run_snapshot(snapshot)
    assert len(set(ports)) == 3

    (dataset, _), region = cluster.agents[0], disk.regions[0][1]
    fault = f"{cluster.control}/sleds/{cluster.sleds[0]}/companions"
    await cluster.ask("POST", fault, {"break": region, "dataset_id": str(dataset), "aborted": True})
    records = cluster.nexus.host.upstairs.records
    async with asyncio.timeout(LIMIT_S):
        while len(records) < 4:
            await asyncio.sleep(0.01)  # until Nexus has heard all of it; it has no event for that
    assert (records[-1].upstairs_id, records[-1].body.aborted) == (disk.id, True)
    # a snapshot of a disk with a broken region fails the saga; what was made before it stays
    await cluster.ask("POST", asked, {"snapshot_id": str(uuid.uuid4())}, (500,), **{"api-version": "48.0.0"})


async def test_regions_outlive_the_daemon_with_their_ports(tmp_path):
    sled, region = uuid.UUID(int=1), uuid.uuid4()
    ports = []
    for _ in range(2):
        config = SledConfig(sled, "[::1]:0", hardware=Hardware(zpools=1))
        options = Options(
            nexus="[::1]:1", companions=Ports(), register=False, shutdown_wait_s=0.1, state_dir=tmp_path
        )
        daemon = Daemon([config], options)
        await daemon.start()
        try:
            (address,) = daemon.listening.companion_addresses()[sled].crucible.values()
            body = {
                "id": str(region),
                "block_size": BLOCK,
                "extent_size": EXTENT,
                "extent_count": 1,
                "encrypted": True,
            }
            async with (
                aiohttp.ClientSession() as http,
                http.post(f"http://{address}/crucible/0/regions", json=body) as answer,
            ):
                ports.append((await answer.json())["port_number"])
                if len(ports) == 1:
                    spare = body | {"id": str(uuid.uuid4())}
                    (await http.post(f"http://{address}/crucible/0/regions", json=spare)).release()
                async with http.get(f"http://{address}/crucible/0/regions") as listed:
                    assert len(await listed.json()) == 2
        finally:
            await daemon.stop()
    assert ports == [1000, 1000]


async def test_an_image_is_imported_from_a_url(cluster):
    data = bytes(range(256)) * 5000  # no whole number of chunks

    async def serve(request):
        return aiohttp.web.Response(body=data) if request.method == "HEAD" else _ranged(request, data)

    app = aiohttp.web.Application()
    app.router.add_route("*", "/image", serve)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "::1", 0).start()
    url = f"http://[::1]:{runner.addresses[0][1]}/image"
    try:
        disk = await cluster.make_disk()
        await disk.attach()
        for body, ok in (
            ({"url": url, "expected_digest": {"sha256": hashlib.sha256(data).hexdigest()}}, True),
            ({"url": url, "expected_digest": {"sha256": "00" * 32}}, False),
            ({"url": url.replace("image", "nothing")}, False),
            ({"url": "http://192.0.2.1/image"}, False),
        ):
            job = await cluster.ask("POST", f"{disk.volume()}/import-from-url", body)
            assert await disk.job(job["job_id"]) is ok, body
        assert await disk.read(0, BLOCK) == data[:BLOCK]
        last = len(data) // BLOCK * BLOCK
        assert await disk.read(last, BLOCK) == data[last:].ljust(BLOCK, b"\0")
    finally:
        await runner.cleanup()


def _ranged(request, data):
    first, last = request.headers["range"].removeprefix("bytes=").split("-")
    return aiohttp.web.Response(status=206, body=data[int(first) : int(last) + 1])


async def test_a_region_is_replaced_in_a_detached_disk_and_the_new_one_has_the_bytes(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    await disk.write(0, b"x" * BLOCK)
    await disk.detach()
    (_, spare), *_ = list(cluster.beside[cluster.sleds[0]].crucible.items())[1:]
    new = await cluster.create_region(spare, uuid.uuid4(), 1)
    gone, disk.regions[0] = disk.regions[0], (spare, new["id"], new["port_number"])
    await cluster.ask("GET", disk.volume(), status=(404,))
    job = str(uuid.uuid4())
    body = {"volume_construction_request": disk.request(), "job_id": job}
    await cluster.ask("POST", f"{disk.volume()}/background", body)
    assert await disk.job(job)
    assert (await cluster.ask("GET", disk.volume()))["seen_active"]
    await disk.detach()
    address, region, _ = gone
    await cluster.ask("DELETE", f"http://{address}/crucible/0/regions/{region}")
    disk.regions = [disk.regions[0]] * 3  # only the new region is asked
    await disk.attach()
    assert await disk.read(0, BLOCK) == b"x" * BLOCK


async def test_a_read_only_copy_of_a_running_snapshot_takes_its_place(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    await disk.write(0, b"s" * BLOCK)
    snapshot = uuid.uuid4()
    await cluster.ask("POST", f"{disk.volume()}/snapshot", {"snapshot_id": str(snapshot)})
    ports = await disk.run_snapshot(snapshot)
    (_, spare), *_ = list(cluster.beside[cluster.sleds[0]].crucible.items())[1:]
    clone = await cluster.create_region(spare, uuid.uuid4(), 1, source=f"[::1]:{ports[0]}")
    assert (clone["state"], clone["read_only"]) == ("created", True)
    before = disk.request()
    await disk.detach()
    await cluster.ask("POST", disk.volume(), {"volume_construction_request": before})
    after = {**before, "sub_volumes": [dict(before["sub_volumes"][0])]}
    targets = [f"[::1]:{clone['port_number']}", *before["sub_volumes"][0]["opts"]["target"][1:]]
    after["sub_volumes"][0]["opts"] = before["sub_volumes"][0]["opts"] | {"target": targets}
    answers = [
        await cluster.ask("POST", f"{disk.volume()}/replace", {"volume_construction_request": after})
        for _ in range(2)
    ]
    assert answers == ["started", "completed_already"]


async def test_an_artifact_spreads_over_three_sleds_and_a_broken_depot_is_noticed(cluster):
    data = b"artifact" * 100_000
    sha256 = hashlib.sha256(data).hexdigest()
    apis = [f"http://{cluster.daemon.addresses[sled]}" for sled in cluster.sleds]
    versioned = {"api-version": "48.0.0"}
    for api in apis:
        await cluster.ask("PUT", f"{api}/artifacts-config", {"generation": 1, "artifacts": [sha256]}, **versioned)
    async with cluster.http.put(f"{apis[0]}/artifacts/{sha256}?generation=1", data=data, headers=versioned) as put:
        assert put.status == 200
    depot = cluster.beside[cluster.sleds[0]].repo_depot
    copy = {"depot_base_url": f"http://{depot}"}
    fault = f"{cluster.control}/sleds/{cluster.sleds[0]}/companions"
    await cluster.ask("POST", fault, {"set": {"broken": True}, "server": "repo-depot"})
    url = "/artifacts/{}/copy-from-depot?generation=1"
    await cluster.ask("POST", apis[1] + url.format(sha256), copy, (500,), **versioned)
    await cluster.ask("POST", fault, {"set": {"broken": False}, "server": "repo-depot"})
    for api in apis[1:]:
        await cluster.ask("POST", api + url.format(sha256), copy, (202,), **versioned)
        async with asyncio.timeout(LIMIT_S):
            while sha256 not in (await cluster.ask("GET", f"{api}/artifacts", **versioned))["list"]:
                await asyncio.sleep(0.01)
    for sled in cluster.sleds:
        got = f"http://{cluster.beside[sled].repo_depot}/artifact/sha256/{sha256}"
        async with cluster.http.get(got, headers={"api-version": "1.0.0"}) as answer:
            assert (answer.status, "content-length" in answer.headers) == (200, False)
            assert await answer.read() == data


async def test_nexus_hears_of_a_broken_downstairs_from_the_upstairs(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    (dataset, _), region = cluster.agents[1], disk.regions[1][1]
    fault = f"{cluster.control}/sleds/{cluster.sleds[1]}/companions"
    await cluster.ask("POST", fault, {"break": region, "dataset_id": str(dataset), "repair_us": 1000})
    records = cluster.nexus.host.upstairs.records
    async with asyncio.timeout(LIMIT_S):
        while len(records) < 4:
            await asyncio.sleep(0.01)  # until Nexus has heard all of it; it has no event for that
    assert [told.kind for told in records] == ["stopped", "repair-start", "progress", "repair-finish"]
    assert {told.upstairs_id for told in records} == {disk.id}


async def test_faults_are_shown_and_nonsense_is_refused(cluster):
    url = f"{cluster.control}/sleds/{cluster.sleds[0]}/companions"
    dataset = str(cluster.agents[0][0])
    await cluster.ask("POST", url, {"refuse": "region_create", "status": 500, "times": 2, "dataset_id": dataset})
    shown = await cluster.ask("GET", url)
    assert shown["refusals"] == [{"op": "region_create", "status": 500, "times": 2, "dataset": dataset}]
    assert shown["knobs"]["pantry"]["activates"] is True
    assert SocketAddress.parse(shown["pantry"]).port > 0
    for nonsense in ([], {}, {"refuse": 1}, {"set": {}, "server": "dns", "more": 1}, {"region": "x"}, {"break": 1}):
        await cluster.ask("POST", url, nonsense, (400,))
    await cluster.ask("POST", url, {"set": {"nothing": 1}, "server": "dns"}, (409,))
    for who in (uuid.uuid4(), "x"):
        await cluster.ask("GET", f"{cluster.control}/sleds/{who}/companions", None, (400, 404))


@in_one_test(
    ("version", "status"), [(None, 200), ("1.0.0", 200), ("0.9.0", 400), ("1.0.1", 400), ("2.0.0", 400), ("one", 400)]
)
async def test_a_crucible_agent_serves_its_one_version_and_who_names_none(cluster, version, status):
    (agent, *_) = cluster.daemon.listening.companions[cluster.sleds[0]].addresses.crucible.values()
    headers = {} if version is None else {"api-version": version}
    told = await cluster.ask("GET", f"http://{agent}/crucible/0/regions", None, (status,), **headers)
    assert told == [] or "version" in told["message"]
