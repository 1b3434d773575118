"""What goes back when a request is not carried out: Dropshot's error body (SA 1.3).

Read next: dropshot/body.py, dropshot/control.py, dropshot/response.py, dropshot/routes.py, sim_sled/http/answers.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import urandom
from typing import Final

JSON_TYPE: Final = "application/json"
NOT_FOUND: Final = "Not Found"

MESSAGE_MAX: Final = 4096
"""A message may quote what the client sent, and that may be a megabyte."""

_IDS_AT_ONCE: Final = 256
_ids: Final[list[str]] = []
"""Drawn, and not given to a request yet."""

_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""The digit of a random one that tells the variant: two of its bits are fixed."""


class Refused(Exception):
    """An answer other than success.

    `allow`: methods of a 405. `close`: the connection cannot be used any more. `detail`: what the original would only
    write into its log; control APIs tell it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        error_code: str | None = None,
        *,
        allow: tuple[str, ...] = (),
        close: bool = False,
        headers: Mapping[str, str] | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.error_code = error_code
        self.allow = allow
        self.close = close
        self.headers = headers or {}
        self.detail = detail


class Unanswered(Exception):
    """The connection ends without an answer."""


def new_request_id() -> str:
    """A random UUID of version 4: `uuid.uuid4` without the object, and without a system call for each."""
    if not _ids:
        digits = urandom(16 * _IDS_AT_ONCE).hex()
        for h in (digits[at : at + 32] for at in range(0, len(digits), 32)):
            _ids.append(f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:]}")
    return _ids.pop()


def error_body(request_id: str, refused: Refused) -> bytes:
    """Dropshot's error, pretty-printed."""
    body = {"request_id": request_id}
    if refused.error_code is not None:
        body["error_code"] = refused.error_code
    message = refused.message
    body["message"] = message if len(message) <= MESSAGE_MAX else message[:MESSAGE_MAX] + "…"
    if refused.detail is not None:
        body["detail"] = refused.detail
    return json.dumps(body, indent=2, ensure_ascii=False).encode(errors="replace")


def bad_request(message: str) -> Refused:
    return Refused(400, message)


def not_found(error_code: str | None = None) -> Refused:
    """404s never show their text as message; where there is one it is the code."""
    return Refused(404, NOT_FOUND, error_code)


def internal() -> Refused:
    """Details are in the server's log only."""
    return Refused(500, "Internal Server Error", "Internal")
