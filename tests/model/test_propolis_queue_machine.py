"""The request queue against a naive oracle: prose of PR 2.1 and 2.5 in lists and sets."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.propolis.oracle import LIVES, Oracle

from propolis_stub.errors import QueueMisuse, RequestDenied
from propolis_stub.request_queue import Queued, RequestQueue, RequestType

KINDS = st.sampled_from(RequestType)


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
