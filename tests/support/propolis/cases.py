"""The cases of PR 7 that need no socket, by number. Each runs in memory and on the wire (arms.py).

`told("4 Rebooting, 5 Running")` compares everything published from the first generation named on: the last one named
is the last one told.

Over 500 lines: one case per row of one table of the specification, which is looked up by its number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
from support.propolis.arms import FAILS, FOR_EVER, IGNORED, NO_INSTANCE, QUEUED, Arm, B, R, S, denied, run

from propolis_stub.guest_events import GuestEvent
from propolis_stub.waiting import Pace, Point

Body = Callable[[Arm], Awaitable[None]]


@attrs.frozen
class Case:
    number: int
    claim: str
    body: Body


CASES: list[Case] = []


def case(number: int, claim: str) -> Callable[[Body], Body]:
    def keep(body: Body) -> Body:
        CASES.append(Case(number, claim, body))
        return body

    return keep


HALTED = denied("Halted")
HALT_PENDING = denied("HaltPending")
NOT_ACTIVE = denied("InstanceNotActive")
START_IN_PROGRESS = denied("StartInProgress")
INSTANCE_FAILED = denied("InstanceFailed")
IS_SOURCE = denied("InvalidForMigrationSource")
HAS_LEFT = denied("MigratedOut")

PHASES_OUT = (
    "Sync Sync RamPush Pause Pause RamPushDirty Pause Device RamPush Pause RamPushDirty Server Finish".split()  # noqa: SIM905
)
PHASES_IN = "Sync Sync RamPush Pause RamPushDirty Pause Device RamPull Server Finish".split()  # noqa: SIM905


def out_phases(first: int, last_phase: int | None = None) -> str:
    """The publications of a migration out that begins at generation `first`, up to the given count of them."""
    return ", ".join(f"{first + i} Migrating out={phase}" for i, phase in enumerate(PHASES_OUT[:last_phase]))


def in_phases(count: int | None = None) -> str:
    return ", ".join(f"{1 + i} Migrating in={phase}" for i, phase in enumerate(PHASES_IN[:count]))


MIGRATED_OUT = out_phases(4) + ", 17 Stopping out=Finish, 18 Destroyed out=Finish"
MIGRATED_IN = in_phases() + ", 11 Running in=Finish"
UP_TO_DEVICE = 8


@case(1, "a fresh process has no instance for anybody")
async def _(vm: Arm) -> None:
    for kind in (R, S, B):
        assert await vm.put(kind) == NO_INSTANCE
    assert await vm.get() == NO_INSTANCE
    await vm.ask("m", 0)
    assert await vm.answered("m") == NO_INSTANCE
    await vm.reconfigure(1)
    assert await vm.reconfigured(1) == NO_INSTANCE
    assert await vm.migrate_raw("propolis-migrate-ron/0") == "dropped"


@case(2, "an ensured VM tells Creating as generation 1, to whoever asks for 0 or 1")
async def _(vm: Arm) -> None:
    assert await vm.ensure() == "201"
    for gen in (0, 1):
        await vm.ask(f"m{gen}", gen)
        assert await vm.answered(f"m{gen}") == "200 1 Creating"


@case(3, "a start goes through Starting")
async def _(vm: Arm) -> None:
    await run(vm)


@case(4, "two Runs start once")
async def _(vm: Arm) -> None:
    await vm.ensure()
    await vm.hold()
    assert await vm.put(R) == QUEUED
    assert await vm.put(R) == IGNORED
    await vm.go()
    await vm.told("2 Starting, 3 Running")


@case(5, "Run on a running VM changes nothing")
async def _(vm: Arm) -> None:
    await run(vm)
    assert await vm.put(R) == IGNORED
    await vm.told("3 Running")


@case(6, "neither reboot nor migration before a start")
async def _(vm: Arm) -> None:
    await vm.ensure()
    assert await vm.put(B) == NOT_ACTIVE
    assert await vm.migrate_raw("propolis-migrate-ron/0") == "dropped"
    await vm.told("1 Creating")


async def start_slowly(vm: Arm) -> None:
    await vm.pace(Point.BACKENDS, FOR_EVER)
    assert await vm.ensure() == "201"
    assert await vm.put(R) == QUEUED
    await vm.told("2 Starting")


@case(7, "no reboot while a start is in progress")
async def _(vm: Arm) -> None:
    await start_slowly(vm)
    assert await vm.put(B) == START_IN_PROGRESS
    await vm.told("2 Starting")


@case(8, "a stop aborts a start whose backends are pending, without Stopping")
async def _(vm: Arm) -> None:
    await start_slowly(vm)
    assert await vm.put(S) == QUEUED
    await vm.told("2 Starting, 3 Stopped, 4 Destroyed")


@case(9, "a VM that never started can be stopped")
async def _(vm: Arm) -> None:
    await vm.ensure()
    assert await vm.put(S) == QUEUED
    await vm.told("2 Stopping, 3 Stopped, 4 Destroyed")


@case(10, "once a stop waits before the start, nothing else is let in")
async def _(vm: Arm) -> None:
    await vm.ensure()
    await vm.hold()
    assert await vm.put(S) == QUEUED
    assert await vm.put(R) == HALT_PENDING
    assert await vm.migrate_raw("propolis-migrate-ron/0") == "dropped"
    assert await vm.put(B) == HALT_PENDING
    assert await vm.put(S) == IGNORED
    await vm.go()
    await vm.told("2 Stopping, 3 Stopped, 4 Destroyed")


@case(11, "a stop behind an instant start waits for it")
async def _(vm: Arm) -> None:
    await vm.ensure()
    await vm.hold()
    assert await vm.put(R) == QUEUED
    assert await vm.put(S) == QUEUED
    await vm.go()
    await vm.told("2 Starting, 3 Running, 4 Stopping, 5 Stopped, 6 Destroyed")


@case(12, "Run after an aborted start: HaltPending, then Halted in the window, then no instance")
async def _(vm: Arm) -> None:
    await start_slowly(vm)
    await vm.hold()
    assert await vm.put(S) == QUEUED
    assert await vm.put(R) == HALT_PENDING
    await vm.step()
    assert await vm.put(R) == HALTED
    await vm.go()
    await vm.told("2 Starting, 3 Stopped, 4 Destroyed")
    assert await vm.put(R) == NO_INSTANCE


@case(13, "a backend that fails to start fails the VM, told at the end of the rundown")
async def _(vm: Arm) -> None:
    await start_slowly(vm)
    await vm.hold()
    await vm.settle(fail=True)
    assert await vm.put(R) == INSTANCE_FAILED
    assert await vm.put(B) == INSTANCE_FAILED
    assert await vm.migrate_raw("propolis-migrate-ron/0") == "dropped"
    await vm.reconfigure(1)
    assert await vm.reconfigured(1) == INSTANCE_FAILED
    assert await vm.put(S) == IGNORED
    await vm.told("2 Starting")
    await vm.go()
    await vm.told("2 Starting, 3 Failed")
    assert await vm.put(R) == NO_INSTANCE


@case(14, "after a device start error the queue still believes in the start")
async def _(vm: Arm) -> None:
    await vm.pace(Point.DEVICES, FAILS)
    await vm.ensure()
    await vm.hold()
    await vm.put(R)
    await vm.step()
    assert await vm.put(R) == IGNORED
    assert await vm.put(B) == START_IN_PROGRESS
    assert await vm.put(S) == QUEUED
    await vm.go()
    await vm.told("2 Starting, 3 Failed")


async def fail_to_create(vm: Arm) -> None:
    await vm.pace(Point.CREATE, FAILS)
    assert await vm.ensure() == "500"


@case(15, "objects that cannot be created fail the ensure, and the monitor hangs")
async def _(vm: Arm) -> None:
    await fail_to_create(vm)
    assert await vm.get() == "200 Failed"
    assert await vm.put(R) == NO_INSTANCE
    await vm.ask("m2", 2)
    assert await vm.answered("m2") == "200 2 Failed"
    await vm.ask("m3", 3)
    assert await vm.answered("m3") is None
    await vm.told("1 Creating, 2 Failed")


@case(16, "a new ensure after a failed one ends the hanging monitor with 410")
async def _(vm: Arm) -> None:
    await fail_to_create(vm)
    await vm.ask("m3", 3)
    await vm.pace(Point.CREATE, Pace())
    assert await vm.ensure() == "201"
    assert await vm.answered("m3") == "410"
    await vm.told("1 Creating")


@case(17, "a reboot")
async def _(vm: Arm) -> None:
    await run(vm)
    assert await vm.put(B) == QUEUED
    await vm.told("4 Rebooting, 5 Running")


@case(18, "five waiting reboots are one")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    assert await vm.put(B) == QUEUED
    for _ in range(4):
        assert await vm.put(B) == IGNORED
    await vm.go()
    await vm.told("4 Rebooting, 5 Running")


@case(19, "a finished reboot makes room for the next")
async def _(vm: Arm) -> None:
    await run(vm)
    for last in (5, 7):
        assert await vm.put(B) == QUEUED
        await vm.told(f"{last - 1} Rebooting, {last} Running")


@case(20, "no reboot behind a stop, and a stop behind a reboot waits for it")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    assert await vm.put(B) == QUEUED
    assert await vm.put(S) == QUEUED
    assert await vm.put(B) == HALT_PENDING
    await vm.go()
    await vm.told("4 Rebooting, 5 Running, 6 Stopping, 7 Stopped, 8 Destroyed")


@case(21, "the reboot being over does not lift the denial")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    await vm.put(B)
    await vm.put(S)
    await vm.step()
    await vm.told("4 Rebooting, 5 Running")
    assert await vm.put(B) == HALT_PENDING
    await vm.go()
    await vm.told("6 Stopping, 7 Stopped, 8 Destroyed")


@case(22, "two stops are one, and deny the rest")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    assert await vm.put(S) == QUEUED
    assert await vm.put(S) == IGNORED
    assert await vm.put(R) == HALT_PENDING
    assert await vm.put(B) == HALT_PENDING
    await vm.go()
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


@case(23, "in the window after a stop everything but Stop is denied as Halted")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    await vm.put(S)
    await vm.step()
    assert await vm.put(R) == HALTED
    assert await vm.put(B) == HALTED
    assert await vm.put(S) == IGNORED
    await vm.reconfigure(1)
    assert await vm.reconfigured(1) == HALTED
    await vm.told("4 Stopping, 5 Stopped")
    await vm.go()
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


async def stopped(vm: Arm) -> None:
    await run(vm)
    await vm.put(S)
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


@case(24, "after Destroyed there is no instance, but its last state can be read")
async def _(vm: Arm) -> None:
    await stopped(vm)
    for kind in (R, S, B):
        assert await vm.put(kind) == NO_INSTANCE
    await vm.reconfigure(1)
    assert await vm.reconfigured(1) == NO_INSTANCE
    assert await vm.get() == "200 Destroyed"


@case(25, "after Destroyed the monitor tells the last value, and 410 to who wants more")
async def _(vm: Arm) -> None:
    await stopped(vm)
    for gen, answer in ((1, "200 6 Destroyed"), (6, "200 6 Destroyed"), (7, "410")):
        await vm.ask(f"m{gen}", gen)
        assert await vm.answered(f"m{gen}") == answer


@case(26, "a call that waits for generation 6 gets it")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.ask("m6", 6)
    assert await vm.answered("m6") is None
    await vm.put(S)
    assert await vm.answered("m6") == "200 6 Destroyed"


@case(27, "a guest that halts stops its VM; Run in the window is denied as Halted")
async def _(vm: Arm) -> None:
    for event in (GuestEvent.HALT, GuestEvent.CHIPSET_HALT):
        await run(vm)
        await vm.hold()
        await vm.guest(event)
        await vm.step()
        assert await vm.put(R) == HALTED
        assert await vm.put(S) == IGNORED
        await vm.go()
        await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


@case(28, "a reset reboots, and so does a triple fault")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.guest(GuestEvent.RESET)
    await vm.guest(GuestEvent.TRIPLE_FAULT)
    await vm.told("4 Rebooting, 5 Running, 6 Rebooting, 7 Running")


@case(29, "waiting chipset resets are one")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    for _ in range(3):
        await vm.guest(GuestEvent.CHIPSET_RESET)
    await vm.go()
    await vm.told("4 Rebooting, 5 Running")


@case(30, "a guest's halt comes before a waiting reboot, which is never executed")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    assert await vm.put(B) == QUEUED
    await vm.guest(GuestEvent.HALT)
    await vm.go()
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


@case(31, "a halt during a reboot is executed after it")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.pace(Point.REBOOT, FOR_EVER)
    await vm.put(B)
    await vm.guest(GuestEvent.HALT)
    await vm.told("4 Rebooting")
    await vm.settle()
    await vm.told("4 Rebooting, 5 Running, 6 Stopping, 7 Stopped, 8 Destroyed")


@case(32, "a guest's reset and a requested reboot are two")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    await vm.guest(GuestEvent.RESET)
    assert await vm.put(B) == QUEUED
    await vm.go()
    await vm.told("4 Rebooting, 5 Running, 6 Rebooting, 7 Running")


@case(33, "a guest's reboot sets no flag")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.pace(Point.REBOOT, FOR_EVER)
    await vm.guest(GuestEvent.RESET)
    assert await vm.put(B) == QUEUED
    await vm.pace(Point.REBOOT, Pace())
    await vm.settle()
    await vm.told("4 Rebooting, 5 Running, 6 Rebooting, 7 Running")


@case(34, "a guest's reset comes before a waiting stop")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    await vm.put(S)
    await vm.guest(GuestEvent.RESET)
    await vm.go()
    await vm.told("4 Rebooting, 5 Running, 6 Stopping, 7 Stopped, 8 Destroyed")


@case(35, "a migration out, and the target's view of it (49)")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await vm.another()
    assert await vm.migrate_to(target) == "accepted"
    await vm.told(MIGRATED_OUT)
    await target.told(MIGRATED_IN)


async def migrating(vm: Arm, point: Point = Point.M_DEVICE) -> Arm:
    """`M running`: the source is at this point of a migration, for ever."""
    target = await vm.another()
    await vm.pace(point, FOR_EVER)
    assert await vm.migrate_to(target) == "accepted"
    await vm.reached(point)
    await vm.pace(point, Pace())
    return target


async def failed_in_device(vm: Arm) -> None:
    """#36 up to gen 13."""
    await run(vm)
    target = await vm.another()
    await target.pace(Point.M_DEVICE, FOR_EVER)
    await vm.migrate_to(target)
    await vm.told(out_phases(4, UP_TO_DEVICE))
    await target.crash()
    await vm.told(out_phases(4, UP_TO_DEVICE) + ", 12 Migrating out=Error, 13 Running out=Error")


