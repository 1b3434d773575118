"""Listeners and their connections, with the manners of the original's HTTP library (DS 3).

aiohttp's connection does the work: its parser, its timers, its end. Two things are ours. The loop from request to
request makes no task of each (`Direct`). And in front of the parser stands a look at each request head,
because that parser is stricter than hyper in some ways (no `Host`, two of them, methods it does not know) and laxer
in others (a request line without a version). An ordinary head passes untouched; an odd one is mended into one that
means the same, or refused. What is *not* mended is told in docs/fidelity.md.

A connection that has had an answer and asks nothing more, and one with half a request head, are closed after
`Patience.idle_s`; one that never sent anything stays, as in the original. A client that has shut its sending side is
answered if that takes no longer than `Patience.half_closed_s`.

Over 500 lines: the look at a head, the loop of requests and the end of a connection share what the connection knows.

Read before: dropshot/descriptors.py, dropshot/response.py, dropshot/text.py. Read next: dropshot/body.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any, Final

import aiohttp
import attrs
from aiohttp import web_protocol
from aiohttp.hdrs import CONTENT_LENGTH
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.http_parser import HttpRequestParser
from aiohttp.http_writer import StreamWriter
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from msgspec import Struct

from nexus_client.dropshot import web
from nexus_client.dropshot.descriptors import ToldOnce
from nexus_client.dropshot.response import malformed
from nexus_client.dropshot.text import SocketAddress

_log = logging.getLogger(__name__)

HEADERS_MAX: Final = 100
"""Header lines of a request; more are a 431 (hyper)."""

TARGET_MAX: Final = 65_534
"""Bytes of a request target; more are a 414 (hyper)."""

HEAD_MAX: Final = 417_792
"""Bytes of a request head that has not ended: hyper's buffer. More are a 431."""

BACKLOG: Final = 1_024
"""Pending connections per listener: a background round of Nexus opens some hundreds at once."""

_TURNS_TO_CLOSE: Final = 4
"""Of the event loop, until a connection that was accepted as the last is made, told that all is over, and closed. A
loop that ends before leaves its socket open.
"""

_TOO_LATE: Final = RuntimeError("the request this body came with has been answered")

WHOLE_MAX: Final = 4_096
"""Bytes of a body that is kept beside the stream until the next request: nearly all that Nexus sends."""

SHUTDOWN_S: Final = 1.0
"""How long `Listener.close` waits for requests under way: long polls have no end of their own."""


class Patience(Struct, frozen=True):
    """How long a connection is waited for, in seconds. The defaults are the original's (DS 3); tests have less."""

    idle_s: float = 30.0
    """Between an answer and the next request head, and for a head that has begun."""
    body_s: float = 60.0
    """For a body to arrive: Nexus itself gives up after 60 s."""
    half_closed_s: float = 0.5
    """For an operation whose client has shut its sending side: the original answers at once or never."""


PATIENCE: Final = Patience()

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Server(web.Server):
    """`handle` answers every request: `loop.create_server(server, …)` binds it.

    With `cancels`, a handler ends when its client goes away; without, it runs to its end, as the original's do.
    """

    def __init__(
        self,
        handle: Handle,
        *,
        patience: Patience = PATIENCE,
        cancels: bool = False,
    ) -> None:
        # auto_decompress: Dropshot takes bodies as they are, and 1 MiB must not become 1 GiB
        super().__init__(
            handle,
            handler_cancellation=cancels,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=patience.idle_s,
            max_line_size=TARGET_MAX + 1,
            max_field_size=HEAD_MAX,
        )
        self.patience: Final = patience
        self.over = False

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- aiohttp's own
        """Ends every connection, also one that was accepted just before and is only now being made."""
        self.over = True
        await super().shutdown(timeout)
        for _ in range(_TURNS_TO_CLOSE):
            await asyncio.sleep(0)

    def __call__(self) -> RequestHandler:
        return CONNECTION(self, loop=self._loop, **self._kwargs)


