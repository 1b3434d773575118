"""The recorded decisions of Nexus, of the real sled agent and of Propolis's state driver, line by line.

`SIM_SLED_NEXUS_TRACES` points at another folder with recordings of the same kinds; default: the copies in
tests/data/nexus-traces. Each line is *equal*, or *impossible* (the recording says why it cannot occur), or *named*: a
difference of ours, listed in docs/fidelity.md, whose own expected value is what we answer. Nothing else passes.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest
from conformance.nexus_players import PLAYERS
from conformance.nexus_players.agent import ALL, agent_put_state, put_state_switches, recorded_put_state
from conformance.nexus_players.nexus import update_decision
from support.rows import in_one_test

from nexus_client.stub.hazards import DEFAULT, ORIGINAL, Hazard

BUNDLED = Path(__file__).parents[1] / "data" / "nexus-traces"
FOLDER = Path(os.environ.get("SIM_SLED_NEXUS_TRACES") or BUNDLED)
FIDELITY = Path(__file__).parents[2] / "docs" / "fidelity.md"
FILES = sorted(FOLDER.glob("*.jsonl"))
LEEWAY_NS = 1_000
"""The recorded bases are floating point nanoseconds, ours are whole microseconds."""

Line = dict[str, Any]


@attrs.frozen
class Difference:
    """`expected(line)`: what we answer instead, or None where this difference says nothing of the line;
    `original(line)`: what is recorded there: anything else is not this difference.
    """

    id: str
    functions: tuple[str, ...]
    expected: Callable[[Line], Any]
    original: Callable[[Line], Any]


def repairing(line: Line) -> Any:
    return {"rejected": "Repairing"} if line["input"]["update"] == {"state": "Repairing"} else None


def taken_for_running(line: Line) -> Any:
    """The real agent publishes `running` for it (NX 1.1)."""
    return PLAYERS["agent_monitor_message"](line["rules"], line["input"] | {"update": {"state": "Running"}})


def tried_again(line: Line) -> Any:
    """408, 425 and 429 say "not now": the report is not lost."""
    return "transient" if line["input"].get("status") in (408, 425, 429) else None


def keeps_its_end(line: Line) -> Any:
    """A VMM that has ended already keeps its end when it is unregistered."""
    state = line["input"]["state"]
    over = state["vmm"][0] in ("failed", "destroyed")
    return {"answer": state, "owner": "Nexus", "published": False} if over else None


def failed_again(line: Line) -> Any:
    """The real agent makes `failed` of whatever there was."""
    state = line["input"]["state"]
    lives = state | {"vmm": ["running", state["vmm"][1]]}
    return PLAYERS["agent_unregister"](line["rules"], line["input"] | {"state": lives})


DIFFERENCES = (
    Difference("repairing", ("agent_monitor_message",), repairing, taken_for_running),
    Difference("tried_again", ("agent_publish_failure",), tried_again, lambda _: "permanent"),
    Difference("keeps_its_end", ("agent_unregister",), keeps_its_end, failed_again),
)


def function_of(line: Line) -> str:
    """`update_decision_head` and `propolis_state_driver_other` are the same function with other inputs."""
    return _player_of(line["function"])


@cache
def _player_of(name: str) -> str:
    return next((known for known in PLAYERS if name == known or name.startswith(f"{known}_")), name)


def delays_fit(line: Line) -> bool:
    """A random delay is judged by its bounds: recorded draws lie within ours, and come close to both ends."""
    got, want = PLAYERS["retry_delay"](line["rules"], line["input"]), line["output"]
    base = want["base_ns"]
    near = base // 100  # 3,000 draws leave at most so much of the range untouched
    return (
        abs(got["base_us"] * 1_000 - base) <= LEEWAY_NS
        and got["multiplier"] == want["multiplier"]
        and want["max_elapsed"] is None
        and want["randomization_factor"] == 0.5
        and got["least_us"] * 1_000 - LEEWAY_NS <= want["least_seen_ns"] <= got["least_us"] * 1_000 + near
        and got["most_us"] * 1_000 - near <= want["most_seen_ns"] <= got["most_us"] * 1_000 + 2 * LEEWAY_NS
    )


def judge(line: Line) -> str:
    """`equal`, or the ids of the named differences that explain the line. Fails if there is neither."""
    name, given, want = function_of(line), line["input"], line["output"]
    assert name in PLAYERS, f"no player for {name}"
    if name == "retry_delay":
        assert delays_fit(line), line
        return "equal"
    if name == "agent_put_state":
        return judge_put_state(line)
    got = PLAYERS[name](line["rules"], given)
    if got == want:
        return "equal"
    for difference in DIFFERENCES:
        if name in difference.functions:
            expected = difference.expected(line)
            if expected is not None and got == expected and want == difference.original(line):
                return difference.id
    raise AssertionError(f"{line['function']} {line['rules']}: {given}\nrecorded {want}\nours     {got}")


def judge_put_state(line: Line) -> str:
    """The recorded function is written down, with a switch for each difference: all off, it is the recording."""
    given = line["input"]
    assert recorded_put_state(given, frozenset()) == line["output"], f"the reference is wrong: {line}"
    assert agent_put_state(line["rules"], given) == recorded_put_state(given, ALL), line
    return "+".join(sorted(put_state_switches(given))) or "equal"


def lines_in(path: Path) -> list[Line]:
    """Every line of the file; one that is no recording fails with its place."""
    found = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError as error:
            raise AssertionError(f"{path.name}:{number}: no JSON: {error}") from None
        complete = isinstance(line, dict) and {"function", "rules", "input", "output"} <= set(line)
        assert complete, f"{path.name}:{number}: no recording: it must have function, rules, input and output"
        found.append(line)
    return found


@in_one_test("path", FILES, ids=lambda path: path.stem)
def test_every_recorded_decision_is_equal_or_a_named_difference(path: Path) -> None:
    counts: Counter[str] = Counter()
    for line in lines_in(path):
        counts["impossible" if "excluded" in line else judge(line)] += 1
    print(f"{path.stem}: " + ", ".join(f"{number} {name}" for name, number in counts.most_common()))
    assert counts.total() > 0


def test_each_function_of_the_readme_has_a_player() -> None:
    readme = (BUNDLED / "README.md").read_text(encoding="utf-8")
    rows = [row.split("|")[1] for row in readme.splitlines() if row.startswith("| `")]
    named = {name.strip(" `") for row in rows for name in row.split(",")}
    functions = {name.removesuffix("_*") for name in named} - {"rules", "5854", "5855", "5749", "6455", "head"}
    assert functions - {"propolis", "retry_params"} <= set(PLAYERS), functions - set(PLAYERS)


def test_each_named_difference_stands_in_fidelity() -> None:
    text = FIDELITY.read_text(encoding="utf-8")
    for name in [difference.id for difference in DIFFERENCES] + sorted(ALL) + [each.value for each in Hazard]:
        assert f"`{name}`" in text, f"docs/fidelity.md says nothing of {name}"


OURS_ALONE = {Hazard.RESERVATION_LAGS.value, Hazard.FAILS_UNREGISTERED.value}
"""In no recorded function: a property (NX 7, #38) that the original breaks between two sagas; and the race of a stop
with a registration, which NX derives from its table of answers (NX 4.4, open points).
"""


def recordings_of(name: str) -> list[str]:
    """The files that its row in docs/fidelity.md names; of a row about several, those in brackets behind it."""
    lines = FIDELITY.read_text(encoding="utf-8").splitlines()
    [row] = [line for line in lines if line.startswith("|") and f"`{name}`" in line]
    if " hazards `" in row:
        row = row.partition(f"`{name}`")[2]
        row = row[: row.find(")")] if row.startswith(" (") else ""
    return re.findall(r"`([\w*]+\.jsonl)`", row)


def test_each_named_difference_names_the_recording_that_shows_it() -> None:
    functions = {difference.id: set(difference.functions) for difference in DIFFERENCES}
    functions |= {name: {"agent_put_state"} for name in ALL}
    for name in sorted(functions | {each.value: set() for each in Hazard if each.value not in OURS_ALONE}):
        files = recordings_of(name)
        assert files, f"docs/fidelity.md names no recording for {name}"
        assert all(list(BUNDLED.glob(pattern)) for pattern in files), f"{name}: one of {files} is not there"
        missing = functions.get(name, set()) - {pattern.removesuffix(".jsonl") for pattern in files}
        assert not missing, f"{name}: docs/fidelity.md does not name {missing}"


def test_no_recording_is_named_that_is_not_there() -> None:
    for pattern in re.findall(r"`([\w*]+\.jsonl)`", FIDELITY.read_text(encoding="utf-8")):
        assert list(BUNDLED.glob(pattern)), f"docs/fidelity.md names {pattern}"


def lines_of(name: str) -> list[Line]:
    path = FOLDER / f"{name}.jsonl"
    if not path.exists():
        path = BUNDLED / f"{name}.jsonl"
    return lines_in(path)


@in_one_test("rules", ["5749", "6455", "head"])
def test_where_the_original_panics_the_model_with_the_hazard_off_ends_the_migration(rules: str) -> None:
    """Own expected value: no update while the source still lives, else the ids are gone and the guest was lost."""
    hazards = ORIGINAL - {Hazard.PANIC_WITHOUT_TARGET}
    seen = 0
    for line in lines_of(f"update_decision_{rules}"):
        if "excluded" in line or "panic" not in (line["output"] or {}):
            continue
        seen += 1
        given = line["input"]
        active = given["active_vmm"]
        ended = ("destroyed",) if rules == "5749" else ("destroyed", "failed")
        over = active is not None and active["state"] in ended
        got = update_decision(rules, given, hazards)
        if active is not None and not over:
            assert got is None, line
            continue
        assert (got["active_propolis_id"], got["target_propolis_id"], got["migration_id"]) == (None, None, None), line
        assert got["state"] == ("failed" if over else given["instance"]["state"]), line
        assert got["destroy_active_vmm"] == (active["id"] if over else None), line
    assert seen > 0


def test_with_the_other_hazard_off_a_late_half_leaves_a_failed_instance_failed() -> None:
    hazards = ORIGINAL - {Hazard.LATE_HALF_STOPS_FAILED}
    changed = 0
    for line in lines_of("update_decision_6455") + lines_of("update_decision_head"):
        want = line["output"]
        if "excluded" in line or want is None or "panic" in want:
            continue
        got = update_decision(line["rules"], line["input"], hazards)
        stays = line["input"]["instance"]["state"] == "failed" and want["active_propolis_id"] is None
        assert got == (want | {"state": "failed"} if stays else want), line
        changed += stays
    assert changed > 0


def test_with_the_hazard_on_a_stop_before_the_start_aborts_the_agent_as_recorded() -> None:
    seen = 0
    for line in lines_of("agent_put_state"):
        over = line["input"]["state"]["vmm"][0] in ("failed", "destroyed")
        if "panic" in line["output"] and not over:
            assert agent_put_state("head", line["input"], hazard=True) == line["output"], line
            seen += 1
    assert seen > 0


def test_the_default_plays_what_was_recorded_but_for_the_hazards_that_end_a_process_or_break_a_promise() -> None:
    assert {Hazard.PANIC_WITHOUT_TARGET, Hazard.RESERVATION_LAGS} == ORIGINAL - DEFAULT


# ---- the judge itself ----------------------------------------------------------------------------------------------


def test_a_wrong_recording_is_noticed() -> None:
    """One changed word in any field of an output, in every function, and the line is red."""
    for path in sorted(BUNDLED.glob("*.jsonl")):
        line = next(
            json.loads(text)
            for text in path.read_text(encoding="utf-8").splitlines()
            if '"excluded"' not in text and '"output": null' not in text
        )
        if function_of(line) == "retry_delay":
            line["output"]["base_ns"] *= 2
        else:
            line["output"] = spoilt(line["output"])
        with pytest.raises(AssertionError):
            judge(line)


def spoilt(value: Any) -> Any:
    match value:
        case dict():
            key = max(value)
            return value | {key: spoilt(value[key])}
        case [*items, last]:
            return [*items, spoilt(last)]
        case bool():
            return not value
        case _:
            return f"not {value}"