@case(36, "a target that drops in the Device phase gives the source its guest back")
async def _(vm: Arm) -> None:
    await failed_in_device(vm)


@case(37, "after a failed run, reboot and migration are open again")
async def _(vm: Arm) -> None:
    await failed_in_device(vm)
    assert await vm.put(B) == QUEUED
    await vm.told("14 Rebooting out=Error, 15 Running out=Error")
    assert await vm.migrate_to(await vm.another()) == "accepted"
    await vm.told(out_phases(16) + ", 29 Stopping out=Finish, 30 Destroyed out=Finish")


@case(38, "an unreadable offer fails the negotiation in one publication")
async def _(vm: Arm) -> None:
    await run(vm)
    assert await vm.migrate_raw("rubbish") == "dropped"
    await vm.told("4 Running out=Error")


@case(39, "after a failed negotiation the migration flag is stuck")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.migrate_raw("rubbish")
    assert await vm.put(B) == IS_SOURCE
    assert await vm.migrate_raw("propolis-migrate-ron/0") == "dropped"
    assert await vm.put(R) == IGNORED
    await vm.told("4 Running out=Error")
    assert await vm.put(S) == QUEUED
    await vm.told("5 Stopping out=Error, 6 Stopped out=Error, 7 Destroyed out=Error")


