"""The recordings of the original state machines, and ours beside them.

1. The reference machine without any switch is the recorded one: it reproduces every recording.
2. With all switches on it says what we must do, and we do: over every recording, to its last step, and over random
   sequences of the same operations. Nothing is explained away, and nothing is cut off.
3. Each switch is a difference that we want: it has its row in docs/fidelity.md, and a sequence that shows it.
"""

from __future__ import annotations

import re
from collections.abc import Collection as Switches
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conformance.recorded_machine import SWITCHES, Answer, Collection, Instance, Observed, Panic
from conformance.trace_files import lines
from conformance.trace_players import Got, RackPlayer, RecordPlayer, VmmPlayer, record_of
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rows import in_one_test

FIDELITY = Path(__file__).parents[2] / "docs" / "fidelity.md"

Op = list[Any]
START = {"starting": None, "migrating": "m1"}

# ---- 1: the reference is the recorded machine ----------------------------------------------------------------------

_NOT_OF_THE_MACHINE = {"op", "message", "action", "background_panics", "state", "panic"}
"""Of a recorded step: what names it, texts, and what need not be imitated."""


def reproduced(where: str, step: dict[str, Any], answer: Answer, before: dict[str, Any] | None) -> None:
    """The reference's answer is the recorded one. A state that is not mentioned is the one before."""
    if step["result"] == "panic":
        assert answer == {"result": "panic"}, f"{where} {step['op']}: recorded a panic"
        return
    recorded = {"after": before} | {key: value for key, value in step.items() if key not in _NOT_OF_THE_MACHINE}
    if answer["after"] is not None and recorded["after"] is not None:
        answer = {**answer, "after": {key: answer["after"][key] for key in recorded["after"]}}
    assert {key: answer.get(key) for key in recorded} == recorded, f"{where} {step['op']}"


def reproduces(where: str, machine: Any, steps: list[dict[str, Any]], before: dict[str, Any] | None) -> int:
    for number, step in enumerate(steps):
        reproduced(f"{where} step {number}", step, machine.play(step["op"]), before)
        before = step.get("after", before)
    return len(steps)


def arrive(machine: Any, path: list[Op]) -> Any:
    for op in path:
        machine.play(op)
    return machine


def instance(start: dict[str, Any], on: Switches[str] = ()) -> Instance:
    return Instance(start["vmm_state"], start["migration_id"], on)


def test_without_any_switch_the_reference_reproduces_every_recording() -> None:
    steps = 0
    for where, line in lines("apply_observation.jsonl"):
        steps += reproduces(where, Observed(line["initial"]), line["steps"], line["initial"])
    for where, line in lines("apply_observation_table.jsonl"):
        steps += reproduces(where, Observed(line["state"]), [line], line["state"])
    for where, line in lines("sim_instance.jsonl"):
        if line["new"] == "panic":
            with pytest.raises(Panic):
                instance(line["start"])
            continue
        assert instance(line["start"]).state() == line["initial"], where
        steps += reproduces(where, instance(line["start"]), line["steps"], line["initial"])
    for where, line in lines("sim_instance_bfs.jsonl"):
        for case in line["cases"]:
            machine = arrive(instance(line["start"]), line["path"])
            assert machine.state() == line["state"], where
            steps += reproduces(where, machine, [case], line["state"])
    for where, line in lines("sim_collection.jsonl"):
        steps += reproduces(where, Collection(line["mode"]), line["steps"], None)
    print(f"\n{steps} recorded steps, all reproduced")
    assert steps, "no recordings where SIM_SLED_TRACES says"


# ---- 2: we do what the reference says with all switches ------------------------------------------------------------


def differing(expected: Answer, got: Got) -> list[str]:
    """What of ours is not what the reference says."""
    if expected["result"] == "panic":
        return ["the reference panics, which no operation of ours may do"]
    outcome = expected.get("error", "ok")
    wanted: dict[str, Any] = {"outcome": outcome, "vmm": None, "migration_in": None, "migration_out": None}
    wanted |= {key: expected[key] for key in ("touched", "published") if key in expected}
    if "status" in expected:
        wanted |= {"status": expected["status"], "code": expected["error_code"]}
    if outcome == "ok" and "body" in expected:
        wanted["body"] = expected["body"]
    after = expected["after"]
    if after is not None:
        wanted |= {
            key: after[key] for key in ("vmm", "migration_in", "migration_out", "halted", "resting") if key in after
        }
    found = [
        f"{key} {getattr(got, key)}, must be {value}" for key, value in wanted.items() if getattr(got, key) != value
    ]
    if "returned" in expected and {key: getattr(got, key) for key in expected["returned"]} != expected["returned"]:
        found.append(f"returned {got}, must be {expected['returned']}")
    return found


