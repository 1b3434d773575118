"""Bodies that are bytes, not JSON: read piece by piece, never kept whole (SA 1.4).

Read before: http/routes.py. Read next: http/artifacts.py, http/bundles.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import Refused
from nexus_client.dropshot.body import go_on
from sim_sled.http.routes import Call

UPLOAD_MAX: Final = 2 * 1024 * 1024 * 1024
"""Bytes of one request (SA 1.4)."""

PIECE_WAIT_S: Final = 60.0
"""How long the next piece may take: Nexus itself gives up a request of 60 s without an answer."""


async def pieces_of(call: Call, size_max: int = UPLOAD_MAX) -> AsyncGenerator[bytes, None]:
    """The body. Raises `Refused`: too large, too slow, broken off."""
    request = call.request
    assert request is not None, "requests come from the server"
    if request.content_length is not None and request.content_length > size_max:
        raise _too_large(size_max)
    await go_on(request)
    size = 0
    try:
        while True:
            async with asyncio.timeout(PIECE_WAIT_S):
                piece = await request.content.readany()
            if not piece:
                return
            size += len(piece)
            if size > size_max:
                raise _too_large(size_max)
            yield piece
    except TimeoutError:
        raise Refused(400, f"request body made no progress for {PIECE_WAIT_S:.0f} s", close=True) from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise Refused(400, f"error streaming request body: {str(error).partition(chr(10))[0]}", close=True) from None


def _too_large(size_max: int) -> Refused:
    return Refused(400, f"request body exceeded maximum size of {size_max} bytes", close=True)
