"""The driver beyond the numbered cases: steps, time, holding, hazards, failures at every phase on either side.

Over 500 lines: short claims about one machine, in the order of PR 3.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, Flag
from uuid import UUID

import pytest
from support.propolis.arms import FAILS, FOR_EVER, QUEUED, B, CoreArm, R, S, run, spell
from support.propolis.cases import MIGRATED_IN, MIGRATED_OUT, PHASES_IN, PHASES_OUT, in_phases, out_phases
from support.rows import in_one_test

from propolis_stub import contract
from propolis_stub.errors import AlreadyInitialized, GuestNotRunning, NoInstance, RepairingRejected, RequestDenied
from propolis_stub.guest_events import GuestEvent
from propolis_stub.migration.messages import Error, Malformed, MemDone, Okay, Text
from propolis_stub.types import InstanceState, Level, MigrationPhase, RequestKind
from propolis_stub.vm import Hazard, Vm
from propolis_stub.waiting import Pace, Point

MIGRATION = UUID(int=0xABC)
SOURCE_POINTS = [
    Point.M_SYNC,
    Point.M_RAM_PUSH,
    Point.M_PAUSE,
    Point.M_RAM_PUSH_DIRTY,
    Point.M_TIME,
    Point.M_DEVICE,
    Point.M_RAM_PULL,
    Point.M_SERVER,
    Point.M_FINISH,
]
TARGET_POINTS = SOURCE_POINTS


class EachPointTakes:
    """A pacer for timed mode: every point lasts as long, or as long as named."""

    def __init__(self, after_us: int = 0, **named: int | None) -> None:
        self.after_us = after_us
        self.named = named
        self.asked: list[tuple[Point, int]] = []

    def pace(self, _vm_id: UUID, point: Point, occurrence: int, _edge: object, /) -> Pace:
        self.asked.append((point, occurrence))
        return Pace(self.named.get(point.name, self.after_us))


def told(effects: list[contract.Effect]) -> list[str]:
    return [spell(effect.publication) for effect in effects if isinstance(effect, contract.Published)]


def steps(vm: Vm, count_max: int = 50) -> list[list[str]]:
    """What each step told, until one tells nothing."""
    all_told = []
    for _ in range(count_max):
        effects = vm.handle(contract.Step(), 0)
        if not effects:
            return all_told
        all_told.append(told(effects))
    raise AssertionError("steps without end")


# --- explicit stepping ----------------------------------------------------------------------------------------------


def stepped(vm_id: int = 1, pacer: object | None = None) -> Vm:
    return Vm(UUID(int=vm_id), pacer or EachPointTakes(), stepped=True)


def stepped_running() -> Vm:
    vm = stepped()
    vm.handle(contract.EnsureSpec(), 0)
    vm.handle(contract.Request(R), 0)
    vm.handle(contract.Step(), 0)
    return vm


def test_a_start_is_one_step_a_reboot_two_and_a_stop_three() -> None:
    vm = stepped()
    assert told(vm.handle(contract.EnsureSpec(), 0)) == ["1 Creating"]
    assert steps(vm) == []
    assert told(vm.handle(contract.Request(R), 0)) == []
    assert steps(vm) == [["2 Starting", "3 Running"]]
    vm.handle(contract.Request(B), 0)
    assert steps(vm) == [["4 Rebooting"], ["5 Running"]]
    vm.handle(contract.Request(S), 0)
    assert steps(vm) == [["6 Stopping"], ["7 Stopped"], ["8 Destroyed"]]


def test_a_scripted_migration_in_is_four_steps() -> None:
    vm = stepped()
    assert told(vm.handle(contract.EnsureTarget(MIGRATION, scripted=True), 0)) == []
    assert vm.publication is None
    first, second, third, fourth = steps(vm)
    assert first == ["1 Migrating in=Sync"]
    assert second == ["2 Migrating in=Sync"]
    assert [*first, *second, *third] == in_phases().split(", ")
    assert fourth == ["11 Running in=Finish"]


def test_a_scripted_migration_out_is_four_steps() -> None:
    vm = stepped_running()
    vm.handle(contract.MigrateOut(MIGRATION, scripted=True), 0)
    first, second, third, fourth = steps(vm)
    assert first == ["4 Migrating out=Sync", "5 Migrating out=Sync"]
    assert [*first, *second] == out_phases(4).split(", ")
    assert third == ["17 Stopping out=Finish"]
    assert fourth == ["18 Destroyed out=Finish"]


def test_in_a_linked_migration_only_the_target_is_stepped() -> None:
    source = CoreArm(stepped=True)
    target = CoreArm(source.net, stepped=True)
    target.source = source
    for item in (contract.EnsureSpec(), contract.Request(R), contract.Step()):
        source.handle(item)
    target.handle(contract.EnsureTarget(MIGRATION))
    assert (target.log, source.log[3:]) == ([], [])
    ends = []
    for _ in range(4):
        target.handle(contract.Step())
        ends.append((target.log[-1], source.log[-1]))
    assert ends == [
        ("1 Migrating in=Sync", "3 Running"),
        ("2 Migrating in=Sync", "5 Migrating out=Sync"),
        ("10 Migrating in=Finish", "16 Migrating out=Finish"),
        ("11 Running in=Finish", "17 Stopping out=Finish"),
    ]
    assert target.handle(contract.Step()) == []
    source.handle(contract.Step())
    assert source.log[-1] == "18 Destroyed out=Finish"


def test_a_slow_point_is_a_step_of_its_own_and_one_for_ever_is_none() -> None:
    pacer = EachPointTakes(0, BACKENDS=5_000)
    vm = stepped(pacer=pacer)
    vm.handle(contract.EnsureSpec(), 0)
    vm.handle(contract.Request(R), 0)
    assert told(vm.handle(contract.Step(), 0)) == ["2 Starting"]
    assert vm.next_deadline_us() is None
    assert told(vm.handle(contract.Step(), 0)) == ["3 Running"]
    pacer.named["REBOOT"] = None
    vm.handle(contract.Request(B), 0)
    assert steps(vm) == [["4 Rebooting"]]
    assert told(vm.handle(contract.Settle(), 0)) == ["5 Running"]


def test_a_stop_aborts_a_stepped_start_by_a_step() -> None:
    vm = stepped(pacer=EachPointTakes(0, BACKENDS=5_000))
    vm.handle(contract.EnsureSpec(), 0)
    vm.handle(contract.Request(R), 0)
    vm.handle(contract.Step(), 0)
    assert told(vm.handle(contract.Request(S), 0)) == []
    assert steps(vm) == [["3 Stopped"], ["4 Destroyed"]]


def test_a_step_with_nothing_to_do_does_nothing() -> None:
    vm = stepped()
    assert vm.handle(contract.Step(), 0) == []
    vm.handle(contract.EnsureSpec(), 0)
    assert vm.handle(contract.Step(), 0) == []
    assert vm.gen == 1


# --- timed mode -----------------------------------------------------------------------------------------------------


def test_a_life_in_timed_mode_waits_for_one_deadline_after_the_other() -> None:
    pacer = EachPointTakes(10)
    vm = Vm(UUID(int=1), pacer)
    now_us, log = 1_000, []
    for item in (contract.EnsureSpec(), contract.Request(R)):
        log += [(now_us, line) for line in told(vm.handle(item, now_us))]
    for _ in range(20):
        due_us = vm.next_deadline_us()
        if due_us is None:
            break
        assert vm.handle(contract.Tick(), due_us - 1) == []
        now_us = due_us
        log += [(now_us, line) for line in told(vm.handle(contract.Tick(), now_us))]
    assert log == [(1_000, "1 Creating"), (1_020, "2 Starting"), (1_040, "3 Running")]
    assert pacer.asked == [(Point.CREATE, 0), (Point.WAKE, 0), (Point.DEVICES, 0), (Point.BACKENDS, 0)]


def test_occurrences_are_counted_per_point() -> None:
    pacer = EachPointTakes()
    vm = Vm(UUID(int=1), pacer)
    for item in (
        contract.EnsureSpec(),
        contract.Request(R),
        contract.Request(B),
        contract.Request(B),
        contract.Request(S),
    ):
        vm.handle(item, 0)
    vm.handle(contract.EnsureSpec(), 0)
    assert [occurrence for point, occurrence in pacer.asked if point is Point.WAKE] == [0, 1, 2, 3]
    assert [occurrence for point, occurrence in pacer.asked if point is Point.REBOOT] == [0, 1]
    assert [occurrence for point, occurrence in pacer.asked if point is Point.CREATE] == [0, 1]


def test_a_held_vm_has_no_deadline_and_catches_up_at_release() -> None:
    vm = Vm(UUID(int=1), EachPointTakes(0, REBOOT=100))
    for item in (contract.EnsureSpec(), contract.Request(R), contract.Request(B)):
        vm.handle(item, 0)
    assert vm.next_deadline_us() == 100
    vm.handle(contract.Hold(), 50)
    assert vm.next_deadline_us() is None
    assert vm.waits_for() == "held while rebooting"
    assert vm.handle(contract.Tick(), 200) == []
    assert told(vm.handle(contract.Release(), 300)) == ["5 Running"]


def test_backends_that_come_up_in_time_win_over_a_stop_of_the_same_moment() -> None:
    vm = Vm(UUID(int=1), EachPointTakes(0, BACKENDS=100))
    vm.handle(contract.EnsureSpec(), 0)
    vm.handle(contract.Request(R), 0)
    lines = told(vm.handle(contract.Request(S), 100))
    assert lines == ["3 Running", "4 Stopping", "5 Stopped", "6 Destroyed"]


# --- refusals change nothing ----------------------------------------------------------------------------------------


def snapshot(thing: object) -> object:
    """Whatever can be reached from a VM through slots and attributes, as values."""
    if type(thing).__module__.startswith("propolis_stub") and not isinstance(thing, Enum | Flag):
        names = [name for klass in type(thing).__mro__ for name in getattr(klass, "__slots__", ())]
        return {name: snapshot(getattr(thing, name)) for name in names if hasattr(thing, name) and name != "pacer"}
    return list(thing) if isinstance(thing, deque) else thing


@in_one_test(
    ("prepare", "item", "error"),
    [
        pytest.param([], contract.Request(R), NoInstance, id="Run without a VM"),
        pytest.param([], contract.MigrateOut(MIGRATION), NoInstance, id="migration without a VM"),
        pytest.param([], contract.Reconfigure(1), NoInstance, id="reconfigure without a VM"),
        pytest.param([contract.EnsureSpec()], contract.EnsureSpec(), AlreadyInitialized, id="a second ensure"),
        pytest.param(
            [contract.EnsureSpec()], contract.EnsureTarget(MIGRATION), AlreadyInitialized, id="ensure as a target too"
        ),
        pytest.param([contract.EnsureSpec()], contract.Request(B), RequestDenied, id="reboot before the start"),
        pytest.param(
            [contract.EnsureSpec()], contract.MigrateOut(MIGRATION), RequestDenied, id="migration before the start"
        ),
        pytest.param(
            [contract.EnsureSpec()], contract.Guest(GuestEvent.HALT), GuestNotRunning, id="a halt before the start"
        ),
        pytest.param(
            [contract.EnsureSpec()],
            contract.Request(InstanceState.REPAIRING),
            RepairingRejected,
            id="asking for Repairing",
        ),
    ],
)
def test_a_refusal_changes_nothing(
    prepare: list[contract.Input], item: contract.Input, error: type[Exception]
) -> None:
    vm = Vm(UUID(int=1), EachPointTakes())
    for earlier in prepare:
        vm.handle(earlier, 0)
    before = snapshot(vm)
    with pytest.raises(error):
        vm.handle(item, 1)
    assert snapshot(vm) == before


# --- guest events ---------------------------------------------------------------------------------------------------


@in_one_test(
    ("events", "reboots"),
    [
        pytest.param([("reset", 1, 0), ("reset", 1, 0)], 1, id="one reset reported twice is one"),
        pytest.param([("reset", 1, 0), ("reset", 2, 0)], 2, id="resets of two times are two"),
        pytest.param([("reset", 1, 0), ("reset", 1, 1)], 1, id="a reset does not know its vCPU"),
        pytest.param([("triple-fault", 1, 0), ("triple-fault", 1, 1)], 2, id="triple faults of two vCPUs are two"),
        pytest.param([("chipset-reset", 1, 0), ("chipset-reset", 2, 1)], 1, id="chipset events are equal by kind"),
    ],
)
async def test_equal_guest_events_that_still_wait_are_one(events: list[tuple[str, int, int]], reboots: int) -> None:
    arm = CoreArm()
    await run(arm)
    await arm.hold()
    for name, at_us, vcpu in events:
        arm.handle(contract.Guest(GuestEvent(name), at_us, vcpu))
    await arm.go()
    assert len(arm.log) == 3 + 2 * reboots


async def test_guest_events_are_bounded() -> None:
    arm = CoreArm()
    await run(arm)
    await arm.hold()
    for at_us in range(5_000):
        arm.handle(contract.Guest(GuestEvent.RESET, at_us))
    await arm.go()
    assert len(arm.log) == 3 + 2 * 1024


# --- hazards --------------------------------------------------------------------------------------------------------


async def test_with_the_strict_hazard_a_reconfigure_left_at_the_halt_blocks_the_rundown() -> None:
    arm = CoreArm()
    await arm.strict()
    await run(arm)
    await arm.hold()
    await arm.reconfigure(1)
    await arm.put(S)
    await arm.go()
    await arm.told("4 Stopping, 5 Stopped")
    assert arm.vm.level is Level.ACTIVE
    assert arm.reconfigures == {}
    assert arm.vm.handle(contract.Step(), 0) == []


async def test_a_guest_event_during_a_start_is_refused_or_with_the_strict_hazard_the_end() -> None:
    arm = CoreArm()
    await arm.pace(Point.BACKENDS, FOR_EVER)
    await arm.ensure()
    await arm.put(R)
    with pytest.raises(GuestNotRunning):
        await arm.guest(GuestEvent.RESET)
    arm.vm.strict = Hazard.GUEST_EVENT_IN_START
    await arm.guest(GuestEvent.RESET)
    assert arm.vm.level is Level.NO_VM


async def test_a_stop_during_a_start_drops_the_migration_that_waited_for_its_end() -> None:
    arm, target = CoreArm(), None
    await arm.pace(Point.BACKENDS, FOR_EVER)
    await arm.ensure()
    await arm.put(R)
    target = await arm.another()
    assert await arm.migrate_to(target) == "accepted"
    await arm.put(S)
    await arm.told("2 Starting, 3 Stopped, 4 Destroyed")
    await target.told("1 Migrating in=Sync, 2 Failed in=Sync")


# --- reconfigure ----------------------------------------------------------------------------------------------------


async def test_a_volume_that_refuses_is_told_so_idle_and_during_a_start() -> None:
    arm = CoreArm()
    await arm.pace(Point.RECONFIGURE, FAILS)
    await arm.ensure()
    await arm.reconfigure(1)
    await arm.pace(Point.BACKENDS, FOR_EVER)
    await arm.put(R)
    await arm.reconfigure(2)
    assert arm.reconfigures == {1: "400", 2: "400"}


# --- migration: failure at every phase, on either side --------------------------------------------------------------


def out_up_to(point: Point) -> int:
    """How many publications a source has made when it stands at this point."""
    return {
        Point.M_SYNC: 2,
        Point.M_RAM_PUSH: 3,
        Point.M_PAUSE: 5,
        Point.M_RAM_PUSH_DIRTY: 6,
        Point.M_TIME: 7,
        Point.M_DEVICE: 8,
        Point.M_RAM_PULL: 10,
        Point.M_SERVER: 12,
        Point.M_FINISH: 13,
    }[point]


def in_up_to(point: Point) -> int:
    return {
        Point.M_SYNC: 2,
        Point.M_RAM_PUSH: 3,
        Point.M_PAUSE: 4,
        Point.M_RAM_PUSH_DIRTY: 5,
        Point.M_TIME: 6,
        Point.M_DEVICE: 7,
        Point.M_RAM_PULL: 8,
        Point.M_SERVER: 9,
        Point.M_FINISH: 10,
    }[point]


def source_failed_after(count: int) -> list[str]:
    return [
        *out_phases(4, count).split(", "),
        f"{4 + count} Migrating out=Error",
        f"{5 + count} Running out=Error",
    ]


def target_failed(log: list[str]) -> bool:
    """Whether a target's log ends as one of PR 3.6 that failed after the negotiation."""
    errors = [line for line in log if "in=Error" in line]
    phases = [f"Migrating in={phase}" for phase in PHASES_IN]
    told_phases = [line.split(" ", 1)[1] for line in log[: -len(errors)]]
    return bool(errors) and "Migrating" in errors[0] and told_phases == phases[: len(told_phases)]


