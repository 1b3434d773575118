"""A rack of two sleds, up to four VMMs and three migrations, against a naive oracle and NX 7.

Nexus is the test's: it acknowledges late or never, fails, refuses, restarts, and answers what it answered before. The
oracle (oracle.py) says how each request ends and which states may follow; properties.py has the 28 properties, each
checked after each step. Draining, whenever it happens and always at the end, reaches the predicted resting states.

Over 500 lines: hypothesis wants all rules of a machine in one class.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import attrs
import support.rack.strategies as our
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model.oracle import TERMINAL, Oracle
from model.properties import PROPERTIES, Act, Said
from support.rack.driving import (
    ACK,
    FAILS,
    REBOOT,
    RUNNING,
    SLED_A,
    STOPPED,
    VMMS,
    RackDriver,
    ScriptedPacer,
    address_of,
    contract,
    instance_of,
    registration,
    target,
)

from nexus_client.outbox import Delivered, Permanent, Transient
from nexus_client.types import Asked, SledVmmState, VmmState
from propolis_stub.waiting import Point
from sim_sled.core import errors
from sim_sled.core.config import SimMode
from sim_sled.core.happenings import Happening, Kind

STEPS_MAX = 2_000
"""Deadlines until a drained rack is idle: four VMMs with at most some hundred points each, and their retries."""

_ASKED = "asked to migrate to "

picks = st.integers(0, 99)
"""Which VMM a rule is about (`RackMachine.who`): nine times out of ten one that is registered."""


class Driver(RackDriver):
    """Tells the machine what happened, in order and while it happens."""

    def __init__(self, machine: RackMachine, **options: Any) -> None:
        super().__init__(acks=False, **options)
        self.rack.watch = machine.happened


class RackMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.oracle = Oracle()
        self.memory: dict[Any, Any] = {}  # of the properties
        self.log: list[Said] = []
        self.lives: dict[int, int] = {}  # by identity of what was published; the log keeps it alive
        self.act = Act()
        self.bodies: dict[int, Any] = {}
        self.nexus: dict[int, SledVmmState] = {}  # what Nexus knows of each life, by its strict guard
        self.ended_at: dict[int, int] = {}  # generation of an acknowledged end
        self.refused_now: set[int] = set()  # lives whose last publication was refused for good, none since
        self.refused_last: set[int] = set()  # ... none was acknowledged since
        self.deleted: set[int] = set()
        self.failed_at: dict[int, tuple[int, int, bool]] = {}
        self.linked: list[set[int]] = []  # lives of source and target
        self.answered: list[contract.PutToNexus] = []
        self.answering: SledVmmState | None = None  # the publication that Nexus answers in this turn
        self.pokes: list[int] = []
        self.checked = 0

    @initialize(
        modes=st.tuples(*[st.sampled_from(SimMode)] * 2),
        usual_us=st.sampled_from([0, 1_000]),
        failing=st.one_of(
            st.just({}),
            st.dictionaries(st.tuples(our.propolis_ids, st.sampled_from(Point)), st.just(FAILS), max_size=2),
            st.dictionaries(st.sampled_from(Point), st.just(FAILS), min_size=1, max_size=1),
        ),
        started=st.lists(our.sled_ids, max_size=3),
        after_us=our.durations_us,
    )
    def begin(self, modes, usual_us, failing, started, after_us):
        self.failing = set(VMMS) if any(isinstance(key, Point) for key in failing) else {key[0] for key in failing}
        pacer = ScriptedPacer(usual_us, dict(failing))
        self.instant = usual_us == 0
        self.driver = Driver(self, mode=modes[0], mode_b=modes[1], pacer=pacer, config={"max_vcpus": 16})
        for propolis_id, sled_id in zip(VMMS, started, strict=False):
            self.start(propolis_id, sled_id, after_us)

    # --- what happens, as it happens ------------------------------------------------------------------------------

    def happened(self, it: Happening) -> None:
        row = None if it.propolis_id is None else self.oracle.rows.get(it.propolis_id)
        match it.kind:
            case Kind.OBSERVED:
                assert row is not None
                before, after = it.data
                assert (before.vmm_state.state.value, before.vmm_state.gen) == (row.state, row.gen)
                row.observe(after)
            case Kind.SENT:
                assert row is not None
                body, attempt = it.data
                newest = self.record(it.propolis_id)
                self.lives[id(body)] = row.life
                self.log.append(Said(row.life, it.propolis_id, body, it.at_us, attempt, newest))
            case Kind.MIGRATION if it.data.startswith(_ASKED):
                other = self.oracle.rows[UUID(it.data.removeprefix(_ASKED))]
                self.linked.append({row.life, other.life})
            case Kind.FORGOTTEN:
                assert row.terminal
                assert self.answering is it.data, "only the acknowledgement of its end ends a VMM"
                row.gone = "acknowledged"
            case Kind.UNREGISTERED:
                row.gone = "deleted"

    def record(self, propolis_id: UUID) -> SledVmmState | None:
        row = self.oracle.rows.get(propolis_id)
        vmm = None if row is None else self.driver.sled(row.sled_id).vmms.get(propolis_id)
        return None if vmm is None else vmm.record

    def busy(self, propolis_id: UUID) -> bool:
        """Whether Nexus has something to hear of this VMM."""
        row = self.oracle.rows[propolis_id]
        return self.driver.sled(row.sled_id).outbox.pending_of(propolis_id) is not None

    def tell_nexus(self, life: int, body: SledVmmState) -> None:
        if life not in self.nexus or self.nexus[life].vmm_state.gen < body.vmm_state.gen:
            self.nexus[life] = body

    def request(self, verb: str, propolis_id: UUID, sled_id: UUID, allowed: Any, kind: type, *rest: Any) -> Any:
        """Ask the rack; the end must be one that the oracle allows. Returns the answer, None for a refusal."""
        row = self.oracle.rows.get(propolis_id)
        known = row is not None and propolis_id in self.driver.sled(sled_id).vmms
        before = self.driver.vmm(propolis_id, on=sled_id).record if known else None
        resting = self.driver.vmm(propolis_id, on=sled_id).resting().value if known else ""
        again = row is not None and row.is_target
        plan, at_once = (list(row.plan), row.at_once) if row else ([], None)
        expected = allowed(resting)
        posts = len(self.driver.posts)
        answer, error = None, None
        try:
            answer = self.driver.ask(kind, sled_id, propolis_id, *rest)
        except errors.SledError as refusal:
            error = type(refusal)
        assert error in expected, f"{verb} ended with {error}; expected {expected}"
        if error is not None and row is not None and row is self.oracle.rows.get(propolis_id):
            row.plan, row.at_once = plan, at_once
        after = self.record(propolis_id)
        self.act = Act(verb, propolis_id, before, after, answer, error, resting, 0)
        mine = [post for post in self.driver.posts[posts:] if post.propolis_id == propolis_id]
        self.act = attrs.evolve(self.act, published=len(mine), again=again)
        return answer

    def who(self, pick: int) -> UUID:
        there = [row.propolis_id for row in self.oracle.rows.values() if not row.gone]
        return there[pick % len(there)] if there and pick < 90 else VMMS[pick % 4]

    def here(self, propolis_id: UUID) -> UUID:
        """The sled that a well-informed Nexus asks."""
        row = self.oracle.rows.get(propolis_id)
        return SLED_A if row is None else row.sled_id

    def said(self, propolis_id: UUID, body: SledVmmState) -> None:
        row = self.oracle.rows[propolis_id]
        self.log.append(Said(row.life, propolis_id, body, self.driver.now_us))
        self.tell_nexus(row.life, body)

    # --- rules: Nexus asks ----------------------------------------------------------------------------------------

    @rule(
        propolis_id=our.propolis_ids,
        sled_id=our.sled_ids,
        migration_id=st.none() | our.migration_ids,
        state=st.sampled_from([VmmState.STARTING] * 4 + [VmmState.MIGRATING] * 4 + [VmmState.RUNNING]),
        gen=st.sampled_from([1, 2, 7]),
        other=st.sampled_from([False] * 7 + [True]),
    )
    def register(self, propolis_id, sled_id, migration_id=None, state=VmmState.STARTING, gen=2, other=False):
        known = self.oracle.rows.get(propolis_id)
        if known is not None and not known.gone:
            sled_id = known.sled_id  # Nexus never registers one VMM with two sleds
        instance_id = instance_of(VMMS[7] if other else propolis_id)
        body = registration(propolis_id, state, gen=gen, migration_id=migration_id, instance_id=instance_id)
        refusal = self.oracle.register(propolis_id, sled_id, body)
        row = self.oracle.rows.get(propolis_id)
        if row is not None and row is not known:
            self.bodies[row.life] = body
            row.loose = propolis_id in self.failing
        answer = self.request("register", propolis_id, sled_id, lambda _: {refusal}, contract.Register, body)
        if answer is not None:
            self.said(propolis_id, answer)

    @rule(propolis_id=our.propolis_ids, sled_id=our.sled_ids, after_us=our.durations_us)
    def start(self, propolis_id, sled_id, after_us):
        """What Nexus does most: register, run, and wait a while."""
        self.register(propolis_id, sled_id)
        self.check()
        self.ask_state(propolis_id, RUNNING)
        self.check()
        self.time_passes(after_us)

    @precondition(lambda self: any(row.state == "running" and not row.gone for row in self.oracle.rows.values()))
    @rule(pick=picks, propolis_id=our.propolis_ids, sled_id=our.sled_ids, migration_id=our.migration_ids)
    def migrate(self, pick, propolis_id, sled_id, migration_id):
        """Register a target and tell it where its source is."""
        running = [row for row in self.oracle.rows.values() if row.state == "running" and not row.gone]
        source = running[pick % len(running)].propolis_id
        self.register(propolis_id, sled_id, migration_id, VmmState.MIGRATING)
        self.check()
        self.ask_state(propolis_id, target(address_of(source)))

    @rule(pick=picks, requested=our.requested)
    def request_state(self, pick, requested):
        self.ask_state(self.who(pick), requested)

    @rule(pick=picks, requested=st.sampled_from([RUNNING, STOPPED, REBOOT]))
    def request_a_plain_state(self, pick, requested):
        self.ask_state(self.who(pick), requested)

    def ask_state(self, propolis_id, requested):
        sled_id, asked = self.here(propolis_id), requested.type.value
        source, loosened = None, None
        if requested.type is Asked.MIGRATION_TARGET:
            named = next(each for each in VMMS if address_of(each) == requested.value.src_propolis_addr)
            there = self.oracle.rows.get(named)
            source = named if named != propolis_id and there is not None and not there.gone else None
            row = self.oracle.rows.get(propolis_id)
            if row is not None and not row.loose and named != propolis_id and there is not None and there.gone:
                row.loose, loosened = True, row  # nobody answers there (D23): it fails, or something else is sooner

        def allowed(resting):
            return self.oracle.put(propolis_id, sled_id, asked, source, resting)

        answer = self.request(asked, propolis_id, sled_id, allowed, contract.PutState, requested)
        if answer is None and loosened is not None:
            loosened.loose = False  # it was refused, and is as strictly looked at as before
        if answer is not None:
            assert answer.updated_runtime is not None
            self.act = attrs.evolve(self.act, answer=answer.updated_runtime)
            self.said(propolis_id, answer.updated_runtime)
            if requested.type is Asked.MIGRATION_TARGET and self.driver.vmm(propolis_id, on=sled_id).blind:
                # Propolis may be anywhere by the time the agent looks, and accept what the record does not explain
                self.oracle.rows[propolis_id].loose |= self.instant

    @rule(pick=picks, verb=st.sampled_from(["get", "get", "unregister"]))
    def get_or_unregister(self, pick, verb):
        getattr(self, verb)(self.who(pick))

    def get(self, propolis_id):
        sled_id = self.here(propolis_id)
        row = self.oracle.alive(propolis_id, sled_id)
        expected = {errors.NoSuchVmm if row is None else None}
        answer = self.request("get", propolis_id, sled_id, lambda _: expected, contract.GetState)
        assert answer == self.record(propolis_id)

    def unregister(self, propolis_id):
        sled_id = self.here(propolis_id)
        row = self.oracle.alive(propolis_id, sled_id)
        if row is not None and not row.terminal:
            row.at_once = "failed"
        answer = self.request("unregister", propolis_id, sled_id, lambda _: {None}, contract.Unregister)
        self.act = attrs.evolve(self.act, answer=answer.updated_runtime)
        assert (answer.updated_runtime is None) == (row is None)
        if row is not None:
            if not row.terminal:  # the DELETE itself is told as UNREGISTERED, not as OBSERVED
                row.state, row.gen, row.at_once = "failed", row.gen + 1, None
            self.deleted.add(row.life)
            self.said(propolis_id, answer.updated_runtime)

    @rule(pick=picks, migration_id=our.migration_ids, succeeds=st.booleans())
    def sim_migration_source(self, pick, migration_id, succeeds):
        propolis_id = self.who(pick)
        sled_id = self.here(propolis_id)

        def allowed(resting):
            return self.oracle.migrate_out(propolis_id, sled_id, migration_id, succeeds=succeeds, resting=resting)

        self.request(
            "sim-migration-source", propolis_id, sled_id, allowed, contract.SimMigrationSource, migration_id, succeeds
        )

    @rule(pick=picks, drain=st.booleans())
    def poke(self, pick, drain):
        propolis_id = self.who(pick)
        sled_id = self.here(propolis_id)
        row = self.oracle.alive(propolis_id, sled_id)
        full = row is not None and len(self.driver.vmm(propolis_id, on=sled_id).pokes or ()) >= 32
        expected = {errors.NoSuchVmm if row is None else errors.ChannelFull if full else None}
        self.request("poke", propolis_id, sled_id, lambda _: expected, contract.Poke, drain)
        if self.act.error is None:
            self.pokes.append(self.driver.ticket)

    # --- rules: faults --------------------------------------------------------------------------------------------

    @rule(
        pick=picks,
        fault=st.one_of(
            st.tuples(st.just("guest"), our.guest_events),
            st.tuples(st.just("inject"), st.sampled_from([VmmState.FAILED, VmmState.DESTROYED, VmmState.RUNNING])),
            st.tuples(st.just("kill"), st.booleans()),
            st.just(("forget",)),
        ),
    )
    def fault(self, pick, fault):
        kind, *how = fault
        getattr(self, kind)(self.who(pick), *how)

    def guest(self, propolis_id, event):
        sled_id = self.here(propolis_id)
        row = self.oracle.alive(propolis_id, sled_id)
        if row is not None:
            row.loose = True  # a guest's own ways come before what was asked for
        ends = {None, errors.InvalidRequest} if row is not None else {errors.NoSuchVmm}
        self.request("guest", propolis_id, sled_id, lambda _: ends, contract.InjectGuest, event)

    def inject(self, propolis_id, state):
        sled_id = self.here(propolis_id)
        self.request(
            "inject",
            propolis_id,
            sled_id,
            lambda _: {self.oracle.inject(propolis_id, sled_id, state)},
            contract.InjectState,
            state,
        )

    def kill(self, propolis_id, restart):
        sled_id = self.here(propolis_id)
        expected = self.oracle.kill(propolis_id, sled_id, restart=restart)
        self.request("kill", propolis_id, sled_id, lambda _: {expected}, contract.KillPropolis, restart)

    def forget(self, propolis_id):
        sled_id = self.here(propolis_id)
        row = self.oracle.alive(propolis_id, sled_id)
        self.request(
            "forget", propolis_id, sled_id, lambda _: {errors.NoSuchVmm if row is None else None}, contract.ForgetVmm
        )
        if row is not None:
            row.gone = "forgotten"
            self.deleted.add(row.life)

    # --- rules: Nexus answers -------------------------------------------------------------------------------------

    def life_of(self, post: contract.PutToNexus) -> int:
        """The life that this publication was about; its VMM may live another one by now."""
        return self.lives[id(post.body)]

    def answer(self, post: contract.PutToNexus, outcome: Any, *, arrived: bool = True) -> None:
        life, now_us = self.life_of(post), self.driver.now_us
        row = self.oracle.rows[post.propolis_id]
        current = row.life == life and not row.gone
        if arrived:
            self.tell_nexus(life, post.body)
        if current and isinstance(outcome, Transient):
            self.failed_at[life] = (now_us, post.attempt, False)
        elif current:
            if post.body.vmm_state.state.value in TERMINAL and isinstance(outcome, Delivered):
                self.ended_at[life] = post.body.vmm_state.gen
            if isinstance(outcome, Permanent):
                self.refused_last.add(life)
                self.refused_now.add(life)
            else:
                self.refused_last.discard(life)
        self.answered.append(post)
        self.driver.flying.remove(post)
        self.act = Act()
        self.answering = post.body
        self.driver.turn(contract.NexusReplied(post.sled_id, post.propolis_id, post.serial, outcome))
        self.answering = None

    @precondition(lambda self: self.driver.flying)
    @rule(data=st.data())
    def nexus_acknowledges(self, data):
        self.answer(data.draw(st.sampled_from(self.driver.flying)), ACK)

    @precondition(lambda self: self.driver.flying)
    @rule(data=st.data(), status=st.sampled_from([500, 503, None]), arrived=st.booleans())
    def nexus_fails(self, data, status, arrived):
        """A 5xx, or a connection that is lost before or after the request arrived."""
        why = "connection lost" if status is None else f"{status}: Service Unavailable"
        post = data.draw(st.sampled_from(self.driver.flying))
        self.answer(post, Transient(why), arrived=arrived and status is None)

    @precondition(lambda self: self.driver.flying)
    @rule(data=st.data(), status=st.sampled_from([400, 404, 409, 410]))
    def nexus_refuses(self, data, status):
        post = data.draw(st.sampled_from(self.driver.flying))
        self.answer(post, Permanent(f"{status}: no", status), arrived=False)

    @precondition(lambda self: self.driver.flying)
    @rule()
    def nexus_restarts(self):
        """Everything under way is lost at once; what it had stored it still has."""
        for post in list(self.driver.flying):
            self.answer(post, Transient("connection reset"), arrived=False)

    @precondition(lambda self: self.answered)
    @rule(data=st.data(), outcome=our.outcomes)
    def nexus_answers_again(self, data, outcome):
        """Twice, or long after the VMM is gone or its id lives another life: nobody listens."""
        post = data.draw(st.sampled_from(self.answered))
        self.act = Act()
        effects = self.driver.turn(contract.NexusReplied(post.sled_id, post.propolis_id, post.serial, outcome))
        assert effects == []

    # --- rules: time ----------------------------------------------------------------------------------------------

    @rule(after_us=our.durations_us)
    def time_passes(self, after_us):
        self.act = Act()
        self.driver.wait(after_us)

    @rule(sled_id=our.sled_ids)
    def hurry(self, sled_id):
        self.act = Act()
        self.failed_at = {life: (*failed[:2], True) for life, failed in self.failed_at.items()}
        self.driver.turn(contract.HurryOutbox(sled_id))

    @rule()
    def settle(self):
        """Nexus is well again, everybody is poked and all the time in the world passes: all rest where predicted."""
        self.drain()
        self.check_rest()

    # --- draining -------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        self.act = Act()
        for _ in range(STEPS_MAX):
            while self.driver.flying:
                self.answer(self.driver.flying[0], ACK)
            if not self.push():
                break
            self.check()
        else:
            raise AssertionError("not idle within the bound")
        for row in self.oracle.rows.values():
            if not row.gone:
                assert not self.busy(row.propolis_id)
        assert not [ticket for ticket in self.pokes if ticket not in self.driver.answers], "a poke got no answer"

    def push(self) -> bool:
        """Pokes one explicit VMM that has something to do, or goes to the next deadline. False: idle."""
        for row in self.oracle.rows.values():
            if row.gone or self.driver.sled(row.sled_id).config.mode is SimMode.AUTO:
                continue
            vmm = self.driver.vmm(row.propolis_id, on=row.sled_id)
            if vmm.vm is not None and vmm.vm.can_step and vmm.poke is None and not vmm.terminal:
                self.driver.ask(contract.Poke, row.sled_id, row.propolis_id, drain=True)
                self.pokes.append(self.driver.ticket)
                return True
        due_us = self.driver.rack.next_deadline_us()
        if due_us is None:
            return False
        self.driver.now_us = max(self.driver.now_us, due_us)
        self.driver.turn(contract.Tick())
        return True

    def check_rest(self) -> None:
        """Everybody rests where the oracle predicted, told and acknowledged."""
        running = set()
        for row in self.oracle.rows.values():
            if row.gone:
                continue
            vmm = self.driver.vmm(row.propolis_id, on=row.sled_id)
            assert not vmm.terminal, "an acknowledged end is forgotten"
            assert vmm.record.vmm_state.state.value == row.state
            if not row.loose and not row.silent:
                assert row.state == row.rest
            if row.silent:
                assert not row.stopping, "the grace period of its stop has ended it"
            else:
                assert vmm.resting().value == row.state
                assert vmm.vm is None or vmm.vm.waits_for() is None, "nobody waits for a peer that is gone"
            if row.state == "running" and not row.silent:
                running.add(row.life)
        for pair in self.linked:
            assert not pair <= running, "one guest runs twice"
        self.check()

    # --- after each step ------------------------------------------------------------------------------------------

    @invariant()
    def properties_hold(self):
        if hasattr(self, "driver"):
            self.check()
            for row in self.oracle.rows.values():
                if not row.gone and not row.loose:
                    assert self.driver.vmm(row.propolis_id, on=row.sled_id).resting().value == row.rest

    def check(self) -> None:
        fresh = self.log[self.checked :]
        self.checked = len(self.log)
        for function in PROPERTIES.values():
            function(self, fresh)
        self.act = Act()

    def teardown(self):
        if hasattr(self, "driver"):
            self.settle()


TestRack = RackMachine.TestCase
# More than others draw: the interesting things take two VMMs, a migration and a fault to meet
TestRack.settings = settings(max_examples=max(settings.default.max_examples, 60))


def test_at_least_25_properties_are_checked_and_each_has_its_name():
    assert set(PROPERTIES) | {27} == set(range(1, 29))
    assert len(PROPERTIES) >= 25
    for number, function in PROPERTIES.items():
        assert function.__name__.startswith(f"p{number:02}_")
