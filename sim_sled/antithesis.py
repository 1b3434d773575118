"""What an Antithesis environment is told: invariants, expectations and rules as its assertions, one JSON line each.

The platform reads `$ANTITHESIS_OUTPUT_DIR/sdk.jsonl`; the format is the documented one of its fallback SDK. Imported
only where that variable is set (`machine.assertions`).

| here | there | fails there when |
|---|---|---|
| an invariant | always | it was broken once, or nobody ever looked |
| an invariant of the end of a run | always or unreachable | it was broken: a daemon that is killed has no end |
| an expectation is kept | always or unreachable | it was not met once |
| an expectation is met | sometimes | nothing ever armed it, or it was never met |
| a rule fires | reachable | it never fired |

Each assertion is told when it is first true and when it is first false, and counted from then on: a search reads for
which runs something was so, and a rack says the same thing a thousand times a second. The counts follow at the end.

Read before: play/judge/expect.py. Read next: daemon/judging.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final

import attrs

from nexus_client.dropshot.streams import CannotWrite
from nexus_client.stub.contract import Happened
from nexus_client.stub.public_state import PublicState
from sim_sled.language.schema import Scenario
from sim_sled.language.source import NOWHERE, Mark
from sim_sled.play.judge.expect import label_of, watched
from sim_sled.play.judge.failures import Failure
from sim_sled.play.run import Result

PROPERTIES_MAX: Final = 100_000
"""Kept of one process: a campaign of generated files must not fill memory. What is beyond is told of by nobody."""
TEXT_MAX: Final = 2_000
"""Characters of a sentence in `details`."""


class Kind(Enum):
    """(assert_type, display_type, must_hit) of the platform's own functions."""

    ALWAYS = ("always", "Always", True)
    KEPT = ("always", "AlwaysOrUnreachable", False)
    SOMETIMES = ("sometimes", "Sometimes", True)
    REACHABLE = ("reachability", "Reachable", True)


@attrs.frozen
class Property:
    """One assertion. `message` names it on the platform, and is its id; `mark` where it stands; `of`: whose it is."""

    kind: Kind
    message: str
    mark: Mark = NOWHERE
    of: str = "sim_sled"

    def line(self, *, hit: bool, condition: bool, details: Mapping[str, Any] | None) -> dict[str, Any]:
        """The one JSON object, as a declaration (not hit) or as an evaluation."""
        assert_type, display_type, must_hit = self.kind.value
        return {
            "antithesis_assert": {
                "hit": hit,
                "must_hit": must_hit,
                "assert_type": assert_type,
                "display_type": display_type,
                "message": self.message,
                "condition": condition,
                "id": self.message,
                "location": {
                    "class": self.of,
                    "function": self.message,
                    "file": self.mark.file,
                    "begin_line": self.mark.line,
                    "begin_column": self.mark.col,
                },
                "details": details,
            }
        }


@attrs.define
class _Count:
    passed: int = 0
    failed: int = 0


@attrs.define(eq=False)
class Assertions:
    """Of one process; several may write the same file. `path`: of `sdk.jsonl`. Raises `CannotWrite`."""

    path: Path
    _fd: int | None = attrs.field(default=None, init=False)
    _counts: dict[str, _Count] = attrs.field(factory=dict, init=False)
    _is_set_up: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        try:
            # a pipe that nobody reads would block here for ever
            how = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(self.path, how, 0o644)
        except OSError as error:
            raise CannotWrite(f"cannot write {self.path} (ANTITHESIS_OUTPUT_DIR): {error.strerror}") from None

    def set_up(self, **details: object) -> None:
        """Everything is there: from now on the platform may disturb it. Told once."""
        if not self._is_set_up:
            self._is_set_up = True
            self._write({"antithesis_setup": {"status": "complete", "details": details}})

    def declare(self, one: Property) -> None:
        """It goes into the platform's catalogue: what nobody ever reaches is missed there, too."""
        if one.message not in self._counts and len(self._counts) < PROPERTIES_MAX:
            self._counts[one.message] = _Count()
            self._write(one.line(hit=False, condition=False, details=None))

    def tell(self, one: Property, condition: bool, details: Mapping[str, Any], times: int = 1) -> None:
        """So often it was so (or not) since the last time."""
        self.declare(one)
        count = self._counts.get(one.message)
        if count is None:
            return
        before = count.passed if condition else count.failed
        if condition:
            count.passed += times
        else:
            count.failed += times
        if before == 0:
            self._write(one.line(hit=True, condition=condition, details=details))

    def close(self) -> None:
        """The counts, as an event of the platform, and the end."""
        counts = {name: {"passed": c.passed, "failed": c.failed} for name, c in self._counts.items()}
        self._write({"sim_sled_counts": {name: c for name, c in counts.items() if any(c.values())}})
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _write(self, told: Mapping[str, Any]) -> None:
        if self._fd is None:
            return
        line = json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n"
        try:
            os.write(
                self._fd, line.encode(errors="backslashreplace")
            )  # one write: lines of other processes stay whole
        except OSError as error:  # a full disk ends the telling, not the rack
            os.close(self._fd)
            self._fd = None
            with contextlib.suppress(OSError):
                sys.stderr.write(f"sim-sled: {self.path}: {error.strerror}; nothing more is told to Antithesis\n")


