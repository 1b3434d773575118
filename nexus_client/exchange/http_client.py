"""Sends one request and hands back its answer, over kept connections. Shell; right first, fast second.

    start --> a quiet kept connection, or a new one --> written once --> the answer, or why there is none
                     ^                                                        |
                     +-------------- only if nothing is left to come ---------+

What it promises (docs/delivery.md has the reasons, and what other clients do):

* A connection with unread or unexpected bytes is never handed out: bytes while it is idle end it, and before each use
  the socket itself is asked whether something came that the loop has not seen yet.
* A request is written once. Whatever happens then is told to the caller; nothing is sent again behind their back.
* 307 and 308 are followed with method and body, as the real agent's client does, within the same time.
* Everything has a limit: head, body, hops, connections kept, and the time of the whole.

Callbacks, not tasks: a request costs a write and a read. `ask` is the same for those who can wait.

Read before: exchange/answer.py. Read next: client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import Callable, Mapping
from typing import Final, cast
from urllib.parse import urljoin, urlsplit

from msgspec import Struct

from nexus_client.dropshot.telling import reason
from nexus_client.exchange.answer import BODY_BYTES_MAX, Answer, AnswerReader, BadAnswer

HOPS_MAX: Final = 10
"""Redirections followed for one request, as the real agent's client does."""

IDLE_S: Final = 25.0
"""How long a connection is kept: a Dropshot server closes an idle one after 30 s."""

IDLE_MAX: Final = 512
"""Connections kept in all; more are closed after their answer."""

CLOSE_S: Final = 1.0
"""How long the end waits for connections to take leave: a loop needs a turn or two for each."""

_CHECKS: Final = 16
"""Per timeout: a request is given up within a sixteenth more than its time. One timer serves all."""

_FOLLOWED: Final = frozenset({307, 308})


class Failure(Struct, frozen=True):
    """No answer. `hung`: the time ran out. `unreached`: nothing even took the connection."""

    why: str
    hung: bool = False
    unreached: bool = False


Done = Callable[[Answer | Failure], None]


