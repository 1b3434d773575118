"""`set` on a live daemon: facts of a sled that no task of Nexus's meets, each met by a call over sockets (SR 8)."""

import asyncio
import io
import uuid

import aiohttp
import pytest
from support.daemon.cluster import LIMIT_S, VERSIONED, Cluster
from support.rack.estate import an_id

from nexus_client.dropshot.answers import Refused
from sim_sled.core.bootstore.store import FIRST
from sim_sled.core.errors import BadRequest
from sim_sled.daemon.sled_facts import set_facts
from sim_sled.language.check import parse_scenario


def rules(fact):
    text = (
        f"version: 1\nrules: [{{name: ours, for: {{sled: sled-1}}, when: {{manual: go}}, do: {{set: {{{fact}}}}}}}]\n"
    )
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return scenario


@pytest.fixture(name="cluster")
async def _cluster():
    async with Cluster() as cluster:
        yield cluster


def turn(cluster, fact):
    cluster.daemon.load(rules(fact))
    assert cluster.daemon.fire("go")


async def test_a_person_says_facts_in_the_words_of_a_rule(cluster):
    sled = cluster.sleds[0]
    await set_facts(cluster.daemon, sled, {"pools": {"1": "faulted"}, "pool_sizes": {"1": "3GiB"}})
    told = await cluster.sled(0, "GET", "/inventory")
    assert told["zpools"][0] == {"id": told["zpools"][0]["id"], "total_size": 3 * 2**30, "health": "faulted"}
    for said, why in (
        ({"pools": {"1": "unwell"}}, "no health 'unwell'"),
        ({"pool": {}}, "unknown key 'pool' .did you mean 'pools'"),
        ({}, "names no fact"),
    ):
        with pytest.raises(Refused, match=why):
            await set_facts(cluster.daemon, sled, said)
    with pytest.raises(BadRequest, match="none with the number 9"):
        await set_facts(cluster.daemon, sled, {"pools": {"1": "online", "9": "online"}})
    with pytest.raises(Refused, match="no sled"):
        await set_facts(cluster.daemon, uuid.uuid4(), {"fmd": "silent"})
    assert (await cluster.sled(0, "GET", "/inventory"))["zpools"][0]["health"] == "faulted", "nothing was set"


async def test_local_storage_fails_so_often(cluster):
    told = await cluster.sled(0, "GET", "/inventory")
    body = {
        "zpool_id": told["zpools"][0]["id"], "dataset_id": an_id(1), "dataset_size": 2**31, "volume_size": 2**30,
        "encrypted_at_rest": False,
    }  # fmt: skip
    turn(cluster, "local_storage_errors: 2")
    for status in (503, 503, 204):
        await cluster.sled(0, "POST", "/local-storage", body, (status,))


async def test_a_bootstore_refuses_what_is_not_newer(cluster):
    body = {"generation": 3, "body": dict(FIRST.body)}
    await cluster.sled(0, "PUT", "/network-bootstore-config", body)
    await cluster.sled(0, "PUT", "/network-bootstore-config", body)  # as the existing simulator: any is taken
    turn(cluster, "bootstore_strict: true")
    await cluster.sled(0, "PUT", "/network-bootstore-config", body, (500,))
    await cluster.sled(0, "PUT", "/network-bootstore-config", body | {"generation": 4})


async def test_a_member_never_acknowledges(cluster):
    boards = [(await cluster.sled(which, "GET", "/inventory"))["baseboard_id"] for which in range(3)]
    turn(cluster, "trust_quorum_silent: true")
    wish = {
        "rack_id": str(uuid.uuid4()), "epoch": 1, "last_committed_epoch": None, "members": boards, "threshold": 2,
    }  # fmt: skip
    await cluster.sled(1, "POST", "/trust-quorum/configuration", wish)
    told = await cluster.sled(1, "GET", "/trust-quorum/coordinator-status")
    assert len(told["acked_prepares"]) == 2


async def test_a_commit_stays_pending(cluster):
    boards = [(await cluster.sled(which, "GET", "/inventory"))["baseboard_id"] for which in range(3)]
    rack = str(uuid.uuid4())
    wish = {"rack_id": rack, "epoch": 1, "last_committed_epoch": None, "members": boards, "threshold": 2}
    await cluster.sled(1, "POST", "/trust-quorum/configuration", wish)
    config = (await cluster.sled(1, "GET", "/trust-quorum/coordinator-status"))["config"]
    turn(cluster, "trust_quorum_pending: true")
    await cluster.sled(0, "PUT", "/trust-quorum/commit", {"rack_id": rack, "epoch": 1}, (500,))
    prepared = {"config": config}
    assert await cluster.sled(0, "PUT", "/trust-quorum/prepare-and-commit", prepared) == "pending"
    await cluster.sled(2, "PUT", "/trust-quorum/commit", {"rack_id": rack, "epoch": 1})
    turn(cluster, "trust_quorum_pending: false")
    assert await cluster.sled(0, "PUT", "/trust-quorum/prepare-and-commit", prepared) == "committed"


