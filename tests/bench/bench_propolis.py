"""The Propolis API against bare aiohttp handlers, side by side in one run.

    python -m tests.bench.bench_propolis [ROUNDS]

(e) `PUT /instance/state` per second against a handler that decodes the same body and answers 204.
(f) monitor wake-up: a thousand open polls, one reboot; how long until each has its answer, against a handler that
    waits on a future and answers a constant. Servers run in a process of their own each, on a core of their own.
"""

import asyncio
import json
import statistics
import sys
import time

import msgspec
from aiohttp import web

from nexus_client.dropshot.text import SocketAddress
from propolis_stub.server.serve import start
from propolis_stub.types import RequestKind
from tests.bench import wire

_BODY = {
    "properties": {
        "id": "11111111-1111-4111-8111-111111111111",
        "name": "vm",
        "description": "",
        "metadata": {
            "project_id": "22222222-2222-4222-8222-222222222222",
            "silo_id": "33333333-3333-4333-8333-333333333333",
            "sled_id": "44444444-4444-4444-8444-444444444444",
            "sled_model": "sim",
            "sled_revision": 1,
            "sled_serial": "S1",
        },
    },
    "init": {
        "method": "Spec",
        "value": {
            "spec": {
                "board": {"chipset": {"type": "i440_fx", "value": {"enable_pcie": False}}, "cpus": 1, "memory_mb": 1},
                "components": {},
            }
        },
    },
}
_IN_FLIGHT = 32
_PATIENCE_S = 60.0

Figures = tuple[str, float, float, float, str, float | None, bool]
"""name, ours, floor, ratio, unit, aim, whether the aim is a maximum: the fields of `tests.bench.__main__.Row`."""


# --- servers, as processes of their own ---------------------------------------------------------------------------


def _say(**values):
    print(json.dumps(values), flush=True)


async def _until_stdin_closes():
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _ours():
    running = await start(SocketAddress("127.0.0.1", 0), base_paces=False)
    _say(address=running.api.address)
    await _until_stdin_closes()
    await running.close()


