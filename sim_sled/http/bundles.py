"""Support bundles over HTTP: made in pieces, finalised by hash, read by ranges (SR 4.1).

Read before: core/bundles/store.py, http/ranges.py, http/uploads.py. Read next: http/operations.py.
"""

from __future__ import annotations

import asyncio
import os
import zipfile
from collections.abc import AsyncGenerator, Callable
from typing import IO, Final
from uuid import UUID

from sim_sled.core.bundles.store import QUOTA, Bundles, Where, complete_key, temporary_key
from sim_sled.core.errors import BadRequest, Internal, Missing
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.ranges import ACCEPT, UNSATISFIED, head_of
from sim_sled.http.routes import Answer, Call, RawAnswer
from sim_sled.http.uploads import UPLOAD_MAX, pieces_of

ZIP: Final = "application/zip"
TEXT: Final = "text/plain"
BYTES: Final = "application/octet-stream"

PIECE: Final = 256 * 1024
"""Bytes read and sent at a time."""

INDEX_MAX: Final = 16 * 1024 * 1024
"""Bytes of an index: a bundle of a whole rack has some ten thousand names."""


def _where(call: Call) -> tuple[Where, UUID]:
    zpool_id, dataset_id, bundle_id, *_ = call.path
    return Where(zpool_id, dataset_id), bundle_id


def _metadata(bundle_id: UUID, state: str) -> dict[str, str]:
    return {"support_bundle_id": str(bundle_id), "state": state}


async def list_bundles(call: Call) -> Answer:
    there = await ask(call, Bundles, Bundles.list, Where(*call.path))
    return ok([_metadata(*each) for each in there])


async def start(call: Call) -> Answer:
    where, bundle_id = _where(call)
    return ok(_metadata(bundle_id, await ask(call, Bundles, Bundles.start, where, bundle_id)), 201)


async def transfer(call: Call) -> Answer:
    where, bundle_id = _where(call)
    offset: int = call.query["offset"]
    of_round = await ask(call, Bundles, Bundles.check_transfer, where, bundle_id)
    blobs = call.host.blobs(call.sled_id)
    try:
        await blobs.write_at(temporary_key(where, bundle_id), offset, _within(call, QUOTA - offset))
    except BaseException:
        # a client that breaks off leaves nothing behind
        await asyncio.shield(ask(call, Bundles, Bundles.broke_off, where, bundle_id, of_round))
        raise
    return ok(_metadata(bundle_id, await ask(call, Bundles, Bundles.transferred, where, bundle_id, of_round)), 201)


async def _within(call: Call, left: int) -> AsyncGenerator[bytes, None]:
    if left < 0:
        raise Internal(f"beyond the quota of a dataset, {QUOTA} bytes")
    async for piece in pieces_of(call, UPLOAD_MAX):
        left -= len(piece)
        if left < 0:
            raise Internal(f"more than the quota of a dataset, {QUOTA} bytes")
        yield piece


async def finalize(call: Call) -> Answer:
    where, bundle_id = _where(call)
    wanted: str = call.query["hash"]
    which = await ask(call, Bundles, Bundles.check_finalize, where, bundle_id, wanted)
    if which is not None:
        blobs = call.host.blobs(call.sled_id)
        found = await blobs.sha256(temporary_key(where, bundle_id))
        await ask(call, Bundles, Bundles.finalize, where, bundle_id, wanted, found, which)
        blobs.rename(temporary_key(where, bundle_id), complete_key(where, bundle_id))
    return ok(_metadata(bundle_id, "complete"), 201)


async def delete(call: Call) -> Answer:
    await ask(call, Bundles, Bundles.delete, *_where(call))
    return NO_CONTENT


# ---- reading -------------------------------------------------------------------------------------------------------


async def _open(call: Call) -> IO[bytes]:
    where, bundle_id = _where(call)
    await ask(call, Bundles, Bundles.check_read, where, bundle_id)
    blobs = call.host.blobs(call.sled_id)
    if not blobs.has(complete_key(where, bundle_id)) and blobs.has(temporary_key(where, bundle_id)):
        # a daemon that died after it had acknowledged the bundle and before it gave it its name
        blobs.rename(temporary_key(where, bundle_id), complete_key(where, bundle_id))
    try:
        return blobs.open(complete_key(where, bundle_id))
    except OSError as error:
        raise Internal(f"bundle {bundle_id} cannot be read: {error}") from None


def _range(call: Call) -> str | None:
    assert call.request is not None, "requests come from the server"
    return call.request.headers.get("range")


async def download(call: Call) -> RawAnswer:
    file = await _open(call)
    length = file.seek(0, os.SEEK_END)
    return _part(file, file.close, length, ZIP, _range(call))


async def head(call: Call) -> RawAnswer:
    """`Range` does not count."""
    with await _open(call) as file:
        return RawAnswer(200, ZIP, length=file.seek(0, os.SEEK_END), headers=ACCEPT)


async def index(call: Call) -> RawAnswer:
    text = await _index(call)
    found = head_of(_range(call), len(text))
    if found is None:
        return UNSATISFIED
    status, first, size, headers = found
    return RawAnswer(status, TEXT, text[first : first + size], headers=headers)


async def head_index(call: Call) -> RawAnswer:
    """`Range` does not count."""
    return RawAnswer(200, TEXT, length=len(await _index(call)), headers=ACCEPT)


async def _index(call: Call) -> bytes:
    with await _open(call) as file:
        text = "\n".join(_zip(file).namelist()).encode()
    if len(text) > INDEX_MAX:
        raise Internal(f"an index of {len(text)} bytes")
    return text


async def download_file(call: Call) -> RawAnswer:
    file, member, length = await _member(call)

    def close() -> None:
        member.close()
        file.close()

    return _part(member, close, length, BYTES, _range(call))


async def head_file(call: Call) -> RawAnswer:
    """A bad `Range` is refused, a good one does not count: the real agent's way (SR 4.1)."""
    file, member, length = await _member(call)
    member.close()
    file.close()
    asked = _range(call)
    if asked is not None and head_of(asked, length) is None:
        return UNSATISFIED
    return RawAnswer(200, BYTES, length=length, headers=ACCEPT)


def _zip(file: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise Internal(f"the bundle is no zip archive: {error}") from None


async def _member(call: Call) -> tuple[IO[bytes], IO[bytes], int]:
    """The bundle, a file in it, and the size of that."""
    name: str = call.path[3]
    file = await _open(call)
    try:
        archive = _zip(file)
        try:
            about = archive.getinfo(name)
        except KeyError:
            raise Missing(f"no file {name!r} in the bundle") from None
        if about.is_dir():
            raise BadRequest("Not a file")  # noqa: TRY301 -- the bundle is closed for all that can go wrong
        try:
            member = archive.open(about)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
            raise Internal(f"file {name!r} of the bundle cannot be read: {error}") from None
    except BaseException:
        file.close()
        raise
    return file, member, about.file_size


def _part(file: IO[bytes], close: Callable[[], None], length: int, kind: str, asked: str | None) -> RawAnswer:
    found = head_of(asked, length)
    if found is None:
        close()
        return UNSATISFIED
    status, first, size, headers = found
    return RawAnswer(status, kind, length=size, headers=headers, pieces=_pieces(file, first, size), close=close)


async def _pieces(file: IO[bytes], first: int, size: int) -> AsyncGenerator[bytes, None]:
    await asyncio.to_thread(file.seek, first)
    while size > 0:
        piece = await asyncio.to_thread(file.read, min(PIECE, size))
        if not piece:
            return
        size -= len(piece)
        yield piece