async def test_a_configuration_with_artifacts_that_are_not_there_is_refused(cluster):
    slots = {"slot_a": {"type": "artifact", "hash": "ab" * 32}, "slot_b": {"type": "current_contents"}}
    config = {
        "generation": 2, "disks": {}, "datasets": {}, "zones": {}, "remove_mupdate_override": None,
        "host_phase_2": slots, "measurements": [],
    }  # fmt: skip
    turn(cluster, "strict_artifacts: true")
    told = await cluster.sled(0, "PUT", "/omicron-config", config, (400,))
    assert told["message"].startswith("sled config is invalid: ")
    turn(cluster, "strict_artifacts: false")
    await cluster.sled(0, "PUT", "/omicron-config", config)


async def test_a_bundle_has_another_hash(cluster):
    pool = (await cluster.sled(0, "GET", "/inventory"))["zpools"][0]["id"]
    dataset = {
        "id": an_id(2), "name": {"pool_name": f"oxp_{pool}", "kind": "debug"}, "compression": {"type": "off"},
        "quota": None, "reservation": None,
    }  # fmt: skip
    slot = {"type": "current_contents"}
    await cluster.sled(0, "PUT", "/omicron-config", {
        "generation": 2, "disks": {}, "datasets": {an_id(2): dataset}, "zones": {}, "remove_mupdate_override": None,
        "host_phase_2": {"slot_a": slot, "slot_b": slot}, "measurements": [],
    })  # fmt: skip
    turn(cluster, "hash_mismatches: 1")
    bundle = f"/support-bundles/{pool}/{an_id(2)}/{an_id(3)}"
    await cluster.sled(0, "POST", bundle, None, (201,))
    url = f"http://{cluster.daemon.addresses[cluster.sleds[0]]}{bundle}/transfer?offset=0"
    async with cluster.http.put(url, data=io.BytesIO(b""), headers=VERSIONED) as answer:
        assert answer.status == 201
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for status in (400, 201):
        await cluster.sled(0, "POST", f"{bundle}/finalize?hash={empty}", None, (status,))


async def test_jobs_of_a_pantry_fail_and_volumes_are_taken_over(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    turn(cluster, "pantry: {jobs_ok: false}")
    job = await cluster.ask("POST", f"{disk.volume()}/scrub", {})
    assert await disk.job(job["job_id"]) is False
    turn(cluster, "volumes_taken_over: true")
    await cluster.ask("POST", f"{disk.volume()}/snapshot", {"snapshot_id": str(uuid.uuid4())}, (410,))


async def test_regions_fail(cluster):
    disk = await cluster.make_disk()
    turn(cluster, "regions: failed")
    states = []
    for address, region, _ in disk.regions:
        states.append((await cluster.ask("GET", f"http://{address}/crucible/0/regions/{region}"))["state"])
    assert states == ["failed", "created", "created"]


async def test_one_region_fails_and_the_others_of_its_sled_do_not(cluster):
    disks = [await cluster.make_disk(), await cluster.make_disk()]
    agents = [f"http://{address}/crucible/0/regions" for address in (each.regions[0][0] for each in disks)]
    turn(cluster, "regions: {2: failed}")
    told = [await cluster.ask("GET", url) for url in dict.fromkeys(agents)]
    assert sorted(region["state"] for regions in told for region in regions) == ["created", "failed"]
    turn(cluster, f"regions: {{{disks[0].regions[0][1]}: tombstoned}}")
    one = await cluster.ask("GET", f"{agents[0]}/{disks[0].regions[0][1]}")
    assert one["state"] == "tombstoned"


async def test_a_rule_breaks_a_downstairs_and_its_upstairs_tells_nexus(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    turn(cluster, "broken_downstairs: {1: 1ms}")
    records = cluster.nexus.host.upstairs.records
    async with asyncio.timeout(LIMIT_S):
        while len(records) < 4:
            await asyncio.sleep(0.01)  # until Nexus has heard all of it; it has no event for that
    assert [told.kind for told in records] == ["stopped", "repair-start", "progress", "repair-finish"]
    assert {told.upstairs_id for told in records} == {disk.id}


async def test_a_snapshot_cannot_be_run(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    snapshot = str(uuid.uuid4())
    await cluster.ask("POST", f"{disk.volume()}/snapshot", {"snapshot_id": snapshot})
    turn(cluster, "crucible: {run_fails: true}")
    states = []
    for address, region, _ in disk.regions:
        url = f"http://{address}/crucible/0/regions/{region}/snapshots/{snapshot}/run"
        states.append((await cluster.ask("POST", url))["state"])
    assert states == ["failed", "created", "created"]


async def test_a_pantry_crashes_and_has_forgotten_its_volumes_when_it_is_back(cluster):
    disk = await cluster.make_disk()
    await disk.attach()
    turn(cluster, "pantry: {crashed: true}")
    with pytest.raises(aiohttp.ClientConnectionError):
        await cluster.ask("GET", disk.volume())
    turn(cluster, "pantry: {crashed: false}")
    await cluster.ask("GET", disk.volume(), None, (404,))


async def test_a_rule_fails_the_next_answers_of_a_server_beside_a_sled(cluster):
    rule = "{name: ours, for: {sled: sled-1}, when: {request: region_create}, times: 2, do: {fail: 503}}"
    text = f"version: 1\nrules: [{rule}]\n"
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    cluster.daemon.load(scenario)
    address = cluster.agents[0][1]
    body = {
        "id": str(uuid.uuid4()), "block_size": 512, "extent_size": 131_072, "extent_count": 1, "encrypted": True,
    }  # fmt: skip
    for status in (503, 503, 200):
        await cluster.ask("POST", f"http://{address}/crucible/0/regions", body, (status,))
