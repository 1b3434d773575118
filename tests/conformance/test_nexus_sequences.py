"""The sequences of NX 8 as golden traces: what is asked, called, reported and shown, in order.

A trace is the timeline of one instance, VMMs named V, W, X in the order of their records. `SIM_SLED_SHOW_TRACES=1`
prints what was recorded, for review when a golden trace has to change.
"""

import os

import attrs
from support.nexus.world import GONE, World, report

from nexus_client.stub.config import SECOND_US
from nexus_client.stub.contract import ArmCrash, Boot, CrashPoint, NoConnection, RunTask, Task
from nexus_client.types import MigrationState, VmmState

S, M = VmmState, MigrationState
OFF = {
    "watcher_period_us": None,
    "updater_period_us": None,
    "reaper_period_us": None,
    "reincarnation_period_us": None,
}


def trace(world, instance_id):
    """The timeline, with names instead of ids; what restates the line before it is left out."""
    text = "\n".join(
        f"{line.what:8} {_name(world, line.propolis_id):1} {line.text}".rstrip()
        for line in world.nexus.timeline(instance_id)
        if line.what != "commit"
    )
    for number, sled in enumerate(world.sleds, 1):
        text = text.replace(str(sled), f"sled {number}")
    return text


def _name(world, propolis_id):
    known = list(world.nexus.records.vmms)
    return "VWX"[known.index(propolis_id)] if propolis_id in known else ""


def same(world, instance_id, golden):
    got = trace(world, instance_id)
    if os.environ.get("SIM_SLED_SHOW_TRACES"):
        print("\n" + got)
    assert got.splitlines() == golden.strip("\n").splitlines()


def since(world, instance_id):
    """Forget the timeline so far: the sequence begins here."""
    world.nexus._ctx.timelines[instance_id].clear()


def step(world, propolis_id):
    sled, _ = world.fake(propolis_id)
    sled.step(propolis_id)


def tell(world, propolis_id):
    world.deliver(*world.fake(propolis_id))


def test_8_1_create_and_start():
    world = World.make(**OFF)
    web = world.create()
    world.settle()
    same(
        world,
        web,
        """
asked      create and start
public     creating
saga       instance-create begins
public     stopped
saga       instance-start begins
public   V starting
called   V register (starting, gen 2)
returned V register: ok, starting gen 2
record   V starting gen 2
called   V state running
returned V run: ok, starting gen 2
saga       instance-start ends
saga       instance-create ends
reported V running gen 3
record   V running gen 3
public   V running
""",
    )


def test_8_1_the_running_request_fails():
    world = World.make(**OFF)
    web = world.create()
    world.answer(world.calls[0])
    world.answer(world.calls[0], NoConnection())
    world.settle()
    world.ask(RunTask, Task.REAPER)
    same(
        world,
        web,
        """
asked      create and start
public     creating
saga       instance-create begins
public     stopped
saga       instance-start begins
public   V starting
called   V register (starting, gen 2)
returned V register: ok, starting gen 2
record   V starting gen 2
called   V state running
returned V run: no connection: connection refused
saga     V instance-start unwinds from run: connection refused
called   V unregister
returned V undo of register: ok, failed gen 3
public     stopped
record   V saga_unwound gen 3
saga       instance-start has unwound
saga       instance-create ends
task     V abandoned VMM is reaped
record   V VMM record deleted
""",
    )


def test_8_2_stop():
    world = World.make(**OFF)
    web = world.running()
    since(world, web)
    world.stop(web)
    world.settle()
    same(
        world,
        web,
        """
asked      stop
called   V state stopped
returned V ok, stopping gen 4
record   V stopping gen 4
public   V stopping
reported V stopping gen 4
reported V stopping gen 5
record   V stopping gen 5
reported V destroyed gen 6
record   V destroyed gen 6
saga       instance-update begins
public     stopped
record   V VMM record deleted
saga       instance-update ends
""",
    )


def test_8_3_reboot():
    world = World.make(**OFF)
    web = world.running()
    since(world, web)
    world.reboot(web)
    world.settle()
    same(
        world,
        web,
        """
asked      reboot
called   V state reboot
returned V ok, rebooting gen 4
record   V rebooting gen 4
public   V rebooting
reported V rebooting gen 4
reported V rebooting gen 5
record   V rebooting gen 5
reported V running gen 6
record   V running gen 6
public   V running
""",
    )


def moving(world, web):
    since(world, web)
    world.migrate(web)
    while world.calls:
        world.answer(world.calls[0])
    row = world.row(web)
    return row.active_propolis_id, row.target_propolis_id


