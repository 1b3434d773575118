"""A request and how it was answered, as a value: what a recording keeps of it.

Read before: http/routes.py. Read next: http/app.py, recording/scribe.py.
"""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct


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
