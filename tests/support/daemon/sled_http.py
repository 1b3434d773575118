"""A sled's HTTP server over a fake host in memory, and a client that sends exactly what it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import attrs
import msgspec
from msgspec.structs import replace

from nexus_client.types import MigrationRuntimeState, MigrationState, SledVmmState, UpdatedRuntime, VmmState
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.errors import NoSuchVmm
from sim_sled.core.networking.facts import Networking
from sim_sled.core.sled import Sled
from sim_sled.http.app import make_server
from sim_sled.http.blobs import Blobs
from sim_sled.language.pacer import PresetPacer

SLED = UUID("2dd26437-062c-4ece-8f50-53c8f0b951a7")
VMM = "d31bd461-9749-4a5c-8d40-887bf363708b"
NEWEST = "48.0.0"


class FakeHost:
    """Registry and networking without any life cycle; `gate` holds every submit until it is set."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.finished: list[Any] = []
        self.networking = Networking()
        self.sled = Sled(SledConfig(SLED), PresetPacer(), 0, networking=self.networking)
        self.stored = Blobs()
        self.vmms: dict[UUID, SledVmmState] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.raises: Exception | None = None
        self._ticket = 0

    def ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    async def submit(self, item: Any) -> object:
        self.items.append(item)
        await self.gate.wait()
        if self.raises is not None:
            raise self.raises
        value = self._answer(item)
        self.finished.append(item)
        return value

    def blobs(self, sled_id: UUID) -> Blobs:
        return self.stored

    def log_lines(self, sled_id: UUID, propolis_id: UUID | None) -> list[tuple[str, str]]:
        return []

    def in_background(self, work: Any, at_most: int) -> bool:
        work.close()
        return False

    def _answer(self, item: Any) -> object:
        match item:
            case contract.Register():
                migration = item.body.migration_id and MigrationRuntimeState(
                    item.body.migration_id, MigrationState.PENDING, 1, item.body.vmm_runtime.time_updated
                )
                state = self.vmms.setdefault(item.propolis_id, SledVmmState(item.body.vmm_runtime, migration))
                self.networking.vmm_registered(item.propolis_id, item.body)
                return state
            case contract.Unregister():
                self.networking.vmm_removed(item.propolis_id)
                gone = self.vmms.pop(item.propolis_id, None)
                if gone is not None:
                    runtime = replace(gone.vmm_state, state=VmmState.FAILED, gen=gone.vmm_state.gen + 1)
                    gone = replace(gone, vmm_state=runtime)
                return UpdatedRuntime(gone)
            case contract.GetState() | contract.PutState() | contract.Poke() | contract.SimMigrationSource():
                if item.propolis_id not in self.vmms:
                    raise NoSuchVmm(item.propolis_id)
                state = self.vmms[item.propolis_id]
                return UpdatedRuntime(state) if isinstance(item, contract.PutState) else state
            case contract.CallArea():
                return item.call.apply(getattr(self.sled, item.facts), 0)
        raise AssertionError(item)


@attrs.frozen
class Got:
    """One answer as it came."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def read_answer(reader: asyncio.StreamReader, *, head: bool = False) -> Got:
    status_line = await reader.readline()
    if not status_line:
        raise ConnectionError("closed without an answer")
    status = int(status_line.split(b" ", 2)[1])
    headers = []
    while (line := await reader.readline()) not in {b"\r\n", b""}:
        key, _, value = line.decode("latin-1").partition(":")
        headers.append((key.strip(), value.strip()))
    length = next((int(value) for key, value in headers if key.lower() == "content-length"), 0)
    body = b"" if head or status in {100, 204, 304} else await reader.readexactly(length)
    return Got(status, headers, body)


class Server:
    """A listening sled server: `ask` opens a connection per request."""

    def __init__(self, host: FakeHost, port: int) -> None:
        self.host = host
        self.port = port

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("::1", self.port, limit=2**22)

    async def raw(self, data: bytes, *, answers: int = 1, head: bool = False) -> list[Got]:
        """Send these bytes on a new connection and read that many answers."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            return [await read_answer(reader, head=head) for _ in range(answers)]
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        version: str | None = NEWEST,
        headers: dict[str, str] | None = None,
        raw_body: bytes | None = None,
    ) -> Got:
        data = raw_body if raw_body is not None else b"" if body is None else json.dumps(body).encode()
        return (await self.raw(request(method, path, data, version=version, headers=headers), head=method == "HEAD"))[
            0
        ]


