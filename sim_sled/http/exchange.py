"""A request and how it was answered, as a value: what a recording keeps of it.

Read next: http/app.py, recording/lines.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID


class Decodes(Protocol):
    """Of a body."""

    def decode(self, body: bytes, /) -> Any: ...


class Asked(Protocol):
    """What a request says of itself."""

    @property
    def method(self) -> str: ...

    @property
    def raw_path(self) -> str: ...

    @property
    def body_exists(self) -> bool: ...


class Exchange:
    """A request while it is answered, for whoever wants to make it again, and the decoder of its body, by the way.
    `op` "": no operation of the API; `body`: as it came, None if nobody has read one as JSON (`fits`: it was some);
    `begun`: what `Tap.begins` has said.
    """

    __slots__ = ("begun", "body", "fits", "kind", "op", "request", "status", "version")

    kind: Decodes
    """Of a row that has a body."""

    def __init__(self, request: Asked, version: str | None, begun: int) -> None:
        self.request = request
        self.version = version
        self.begun = begun
        self.op = ""
        self.body: bytes | None = None
        self.fits = False
        self.status = 0

    def decode(self, body: bytes, /) -> Any:
        self.body = body
        value = self.kind.decode(body)
        self.fits = True
        return value

    @property
    def has_body(self) -> bool:
        """There was one."""
        return self.body is not None or self.request.body_exists


class Tap(Protocol):
    """Who is told of requests: when they begin, and when they are answered."""

    def begins(self) -> int:
        """A request has come; the number is the exchange's `begun`."""

    @property
    def over(self) -> Callable[[UUID, Exchange], None]:
        """It is answered."""
