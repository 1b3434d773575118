"""(j) Whole lives over sockets: registered, run, stopped, heard of to the end; by one process, and by two that share
the sleds. A worker does more than the one process: each of its VMMs listens as a Propolis. So one worker that has all
of the sleds is measured beside them.

The Nexus and whoever asks are this process, which is not measured. What the workers take of the processor says how
many lives so many cores carry: two workers are measured one core's worth each, whatever else the machine does.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import msgspec

from sim_sled.daemon.pulse import BEAT
from sim_sled.daemon.worker import Ready, Spec
from tests.support.wire.register_body import register_body

REQUESTS = 3
"""Of Nexus, in each life; the reports are counted."""
SLOTS = 128
"""Lives at a time, of one process or of two: each of the two has enough to do then."""
SLEDS = 4
WAIT_S = 120.0
_NOT_FOUND = b'{"request_id": "bench", "error_code": "ObjectNotFound", "message": "not found"}'


class Nexus:
    """Knows no sled, takes every registration and report, and remembers what VMMs have come to."""

    def __init__(self):
        self.reports = 0
        self._waits = {}

    async def until(self, vmm: str, state: str) -> None:
        event = self._waits[vmm, state] = asyncio.Event()
        await event.wait()
        del self._waits[vmm, state]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                method, path, body = await _request(reader)
                if method == "GET":
                    writer.write(_answer("404 Not Found", _NOT_FOUND))
                    continue
                if path.startswith("/vmms/"):
                    self.reports += 1
                    event = self._waits.get((path[6:42], json.loads(body)["vmm_state"]["state"]))
                    if event is not None:
                        event.set()
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _answer(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    method, path, _ = head.split(" ", 2)
    return method, path, await reader.readexactly(_length(head))


def _length(head: str) -> int:
    _, found, rest = head.lower().partition("content-length:")
    return int(rest.split("\r\n", 1)[0]) if found else 0


async def _put(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: bytes) -> None:
    reader, writer = stream
    head = f"PUT {path} HTTP/1.1\r\nhost: x\r\napi-version: 48.0.0\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    told = await reader.readexactly(_length(answer))
    if " 200 " not in answer.split("\r\n", 1)[0] + " ":
        raise RuntimeError(f"{path}: {answer}{told.decode()}")


async def lives(nexus: Nexus, addresses: list[str], count: int, first: int) -> None:
    """So many lives, in turns on each sled, `SLOTS` at a time."""
    left = iter(range(first, first + count))
    run, stop = b'{"state":{"type":"running"}}', b'{"state":{"type":"stopped"}}'

    async def slot(number: int) -> None:
        host, _, port = addresses[number % len(addresses)].rpartition(":")
        stream = await asyncio.open_connection(host.strip("[]"), int(port))
        for nth in left:
            vmm = f"00000000-0000-4000-8000-{nth:012x}"
            # workers serve each VMM's Propolis API where Nexus says: the other side of a migration may be elsewhere
            about = register_body(addr=f"127.77.{nth // 250 % 250}.{nth % 250 + 1}:12400")
            await _put(stream, f"/vmms/{vmm}", json.dumps(about).encode())
            runs = asyncio.create_task(nexus.until(vmm, "running"))
            await asyncio.sleep(0)
            await _put(stream, f"/vmms/{vmm}/state", run)
            await runs
            ends = asyncio.create_task(nexus.until(vmm, "destroyed"))
            await asyncio.sleep(0)
            await _put(stream, f"/vmms/{vmm}/state", stop)
            await ends
        stream[1].close()

    await asyncio.gather(*(slot(number) for number in range(SLOTS)))


@attrs.frozen
class Measured:
    """What each life took: seconds of the processor, of all processes together, and of the wall."""

    cpu_s: float
    wall_s: float
    reports: float


@contextlib.asynccontextmanager
async def rack_of(workers: int, nexus: str) -> AsyncIterator[tuple[int, list[str]]]:
    """The sleds in so many processes: process id of the command, addresses of the sleds."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ports.json"
        rack = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sim_sled", "up", "--name", f"bench-lives-{workers}", "--nexus", nexus,
            "--sleds", str(SLEDS), "--workers", str(workers), "--pace", "instant", "--port-file", str(file),
            stdout=subprocess.DEVNULL, env={**os.environ, "XDG_RUNTIME_DIR": folder},
        )  # fmt: skip
        try:
            async with asyncio.timeout(WAIT_S):
                while not file.exists():
                    await asyncio.sleep(0.01)
            yield rack.pid, [sled["address"] for sled in json.loads(file.read_text())["sleds"]]
        finally:
            rack.terminate()
            await rack.wait()