def request(
    method: str, path: str, body: bytes = b"", *, version: str | None = NEWEST, headers: dict[str, str] | None = None
) -> bytes:
    """Bytes of one request; a content type is sent only if given."""
    lines = [f"{method} {path} HTTP/1.1", "host: sled"]
    if version is not None:
        lines.append(f"api-version: {version}")
    if body or method in {"PUT", "POST"}:
        lines.append(f"content-length: {len(body)}")
    lines += [f"{key}: {value}" for key, value in (headers or {}).items()]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(host: FakeHost | None = None, **options: Any) -> AsyncIterator[Server]:
    host = host or FakeHost()
    server = make_server(host, SLED, **options)
    listener = await asyncio.get_running_loop().create_server(server, "::1", 0)
    try:
        yield Server(host, listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        host.gate.set()
        await server.shutdown(1.0)
        await listener.wait_closed()


# ---- bodies --------------------------------------------------------------------------------------------------------

NIC_V1 = {
    "id": "00000000-0000-4000-8000-000000000001",
    "kind": {"type": "instance", "id": "00000000-0000-4000-8000-000000000002"},
    "name": "net0",
    "ip": "172.30.0.5",
    "mac": "A8:40:25:F3:48:81",
    "subnet": "172.30.0.0/22",
    "vni": 11382783,
    "primary": True,
    "slot": 0,
}
NIC_V10 = {key: value for key, value in NIC_V1.items() if key not in {"ip", "subnet"}} | {
    "ip_config": {"type": "v4", "value": {"ip": "172.30.0.5", "subnet": "172.30.0.0/22", "transit_ips": []}}
}
SNAT = {"ip": "203.0.113.14", "first_port": 16384, "last_port": 32767}
RULE = {
    "status": "enabled",
    "direction": "inbound",
    "action": "allow",
    "priority": 65534,
    "filter_hosts": None,
    "filter_ports": ["22", "1024-2048"],
    "filter_protocols": [{"type": "tcp"}, {"type": "icmp", "value": {"icmp_type": 3, "code": "0-3"}}],
}
NVME = {"backend_id": "b", "pci_path": {"bus": 0, "device": 16, "function": 0}, "serial_number": [0] * 20}


def register_body(level: int) -> dict[str, Any]:
    """A small registration in the shape of API version `level`.0.0 (SA 4.2)."""
    nic = NIC_V1 if level < 10 else NIC_V10
    local: dict[str, Any] = {
        "hostname": "web-01",
        "nics": [nic],
        "firewall_rules": [RULE | {"targets": [nic]}],
        "dhcp_config": {"dns_servers": ["1.1.1.1"], "host_domain": None, "search_domains": []},
    }
    if level < 11:
        local |= {"source_nat": SNAT, "ephemeral_ip": "203.0.113.7", "floating_ips": ["203.0.113.8"]}
    else:
        v4 = {"source_nat": SNAT, "ephemeral_ip": "203.0.113.7", "floating_ips": ["203.0.113.8"]}
        local["external_ips"] = {"type": "v4", "value": v4} if level < 32 else {"v4": v4, "v6": None}
    if level >= 7:
        local["multicast_groups"] = [{"group_ip": "239.10.0.1", "sources": []}]
    if level >= 9:
        kind = "local_storage" if level < 17 else "local_storage_encrypted"
        ids = {
            "zpool_id": "00000000-0000-4000-8000-00000000000a",
            "dataset_id": "00000000-0000-4000-8000-00000000000b",
        }
        local["delegated_zvols"] = [{"type": kind, **ids}]
    if level >= 18:
        local["attached_subnets"] = [{"kind": "external", "subnet": "192.0.2.64/28"}]
    if level >= 41:
        local["primary_nic_mtu"] = 1500
    nvme = NVME if level < 44 else NVME | {"has_write_cache": False}
    body = {
        "instance_id": "00000000-0000-4000-8000-000000000002",
        "local_config": local,
        "vmm_spec": {
            "board": {
                "chipset": {"type": "i440_fx", "value": {"enable_pcie": False}},
                "cpus": 2,
                "memory_mb": 2048,
                "cpuid": None,
                "guest_hv_interface": {"type": "bhyve"},
            },
            "components": {
                "disk": {"type": "nvme_disk", "component": nvme},
                "b": {"type": "blob_storage_backend", "component": {"base64": "", "readonly": True}},
                "com1": {"type": "serial_port", "component": {"num": "com1"}},
            },
        },
        "vmm_runtime": {"state": "starting", "gen": 2, "time_updated": "2026-08-21T10:00:00.123456Z"},
        "propolis_addr": "[fd00:1122:3344:101::1:1]:12400",
        "metadata": {
            "silo_id": "00000000-0000-4000-8000-000000000003",
            "project_id": "00000000-0000-4000-8000-000000000004",
        },
        "migration_id": None,
    }
    copied: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(body))  # a tenth of what `copy.deepcopy` takes
    return copied


def put(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`body` with one field set (`a.b.0.c`)."""
    *parents, last = path.split(".")
    at: Any = body
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return body


def drop(body: dict[str, Any], path: str) -> dict[str, Any]:
    """`body` without one field."""
    *parents, last = path.split(".")
    at: Any = body
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    del at[last]
    return body
