"""RFB 3.8 as far as a viewer needs it to show a black screen: no guest screen exists here (PR 4.2).

Bytes in, bytes out; frames and sockets are somebody else's. Keys and pointer events are read and ignored.

Read next: server/streams.py.
"""

from __future__ import annotations

import struct
from typing import Final

from propolis_stub.errors import PropolisError

WIDTH: Final = 320
HEIGHT: Final = 200
NAME: Final = b"propolis-stub: no screen"
_VERSION: Final = b"RFB 003.008\n"
_PIXEL_FORMAT: Final = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
_SECURITY_NONE: Final = 1
_CUT_TEXT_MAX: Final = 1 << 16
"""Of a clipboard that a viewer sends: longer is no clipboard but a flood."""


class RfbError(PropolisError):
    """The viewer does not speak RFB 3.8: its connection is dropped."""


class Rfb:
    """The server's side of one viewer's connection. `greeting` first, then feed it."""

    def __init__(self) -> None:
        self._buffer = b""
        self._stage = 0  # 0 version, 1 security, 2 client init, 3 messages
        self._bytes_per_pixel = 4

    greeting: Final = _VERSION

    def feed(self, data: bytes) -> bytes:
        """What to answer. Raises `RfbError`."""
        self._buffer += data
        out = b""
        while True:
            needed = self._needed()
            if needed is None or len(self._buffer) < needed:
                return out
            item, self._buffer = self._buffer[:needed], self._buffer[needed:]
            out += self._answer(item)

    def _needed(self) -> int | None:
        """How long the next item is; None: not even that is known yet."""
        if self._stage < 3:
            return (len(_VERSION), 1, 1)[self._stage]
        if not self._buffer:
            return None
        kind = self._buffer[0]
        fixed = {0: 20, 3: 10, 4: 8, 5: 6}.get(kind)
        if fixed is not None:
            return fixed
        if kind == 2:  # SetEncodings
            return 4 + 4 * struct.unpack_from(">H", self._buffer, 2)[0] if len(self._buffer) >= 4 else None
        if kind == 6:  # ClientCutText
            if len(self._buffer) < 8:
                return None
            (length,) = struct.unpack_from(">I", self._buffer, 4)
            if length > _CUT_TEXT_MAX:
                raise RfbError(f"a clipboard of {length} bytes")
            return 8 + int(length)
        raise RfbError(f"unknown message {kind}")

    def _answer(self, item: bytes) -> bytes:
        if self._stage == 0:
            if not item.startswith(b"RFB 003.008"):
                raise RfbError(f"not RFB 3.8: {item!r}")
            self._stage = 1
            return bytes([1, _SECURITY_NONE])
        if self._stage == 1:
            if item[0] != _SECURITY_NONE:
                raise RfbError(f"security type {item[0]}")
            self._stage = 2
            return struct.pack(">I", 0)
        if self._stage == 2:
            self._stage = 3
            return struct.pack(">HH", WIDTH, HEIGHT) + _PIXEL_FORMAT + struct.pack(">I", len(NAME)) + NAME
        if item[0] == 0:  # SetPixelFormat
            if item[4] not in {8, 16, 32}:
                raise RfbError(f"{item[4]} bits per pixel")
            self._bytes_per_pixel = item[4] // 8
        elif item[0] == 3:
            return self._update(item)
        return b""

    def _update(self, item: bytes) -> bytes:
        """Nothing ever changes: only a request for everything is answered, with black."""
        incremental, x, y, width, height = struct.unpack_from(">BHHHH", item, 1)
        width, height = min(width, max(WIDTH - x, 0)), min(height, max(HEIGHT - y, 0))
        if incremental or not width or not height:
            return b""
        head = struct.pack(">BxH", 0, 1) + struct.pack(">HHHHi", x, y, width, height, 0)
        return head + bytes(width * height * self._bytes_per_pixel)
