"""What two Propolis servers say to each other while a VM migrates: one class per frame (PR 4.5).

`Text` is a text frame of the handshake; `Malformed` stands for what the codec could not read.

Read before: waiting.py. Read next: migration/frames.py, migration/script.py.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Text:
    """A text frame. Legal in the handshake only."""

    text: str


@attrs.frozen
class Okay:
    pass


@attrs.frozen
class Error:
    """What the other side says before it gives up: RON of a migrate error, opaque here."""

    text: str


@attrs.frozen
class Serialized:
    text: str


@attrs.frozen
class Blob:
    data: bytes


@attrs.frozen
class Page:
    data: bytes  # exactly 4096 bytes


@attrs.frozen
class MemQuery:
    start: int
    end: int


@attrs.frozen
class MemOffer:
    start: int
    end: int
    bitmap: bytes


@attrs.frozen
class MemEnd:
    start: int
    end: int


@attrs.frozen
class MemFetch:
    start: int
    end: int
    bitmap: bytes


@attrs.frozen
class MemXfer:
    start: int
    end: int
    bitmap: bytes


@attrs.frozen
class MemDone:
    pass


@attrs.frozen
class Malformed:
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