def same(ours: Any, reference: Any, ops: Sequence[Op], where: str = "") -> int:
    """Ours and the reference, operation by operation to the last."""
    for number, op in enumerate(ops):
        expected = reference.play(op)
        found = differing(expected, ours.play(op))
        assert not found, f"{where} step {number} {op}: {'; '.join(found)}\nafter {list(ops[:number])}"
    return len(ops)


def test_we_do_over_every_recording_what_the_reference_says_with_all_switches() -> None:
    steps = 0
    for where, line in lines("apply_observation.jsonl"):
        start = line["initial"]
        ops = [step["op"] for step in line["steps"]]
        steps += same(RecordPlayer(record_of(start)), Observed(start, SWITCHES), ops, where)
    for where, line in lines("apply_observation_table.jsonl"):
        start = line["state"]
        steps += same(RecordPlayer(record_of(start)), Observed(start, SWITCHES), [line["op"]], where)
    for where, line in lines("sim_instance.jsonl"):
        if line["new"] == "ok":  # the others are refused at registration (D02), and none is left to be played
            ops = [step["op"] for step in line["steps"]]
            steps += same(VmmPlayer(line["start"]), instance(line["start"], SWITCHES), ops, where)
    for where, line in lines("sim_instance_bfs.jsonl"):
        for case in line["cases"]:
            ops = [*line["path"], case["op"]]
            same(VmmPlayer(line["start"]), instance(line["start"], SWITCHES), ops, where)
            steps += 1
    for where, line in lines("sim_collection.jsonl"):
        ops = [step["op"] for step in line["steps"]]
        steps += same(RackPlayer(line["mode"]), Collection(line["mode"], SWITCHES), ops, where)
    print(f"\n{steps} recorded steps, all as the reference says, none cut off")
    assert steps


_STATES = st.sampled_from(
    [
        "Creating",
        "Starting",
        "Running",
        "Stopping",
        "Stopped",
        "Rebooting",
        "Migrating",
        "Failed",
        "Destroyed",
        "Repairing",
    ]
)
_PHASES = st.sampled_from(
    ["Sync", "RamPush", "Pause", "RamPushDirty", "Device", "Resume", "RamPull", "Server", "Finish", "Error"]
)
_IDS = st.sampled_from(["m1", "m2", "m3"])
_SEEN = st.none() | st.tuples(_IDS, _PHASES).map(list)
_SLOT = st.none() | st.tuples(
    _IDS, st.sampled_from(["pending", "in_progress", "failed", "completed"]), st.integers(1, 9)
).map(list)
_RECORDS = st.fixed_dictionaries(
    {
        "vmm": st.tuples(
            st.sampled_from(["starting", "running", "stopping", "rebooting", "migrating"]), st.just(7)
        ).map(list),
        "migration_in": _SLOT,
        "migration_out": _SLOT,
    }
)
_OBSERVATIONS = st.one_of(
    st.tuples(st.just("observe"), _STATES, _SEEN, _SEEN).map(list),
    st.sampled_from([["force_failed"], ["force_destroyed"], ["transition", "stopping"], ["transition", "rebooting"]]),
)
_ASKED = st.sampled_from(["running", "stopped", "reboot", "migration_target"])
_SOURCE = st.tuples(st.just("migration_source"), _IDS, st.sampled_from(["success", "failure"])).map(list)
_OF_A_VMM = st.one_of(
    st.tuples(st.just("request"), _ASKED).map(list),
    st.sampled_from([["step"], ["drain"]]),
    _SOURCE,
    st.just(["terminate"]),
)
_OF_A_SLED = st.one_of(
    st.tuples(st.just("put_state"), _ASKED).map(list),
    st.sampled_from([["poke"], ["poke_single"], ["timers"], ["get"], ["unregister"]]),
    st.sampled_from([["register", "starting", None], ["register", "migrating", "m1"], ["register", "running", None]]),
    _SOURCE,
)


# Single operations rarely meet: what takes several to come about is offered as one.
_GROUPS_OF_A_VMM: list[list[Op]] = [
    [["request", "running"], ["drain"]],
    [["migration_source", "m2", "failure"], ["drain"]],
    [["migration_source", "m3", "success"], ["step"], ["step"]],
    [["request", "migration_target"], ["step"]],
    [["request", "reboot"], ["step"]],
]
_GROUPS_OF_A_SLED: list[list[Op]] = [
    [["put_state", "running"], ["poke"]],
    [["put_state", "running"], ["timers"]],
    [["migration_source", "m2", "failure"], ["poke"]],
    [["migration_source", "m3", "success"], ["poke_single"]],
    [["put_state", "migration_target"], ["poke_single"]],
    [["unregister"], ["register", "starting", None]],
]