@in_one_test("point", SOURCE_POINTS)
async def test_a_source_that_fails_in_a_phase_resumes_and_its_target_fails(point: Point) -> None:
    source = CoreArm()
    await run(source)
    target = await source.another()
    await source.pace(point, FAILS)
    await source.migrate_to(target)
    assert source.log[3:] == source_failed_after(out_up_to(point))
    assert target_failed(target.log)
    assert target.vm.state is InstanceState.FAILED
    await source.pace(point, Pace())
    assert await source.put(B) == QUEUED


@in_one_test("point", TARGET_POINTS)
async def test_a_target_that_fails_in_a_phase_gives_its_source_the_guest_back(point: Point) -> None:
    source = CoreArm()
    await run(source)
    target = await source.another()
    await target.pace(point, FAILS)
    await source.migrate_to(target)
    count = in_up_to(point)
    if point is Point.M_SYNC:
        assert target.ensured == "500"
        failed = f", {count + 1} Migrating in=Error, {count + 2} Failed in=Error"
    else:
        assert target.ensured == "201"
        failed = f", {count + 1} Migrating in=Error, {count + 2} Failed in=Error, {count + 3} Failed in=Error"
    await target.told(in_phases(count) + failed)
    assert source.vm.state is InstanceState.RUNNING
    assert source.log[-2].endswith("Migrating out=Error")
    assert await source.put(S) == QUEUED
    assert source.vm.state is InstanceState.DESTROYED


