"""The whole product over sockets: the Nexus model, two sled daemons, many instances, a Nexus that restarts."""

import asyncio
import contextlib
import json
import uuid

import aiohttp
import pytest

from nexus_client.stub.config import Config
from nexus_client.stub.server.serve import NexusServer
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.language.pacer import PresetPacer

ROOMY = Hardware(hardware_threads=1024, physical_ram=2**42, reservoir_size=2**41)
LIMIT_S = 60
"""For all instances to reach a state: seconds on an idle machine, more where others work too."""


class Rack:
    """Two daemons, their Nexus, and a client of its control API."""

    async def __aenter__(self):
        self.stack = contextlib.AsyncExitStack()
        config = Config(watcher_period_us=1_000_000, updater_period_us=300_000, reaper_period_us=1_000_000)
        self.nexus = await self.stack.enter_async_context(NexusServer("[::1]:0", config=config, sled_timeout_s=20))
        self.daemons = []
        for _ in range(2):
            options = Options(
                nexus=self.nexus.internal,
                pacer=PresetPacer("instant"),
                propolis=PropolisMode.REGISTERED,
                shutdown_wait_s=1,
            )
            daemon = Daemon([SledConfig(uuid.uuid4(), "[::1]:0", hardware=ROOMY)], options)
            await daemon.start()
            self.stack.push_async_callback(daemon.stop)
            self.daemons.append(daemon)
            await asyncio.wait_for(next(iter(daemon.reporting.registered.values())).wait(), 20)
        self.sleds = [str(next(iter(daemon.rack.sleds))) for daemon in self.daemons]
        self.http = await self.stack.enter_async_context(aiohttp.ClientSession(f"http://{self.nexus.control}"))
        return self

    async def __aexit__(self, *_):
        await self.stack.aclose()

    async def ask(self, method, path, body=None):
        """One control call, again while Nexus is away. Raises AssertionError for a refusal."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    async with self.http.request(method, path, json=body) as answer:
                        text = await answer.text()
                except aiohttp.ServerDisconnectedError:
                    if method != "GET":
                        raise
                    continue  # it died while it was asked: reading again changes nothing
                if answer.status == 503:
                    await asyncio.sleep(0.05)  # restarting: it has no event
                    continue
                assert answer.status < 300, f"{method} {path}: {answer.status} {text}"
                return json.loads(text) if text else None

    async def all_are(self, count, state):
        async with asyncio.timeout(LIMIT_S):
            while True:
                listed = (await self.ask("GET", "/v1/instances"))["items"]
                states = {each["name"]: each["run_state"] for each in listed}
                if len(states) == count and set(states.values()) == {state}:
                    return
                await asyncio.sleep(0.05)  # another process would have no event either


@pytest.mark.parametrize("count", [6, pytest.param(40, marks=pytest.mark.long)])
async def test_many_instances_start_reboot_migrate_and_stop_while_nexus_restarts_twice(count):
    names = [f"vm-{number}" for number in range(count)]
    async with Rack() as rack:
        for name in names:
            await rack.ask("POST", "/v1/instances", {"name": name, "start": True})
        await rack.all_are(count, "running")

        # those under way when Nexus dies lose their connection: whether they were carried out, nobody can know
        reboots = asyncio.gather(
            *(rack.ask("POST", f"/v1/instances/{name}/reboot") for name in names), return_exceptions=True
        )
        await rack.ask("POST", "/v1/restart", {"down_ms": 200})
        outcomes = await reboots
        assert all(not isinstance(each, AssertionError) for each in outcomes), outcomes
        await rack.all_are(count, "running")

        for name in names:
            here = (await rack.ask("GET", f"/v1/instances/{name}"))["sled_id"]
            there = next(sled for sled in rack.sleds if sled != here)
            await rack.ask("POST", f"/v1/instances/{name}/migrate", {"dst_sled_id": there})
        await rack.ask("POST", "/v1/restart", {"down_ms": 200})
        await rack.all_are(count, "running")

        for name in names:
            await rack.ask("POST", f"/v1/instances/{name}/stop")
        await rack.all_are(count, "stopped")

        async with asyncio.timeout(LIMIT_S):
            while any(sled.vmms for daemon in rack.daemons for sled in daemon.rack.sleds.values()):
                await asyncio.sleep(0.05)  # until the last acknowledgements are back
        for name in names:
            known = await rack.ask("GET", f"/v1/instances/{name}")
            assert len(known["vmms"]) == 2, "one VMM on each sled"
            assert {vmm["state"] for vmm in known["vmms"]} == {"destroyed"}
            assert [each["target_state"] for each in known["migrations"]] == ["completed"]
        assert (await rack.ask("GET", "/v1/state"))["breaches"] == []
