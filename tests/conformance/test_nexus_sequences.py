"""The sequences of NX 8 as golden traces: what is asked, called, reported and shown, in order.

A trace is the timeline of one instance, VMMs named V, W, X in the order of their records. They lie in
tests/data/nexus-sequences; `SIM_SLED_UPDATE=1` writes them anew, for review when one has to change.
"""

import os
import re
from pathlib import Path

from support.nexus.world import GONE, World, report

from nexus_client.stub.config import SECOND_US
from nexus_client.stub.contract import ArmCrash, Boot, CrashPoint, NoConnection, RunTask, Task
from nexus_client.types import MigrationState, VmmState

FOLDER = Path(__file__).parents[1] / "data" / "nexus-sequences"
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


def same(world, instance_id, name):
    """The timeline is that of the golden file `name`."""
    golden, got = FOLDER / f"{name}.trace", trace(world, instance_id) + "\n"
    if os.environ.get("SIM_SLED_UPDATE"):
        golden.write_text(got)
    assert got.splitlines() == golden.read_text().splitlines(), "run with SIM_SLED_UPDATE=1"


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
    same(world, web, "8.1-create-and-start")


def test_8_1_the_running_request_fails():
    world = World.make(**OFF)
    web = world.create()
    world.answer(world.calls[0])
    world.answer(world.calls[0], NoConnection())
    world.settle()
    world.ask(RunTask, Task.REAPER)
    same(world, web, "8.1-the-running-request-fails")


def test_8_2_stop():
    world = World.make(**OFF)
    web = world.running()
    since(world, web)
    world.stop(web)
    world.settle()
    same(world, web, "8.2-stop")


def test_8_3_reboot():
    world = World.make(**OFF)
    web = world.running()
    since(world, web)
    world.reboot(web)
    world.settle()
    same(world, web, "8.3-reboot")


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
    same(world, web, "8.4-migration-the-source-reports-first")


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
    same(world, web, "8.4-migration-the-target-reports-first")


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
    same(world, web, "8.5-migration-fails-on-the-target")


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
    same(world, web, "8.6-migration-fails-on-the-source")


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
    same(world, web, "8.7-the-sled-notices-the-failure-and-the-instance-restarts")


def test_8_7_the_sled_forgot_the_vmm():
    world = World.make(**(OFF | {"watcher_period_us": 30 * SECOND_US}))
    web = world.running(auto_restart_policy="never")
    since(world, web)
    sled, vmm = world.fake(world.active(web).id)
    sled.lose(vmm.id)
    world.wait(31 * SECOND_US)
    world.answer(world.calls[0], GONE)
    same(world, web, "8.7-the-sled-forgot-the-vmm")


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
    assert world.row(web).active_propolis_id is None
    same(world, web, "8.8-nexus-is-down-during-a-transition")


def test_every_golden_file_is_the_trace_of_a_sequence():
    used = set(re.findall(r'same\([^)]*"([^"]+)"\)', Path(__file__).read_text()))
    assert {path.stem for path in FOLDER.glob("*.trace")} == used