@in_one_test("side", ["source", "target"])
@in_one_test("point", SOURCE_POINTS)
async def test_a_peer_that_dies_in_a_phase_leaves_one_side_with_the_guest(point: Point, side: str) -> None:
    source = CoreArm()
    await run(source)
    target = await source.another()
    dying, other = (source, target) if side == "source" else (target, source)
    await dying.pace(point, FOR_EVER)
    await source.migrate_to(target)
    await dying.crash()
    assert dying.vm.level is Level.NO_VM
    assert other.vm.state is (InstanceState.FAILED if other is target else InstanceState.RUNNING)


@in_one_test("point", SOURCE_POINTS)
async def test_an_imagined_target_fails_in_the_phase_that_is_named(point: Point) -> None:
    source = CoreArm()
    await run(source)
    source.handle(contract.MigrateOut(MIGRATION, scripted=True, fails_in=point))
    assert source.log[3:] == source_failed_after(out_up_to(point))
    source.handle(contract.MigrateOut(MIGRATION, scripted=True))
    if point in {Point.M_SERVER, Point.M_FINISH}:  # its console has moved away for good (PR 3.5)
        assert source.vm.state is InstanceState.RUNNING
    else:
        assert source.log[-1].endswith("Destroyed out=Finish")


@in_one_test("point", TARGET_POINTS)
async def test_an_imagined_source_fails_in_the_phase_that_is_named(point: Point) -> None:
    target = CoreArm()
    target.handle(contract.EnsureTarget(MIGRATION, scripted=True, fails_in=point))
    assert target_failed(target.log)
    assert len(target.log) == in_up_to(point) + (2 if point is Point.M_SYNC else 3)