# ---- a scenario


AT_THE_END: Final = frozenset({"final_state_acked", "no_leaks", "wishes_kept"})
"""Invariants that nobody can look at before a run is over."""
_INVARIANTS: Final = Mark("sim_sled/play/judge/invariants.py")


def invariant(name: str) -> Property:
    """... holds; `nexus_properties/NN` is one property of NX 7 alone."""
    return Property(Kind.KEPT if name in AT_THE_END else Kind.ALWAYS, f"invariant {name} holds", _INVARIANTS)


@attrs.define(eq=False)
class Tally:
    """What a run of a scenario has said so far, told to `out` as it goes. A live judge is looked at many times."""

    out: Assertions
    scenario: Scenario
    seed: int
    invariants: Sequence[str]
    _failures: int = 0
    _met: dict[str, int] = attrs.field(factory=dict)
    _fired: dict[str, int] = attrs.field(factory=dict)
    _broken: set[str] = attrs.field(factory=set)
    _expected: dict[str, tuple[Property, Property]] = attrs.field(factory=dict, init=False)
    _rules: dict[str, Property] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        name = self.scenario.name or "scenario"
        for i, expect in enumerate(self.scenario.expect):
            label = label_of(expect, i)
            if not expect.always:
                told = f"{name}: expectation {label} is"
                self._expected[label] = (
                    Property(Kind.SOMETIMES, f"{told} met", expect.mark(), name),
                    Property(Kind.KEPT, f"{told} kept", expect.mark(), name),
                )
        for rule in self.scenario.rules:
            if rule.enabled:
                self._rules[rule.name] = Property(
                    Kind.REACHABLE, f"{name}: rule {rule.name} fires", rule.mark(), name
                )
        for each in self.catalogue():
            self.out.declare(each)

    def catalogue(self) -> list[Property]:
        """Everything that is told of this scenario."""
        expected = [one for both in self._expected.values() for one in both]
        return [*map(invariant, self.invariants), *expected, *self._rules.values()]

    def goes_on_from(self, failures: Sequence[Failure], met: Mapping[str, int], fired: Mapping[str, int]) -> None:
        """So far it was before this file was read, and that has been told."""
        self._failures, self._met, self._fired = len(failures), dict(met), dict(fired)

    def look(
        self,
        failures: Sequence[Failure],
        met: Mapping[str, int],
        fired: Mapping[str, int],
        at_us: int,
        *,
        over: bool,
    ) -> None:
        """Tells what is new. All three only ever grow, but where a judge or an engine begins anew. `over`: the
        run has ended.
        """
        details = {"seed": self.seed, "at_us": at_us}
        for failure in failures[self._failures :]:
            self._failed(failure)
        self._failures = len(failures)
        for name in self.invariants:
            if name not in self._broken and (over or name not in AT_THE_END):
                self.out.tell(invariant(name), True, details)
        for label, (is_met, is_kept) in self._expected.items():
            if times := _more(self._met, label, met.get(label, 0)):
                self.out.tell(is_met, True, details, times)
                self.out.tell(is_kept, True, details, times)
        for name, fires in self._rules.items():
            if times := _more(self._fired, name, fired.get(name, 0)):
                self.out.tell(fires, True, details, times)

    def _failed(self, failure: Failure) -> None:
        details = {
            "seed": self.seed,
            "at_us": failure.at_us,
            "text": failure.text[:TEXT_MAX],
            "why": [said[:TEXT_MAX] for said in failure.why],
        }
        group, _, rest = failure.key.partition("/")
        if group == "expect":
            if rest in self._expected:  # else nobody here can judge it, which says nothing about what was tested
                self.out.tell(self._expected[rest][1], False, details)
            return
        for name in dict.fromkeys((group, failure.key)):  # one property of the model, and all of them
            self._broken.add(name)
            self.out.tell(invariant(name), False, details)


