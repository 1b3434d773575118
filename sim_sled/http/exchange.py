"""A request and how it was answered, as a value: what a recording keeps of it.

Read next: http/app.py, recording/lines.py.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Exchange:
    """A request and how it was answered, for whoever wants to make it again. `op` "": no operation of the API;
    `body`: as it came, None if nobody has read one as JSON (`fits`: it was some); `has_body`: there was one.
    """

    op: str
    method: str
    target: str
    version: str | None
    body: bytes | None
    fits: bool
    has_body: bool
    status: int