@case(40, "a migration may wait behind a reboot")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await vm.another()
    await vm.hold()
    assert await vm.put(B) == QUEUED
    assert await vm.migrate_to(target) == "accepted"
    await vm.go()
    await vm.told(
        "4 Rebooting, 5 Running, " + out_phases(6) + ", 19 Stopping out=Finish, 20 Destroyed out=Finish",
    )


@case(41, "no reboot behind a migration")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    assert await vm.migrate_to(await vm.another()) == "accepted"
    assert await vm.put(B) == IS_SOURCE


@case(42, "a second migration is dropped and does not disturb the first")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await migrating(vm)
    assert await vm.migrate_raw("propolis-migrate-ron/0") == "dropped"
    await vm.settle()
    await vm.told(MIGRATED_OUT)
    await target.told(MIGRATED_IN)


@case(43, "a stop during a migration that succeeds is lost")
async def _(vm: Arm) -> None:
    await run(vm)
    await migrating(vm)
    assert await vm.put(S) == QUEUED
    await vm.settle()
    await vm.told(MIGRATED_OUT)


BACK_IN_DEVICE = out_phases(4, UP_TO_DEVICE) + ", 12 Migrating out=Error, 13 Running out=Error"


@case(44, "a stop during a migration that fails is executed")
async def _(vm: Arm) -> None:
    await run(vm)
    await migrating(vm)
    assert await vm.put(S) == QUEUED
    await vm.settle(fail=True)
    await vm.told(BACK_IN_DEVICE + ", 14 Stopping out=Error, 15 Stopped out=Error, 16 Destroyed out=Error")


