"""The migration protocol's frames: a payload followed by one trailing tag byte (PR 4.5).

Integers are u64, little-endian. What cannot be read becomes `Malformed`: the machine decides what that means.

Read before: migration/messages.py. Read next: migration/link.py.
"""

from __future__ import annotations

import struct
from typing import Final

from propolis_stub.migration import messages as m

PAGE_BYTES: Final = 4096
FRAME_BYTES_MAX: Final = 16 << 20
"""Of one frame. The biggest one of ours is a console history: twice a MiB, in base 64, in JSON."""

_RANGE: Final = struct.Struct("<QQ")
_EMPTY: Final[dict[int, type[m.Okay | m.MemDone]]] = {0: m.Okay, 10: m.MemDone}
_TEXTS: Final[dict[int, type[m.Error | m.Serialized]]] = {1: m.Error, 2: m.Serialized}
_RANGES: Final[dict[int, type[m.MemQuery | m.MemEnd]]] = {5: m.MemQuery, 7: m.MemEnd}
_BITMAPS: Final[dict[int, type[m.MemOffer | m.MemFetch | m.MemXfer]]] = {6: m.MemOffer, 8: m.MemFetch, 9: m.MemXfer}
_BLOB: Final = 3
_PAGE: Final = 4
TAGS: Final[dict[type, int]] = {
    **{kind: tag for group in (_EMPTY, _TEXTS, _RANGES, _BITMAPS) for tag, kind in group.items()},
    m.Blob: _BLOB,
    m.Page: _PAGE,
}


def encode(message: m.Message) -> bytes:
    """One binary frame. `Text` is a text frame and `Malformed` none at all: both are a caller's bug here."""
    match message:
        case m.Okay() | m.MemDone():
            payload = b""
        case m.Error(text) | m.Serialized(text):
            payload = text.encode()
        case m.Blob(data) | m.Page(data):
            payload = data
        case m.MemQuery(start, end) | m.MemEnd(start, end):
            payload = _RANGE.pack(start, end)
        case m.MemOffer(start, end, bitmap) | m.MemFetch(start, end, bitmap) | m.MemXfer(start, end, bitmap):
            payload = _RANGE.pack(start, end) + bitmap
        case _:
            raise AssertionError(f"{type(message).__name__} is no binary frame")
    return payload + bytes([TAGS[type(message)]])


def decode(frame: bytes) -> m.Message:
    """One binary frame, or `Malformed` saying why not."""
    if not frame:
        return m.Malformed("an empty frame has no tag")
    payload, tag = frame[:-1], frame[-1]
    if tag in _EMPTY:
        return _EMPTY[tag]() if not payload else m.Malformed(f"tag {tag} has no payload, got {len(payload)} bytes")
    if tag in _TEXTS:
        try:
            return _TEXTS[tag](payload.decode())
        except UnicodeDecodeError:
            return m.Malformed(f"tag {tag}: not UTF-8")
    if tag == _BLOB:
        return m.Blob(payload)
    if tag == _PAGE:
        return m.Page(payload) if len(payload) == PAGE_BYTES else m.Malformed(f"a page of {len(payload)} bytes")
    if tag in _RANGES or tag in _BITMAPS:
        if len(payload) < _RANGE.size or (tag in _RANGES and len(payload) != _RANGE.size):
            return m.Malformed(f"tag {tag}: {len(payload)} bytes")
        start, end = _RANGE.unpack_from(payload)
        return _RANGES[tag](start, end) if tag in _RANGES else _BITMAPS[tag](start, end, payload[_RANGE.size :])
    return m.Malformed(f"unknown tag {tag}")
