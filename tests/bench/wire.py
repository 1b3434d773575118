"""The far ends of the socket benches: a load generator and a Nexus sink, both on bare asyncio protocols.

They must cost far less than what they measure; neither parses more of HTTP than the two known peers need.
"""

import asyncio
import time
from typing import ClassVar


class _Caller(asyncio.Protocol):
    """One connection that always has one request under way."""

    def __init__(self, requests: list[bytes], first: int, step: int, done: "Tally"):
        self.requests, self.next, self.step, self.done = requests, first, step, done
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        self.send()

    def send(self):
        self.transport.write(self.requests[self.next % len(self.requests)])
        self.next += self.step

    def data_received(self, data):
        buffer = self.buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        lowered = buffer[:end].lower()
        at = lowered.find(b"content-length:")
        size = int(lowered[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(buffer) < end + 4 + size:
            return
        self.buffer = b""
        self.done.count(buffer)
        if self.done.stopped:
            self.transport.close()
        else:
            self.send()

    def connection_lost(self, _error):
        self.done.lost()


class Tally:
    def __init__(self, connections: int):
        self.answers, self.bad, self.open = 0, 0, connections
        self.stopped = False
        self.first_bad = b""
        self.over = asyncio.get_running_loop().create_future()

    def count(self, answer: bytes) -> None:
        self.answers += 1
        if not answer.startswith(b"HTTP/1.1 20"):
            self.bad += 1
            self.first_bad = self.first_bad or answer

    def lost(self) -> None:
        self.open -= 1
        if self.open == 0 and not self.over.done():
            self.over.set_result(None)


def put_request(host: str, path: str, body: bytes) -> bytes:
    head = f"PUT {path} HTTP/1.1\r\nhost: {host}\r\napi-version: 48.0.0\r\ncontent-type: application/json\r\n"
    return f"{head}accept: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def load(address: str, requests: list[bytes], connections: int, seconds: float) -> dict:
    """Requests per second of `connections` callers that each wait for their answer before they ask again."""
    loop = asyncio.get_running_loop()
    host, _, port = address.rpartition(":")
    tally = Tally(connections)
    began = time.perf_counter()
    for n in range(connections):
        await loop.create_connection(
            lambda n=n: _Caller(requests, n, connections, tally), host.strip("[]"), int(port)
        )
    await asyncio.sleep(seconds)
    tally.stopped = True
    await tally.over
    took = time.perf_counter() - began
    if tally.bad:
        raise RuntimeError(f"{tally.bad} bad answers, the first: {tally.first_bad[:300]!r}")
    return {"rate": tally.answers / took, "requests": tally.answers}


class Sink(asyncio.Protocol):
    """Answers 204 to whatever has a content-length. `open`: every connection of this process's sinks."""

    open: ClassVar[set[asyncio.Transport]] = set()

    def __init__(self):
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport
        self.open.add(transport)

    def connection_lost(self, _):
        self.open.discard(self.transport)

    def data_received(self, data):
        buffer = self.buffer + data if self.buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            lowered = buffer[:end].lower()
            at = lowered.find(b"content-length:")
            size = int(lowered[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(buffer) < end + 4 + size:
                break
            buffer = buffer[end + 4 + size :]
            self.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.buffer = buffer


async def sink() -> tuple[asyncio.Server, str]:
    server = await asyncio.get_running_loop().create_server(Sink, "::1", 0, backlog=1024)
    return server, f"[::1]:{server.sockets[0].getsockname()[1]}"
