"""The player and its judge: recordings that were never made are played without a crash, and nothing wrong passes.

Inputs are mixed from recorded ones of the same function and rule set, part by part. What is impossible breaks a rule
of the database, which the model says; nothing else may come out of a player but an answer.
"""

import json
import random
from functools import cache

import pytest
from conformance.nexus_players import PLAYERS
from conformance.test_nexus_traces import BUNDLED, FILES, FOLDER, delays_fit, function_of, judge, lines_in
from support.profile import by_profile
from support.rows import in_one_test

from nexus_client.stub.records import InvariantBroken

MIXED = by_profile(50, nightly=5_000)
"""Of each function and rule set."""
IMPOSSIBLE = (InvariantBroken,)


@cache
def recorded(with_ours=False):
    """By function and rule set; `with_ours`: not only of the folder pointed at, which may have few of them."""
    found = {}
    for path in [*FILES, *(sorted(BUNDLED.glob("*.jsonl")) if with_ours and FOLDER != BUNDLED else [])]:
        for line in lines_in(path):
            if "excluded" not in line:
                found.setdefault((function_of(line), line["rules"]), []).append(line)
    return found


def is_impossible(given):
    """`vmm` without a record of the active VMM (NX 2, row 12): excluded in the recordings, too."""
    instance = given.get("instance") or {}
    return instance.get("state") == "vmm" and given.get("active_vmm", 0) is None


def mixed(dice, one, other):
    """Each part of one input or of the other."""
    if isinstance(one, dict) and isinstance(other, dict) and set(one) == set(other):
        return {key: mixed(dice, one[key], other[key]) for key in one}
    return dice.choice((one, other))


@pytest.mark.nightly
@in_one_test("function", sorted(PLAYERS))
def test_inputs_that_were_never_recorded_are_played(function):
    for (name, rules), lines in recorded().items():
        if name != function:
            continue
        dice = random.Random(f"{function} {rules}")  # hypothesis's takes three times as long as the players
        for _ in range(MIXED):
            one, other = dice.choice(lines), dice.choice(lines)
            given = mixed(dice, one["input"], other["input"])
            if is_impossible(given):
                continue
            try:
                answer = PLAYERS[name](rules, given)
            except IMPOSSIBLE:
                continue
            assert json.loads(json.dumps(answer)) == PLAYERS[name](rules, given), "the same again, and plain data"


def spoiled(value):
    """Something else of the same shape."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value * 3 + 1
        case str():
            return value + "x"
        case None:
            return "x"
        case dict() if value:
            key = min(value)
            return value | {key: spoiled(value[key])}
        case list() if value:
            return [spoiled(value[0]), *value[1:]]
    return "x"


@in_one_test("function", sorted(PLAYERS))
def test_a_recording_that_says_something_else_fails(function):
    """Whatever is excused elsewhere: one wrong word of an answer is noticed."""
    for (name, _), lines in recorded().items():
        if name != function:
            continue
        for line in lines[:: max(1, len(lines) // 10)]:
            wrong = line | {"output": spoiled(line["output"])}
            if name == "retry_delay":
                assert not delays_fit(wrong | {"output": line["output"] | {"base_ns": line["output"]["base_ns"] * 3}})
                continue
            with pytest.raises(AssertionError):
                judge(wrong)


def test_a_function_that_nobody_plays_fails_plainly():
    with pytest.raises(AssertionError, match="no player for instance_teleport"):
        judge({"function": "instance_teleport", "rules": "head", "input": {}, "output": None})


@in_one_test("text", ['{"function": ', "[]", '{"function": "instance_start"}', "\x00"])
def test_a_line_that_is_none_fails_with_its_place(tmp_path, text):
    path = tmp_path / "instance_start.jsonl"
    path.write_text('{"function": "x", "rules": "head", "input": {}, "output": 1}\n' + text + "\n")
    with pytest.raises(AssertionError, match=r"instance_start\.jsonl:2: "):
        lines_in(path)
