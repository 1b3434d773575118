"""Stored bytes of one sled, by key: artifacts and support bundles (SR 4.1, 4.2). The areas of the core say which
there shall be; this only keeps them.

Without a state directory small ones are kept in memory and large ones in a temporary folder that goes with the
daemon; with one, all are files below it, and one that was kept is there after a crash.

Read before: http/host.py. Read next: daemon/daemon.py.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, TypeVar

from msgspec import Struct, field

BUFFER: Final = 1024 * 1024
"""Bytes that are gathered before they are hashed and written, in a thread: a piece from a socket is a twentieth of
that, and a change of threads costs more than to write it."""

MEMORY_MAX: Final = 64 * 1024 * 1024
"""Bytes kept in memory by one sled; what is more goes to the temporary folder."""

HEAD: Final = 4096
"""Bytes of the beginning that are told: the header of a host phase 2 image (SR 3.8)."""

_INCOMING: Final = "incoming"

T = TypeVar("T")


class Blobs:
    """The bytes of one sled. `root` None: nothing outlives the daemon."""

    def __init__(self, root: Path | None = None) -> None:
        self._root = root
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._small: dict[str, bytes] = {}
        self._small_bytes = 0
        self._numbers = 0
        self._hashes: dict[str, _Running] = {}
        if root is not None:
            shutil.rmtree(root / _INCOMING, ignore_errors=True)  # of a daemon that did not end well

    @property
    def stored(self) -> int:
        """How many there are, whole or on their way."""
        folder = self._folder_if_there()
        files = 0 if folder is None else sum(each.is_file() for each in folder.rglob("*"))
        return len(self._small) + files

    def close(self) -> None:
        """Give back what was only lent."""
        self._small.clear()
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None

    # --- whole blobs ------------------------------------------------------------------------------------------------

    def incoming(self) -> Incoming:
        """A blob on its way: `async with`, `write`, then `keep`. One that is not kept leaves nothing behind."""
        return Incoming(self)

    def drop(self, key: str) -> None:
        """Remove a blob, or all below a key that ends in `/`. None is no error."""
        below = key.endswith("/")
        for each in [each for each in self._small if (each.startswith(key) if below else each == key)]:
            self._small_bytes -= len(self._small.pop(each))
        for each in [each for each in self._hashes if (each.startswith(key) if below else each == key)]:
            del self._hashes[each]
        folder = self._folder_if_there()
        if folder is None:
            return
        if below:
            shutil.rmtree(folder / key, ignore_errors=True)
        else:
            (folder / key).unlink(missing_ok=True)

    def rename(self, old: str, new: str) -> None:
        """One that is not there counts as an empty one."""
        source = self.path(old)
        source.touch()
        source.replace(self.path(new))
        self._hashes.pop(old, None)

    def has(self, key: str) -> bool:
        folder = self._folder_if_there()
        return key in self._small or (folder is not None and (folder / key).is_file())

    def open(self, key: str) -> IO[bytes]:
        """The blob for reading. OSError if it is not there."""
        small = self._small.get(key)
        return io.BytesIO(small) if small is not None else self.path(key).open("rb")

    # --- pieces of one ----------------------------------------------------------------------------------------------

    async def write_at(self, key: str, offset: int, pieces: AsyncIterator[bytes]) -> int:
        """Write `pieces` into a blob from `offset` on; what lies between is zeros. Returns the number of bytes.

        The bytes are hashed as they come, as long as they come in order.
        """
        path = self.path(key)
        path.touch()
        running = self._hashes.setdefault(key, _Running())
        if running.at != offset:
            running.broken = True
        at = offset
        with path.open("r+b") as file:

            def write(data: bytes) -> None:
                file.seek(at)
                file.write(data)
                if not running.broken:
                    running.add(data)

            async for data in gathered(pieces):
                await _aside(data, write)
                at += len(data)
            if at == offset:
                file.seek(0, os.SEEK_END)
                if file.tell() < offset:
                    file.truncate(offset)
                    running.broken = True
        return at - offset

    async def sha256(self, key: str) -> str:
        """Of the whole blob; one that is not there counts as an empty one."""
        running = self._hashes.get(key)
        path = self.path(key)
        size = path.stat().st_size if path.is_file() else 0
        if running is not None and not running.broken and running.at == size:
            return running.hash.hexdigest()
        return await asyncio.to_thread(_hash_file, path)

    # --- where ------------------------------------------------------------------------------------------------------

    def path(self, key: str) -> Path:
        """File of a key; the folder is made."""
        path = self._folder() / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def fresh(self) -> Path:
        """A file that nobody else has."""
        self._numbers += 1
        return self.path(f"{_INCOMING}/{self._numbers}")

    def keep_small(self, key: str, data: bytes) -> bool:
        """Keep it in memory, if it may be there."""
        if self._root is not None or self._small_bytes + len(data) > MEMORY_MAX:
            return False
        self.drop(key)
        self._small[key] = data
        self._small_bytes += len(data)
        return True

    def replace(self, key: str, path: Path) -> None:
        """`path` is what `key` means from now on."""
        self.drop(key)
        path.replace(self.path(key))

    @property
    def durable(self) -> bool:
        return self._root is not None

    def _folder(self) -> Path:
        if self._root is not None:
            return self._root
        if self._temporary is None:
            try:
                self._temporary = tempfile.TemporaryDirectory(prefix="sim-sled-", ignore_cleanup_errors=True)
            except FileNotFoundError as error:  # how tempfile says that it may write nowhere
                raise OSError(errno.EROFS, error.strerror) from None
        return Path(self._temporary.name)

    def _folder_if_there(self) -> Path | None:
        return self._root if self._temporary is None else Path(self._temporary.name)


class _Running(Struct, eq=False):
    """Hash of the first `at` bytes of a blob; `broken`: they did not come in order."""

    hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    at: int = 0
    broken: bool = False

    def add(self, data: bytes) -> None:
        self.hash.update(data)
        self.at += len(data)


class Incoming:
    """See `Blobs.incoming`."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._buffer = b""
        self._path: Path | None = None
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self.size = 0
        self.head = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def receive(self, pieces: AsyncIterator[bytes]) -> None:
        """Take all pieces."""
        async for data in gathered(pieces):
            if len(self.head) < HEAD:
                self.head = (self.head + data)[:HEAD]
            if self._buffer or self.size:
                await _aside(self._buffer, self._write)
                self._buffer = b""
            self.size += len(data)
            self._buffer = data  # the last piece waits: a small blob never sees a file
            await _aside(data, self._hash.update)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._path = self._blobs.fresh()
            self._file = self._path.open("wb")
        self._file.write(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    async def keep(self, key: str) -> None:
        """Make it the blob of `key`, all at once."""
        if self._file is None and self._blobs.keep_small(key, self._buffer):
            return
        await asyncio.to_thread(self._finish)
        assert self._path is not None, "written just now"
        self._blobs.replace(key, self._path)
        self._path = None

    def _finish(self) -> None:
        self._write(self._buffer)
        assert self._file is not None, "opened by the write"
        self._file.flush()
        if self._blobs.durable:
            os.fsync(self._file.fileno())
        self._file.close()
        self._file = None


async def gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of about `BUFFER`."""
    parts: list[bytes] = []
    size = 0
    async for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size >= BUFFER:
            yield b"".join(parts)
            parts, size = [], 0
    if parts:
        yield b"".join(parts)


async def _aside(data: bytes, work: Callable[[bytes], T]) -> T:
    """Do it here if it is little, in a thread if it is much."""
    return work(data) if len(data) < BUFFER // 4 else await asyncio.to_thread(work, data)


def _hash_file(path: Path) -> str:
    if not path.is_file():
        return hashlib.sha256().hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