def test_8_4_migration_the_source_reports_first():
    world = World.make(**OFF)
    web = world.running()
    source, target = moving(world, web)
    for key in (source, target, source):
        step(world, key)
        tell(world, key)
    step(world, source)
    tell(world, source)
    step(world, target)
    tell(world, target)
    world.ask(RunTask, Task.REAPER)
    same(
        world,
        web,
        """
asked      migrate to sled 2
saga       instance-migrate begins
public   V migrating
called   W register (migrating, gen 2)
returned W register on target: ok, migrating gen 2, in pending gen 1
record   W migrating gen 2
called   W state migration_target from [fd00:1122:3344:101::1:1]:12400
returned W migrate in: ok, migrating gen 2, in pending gen 1
saga       instance-migrate ends
reported V migrating gen 4, out in_progress gen 2
record   V migrating gen 4
record   V migration source in_progress gen 2
reported W migrating gen 2, in in_progress gen 2
record   W migration target in_progress gen 2
reported V stopping gen 5, out completed gen 3
record   V stopping gen 5
record   V migration source completed gen 3
saga       instance-update begins
saga       instance-update ends
reported V destroyed gen 6, out completed gen 3
record   V destroyed gen 6
saga       instance-update begins
saga       instance-update has nothing to do
saga       instance-update ends
reported W running gen 3, in completed gen 3
record   W running gen 3
record   W migration target completed gen 3
saga       instance-update begins
public   W running
saga       instance-update ends
task     V abandoned VMM is reaped
record   V VMM record deleted
""",
    )


def test_8_4_migration_the_target_reports_first():
    world = World.make(**OFF)
    web = world.running()
    source, target = moving(world, web)
    for key in (source, target, source, target):
        step(world, key)
    tell(world, target)
    tell(world, source)
    step(world, source)
    tell(world, source)
    world.ask(RunTask, Task.REAPER)
    same(
        world,
        web,
        """
asked      migrate to sled 2
saga       instance-migrate begins
public   V migrating
called   W register (migrating, gen 2)
returned W register on target: ok, migrating gen 2, in pending gen 1
record   W migrating gen 2
called   W state migration_target from [fd00:1122:3344:101::1:1]:12400
returned W migrate in: ok, migrating gen 2, in pending gen 1
saga       instance-migrate ends
reported W running gen 3, in completed gen 3
record   W running gen 3
record   W migration target completed gen 3
saga       instance-update begins
public   W running
saga       instance-update ends
reported V stopping gen 5, out completed gen 3
record   V stopping gen 5
record   V migration source completed gen 3
saga       instance-update begins
saga       instance-update has nothing to do
saga       instance-update ends
reported V destroyed gen 6, out completed gen 3
record   V destroyed gen 6
saga       instance-update begins
saga       instance-update has nothing to do
saga       instance-update ends
task     V abandoned VMM is reaped
record   V VMM record deleted
""",
    )


def test_8_5_migration_fails_on_the_target():
    world = World.make(**OFF)
    web = world.running()
    source, target = moving(world, web)
    for key in (source, target):
        step(world, key)
        tell(world, key)
    sled, vmm = world.fake(target)
    sled.fail(target)
    world.deliver(sled, vmm)
    step(world, source)
    tell(world, source)
    assert world.public(web) == "running"
    same(
        world,
        web,
        """
asked      migrate to sled 2
saga       instance-migrate begins
public   V migrating
called   W register (migrating, gen 2)
returned W register on target: ok, migrating gen 2, in pending gen 1
record   W migrating gen 2
called   W state migration_target from [fd00:1122:3344:101::1:1]:12400
returned W migrate in: ok, migrating gen 2, in pending gen 1
saga       instance-migrate ends
reported V migrating gen 4, out in_progress gen 2
record   V migrating gen 4
record   V migration source in_progress gen 2
reported W migrating gen 2, in in_progress gen 2
record   W migration target in_progress gen 2
reported W failed gen 3, in failed gen 3
record   W failed gen 3
record   W migration target failed gen 3
saga       instance-update begins
record   W VMM record deleted
saga       instance-update ends
reported V running gen 5, out failed gen 3
record   V running gen 5
public   V running
record   V migration source failed gen 3
saga       instance-update begins
saga       instance-update has nothing to do
saga       instance-update ends
""",
    )