@case(45, "no migration behind a stop")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    await vm.put(S)
    assert await vm.migrate_raw("propolis-migrate-ron/0") == "dropped"
    await vm.go()
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")


@case(46, "in the window after a migration everything but Stop is denied as MigratedOut")
async def _(vm: Arm) -> None:
    await run(vm)
    await migrating(vm, Point.HALT)
    assert await vm.put(R) == HAS_LEFT
    assert await vm.put(B) == HAS_LEFT
    assert await vm.put(S) == IGNORED
    await vm.settle()
    await vm.told(MIGRATED_OUT)


@case(46, "Run during a migration is ignored")
async def _(vm: Arm) -> None:
    await run(vm)
    await migrating(vm)
    assert await vm.put(R) == IGNORED
    await vm.settle()
    await vm.told(MIGRATED_OUT)


@case(47, "a guest's halt during a migration that fails is executed afterwards")
async def _(vm: Arm) -> None:
    await run(vm)
    await migrating(vm, Point.M_RAM_PUSH)
    await vm.guest(GuestEvent.HALT)
    await vm.settle(fail=True)
    await vm.told(
        out_phases(4, 3)
        + ", 7 Migrating out=Error, 8 Running out=Error, 9 Stopping out=Error, 10 Stopped out=Error"
        + ", 11 Destroyed out=Error"
    )