def _sequences(single: st.SearchStrategy[Op], groups: list[list[Op]], most: int) -> st.SearchStrategy[list[Op]]:
    parts = single.map(lambda op: [op]) | st.sampled_from(groups)
    return st.lists(parts, max_size=most).map(lambda found: [op for part in found for op in part])


@given(_RECORDS, st.lists(_OBSERVATIONS, max_size=12))
def test_any_observations_change_a_record_as_the_reference_says(start: dict[str, Any], ops: list[Op]) -> None:
    same(RecordPlayer(record_of(start)), Observed(start, SWITCHES), ops)


@settings(max_examples=4 * settings().max_examples)
@given(st.sampled_from(sorted(START)), _sequences(_OF_A_VMM, _GROUPS_OF_A_VMM, 20))
def test_any_sequence_of_a_vmm_is_as_the_reference_says(state: str, ops: list[Op]) -> None:
    start = {"vmm_state": state, "migration_id": START[state]}
    same(VmmPlayer(start), instance(start, SWITCHES), ops)


@settings(max_examples=4 * settings().max_examples)
@given(
    st.sampled_from(["explicit", "auto"]),
    st.sampled_from(sorted(START)),
    _sequences(_OF_A_SLED, _GROUPS_OF_A_SLED, 25),
)
def test_any_sequence_of_a_sled_is_as_the_reference_says(mode: str, state: str, ops: list[Op]) -> None:
    same(RackPlayer(mode), Collection(mode, SWITCHES), [["register", state, START[state]], *ops])


# ---- 3: each switch is needed --------------------------------------------------------------------------------------

_BORN: Op = ["register", "starting", None]
_RUN: list[Op] = [_BORN, ["put_state", "running"], ["poke"]]
_MIGRATED: list[Op] = [["register", "migrating", "m1"], ["put_state", "migration_target"]]

SHOWN: dict[str, tuple[str, list[Op]]] = {
    "D02": ("explicit", [["poke"]]),
    "D03": ("explicit", [*_RUN, ["migration_source", "m2", "success"]]),
    "D04": ("explicit", [*_MIGRATED, ["poke_single"]]),
    "D05": ("explicit", [_BORN, ["put_state", "running"], ["put_state", "reboot"]]),
    "D08": ("explicit", [_BORN, ["put_state", "stopped"]]),
    "D09": ("auto", [_BORN, ["put_state", "running"], ["timers"]]),
    "D10": ("explicit", [*_RUN, _BORN]),
    "D70": ("explicit", [*_RUN, ["migration_source", "m2", "failure"], ["put_state", "stopped"], ["poke"]]),
}
"""Per difference a short sequence that shows it, through a sled in this mode."""

_GONE: list[Op] = [["request", "running"], ["step"], ["request", "stopped"], ["drain"]]

SHOWN_BY_A_VMM: dict[str, list[Op]] = {"D06": [*_GONE, ["request", "running"]], "D07": [*_GONE, ["terminate"]]}
"""The same for what a sled shows only while Nexus has not acknowledged an end."""


@in_one_test("name", sorted(SHOWN))
def test_each_difference_shows(name: str) -> None:
    """Without its switch the reference says something else, and not what we do."""
    mode, ops = SHOWN[name]
    same(RackPlayer(mode), Collection(mode, SWITCHES), ops)
    with pytest.raises(AssertionError, match=r"must be|panics"):
        same(RackPlayer(mode), Collection(mode, SWITCHES - {name}), ops)


@in_one_test("name", sorted(SHOWN_BY_A_VMM))
def test_each_difference_of_a_vmm_shows(name: str) -> None:
    start = {"vmm_state": "starting", "migration_id": None}
    same(VmmPlayer(start), instance(start, SWITCHES), SHOWN_BY_A_VMM[name])
    with pytest.raises(AssertionError, match="must be"):
        same(VmmPlayer(start), instance(start, SWITCHES - {name}), SHOWN_BY_A_VMM[name])


def test_repairing_shows_in_a_record() -> None:
    start = {"vmm": ["running", 7], "migration_in": None, "migration_out": None}
    op: Op = ["observe", "Repairing", None, None]
    same(RecordPlayer(record_of(start)), Observed(start, SWITCHES), [op])
    with pytest.raises(AssertionError, match="must be"):
        same(RecordPlayer(record_of(start)), Observed(start, SWITCHES - {"D01"}), [op])


def test_each_difference_has_its_row_in_the_documentation() -> None:
    documented = set(re.findall(r"^\| (D\d+) \|", FIDELITY.read_text(), re.MULTILINE))
    assert documented >= SWITCHES
    assert set(SHOWN) | set(SHOWN_BY_A_VMM) | {"D01"} == SWITCHES, "each has a sequence that shows it"