async def test_an_imagined_target_that_fails_the_negotiation_leaves_the_flag_stuck() -> None:
    source = CoreArm()
    await run(source)
    source.handle(contract.MigrateOut(MIGRATION, scripted=True, fails_in=Point.M_CONNECT))
    await source.told("4 Running out=Error")
    assert await source.put(B) == "403 InvalidForMigrationSource"


async def test_an_imagined_source_that_cannot_be_reached() -> None:
    target = CoreArm()
    target.handle(contract.EnsureTarget(MIGRATION, scripted=True, fails_in=Point.M_CONNECT))
    await target.told("1 Migrating in=Sync, 2 Failed in=Sync")
    assert target.ensured == "500"


async def test_a_silent_peer_blocks_the_driver_for_ever_and_a_lost_one_ends_it() -> None:
    source = CoreArm()
    await run(source)
    source.handle(contract.MigrateOut(MIGRATION))
    assert source.vm.waits_for() == "a message of the migration peer"
    assert source.vm.next_deadline_us() is None
    assert await source.put(S) == QUEUED
    await source.told("3 Running")
    source.handle(contract.PeerLost())
    await source.told("4 Running out=Error, 5 Stopping out=Error, 6 Stopped out=Error, 7 Destroyed out=Error")


async def test_a_peer_that_was_lost_before_its_turn_fails_the_negotiation() -> None:
    source = CoreArm()
    await run(source)
    await source.hold()
    source.handle(contract.MigrateOut(MIGRATION))
    source.handle(contract.PeerLost(migration_id=MIGRATION))
    await source.told("3 Running")
    await source.go()
    await source.told("4 Running out=Error")


