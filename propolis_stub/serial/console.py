"""Serial console clients: each is a position in the one history (PR 4.4).

Nothing is queued per client. A client that reads too slowly falls behind in the history; when what it needs is
forgotten it is dropped, as the original drops a replay that meets the gap. A stalled client stalls nobody here, in
the original all (docs/propolis.md).

Read before: serial/history.py. Read next: server/instance.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Final

import attrs
from aiohttp import WSMsgType

from nexus_client.dropshot import web
from propolis_stub.serial.history import HistoryGone, Serial

_LIVE_BYTES: Final = 1_024
_REPLAY_BYTES: Final = 16_384
_TYPED_BYTES: Final = 4_096
"""Given to the guest at once: some hundred microseconds of work at worst."""
_WAVE_GOODBYE_S: Final = 5.0
"""How long a client may take to read its last words before its connection is cut."""

Typed = Callable[[bytes], None]


@attrs.frozen
class Stopped:
    """The rundown began: close frame 1001."""


@attrs.frozen
class Moved:
    """The VM migrates: a text frame says where to, then the connection ends."""

    destination: str
    from_start: int

    @property
    def frame(self) -> str:
        return json.dumps({"Migrating": {"destination": self.destination, "from_start": self.from_start}})


class Console:
    """The console of one VM; lives from its ensure to its rundown."""

    def __init__(self, serial: Serial, typed: Typed) -> None:
        self.serial = serial
        self.ended: Stopped | Moved | None = None
        self._typed = typed
        self._wakes: set[asyncio.Event] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def clients(self) -> int:
        return len(self._wakes)

    def output(self, data: bytes) -> None:
        """The guest has written something."""
        self.serial.history.add(data)
        self._wake()

    def end(self, how: Stopped | Moved) -> None:
        """No live output from now on; every client gets its last words. Only the first end counts for `Moved`."""
        if self.ended is None or isinstance(how, Stopped):
            self.ended = how
            self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def serve(self, ws: web.WebSocketResponse, start: int | None) -> None:
        """One client. `start`: absolute offset of the replay; None: only what comes from now on."""
        joined_late = self.ended is not None
        wake = asyncio.Event()
        self._wakes.add(wake)
        writer = asyncio.ensure_future(self._write(ws, start, wake, say_where=not joined_late))
        try:
            while True:
                message = await ws.receive()
                if message.type is WSMsgType.BINARY:
                    await self._type(message.data)
                elif message.type is WSMsgType.CLOSE:
                    with contextlib.suppress(ConnectionError):
                        await ws.send_frame(b"", WSMsgType.CLOSE)  # a close without code, as the original's
                    return
                elif message.type in {WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR}:
                    return
        finally:
            self._wakes.discard(wake)
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await writer

    async def _type(self, data: bytes) -> None:
        """In pieces, as a serial line would bring them: a message may have 64 MiB, and others have their turns."""
        for start in range(0, len(data), _TYPED_BYTES):
            if self.ended is not None:
                return
            self._typed(data[start : start + _TYPED_BYTES])
            await asyncio.sleep(0)

    async def _write(
        self, ws: web.WebSocketResponse, start: int | None, wake: asyncio.Event, *, say_where: bool
    ) -> None:
        history = self.serial.history
        position = history.total if start is None else start
        size = _LIVE_BYTES if start is None else _REPLAY_BYTES
        while True:
            while position < history.total:
                try:
                    data = history.read(position, size)
                except HistoryGone:
                    drop(ws)
                    return
                await ws.send_bytes(data)
                position += len(data)
            size = _LIVE_BYTES
            if self.ended is not None:
                break
            await wake.wait()
            wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WAVE_GOODBYE_S):
                if isinstance(self.ended, Stopped):
                    await ws.close(code=1001, message=b"VM stopped")
                elif say_where:
                    await ws.send_str(self.ended.frame)
        drop(ws)


def drop(ws: web.WebSocketResponse) -> None:
    """Ends the TCP connection after what was written, without a close frame."""
    request = getattr(ws, "_req", None)  # aiohttp keeps it private; there is no other way to its transport
    transport = None if request is None else request.transport
    if transport is not None:
        transport.close()
