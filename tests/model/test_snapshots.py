"""A life that is written down at any of its moments and taken up again is the same life: same lines, same times.

The closed world has everything in it that lives by a clock: sleds, Propolis, reports, rules, the model, users.
"""

import json
import os
from functools import cache
from pathlib import Path

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.profile import by_profile
from support.rows import in_one_test

from nexus_client.dropshot.text import U64, Scalar
from sim_sled.daemon.graph import BadTable, CannotKeep, pack, program, unpack
from sim_sled.language.check import load_scenarios
from sim_sled.play.virtual import World


@cache
def scenario_of(path):
    [loaded, *_], problems = load_scenarios([str(path)])
    assert loaded.scenario is not None, problems.text()
    return loaded.scenario


def _has_tasks(path):
    """Whether its load does what Nexus does beside VMMs: a task under way is a generator, which no file holds."""
    return any(entry.task is not None for entry in scenario_of(path).load)


SCENARIOS = sorted(Path("scenarios").glob("*.yaml"))
STEPS = by_profile(200, nightly=400)
"""Played on after the snapshot."""


def lives(path, seed, at):
    """A life up to its step `at`, and the same one out of a file."""
    world = World(scenario_of(path), seed)
    world.begin()
    for _ in range(at):
        world.step()
    return world, through_a_file(world)


def through_a_file(value, anchors=None):
    return unpack(json.loads(json.dumps(pack(value, anchors or {}))), anchors or {})


@pytest.mark.nightly
@settings(max_examples=by_profile(10, nightly=200))
@given(
    path=st.sampled_from(SCENARIOS).filter(lambda path: not _has_tasks(path)),
    seed=st.integers(0, 10),
    at=st.integers(0, 1_500),
)
def test_restored_at_any_moment_a_life_goes_on_as_if_undisturbed(path, seed, at):
    undisturbed, restored = lives(path, seed, at)
    for _ in range(STEPS):
        assert undisturbed.step() == restored.step()
    assert list(map(str, restored.lines)) == list(map(str, undisturbed.lines))
    assert restored.next_us() == undisturbed.next_us()


def test_a_task_under_way_is_refused_by_name_and_nothing_is_kept_by_halves():
    """Daemons keep snapshots, and daemons play no tasks; a world that does says what it cannot keep."""
    path = next(each for each in SCENARIOS if each.stem == "bundle-half-way")
    with pytest.raises(CannotKeep, match=r"a builtins\.generator cannot be kept in a file, and hangs at .*<steps>"):
        lives(path, 0, 1)


def test_the_judge_is_proven_a_lost_timer_is_noticed():
    """What the property above holds would be worth nothing if it could not see one timer gone."""
    path = next(each for each in SCENARIOS if each.stem == "stuck-stop")
    undisturbed, restored = lives(path, 1, 40)
    assert restored.engine is not undisturbed.engine
    restored.conductor._heap.pop()
    for world in (undisturbed, restored):
        for _ in range(STEPS):
            world.step()
    assert list(map(str, restored.lines)) != list(map(str, undisturbed.lines))


def test_nothing_is_shared_between_the_two():
    path = next(each for each in SCENARIOS if each.stem == "stuck-stop")
    undisturbed, restored = lives(path, 1, 50)
    before = json.dumps(pack(undisturbed, {}))
    for _ in range(STEPS):
        restored.step()
    assert json.dumps(pack(undisturbed, {})) == before


def test_the_same_state_is_the_same_table():
    """Or two snapshots of one moment could not be compared."""
    path = next(each for each in SCENARIOS if each.stem == "stuck-stop")
    first, second = lives(path, 3, 120)
    assert len(pack(first, {})) == len(pack(second, {}))


def test_the_same_object_stays_the_same_and_circles_are_no_trouble():
    shared = [1, {"x": (2, 3)}]
    whole = {"a": shared, "b": shared}
    shared.append(whole)
    again = through_a_file(whole)
    assert again["a"] is again["b"]
    assert again["a"][2] is again


def test_a_number_and_a_text_of_the_wire_stay_what_they_are():
    """As a region's block size, which was 0 again."""
    number, text = through_a_file([U64(512), Scalar("x")])
    assert (number, type(number), text, type(text)) == (512, U64, "x", Scalar)


_MADE_AT_RUN_TIME = msgspec.defstruct("Nowhere", [], module="sim_sled.core.config")


@in_one_test("value", [print, os.system, object, Path("x"), open, attrs.define, iter([]), _MADE_AT_RUN_TIME()])
def test_what_no_file_can_hold_is_refused_by_name(value):
    with pytest.raises(CannotKeep, match="hangs at \\[there\\]"):
        pack({"there": value}, {})


@in_one_test(
    "row",
    [
        ["named function", "os:system"],
        ["named function", "sim_sled.http.blobs:Blobs.close"],
        ["named function", "sim_sled.core.vmm:attrs"],
        ["obj", "subprocess:Popen", {}],
        ["obj", "sim_sled.daemon.daemon:Daemon", {}],
        ["obj", "sim_sled.core.vmm:UUID", {}],
        ["class", "builtins:eval"],
        ["one", "os:environ"],
        ["method", [1], "stop"],
        ["method", [1], "__init__"],
        ["function", "os", "system@1", [], None, None],
        ["function", "sim_sled.core.vmm", "nothing@1", [], None, None],
        ["enum", "sim_sled.core.rules:Verdict", "NOTHING"],
        ["enum", "sim_sled.core.vmm:Vmm", "state"],
        ["obj", "nexus_client.outbox:Delivered", {"no_such": 1}],
        ["struct", "nexus_client.outbox:Delivered", {"no_such": 1}],
        ["struct", "nexus_client.outbox:Outbox", {}],
        ["struct", "msgspec:Struct", {}],
        ["plain", "nexus_client.dropshot.text:U64", "many"],
        ["plain", "nexus_client.dropshot.text:Scalar", 5],
        ["plain", "nexus_client.outbox:Delivered", "x"],
        ["plain", "sim_sled.engine.cast:Down", "agent"],
        ["tuple", [7]],
        ["list", 1.5],
        ["nothing"],
        [],
    ],
)
def test_a_table_that_nobody_of_us_wrote_is_refused_and_runs_nothing(row):
    class Shell:
        def stop(self):
            raise AssertionError("called")

    with pytest.raises(BadTable):
        unpack([row, ["shell", "shell"]], {"shell": Shell()}, frozenset({"tell"}))


def test_an_anchor_is_not_touched_by_a_table_that_is_refused():
    path = next(each for each in SCENARIOS if each.stem == "stuck-stop")
    world, _ = lives(path, 1, 20)
    before = json.dumps(pack(world, {}))
    table = [["list", [1], [2]], ["anchor", "world", "sim_sled.play.virtual:World", {"seed": 99}], ["nothing"]]
    with pytest.raises(BadTable):
        unpack(table, {"world": world})
    assert json.dumps(pack(world, {})) == before
    good = pack([world], {"world": world})
    next(row for row in good if row[0] == "anchor")[-1]["seed"] = 99
    unpack(good, {"world": world})
    assert world.seed == 99, "and one that is good is taken up in place"


def test_the_fingerprint_is_of_the_program():
    assert program() == program()
    assert len(program()) == 32
