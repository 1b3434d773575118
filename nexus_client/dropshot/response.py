"""An answer on its way to the socket.

aiohttp's `Response` keeps headers in a multidict, looks each of them up again and writes them one by one: a quarter
of what a whole request costs. All our answers have the same few headers, so the head is one format string here and
goes out with the body in one write.

Read before: dropshot/answers.py, dropshot/listen.py. Read next: sim_sled/http/spoiling.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

from nexus_client.dropshot.answers import JSON_TYPE, Refused, error_body, new_request_id

_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\t\x20-\x7e]*")
_BODILESS: Final = frozenset({204, 304})
"""These have no body by themselves."""
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}" for status in HTTPStatus}


class Response:
    """What aiohttp's connection asks of an answer: `prepare`, `write_eof`, `keep_alive`.

    `body` is JSON or None. The head is our own text, but for `headers`, which come from a scenario: they may not
    break the line (ValueError).
    """

    __slots__ = ("_allow", "_body", "_close", "_headers", "_request", "_request_id", "_status", "keep_alive")

    def __init__(
        self,
        status: int,
        request_id: str,
        body: bytes | None,
        *,
        allow: tuple[str, ...] = (),
        close: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._status = status
        self._request_id = request_id
        self._body = body
        self._allow = allow
        self._close = close
        for name, value in (headers or {}).items():
            if not _HEADER.fullmatch(f"{name}:{value}"):
                raise ValueError(f"no HTTP header: {name!r}: {value!r}")
        self._headers = headers
        self._request: web.BaseRequest | None = None
        self.keep_alive = False

    @property
    def status(self) -> int:
        return self._status

    @property
    def request_id(self) -> str:
        return self._request_id

    async def prepare(self, request: web.BaseRequest) -> None:
        """Called first; nothing is written yet."""
        self._request = request
        self.keep_alive = request.keep_alive and not self._close

    async def write_eof(self) -> None:
        """Writes everything. Raises `ConnectionError` if nobody is there any more."""
        request = self._request
        assert request is not None, "prepare comes first"
        body = self._body
        connection = connection_line(request, keep_alive=self.keep_alive, close=self._close)
        old = request.version == HttpVersion10 and not self._close
        head = (
            f"{status_line(self._status, old=old)}\r\nx-request-id: {self._request_id}\r\n"
            f"date: {rfc822_formatted_time()}\r\n{connection}"
        )
        for method in self._allow:
            head += f"allow: {method}\r\n"
        for name, value in (self._headers or {}).items():
            head += f"{name}: {value}\r\n"
        if body is None:
            if self._status not in _BODILESS:
                head += "content-length: 0\r\n"  # else a client waits for the end of the connection
            await request.writer.write_eof(f"{head}\r\n".encode())
            return
        head += f"content-type: {JSON_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n"
        if request.method == "HEAD":
            body = b""
        await request.writer.write_eof(head.encode() + body)


def status_line(status: int, *, old: bool) -> str:
    # a scenario may answer a status that has no name
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Injected"
    return line.replace("1.1", "1.0", 1) if old else line


def connection_line(request: web.BaseRequest, *, keep_alive: bool, close: bool = False) -> str:
    """What differs from the version's own rule: 1.1 stays, 1.0 goes."""
    if keep_alive:
        return "connection: keep-alive\r\n" if request.version == HttpVersion10 else ""
    return "connection: close\r\n" if close or request.version >= HttpVersion11 else ""


def refused_answer(refused: Refused, request_id: str | None = None) -> Response:
    """A Dropshot error."""
    request_id = request_id or new_request_id()
    body = error_body(request_id, refused)
    return Response(
        refused.status, request_id, body, allow=refused.allow, close=refused.close, headers=refused.headers
    )
