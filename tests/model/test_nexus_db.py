"""Records that survive, as a property: whatever people, sleds and guests do, and after whichever writes Nexus dies,
what comes of it in the end is what comes of it undisturbed (NX 5.3).

In the end everybody insists: who got no answer asks again. Until then each asks once, and much is under way.
"""

import tempfile
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.nexus.stored import end_of, stored, until
from support.nexus.world import sled_id, sled_info
from support.profile import by_profile
from support.rows import in_one_test

from nexus_client.stub.config import SagaMode
from nexus_client.stub.contract import AttachIp, CreateInstance, DetachIp, IpKind, Migrate, RunTask, SledPosted, Task
from nexus_client.stub.records import InvariantBroken
from nexus_client.stub.server import store

NAMES = ("a", "b")
ADDRESS = {"a": "203.0.113.1", "b": "203.0.113.2"}
NAME, SLED, INDEX = st.sampled_from(NAMES), st.sampled_from([1, 2]), st.integers(0, 30)
DEEDS = st.one_of(
    st.tuples(
        st.sampled_from(["create", "start", "stop", "reboot", "delete", "dies", "lost", "attach", "detach"]), NAME
    ),
    st.tuples(st.just("migrate"), NAME, SLED),
    st.tuples(st.just("registers again"), SLED, st.integers(1, 3)),
    st.tuples(st.just("straggler"), INDEX),
    st.tuples(st.just("task"), st.sampled_from(Task)),
    st.tuples(st.just("wait"), st.sampled_from([10_000, 1_000_000, 61_000_000])),
)
RUNS = st.lists(st.tuples(DEEDS, st.lists(INDEX, max_size=12)), min_size=1, max_size=8)
"""What is done, and which of what is then on its way arrives before the next."""
ENDS = st.tuples(st.sampled_from(["runs", "stopped", "gone"]), SLED, st.booleans())
"""What somebody insists on: the state, where it runs, whether it has its address."""


def do(world, deed):
    match deed:
        case ("create", name):
            if world.nexus.find(name) is None:
                world.ask(CreateInstance, name, name)
        case ("start" | "stop" | "reboot" | "delete" as verb, name):
            if (row := world.nexus.find(name)) is not None:
                getattr(world, verb)(row.id)
        case ("dies" | "lost" as how, name):
            row = world.nexus.find(name)
            on_sleds = [(sled, key) for sled in world.sleds.values() for key in sled.vmms]
            for sled, key in on_sleds if row is not None else ():
                if key == row.active_propolis_id:
                    (sled.fail if how == "dies" else sled.lose)(key)
        case ("attach", name):
            if (row := world.nexus.find(name)) is not None:
                world.ask(AttachIp, row.id, IpKind.FLOATING, ADDRESS[name])
        case ("detach", name):
            if (row := world.nexus.find(name)) is not None:
                world.ask(DetachIp, row.id, IpKind.FLOATING, ADDRESS[name])
        case ("migrate", name, number):
            if (row := world.nexus.find(name)) is not None:
                world.ask(Migrate, row.id, sled_id(number))
        case ("registers again", number, generation):
            world.ask(SledPosted, sled_id(number), sled_info(number, generation))
        case ("straggler", index):
            if world.sent:
                world.report(*world.sent[index % len(world.sent)])
        case ("task", task):
            world.ask(RunTask, task)
        case ("wait", us):
            world.wait(us)


def flow(world, choices):
    """Some of what is on its way arrives, and some VMMs go on, in this order."""
    for choice in choices:
        ways = [(world.answer, (call,)) for call in world.calls]
        ways += [(world.deliver, pair) for pair in world.waiting_reports()]
        ways += [(sled.step, (vmm.id,)) for sled in world.sleds.values() for vmm in sled.vmms.values() if vmm.plan]
        if not ways:
            return
        act, arguments = ways[choice % len(ways)]
        act(*arguments)


def insist(world, name, end):
    """Asks until it is so."""
    state, number, has_address = end
    row = lambda: world.nexus.find(name)  # noqa: E731 -- the record of now, each time
    public = lambda: None if row() is None else world.public(row().id)  # noqa: E731

    def runs_there():
        return public() == "running" and world.active(row().id).sled_id == sled_id(number)

    def run_there():
        if row() is None:
            world.ask(CreateInstance, name, name)
        elif public() == "running":
            world.ask(Migrate, row().id, sled_id(number))
        else:
            world.start(row().id)

    def addressed():
        return [ip for ip in world.nexus.records.external_ips.values() if ip.address == ADDRESS[name]]

    def exists():
        until(world, lambda: row() is not None, lambda: world.ask(CreateInstance, name, name))

    exists()
    if state == "runs":
        until(world, runs_there, run_there)
    else:
        until(world, lambda: public() == "stopped", lambda: world.stop(row().id))
    change = AttachIp if has_address else DetachIp
    until(
        world,
        lambda: bool(addressed()) is has_address,
        lambda: world.ask(change, row().id, IpKind.FLOATING, ADDRESS[name]),
    )
    if state == "gone":
        until(world, lambda: row() is None, lambda: world.delete(row().id))


def play(folder, mode, run, ends, dies_after=()):
    """The end of a run, and how many writes it took."""
    world = stored(Path(folder) / f"{len(list(Path(folder).iterdir()))}.db", mode, dies_after)
    try:
        for deed, choices in run:
            do(world, deed)
            flow(world, choices)
        world.rest()
        for name, end in zip(NAMES, ends, strict=True):
            insist(world, name, end)
        world.rest()
        assert not world.nexus.broken
        return end_of(world), world.writes
    finally:
        world.store.close()


@given(
    mode=st.sampled_from([SagaMode.INLINE, SagaMode.QUEUED]),
    run=RUNS,
    ends=st.tuples(ENDS, ENDS),
    moments=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
@pytest.mark.nightly
@settings(max_examples=by_profile(20, nightly=500), deadline=None)
def test_whenever_nexus_dies_the_end_is_that_of_the_undisturbed_run(mode, run, ends, moments):
    with tempfile.TemporaryDirectory() as folder:
        end, writes = play(folder, mode, run, ends)
        dies_after = {1 + int(moment * (writes - 1)) for moment in moments}
        assert play(folder, mode, run, ends, dies_after)[0] == end


BUSY = [
    (("create", "a"), range(20)),
    (("attach", "a"), range(9)),
    (("migrate", "a", 2), range(3)),
]
"""A run in which each table matters."""
BUSY_ENDS = (("runs", 1, True), ("stopped", 1, False))


@cache
def undisturbed():
    with tempfile.TemporaryDirectory() as folder:
        return play(folder, SagaMode.INLINE, BUSY, BUSY_ENDS)


@in_one_test("table", store.TABLES)
def test_a_file_that_keeps_nothing_of_one_table_is_noticed(table, tmp_path):
    """The judge itself."""
    end, writes = undisturbed()
    with mock.patch.object(store.Store, "_write", all_but(table, store.Store._write)):
        assert a_death_is_noticed(tmp_path, writes, end), f"nobody misses {table}"


def all_but(table, write):
    return lambda self, name, *row: name == table or write(self, name, *row)


def a_death_is_noticed(folder, writes, end):
    """Whether a death after some write, the last ones first, comes to another end, or to none."""
    for dies_after in range(writes, 0, -1):
        try:
            if play(folder, SagaMode.INLINE, BUSY, BUSY_ENDS, {dies_after})[0] != end:
                return True
        except (AssertionError, AttributeError, LookupError, InvariantBroken):
            return True
    return False
