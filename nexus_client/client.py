"""The shell that talks to Nexus: one request per call, each answer mapped once to what it means.

    204 (or what the operation promises) -> Delivered       any 4xx, other 2xx, 3xx -> Permanent
    refused, lost, timed out, garbage, any 5xx -> Transient

Whether to try again and when is decided in the cores (outbox.py, registration.py), never in here: so nothing in
this file, nor in the library below it, sends anything twice.

`Senders` is how a daemon performs `Send` effects: a fixed number of tasks over a queue, not a task per VMM.

Read before: outbox.py, registration.py.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar
from uuid import UUID

import aiohttp
import msgspec
from yarl import URL

from nexus_client.codec import SLED_AGENT_INFO, encode
from nexus_client.dropshot.json import BadJson
from nexus_client.outbox import Delivered, Outcome, Permanent, Transient
from nexus_client.registration import Found, GetOutcome, NotFound
from nexus_client.types import SledAgentInfo, SledVmmState

API_VERSION: Final = "1.0.0"
"""Of Nexus's internal API (NX 3); mandatory in each request."""

TIMEOUT_S: Final = 15.0
"""For a whole request, connecting included (SA 2.10)."""

_TIMEOUT_CHECKS: Final = 16
"""Per timeout: a request is given up within a sixteenth more than its time."""

PUTS_IN_FLIGHT: Final = 256
"""32 are as fast as it gets (the client saturates a core); the rest is for a Nexus that hangs on some VMMs, which
must not delay the others."""

_OTHERS_IN_FLIGHT: Final = 8
"""Registrations of the sleds of one process; apart from the PUTs, or a hanging Nexus would starve them."""

_ANSWER_BYTES_MAX: Final = 65_536
"""Of an answer's body. Error bodies and a sled's info are far below 1 KiB."""

_MESSAGE_CHARS_MAX: Final = 512
"""Of a foreign message that goes into ours."""


class _Patience:
    """Ends requests that take too long, with one timer for all of them.

    The library's own total timeout arms and disarms a timer per request, which costs a tenth of a PUT.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[asyncio.Task[object], float] = {}  # in order of age
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: asyncio.Task[object]) -> None:
        """`task` has begun a request; it has no other one."""
        loop = asyncio.get_running_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s / _TIMEOUT_CHECKS, self._check)

    def end(self, task: asyncio.Task[object]) -> None:
        del self._since[task]
        self._late.discard(task)

    def ran_out(self, task: asyncio.Task[object]) -> bool:
        """Whether it was cancelled by this, and by nobody else."""
        return task in self._late and task.uncancel() == 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        began_by = loop.time() - self._timeout_s
        for task, began in self._since.items():
            if began > began_by:
                break
            if task not in self._late:
                self._late.add(task)
                task.cancel()
        self._timer = None
        if self._since:
            self._timer = loop.call_later(self._timeout_s / _TIMEOUT_CHECKS, self._check)


class NexusClient:
    """Requests to one Nexus's internal API, for example at `[::1]:12221`. Use it as an async context manager."""

    def __init__(self, address: str, *, in_flight_max: int = PUTS_IN_FLIGHT, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self._base = f"http://{address}"
        self._timeout_s = timeout_s
        # In front of the connector, whose own limits starve some senders for seconds; so the connector has none.
        self._puts = asyncio.Semaphore(in_flight_max)
        self._others = asyncio.Semaphore(_OTHERS_IN_FLIGHT)
        self._session: aiohttp.ClientSession | None = None
        self._patience = _Patience(timeout_s)

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def open(self) -> None:
        """Needs a running loop. Opens no connection yet."""
        if self._session is not None:
            return
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),  # see _Patience
            headers={"api-version": API_VERSION, "accept": "application/json", "content-type": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        # A PUT whose pooled connection closes unanswered would be sent again by the library without telling;
        # attempts would be miscounted and Nexus would see one twice. This is the only switch there is.
        session._retry_connection = False  # noqa: SLF001 -- see above; a test holds it
        self._session = session

    async def close(self) -> None:
        """Close every connection; requests under way end as `Transient`."""
        session, self._session = self._session, None
        self._patience.close()
        if session is not None:
            await session.close()

    async def put_vmm_state(self, propolis_id: UUID, body: SledVmmState) -> Outcome:
        """PUT /vmms/{propolis_id} (NX 3.2)."""
        async with self._puts:
            return await self._deliver("PUT", f"/vmms/{propolis_id}", encode(body))

    async def post_sled_agent(self, sled_id: UUID, info: SledAgentInfo) -> Outcome:
        """POST /sled-agents/{sled_id} (NX 3.3)."""
        async with self._others:
            return await self._deliver("POST", f"/sled-agents/{sled_id}", encode(info))

    async def get_sled_agent(self, sled_id: UUID) -> GetOutcome:
        """GET /sled-agents/{sled_id} (NX 3.3). An unreadable answer is Transient, as for the real sled."""
        async with self._others:
            answer = await self._ask("GET", f"/sled-agents/{sled_id}", None)
        if isinstance(answer, Transient):
            return answer
        status, raw = answer
        if status == 404:
            return NotFound()
        if status != 200:
            return _failure(status, raw)
        try:
            return Found(SLED_AGENT_INFO.decode(raw))
        except BadJson as error:
            return Transient(f"unreadable answer: {error}")

    async def _deliver(self, method: str, path: str, body: bytes) -> Outcome:
        answer = await self._ask(method, path, body)
        if isinstance(answer, Transient):
            return answer
        status, raw = answer
        return _DELIVERED if status == 204 else _failure(status, raw)

    async def _ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes] | Transient:
        """Status and body (cut at the limit) of the answer to one request."""
        if self._session is None:
            return Transient("the client is closed")
        task = asyncio.current_task()
        assert task is not None, "only tasks can wait"
        self._patience.begin(task)
        try:
            async with self._session.request(
                method, URL(self._base + path, encoded=True), data=body, allow_redirects=False
            ) as response:
                return response.status, b"" if response.status == 204 else await _body(response)
        except asyncio.CancelledError:
            if self._patience.ran_out(task):
                return Transient(f"no answer within {self._timeout_s:g} s")
            raise
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError is the library's word for "closed while the request was starting"
            return Transient(self._told(error)[:_MESSAGE_CHARS_MAX])
        finally:
            self._patience.end(task)

    def _told(self, error: Exception) -> str:
        if isinstance(error, aiohttp.ClientConnectorError):
            # the library's own text names TLS, which is not used here, and the address twice
            reason = os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
            return f"cannot connect to {self.address}: {reason}"
        return f"{type(error).__name__}: {error}"