@in_one_test(
    "message",
    [
        pytest.param(MemDone(), id="a message of a later phase"),
        pytest.param(Text("hello"), id="a text frame after the handshake"),
        pytest.param(Malformed("tag 99"), id="a frame that is none"),
        pytest.param(Error("boom"), id="an Error frame"),
    ],
)
async def test_a_peer_that_talks_nonsense_fails_the_run(message: object) -> None:
    source = CoreArm()
    await run(source)
    source.handle(contract.MigrateOut(MIGRATION))
    source.handle(contract.FromPeer(Text("propolis-migrate-ron/0")))
    assert source.vm.state is InstanceState.MIGRATING
    effects = source.handle(contract.FromPeer(message))
    assert told(effects) == ["6 Migrating out=Error", "7 Running out=Error"]
    said = [effect.message for effect in effects if isinstance(effect, contract.ToPeer)]
    assert [type(one) for one in said] == ([] if isinstance(message, Error) else [Error])
    assert contract.PeerClosed(MIGRATION) in effects


async def test_a_binary_handshake_is_closed_with_1002() -> None:
    source = CoreArm()
    await run(source)
    source.handle(contract.MigrateOut(MIGRATION))
    effects = source.handle(contract.FromPeer(Okay()))
    assert contract.PeerClosed(MIGRATION, 1002) in effects
    await source.told("4 Running out=Error")


