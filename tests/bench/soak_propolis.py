"""Soak of the Propolis server: hundreds of VMs, a long poll open on each, random requests for minutes.

    python -m tests.bench.soak_propolis [--vms 500] [--seconds 180] [--seed N]

The servers run in a process of their own, whose memory is read from /proc. Ends with 1 if an answer is unexpected, a
generation goes backwards, or memory is not flat after the warm-up (the first third).
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import aiohttp

from nexus_client.dropshot.text import SocketAddress
from propolis_stub.server.serve import raise_open_files, start
from propolis_stub.waiting import Pace, Point
from tests.bench.bench_propolis import _BODY, _say, _until_stdin_closes

_MARGIN = 0.06
_MARGIN_BYTES = 6 << 20
"""What memory may differ by between the second and the last third: the allocator's own ebb and flow at 500 VMs."""

_EXPECTED = {
    "ensure": {201, 409},
    "target": {201, 409, 500},  # 500: the source did not run, or lost its guest meanwhile
    "state": {204, 403, 424},
    "get": {200, 424},
    "spec": {200, 424},
    "history": {200, 424},
    "nmi": {200, 424},
    "monitor": {200, 410, 424},
    "console": {101},
}
_WEIGHTS = {"ensure": 4, "target": 1, "state": 8, "get": 2, "spec": 1, "history": 1, "nmi": 1, "console": 1}


async def _servers(count: int) -> None:
    raise_open_files()
    running = [await start(SocketAddress("127.0.0.1", 0), base_paces=False) for _ in range(count)]
    for one in running:
        for point in (Point.BACKENDS, Point.REBOOT, Point.HALT, Point.RUNDOWN, Point.M_RAM_PUSH):
            one.host.pacer.set(point, Pace(3_000))
    _say(addresses=[one.api.address for one in running])
    await _until_stdin_closes()
    for one in running:
        await one.close()


class Soak:
    def __init__(self, addresses: list[str], seed: int) -> None:
        self.addresses = addresses
        self.random = random.Random(seed)
        self.answers: Counter[tuple[str, int]] = Counter()
        self.faults: list[str] = []
        self.over = False
        self.migrations = 0

    def note(self, what: str, status: int, detail: str = "") -> None:
        self.answers[(what, status)] += 1
        if status not in _EXPECTED[what] and len(self.faults) < 20:
            self.faults.append(f"{what}: {status} {detail[:200]}")

    async def call(
        self, session: aiohttp.ClientSession, what: str, method: str, url: str, body: object = None
    ) -> object:
        headers = {"api-version": "5.0.0"}
        async with session.request(method, url, json=body, headers=headers) as answer:
            text = await answer.text()
            self.note(what, answer.status, text)
            return json.loads(text) if text and answer.status < 300 else None

    async def watch(self, session: aiohttp.ClientSession, address: str) -> None:
        """A sled's monitor loop: gen 0, then gen + 1; from the beginning when the VM is gone."""
        gen, url = 0, f"http://{address}/instance/state-monitor"
        while not self.over:
            seen = await self.call(session, "monitor", "GET", url, {"gen": gen})
            if seen is None:
                gen = 0
                await asyncio.sleep(0.05)
                continue
            if gen and seen["gen"] < gen:
                self.faults.append(f"monitor: asked for {gen}, got {seen['gen']}")
            gen = seen["gen"] + 1

    async def request(self, session: aiohttp.ClientSession) -> None:
        """One random request to a random VM."""
        address = self.random.choice(self.addresses)
        base = f"http://{address}/instance"
        what = self.random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        match what:
            case "ensure":
                await self.call(session, what, "PUT", base, _BODY)
            case "target":
                self.migrations += 1
                value = {
                    "migration_id": f"{self.migrations:032x}",
                    "src_addr": self.random.choice(self.addresses),
                    "replace_components": {},
                }
                init = {"method": "MigrationTarget", "value": value}
                await self.call(session, what, "PUT", base, {**_BODY, "init": init})
            case "state":
                kind = self.random.choices(("Run", "Reboot", "Stop"), (5, 4, 1))[0]
                await self.call(session, what, "PUT", f"{base}/state", kind)
            case "get":
                await self.call(session, what, "GET", base)
            case "spec":
                await self.call(session, what, "GET", f"{base}/spec")
            case "history":
                await self.call(session, what, "GET", f"{base}/serial/history?most_recent=500")
            case "nmi":
                await self.call(session, what, "POST", f"{base}/nmi")
            case "console":
                await self.console(session, f"ws://{address}/instance/serial?most_recent=200")

    async def console(self, session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(url, headers={"api-version": "5.0.0"}) as ws:
            self.note("console", 101)
            with contextlib.suppress(ConnectionError):
                await ws.send_bytes(b"root\runame\r")
            with contextlib.suppress(TimeoutError):
                await ws.receive(timeout=0.2)

    async def press(self, session: aiohttp.ClientSession) -> None:
        while not self.over:
            await self.request(session)


def _rss(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def soak(vms: int, seconds: float, seed: int) -> bool:
    """Runs and reports; whether all was well."""
    raise_open_files()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.soak_propolis", "child", str(vms),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    complaining = asyncio.ensure_future(process.stderr.read())
    addresses = json.loads(await process.stdout.readline())["addresses"]
    run = Soak(addresses, seed)
    memory: list[int] = []
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        tasks = [asyncio.ensure_future(run.watch(session, address)) for address in addresses]
        tasks += [asyncio.ensure_future(run.press(session)) for _ in range(32)]
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            done, _ = await asyncio.wait(tasks, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            memory.append(_rss(process.pid))
            if done:  # neither loop ends by itself: one that did has failed
                run.faults.append(f"a client failed: {done.pop().exception()!r}")
                break
        took = time.perf_counter() - began
        run.over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    process.stdin.close()
    complaints = (await asyncio.wait_for(complaining, 60)).decode().strip()
    code = await process.wait()
    if code or complaints:
        run.faults.append(f"the servers ended with code {code} and said: {complaints[-2000:]}")
    return _report(run, memory, took, vms, seed)


def _report(run: Soak, memory: list[int], took: float, vms: int, seed: int) -> bool:
    third = max(len(memory) // 3, 1)
    early, late = statistics.median(memory[third : 2 * third] or memory), statistics.median(memory[-third:])
    flat = late <= early * (1 + _MARGIN) + _MARGIN_BYTES
    total = sum(run.answers.values())
    print(f"{vms} VMs, seed {seed}: {total:,} answers in {took:.0f} s ({total / took:,.0f}/s)")
    for (what, status), count in sorted(run.answers.items()):
        print(f"  {what:8} {status} {count:>10,}")
    print(f"memory of the servers: {early / 2**20:.1f} MiB in the middle third, {late / 2**20:.1f} MiB in the last")
    print("flat" if flat else f"NOT FLAT: grew by {(late / early - 1) * 100:.1f} %")
    for fault in run.faults:
        print(f"FAULT {fault}")
    return flat and not run.faults


def main() -> int:
    if sys.argv[1:2] == ["child"]:
        asyncio.run(_servers(int(sys.argv[2])))
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak_propolis")
    parser.add_argument("--vms", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    return 0 if asyncio.run(soak(options.vms, options.seconds, options.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
