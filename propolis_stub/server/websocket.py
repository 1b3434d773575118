"""The websocket end of a Propolis listener, as strict and as generous as the original's (PR 4.3, 4.4).

aiohttp takes unmasked frames of clients and knows no limit of one frame. Both are decided by the head of a frame, so
`FrameHeads` reads the heads of what comes in before aiohttp's own reader gets it, and lets nothing pass from the
first frame on that will not do.

Read next: server/base.py.
"""

from __future__ import annotations

# ruff: noqa: SLF001 -- aiohttp has no seam there; tests/unit/propolis_stub/server/test_websocket.py holds these names
import base64
import hashlib
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import WebSocketError, WSCloseCode
from aiohttp._websocket.writer import WebSocketWriter
from aiohttp.http import WS_KEY
from aiohttp.web import BaseRequest, WebSocketResponse
from multidict import CIMultiDict

FRAME_BYTES_MAX: Final = 16 << 20
MESSAGE_BYTES_MAX: Final = 64 << 20
"""The limits of the original's websocket library (tungstenite)."""

_HEAD_MIN: Final = 2
_LENGTH_BYTES: Final = {126: 2, 127: 8}
_MASK_BYTES: Final = 4
_HEAD_MAX: Final = 14


class Reader(Protocol):
    """What aiohttp feeds with the bytes of a connection. The answer: whether it is over, and what is left."""

    def feed_data(self, data: bytes, /) -> tuple[bool, bytes]: ...
    def feed_eof(self) -> None: ...


class FrameHeads:
    """Between the connection and `reader`. `refuse` is told the offence; nothing is read after one."""

    def __init__(self, reader: Reader, refuse: Callable[[WebSocketError], None]) -> None:
        self._reader = reader
        self._refuse = refuse
        self._head = b""  # of a frame whose head has not come whole; the reader has these bytes already
        self._to_come = 0  # bytes of the payload under way
        self._over = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if self._over:
            return _OVER
        at = 0
        while True:
            skipped = min(self._to_come, len(data) - at)
            self._to_come -= skipped
            at += skipped
            if at == len(data):
                return self._reader.feed_data(data)
            head = self._head + bytes(data[at : at + _HEAD_MAX - len(self._head)])
            offence = _offence(head)
            if offence is not None:
                self._over = True
                self._reader.feed_data(data[:at])
                self._refuse(offence)
                return _OVER
            size = _head_size(head)
            if len(head) < size:
                self._head = head
                return self._reader.feed_data(data)
            at += size - len(self._head)
            self._to_come = _payload_bytes(head)
            self._head = b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()


_OVER: Final = (True, b"")


def _head_size(head: bytes) -> int:
    """Of a masked frame; at least as much as it takes to know."""
    return _HEAD_MIN if len(head) < _HEAD_MIN else _HEAD_MIN + _LENGTH_BYTES.get(head[1] & 0x7F, 0) + _MASK_BYTES


def _payload_bytes(head: bytes) -> int:
    more = _LENGTH_BYTES.get(head[1] & 0x7F, 0)
    return int.from_bytes(head[_HEAD_MIN : _HEAD_MIN + more]) if more else head[1] & 0x7F


def _offence(head: bytes) -> WebSocketError | None:
    """What is wrong with a frame, as far as its head has come."""
    if len(head) < _HEAD_MIN:
        return None
    if not head[1] & 0x80:
        return WebSocketError(WSCloseCode.PROTOCOL_ERROR, "a client's frame is not masked")  # RFC 6455 5.1
    if len(head) >= _head_size(head) - _MASK_BYTES and _payload_bytes(head) > FRAME_BYTES_MAX:
        return WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, f"a frame of more than {FRAME_BYTES_MAX} bytes")
    return None


class Websocket(WebSocketResponse):
    """aiohttp's, with `FrameHeads` before its reader. Whoever serves it answers a close frame itself."""

    def __init__(self, *, timeout: float, autoping: bool) -> None:
        # aiohttp refuses a message that *reaches* its limit
        super().__init__(
            timeout=timeout, autoclose=False, autoping=autoping, compress=False, max_msg_size=MESSAGE_BYTES_MAX + 1
        )

    def _handshake(self, request: BaseRequest) -> tuple[CIMultiDict[str], str | None, int, bool]:
        """Any key will do, also a short one, and the answer says `Upgrade`, as the original's (DS 3)."""
        digest = hashlib.sha1(request.headers.get("sec-websocket-key", "").encode() + WS_KEY, usedforsecurity=False)
        headers = {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": base64.b64encode(digest.digest()).decode(),
        }
        return CIMultiDict(headers), None, 0, False

    def _post_start(self, request: BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        connection = request.protocol
        # What the client sent together with its upgrade goes through our hands too.
        early, connection._message_tail = connection._message_tail, b""
        super()._post_start(request, protocol, writer)
        assert self._reader is not None
        heads = FrameHeads(connection._payload_parser, self._reader.set_exception)
        connection._payload_parser = heads
        if early:
            heads.feed_data(early)
