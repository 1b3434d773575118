"""A daemon that serves its VMMs' Propolis API, for tests that have two of them migrate to each other."""

import os
import uuid

import aiohttp
from support.wire.register_body import register_body

from sim_sled.core.config import SledConfig
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.language.pacer import PresetPacer

SLED_HEADERS = {"api-version": "48.0.0"}
PROPOLIS_HEADERS = {"api-version": "5.0.0"}


def address(host: int) -> str:
    """An address of 127/8 that nobody else has: the process decides on the middle, so tests can run side by side."""
    pid = os.getpid()
    return f"127.{1 + pid % 250}.{1 + pid // 250 % 250}.{host}:{10_000 + pid % 20_000}"


class Side:
    """One daemon with one sled, and a client of it."""

    def __init__(self, nexus, mode, record=None, pacer=None):
        self.sled_id = uuid.uuid4()
        pacer = pacer or PresetPacer("instant")
        options = Options(nexus=nexus.address, pacer=pacer, propolis=mode, shutdown_wait_s=0.2)
        self.daemon = Daemon([SledConfig(self.sled_id, "[::1]:0")], options, recorder=record)

    async def __aenter__(self):
        await self.daemon.start()
        self.http = aiohttp.ClientSession(f"http://{self.daemon.addresses[self.sled_id]}", headers=SLED_HEADERS)
        return self

    async def __aexit__(self, *_):
        await self.http.close()
        await self.daemon.stop()

    async def register(self, vmm, addr, state="starting", migration_id=None):
        async with self.http.put(
            f"/vmms/{vmm}", json=register_body(state, migration_id=migration_id, addr=addr)
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def ask(self, vmm, kind, value=None):
        requested = {"type": kind} if value is None else {"type": kind, "value": value}
        async with self.http.put(f"/vmms/{vmm}/state", json={"state": requested}) as answer:
            assert answer.status == 200, await answer.text()

    async def run(self, nexus, vmm, addr):
        await self.register(vmm, addr)
        await self.ask(vmm, "running")
        await nexus.heard(vmm, "running")
