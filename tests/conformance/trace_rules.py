"""Named differences as code: each rule decides whether one mismatch is explained by it (deviations.toml).

A rule sees the recorded step, the recorded state before it, and what we did. It may also say exactly what we show
instead; only then does a trace go on although the states differ.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

ROWS = {row["id"]: row for row in tomllib.loads((Path(__file__).parent / "deviations.toml").read_text())["deviation"]}


@attrs.define
class Got:
    """What we did in one step. `outcome`: ok, or the class of the refusal; `status`/`code` where there is HTTP."""

    outcome: str
    status: int | None = None
    code: str | None = None
    vmm: list[Any] | None = None
    migration_in: list[Any] | None = None
    migration_out: list[Any] | None = None
    resting: str | None = None
    halted: bool | None = None
    touched: list[str] | None = None
    published: list[Any] = attrs.field(factory=list)
    body: Any = None
    denied: str = ""


@attrs.frozen
class Case:
    """One mismatch: the recorded step, the recorded state before it (None: not registered), and what we did.

    `history` are the recorded steps before it, oldest first.
    """

    step: dict[str, Any]
    before: dict[str, Any] | None
    got: Got
    history: tuple[dict[str, Any], ...] = ()

    @property
    def op(self) -> list[Any]:
        return self.step["op"]


def repairing(case: Case) -> bool:
    return case.op[:2] == ["observe", "Repairing"] and case.got.outcome == "RepairingRejected"


def panic(case: Case) -> bool:
    return case.step["result"] == "panic" or case.step.get("background_panics", 0) > 0


def migration_out_at_work(case: Case) -> bool:
    """`stopping` said too early moves every generation after it, so the whole rest of the trace is its."""
    asked = case.op[0] == "migration_source"
    queued = any(isinstance(item, list) and item[0] == "out" for item in (case.before or {}).get("queue", []))
    return asked or queued


def status_comes_with_state(case: Case) -> bool:
    """The step of `Migrating` with nothing known yet; and whatever ends the VMM right after it."""
    after, got = case.step.get("after") or case.step.get("returned"), case.got
    slot = (after or {}).get("migration_in")
    if slot is None or got.migration_in is None or got.vmm != after["vmm"]:
        return False
    if slot[1:] == ["pending", 1]:
        return after.get("propolis", [None])[0] == "Migrating" and got.migration_in[1:] == ["in_progress", 2]
    told_late = (case.before or {}).get("propolis", [None])[0] == "Migrating"
    return told_late and slot[1:] == ["failed", 2] and got.migration_in[1:] == ["failed", 3]


def reboot_denied(case: Case) -> bool:
    return case.op[-1] == "reboot" and case.step["result"] in {"ok", "noop"} and case.got.denied == "StartInProgress"


def terminating(case: Case) -> bool:
    halted = (case.before or {}).get("halted", False)
    return bool(halted) and case.step["result"] == "error" and case.got.outcome == "VmmTerminating"


def end_is_kept(case: Case) -> bool:
    return case.op[0] in {"terminate", "unregister"} and bool((case.before or {}).get("halted"))


def destroyed_is_told(case: Case) -> bool:
    """Stop before start: told and forgotten at once; what comes after finds no VMM."""
    stopped = case.op == ["put_state", "stopped"] and (case.before or {}).get("vmm", [""])[0] == "starting"
    return stopped and case.got.published != [] and case.step["published"] == []


def auto_does_it_all(case: Case) -> bool:
    return case.op[0] == "timers" and len(case.got.published) > len(case.step["published"])


def stored_not_echoed(case: Case) -> bool:
    return case.op[0] == "register" and case.before is not None and case.got.outcome == "ok"


RULES: dict[str, Callable[[Case], bool]] = {
    "D01": repairing,
    "D02": panic,
    "D03": migration_out_at_work,
    "D04": status_comes_with_state,
    "D05": reboot_denied,
    "D06": terminating,
    "D07": end_is_kept,
    "D08": destroyed_is_told,
    "D09": auto_does_it_all,
    "D10": stored_not_echoed,
}

GOES_ON = frozenset({"D04"})
"""Differences after which we are exactly where the rule says, so that the next step can be compared."""


def explain(case: Case) -> str | None:
    """The one id that explains a mismatch. None: nobody does. AssertionError: two do."""
    fitting = [name for name, rule in RULES.items() if rule(case)]
    if len(fitting) > 1 and "D02" in fitting:
        fitting = ["D02"]  # a panic ends the trace, whatever else it stands in
    assert len(fitting) <= 1, f"{case.op} is explained twice: {fitting}"
    return fitting[0] if fitting else None