class HttpClient:
    """Requests to `authority`s like `[::1]:12221`, plain HTTP. Needs a running loop from `open` to `close`.

    `headers` go with every request; names and values are trusted. `timeout_s` is for a whole request, connecting
    and hops included. At most `body_max` bytes of an answer's body are kept; more is cut and costs its connection.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        body_max: int = BODY_BYTES_MAX,
        idle_max: int = IDLE_MAX,
    ) -> None:
        self.timeout_s = timeout_s
        self.body_max = body_max
        self._head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._idle_max = idle_max
        self._idle: dict[str, dict[_Connection, None]] = {}  # the longest idle first
        self._idle_count = 0
        self._connections: set[_Connection] = set()
        self._calls: dict[Call, None] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Opens no connection yet. Twice is once."""
        self.loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Ends every request under way as a `Failure`, and every connection."""
        self.loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connecting = [call.connecting for call in self._calls if call.connecting is not None]
        for call in list(self._calls):
            call.fail(Failure("the client is closed"))
        await asyncio.gather(*connecting, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()  # nothing is left to be written on them: what was under way has been aborted
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._connections:  # noqa: ASYNC110 -- closed: the loop takes leave of each in its next turns
                    await asyncio.sleep(0)

    def start(self, authority: str, method: str, path: str, body: bytes | None, done: Done) -> Call:
        """Send one request; `done` is called once with what became of it, never before this returns.

        `path` is percent-encoded already. `Call.cancel` takes it back: `done` is not called then.
        """
        call = Call(self, authority, method, path, body, done)
        if self.loop is None:
            asyncio.get_running_loop().call_soon(call.fail, Failure("the client is closed"))
            return call
        call.began = self.loop.time()
        self._calls[call] = None
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout_s / _CHECKS, self._check)
        call.go()
        return call

    async def ask(self, authority: str, method: str, path: str, body: bytes | None) -> Answer | Failure:
        """The same for a task. Cancelled, it takes the request back."""
        future: asyncio.Future[Answer | Failure] = asyncio.get_running_loop().create_future()

        def done(result: Answer | Failure) -> None:
            if not future.done():
                future.set_result(result)

        call = self.start(authority, method, path, body, done)
        try:
            return await future
        finally:
            call.cancel()

    # --- for calls and connections -------------------------------------------------------------------------------

    def request(self, call: Call) -> bytes:
        """The bytes of a request: one write, so that it is never half on its way."""
        head = f"{call.method} {call.path} HTTP/1.1\r\nhost: {call.authority}\r\n{self._head}"
        if call.body is None:
            return f"{head}\r\n".encode("ascii")
        return (
            f"{head}content-type: application/json\r\ncontent-length: {len(call.body)}\r\n\r\n".encode("ascii")
            + call.body
        )

    def take(self, authority: str) -> _Connection | None:
        """A kept connection on which nothing has come, the last used first."""
        idle = self._idle.get(authority)
        while idle:
            connection, _ = idle.popitem()
            self._idle_count -= 1
            if connection.is_quiet():
                return connection
            connection.abort()
        return None

    def keep(self, connection: _Connection) -> None:
        """Nothing is left to come on it."""
        if self.loop is None or self._idle_count >= self._idle_max:
            connection.close()
            return
        connection.idle_since = self.loop.time()
        idle = self._idle.get(connection.authority)
        if idle is None:
            idle = self._idle[connection.authority] = {}
        idle[connection] = None
        self._idle_count += 1
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout_s / _CHECKS, self._check)

    def made(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def lost(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self.unkeep(connection)

    def unkeep(self, connection: _Connection) -> None:
        """It is no good any more."""
        idle = self._idle.get(connection.authority)
        if idle is not None and connection in idle:
            del idle[connection]
            self._idle_count -= 1

    def over(self, call: Call) -> None:
        self._calls.pop(call, None)

    def _check(self) -> None:
        """Gives up what takes too long, closes what was idle too long."""
        self._timer = None
        if self.loop is None:
            return
        now = self.loop.time()
        late = []
        for call in self._calls:
            if now - call.began < self.timeout_s:
                break
            late.append(call)
        for call in late:
            call.fail(Failure(f"no answer within {self.timeout_s:g} s", hung=True, unreached=call.connection is None))
        for authority, idle in list(self._idle.items()):
            for connection in list(idle):
                if now - connection.idle_since < IDLE_S:
                    break
                connection.close()
                self.unkeep(connection)
            if not idle:
                del self._idle[authority]
        if self._timer is None and (self._calls or self._idle):
            self._timer = self.loop.call_later(self.timeout_s / _CHECKS, self._check)


class Call:
    """One request under way, redirections included. Made by `HttpClient.start`."""

    __slots__ = (
        "_client",
        "_done",
        "_hops",
        "_over",
        "authority",
        "began",
        "body",
        "connecting",
        "connection",
        "method",
        "path",
    )

    def __init__(  # noqa: PLR0917 -- a request's own parts, in their order on the wire
        self, client: HttpClient, authority: str, method: str, path: str, body: bytes | None, done: Done
    ) -> None:
        self._client = client
        self.authority = authority
        self.method = method
        self.path = path
        self.body = body
        self.began = 0.0
        self.connection: _Connection | None = None
        self.connecting: asyncio.Task[None] | None = None
        self._done = done
        self._hops = 0
        self._over = False

    def cancel(self) -> None:
        """The caller does not want the answer any more. After the end: nothing."""
        if self._end():
            self._let_go()

    def fail(self, failure: Failure) -> None:
        """There is no answer, for this reason."""
        if self._end():
            self._let_go()
            self._done(failure)

    def go(self) -> None:
        """Write the request on a connection, as soon as there is one."""
        connection = self._client.take(self.authority)
        if connection is not None:
            self.connection = connection
            connection.send(self, self._client.request(self), self._client.body_max)
        else:
            loop = self._client.loop
            assert loop is not None, "only an open client sends"
            self.connecting = loop.create_task(self._connect(loop))

    def answered(self, answer: Answer) -> None:
        """The connection has it, and is done with this call."""
        self.connection = None
        if answer.status in _FOLLOWED and answer.location is not None and not self._over:
            target = _target(self.authority, self.path, answer.location)
            if target is not None:
                self._hops += 1
                if self._hops > HOPS_MAX:
                    self.fail(Failure(f"more than {HOPS_MAX} redirections"))
                    return
                self.authority, self.path = target
                self.go()
                return
        if self._end():
            self._done(answer)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        host, _, port = self.authority.rpartition(":")
        connection = _Connection(self._client, self.authority)
        try:
            await loop.create_connection(lambda: connection, host.strip("[]"), int(port))
        except asyncio.CancelledError:
            # uvloop closes what it has just made without a word to it: nobody else would take leave
            self._client.lost(connection)
            raise
        except (OSError, ValueError) as error:
            # ValueError: a name that no resolver takes
            self.connecting = None
            self.fail(Failure(f"cannot connect to {self.authority}: {reason(error)}", unreached=True))
            return
        self.connecting = None
        if self._over:
            connection.abort()
            return
        self.connection = connection
        connection.send(self, self._client.request(self), self._client.body_max)

    def _end(self) -> bool:
        if self._over:
            return False
        self._over = True
        self._client.over(self)
        return True

    def _let_go(self) -> None:
        if self.connecting is not None:
            self.connecting.cancel()
        if self.connection is not None:
            # its answer may still come, and must not be the next one's
            self.connection.abort()


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    __slots__ = ("_call", "_client", "_poll", "_reader", "_transport", "authority", "idle_since")

    def __init__(self, client: HttpClient, authority: str) -> None:
        self._client = client
        self.authority = authority
        self.idle_since = 0.0
        self._call: Call | None = None
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last answer, in the loop's hands or still in the kernel's."""
        return self._transport is not None and not self._transport.is_closing() and not self._poll.poll(0)

    def send(self, call: Call, request: bytes, body_max: int) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            # lost between its making and now
            call.connection = None
            call.fail(Failure("the connection was lost before the request"))
            return
        self._call = call
        self._reader.begin(body_max)
        transport.write(request)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        self._call = None
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # a stream's; uvloop's has no such base class
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._client.made(self)

    def data_received(self, data: bytes) -> None:
        call = self._call
        if call is None:
            # nobody asked: a farewell (408), or the late answer to what was given up
            self._client.unkeep(self)
            self.abort()
            return
        try:
            answer = self._reader.feed(data)
        except BadAnswer as bad:
            self._fail(call, f"not an answer of HTTP/1: {bad}")
            return
        if answer is None:
            return
        assert self._transport is not None, "data come after the connection is made"
        if self._transport.get_write_buffer_size():
            # the peer cannot have read what has not left us: this answers something else
            self._fail(call, f"answered {answer.status} before the request was sent")
            return
        self._call = None
        if self._reader.reusable:
            self._client.keep(self)
        else:
            self._transport.close()
        call.answered(answer)

    def eof_received(self) -> None:
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        self._transport = None
        self._client.lost(self)

    def _ended(self, error: Exception | None) -> None:
        self._client.unkeep(self)
        call, self._call = self._call, None
        if call is None:
            return
        answer = self._reader.end()
        if answer is not None:
            call.answered(answer)
        else:
            call.connection = None
            call.fail(
                Failure(
                    "the connection was closed without an answer"
                    if error is None
                    else f"the connection was lost: {reason(error)}"
                )
            )

    def _fail(self, call: Call, why: str) -> None:
        self.abort()
        call.connection = None
        call.fail(Failure(why))


def _target(authority: str, path: str, location: str) -> tuple[str, str] | None:
    """Where a redirection leads; None: nowhere that is plain HTTP, so it is not followed."""
    try:
        parts = urlsplit(urljoin(f"http://{authority}{path}", location))
        port = parts.port or 80
    except ValueError:
        return None
    if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not all("!" <= letter <= "~" for letter in host + target):
        return None  # it would have to be guessed how it is meant
    return f"{host}:{port}", target