def test_8_6_migration_fails_on_the_source():
    world = World.make(**OFF)
    web = world.running(auto_restart_policy="never")
    source, target = moving(world, web)
    for key in (source, target):
        step(world, key)
        tell(world, key)
    sled, vmm = world.fake(source)
    sled.fail(source)
    world.deliver(sled, vmm)
    sled, vmm = world.fake(target)
    sled.fail(target)
    world.deliver(sled, vmm)
    world.ask(RunTask, Task.REAPER)
    assert world.public(web) == "failed"
    same(
        world,
        web,
        """
asked      migrate to sled 2
saga       instance-migrate begins
public   V migrating
called   W register (migrating, gen 2)
returned W register on target: ok, migrating gen 2, in pending gen 1
record   W migrating gen 2
called   W state migration_target from [fd00:1122:3344:101::1:1]:12400
returned W migrate in: ok, migrating gen 2, in pending gen 1
saga       instance-migrate ends
reported V migrating gen 4, out in_progress gen 2
record   V migrating gen 4
record   V migration source in_progress gen 2
reported W migrating gen 2, in in_progress gen 2
record   W migration target in_progress gen 2
reported V failed gen 5, out failed gen 3
record   V failed gen 5
record   V migration source failed gen 3
saga       instance-update begins
public     failed
record   V VMM record deleted
saga       instance-update ends
reported W failed gen 3, in failed gen 3
record   W failed gen 3
record   W migration target failed gen 3
saga       instance-update begins
saga       instance-update has nothing to do
saga       instance-update ends
task     W abandoned VMM is reaped
record   W VMM record deleted
""",
    )


def test_8_6_only_the_attempt_failed():
    """V lives, W is orphaned until it reports a terminal state."""
    world = World.make(**OFF)
    web = world.running()
    source, target = moving(world, web)
    migration = world.row(web).migration_id
    world.report(source, report(S.RUNNING, 50, out=(migration, M.FAILED, 3)))
    assert world.public(web) == "running"
    assert world.active(web).id == source
    world.ask(RunTask, Task.REAPER)
    assert world.nexus.records.vmms[target].time_deleted is None
    world.report(target, report(S.FAILED, 50, into=(migration, M.FAILED, 3)))
    world.ask(RunTask, Task.REAPER)
    assert world.nexus.records.vmms[target].time_deleted is not None


def test_8_7_the_sled_notices_the_failure_and_the_instance_restarts():
    world = World.make(**OFF)
    web = world.running()
    since(world, web)
    sled, vmm = world.fake(world.active(web).id)
    sled.fail(vmm.id)
    world.settle()
    world.wait(SECOND_US)
    world.settle()
    same(
        world,
        web,
        """
reported V failed gen 4
record   V failed gen 4
public   V stopping
saga       instance-update begins
public     failed
record   V VMM record deleted
saga       instance-update ends
task       auto-restart
saga       instance-start begins
public   W starting
called   W register (starting, gen 2)
returned W register: ok, starting gen 2
record   W starting gen 2
called   W state running
returned W run: ok, starting gen 2
saga       instance-start ends
reported W running gen 3
record   W running gen 3
public   W running
""",
    )


def test_8_7_the_sled_forgot_the_vmm():
    world = World.make(**(OFF | {"watcher_period_us": 30 * SECOND_US}))
    web = world.running(auto_restart_policy="never")
    since(world, web)
    sled, vmm = world.fake(world.active(web).id)
    sled.lose(vmm.id)
    world.wait(31 * SECOND_US)
    world.answer(world.calls[0], GONE)
    same(
        world,
        web,
        """
called   V get state
task     V health check: no_such_instance
record   V failed gen 4
public   V stopping
saga       instance-update begins
public     failed
record   V VMM record deleted
saga       instance-update ends
""",
    )


def test_8_8_nexus_is_down_during_a_transition():
    world = World.make()
    web = world.running()
    since(world, web)
    world.stop(web)
    world.answer(world.calls[0])
    vmm = world.active(web).id
    step(world, vmm)
    step(world, vmm)  # nobody hears of the state before
    world.ask(ArmCrash, CrashPoint.AFTER_COMMIT)
    tell(world, vmm)
    world.do(Boot())
    tell(world, vmm)  # the sled has had no answer
    assert world.public(web) == "stopping"
    world.wait(31 * SECOND_US)
    assert attrs.asdict(world.row(web))["active_propolis_id"] is None
    same(
        world,
        web,
        """
asked      stop
called   V state stopped
returned V ok, stopping gen 4
record   V stopping gen 4
public   V stopping
reported V destroyed gen 6
record   V destroyed gen 6
reported V destroyed gen 6
saga       instance-update begins
public     stopped
record   V VMM record deleted
saga       instance-update ends
""",
    )