def _more(seen: dict[str, int], key: str, now: int) -> int:
    before, seen[key] = seen.get(key, 0), now
    return now - before if now >= before else now


def _run_of(out: Assertions, scenario: Scenario, seed: int) -> Tally:
    return Tally(out, scenario, seed, (*watched(scenario), "nexus_properties", "bounds"))


def begin_runs(out: Assertions, runs: Iterable[tuple[Scenario, int]]) -> None:
    """These scenarios will be played. All they say is in the catalogue before the first begins."""
    for scenario, seed in runs:
        _run_of(out, scenario, seed)
    out.set_up(program="run")


def tell_result(out: Assertions, result: Result) -> None:
    """A run that is over: in virtual time nothing can be disturbed before it is."""
    _run_of(out, result.scenario, result.seed).look(
        result.failures, result.met, result.fired, result.elapsed_us, over=True
    )


# ---- a campaign, of which only failures are kept


def begin_campaign(out: Assertions, scenario: Scenario) -> dict[str, Property]:
    """By the key of a failure, what is told of a campaign: what must always be so. Which rules fired and which
    expectations were met in a run, a campaign does not keep.
    """
    name = scenario.name or "scenario"
    told = {each: invariant(each) for each in (*watched(scenario), "nexus_properties", "bounds")}
    for i, expect in enumerate(scenario.expect):
        label = label_of(expect, i)
        if not expect.always:
            told[f"expect/{label}"] = Property(Kind.KEPT, f"{name}: expectation {label} is kept", expect.mark(), name)
    for each in told.values():
        out.declare(each)
    out.set_up(program="explore")
    return told


def tell_campaign(
    out: Assertions, told: Mapping[str, Property], runs: int, failed: Mapping[str, tuple[int, int, str]]
) -> None:
    """`failed`: by key of the first failure of runs, their number, the first one's seed, and what it said."""
    broken: dict[str, int] = {}
    for key, (times, seed, text) in failed.items():
        for name in dict.fromkeys((key, key.partition("/")[0])):  # one property of the model, and all of them
            if name in told:
                broken[name] = broken.get(name, 0) + times
                out.tell(told[name], False, {"seed": seed, "text": text[:TEXT_MAX]}, times)
    for name, one in told.items():
        if runs > broken.get(name, 0):
            out.tell(one, True, {"runs": runs}, runs - broken.get(name, 0))


# ---- a model of Nexus

_MODEL: Final = invariant("nexus_properties")
SHOWN: Final = {
    state.value: Property(Kind.SOMETIMES, f"users see an instance {state.value}")
    for state in (PublicState.RUNNING, PublicState.STOPPED, PublicState.FAILED, PublicState.MIGRATING)
}


def declare_model(out: Assertions) -> None:
    """What `sim-sled nexus` tells."""
    for each in (_MODEL, *SHOWN.values()):
        out.declare(each)


def tell_model(out: Assertions, told: Happened) -> None:
    """One line of its timeline. A Nexus without a sled is ready for nothing: the first one completes the set-up."""
    details = {"at_us": told.at_us, "text": told.text[:TEXT_MAX], "instance": str(told.instance_id)}
    match told.what:
        case "sled":
            out.set_up(program="nexus")
        case "broken":
            out.tell(_MODEL, False, details)
        case "public":
            out.tell(_MODEL, True, details)
            if told.text in SHOWN:
                out.tell(SHOWN[told.text], True, details)
