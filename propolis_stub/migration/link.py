"""The connection between two Propolis processes while a VM migrates (PR 4.5).

`PeerLink` turns websocket frames into messages of the core and back. It knows nothing of VMs: whoever makes one
gives it two functions, for a message and for the end. `dial` connects as the target does. No keep-alive pings:
the real server takes one for a broken codec.

Read before: migration/frames.py. Read next: server/instance.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final
from uuid import UUID

import aiohttp
import attrs
from aiohttp import WSMsgType

from nexus_client.dropshot import web
from propolis_stub.migration.frames import FRAME_BYTES_MAX, decode, encode
from propolis_stub.migration.messages import Malformed, Message, Text

API_VERSION: Final = "1.0.0"
"""What a target says in its `api-version` header, whatever it speaks itself."""

CONNECT_TIMEOUT_S: Final = 10.0
"""To connect and upgrade; a source answers an upgrade at once. After that there is no time-out (PR 3.5)."""

_BACKLOG_MAX: Final = 1_024
"""Messages not yet written. The dialogue allows some dozens; more means that the peer does not read."""

Ws = web.WebSocketResponse | aiohttp.ClientWebSocketResponse
Deliver = Callable[[Message], None]
Lost = Callable[[str], None]


@attrs.frozen
class _Close:
    code: int | None


class PeerLink:
    """One connection. `send` and `close` may be called before it is up: what they say waits for it."""

    def __init__(self, deliver: Deliver, lost: Lost) -> None:
        self._deliver = deliver
        self._lost = lost
        self._out: asyncio.Queue[Message | _Close] = asyncio.Queue()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def send(self, message: Message) -> None:
        """Sends when it can. A peer that does not read ends the connection."""
        if self._closing:
            return
        self._out.put_nowait(message)
        if self._out.qsize() > _BACKLOG_MAX:
            self.close()

    def close(self, code: int | None = None) -> None:
        """After what was sent: a close frame with this code, or the bare end of the connection."""
        if not self._closing:
            self._closing = True
            self._out.put_nowait(_Close(code))

    def abort(self) -> None:
        """At once, whatever is under way."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()

    def dial(self, address: str, migration_id: UUID) -> asyncio.Task[None]:
        """Connects to the source at `address` (`ip:port`) and speaks with it, in a task that never raises."""
        self._task = asyncio.ensure_future(self._dial(address, migration_id))
        return self._task

    async def _dial(self, address: str, migration_id: UUID) -> None:
        url = f"ws://{address}/instance/migrate/{migration_id}/start"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=None)
        # A session of its own: it has no cookies of others, and its pool nothing else to keep.
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    ws = await session.ws_connect(
                        url,
                        headers={"api-version": API_VERSION},
                        autoping=False,
                        autoclose=False,
                        heartbeat=None,
                        compress=0,
                        max_msg_size=FRAME_BYTES_MAX,
                    )
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as problem:
                self._ended(f"cannot reach the source at {address}: {problem!r}")
                return
            try:
                await self.run(ws)
            finally:
                await session.close()  # first: so that no close frame goes out
                await ws.close()  # what the answer to the upgrade still holds of the connection

    async def run(self, ws: Ws) -> None:
        """Speaks until either side ends it. `lost` is called once, unless this side closed."""
        parts = [asyncio.ensure_future(self._read(ws)), asyncio.ensure_future(self._write(ws))]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            # also when this task itself is cancelled: neither of them may outlive the connection
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            self._ended("connection lost")

    async def _read(self, ws: Ws) -> None:
        while True:
            message = await ws.receive()
            if message.type is WSMsgType.TEXT:
                self._deliver(Text(message.data))
            elif message.type is WSMsgType.BINARY:
                self._deliver(decode(message.data))
            elif message.type in {WSMsgType.PING, WSMsgType.PONG}:
                self._deliver(Malformed(f"a {message.type.name} frame"))
            elif message.type is WSMsgType.CLOSE:
                self._deliver(Malformed(f"closed by the peer with code {message.data}"))
                return
            else:
                return

    async def _write(self, ws: Ws) -> None:
        while True:
            item = await self._out.get()
            try:
                if isinstance(item, _Close):
                    if item.code is not None:
                        await ws.close(code=item.code)
                    return
                if isinstance(item, Text):
                    await ws.send_str(item.text)
                else:
                    await ws.send_bytes(encode(item))
            except (ConnectionError, RuntimeError):
                return  # the reader sees the end too

    def _ended(self, why: str) -> None:
        if not self._closing:
            self._closing = True
            self._lost(why)