async def _floor():
    """As bare as aiohttp's low-level server lets it be: decode the body, answer; or wait for a future, answer."""
    requested = msgspec.json.Decoder(RequestKind)
    asked = msgspec.json.Decoder(dict[str, int])
    waiting: list[asyncio.Future] = []
    gen = 3
    constant = b'{"gen":5,"state":"Running","migration":{"migration_in":null,"migration_out":null}}'

    async def handler(request):
        nonlocal gen
        body = await request.read()
        if request.path == "/instance/state":
            if requested.decode(body) is RequestKind.REBOOT:
                gen += 2
                for future in waiting:
                    future.set_result(None)
                waiting.clear()
            return web.Response(status=204)
        if request.path == "/instance/state-monitor" and asked.decode(body)["gen"] > gen:
            future = asyncio.get_running_loop().create_future()
            waiting.append(future)
            await future
        return web.Response(body=constant, content_type="application/json")

    runner = web.ServerRunner(web.Server(handler, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    _say(address="{}:{}".format(*runner.addresses[0][:2]))
    await _until_stdin_closes()
    await runner.cleanup()


class _Server:
    """A server process; ends when its stdin closes."""

    def __init__(self, role: str) -> None:
        self.role = role

    async def __aenter__(self) -> str:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.bench_propolis",
            "child",
            self.role,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.role} server ended with code {await self.process.wait()}")
        return str(json.loads(line)["address"])

    async def __aexit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(10):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


# --- clients ------------------------------------------------------------------------------------------------------


def _request(method: str, path: str, body: bytes) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: x\r\napi-version: 5.0.0\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class _One(asyncio.Protocol):
    """One request on one connection; `answered` gets the time of its answer."""

    def __init__(self, request: bytes, answered) -> None:
        self.request, self.answered = request, answered
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lowered = self.buffer[:end].lower()
        at = lowered.find(b"content-length:")
        size = int(lowered[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) >= end + 4 + size:
            self.answered(time.perf_counter(), self.buffer)
            self.transport.close()


async def _once(address: str, method: str, path: str, body: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    done = asyncio.get_running_loop().create_future()
    await asyncio.get_running_loop().create_connection(
        lambda: _One(_request(method, path, body), lambda _when, answer: done.set_result(answer)), host, int(port)
    )
    return bytes(await asyncio.wait_for(done, _PATIENCE_S))


async def _run_vm(address: str) -> None:
    await _once(address, "PUT", "/instance", json.dumps(_BODY).encode())
    await _once(address, "PUT", "/instance/state", b'"Run"')


async def _rate(address: str, seconds: float) -> float:
    requests = [_request("PUT", "/instance/state", b'"Run"')]
    return float((await wire.load(address, requests, _IN_FLIGHT, seconds))["rate"])


async def _wake(address: str, polls: int, gen: int) -> tuple[float, float]:
    """Milliseconds from the reboot request to the median and to the last answer of `polls` open calls."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    answers: list[float] = []
    over = loop.create_future()

    def answered(when: float, answer: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 200"):
            over.set_exception(RuntimeError(f"a bad answer: {answer[:200]!r}"))
            return
        answers.append(when)
        if len(answers) == polls:
            over.set_result(None)

    request = _request("GET", "/instance/state-monitor", json.dumps({"gen": gen}).encode())
    for _ in range(polls):
        await loop.create_connection(lambda: _One(request, answered), host, int(port))
    await _once(address, "GET", "/instance/state-monitor", b'{"gen":0}')  # behind the polls: they have all been read
    began = time.perf_counter()
    await _once(address, "PUT", "/instance/state", b'"Reboot"')
    await asyncio.wait_for(over, _PATIENCE_S)
    return (statistics.median(answers) - began) * 1e3, (max(answers) - began) * 1e3


async def _both(measure, rounds: int):
    """`measure(address, round)` of ours and the floor in turns; the first round warms up."""
    taken = {"ours": [], "floor": []}
    async with _Server("ours") as ours, _Server("floor") as floor:
        addresses = {"ours": ours, "floor": floor}
        for address in addresses.values():
            await _run_vm(address)
        for number in range(rounds + 1):
            for name in sorted(addresses, reverse=bool(number % 2)):
                figure = await measure(addresses[name], number)
                if number:
                    taken[name].append(figure)
    return taken


def bench_put_state(rounds: int = 5, seconds: float = 1.5) -> list[Figures]:
    """(e)"""
    taken = asyncio.run(_both(lambda address, _number: _rate(address, seconds), rounds))
    ours, floor = (statistics.median(taken[name]) for name in ("ours", "floor"))
    return [("(e) Propolis PUT state; floor: low-level server", ours, floor, ours / floor, "req/s", None, False)]


def bench_monitor(rounds: int = 5, polls: int = 1_000) -> list[Figures]:
    """(f)"""
    taken = asyncio.run(_both(lambda address, number: _wake(address, polls, 5 + 2 * number), rounds))
    rows: list[Figures] = []
    for index, what in enumerate(("median", "last")):
        ours, floor = (statistics.median(each[index] for each in taken[name]) for name in ("ours", "floor"))
        rows.append(
            (f"(f) monitor wake-up, {polls:,} open polls, {what}", ours, floor, ours / floor, "ms", None, True)
        )
    return rows


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["child"]:
        asyncio.run({"ours": _ours, "floor": _floor}[arguments[1]]())
        return
    rounds = int(arguments[0]) if arguments else 5
    for name, ours, floor, ratio, unit, _aim, _at_most in [*bench_put_state(rounds), *bench_monitor(rounds)]:
        print(f"{name:56}{ours:>12,.1f}{floor:>12,.1f}  {unit:8}{ratio:>7.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
