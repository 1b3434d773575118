"""A request and how it was answered, as a value: what a recording keeps of it.

Read before: http/routes.py. Read next: http/app.py, recording/scribe.py.
"""

from __future__ import annotations

from typing import Any, Protocol
from uuid import UUID

from msgspec import Struct

from sim_sled.http.routes import Call


class Exchange(Struct, frozen=True, gc=False):
    """A request to a sled and its status, for whoever wants to make it again. `op` "": no operation of the API."""

    sled_id: UUID
    op: str
    method: str
    target: str
    version: str | None
    status: int
    body: bytes | None
    """As it came; None if nobody has read one as JSON."""
    fits: bool
    """It was some, of its operation."""
    has_body: bool
    """There was one, read or not."""


class Tap(Protocol):
    """Who is told of requests when they are answered."""

    def is_plain(self, op: str, values: tuple[Any, ...], target: str, /) -> bool:
        """Whether `went` may know requests of this target, which is remembered."""

    def went(self, call: Call, version: str | None, body: bytes | None, /) -> bool:
        """A plain one was answered with 200. False: it says more than its turn, so `over` is to be told."""

    def over(self, exchange: Exchange, /) -> None:
        """Another one was answered."""
