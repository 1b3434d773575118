"""The Outbox against a naive oracle (NX 7 #1, #2, #23 to #26).

The oracle is a list of what was submitted and a word per VMM; it has no heap, no serials and no lazy anything.
A fake Nexus takes what is sent and applies its strict guard, so that what it has stored can be compared too.
"""

from uuid import UUID

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from nexus_client.backoff import INTERNAL_SERVICE, base_us
from nexus_client.outbox import (
    Delivered,
    Forget,
    Hurry,
    Outbox,
    Permanent,
    Replied,
    Send,
    Settled,
    Submit,
    Tick,
    Transient,
)
from nexus_client.types import SledVmmState, VmmRuntimeState, VmmState, time_of

_IDS = [UUID(int=number) for number in range(1, 5)]
_ids = st.sampled_from(_IDS)


@attrs.define(eq=False)
class _Vmm:
    """What the oracle knows of one VMM."""

    gen: int = 1
    newest: SledVmmState | None = None  # unsettled
    sent: Send | None = None
    fresh: bool = False  # submitted after `sent`
    failures: int = 0
    due_between: tuple[float, float] | None = None


class OutboxMachine(RuleBasedStateMachine):
    stale = Bundle("stale")  # sends whose VMM was forgotten, or that were answered already

    def __init__(self):
        super().__init__()
        self.now_us = 1_700_000_000_000_000
        self.outbox = Outbox(seed=3)
        self.vmms = {vmm_id: _Vmm() for vmm_id in _IDS}
        self.nexus = {}  # what Nexus has stored, by its strict guard
        self.serials = set()

    def flying(self):
        return [vmm_id for vmm_id in _IDS if self.vmms[vmm_id].sent is not None]

    def drive(self, item, expected_settled, expected_sent):
        """Handle, and compare with what the oracle says is settled and sent."""
        effects = self.outbox.handle(item, self.now_us)
        settled = [effect for effect in effects if isinstance(effect, Settled)]
        sent = [effect for effect in effects if isinstance(effect, Send)]
        assert len(settled) + len(sent) == len(effects)
        assert settled == expected_settled
        assert {(send.propolis_id, send.body, send.attempt) for send in sent} == {
            (vmm_id, self.vmms[vmm_id].newest, self.vmms[vmm_id].failures) for vmm_id in expected_sent
        }
        assert len(sent) == len(expected_sent)
        for send in sent:
            vmm = self.vmms[send.propolis_id]
            assert vmm.sent is None, "property 23: two in flight"
            assert send.serial not in self.serials, "a serial was used twice"
            self.serials.add(send.serial)
            vmm.sent, vmm.fresh, vmm.due_between = send, False, None

    @rule(vmm_id=_ids, grows=st.integers(0, 2), state=st.sampled_from(VmmState))
    def submit(self, vmm_id, grows, state):
        vmm = self.vmms[vmm_id]
        if grows or vmm.newest is None:
            # property 2: equal generation, equal contents; so new contents come with a new generation
            vmm.gen += max(grows, 1)
            body = SledVmmState(VmmRuntimeState(state, vmm.gen, time_of(self.now_us)))
        else:
            body = vmm.newest
        idle = vmm.newest is None
        vmm.newest = body
        vmm.fresh = vmm.sent is not None
        self.drive(Submit(vmm_id, body), [], [vmm_id] if idle else [])

    def answered(self, vmm_id):
        vmm = self.vmms[vmm_id]
        send, vmm.sent = vmm.sent, None
        return vmm, send

    @precondition(lambda self: self.flying())
    @rule(target=stale, data=st.data(), outcome=st.sampled_from([Delivered(), Permanent("410: gone", 410)]))
    def nexus_settles(self, data, outcome):
        vmm_id = data.draw(st.sampled_from(self.flying()))
        vmm, send = self.answered(vmm_id)
        if outcome == Delivered():
            self.store(send)
        more = vmm.fresh
        vmm.failures = 0
        if not more:
            vmm.newest = None
        self.drive(
            Replied(vmm_id, send.serial, outcome), [Settled(vmm_id, send.body, outcome)], [vmm_id] if more else []
        )
        return send

    @precondition(lambda self: self.flying())
    @rule(target=stale, data=st.data(), arrived=st.booleans())
    def nexus_fails(self, data, arrived):
        """The answer is lost; the request may have arrived all the same."""
        vmm_id = data.draw(st.sampled_from(self.flying()))
        vmm, send = self.answered(vmm_id)
        if arrived:
            self.store(send)
        base = base_us(INTERNAL_SERVICE, vmm.failures)
        vmm.failures += 1
        vmm.due_between = (self.now_us + 0.5 * base, self.now_us + 1.5 * base)
        self.drive(Replied(vmm_id, send.serial, Transient("lost")), [], [])
        due_us = self.outbox.pending_of(vmm_id).due_us
        assert vmm.due_between[0] <= due_us <= vmm.due_between[1], "property 26"
        return send

    def store(self, send):
        stored = self.nexus.get(send.propolis_id)
        if stored is None or stored.vmm_state.gen < send.body.vmm_state.gen:
            self.nexus[send.propolis_id] = send.body

    @rule(send=stale, outcome=st.sampled_from([Delivered(), Permanent("404", 404), Transient("late")]))
    def a_late_answer_is_not_heard(self, send, outcome):
        self.drive(Replied(send.propolis_id, send.serial, outcome), [], [])

    @rule(target=stale, vmm_id=_ids)
    def forget(self, vmm_id):
        send = self.vmms[vmm_id].sent
        self.vmms[vmm_id] = _Vmm()  # the next VMM with this id starts all over
        self.nexus.pop(vmm_id, None)
        self.drive(Forget(vmm_id), [], [])
        return multiple() if send is None else send

    @rule(send=consumes(stale))
    def lose_interest_in(self, send):
        """Keeps the bundle small."""

    def waiting(self):
        return {
            vmm_id: self.outbox.pending_of(vmm_id).due_us
            for vmm_id in _IDS
            if self.vmms[vmm_id].due_between is not None
        }

    @rule(after_us=st.sampled_from([0, 1, 100_000, 400_000, 10_000_000, 300_000_000]))
    def time_passes(self, after_us):
        self.now_us += after_us
        self.drive(Tick(), [], [vmm_id for vmm_id, due_us in self.waiting().items() if due_us <= self.now_us])

    @rule()
    def hurry(self):
        self.drive(Hurry(), [], list(self.waiting()))

    @invariant()
    def the_deadline_is_the_earliest_retry(self):
        assert self.outbox.next_deadline_us() == min(self.waiting().values(), default=None)

    @invariant()
    def what_is_unsettled_is_pending_and_nothing_else(self):
        pending = {entry.propolis_id: entry for entry in self.outbox.pending()}
        assert len(self.outbox) == len(pending)
        assert {vmm_id: entry.body for vmm_id, entry in pending.items()} == {
            vmm_id: vmm.newest for vmm_id, vmm in self.vmms.items() if vmm.newest is not None
        }
        for vmm_id, entry in pending.items():
            assert entry.in_flight == (self.vmms[vmm_id].sent is not None)
            assert entry.attempt == (self.vmms[vmm_id].failures if not entry.in_flight else entry.attempt)

    @invariant()
    def memory_is_bounded(self):
        assert len(self.outbox._retries) <= 2 * len(self.outbox) + 65

    def teardown(self):
        """Property 24: once Nexus answers again, it ends with the newest state of every VMM."""
        for _ in range(10):
            for vmm_id in self.flying():
                vmm, send = self.answered(vmm_id)
                self.store(send)
                more, vmm.failures = vmm.fresh, 0
                newest = vmm.newest
                if not more:
                    vmm.newest = None
                self.drive(
                    Replied(vmm_id, send.serial, Delivered()),
                    [Settled(vmm_id, send.body, Delivered())],
                    [vmm_id] if more else [],
                )
                if not more:
                    assert self.nexus[vmm_id].vmm_state.gen == newest.vmm_state.gen
            if self.outbox.next_deadline_us() is None and not self.flying():
                break
            self.time_passes_in_teardown()
        assert len(self.outbox) == 0

    def time_passes_in_teardown(self):
        due_us = self.outbox.next_deadline_us()
        if due_us is not None:
            self.now_us = max(self.now_us, due_us)
            self.drive(Tick(), [], [vmm_id for vmm_id, due in self.waiting().items() if due <= self.now_us])


TestOutbox = OutboxMachine.TestCase
