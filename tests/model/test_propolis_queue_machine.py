"""The request queue against a naive oracle: prose of propolis.md 2.1 and 2.5 in lists and sets."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from propolis_stub.errors import QueueMisuse, RequestDenied
from propolis_stub.request_queue import Queued, QueueState, RequestQueue, RequestType

KINDS = st.sampled_from(RequestType)


class Oracle:
    """Says what must happen, in no clever way."""

    def __init__(self, auto_start: bool) -> None:
        self.life = "starting" if auto_start else "new"
        self.pending: set[RequestType] = set()
        self.urgent: list[Queued] = []
        self.lazy: list[Queued] = []

    def answer(self, request: Queued) -> str:
        kind, stop = request.type, RequestType.STOP
        over = {"left": "MigratedOut", "halted": "Halted", "broken": "InstanceFailed"}.get(self.life)
        if over:
            return "ignored" if kind is stop else over
        if kind is RequestType.RECONFIGURE_CRUCIBLE:
            self.lazy.append(request)
            return "queued"
        leaving = RequestType.MIGRATE_AS_SOURCE in self.pending
        if kind in {RequestType.REBOOT, RequestType.MIGRATE_AS_SOURCE} and leaving:
            return "AlreadyMigrationSource" if kind is not RequestType.REBOOT else "InvalidForMigrationSource"
        if stop in self.pending:
            return "ignored" if kind is stop else "HaltPending"
        if kind is RequestType.START:
            if self.life != "new":
                return "ignored"
            self.life = "starting"
        elif kind is not stop:
            if self.life == "new":
                return "InstanceNotActive"
            if kind is RequestType.REBOOT and self.life == "starting":
                return "StartInProgress"
            if kind in self.pending:
                return "ignored"
        if kind is not RequestType.START:
            self.pending.add(kind)
        self.urgent.append(request)
        return "queued"

    def pop(self) -> Queued | None:
        if self.urgent:
            return self.urgent.pop(0)
        return self.lazy.pop(0) if self.lazy else None

    def complete(self, kind: RequestType, succeeded: bool) -> bool:
        """False: impossible."""
        needs = {RequestType.START: "starting", RequestType.REBOOT: "up", RequestType.MIGRATE_AS_SOURCE: "up"}
        if kind is RequestType.RECONFIGURE_CRUCIBLE or needs.get(kind, self.life) != self.life:
            return False
        if kind is RequestType.START:
            self.life = "up" if succeeded else "broken"
            return True
        if kind not in self.pending:
            return False
        self.pending.remove(kind)
        if kind is RequestType.STOP:
            self.life = "halted"
        elif kind is RequestType.MIGRATE_AS_SOURCE and succeeded:
            self.life = "left"
        return True


LIVES = {
    "new": QueueState.NOT_STARTED,
    "starting": QueueState.START_PENDING,
    "up": QueueState.RUNNING,
    "left": QueueState.MIGRATED_OUT,
    "halted": QueueState.STOPPED,
    "broken": QueueState.FAILED,
}


class QueueMachine(RuleBasedStateMachine):
    queue: RequestQueue
    oracle: Oracle

    @initialize(auto_start=st.booleans())
    def begin(self, auto_start: bool) -> None:
        self.queue = RequestQueue.new(auto_start=auto_start)
        self.oracle = Oracle(auto_start)
        self.tickets = 0

    @rule(kind=KINDS)
    def a_client_asks(self, kind: RequestType) -> None:
        self.tickets += 1
        request = Queued(kind, self.tickets)
        try:
            answer = self.queue.try_queue(request).value
        except RequestDenied as refusal:
            answer = refusal.reason.code_name
        assert answer == self.oracle.answer(request)

    @rule()
    def the_driver_pops(self) -> None:
        assert self.queue.pop() == self.oracle.pop()

    @rule(kind=KINDS, succeeded=st.booleans())
    def the_driver_completes(self, kind: RequestType, succeeded: bool) -> None:
        possible = self.oracle.complete(kind, succeeded)
        try:
            self.queue.complete(kind, succeeded=succeeded)
        except QueueMisuse:
            assert not possible
        else:
            assert possible

    @precondition(lambda self: self.oracle.life in {"up", "starting"})
    @rule()
    def the_guest_halts(self) -> None:
        self.queue.notify_stopped()
        self.oracle.life = "halted"

    @invariant()
    def they_look_the_same(self) -> None:
        if not hasattr(self, "oracle"):
            return
        assert self.queue.state is LIVES[self.oracle.life]
        assert list(self.queue.state_queue) == self.oracle.urgent
        assert list(self.queue.component_queue) == self.oracle.lazy
        flags = {
            RequestType.REBOOT: self.queue.awaiting_reboot,
            RequestType.MIGRATE_AS_SOURCE: self.queue.awaiting_migration_out,
            RequestType.STOP: self.queue.awaiting_stop,
        }
        assert {kind for kind, flag in flags.items() if flag} == self.oracle.pending


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(deadline=None)
