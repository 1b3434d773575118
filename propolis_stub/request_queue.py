"""The queue of external requests: queued, ignored or denied (PR 2). Pure policy, no clock.

Two FIFOs (state requests, component requests), a state and three flags. The driver pops, executes, and tells the
queue how it ended; until then the flags decide what may be asked for. The order of the rules in `_judge` is the
order of PR 2.1: first match wins.

Read before: machine.py. Read next: contract.py, migration/script.py, wrapper.py.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from msgspec import Struct

from nexus_client.dropshot.identity import IdentityEnum
from propolis_stub.errors import QueueFull, QueueMisuse, Reason, RequestDenied


class QueueState(IdentityEnum):
    """The queue's own view of the VM."""

    NOT_STARTED = "NotStarted"
    START_PENDING = "StartPending"
    RUNNING = "Running"
    MIGRATED_OUT = "MigratedOut"
    STOPPED = "Stopped"
    FAILED = "Failed"


class Disposition(IdentityEnum):
    """The queue's answer; the third one is the exception `RequestDenied`."""

    QUEUED = "queued"
    IGNORED = "ignored"  # accepted, and nothing enqueued: a client cannot tell it from QUEUED


class RequestType(IdentityEnum):
    START = "start"
    STOP = "stop"
    REBOOT = "reboot"
    MIGRATE_AS_SOURCE = "migrate_as_source"
    RECONFIGURE_CRUCIBLE = "reconfigure_crucible"


class Queued(Struct, frozen=True, gc=False):
    """One request: its type, and what makes it this one (a migration id, a reconfigure ticket)."""

    type: RequestType
    key: UUID | int | str | None = None


_DENIED_AT_END: Final = {
    QueueState.MIGRATED_OUT: Reason.MIGRATED_OUT,
    QueueState.STOPPED: Reason.HALTED,
    QueueState.FAILED: Reason.INSTANCE_FAILED,
}

_LENGTH_MAX: Final = 4096
"""Component requests are never deduplicated, so something must bound them: more than this many waiting at once is
no client but a runaway. The original has no limit; its HTTP server would be out of connections long before."""


class RequestQueue(Struct, eq=False, gc=False):
    """See the module. `auto_start`: a migration target starts by itself, nobody sends Run."""

    state: QueueState
    awaiting_reboot: bool = False
    awaiting_migration_out: bool = False
    awaiting_stop: bool = False
    state_queue: tuple[Queued, ...] = ()  # tuples: empty ones cost nothing, and 200,000 queues live in one process
    component_queue: tuple[Queued, ...] = ()

    @classmethod
    def new(cls, *, auto_start: bool) -> RequestQueue:
        return cls(QueueState.START_PENDING if auto_start else QueueState.NOT_STARTED)

    # --- clients ---

    def try_queue(self, request: Queued) -> Disposition:
        """Judges and takes `request`. Raises `RequestDenied` or `QueueFull`; what is not queued changes nothing."""
        disposition = self._judge(request.type)
        if disposition is Disposition.IGNORED:
            return disposition
        if request.type is RequestType.RECONFIGURE_CRUCIBLE:
            if len(self.component_queue) >= _LENGTH_MAX:
                raise QueueFull
            self.component_queue += (request,)
            return disposition
        if request.type is RequestType.START:
            self.state = QueueState.START_PENDING
        elif request.type is RequestType.STOP:
            self.awaiting_stop = True
        elif request.type is RequestType.REBOOT:
            self.awaiting_reboot = True
        else:
            self.awaiting_migration_out = True
        self.state_queue += (request,)
        return disposition

    def _judge(self, asked: RequestType) -> Disposition:
        at_end = _DENIED_AT_END.get(self.state)
        if at_end is not None:
            if asked is RequestType.STOP:
                return Disposition.IGNORED
            raise RequestDenied(at_end)
        if asked is RequestType.RECONFIGURE_CRUCIBLE:
            return Disposition.QUEUED
        if asked is RequestType.STOP:
            return Disposition.IGNORED if self.awaiting_stop else Disposition.QUEUED
        if asked is RequestType.START:
            if self.awaiting_stop:
                raise RequestDenied(Reason.HALT_PENDING)
            return Disposition.QUEUED if self.state is QueueState.NOT_STARTED else Disposition.IGNORED
        if self.awaiting_migration_out:
            raise RequestDenied(
                Reason.ALREADY_MIGRATION_SOURCE
                if asked is RequestType.MIGRATE_AS_SOURCE
                else Reason.INVALID_FOR_MIGRATION_SOURCE
            )
        if self.awaiting_stop:
            raise RequestDenied(Reason.HALT_PENDING)
        if self.state is QueueState.NOT_STARTED:
            raise RequestDenied(Reason.INSTANCE_NOT_ACTIVE)
        if asked is RequestType.MIGRATE_AS_SOURCE:
            return Disposition.QUEUED  # in StartPending too: the hazard of PR 3.5 is the driver's business
        if self.state is QueueState.START_PENDING:
            raise RequestDenied(Reason.START_IN_PROGRESS)
        return Disposition.IGNORED if self.awaiting_reboot else Disposition.QUEUED

    # --- the driver ---

    def __bool__(self) -> bool:
        """Whether something waits to be popped."""
        return bool(self.state_queue or self.component_queue)

    def peek(self) -> Queued | None:
        """What `pop` would give."""
        if self.state_queue:
            return self.state_queue[0]
        return self.component_queue[0] if self.component_queue else None

    def pop(self) -> Queued | None:
        """Every waiting state request comes before any component request, regardless of arrival order."""
        if self.state_queue:
            first, *rest = self.state_queue
            self.state_queue = tuple(rest)
            return first
        if self.component_queue:
            first, *rest = self.component_queue
            self.component_queue = tuple(rest)
            return first
        return None

    def complete(self, what: RequestType, *, succeeded: bool = True) -> None:
        """The driver executed a start, reboot, migration out or stop. Raises `QueueMisuse` where the original
        panics.
        """
        match what:
            case RequestType.START:
                self._expect_state(QueueState.START_PENDING)
                self.state = QueueState.RUNNING if succeeded else QueueState.FAILED
            case RequestType.REBOOT:
                self._expect_state(QueueState.RUNNING)
                self._expect_flag("awaiting_reboot")
                self.awaiting_reboot = False
            case RequestType.MIGRATE_AS_SOURCE:
                self._expect_state(QueueState.RUNNING)
                self._expect_flag("awaiting_migration_out")
                self.awaiting_migration_out = False
                if succeeded:
                    self.state = QueueState.MIGRATED_OUT
            case RequestType.STOP:
                self._expect_flag("awaiting_stop")
                self.awaiting_stop = False
                self.state = QueueState.STOPPED
            case RequestType.RECONFIGURE_CRUCIBLE:
                raise QueueMisuse("component requests have no completion")

    def notify_stopped(self) -> None:
        """The VM stopped though no stop request completed: the guest halted, or a start was aborted. Flags stay."""
        self.state = QueueState.STOPPED

    def drop(self) -> tuple[Queued, ...]:
        """The queue is destroyed: returns the component requests that still waited (each is answered 410). Waiting
        state requests are lost: their callers already have their 204.
        """
        canceled = self.component_queue
        self.state_queue = ()
        self.component_queue = ()
        return canceled

    def _expect_state(self, state: QueueState) -> None:
        if self.state is not state:
            raise QueueMisuse(f"the queue is in state {self.state.value}, not {state.value}")

    def _expect_flag(self, flag: str) -> None:
        if not getattr(self, flag):
            raise QueueMisuse(f"not {flag}")
