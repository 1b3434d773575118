"""rack.py: the two sides of a migration in two processes; the test carries what the shells would."""

import contextlib

import attrs
from support.rack.driving import (
    FAILS,
    M1,
    SECOND,
    SLED_A,
    SLED_B,
    STOPPED,
    V1,
    V2,
    RackDriver,
    ScriptedPacer,
    contract,
    refused,
    snapshot,
)
from support.rack.migrating import BOTH_SIDES, IN, state_of
from support.rows import in_one_test

from nexus_client.types import VmmState
from propolis_stub.contract import Dial, FromPeer, MigrateOut, PeerClosed, PeerLost, ToPeer
from propolis_stub.waiting import Point
from sim_sled.core import errors


@attrs.define(eq=False)
class Wire:
    """What two daemons do for their racks (`Rack.expose`): they connect, carry messages and say who hung up."""

    source: RackDriver
    moved: RackDriver
    connected: bool = False
    carried: int = 0

    def pump(self):
        while self.source.others or self.moved.others:
            for here, there, who, who_there in (
                (self.moved, self.source, V2, V1),
                (self.source, self.moved, V1, V2),
            ):
                effects, here.others = here.others, []
                for effect in effects:
                    assert isinstance(effect, contract.FromPropolis)
                    assert effect.propolis_id == who
                    for said in effect.effects:
                        self.carry(said, there, who_there)

    def carry(self, said, there, who):
        on = SLED_B if who == V2 else SLED_A
        if isinstance(said, Dial):
            self.connected = True
            try:
                there.ask(contract.PropolisInput, on, who, MigrateOut(said.migration_id))
            except errors.SledError as error:
                self.moved.ask(contract.PropolisInput, SLED_B, V2, PeerLost(error.message, said.migration_id))
        elif isinstance(said, ToPeer):
            self.carried += 1
            self.send(there, on, who, FromPeer(said.message, said.migration_id))
        elif isinstance(said, PeerClosed):
            self.send(there, on, who, PeerLost("closed", said.migration_id))

    @staticmethod
    def send(there, on, who, item):
        with contextlib.suppress(errors.SledError):  # gone meanwhile
            there.ask(contract.PropolisInput, on, who, item)

    def run(self, limit_us=60 * SECOND):
        end_us = self.source.now_us + limit_us
        while True:
            self.pump()
            due = [d for d in (self.source.rack.next_deadline_us(), self.moved.rack.next_deadline_us()) if d]
            if not due or min(due) > end_us:
                return
            for driver in (self.source, self.moved):
                driver.now_us = max(driver.now_us, min(due))
                driver.do(contract.Tick())


def _two_processes(**plan):
    pacer = ScriptedPacer(1_000, dict.fromkeys(plan.values(), FAILS))
    source, moved = (RackDriver(pacer=pacer, remote_peers=True, expose=True) for _ in range(2))
    source.running(V1)
    moved.register(V2, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    moved.put(IN, V2, on=SLED_B)
    return Wire(source, moved)


def test_between_two_processes_the_same_dialogue_goes_over_the_wire():
    wire = _two_processes()
    wire.run()
    assert wire.connected
    assert wire.carried > 20
    assert state_of(wire.source.published(V1)) == "destroyed"
    assert state_of(wire.moved.published(V2)) == "running"


@in_one_test("who", [V1, V2])
@in_one_test("point", BOTH_SIDES)
def test_between_two_processes_failures_are_heard_on_the_other_side(who, point):
    wire = _two_processes(fault=(who, point))
    wire.run()
    assert state_of(wire.source.published(V1)) == "running"
    assert state_of(wire.moved.published(V2)) == "failed"


def test_between_two_processes_a_refusal_of_the_source_fails_the_target():
    wire = _two_processes()
    wire.source.put(STOPPED, V1)
    wire.run()
    assert state_of(wire.moved.published(V2)) == "failed"


def test_between_two_processes_no_migration_is_tried_twice():
    wire = _two_processes(fault=(V1, Point.M_DEVICE))
    wire.run()
    before = snapshot(wire.source.rack)
    error = refused(wire.source.ask, contract.PropolisInput, SLED_A, V1, MigrateOut(M1))
    assert isinstance(error, errors.InvalidRequest)
    assert snapshot(wire.source.rack) == before
