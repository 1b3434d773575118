"""What a person gave, as files of lines: files, folders, gzip, zip, tar, in each other, standard input (LG 1.3).

A support bundle is a zip, or the folder it was unpacked into (LG 1.4); a zone bundle is a `.tar.gz` with logs, a
`metadata.toml` and what some commands printed. Nothing is unpacked to a name of its own: members are read where they
lie or, of an archive that cannot be read from its end, from one nameless temporary file. Each of these has a bound:
how deep archives lie in each other, how many files there are, how much is unpacked to the disk.

Read next: incident/rendered.py, incident/reading.py, incident/importing.py.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import re
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast

import attrs

from sim_sled.language.files import is_file, is_folder

FILES_MAX: Final = 100_000
"""Files of one import: a support bundle of a full rack has some thousand."""
DEPTH_MAX: Final = 4
"""Archives in each other: a zip of zone bundles, whose logs may be packed, is three."""
UNPACKED_MAX: Final = 16 * 1024**3
"""Bytes that are unpacked to the disk: what is not read where it lies. A zone bundle has some 100 MB."""
_AT_ONCE_MAX: Final = 1024 * 1024
"""Read at one time of a tar: its long names and attributes are blocks of any length, which would be kept whole."""
_HEAD: Final = 512
"""Bytes that tell what a file is: a tar's first header."""
READ_ERRORS: Final = (
    OSError, EOFError, ValueError, RuntimeError, OverflowError, struct.error, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip
"""All that Python's readers of packed files raise for what is cut, garbled, encrypted or packed in another way."""

_BUNDLED: Final = re.compile(
    r"logs/(global/sled-agent|oxz_nexus_[^/]*/nexus|oxz_propolis-server_[^/]*/propolis-server)/"
)
_LIKE_A_LOG: Final = re.compile(r"\.(log(\.\d+)?|jsonl?|txt|out)(\.gz)?$|\.(zip|tar|tgz|tar\.gz)$", re.IGNORECASE)
_PACKED_OTHERWISE: Final = {
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"7z\xbc\xaf": "packed with 7z",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"{\0": "UTF-16",
    b"\0{": "UTF-16",
}

Opener = Callable[[], IO[bytes]]
"""Opens a file anew, at its beginning."""


@attrs.frozen
class Source:
    """One file to be read: what it is called in quotes, how to open it, and its bytes as they lie on the disk."""

    shown: str
    open: Opener
    size: int


def reason(error: Exception) -> str:
    """Why something cannot be read, as a person understands it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, zlib.error | struct.error):
        return f"it is garbled ({error})"
    return re.sub(r"\s*<[^>]*>", "", str(error)) or type(error).__name__


def printable(text: str) -> str:
    """A name of a file may have anything in it; what would move a cursor or has no letter is replaced."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# ---- where things lie that cannot be read where they were


@attrs.define
class Shelf:
    """Keeps archives open while their members are read, and what had to be unpacked in one nameless file. Closing
    it gives both back.
    """

    _open: ExitStack = attrs.field(factory=ExitStack)
    _file: IO[bytes] | None = None
    _used: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._open.close()

    def opened(self, file: IO[bytes]) -> zipfile.ZipFile:
        """A zip, kept open. Raises one of `READ_ERRORS`."""
        self._open.callback(file.close)
        if _zip_members(file) > FILES_MAX:
            raise OSError(None, f"more than {FILES_MAX} files are in it")
        return self._open.enter_context(zipfile.ZipFile(file))

    def keep(self, file: IO[bytes]) -> tuple[Opener, int]:
        """A copy of the rest of a file that can be opened at will, and its length. OSError if it is too much."""
        if self._file is None:
            self._file = self._open.enter_context(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 -- closed with the shelf
        kept, began = self._file, self._used
        while part := file.read(_AT_ONCE_MAX):
            if self._used + len(part) > UNPACKED_MAX:
                raise OSError(None, f"more than {UNPACKED_MAX // 1024**3} GiB would have to be unpacked")
            os.pwrite(kept.fileno(), part, self._used)
            self._used += len(part)
        length = self._used - began
        return lambda: io.BufferedReader(_Window(kept.fileno(), began, length)), length


class _Window(io.RawIOBase):
    """A part of a file, as a file."""

    def __init__(self, handle: int, began: int, length: int) -> None:
        self._handle, self._began, self._length, self._at = handle, began, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # typeshed: any buffer
        wanted = min(len(buffer), max(0, self._length - self._at))
        part = os.pread(self._handle, wanted, self._began + self._at)
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class _Continued(io.RawIOBase):
    """A file whose beginning has been read already. Closing it leaves the file open."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # as above
        part = self._head[: len(buffer)] or self._rest.read(len(buffer))
        self._head = self._head[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class _Careful(io.RawIOBase):
    """A tar as its reader gets it: never much at one time, and not for ever."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _AT_ONCE_MAX:
            raise tarfile.ReadError("a name or an attribute in it has no end")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset > UNPACKED_MAX:
            raise tarfile.ReadError(f"there is more than {UNPACKED_MAX // 1024**3} GiB in it")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


# ---- what is in what


def sources(paths: Iterable[str], tell: Callable[[str], None], shelf: Shelf) -> list[Source]:
    """The log files behind what a person gave. Of one log the rotated files come oldest first. They are quoted by
    their names, with the folders that tell them apart. `tell` hears what cannot be read, and why.
    """
    found = list(_Finder(tell, shelf).all(paths))
    first = {log_of(each.shown): i for i, each in reversed(list(enumerate(found)))}
    found.sort(key=lambda each: (first[log_of(each.shown)], _age(each.shown)))
    endings = Counter(ending for each in found for ending in _endings(each.shown))
    return [
        attrs.evolve(each, shown=next((end for end in _endings(each.shown) if endings[end] == 1), each.shown))
        for each in found
    ]


def _endings(shown: str) -> Iterator[str]:
    """The name alone, then with one folder more each time."""
    parts = shown.split("/")
    return ("/".join(parts[i:]) for i in reversed(range(len(parts))))


_ROTATED: Final = re.compile(r"(?:(?:current|archive|extra)/)?([^/]*\.log)(?:\.(\d{1,18}))?(\.gz)?$")
_ARCHIVED_FROM: Final = 1_000
"""A larger number behind `.log` is the time of an archive, a smaller one how often the file was rotated since."""


def log_of(shown: str) -> str:
    """What rotated and archived files of one log have in common."""
    return _ROTATED.sub(r"\1", shown)


def _age(shown: str) -> tuple[int, int]:
    """Oldest first: archives by their time, `.log.7` to `.log.0`, then the file that is written (LG 1.3)."""
    found = _ROTATED.search(shown)
    if found is None or found[2] is None:
        return (2, 0)
    number = int(found[2])
    return (0, number) if number >= _ARCHIVED_FROM else (1, -number)


@attrs.define
class _Finder:
    tell: Callable[[str], None]
    shelf: Shelf
    _seen: set[tuple[int, int]] = attrs.field(factory=set)
    """Files by device and number: one that is given or linked twice is read once."""
    left: int = FILES_MAX

    def all(self, paths: Iterable[str]) -> Iterator[Source]:
        for given in paths:
            if given == "-":
                yield from self._stdin()
            elif is_folder(Path(given)):
                yield from self._folder(Path(given))
            else:
                yield from self._file(Path(given))

    def _told(self, shown: str, why: str) -> None:
        self.tell(f"{printable(shown)}: {why}")

    def _room(self, shown: str) -> bool:
        """Whether one more file is read; said once if not."""
        self.left -= 1
        if self.left == -1:
            self._told(shown, f"more than {FILES_MAX} files; it and what follows is not read")
        return self.left >= 0

    def _stdin(self) -> Iterator[Source]:
        file = sys.stdin.buffer
        head = file.read(_HEAD)
        if _kind(head) == "lines":
            yield Source("stdin", lambda: io.BufferedReader(_Continued(head, file)), 0)
            return
        try:  # an archive is read from its end, and a pipe has none
            open_, size = self.shelf.keep(io.BufferedReader(_Continued(head, file)))
        except READ_ERRORS as error:
            self._told("stdin", reason(error))
            return
        yield from self._of(open_, "stdin", size, 0)

    def _folder(self, folder: Path) -> Iterator[Source]:
        """Links to folders are not followed, so there is no way round."""
        names: list[Path] = []

        def unreadable(error: OSError) -> None:
            self._told(str(error.filename or folder), reason(error))

        for where, folders, files in os.walk(folder, onerror=unreadable):
            at = Path(where)
            folders.sort(key=_in_order)
            for each in folders:
                if (at / each).is_symlink():
                    self._told(str(at / each), "a link to a folder, which is not followed")
            names += [at / each for each in sorted(files, key=_in_order)]
        bundled = [each for each in names if _BUNDLED.search(each.as_posix())]
        for path in bundled or names:
            yield from self._file(path)

    def _file(self, path: Path) -> Iterator[Source]:
        shown = str(path)
        if not is_file(path):  # a device or a pipe may never end; standard input is asked for by name
            self._told(shown, _no_file(path))
            return
        try:
            status = path.stat()
        except OSError as error:
            self._told(shown, reason(error))
            return
        if (status.st_dev, status.st_ino) in self._seen:
            return
        self._seen.add((status.st_dev, status.st_ino))
        yield from self._of(lambda: path.open("rb"), shown, status.st_size, 0)

    def _of(self, open_: Opener, shown: str, size: int, depth: int) -> Iterator[Source]:
        """`depth`: in how many archives it lies."""
        try:
            with open_() as file:
                head = file.read(_HEAD)
        except READ_ERRORS as error:
            self._told(shown, reason(error))
            return
        kind = _kind(head)
        if kind == "lines":
            if self._room(shown):
                yield Source(printable(shown), open_, size)
        elif depth == DEPTH_MAX:
            self._told(shown, f"an archive in {DEPTH_MAX} archives is not looked into")
        elif kind == "gzip":
            yield from self._of(lambda: _unpacked(open_()), shown, size, depth + 1)
        elif kind == "zip":
            yield from self._zip(open_, shown, depth)
        elif kind == "tar":
            yield from self._tar(open_, shown, depth)
        else:
            first = "convert it to UTF-8" if kind == "UTF-16" else "unpack it"
            self._told(shown, f"{kind}, which is not read; {first} first")

    def _zip(self, open_: Opener, shown: str, depth: int) -> Iterator[Source]:
        try:
            if depth > 0:  # it is read from its end, which what is packed does not allow
                with open_() as packed:
                    open_, _ = self.shelf.keep(packed)
            bundle = self.shelf.opened(open_())
        except READ_ERRORS as error:
            self._told(shown, reason(error))
            return
        members = {f"{i}/{each.filename}": each for i, each in enumerate(bundle.infolist()) if not each.is_dir()}
        for name in self._chosen(members, shown):
            member = members[name]
            yield from self._of(_opener(bundle, member), f"{shown}!{member.filename}", member.file_size, depth + 1)

    def _tar(self, open_: Opener, shown: str, depth: int) -> Iterator[Source]:
        kept: dict[str, tuple[str, Opener, int]] = {}
        try:
            with open_() as file:
                tar = tarfile.TarFile(fileobj=_Careful(file))
                while len(kept) < FILES_MAX and (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]  # its list of all it has read, which would grow
                    if member.isreg() and not member.issparse() and _LIKE_A_LOG.search(member.name):
                        inside = tar.extractfile(member)
                        assert inside is not None, "it is a regular file"
                        kept[f"{len(kept)}/{member.name}"] = (member.name, *self.shelf.keep(inside))
        except READ_ERRORS as error:  # what was read so far stands
            self._told(shown, reason(error))
        for name in self._chosen(kept, shown):
            real, opener, size = kept[name]
            yield from self._of(opener, f"{shown}!{real}", size, depth + 1)

    def _chosen(self, names: Iterable[str], shown: str) -> list[str]:
        """Which members of an archive are read: of a support bundle what tells of VMMs, else what looks like logs."""
        all_ = sorted(names, key=lambda each: _in_order(each.partition("/")[2]))
        bundled = [each for each in all_ if _BUNDLED.search(each)]
        found = bundled or [each for each in all_ if _LIKE_A_LOG.search(each)]
        if not found:
            self._told(shown, "no file in it looks like a log")
        return found


def _in_order(name: str) -> tuple[tuple[int, str], ...]:
    """As people number the parts of a file: `part2` comes before `part10`."""
    parts = re.findall(r"(\d{1,18})|(\D+|\d)", name)
    return tuple((int(number), "") if number else (-1, text) for number, text in parts)


def _no_file(path: Path) -> str:
    """Why nothing can be read of it."""
    try:
        path.stat()
    except (OSError, ValueError) as error:
        return reason(error).lower()
    return "not a regular file; what comes through a pipe is read as standard input (-)"


def _kind(head: bytes) -> str:
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    for magic, name in _PACKED_OTHERWISE.items():
        if head.startswith(magic):
            return name
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")  # its checksum is right
    except tarfile.TarError:
        return "lines"
    return "tar"


def _opener(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> Opener:
    return lambda: bundle.open(member)


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    packed = gzip.GzipFile(fileobj=file, mode="rb")
    packed.myfileobj = file  # type: ignore[assignment]  # so `close` closes what it reads from, as for a path
    return cast("IO[bytes]", packed)


def _zip_members(file: IO[bytes]) -> int:
    """How many members a zip says it has: its table of contents is read as a whole."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - 65_557))  # the longest end: 22 bytes and a comment
    end = file.read()
    file.seek(0)
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 12:
        return 0
    count: int = struct.unpack_from("<H", end, at + 10)[0]
    large = end.rfind(b"PK\x06\x06")
    if count == 0xFFFF and 0 <= large <= len(end) - 40:
        count = struct.unpack_from("<Q", end, large + 32)[0]
    return count
