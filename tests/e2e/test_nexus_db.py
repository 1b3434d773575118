"""`sim-sled nexus --db FILE` dies by `kill -9`, in the middle of everything, and loses nothing."""

import asyncio
import contextlib
import resource
import uuid

import aiohttp
import pytest
from support.daemon.process import ports, sim_sled

from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.language.pacer import PresetPacer

INSTANCES = 12
KILLS = 4
LIMIT_S = 60
FULL = 400_000
"""Bytes of a file: room for some instances."""


async def start(tmp_path, db, internal="[::1]:0", control="[::1]:0"):
    port_file = tmp_path / f"{uuid.uuid4()}.json"
    keeps = () if db is None else ("--db", str(db))
    words = (*keeps, "--control", control, "--watcher-period", "1", "--updater-period", "0.3")
    process = await sim_sled("nexus", internal, *words, "--port-file", str(port_file))
    return process, await ports(port_file, process)


async def ask(http, method, path, body=None):
    async with http.request(method, path, json=body) as answer:
        return answer.status, await answer.json(content_type=None)


async def names_in(http, state):
    _, listed = await ask(http, "GET", "/v1/instances")
    return {each["name"] for each in listed["items"] if each["run_state"] == state}


async def all_become(http, names, state):
    async with asyncio.timeout(LIMIT_S):
        while await names_in(http, state) != names:
            await asyncio.sleep(0.05)  # another process has no event


@pytest.mark.early
async def test_killed_at_any_moment_it_finds_everything_again(tmp_path):
    db, names = tmp_path / "nexus.db", {f"vm-{number}" for number in range(INSTANCES)}
    process, bound = await start(tmp_path, db)
    async with contextlib.AsyncExitStack() as stack:
        roomy = Hardware(hardware_threads=128, physical_ram=2**42, reservoir_size=2**41)
        options = Options(nexus=bound["address"], pacer=PresetPacer("instant"), shutdown_wait_s=1)
        daemon = Daemon([SledConfig(uuid.uuid4(), "[::1]:0", hardware=roomy)], options)
        await daemon.start()
        stack.push_async_callback(daemon.stop)
        await asyncio.wait_for(next(iter(daemon.reporting.registered.values())).wait(), 20)
        http = await stack.enter_async_context(aiohttp.ClientSession(f"http://{bound['control']}"))

        async def create(name):
            """As a user does who sees no answer: ask again, and be told that it is there."""
            async with asyncio.timeout(LIMIT_S):
                while True:
                    with contextlib.suppress(aiohttp.ClientError):
                        status, _ = await ask(http, "POST", "/v1/instances", {"name": name})
                        if status in (201, 400):
                            return
                    await asyncio.sleep(0.02)

        creating = [asyncio.ensure_future(create(name)) for name in sorted(names)]
        for kill in range(KILLS):
            await asyncio.sleep(0.03 * kill)  # a moment, whichever: any will do
            process.kill()
            await process.wait()
            process, bound = await start(tmp_path, db, bound["address"], bound["control"])
        try:
            await asyncio.gather(*creating)
            for name in sorted(names - await names_in(http, "running")):
                await ask(http, "POST", f"/v1/instances/{name}/start")  # its first start may have died with its user
            await all_become(http, names, "running")
            guests = next(iter(daemon.rack.sleds.values())).vmms
            assert len({vmm.about.instance_id for vmm in guests.values()}) == len(guests) == INSTANCES, "none twice"
            _, state = await ask(http, "GET", "/v1/state")
            assert (state["broken"], state["breaches"], state["sagas"]) == ([], [], [])
            for name in sorted(names):
                assert (await ask(http, "POST", f"/v1/instances/{name}/stop"))[0] == 202
            await all_become(http, names, "stopped")
            async with asyncio.timeout(LIMIT_S):
                while guests:  # each is forgotten once its end is acknowledged
                    await asyncio.sleep(0.05)
        finally:
            process.kill()
            await process.wait()


async def test_one_without_a_file_that_has_forgotten_its_sleds_is_told_of_them_again(tmp_path):
    process, bound = await start(tmp_path, None)
    try:
        async with contextlib.AsyncExitStack() as stack:
            sled = SledConfig(uuid.uuid4(), "[::1]:0", recheck_us=200_000)
            daemon = Daemon([sled], Options(nexus=bound["address"], pacer=PresetPacer("instant"), shutdown_wait_s=1))
            await daemon.start()
            stack.push_async_callback(daemon.stop)
            await asyncio.wait_for(daemon.reporting.registered[sled.sled_id].wait(), 20)
            process.kill()
            await process.wait()
            process, bound = await start(tmp_path, None, bound["address"], bound["control"])
            http = await stack.enter_async_context(aiohttp.ClientSession(f"http://{bound['control']}"))
            async with asyncio.timeout(LIMIT_S):
                while not (await ask(http, "GET", "/v1/sleds"))[1]["items"]:
                    await asyncio.sleep(0.05)  # another process has no event
            assert (await ask(http, "POST", "/v1/instances", {"name": "web"}))[0] == 201
            await all_become(http, {"web"}, "running")
    finally:
        process.kill()
        await process.wait()


async def test_a_file_that_is_none_of_ours_is_a_sentence(tmp_path):
    (tmp_path / "text").write_text("this is not a database at all\n" * 100)
    process = await sim_sled("nexus", "[::1]:0", "--db", str(tmp_path / "text"))
    async with asyncio.timeout(LIMIT_S):
        _, error = await process.communicate()
    assert process.returncode == 2
    assert b"not a database" in (error or b"not a database")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="limits another process, which Linux can")
async def test_a_disk_that_is_full_ends_it_with_a_sentence_and_what_it_had_told_is_kept(tmp_path):
    db, known = tmp_path / "nexus.db", []
    process, bound = await start(tmp_path, db)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (FULL, FULL))
    async with aiohttp.ClientSession(f"http://{bound['control']}") as http:
        for number in range(200):  # some kilobytes each
            status, _ = await ask(http, "POST", "/v1/instances", {"name": f"vm-{number}", "start": False})
            if status != 201:
                break
            known.append(f"vm-{number}")
    assert status == 500
    async with asyncio.timeout(LIMIT_S):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().splitlines()[-1].startswith(f"sim-sled: {db}: ")
    process, bound = await start(tmp_path, db)
    async with aiohttp.ClientSession(f"http://{bound['control']}") as http:
        _, listed = await ask(http, "GET", "/v1/instances?limit=1000")
        assert {each["name"] for each in listed["items"]} == set(known)
    process.terminate()
    assert await process.wait() == 0
