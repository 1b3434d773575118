"""Answers that are no JSON on their way to the socket: files, ranges of files, empty refusals.

Read next: http/app.py.
"""

from __future__ import annotations

import logging

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.helpers import rfc822_formatted_time

from nexus_client.dropshot import web
from nexus_client.dropshot.response import connection_line, status_line
from sim_sled.http.routes import RawAnswer

_log = logging.getLogger(__name__)


class RawResponse:
    """What aiohttp's connection asks of an answer: `prepare`, `write_eof`, `keep_alive`."""

    __slots__ = ("_answer", "_request", "_request_id", "keep_alive")

    def __init__(self, answer: RawAnswer, request_id: str) -> None:
        self._answer = answer
        self._request_id = request_id
        self._request: web.BaseRequest | None = None
        self.keep_alive = False

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def request_id(self) -> str:
        return self._request_id

    async def prepare(self, request: web.BaseRequest) -> None:
        """Called first; nothing is written yet."""
        self._request = request
        self.keep_alive = request.keep_alive and not (self._answer.chunked and request.version < HttpVersion11)

    async def write_eof(self) -> None:
        """Writes everything, piece by piece. Raises `ConnectionError` if nobody is there any more."""
        request, answer = self._request, self._answer
        assert request is not None, "prepare comes first"
        length = len(answer.body) if answer.length is None else answer.length
        head = (
            f"{status_line(answer.status, old=request.version == HttpVersion10)}\r\n"
            f"x-request-id: {self._request_id}\r\ndate: {rfc822_formatted_time()}\r\n"
            f"{connection_line(request, keep_alive=self.keep_alive)}"
        )
        if answer.kind is not None:
            head += f"content-type: {answer.kind}\r\n"
        for name, value in answer.headers.items():
            head += f"{name}: {value}\r\n"
        chunked = answer.chunked and request.version >= HttpVersion11
        if chunked:
            head += "transfer-encoding: chunked\r\n\r\n"
        elif answer.chunked:
            head += "\r\n"  # to a client of 1.0 the end of the connection is the end of the body
        else:
            head += f"content-length: {length}\r\n\r\n"
        pieces = answer.pieces
        try:
            if request.method == "HEAD":
                await request.writer.write_eof(head.encode())
                return
            await request.writer.write(head.encode() + answer.body)
            if chunked:
                request.writer.enable_chunking()
            sent = len(answer.body)
            if pieces is not None:
                async for piece in pieces:
                    await request.writer.write(piece)
                    sent += len(piece)
            if sent != length and not answer.chunked:
                # the head is gone: all that is left to say is that this is not all
                _log.error("%s %s: %d bytes of %d", request.method, request.raw_path, sent, length)
                if request.transport is not None:
                    request.transport.abort()
            await request.writer.write_eof()
        finally:
            if pieces is not None:
                await pieces.aclose()
            if answer.close is not None:
                answer.close()