@case(48, "a guest's halt during a migration that succeeds is discarded")
async def _(vm: Arm) -> None:
    await run(vm)
    await migrating(vm, Point.M_RAM_PUSH)
    await vm.guest(GuestEvent.HALT)
    await vm.settle()
    await vm.told(MIGRATED_OUT)


@case(49, "a migration in is 11 publications")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await vm.another()
    assert await target.ensure_target(vm) == "201"
    await target.told(MIGRATED_IN)


async def importing(vm: Arm, *, slow: bool) -> Arm:
    """A target in the middle of its import, with R, B, S asked for."""
    await run(vm)
    target = await vm.another()
    await target.pace(Point.M_DEVICE, FOR_EVER)
    if slow:
        await target.pace(Point.BACKENDS, FOR_EVER)
    assert await target.ensure_target(vm) == "201"
    await target.reached(Point.M_DEVICE)
    assert await target.put(R) == IGNORED
    assert await target.put(B) == START_IN_PROGRESS
    assert await target.put(S) == QUEUED
    await target.settle()
    return target


@case(50, "a stop during the import is executed after an instant auto-start")
async def _(vm: Arm) -> None:
    target = await importing(vm, slow=False)
    await target.told(MIGRATED_IN + ", 12 Stopping in=Finish, 13 Stopped in=Finish, 14 Destroyed in=Finish")


