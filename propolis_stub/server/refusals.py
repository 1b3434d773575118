"""Every error answer of the Propolis API in one place: status, `error_code`, `message` (PR 4.1, 4.2).

Core errors know no HTTP; `refusal_of` translates them.

Read before: errors.py. Read next: server/base.py.
"""

from __future__ import annotations

from propolis_stub.errors import (
    AlreadyInitialized,
    NoInstance,
    PropolisError,
    QueueFull,
    RequestDenied,
)
from propolis_stub.serial.history import HistoryGone
from propolis_stub.spec.read import SpecRefused


class Refusal(Exception):
    """An error answer. `allow`: the methods that a 405 names."""

    def __init__(self, status: int, message: str, code: str | None = None, allow: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.allow = allow


def bad_request(message: str) -> Refusal:
    return Refusal(400, message)


def not_found(code: str | None = None) -> Refusal:
    """404s never show their text as message; where there is one it is the code."""
    return Refusal(404, "Not Found", code)


def internal() -> Refusal:
    """Details are in the server's log only."""
    return Refusal(500, "Internal Server Error", "Internal")


def no_instance() -> Refusal:
    return Refusal(424, "Server not initialized (no instance)", "NoInstance")


def monitor_gone(gen: int) -> Refusal:
    return Refusal(410, f"No instance present; will never reach generation {gen}", "NoInstance")


def destroyed_before_handled() -> Refusal:
    return Refusal(410, "Gone", "VM destroyed before request could be handled")


def backend_error(text: str) -> Refusal:
    """Crucible's complaints are code and message at once."""
    return Refusal(400, text, text)


def refusal_of(error: PropolisError) -> Refusal:
    """The answer for what the core refused."""
    match error:
        case NoInstance():
            return no_instance()
        case AlreadyInitialized():
            return Refusal(409, "instance already initialized", "AlreadyInitialized")
        case RequestDenied():
            return Refusal(403, "Forbidden", str(error))
        case SpecRefused() | HistoryGone():
            return bad_request(str(error))
        case QueueFull():
            return Refusal(503, "Service Unavailable")
        case _:
            return internal()
