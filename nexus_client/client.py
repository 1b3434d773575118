"""The shell that talks to Nexus: one request per call, each answer mapped once to what it means (verdict.py).

Whether to try again and when is decided in the cores (outbox.py, registration.py), never in here: so nothing in
this file, nor below it, sends anything twice. How many at a time is decided in senders.py.

Read before: exchange/http_client.py, outbox.py, registration.py, verdict.py. Read next: senders.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from nexus_client.codec import SLED_AGENT_INFO, encode
from nexus_client.dropshot.json import BadJson
from nexus_client.exchange.answer import Answer
from nexus_client.exchange.http_client import Call, Failure, HttpClient
from nexus_client.outbox import Outcome, Transient, Trouble
from nexus_client.registration import Found, GetOutcome, NotFound
from nexus_client.types import SledAgentInfo, SledVmmState
from nexus_client.verdict import MESSAGE_CHARS_MAX, refusal, verdict

API_VERSION: Final = "1.0.0"
"""Of Nexus's internal API (NX 3); mandatory in each request."""

TIMEOUT_S: Final = 15.0
"""For a whole request, connecting and redirections included (SA 2.10)."""

_REGISTRATIONS_IN_FLIGHT: Final = 64
"""Of the sleds of one process; ten thousand that start together would otherwise connect at once."""


class NexusClient:
    """Requests to one Nexus's internal API, for example at `[::1]:12221`. Use it as an async context manager."""

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.address = address
        self._http = HttpClient({"api-version": API_VERSION, "accept": "application/json"}, timeout_s=timeout_s)
        self._registrations = asyncio.Semaphore(_REGISTRATIONS_IN_FLIGHT)

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def open(self) -> None:
        """Needs a running loop. Opens no connection yet."""
        self._http.open()

    async def close(self) -> None:
        """Close every connection; requests under way end as `Transient`."""
        await self._http.close()

    def start_put(self, propolis_id: UUID, body: SledVmmState, done: Callable[[Outcome], None]) -> Call:
        """PUT /vmms/{propolis_id} (NX 3.2). `done` is called once, later, unless the call is cancelled before."""
        return self._http.start(
            self.address, "PUT", f"/vmms/{propolis_id}", encode(body), lambda result: done(_delivery(result))
        )

    async def put_vmm_state(self, propolis_id: UUID, body: SledVmmState) -> Outcome:
        """The same for a task."""
        return _delivery(await self._http.ask(self.address, "PUT", f"/vmms/{propolis_id}", encode(body)))

    async def post_sled_agent(self, sled_id: UUID, info: SledAgentInfo) -> Outcome:
        """POST /sled-agents/{sled_id} (NX 3.3)."""
        async with self._registrations:
            return _delivery(await self._http.ask(self.address, "POST", f"/sled-agents/{sled_id}", encode(info)))

    async def get_sled_agent(self, sled_id: UUID) -> GetOutcome:
        """GET /sled-agents/{sled_id} (NX 3.3). An unreadable answer is Transient, as for the real sled."""
        async with self._registrations:
            result = await self._http.ask(self.address, "GET", f"/sled-agents/{sled_id}", None)
        if isinstance(result, Failure):
            return _transient(result)
        if result.status == 404:
            return NotFound()
        if result.status != 200:
            return refusal(result.status, result.body)
        try:
            return Found(SLED_AGENT_INFO.decode(result.body))
        except BadJson as error:
            return Transient(f"unreadable answer: {error}"[:MESSAGE_CHARS_MAX])


def _delivery(result: Answer | Failure) -> Outcome:
    return _transient(result) if isinstance(result, Failure) else verdict(result.status, result.body)


def _transient(failure: Failure) -> Transient:
    trouble = Trouble.HUNG if failure.hung else Trouble.ANSWERED
    if failure.unreached:
        trouble = Trouble.UNREACHED  # hung or not: it was not this report on which it hung
    return Transient(failure.why[:MESSAGE_CHARS_MAX], trouble)
