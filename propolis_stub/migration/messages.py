"""What two Propolis servers say to each other while a VM migrates: one class per frame (PR 4.5).

`Text` is a text frame of the handshake; `Malformed` stands for what the codec could not read.

Read before: waiting.py. Read next: migration/frames.py, migration/script.py.
"""

from __future__ import annotations

from msgspec import Struct


class Text(Struct, frozen=True):
    """A text frame. Legal in the handshake only."""

    text: str


class Okay(Struct, frozen=True):
    pass


class Error(Struct, frozen=True):
    """What the other side says before it gives up: RON of a migrate error, opaque here."""

    text: str


class Serialized(Struct, frozen=True):
    text: str


class Blob(Struct, frozen=True):
    data: bytes


class Page(Struct, frozen=True):
    data: bytes  # exactly 4096 bytes


class MemQuery(Struct, frozen=True):
    start: int
    end: int


class MemOffer(Struct, frozen=True):
    start: int
    end: int
    bitmap: bytes


class MemEnd(Struct, frozen=True):
    start: int
    end: int


class MemFetch(Struct, frozen=True):
    start: int
    end: int
    bitmap: bytes


class MemXfer(Struct, frozen=True):
    start: int
    end: int
    bitmap: bytes


class MemDone(Struct, frozen=True):
    pass


class Malformed(Struct, frozen=True):
    """Not a message: the codec could not read a frame, or a frame kind came that the protocol forbids."""

    why: str


Message = (
    Text
    | Okay
    | Error
    | Serialized
    | Blob
    | Page
    | MemQuery
    | MemOffer
    | MemEnd
    | MemFetch
    | MemXfer
    | MemDone
    | Malformed
)
