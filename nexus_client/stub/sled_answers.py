"""What Nexus makes of a sled's answer (NX 4.4)."""

from __future__ import annotations

from typing import Final

from nexus_client.stub.contract import Answered, ErrorAnswered, Malformed, NoConnection, Outcome, TimedOut
from nexus_client.stub.refusal import (
    Refused,
    bad_gateway,
    gateway_timeout,
    internal,
    invalid_request,
    unavailable,
    vmm_is_gone,
)
from nexus_client.types import SledVmmState, UpdatedRuntime

NO_SUCH_INSTANCE: Final = "NO_SUCH_INSTANCE"


def is_gone(outcome: Outcome) -> bool:
    """The VMM is lost: only 404 together with the code says so; 410 with the same code does not."""
    return isinstance(outcome, ErrorAnswered) and outcome.status == 404 and outcome.error_code == NO_SUCH_INSTANCE


def news_in(outcome: Answered) -> SledVmmState | None:
    """The runtime state in a good answer, if there is one."""
    match outcome.body:
        case UpdatedRuntime(updated_runtime):
            return updated_runtime
        case SledVmmState() as state:
            return state
        case None:
            return None


def refused_request(outcome: Outcome) -> Refused | None:
    """What the user of a stop or reboot gets; None: 202."""
    match outcome:
        case Answered():
            return None
        case ErrorAnswered() if is_gone(outcome):
            return vmm_is_gone("the VMM is no longer known to its sled")
        case ErrorAnswered(status, _, message) if 400 <= status < 500:
            return invalid_request(message)
        case ErrorAnswered(503, _, message):
            return unavailable(message)
        case ErrorAnswered(status, _, message):
            return internal(f"sled answered {status}: {message}")
        case NoConnection(text):
            return bad_gateway(text)
        case TimedOut(text):
            return gateway_timeout(text)
        case Malformed(text):
            return internal(text)


def refused_in_saga(outcome: Outcome) -> Refused | None:
    """What a start or migrate unwinds with; None: the saga goes on."""
    match outcome:
        case Answered():
            return None
        case ErrorAnswered(status, _, message) if 400 <= status < 500:
            return invalid_request(message)
        case ErrorAnswered(503, _, message):
            return unavailable(message)
        case ErrorAnswered(status, _, message):
            return internal(f"sled answered {status}: {message}")
        case NoConnection(text) | TimedOut(text) | Malformed(text):
            return internal(text)
