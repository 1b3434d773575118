"""A repo depot over HTTP: what this sled's artifact store has, others fetch. API 1.0.0 (SR 4.2, SA 5.3).

Read before: companions/asking.py, core/artifacts/store.py. Read next: companions/servers.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import IO, Final

from sim_sled.companions.asking import ask
from sim_sled.core.artifacts.store import key_of
from sim_sled.core.companions import Companions, Server, Where
from sim_sled.core.errors import Missing
from sim_sled.http.app import Api
from sim_sled.http.routes import Call, RawAnswer, Route, Router

VERSION: Final = 1
PIECE: Final = 256 * 1024
"""Bytes that are read and sent at a time."""

_HERE: Final = Where(Server.REPO_DEPOT)


def api() -> Api:
    """The header is demanded, as the original does."""
    path = "/artifact/sha256/{sha256}"
    return Api(Router([Route("GET", path, _get, op="artifact_get_by_sha256")]), VERSION)


async def _get(call: Call) -> RawAnswer:
    sha256 = call.path[0]
    if not await ask(call, _HERE, Companions.has_artifact, sha256):
        raise Missing(f"no artifact {sha256}")
    try:
        file = call.host.blobs(call.sled_id).open(key_of(sha256))
    except OSError as error:
        raise Missing(f"no artifact {sha256}: {error}") from None
    return RawAnswer(200, "application/octet-stream", pieces=_pieces(file), chunked=True, close=file.close)


async def _pieces(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece
