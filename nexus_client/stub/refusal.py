"""Nexus's internal errors and what of them goes on the wire (NX 3, table of error kinds).

`message` is what a client reads; `detail` is the text which Nexus keeps in its log when the wire says only
`Internal Server Error` or `Service Unavailable`.

Read next: stub/handoff.py, stub/upstairs.py.
"""

from __future__ import annotations

from uuid import UUID

import attrs


@attrs.frozen
class Refusal:
    """One error answer. `error_code` None: the body has none."""

    status: int
    error_code: str | None
    message: str
    detail: str | None = None


class Refused(Exception):
    """Raised before anything was changed; carries the answer."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail or refusal.message)
        self.refusal = refusal


def not_found(kind: str, key: UUID) -> Refused:
    return Refused(Refusal(404, "ObjectNotFound", f'not found: {kind} with id "{key}"'))


def already_exists(kind: str, name: str) -> Refused:
    return Refused(Refusal(400, "ObjectAlreadyExists", f'already exists: {kind} "{name}"'))


def invalid_request(message: str) -> Refused:
    return Refused(Refusal(400, "InvalidRequest", message))


def invalid_value(label: str, text: str) -> Refused:
    return Refused(Refusal(400, "InvalidValue", f'unsupported value for "{label}": {text}'))


def conflict(message: str) -> Refused:
    return Refused(Refusal(409, "Conflict", message))


def gone() -> Refused:
    return Refused(Refusal(410, "Gone", "Gone"))


def internal(detail: str) -> Refused:
    return Refused(Refusal(500, "Internal", "Internal Server Error", detail))


def unavailable(detail: str) -> Refused:
    return Refused(Refusal(503, "ServiceNotAvailable", "Service Unavailable", detail))


def insufficient_capacity(message: str) -> Refused:
    return Refused(Refusal(507, "InsufficientCapacity", f"Insufficient capacity: {message}"))


def bad_gateway(detail: str) -> Refused:
    """The sled could not be reached (NX 4.4)."""
    return Refused(Refusal(502, "Internal", "Internal Server Error", detail))


def gateway_timeout(detail: str) -> Refused:
    """The sled did not answer in time (NX 4.4)."""
    return Refused(Refusal(504, "Internal", "Internal Server Error", detail))


def vmm_is_gone(detail: str) -> Refused:
    """A stop or reboot found that the sled has lost the VMM: the only 503 with a text of its own, and without a code
    (NX 4.4).
    """
    text = "The instance was running but is no longer reachable. It is being moved to the Failed state."
    return Refused(Refusal(503, None, text, detail))
