"""A rack of sleds in one daemon with everything beside them, and Nexus's side of the talk with it (SR 7)."""

import asyncio
import base64
import uuid
from contextlib import AsyncExitStack

import aiohttp

from nexus_client.dropshot.text import SocketAddress
from nexus_client.stub.server.serve import NexusServer
from sim_sled.companions.servers import Ports
from sim_sled.core.config import Hardware, SledConfig
from sim_sled.daemon.control import Control, serve_control
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.language.pacer import PresetPacer

BLOCK, EXTENT = 512, 131_072
CHUNK = 512 * 1024
LIMIT_S = 60


VERSIONED = {"api-version": "48.0.0"}


class Cluster:
    """Sleds in one daemon, by default three, and Nexus's side of the talk."""

    def __init__(self, sleds=3, hardware=None, **options):
        self.count, self.hardware, self.options = sleds, hardware or Hardware(zpools=2), options

    async def __aenter__(self):
        async with AsyncExitStack() as begun:  # what has begun ends if the rest cannot
            await self._begin(begun)
            self._ends = begun.pop_all()
        return self

    async def __aexit__(self, *_):
        await self._ends.aclose()

    async def _begin(self, begun):
        self.nexus = await begun.enter_async_context(NexusServer())
        sleds = [
            SledConfig(uuid.UUID(int=number + 1), "[::1]:0", hardware=self.hardware) for number in range(self.count)
        ]
        options = Options(
            nexus=self.nexus.internal,
            pacer=PresetPacer("instant"),
            companions=Ports(),
            shutdown_wait_s=0.2,
            **self.options,
        )
        self.daemon = Daemon(sleds, options)
        await self.daemon.start()
        begun.push_async_callback(self.daemon.stop)
        self.listener = await serve_control(Control(self.daemon), SocketAddress("::1", 0))
        begun.push_async_callback(self.listener.close)
        self.control = f"http://{self.listener.address}"
        self.http = await begun.enter_async_context(aiohttp.ClientSession())
        self.sleds = [sled.sled_id for sled in sleds]
        self.beside = self.daemon.listening.companion_addresses()
        # one dataset of each sled, as Nexus wants it
        self.agents = [next(iter(self.beside[sled].crucible.items())) for sled in self.sleds]

    async def ask(self, method, url, body=None, status=(200, 204), **headers):
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            assert answer.status in status, f"{method} {url}: {answer.status} {await answer.text()}"
            return await answer.json() if answer.content_type == "application/json" else await answer.read()

    async def sled(self, which, method, path, body=None, status=(200, 201, 202, 204)):
        """One call of Nexus to a sled, by its number."""
        url = f"http://{self.daemon.addresses[self.sleds[which]]}{path}"
        return await self.ask(method, url, body, status, **VERSIONED)

    async def create_region(self, address, region_id, extents, source=None):
        body = {
            "id": str(region_id), "block_size": BLOCK, "extent_size": EXTENT, "extent_count": extents,
            "encrypted": True, "cert_pem": None, "key_pem": None, "root_pem": None, "source": source,
        }  # fmt: skip
        async with asyncio.timeout(LIMIT_S):
            while True:  # as `ensure_region_in_dataset` does
                region = await self.ask("POST", f"http://{address}/crucible/0/regions", body)
                if region["state"] != "requested":
                    return region
                await asyncio.sleep(0.01)

    async def make_disk(self, extents=1, agents=None):
        disk = Disk(self, uuid.uuid4(), extents)
        for _, address in agents or self.agents:
            region = await self.create_region(address, uuid.uuid4(), extents)
            assert region["state"] == "created"
            disk.regions.append((address, region["id"], region["port_number"]))
        return disk

    @property
    def pantry(self):
        return f"http://{self.beside[self.sleds[0]].pantry}/crucible/pantry/0"


class Disk:
    """A disk as Nexus has it in its records."""

    def __init__(self, cluster, disk_id, extents):
        self.cluster, self.id, self.extents = cluster, disk_id, extents
        self.regions = []
        self.gen = 1
        self.parent = None

    def request(self):
        self.gen += 1
        targets = [f"[::1]:{port}" for _, _, port in self.regions]
        opts = {"id": str(self.id), "target": targets, "lossy": False, "read_only": False}
        region = {
            "type": "region", "block_size": BLOCK, "blocks_per_extent": EXTENT, "extent_count": self.extents,
            "gen": self.gen, "opts": opts,
        }  # fmt: skip
        return {
            "type": "volume", "id": str(self.id), "block_size": BLOCK, "sub_volumes": [region],
            "read_only_parent": self.parent,
        }  # fmt: skip

    def volume(self):
        return f"{self.cluster.pantry}/volume/{self.id}"

    async def attach(self):
        body = {"volume_construction_request": self.request()}
        assert (await self.cluster.ask("POST", self.volume(), body))["id"] == str(self.id)

    async def detach(self):
        await self.cluster.ask("DELETE", self.volume())

    async def write(self, offset, data):
        body = {"offset": offset, "base64_encoded_data": base64.b64encode(data).decode()}
        await self.cluster.ask("POST", f"{self.volume()}/bulk-write", body)

    async def read(self, offset, size):
        body = {"offset": offset, "size": size}
        found = await self.cluster.ask("POST", f"{self.volume()}/bulk-read", body)
        return base64.b64decode(found["base64_encoded_data"])

    async def job(self, job_id):
        async with asyncio.timeout(LIMIT_S):
            url = f"{self.cluster.pantry}/job/{job_id}"
            while not (await self.cluster.ask("GET", f"{url}/is-finished"))["job_is_finished"]:
                await asyncio.sleep(0.01)
            return (await self.cluster.ask("GET", f"{url}/ok"))["job_result_ok"]

    async def run_snapshot(self, snapshot_id):
        """What the snapshot saga asks of each source region; returns where the running snapshots are."""
        ports = []
        for address, region, _ in self.regions:
            url = f"http://{address}/crucible/0/regions/{region}"
            await self.cluster.ask("GET", url)
            await self.cluster.ask("GET", f"{url}/snapshots/{snapshot_id}")
            running = await self.cluster.ask("POST", f"{url}/snapshots/{snapshot_id}/run")
            assert running["state"] == "created"
            ports.append(running["port_number"])
        return ports

    async def delete_snapshot(self, snapshot_id):
        for address, region, _ in self.regions:
            url = f"http://{address}/crucible/0/regions/{region}/snapshots"
            await self.cluster.ask("DELETE", f"{url}/{snapshot_id}/run")
            found = (await self.cluster.ask("GET", url))["running_snapshots"]
            assert found.get(str(snapshot_id), {"state": "destroyed"})["state"] == "destroyed"
            await self.cluster.ask("DELETE", f"{url}/{snapshot_id}")
            assert (await self.cluster.ask("GET", url))["snapshots"] == []

    async def delete(self):
        for address, region, _ in self.regions:
            url = f"http://{address}/crucible/0/regions/{region}"
            await self.cluster.ask("GET", url)
            await self.cluster.ask("DELETE", url)
            async with asyncio.timeout(LIMIT_S):
                while (await self.cluster.ask("GET", url))["state"] != "destroyed":
                    await asyncio.sleep(0.01)
