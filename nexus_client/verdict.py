"""What an answer of Nexus means: the one table, for reports and for registration (docs/delivery.md says why).

    204 (or what the operation promises) -> Delivered
    4xx but 408, 425, 429                -> Permanent: Nexus has read it and will not have it
    everything else                      -> Transient: 1xx, other 2xx, 3xx that is not followed, 5xx, unknown ones

Only Nexus's own considered no ends a report or a starting daemon. What something in front of Nexus says while
Nexus is away (a login page, a maintenance redirect, "slower") is no answer to the report.

Read before: outbox.py. Read next: client.py.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nexus_client.dropshot.text import shown
from nexus_client.outbox import Delivered, Outcome, Permanent, Transient

PASSING_4XX: Final = frozenset(
    {
        408,  # Request Timeout: the server gave up waiting for a request, perhaps for none at all
        425,  # Too Early: the same request is welcome later
        429,  # Too Many Requests: slower
    }
)
"""4xx that speak of the moment, not of the request."""

MESSAGE_CHARS_MAX: Final = 512
"""Of a foreign message that goes into ours."""

_DELIVERED: Final = Delivered()


def is_final(status: int) -> bool:
    """Whether asking again would be answered the same."""
    return 400 <= status <= 499 and status not in PASSING_4XX


def verdict(status: int, body: bytes) -> Outcome:
    """Of an operation that promises 204."""
    return _DELIVERED if status == 204 else refusal(status, body)


def refusal(status: int, body: bytes) -> Transient | Permanent:
    """Of an answer that is not what was promised."""
    message = f"{status}: {_message(body)}"
    return Permanent(message, status) if is_final(status) else Transient(message, status=status)


def _message(raw: bytes) -> str:
    """The message of an error body, or its beginning if it is none."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        value = None
    message = value.get("message") if isinstance(value, dict) else None
    text = message if isinstance(message, str) else raw[:MESSAGE_CHARS_MAX].decode(errors="replace")
    return shown(text[:MESSAGE_CHARS_MAX]) or "no message"
