"""Answers that do not arrive as they were: by pieces, half, or as garbage. What a rule wants of one request is told
by whoever carried it out, in the request's own context.

Read before: core/spoil.py, nexus_client/dropshot/response.py. Read next: http/app.py.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import JSON_TYPE
from nexus_client.dropshot.response import status_line
from sim_sled.core.spoil import How, Spoil
from sim_sled.http.routes import Answer, RawAnswer

SPOIL: Final[ContextVar[Spoil | None]] = ContextVar("spoil", default=None)
"""What shall become of the answer to the request that is being handled."""

PIECES: Final = 20
"""An answer that dribbles comes in so many."""

GARBAGE: Final = b"\x00\xff not what you have asked for \xfe"


class SpoiltResponse:
    """What aiohttp's connection asks of an answer: `prepare`, `write_eof`, `keep_alive`. It ends with this one."""

    __slots__ = ("_answer", "_request", "_spoil", "keep_alive", "request_id", "status")

    def __init__(self, answer: Answer | RawAnswer, spoil: Spoil, request_id: str) -> None:
        self._answer, self._spoil = answer, spoil
        self.status, self.request_id = answer.status, request_id
        self._request: web.BaseRequest | None = None
        self.keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Called first; nothing is written yet."""
        self._request = request

    async def write_eof(self) -> None:
        """Writes what is to arrive. Raises `ConnectionError` if nobody is there any more."""
        request, spoil = self._request, self._spoil
        assert request is not None, "prepare comes first"
        body = self._answer.body or b""
        if spoil.how is How.GARBAGE:
            body = GARBAGE
        kind = f"content-type: {JSON_TYPE}\r\n" if body else ""
        # an answer without a body gets one that it never had, so that there is something to miss
        length = len(body) + (spoil.how is How.TRUNCATE and not body)
        status = 200 if body and self._answer.status == 204 else self._answer.status
        head = (
            f"{status_line(200 if length and status == 204 else status, old=False)}\r\n"
            f"x-request-id: {self.request_id}\r\nconnection: close\r\n{kind}content-length: {length}\r\n\r\n"
        )
        data = head.encode() + body
        if spoil.how is How.TRUNCATE:
            data = head.encode() + body[: len(body) // 2]
        if spoil.how is not How.DRIBBLE:
            await request.writer.write_eof(data)
            return
        step = -(-len(data) // PIECES)
        first, *others = [data[at : at + step] for at in range(0, len(data), step)]
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        await request.writer.write(first)
        for nth, piece in enumerate(others, 1):
            # each has its own time from the beginning: with the last one the answer is there, and no sooner
            await asyncio.sleep(begun_s + spoil.lasts_us / 1e6 * nth / len(others) - loop.time())
            await request.writer.write(piece)
        await request.writer.write_eof()
