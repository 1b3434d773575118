"""The page's rows of the control API: its files, its tables, its stream. They need nothing of whoever owns the table.

Read before: nexus_client/dropshot/operations.py, daemon/page.py, page/files.py. Read next: daemon/control.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import Refused, not_found
from nexus_client.dropshot.control import SAFE_HEADERS
from nexus_client.dropshot.listen import streams
from nexus_client.dropshot.operations import Answered, Call, Operation, Text, flag, text_header
from sim_sled.page import files
from sim_sled.page.looks import words_json

SLOW_S: Final = 30.0
"""How long a page may take for one message: what is slower has gone to sleep, and comes back by itself."""

FEED_PARAMETERS: Final = (
    flag("once", "1: everything as it is now, and no more"),
    text_header("last-event-id", "the last id that the page has got, to go on from there"),
)


async def index(_: object, _call: Call[None]) -> Answered:
    return _file(files.INDEX)


async def file(_: object, call: Call[None]) -> Answered:
    name = call.text("file")
    if name not in files.static():
        raise not_found()
    return _file(name)


async def words(_: object, _call: Call[None]) -> dict[str, Any]:
    return words_json()


def _file(name: str) -> Answered:
    # asked for again each time: the daemon may have been replaced by a newer one
    headers = {"content-security-policy": files.POLICY, "cache-control": "no-cache"}
    return Answered(files.static()[name].decode(), media=files.type_of(name), headers=headers)


FILE_OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (
    Operation("GET", "/page", index, "The live page, for browsers", Text(files.type_of(files.INDEX)), open=True),
    Operation("GET", "/page/words.json", words, "The page's tables: states and their looks, faults", dict[str, Any],
              open=True),
    Operation("GET", "/page/{file}", file, "A file of the page", Text(*files.TYPES.values()), open=True),
)  # fmt: skip


async def stream(call: Call[None], messages: AsyncGenerator[bytes]) -> web.StreamResponse:
    """Sends server-sent events until the client goes, or is too slow."""
    streams(call.request)
    response = web.StreamResponse(headers={**SAFE_HEADERS, "cache-control": "no-store"})
    response.content_type = "text/event-stream"
    await response.prepare(call.request)
    async with contextlib.aclosing(messages):
        async for message in messages:
            try:
                async with asyncio.timeout(SLOW_S):
                    await response.write(message)
            except TimeoutError:
                # an orderly end would wait for the same client once more, and keep its place among the pages
                if call.request.transport is not None:
                    call.request.transport.abort()
                return response
    await response.write_eof()
    return response


def one_more(pages: int, most: int) -> None:
    """Raises `Refused` if so many are open already."""
    if pages >= most:
        raise Refused(503, f"{most} pages are open: close one")
