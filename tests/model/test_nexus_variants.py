"""Each wrong variant breaks a named property in a short program; the right model does the same program unharmed.

The programs are what hypothesis shrank the searches of test_nexus_properties.py to, written down by hand.
"""

import pytest
from support.nexus.world import BAD, GONE, World, report
from support.rows import in_one_test

from nexus_client.stub.config import SECOND_US, SagaMode
from nexus_client.stub.contract import ArmCrash, Boot, CrashPoint, Delete, RunTask, Task
from nexus_client.stub.properties import Checker, PropertyBroken
from nexus_client.stub.records import InvariantBroken
from nexus_client.stub.variants import VARIANTS
from nexus_client.types import MigrationState, VmmState

S, M = VmmState, MigrationState


def begin(variant, **config):
    world = World.make(variant=variant, **config)
    world.checker = Checker(world.nexus)
    return world


def at_rest(world, lost=()):
    world.rest()
    world.checker.must(world.checker.at_rest(lost))


def a_vmm_is_lost(variant):
    world = begin(variant)
    web = world.running(auto_restart_policy="never")
    sled, vmm = world.fake(world.active(web).id)
    sled.lose(vmm.id)
    at_rest(world, [vmm.id])


def an_update_is_lost_in_a_crash(variant):
    world = begin(variant)
    web = world.running(auto_restart_policy="never")
    world.ask(ArmCrash, CrashPoint.AFTER_COMMIT)
    world.stop(web)
    world.settle()
    assert not world.nexus.up
    world.do(Boot())
    at_rest(world)


def an_instance_migrates(variant):
    world = begin(variant)
    web = world.running()
    world.migrate(web)
    at_rest(world)
    assert world.public(web) == "running"


def a_migration_completes_while_its_source_still_stops(variant):
    world = begin(variant)
    web = world.running()
    world.migrate(web)
    while world.calls:
        world.answer(world.calls[0])
    target = world.row(web).target_propolis_id
    (source_sled, source), (target_sled, _) = world.fake(world.active(web).id), world.fake(target)
    for _ in range(2):
        source_sled.step(source.id)
        target_sled.step(target)
    for sled, vmm in world.waiting_reports():
        world.deliver(sled, vmm)
    at_rest(world)
    assert world.active(web).id == target


def a_report_is_repeated(variant):
    world = begin(variant)
    web = world.running()
    vmm = world.active(web)
    for _ in range(2):
        world.report(vmm.id, report(S.RUNNING, 3))


def a_vmm_is_destroyed_and_the_saga_takes_its_time(variant):
    world = begin(variant, saga_mode=SagaMode.QUEUED)
    web = world.running()
    world.report(world.active(web).id, report(S.DESTROYED, 50))
    world.wait(SECOND_US)


def two_sagas_run_at_once(variant):
    world = begin(variant, saga_mode=SagaMode.QUEUED)
    web = world.running()
    vmm = world.active(web)
    world.report(vmm.id, report(S.DESTROYED, 50))
    world.report(vmm.id, report(S.DESTROYED, 51))
    world.wait(SECOND_US)


def a_stopped_instance_fails(variant):
    world = begin(variant)
    web = world.running()
    world.stop(web)
    world.answer(world.calls[0], GONE)
    world.wait(SECOND_US)


def a_running_instance_is_deleted(variant):
    world = begin(variant)
    web = world.running()
    world.ask(Delete, web)


def a_start_unwinds(variant):
    world = begin(variant)
    world.create()
    world.answer(world.calls[0], BAD)
    world.ask(RunTask, Task.REAPER)
    at_rest(world)


def a_vmm_fails(variant):
    world = begin(variant)
    web = world.running()
    world.report(world.active(web).id, report(S.FAILED, 50))


PROGRAMS = [
    ("no-watcher", a_vmm_is_lost, 36),
    ("no-updater", an_update_is_lost_in_a_crash, 36),
    ("source-wins", a_migration_completes_while_its_source_still_stops, 41),
    ("forgets-migration", an_instance_migrates, 40),
    ("accepts-equal-generation", a_report_is_repeated, 33),
    ("stopped-too-early", a_vmm_is_destroyed_and_the_saga_takes_its_time, 38),
    ("unlocked-saga", two_sagas_run_at_once, 35),
    ("restarts-stopped", a_stopped_instance_fails, 46),
    ("deletes-running", a_running_instance_is_deleted, 47),
    ("lazy-reaper", a_start_unwinds, 43),
    ("failed-is-stopped", a_vmm_fails, 37),
]


@in_one_test(("variant", "program", "prop"), PROGRAMS, ids=[row[0] for row in PROGRAMS])
def test_a_short_program_breaks_the_variant(variant, program, prop):
    with pytest.raises((PropertyBroken, InvariantBroken)) as broken:
        program(variant)
    assert broken.value.prop == prop
    assert prop in VARIANTS[variant].breaks


@in_one_test(
    "program",
    sorted({row[1] for row in PROGRAMS}, key=lambda program: program.__name__),
    ids=lambda program: program.__name__,
)
def test_the_right_model_does_the_same_unharmed(program):
    program(None)


def test_every_variant_has_its_program():
    assert {row[0] for row in PROGRAMS} == set(VARIANTS)
    assert len(VARIANTS) >= 6


def test_the_checker_looks_at_every_property():
    """One life with everything in it: no property is left unasked."""
    world = begin(None)
    web = world.running()
    world.reboot(web)
    world.settle()
    world.migrate(web)
    world.settle()
    world.report(*world.sent[0])
    at_rest(world)
    other = world.running("other")
    world.migrate(other, 1 if world.active(other).sled_id.int & 1 == 0 else 2)
    while world.calls:
        world.answer(world.calls[0])
    target = world.row(other).target_propolis_id
    sled, vmm = world.fake(target)
    sled.fail(vmm.id)
    at_rest(world)
    assert world.public(other) == "running"
    for key in (web, other):
        sled, vmm = world.fake(world.active(key).id)
        sled.fail(vmm.id)
    at_rest(world)
    world.wait(301 * SECOND_US)
    for key in (web, other):
        sled, vmm = world.fake(world.active(key).id)
        sled.fail(vmm.id)
    at_rest(world)
    world.stop(web)
    at_rest(world)
    world.ask(Delete, web)
    never = [prop for prop, times in world.checker.checked.items() if not times]
    assert not never