class Connection(RequestHandler):
    """aiohttp's connection, with the manners told above."""

    __slots__ = (
        "_answered", "_half_closed", "_head", "_last", "_late", "_left", "_line", "_patience", "_pipelines",
        "_server", "_streams", "_whole",
    )  # fmt: skip

    def __init__(self, server: Server, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._server = server
        self._patience = server.patience
        self._head = bytearray()  # of a request that has begun to arrive
        self._line = False  # whether its first line has, and is one
        self._left: int | None = 0  # bytes of the body on its way; None: it comes in chunks
        self._pipelines = False
        self._last: Any = None  # body of the request that arrived last
        self._whole: bytes | None = None  # the same, if it is small and came together with its head
        self._answered: Any = None  # body of the request that was answered last
        self._late: asyncio.TimerHandle | None = None
        self._half_closed = False
        self._streams = False

    def streams(self) -> None:
        """The answer under way has no end of its own: its handler ends when its client goes away. Otherwise one that
        has nothing to say for hours would not notice.
        """
        self._streams = True

    @property
    def patience(self) -> Patience:
        """How long its requests are waited for."""
        return self._patience

    @property
    def _busy(self) -> bool:
        """Whether a request has arrived that is not answered yet."""
        return self._request_count > 0 and (self._waiter is None or self._waiter.done())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._server.over:
            self.force_close()  # nobody would ever close it
            return
        # one that has sent nothing yet stays
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wait_no_longer()
        handler = self._task_handler if self._streams else None
        super().connection_lost(exc)
        if handler is not None:
            handler.cancel()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Every body that is read to its end asks for this; nearly always nothing has been paused."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    # --- heads ---

    def data_received(self, data: bytes) -> None:
        waiter = self._waiter
        if (
            waiter is not None
            and not waiter.done()
            and not (self._head or self._pipelines)
            and 0 <= (end := data.find(_END)) <= _ORDINARY_MAX
            and is_ordinary(data[:end])
        ):
            # nearly always: a connection at rest, and a head that is in order
            self._pass_on(data, end + len(_END))
            return
        # Within a body, on a websocket, and of pipelined requests everything is the parser's own business.
        if self._pipelines or self._upgraded or not self._body_has_arrived():
            self._pass_on(data)
            return
        if self._busy:
            self._pipelines = True
            self._pass_on(data)
            return
        if not self._head and 0 <= (end := data.find(_END)) <= _ORDINARY_MAX and is_ordinary(data[:end]):
            self._pass_on(data, end + len(_END))
            return
        seen = max(0, len(self._head) - len(_END))
        self._head += data if self._head else data.lstrip(b"\r\n")  # hyper forgives empty lines in front, too
        end = self._head.find(_END, seen)
        if end < 0 and self._may_become_a_head(seen):
            if len(self._head) > HEAD_MAX:
                self._end(431)
            elif self._late is None and self._head and self._keepalive_handle is None:
                self._late = self._loop.call_later(self._patience.idle_s, self.force_close)
            return
        head = bytes(self._head)
        self._head.clear()
        self._line = False
        self._wait_no_longer()
        if end < 0:
            if len(head) > TARGET_MAX and b"\n" not in head:
                self._end(414)
            else:
                self._pass_on(head)  # no HTTP, and the parser says why
            return
        mended = mend(head, end)
        if mended == 400:
            self._refuse("no request line of HTTP/1.0 or 1.1")
        elif isinstance(mended, int):
            self._end(mended)
        else:
            self._pass_on(mended, mended.index(_END) + len(_END))

    def _may_become_a_head(self, seen: int) -> bool:
        """Whether more bytes can make this a request. What cannot is answered now, not after half a minute."""
        if self._line:
            return b"\n\n" not in self._head[seen:]
        line, newline, _ = bytes(self._head[: TARGET_MAX + _LINE_BESIDE]).partition(b"\r\n")
        if newline:
            self._line = _REQUEST_LINE.fullmatch(line) is not None
            return self._line
        return len(line) < TARGET_MAX + _LINE_BESIDE and _BEGINNING.fullmatch(line) is not None

    def _pass_on(self, data: bytes, body_at: int = 0) -> None:
        """To the parser. `body_at`: where in `data` the head ends, if it begins with one.

        A client that sends more than its request has the parser to itself from then on: in the middle of `data` the
        next head may have begun.
        """
        messages = self._messages
        before = len(messages)
        super().data_received(data)
        came = len(messages) - before
        if self._pipelines or self._upgraded or not (came or body_at == 0):
            return
        left = self._left
        if came:
            message, self._last = messages[-1]
            self._whole = None
            if isinstance(message, _ErrInfo):
                return
            length = message.headers.get(CONTENT_LENGTH)
            left = int(length) if length else None if message.chunked else 0
        if left is None:
            behind = self._body_has_arrived() and not data.endswith(_END)
        else:
            left -= len(data) - body_at
            behind = left < 0
            if came == 1 and not left and body_at and len(data) - body_at <= WHOLE_MAX:
                self._whole = data[body_at:]
        self._left = left
        self._pipelines = behind or came > 1

    def whole(self, body: StreamReader) -> bytes | None:
        """What `body` will give, if it is known: small ones came together with their head. It can be asked for it all
        the same, which takes six calls.
        """
        return self._whole if body is self._last else None

    def _body_has_arrived(self) -> bool:
        return self._last is None or bool(self._last.is_eof())

    def _wait_no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self, why: str) -> None:
        """As if the parser had found it: the answer is `malformed`'s."""
        self._messages.append((_ErrInfo(400, BadHttpMessage(why), why), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, status: int) -> None:
        """The last answer of a connection whose request nobody reads to its end: without a body (DS 3)."""
        if self.transport is not None:
            reason = {414: "URI Too Long", 431: "Request Header Fields Too Large"}[status]
            self.transport.write(
                f"HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-length: 0\r\n"
                f"date: {rfc822_formatted_time()}\r\n\r\n".encode()
            )
        self.force_close()

    # --- ends ---

    def eof_received(self) -> bool:  # type: ignore[override]  # None there, which is False
        """The client has shut its sending side. True: it may still be answered."""
        if self._upgraded or self.transport is None:
            return False
        if not self._body_has_arrived():
            if self._last is self._answered:
                # nobody reads what was still to come; it was only kept open so that the client sees its answer
                self._last.feed_eof()
                return False
            self._last.set_exception(web.RequestPayloadError("connection closed before the body was complete"))
            self._last.feed_eof()  # whoever reads of it from now on meets the exception
        elif not self._busy:
            return False
        self._half_closed = True
        self._wait_no_longer()
        self._late = self._loop.call_later(self._patience.half_closed_s, self.force_close)
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Writes an answer. False: whoever asked is still there."""
        self._streams = False
        written = await super().finish_response(request, resp, start_time)
        self._is_answered(request)
        return written

    def _is_answered(self, request: web.BaseRequest) -> None:
        """Nothing can follow the last answer of a client that has shut its sending side."""
        self._answered = request.content
        if self._half_closed and not self._messages:
            self._close = True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is no HTTP; `exc` None cannot happen in our handlers."""
        if isinstance(exc, ConnectionError) and (self.transport is None or self.transport.is_closing()):
            raise exc  # the client of a stream has left in the middle of it, as all of them do
        if status >= 500:
            _log.error("%s failed outside of its handler", request.raw_path, exc_info=exc)
        else:
            _log.debug("malformed HTTP from %s: %s", request.remote, one_line(message or ""))
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already; a second one would be read as the next")
        text = "Internal Server Error" if status >= 500 else f"malformed HTTP request: {one_line(message or '')}"
        return malformed(status, text)


class Direct(Connection):
    """A connection with a loop of its own from request to request, for the aiohttp that it was written beside.

    aiohttp's makes one more task of each request, so that no handler leaves a context variable to the next: two more
    turns of the event loop, and a sixth of what a PUT costs. Here whoever has such a variable sets it when a request
    begins. All else is as it is there, and rests on names that are nobody's promise: see `loop_is_known`.
    """

    __slots__ = ()

    async def start(self) -> None:
        """Answers one request after the other, until the connection ends: the task of the connection."""
        handle = self._request_handler
        assert handle is not None
        while not self._force_close:
            if not self._messages:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            message, body = self._messages.popleft()
            if self._parser is not None:
                self._parser.message_consumed()
            if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            answering = handle
            if isinstance(message, _ErrInfo):
                answering, message = self._make_error_handler(message), web_protocol.ERROR
            task = self._task_handler
            assert task is not None
            request = web.BaseRequest(message, body, self, StreamWriter(self, self._loop), task, self._loop)
            del task  # with a traceback it would hold itself
            try:
                answer, lost = await self._handle_request(request, None, answering)
                if lost:
                    break
                self._keepalive = bool(answer.keep_alive)
                if not body.is_eof():
                    await self._drop_rest(body)
            except ConnectionError:
                break
            except Exception:  # noqa: BLE001 -- of every kind: it costs this connection and nothing else
                _log.exception("%s %s failed outside of its handler", request.method, request.raw_path)
                self.force_close()
            except BaseException:
                self.force_close()
                # or the traceback would hold the task that holds it
                request._task = None  # type: ignore[assignment]  # noqa: SLF001 -- as aiohttp does
                raise
            if not self._keepalive or self._close or self._force_close:
                break
            self._next_keepalive_close_time = self._loop.time() + self._patience.idle_s
            if self._keepalive_handle is None:
                self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if not self._force_close:
            self._task_handler = None
            if self.transport is not None:
                self.transport.close()

    async def _drop_rest(self, body: StreamReader) -> None:
        """Of a body that nobody has read to its end: its client shall see the answer before the connection goes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._force_close else self._lingering_time):
                while not body.is_eof():
                    await body.readany()
        if not body.is_eof():
            body.set_exception(_TOO_LATE)
            self.close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._upgraded:
            # what came behind a request for another protocol that was declined is still to be parsed
            return await super().finish_response(request, resp, start_time)
        self._streams = False
        try:
            await resp.prepare(request)
            await resp.write_eof()
            lost = False
        except ConnectionError:
            lost = True
        self._is_answered(request)
        return resp, lost


LOOP_KNOWN: Final = "3.14."
"""Beginning of the versions of aiohttp whose `RequestHandler.start` is the one that `Direct.start` stands for."""
_NAMES: Final = (
    "_buffer_paused", "_close", "_force_close", "_handle_request", "_keepalive", "_keepalive_handle",
    "_lingering_time", "_make_error_handler", "_messages", "_msg_queue_resume_size", "_next_keepalive_close_time",
    "_process_keepalive", "_request_handler", "_resume_reading_if_drained", "_task_handler", "_upgraded", "_waiter",
)  # fmt: skip


def loop_is_known(version: str, connection: type, parser: type) -> bool:
    """Whether the loop of this aiohttp's `connection` may be replaced; if not, it is slower and nothing else."""
    known = version.startswith(LOOP_KNOWN) and hasattr(parser, "message_consumed")
    return known and all(hasattr(connection, name) for name in _NAMES)


_KNOWN: Final = loop_is_known(aiohttp.__version__, RequestHandler, HttpRequestParser)
CONNECTION: type[Connection] = Direct if _KNOWN else Connection
"""What servers make of what they accept."""


def streams(request: web.BaseRequest) -> None:
    """See `Connection.streams`."""
    if isinstance(request.protocol, Connection):
        request.protocol.streams()


def one_line(error: BaseException | str) -> str:
    """The first line of a library's message."""
    return str(error).partition("\n")[0]


# ---- heads ---------------------------------------------------------------------------------------------------------

_END: Final = b"\r\n\r\n"
_METHODS: Final = (b"GET", b"PUT", b"POST", b"DELETE", b"HEAD", b"PATCH", b"OPTIONS")
_NOBODYS_METHOD: Final = b"LINK"
"""Known to aiohttp's parser, and no operation of ours has it: it stands for all methods that parser does not know."""

_ORDINARY_MAX: Final = 4096
"""Bytes of a head that is looked at as a whole. Longer ones are odd."""
_HEADS_KEPT: Final = 1024
"""Heads that are known to be ordinary, or not: 4 MB at most."""

_LINE_BESIDE: Final = 64
"""Bytes of a request line beside its target, and more."""
_ORDINARY: Final = re.compile(rb"(?:%b) [!-\"$-~]+ HTTP/1\.[01]\r\n" % b"|".join(_METHODS))
_REQUEST_LINE: Final = re.compile(
    rb"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) (?P<target>[^ \r\n]+) HTTP/1\.(?P<minor>[01])"
)
_BEGINNING: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*(?: [^ \x00-\x1f\x7f]*(?: [HTP/1.0]*)?)?\r?")


@lru_cache(maxsize=_HEADS_KEPT)  # a client that polls sends the same ones again and again
def is_ordinary(head: bytes) -> bool:
    """Whether a head, without its end, can go to the parser as it is. Nearly all can: this is on the hot path."""
    if _ORDINARY.match(head) is None:
        return False
    head = head.lower()
    return head.count(b"\r\nhost:") == 1 and b"\r\nupgrade:" not in head and head.count(b"\n") <= HEADERS_MAX


def mend(head: bytes, end: int) -> bytes | int:
    """A head that means the same to aiohttp's parser as `head`, which ends at `end`, to hyper; with all that follows
    it. Or the status of the answer that ends the connection.
    """
    line, *fields = head[:end].split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        return 414 if len(line) > TARGET_MAX else 400
    if len(match["target"]) > TARGET_MAX:
        return 414
    if len(fields) > HEADERS_MAX:
        return 431
    method = match["method"] if match["method"] in _METHODS else _NOBODYS_METHOD
    target = match["target"].partition(b"#")[0] or b"/"
    kept = [b"%b %b HTTP/1.%b" % (method, target, match["minor"])]
    host = False
    for field in fields:
        name, _, value = field.partition(b":")
        told = name.lower()
        if told == b"host":
            if host:
                continue
            host = True
        elif told == b"upgrade" and b"websocket" in [each.strip() for each in value.lower().split(b",")]:
            field = b"upgrade: websocket"  # noqa: PLW2901 -- the one of several that we speak
        kept.append(field)
    if not host:
        kept.append(b"host: nobody")
    return b"\r\n".join(kept) + head[end:]


# ---- listeners -----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Listener:
    """A bound listener; `address` is `ip:port` with IPv6 in brackets."""

    address: str
    _server: web.Server
    _listening: asyncio.Server

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def accept_no_more(self) -> None:
        """No new connections, and no new requests on those that are open."""
        stop_accepting(self._listening)
        self._server.pre_shutdown()

    async def close(self, wait_s: float = SHUTDOWN_S) -> None:
        """Ends every connection; what is under way has `wait_s` seconds."""
        self.accept_no_more()
        await asyncio.sleep(0)  # the turn in which what was accepted last becomes a connection
        await self._server.shutdown(wait_s)


def stop_accepting(listening: asyncio.AbstractServer) -> None:
    """Closes a bound listener, in the next turn of the loop at the latest.

    asyncio accepts in one turn and makes the connection in the next, which fails if the listener has been closed in
    between: nobody would ever close that socket (`Server._attach`). uvloop does both at once.
    """
    if not isinstance(listening, asyncio.Server):
        listening.close()
        return
    loop = asyncio.get_running_loop()
    for each in listening.sockets:
        loop.remove_reader(each.fileno())
    loop.call_soon(listening.close)


class PortRange:
    """Ports for many listeners on one address, in turn, from anywhere in the range and round it once.

    Of port 0 the kernel draws one at random and looks whether it is free, which takes longer the more are taken:
    for 10,000 listeners 4 s of processor time, and it takes them from outgoing connections. These lie below what it
    draws from.
    """

    FIRST: Final = 10_000
    END: Final = 32_768

    def __init__(self, start: int) -> None:
        span = self.END - self.FIRST
        self._left = iter([self.FIRST + (start + i) % span for i in range(span)])

    async def listen(self, server: web.Server, host: str) -> Listener:
        """Binds the next port that nobody has. Raises `OSError` when all are taken, or if it cannot bind at all."""
        for port in self._left:
            try:
                return await listen(server, SocketAddress(host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, f"no port from {self.FIRST} to {self.END - 1} of {host} is free")


def bound(listening: asyncio.Server, host: str) -> asyncio.Server:
    """It, if it listens. Raises OSError if not: loops pass over a socket that cannot be made (too many open files, a
    kernel without IPv6), and make a server that has none.
    """
    if not listening.sockets:
        listening.close()
        socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET).close()  # this one is told why
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))  # by now it could be made
    return listening


_TOLD_ONCE: Final = ToldOnce()


async def listen(server: web.Server, address: SocketAddress, backlog: int = BACKLOG) -> Listener:
    """Binds `server` to `address`; port 0 draws one. Raises `OSError`."""
    logging.getLogger("asyncio").addFilter(_TOLD_ONCE)
    loop = asyncio.get_running_loop()
    listening = bound(await loop.create_server(server, address.host, address.port, backlog=backlog), address.host)
    name = listening.sockets[0].getsockname()
    return Listener(str(SocketAddress(name[0], name[1])), server, listening)
