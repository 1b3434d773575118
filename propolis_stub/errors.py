"""What the Propolis core refuses, each refusal with its data. None of them changes anything.

No HTTP here: `http/errors` of the server maps them to statuses (PR 2.3, 4.1, 4.2).

Read before: types.py. Read next: server/refusals.py, table.py.
"""

from __future__ import annotations

from enum import Enum

from propolis_stub.types import InstanceState, Level


class PropolisError(Exception):
    """Base of everything that `propolis_stub` raises on purpose."""


class IllegalTransition(PropolisError):
    """No row of the table leads from `state` by `event`; the VM stays where it was."""

    def __init__(self, state: InstanceState | None, event: Enum) -> None:
        super().__init__(f"no transition from {state.value if state else 'no state'} by {event.value}")
        self.state = state
        self.event = event


class RepairingRejected(PropolisError):
    """`Repairing` was observed or asked for. It is a name on the wire which Propolis never uses (PR 1):
    it is never converted into another state, it is refused.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"Repairing is not a state that a Propolis can be in: {what}")
        self.what = what


class Reason(Enum):
    """Why a request was denied; the value is the exact text of PR 2.3."""

    INSTANCE_NOT_ACTIVE = "Operation requires an active instance"
    START_IN_PROGRESS = "Instance is currently starting"
    ALREADY_MIGRATION_SOURCE = "Instance is already a migration source"
    INVALID_FOR_MIGRATION_SOURCE = "Operation cannot be performed on a migration source"
    HALT_PENDING = "Instance is preparing to stop"
    MIGRATED_OUT = "Instance has migrated out and is being torn down"
    HALTED = "Instance has already halted"
    INSTANCE_FAILED = "Instance failed to start or halted due to a failure"

    @property
    def code_name(self) -> str:
        """The name as the original spells it: `HaltPending`."""
        return "".join(part.capitalize() for part in self.name.split("_"))


class RequestDenied(PropolisError):
    """The request queue denied a request (PR 2.1): 403 on the wire."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"instance state change not allowed: {reason.value}")
        self.reason = reason


class NoInstance(PropolisError):
    """There is no VM that could take this: 424 on the wire (PR 3.1)."""

    def __init__(self, level: Level) -> None:
        super().__init__("Server not initialized (no instance)")
        self.level = level


class AlreadyInitialized(PropolisError):
    """A second ensure while a VM exists: 409 on the wire (PR 3.1)."""

    def __init__(self, level: Level) -> None:
        super().__init__("instance already initialized")
        self.level = level


class GuestNotRunning(PropolisError):
    """A guest event while no vCPU runs: the original panics (PR 3.4), we refuse unless that hazard is on."""

    def __init__(self, state: InstanceState | None) -> None:
        super().__init__(f"no guest runs in state {state.value if state else 'none'}")
        self.state = state


class QueueFull(PropolisError):
    """More component requests wait than any client sends: 503 on the wire. The original has no such limit."""

    def __init__(self) -> None:
        super().__init__("too many component requests are waiting")


class QueueMisuse(PropolisError):
    """The consumer told the queue something impossible, a panic of the original (PR 2.4): a bug of ours."""
