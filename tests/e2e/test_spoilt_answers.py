"""Answers that do not arrive as they were, on a live daemon: pieces, half of one, garbage (SR 8). What was asked is
carried out all the same, and the next request finds nothing of it.
"""

import asyncio

import aiohttp
import pytest
from support.daemon.cluster import VERSIONED, Cluster

from sim_sled.language.check import parse_scenario


@pytest.fixture(name="cluster")
async def _cluster():
    async with Cluster() as cluster:
        yield cluster


def turn(cluster, do, op="artifact_config_put"):
    rule = f"{{name: ours, for: {{sled: sled-1}}, when: {{request: {op}}}, times: 1, do: {{{do}}}}}"
    scenario, problems = parse_scenario(f"version: 1\nrules: [{rule}]\n")
    assert scenario is not None, problems.text()
    cluster.daemon.load(scenario)


def url(cluster, path):
    return f"http://{cluster.daemon.addresses[cluster.sleds[0]]}{path}"


@pytest.mark.parametrize("do", ["truncate: true", "garbage: true"])
async def test_what_was_asked_for_is_done_although_the_answer_cannot_be_read(cluster, do):
    turn(cluster, do)
    body = {"generation": 3, "artifacts": []}
    put = cluster.http.put(url(cluster, "/artifacts-config"), json=body, headers=VERSIONED)
    if do.startswith("truncate"):
        with pytest.raises(aiohttp.ClientError):
            async with put as answer:
                await answer.read()
    else:
        async with put as answer:
            with pytest.raises(ValueError):
                await answer.json()
    assert await cluster.sled(0, "GET", "/artifacts-config") == body


async def test_half_an_answer_with_a_body_is_no_answer(cluster):
    turn(cluster, "truncate: true", "inventory")
    with pytest.raises(aiohttp.ClientPayloadError):
        async with cluster.http.get(url(cluster, "/inventory"), headers=VERSIONED) as answer:
            await answer.read()
    assert "zpools" in await cluster.sled(0, "GET", "/inventory")


async def test_an_answer_that_dribbles_is_right_and_takes_its_time(cluster):
    turn(cluster, "dribble: 400ms", "inventory")
    begun = asyncio.get_running_loop().time()
    slow = await cluster.sled(0, "GET", "/inventory")
    assert asyncio.get_running_loop().time() - begun >= 0.39
    quick = await cluster.sled(0, "GET", "/inventory")
    assert slow == quick


async def test_a_refusal_is_told_as_it_is_and_spoils_nothing_after_it(cluster):
    await cluster.sled(0, "PUT", "/artifacts-config", {"generation": 5, "artifacts": []})
    turn(cluster, "garbage: true")
    told = await cluster.sled(0, "PUT", "/artifacts-config", {"generation": 1, "artifacts": []}, (409,))
    assert told["error_code"] == "CONFIG_GENERATION"
    await cluster.sled(0, "PUT", "/artifacts-config", {"generation": 6, "artifacts": []})


async def test_a_request_that_fails_half_way_leaves_its_spoil_to_nobody(cluster):
    """A transfer is several steps of the core: the first was to be spoilt, a later one is refused."""
    hashes = ["0" * 64]
    await cluster.sled(0, "PUT", "/artifacts-config", {"generation": 1, "artifacts": hashes})
    turn(cluster, "garbage: true", "artifact_put")
    put = cluster.http.put(url(cluster, f"/artifacts/{hashes[0]}?generation=1"), data=b"x", headers=VERSIONED)
    async with put as answer:
        assert (answer.status, answer.headers.get("connection")) == (400, None), "the connection stays"
        await answer.read()
    for _ in range(3):
        assert "zpools" in await cluster.sled(0, "GET", "/inventory")