@contextlib.asynccontextmanager
async def one_worker(nexus: str) -> AsyncIterator[tuple[int, list[str]]]:
    """All of the sleds in one worker, and nobody who watches it: its process id, addresses of the sleds."""
    spec = Spec("bench-lives-worker", SLEDS, 1, SLEDS, nexus, None, 0, "instant", "token")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sim_sled.daemon.worker", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        worker.stdin.write(msgspec.json.encode(spec) + b"\n")
        while (said := await worker.stdout.readline()) == BEAT:  # while it starts it says that it lives
            pass
        ready = msgspec.json.decode(said, type=Ready)
        yield worker.pid, ready.addresses
    finally:
        worker.terminate()
        await worker.wait()


@attrs.frozen
class Found:
    """One process, one worker, two workers: each round of each."""

    process: list[Measured] = attrs.field(factory=list)
    worker: list[Measured] = attrs.field(factory=list)
    workers: list[Measured] = attrs.field(factory=list)


async def measure(count: int, rounds: int) -> Found:
    """In turns, after one of each to warm up, for a machine has slow minutes."""
    nexus = Nexus()
    server = await asyncio.start_server(nexus.serve, "::1", 0, backlog=1024)
    address = f"[::1]:{server.sockets[0].getsockname()[1]}"
    found = Found()
    try:
        async with rack_of(1, address) as process, one_worker(address) as worker, rack_of(2, address) as workers:
            racks = [(found.process, *process), (found.worker, *worker), (found.workers, *workers)]
            first = 0
            for number in range(rounds + 1):
                for rounds_of, pid, addresses in racks if number % 2 else racks[::-1]:
                    before, began, reports = _cpu_s(pid), time.perf_counter(), nexus.reports
                    await lives(nexus, addresses, count, first)
                    first += count
                    took = (_cpu_s(pid) - before, time.perf_counter() - began, nexus.reports - reports)
                    if number:
                        rounds_of.append(Measured(*(each / count for each in took)))
    finally:
        server.close()
    return found


def _cpu_s(pid: int) -> float:
    """Of a process and of those that it has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    total = 0
    for each in (str(pid), *children):
        for task in Path(f"/proc/{each}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def bench(count: int, rounds: int, floor_of) -> list[tuple]:
    """The fields of each row: name, ours, floor, ratio, unit, aim, whether that is the most, ratio by CPU.

    `floor_of(reports)`: what a life's requests and reports cost without anything of ours, seconds of the processor.
    """
    found = asyncio.run(measure(count, rounds))
    reports = found.process[0].reports
    one, worker, two = (min(each.cpu_s for each in of) for of in (found.process, found.worker, found.workers))
    wall, wall_worker, wall_two = (
        min(each.wall_s for each in of) for of in (found.process, found.worker, found.workers)
    )
    floor = floor_of(reports)
    return [
        # judged by processor time: twice what one core's worth of the workers carries
        (f"(j) a life over sockets, {reports:.1f} reports; floor: its floors", one * 1e6, floor * 1e6, one / floor,
         "us", None, True, one / floor),
        ("    lives of two workers; floor: of one process", 1 / wall_two, 1 / wall, wall / wall_two,
         "lives/s", 1.8, False, 2 * one / two),
        ("    lives of two workers; floor: of one worker", 1 / wall_two, 1 / wall_worker, wall_worker / wall_two,
         "lives/s", None, False, 2 * worker / two),
    ]  # fmt: skip