@case(51, "a stop during the import aborts a slow auto-start")
async def _(vm: Arm) -> None:
    target = await importing(vm, slow=True)
    await target.told(in_phases() + ", 11 Stopped in=Finish, 12 Destroyed in=Finish")


@case(52, "a source that cannot be reached fails the ensure, with Sync left to see")
async def _(vm: Arm) -> None:
    assert await vm.ensure_target(None) == "500"
    await vm.told("1 Migrating in=Sync, 2 Failed in=Sync")


@case(53, "a replacement that is not in the source's spec fails both sides in Sync")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await vm.another()
    assert await target.ensure_target(vm, bad_replacement=True) == "500"
    await target.told("1 Migrating in=Sync, 2 Migrating in=Sync, 3 Migrating in=Error, 4 Failed in=Error")
    await vm.told(
        "4 Migrating out=Sync, 5 Migrating out=Sync, 6 Migrating out=Error, 7 Running out=Error",
    )


@case(54, "a target that cannot create its objects keeps Sync as its last status")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await vm.another()
    await target.pace(Point.CREATE, FAILS)
    assert await target.ensure_target(vm) == "500"
    await target.told("1 Migrating in=Sync, 2 Migrating in=Sync, 3 Failed in=Sync")


@case(55, "a failed import is told as Failed twice, and loses the waiting stop")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await vm.another()
    await target.pace(Point.M_DEVICE, FOR_EVER)
    assert await target.ensure_target(vm) == "201"
    await target.reached(Point.M_DEVICE)
    assert await target.put(S) == QUEUED
    await target.settle(fail=True)
    await target.told(
        in_phases(7) + ", 8 Migrating in=Error, 9 Failed in=Error, 10 Failed in=Error",
    )
    await target.ask("m11", 11)
    assert await target.answered("m11") == "410"


@case(56, "an auto-start that fails is told at the end of the rundown")
async def _(vm: Arm) -> None:
    await run(vm)
    target = await vm.another()
    await target.pace(Point.BACKENDS, FAILS)
    assert await target.ensure_target(vm) == "201"
    await target.told(in_phases() + ", 11 Failed in=Finish")


@case(57, "a source that has no VM, or has not started it, refuses the target")
async def _(vm: Arm) -> None:
    target = await vm.another()
    assert await target.ensure_target(vm) == "500"
    await target.told("1 Migrating in=Sync, 2 Failed in=Sync")
    await vm.ensure()
    assert await target.ensure_target(vm) == "500"
    await target.told("1 Migrating in=Sync, 2 Failed in=Sync")
    await vm.told("1 Creating")


@case(58, "a VM that came by migration and leaves by another shows both")
async def _(vm: Arm) -> None:
    await run(vm)
    middle, last = await vm.another(), await vm.another()
    await middle.ensure_target(vm)
    assert await middle.migrate_to(last) == "accepted"
    await middle.told(
        ", ".join(f"{12 + i} Migrating in=Finish out={phase}" for i, phase in enumerate(PHASES_OUT))
        + ", 25 Stopping in=Finish out=Finish, 26 Destroyed in=Finish out=Finish"
    )


