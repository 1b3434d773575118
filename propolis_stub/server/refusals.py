"""Every error answer of the Propolis API in one place: status, `error_code`, `message` (PR 4.1, 4.2).

Core errors know no HTTP; `refusal_of` translates them.

Read before: errors.py. Read next: server/base.py.
"""

from __future__ import annotations

from nexus_client.dropshot.answers import Refused, bad_request, internal
from propolis_stub.errors import (
    AlreadyInitialized,
    NoInstance,
    PropolisError,
    QueueFull,
    RequestDenied,
)
from propolis_stub.serial.history import HistoryGone
from propolis_stub.spec.read import SpecRefused


def no_instance() -> Refused:
    return Refused(424, "Server not initialized (no instance)", "NoInstance")


def monitor_gone(gen: int) -> Refused:
    return Refused(410, f"No instance present; will never reach generation {gen}", "NoInstance")


def destroyed_before_handled() -> Refused:
    return Refused(410, "Gone", "VM destroyed before request could be handled")


def backend_error(text: str) -> Refused:
    """Crucible's complaints are code and message at once."""
    return Refused(400, text, text)


def refusal_of(error: Exception) -> Refused | None:
    """The answer for what the core refused; None: a bug of ours."""
    match error:
        case NoInstance():
            return no_instance()
        case AlreadyInitialized():
            return Refused(409, "instance already initialized", "AlreadyInitialized")
        case RequestDenied():
            return Refused(403, "Forbidden", str(error))
        case SpecRefused() | HistoryGone():
            return bad_request(str(error))
        case QueueFull():
            return Refused(503, "Service Unavailable")
        case PropolisError():
            return internal()
        case _:
            return None
