"""The bytes of a region, as far as anybody wrote some: sparse, bounded, cheap to copy (SR 5.2: bulk writes are kept).

The three regions of a disk and all their snapshots share the same immutable pieces, so a byte is in memory once.

Read before: core/crucible/values.py.
"""

from __future__ import annotations

from typing import Final

import attrs

PIECE: Final = 64 * 1024
"""Bytes of a piece: a bulk write has at most eight of them, and a block of 4096 written alone wastes little."""

KEPT_MAX: Final = 1024 * 1024 * 1024
"""Bytes that all regions of a process keep, each region counted for itself: images of dev clusters come through with
their hashes, and a client that writes for days does not fill the memory."""

_ZEROS: Final = bytes(PIECE)


@attrs.define(eq=False)
class Memory:
    """What is left of `KEPT_MAX`, for all regions of a process together. `forgot`: some writes were not kept."""

    left: int = KEPT_MAX
    forgot: bool = False


class Forgotten(Exception):
    """These bytes were written and could not be kept: nobody may be told zeros in their place."""


class Blocks:
    """Bytes from 0 on without an end; what was never written is zeros."""

    __slots__ = ("_all_lost", "_lost", "_memory", "_pieces")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._pieces: dict[int, bytes] = {}
        self._lost: set[int] = set()  # pieces of which a write was not kept
        self._all_lost = False  # every piece that was not written since

    def kept(self) -> int:
        """Bytes in memory."""
        return sum(PIECE for piece in self._pieces.values() if piece is not _ZEROS)

    def has(self, offset: int) -> bool:
        """Whether anything was ever written to the piece around `offset`, zeros included."""
        number = offset // PIECE
        return self._all_lost or number in self._pieces or number in self._lost

    def any_written(self) -> bool:
        return self._all_lost or bool(self._pieces or self._lost)

    def write(self, offset: int, data: bytes) -> None:
        """Keep `data`, or remember that it could not be kept."""
        at = 0
        while at < len(data):
            number, start = divmod(offset + at, PIECE)
            part = data[at : at + PIECE - start]
            at += len(part)
            self._put(number, start, part)

    def _put(self, number: int, start: int, part: bytes) -> None:
        if self._all_lost and number not in self._pieces and len(part) < PIECE:
            self._lost.add(number)
            return
        old = self._pieces.get(number, _ZEROS)
        new = part if len(part) == PIECE else old[:start] + part + old[start + len(part) :]
        if len(part) == PIECE:
            self._lost.discard(number)
        self._keep(number, _ZEROS if new == _ZEROS else new)

    def _keep(self, number: int, piece: bytes) -> None:
        """Zeros cost nothing: all their pieces are one."""
        cost = (PIECE if piece is not _ZEROS else 0) - (
            PIECE if self._pieces.get(number, _ZEROS) is not _ZEROS else 0
        )
        if cost > self._memory.left:
            self._memory.forgot = True
            self._lost.add(number)
            return
        self._memory.left -= cost
        self._pieces[number] = piece

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes. Raises `Forgotten`."""
        found: list[bytes] = []
        while size > 0:
            number, start = divmod(offset, PIECE)
            if number in self._lost or (self._all_lost and number not in self._pieces):
                raise Forgotten(f"bytes {number * PIECE} to {(number + 1) * PIECE} were not kept")
            piece = self._pieces.get(number, _ZEROS)[start : start + size]
            found.append(piece)
            offset += len(piece)
            size -= len(piece)
        return b"".join(found)

    def copy(self) -> Blocks:
        """The same bytes, from now on independent. Where the memory does not suffice, pieces count as forgotten."""
        made = Blocks(self._memory)
        made._lost = set(self._lost)
        made._all_lost = self._all_lost
        for number, piece in self._pieces.items():
            made._keep(number, piece)
        return made

    def lose(self) -> None:
        """Whatever was written is gone, after a restart: from now on it counts as not kept."""
        self.clear()
        self._all_lost = True

    def clear(self) -> None:
        """All zeros again; the memory is given back."""
        self._memory.left += self.kept()
        self._pieces.clear()
        self._lost.clear()
        self._all_lost = False