_DELIVERED: Final = Delivered()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The answer's body, cut at the limit. What is broken off counts as it came: the status is known already."""
    parts, left = [], _ANSWER_BYTES_MAX
    try:
        while left > 0 and (part := await response.content.read(left)):
            parts.append(part)
            left -= len(part)
    except aiohttp.ClientPayloadError:
        pass
    if left <= 0:
        response.close()  # the rest may be endless; the connection is not worth it
    return b"".join(parts)


def _failure(status: int, raw: bytes) -> Transient | Permanent:
    message = f"{status}: {_message(raw)}"
    return Transient(message) if 500 <= status <= 599 else Permanent(message, status)


def _message(raw: bytes) -> str:
    """The message of an error body, or its beginning if it is none."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        value = None
    message = value.get("message") if isinstance(value, dict) else None
    text = message if isinstance(message, str) else raw[:_MESSAGE_CHARS_MAX].decode(errors="replace")
    return text[:_MESSAGE_CHARS_MAX] or "no message"


class Sendable(Protocol):
    """A `Send`, or what carries one on to whoever asked for it."""

    @property
    def propolis_id(self) -> UUID: ...

    @property
    def body(self) -> SledVmmState: ...


S = TypeVar("S", bound=Sendable)


class Senders(Generic[S]):
    """Performs `Send`s with a fixed number of tasks; each one's outcome goes to `on_reply(send, outcome)`.

    First come, first served. Bounded by the outbox: it has at most one `Send` per VMM out.
    `on_reply` is called in the event loop, exactly once per `send`, unless `stop` came first. What it raises goes
    to the loop's exception handler.
    """

    def __init__(
        self,
        client: NexusClient,
        on_reply: Callable[[S, Outcome], None],
        *,
        tasks: int = PUTS_IN_FLIGHT,
    ) -> None:
        self._client = client
        self._on_reply = on_reply
        self._queue: deque[S] = deque()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._tasks_max = tasks
        self._tasks: list[asyncio.Task[None]] = []

    def send(self, send: S) -> None:
        """Queue one. Needs a running loop."""
        self._queue.append(send)
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        if len(self._tasks) < self._tasks_max:
            self._tasks.append(asyncio.get_running_loop().create_task(self._work()))

    async def stop(self) -> None:
        """End at once; what has not been answered is not replied to."""
        tasks, self._tasks = self._tasks, []
        self._queue.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while not self._queue:
                waiter = loop.create_future()
                self._idle.append(waiter)
                await waiter
            send = self._queue.popleft()
            try:
                outcome = await self._client.put_vmm_state(send.propolis_id, send.body)
            except Exception as error:  # noqa: BLE001 -- a fault in the library must not lose a state: try again
                outcome = Transient(f"{type(error).__name__}: {error}"[:_MESSAGE_CHARS_MAX])
            try:
                self._on_reply(send, outcome)
            except Exception as error:  # noqa: BLE001 -- a bug there must not cost a task each time
                loop.call_exception_handler({"message": "on_reply raised", "exception": error})