@in_one_test(
    ("offer", "accepted"),
    [
        pytest.param("propolis-migrate-ron/0", True, id="the one we know"),
        pytest.param("propolis-migrate-ron/7, propolis-migrate-ron/0", True, id="a newer one too"),
        pytest.param("propolis-migrate-ron/7", False, id="only a newer one"),
        pytest.param("", False, id="nothing"),
        pytest.param("%%%", False, id="garbage"),
    ],
)
async def test_the_offer_is_read(offer: str, accepted: bool) -> None:
    source = CoreArm()
    await run(source)
    source.handle(contract.MigrateOut(MIGRATION))
    effects = source.handle(contract.FromPeer(Text(offer)))
    assert (contract.ToPeer(Text("propolis-migrate-ron/0"), MIGRATION) in effects) is accepted
    assert (source.vm.state is InstanceState.MIGRATING) is accepted


async def test_a_target_refuses_a_choice_that_it_did_not_offer() -> None:
    target = CoreArm()
    target.handle(contract.EnsureTarget(MIGRATION))
    assert target.ensured == "500"  # nobody to dial
    target = CoreArm()
    target._dial = lambda _migration_id: None
    target.handle(contract.EnsureTarget(MIGRATION))
    target.handle(contract.FromPeer(Text("propolis-migrate-ron/9")))
    await target.told("1 Migrating in=Sync, 2 Failed in=Sync")


async def test_a_talkative_peer_cannot_fill_the_memory() -> None:
    source = CoreArm()
    await run(source)
    await source.hold()
    source.handle(contract.MigrateOut(MIGRATION))
    for _ in range(10_000):
        source.handle(contract.FromPeer(Okay()))
    assert source.vm._driver._asked is not None
    assert len(source.vm._driver._asked._inbox) == 4096
    await source.go()
    await source.told("4 Running out=Error")


async def test_words_of_an_old_connection_are_not_heard() -> None:
    source = CoreArm()
    await run(source)
    source.handle(contract.MigrateOut(MIGRATION))
    other = UUID(int=99)
    assert source.handle(contract.FromPeer(Text("rubbish"), other)) == []
    assert source.handle(contract.PeerLost(migration_id=other)) == []
    assert source.vm.state is InstanceState.RUNNING


async def test_there_and_back_again() -> None:
    here = CoreArm()
    await run(here)
    there = await here.another()
    await here.migrate_to(there)
    await here.told(MIGRATED_OUT)
    await there.told(MIGRATED_IN)
    await there.migrate_to(here)
    assert here.log == MIGRATED_IN.split(", ")


# --- what is read from outside --------------------------------------------------------------------------------------