@case(59, "a second ensure is refused until the first VM is gone")
async def _(vm: Arm) -> None:
    await vm.pace(Point.CREATE, FOR_EVER)
    await vm.pace(Point.RUNDOWN, FOR_EVER)
    await vm.ensure_begin()
    assert await vm.ensure() == "409"
    await vm.settle()
    assert await vm.ensure_end() == "201"
    assert await vm.ensure() == "409"
    await vm.put(S)
    assert await vm.ensure() == "409"
    await vm.settle()
    await vm.told("1 Creating, 2 Stopping, 3 Stopped, 4 Destroyed")
    await vm.pace(Point.CREATE, Pace())
    assert await vm.ensure() == "201"
    await vm.told("1 Creating")


@case(61, "a volume can be reconfigured before the start")
async def _(vm: Arm) -> None:
    await vm.ensure()
    await vm.reconfigure(1)
    assert await vm.reconfigured(1) == "200"
    await vm.told("1 Creating")


@case(62, "a volume can be reconfigured while the start waits for backends")
async def _(vm: Arm) -> None:
    await start_slowly(vm)
    await vm.reconfigure(1)
    assert await vm.reconfigured(1) == "200"
    await vm.told("2 Starting")
    await vm.settle()
    await vm.told("2 Starting, 3 Running")


@case(63, "state requests come before component requests")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.pace(Point.RECONFIGURE, FOR_EVER)
    await vm.hold()
    await vm.reconfigure(1)
    await vm.reconfigure(2)
    assert await vm.put(B) == QUEUED
    await vm.go()
    await vm.told("4 Rebooting, 5 Running")
    for ticket in (1, 2):
        await vm.settle()
        assert await vm.reconfigured(ticket) == "200"


@case(64, "a reconfigure behind a stop is answered 410")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.hold()
    await vm.reconfigure(1)
    await vm.put(S)
    await vm.go()
    await vm.told("4 Stopping, 5 Stopped, 6 Destroyed")
    assert await vm.reconfigured(1) == "410"


@case(65, "a reconfigure waits for the end of a migration")
async def _(vm: Arm) -> None:
    for fail, answer in ((True, "200"), (False, "410")):
        await run(vm)
        await migrating(vm)
        await vm.reconfigure(1)
        await vm.settle(fail=fail)
        assert await vm.reconfigured(1) == answer
        if fail:
            await vm.told(BACK_IN_DEVICE)
            await vm.put(S)


@case(67, "a slow client never sees Starting")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.ask("m", 2)
    assert await vm.answered("m") == "200 3 Running"


@case(68, "a stale generation waits for the new VM to get there")
async def _(vm: Arm) -> None:
    await stopped(vm)
    await vm.ensure()
    await vm.ask("m7", 7)
    await vm.put(R)
    await vm.put(B)
    assert await vm.answered("m7") is None
    await vm.put(B)
    assert await vm.answered("m7") == "200 7 Running"


@case(69, "a migration asked for during a start runs after it")
async def _(vm: Arm) -> None:
    await start_slowly(vm)
    target = await vm.another()
    assert await vm.migrate_to(target) == "accepted"
    await vm.told("2 Starting")
    await vm.settle()
    await vm.told("2 Starting, 3 Running, " + MIGRATED_OUT)
    await target.told(MIGRATED_IN)


@case(69, "with the strict hazard a migration asked for during a start aborts the process")
async def _(vm: Arm) -> None:
    await vm.strict()
    await start_slowly(vm)
    await vm.migrate_to(await vm.another())
    assert await vm.get() == NO_INSTANCE


@case(70, "a process that dies forgets its VM")
async def _(vm: Arm) -> None:
    await run(vm)
    await vm.crash()
    await vm.ask("m", 0)
    assert await vm.answered("m") == NO_INSTANCE
    assert await vm.put(S) == NO_INSTANCE
    assert await vm.ensure() == "201"
    await vm.told("1 Creating")
