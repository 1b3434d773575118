"""VMs against naive oracles.

`LifeMachine`: one VM that is held while requests pile up and then let go; a dozen lines of prose know what it tells.
`MovingMachine`: three processes that migrate to and fro with faults at any point; nobody knows what they will tell,
but nothing outside the table of PR 1.1, no gap in generations, and never two running guests.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.profile import by_profile
from support.propolis.arms import CoreArm, Net
from support.propolis.oracle import Oracle, check_history

from propolis_stub import contract
from propolis_stub.errors import AlreadyInitialized, GuestNotRunning, NoInstance, RequestDenied
from propolis_stub.guest_events import GuestEvent
from propolis_stub.request_queue import Queued, QueueState, RequestType
from propolis_stub.table import TERMINAL
from propolis_stub.types import InstanceState, Level, MigrationPhase, RequestKind
from propolis_stub.waiting import Pace, Point

REBOOTS = {GuestEvent.RESET, GuestEvent.TRIPLE_FAULT, GuestEvent.CHIPSET_RESET}
RUN, STOP, REBOOT = RequestKind
ASKED = {RUN: RequestType.START, STOP: RequestType.STOP, REBOOT: RequestType.REBOOT}


def wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The core arm never waits, so its coroutines end at the first push."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the core arm waited for something")


class LifeMachine(RuleBasedStateMachine):
    """Hold, pile up, go: what is told must be what the prose says."""

    @initialize()
    def begin(self) -> None:
        self.arm = CoreArm()
        self.told = ["Creating"]
        self.guest: list[object] = []
        self.asked: list[str] = []
        self.arm.handle(contract.EnsureSpec())
        self.arm.handle(contract.Hold())

    def alive(self) -> bool:
        return self.told[-1] not in {"Destroyed", "Failed"}

    @rule(kind=st.sampled_from(RequestKind))
    def ask(self, kind: RequestKind) -> None:
        answer = wait(self.arm.put(kind))
        assert answer == self.expected(kind)
        if answer == "queued":
            self.asked.append(kind.value)

    def expected(self, kind: RequestKind) -> str:
        if not self.alive():
            return "424"
        started = "Running" in self.told
        if kind is STOP:
            return "ignored" if "Stop" in self.asked else "queued"
        if "Stop" in self.asked:
            return "403 HaltPending"
        if kind is RUN:
            return "ignored" if started or "Run" in self.asked else "queued"
        if not started:
            return "403 StartInProgress" if "Run" in self.asked else "403 InstanceNotActive"
        return "ignored" if "Reboot" in self.asked else "queued"

    @rule(event=st.sampled_from(GuestEvent), at_us=st.integers(0, 2), vcpu=st.integers(0, 1))
    def guest_does(self, event: GuestEvent, at_us: int, vcpu: int) -> None:
        try:
            self.arm.handle(contract.Guest(event, at_us, vcpu))
        except GuestNotRunning:
            assert self.told[-1] != "Running"
            return
        assert self.told[-1] == "Running"
        if event in {GuestEvent.CHIPSET_HALT, GuestEvent.CHIPSET_RESET}:
            at_us = 0
        key = (event, at_us, vcpu if event is GuestEvent.TRIPLE_FAULT else 0)
        if key not in self.guest:
            self.guest.append(key)

    @rule()
    def go(self) -> None:
        self.arm.handle(contract.Release())
        while self.alive() and (self.guest or self.asked):
            if self.guest:
                event, *_ = self.guest.pop(0)
                what = "Reboot" if event in REBOOTS else "Stop"
            else:
                what = self.asked.pop(0)
            self.told += {
                "Run": ["Starting", "Running"],
                "Reboot": ["Rebooting", "Running"],
                "Stop": ["Stopping", "Stopped", "Destroyed"],
            }[what]
        self.arm.handle(contract.Hold())
        assert self.arm.log == [f"{number} {state}" for number, state in enumerate(self.told, 1)]

    @rule()
    def ensure_again(self) -> None:
        answer = wait(self.arm.ensure())
        assert answer == ("409" if self.alive() else "201")
        if answer == "201":
            self.told, self.guest, self.asked = ["Creating"], [], []


# --- to and fro -------------------------------------------------------------------------------------------------

PACES = st.sampled_from([Pace(0), Pace(0), Pace(0), Pace(10), Pace(None), Pace(0, fail=True), Pace(10, fail=True)])
ARMS = st.integers(0, 2)


class MovingMachine(RuleBasedStateMachine):
    """Three processes, one net, faults wherever hypothesis likes them."""

    @initialize()
    def begin(self) -> None:
        self.net = Net()
        self.arms = [CoreArm(self.net) for _ in range(3)]

    @rule(who=ARMS)
    def ensure(self, who: int) -> None:
        try:
            self.arms[who].handle(contract.EnsureSpec())
        except AlreadyInitialized:
            assert self.arms[who].vm.level in {Level.WAITING_FOR_INIT, Level.ACTIVE, Level.RUNDOWN}

    @rule(who=ARMS, kind=st.sampled_from(RequestKind))
    def put(self, who: int, kind: RequestKind) -> None:
        arm = self.arms[who]
        gen, queue = arm.vm.gen, arm.vm.queue
        without = {Level.NO_VM, Level.RUNDOWN, Level.RUNDOWN_COMPLETE}
        gone = queue is None or arm.vm.level in without
        expected = "424" if gone else Oracle.of(queue).answer(Queued(ASKED[kind]))
        answer = wait(arm.put(kind))
        assert answer.removeprefix("403 ") == expected, "the matrix of PR 2.2"
        if answer != "queued":
            assert arm.vm.gen == gen, "what is not queued changes nothing"

    @rule(source=ARMS, to=ARMS)
    def migrate(self, source: int, to: int) -> None:
        if source == to:
            return
        try:
            wait(self.arms[to].target_begin(self.arms[source]))
        except AlreadyInitialized:
            return

    @rule(who=ARMS, scripted_fails=st.sampled_from([None, *(p for p in Point if p.name.startswith("M_"))]))
    def migrate_to_nobody(self, who: int, scripted_fails: Point | None) -> None:
        try:
            self.arms[who].handle(contract.MigrateOut(self.net.new_id(), scripted=True, fails_in=scripted_fails))
        except (NoInstance, RequestDenied):
            return

    @rule(who=ARMS, point=st.sampled_from(Point), pace=PACES)
    def set_pace(self, who: int, point: Point, pace: Pace) -> None:
        self.arms[who].pacer.paces[point] = pace

    @rule(who=ARMS, event=st.sampled_from(GuestEvent))
    def guest(self, who: int, event: GuestEvent) -> None:
        try:
            self.arms[who].handle(contract.Guest(event))
        except GuestNotRunning:
            return

    @rule(who=ARMS, ticket=st.integers(0, 1000))
    def reconfigure(self, who: int, ticket: int) -> None:
        wait(self.arms[who].reconfigure(ticket))

    @rule(who=ARMS, fail=st.booleans())
    def settle(self, who: int, fail: bool) -> None:
        self.arms[who].handle(contract.Settle(fail))

    @rule(who=ARMS, what=st.sampled_from([contract.Hold(), contract.Release(), contract.Step(), contract.Tick()]))
    def nudge(self, who: int, what: contract.Input) -> None:
        self.arms[who].handle(what)

    @rule(after_us=st.integers(0, 30))
    def time_passes(self, after_us: int) -> None:
        self.net.now_us += after_us
        for arm in self.arms:
            due_us = arm.vm.next_deadline_us()
            if due_us is not None and due_us <= self.net.now_us:
                arm.handle(contract.Tick())
                later = arm.vm.next_deadline_us()
                assert later is None or later > self.net.now_us, "what is due has happened"

    @rule(who=ARMS)
    def crash(self, who: int) -> None:
        self.arms[who].handle(contract.Crash())

    @rule(source=ARMS, to=ARMS)
    def connection_breaks(self, source: int, to: int) -> None:
        for migration_id, peer in list(self.arms[source].peers.items()):
            if peer is self.arms[to]:
                del self.arms[source].peers[migration_id]
                peer.peers.pop(migration_id, None)
                self.arms[source].handle(contract.PeerLost(migration_id=migration_id))
                peer.handle(contract.PeerLost(migration_id=migration_id))

    @invariant()
    def histories_are_of_the_table(self) -> None:
        for arm in getattr(self, "arms", ()):
            if arm.publications:
                check_history(arm.publications)

    @invariant()
    def everybody_is_of_one_mind_with_himself(self) -> None:
        for arm in getattr(self, "arms", ()):
            vm = arm.vm
            if arm.publications and vm.level is not Level.NO_VM:
                assert vm.publication == arm.publications[-1]
            if vm.level in {Level.NO_VM, Level.RUNDOWN, Level.RUNDOWN_COMPLETE}:
                assert vm.queue is None
            if vm.level is Level.RUNDOWN_COMPLETE:
                assert vm.state in TERMINAL
                assert vm.resting_state() is vm.state
            if vm.queue is not None and vm.queue.state is QueueState.RUNNING:
                assert vm.state in {InstanceState.RUNNING, InstanceState.REBOOTING} | {
                    InstanceState.MIGRATING,
                    InstanceState.STOPPING,
                }

    @invariant()
    def both_sides_agree_or_one_is_at_its_end(self) -> None:
        """A migration that both sides tell as Finish has at most one side that runs the guest."""
        runs_after: dict[object, list[str]] = {}
        for number, arm in enumerate(getattr(self, "arms", ())):
            vm = arm.vm
            if vm.state is None or vm.level is Level.NO_VM:
                continue
            if vm.state is InstanceState.RUNNING and vm.migration_in is not None:
                runs_after.setdefault(vm.migration_in.id, []).append(f"target {number}")
            out = vm.migration_out
            if out is not None and vm.state in {InstanceState.RUNNING, InstanceState.REBOOTING}:
                assert out.state is MigrationPhase.ERROR, "a source runs on only if its migration failed"
                runs_after.setdefault(out.id, []).append(f"source {number}")
        assert all(len(who) == 1 for who in runs_after.values()), runs_after


TestLifeMachine = LifeMachine.TestCase
TestLifeMachine.settings = settings(deadline=None)
TestMovingMachine = MovingMachine.TestCase
TestMovingMachine.settings = settings(
    max_examples=by_profile(30, nightly=settings.default.max_examples), deadline=None, stateful_step_count=40
)
