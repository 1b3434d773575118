"""A request and how it was answered, as a value: what a recording keeps of it.

Read next: http/app.py, recording/scribe.py.
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
    """A request while it is answered, for whoever wants to make it again, and the decoder of its body, by the way."""

    op = ""
    """ "": no operation of the API."""
    version: str | None = None
    body: bytes | None = None
    """As it came; None if nobody has read one as JSON."""
    fits = False
    """It was some."""
    kind: Decodes
    """Of a row that has a body."""

    def __init__(self, request: Asked) -> None:
        self.request = request

    def decode(self, body: bytes, /) -> Any:
        self.body = body
        value = self.kind.decode(body)
        self.fits = True
        return value


class Tap(Protocol):
    """Who is told of requests when they are answered, with the status."""

    @property
    def over(self) -> Callable[[UUID, Exchange, int], None]:
        """It is answered."""