@in_one_test(
    ("items", "resting"),
    [
        pytest.param([contract.EnsureSpec()], "Creating", id="never started"),
        pytest.param([contract.EnsureSpec(), contract.Request(R)], "Running", id="start pending"),
        pytest.param(
            [contract.EnsureSpec(), contract.Request(R), contract.Step(), contract.Request(B)],
            "Running",
            id="reboot waits",
        ),
        pytest.param([contract.EnsureSpec(), contract.Request(S)], "Destroyed", id="stop waits"),
        pytest.param([contract.EnsureSpec(), contract.Request(S), contract.Step()], "Destroyed", id="stopping"),
        pytest.param(
            [contract.EnsureSpec(), contract.Request(S), contract.Step(), contract.Step()], "Destroyed", id="stopped"
        ),
        pytest.param(
            [contract.EnsureTarget(MIGRATION, scripted=True)], "Running", id="a target before its first step"
        ),
        pytest.param(
            [contract.EnsureTarget(MIGRATION, scripted=True), *[contract.Step()] * 3], "Running", id="importing"
        ),
        pytest.param(
            [contract.EnsureTarget(MIGRATION, scripted=True, fails_in=Point.M_SYNC), *[contract.Step()] * 3],
            "Failed",
            id="a failed import",
        ),
        pytest.param(
            [
                contract.EnsureSpec(),
                contract.Request(R),
                contract.Step(),
                contract.MigrateOut(MIGRATION, scripted=True),
            ],
            "Destroyed",
            id="migration out accepted",
        ),
        pytest.param(
            [contract.EnsureSpec(), contract.Request(R), contract.Step(), contract.Guest(GuestEvent.HALT)],
            "Destroyed",
            id="the guest has halted",
        ),
        pytest.param([contract.EnsureSpec(), contract.Crash()], "Creating", id="crashed: nothing was ever here"),
    ],
)
def test_resting_state(items: list[contract.Input], resting: str) -> None:
    vm = stepped()
    for item in items:
        vm.handle(item, 0)
    assert vm.resting_state() is InstanceState(resting)
    while vm.handle(contract.Step(), 0):
        pass
    assert vm.state is None or vm.state is InstanceState(resting)


def test_a_stuck_migration_flag_is_no_migration() -> None:
    vm = stepped_running()
    vm.handle(contract.MigrateOut(MIGRATION, scripted=True, fails_in=Point.M_CONNECT), 0)
    vm.handle(contract.Step(), 0)
    assert vm.resting_state() is InstanceState.RUNNING
    assert vm.migration_out is not None
    assert vm.migration_out.state is MigrationPhase.ERROR


def test_what_it_waits_for_is_said_in_words() -> None:
    vm = Vm(UUID(int=1), EachPointTakes(0, BACKENDS=None, REBOOT=7))
    assert vm.waits_for() is None
    vm.handle(contract.EnsureSpec(), 0)
    assert vm.waits_for() is None
    vm.handle(contract.Request(R), 0)
    assert vm.waits_for() == "starting block backends (backends), for ever"
    vm.handle(contract.Settle(), 0)
    vm.handle(contract.Request(B), 0)
    assert vm.waits_for() == "rebooting (reboot)"
    other = stepped()
    other.handle(contract.EnsureSpec(), 0)
    other.handle(contract.Request(R), 0)
    assert other.waits_for() == "a step: picking up work (wake)"


@in_one_test("point", [Point.CREATE, Point.BACKENDS, Point.REBOOT, Point.HALT, Point.RUNDOWN])
def test_a_crash_anywhere_forgets_the_vm_and_a_new_one_begins_at_1(point: Point) -> None:
    vm = Vm(UUID(int=1), EachPointTakes(0, **{point.name: None}))
    for item in (contract.EnsureSpec(), contract.Request(RequestKind.RUN)):
        vm.handle(item, 0)
    for kind in (B, S):
        try:
            vm.handle(contract.Request(kind), 0)
        except RequestDenied:
            continue
    effects = vm.handle(contract.Crash(), 0)
    assert effects == [contract.Crashed(), contract.LevelChanged(Level.NO_VM)]
    assert (vm.state, vm.gen, vm.queue, vm.publication) == (None, 0, None, None)
    assert told(vm.handle(contract.EnsureSpec(), 0)) == ["1 Creating"]


def test_settling_where_nothing_is_waited_for_does_nothing() -> None:
    vm = stepped()
    vm.handle(contract.EnsureSpec(), 0)
    assert vm.handle(contract.Settle(), 0) == []


def test_all_phases_of_the_reference_are_told() -> None:
    assert {phase.value for phase in MigrationPhase} - set(PHASES_OUT) - set(PHASES_IN) == {"Resume", "Error"}
