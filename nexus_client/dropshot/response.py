"""An answer on its way to the socket.

aiohttp's `Response` keeps headers in a multidict, looks each of them up again and writes them one by one: a quarter
of what a whole request costs. All our answers have the same few headers, so the head is one format string here and
goes out with the body in one write.

Read before: dropshot/answers.py. Read next: dropshot/listen.py, sim_sled/http/spoiling.py.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, cast

from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.helpers import rfc822_formatted_time

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import JSON_TYPE, Refused, Unanswered, error_body, internal, new_request_id

log = logging.getLogger(__name__)

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
        if headers:
            for name, value in headers.items():
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
        """Writes everything, at once. Raises `ConnectionError` if nobody is there any more."""
        request = self._request
        assert request is not None, "prepare comes first"
        body = self._body
        if self.keep_alive and request.version == HttpVersion11:
            line, connection = _STATUS_LINES.get(self._status) or status_line(self._status, old=False), ""
        else:
            line = status_line(self._status, old=request.version == HttpVersion10 and not self._close)
            connection = connection_line(request, keep_alive=self.keep_alive, close=self._close)
        head = f"{line}\r\nx-request-id: {self._request_id}\r\ndate: {rfc822_formatted_time()}\r\n{connection}"
        for method in self._allow:
            head += f"allow: {method}\r\n"
        if self._headers:
            for name, value in self._headers.items():
                head += f"{name}: {value}\r\n"
        if body is not None:
            head += f"content-type: {JSON_TYPE}\r\ncontent-length: {len(body)}\r\n\r\n"
            data = head.encode() if request.method == "HEAD" else head.encode() + body
        elif self._status not in _BODILESS:
            data = f"{head}content-length: 0\r\n\r\n".encode()  # else a client waits for the end of the connection
        else:
            data = f"{head}\r\n".encode()
        # aiohttp's writer has headers, chunks and compression to think of; this is all it would do
        protocol, writer = request.protocol, request.writer
        transport = protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("nobody is there any more")
        transport.write(data)
        writer.output_size += len(data)
        if protocol.writing_paused:
            await writer.drain()


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


RefusalOf = Callable[[Exception], Refused | Unanswered | None]
"""What a program's own error is told as; None: it is a bug."""


class MachineFails(Exception):
    """A request fails because of the machine; the text says all that there is to know."""


_OF_THE_MACHINE: Final = frozenset(
    {
        errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EACCES,
        errno.EPERM,
    }
)  # fmt: skip
"""What a request fails with where nobody's code is wrong: a disk that is full, broken or shut, no open file left."""


def failed_answer(
    error: Exception,
    request: web.BaseRequest,
    request_id: str,
    refusal_of: RefusalOf,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """What whoever asked is told when `error` ended its request: of all servers the last line. A bug of ours costs
    its own request and nothing else; the log has it.

    Raises `ConnectionError` again: nobody is there to be told.
    """
    if isinstance(error, ConnectionError):
        raise error
    refused = error if isinstance(error, Refused | Unanswered) else refusal_of(error)
    if refused is not None and refused is not error:
        log.debug("%s %s refused: %s", request.method, request.raw_path, error)
    if isinstance(refused, Unanswered):
        if request.transport is not None:
            request.transport.abort()  # what is answered after this goes nowhere
        return refused_answer(Refused(503, "connection dropped", close=True), request_id)
    if refused is None:
        if isinstance(error, MachineFails) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
            log.error("%s %s failed: %s", request.method, request.raw_path, error)
        else:
            log.error("%s %s failed", request.method, request.raw_path, exc_info=error)
        refused = internal()
    if headers:
        refused.headers = {**headers, **refused.headers}
    return refused_answer(refused, request_id)


def malformed(status: int, message: str) -> web.StreamResponse:
    """The answer to what is no HTTP, or to a bug outside of all handlers."""
    return cast("web.StreamResponse", refused_answer(Refused(status, message, close=True)))
