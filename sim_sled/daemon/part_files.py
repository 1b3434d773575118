"""The files of a recording's folder, for whoever writes them: `part-00001.jsonl` and on.

Read next: daemon/recorder.py, daemon/scrubbing.py.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import SEEK_END
from pathlib import Path
from typing import Any, Final

from sim_sled.recording import lines

PART: Final = "part-{:05}.jsonl"
PART_BYTES: Final = 64 * 1024 * 1024
"""Of a part: what an editor still opens. The next one begins then."""


TAIL_BYTES: Final = 2 * 1024 * 1024
"""Of a part, in which a line ends: the largest body has one MiB."""
_BLOCKS_MAX: Final = 1024
"""That a kernel takes at once."""
ROOM: Final = 4
"""This part of all bytes is free after a checkpoint; the next one is due after half of that."""


class CannotRecord(ValueError):
    """There can be no recording of this daemon, or not in this folder; the text says why."""


class PartFiles:
    """A folder of one's own. `begin`, then `write`, then `close`. `total_bytes`: of what stays; see `checkpoint`."""

    def __init__(self, folder: Path, part_bytes: int = PART_BYTES, total_bytes: int | None = None) -> None:
        """Raises `CannotRecord` if the folder is not empty or cannot be written."""
        self.folder = folder
        self.of = secrets.token_hex(8)
        """Which recording it is: all its parts say so."""
        self._part_bytes = part_bytes
        self._total_bytes = total_bytes
        self._part = 1
        self._older: deque[tuple[Path, int, bool]] = deque()
        """Parts that are whole: their bytes, and whether a replay can begin there."""
        self._begins = True
        self.bytes = 0
        """Of all parts."""
        self._in_part = 0
        """Bytes of its lines; `_size`: of the file."""
        self._size = 0
        self._file: Any = None
        with self.usable():
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise CannotRecord(f"{folder} is not empty: a recording has a folder of its own")

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Raises `CannotRecord` for an OSError."""
        try:
            yield
        except FileExistsError as error:
            raise CannotRecord(f"{self.folder} is not empty: another recording has just begun in it") from error
        except OSError as error:
            raise CannotRecord(f"cannot write {self.folder}: {error.strerror or error}") from error

    def begin(self) -> None:
        """The first part. OSError if it cannot be made."""
        # without a buffer of ours: what is written is the kernel's, and outlives this process
        self._file = (self.folder / PART.format(self._part)).open("xb", buffering=0)

    def write_all(self, blocks: Sequence[bytes | bytearray]) -> None:
        """Blocks of whole lines with their ends. OSError.

        In one call of the kernel, most of the time: after each the thread that wrote has to wait until the others of
        this process let it run again.
        """
        size = sum(map(len, blocks))
        if len(blocks) > _BLOCKS_MAX or self._in_part + size > self._part_bytes:
            for each in blocks:
                self.write(each)
            return
        done = os.writev(self._file.fileno(), blocks) if blocks else 0
        self._count(done)
        if done < size:
            self._out(b"".join(blocks)[done:])

    def write(self, block: bytes | bytearray) -> None:
        """Whole lines with their ends. OSError."""
        while self._in_part + len(block) > self._part_bytes:
            fit = block.rfind(b"\n", 0, max(self._part_bytes - self._in_part, 0)) + 1
            if not fit and not self._in_part:
                fit = block.find(b"\n") + 1
            self._out(block[:fit])
            block = block[fit:]
            if not block:
                return
            self._next_part(lines.Header(recording=lines.FORMAT, of=self.of, part=self._part + 1))
        self._out(block)

    def checkpoint(self, header: lines.Header) -> None:
        """A new part, at which a replay can begin. The oldest go until there is room for some more. OSError."""
        header.part = self._part + 1
        self._next_part(header)
        self._begins = True
        if self._total_bytes is None:
            return
        while self.bytes > self._total_bytes - self._total_bytes // ROOM:
            again = next((at for at, (_, _, begins) in enumerate(self._older) if at and begins), len(self._older))
            if not again:
                return
            for _ in range(again):
                path, size, _ = self._older.popleft()
                path.unlink(missing_ok=True)
                self.bytes -= size

    def end(self, last: bytes) -> None:
        """The disk takes no more: `last` stands in the place of the last lines, as many as it takes; if the newest
        part has hardly more than its first line, or not even that, in the part before it. OSError.
        """
        newest = self.folder / PART.format(self._part)
        if not (newest.exists() and _ends_with(newest, last)) and self._older:
            newest.unlink(missing_ok=True)
            _ends_with(self._older[-1][0], last)

    def give_up(self) -> None:
        """Not even the first line could be written: who tries again, once there is room, finds the folder empty."""
        self.close()
        with suppress(OSError):
            (self.folder / PART.format(self._part)).unlink()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _next_part(self, header: lines.Header) -> None:
        self._file.close()
        self._older.append((self.folder / PART.format(self._part), self._size, self._begins))
        self._part += 1
        self._begins = False
        self._size = 0
        self.begin()
        self._out(lines.written(header) + b"\n")
        self._in_part = 0  # of lines: one that is as large as a part has one for itself

    def _count(self, size: int) -> None:
        self._in_part += size
        self._size += size
        self.bytes += size

    def _out(self, block: bytes | bytearray) -> None:
        self._count(len(block))
        left = memoryview(block)
        while left:
            left = left[self._file.write(left) :]


def _ends_with(part: Path, last: bytes) -> bool:
    """`last` stands there in the place of the last lines. False: there is hardly more than its first. OSError."""
    with part.open("r+b", buffering=0) as file:
        size = file.seek(0, SEEK_END)
        at = file.seek(max(0, size - TAIL_BYTES))
        tail = file.read(TAIL_BYTES)
        whole = tail.rfind(b"\n", 0, max(0, len(tail) - len(last))) + 1
        if whole:
            file.truncate(at + whole)
            file.seek(0, SEEK_END)
            file.write(last)
    return whole > 0
