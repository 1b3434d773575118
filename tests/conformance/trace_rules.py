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
    """One mismatch: the recorded step, the recorded state before it (None: not registered), what we did, and which
    parts of the state are compared."""

    step: dict[str, Any]
    before: dict[str, Any] | None
    got: Got
    keys: tuple[str, ...] = ()

    @property
    def op(self) -> list[Any]:
        return self.step["op"]


def differences(step: dict[str, Any], got: Got, state: dict[str, Any] | None, keys: tuple[str, ...]) -> list[str]:
    """What of `got` is not as recorded; outcome first."""
    found = []
    accepted = step["result"] in {"ok", "noop"}
    if accepted != (got.outcome == "ok"):
        found.append(f"outcome {got.outcome}, recorded {step['result']}")
    elif step["result"] == "error":
        if "status" in step and (got.status, got.code) != (step["status"], step.get("error_code")):
            found.append(f"outcome {got.status} {got.code}, recorded {step['status']} {step.get('error_code')}")
        if "error" in step and got.outcome != step["error"]:
            found.append(f"outcome {got.outcome}, recorded {step['error']}")
    if step["result"] == "noop" and got.touched:
        found.append(f"touched {got.touched}, recorded a no-op")
    if state is None:
        if got.vmm is not None:
            found.append(f"we still have {got.vmm}")
    else:
        found += [
            f"{key} {getattr(got, key)}, recorded {state[key]}" for key in keys if getattr(got, key) != state[key]
        ]
    for key in ("touched", "published"):
        if key in step and getattr(got, key) != step[key]:
            found.append(f"{key} {getattr(got, key)}, recorded {step[key]}")
    if "body" in step and step["result"] == "ok" and got.body != step["body"]:
        found.append(f"body {got.body}, recorded {step['body']}")
    if "returned" in step and {key: getattr(got, key) for key in step["returned"]} != step["returned"]:
        found.append(f"returned {got.vmm}, recorded {step['returned']}")
    return found


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
    """Between `Migrating` and its first phase the original says `pending`/1, where Propolis has told both at once."""
    return differences(told_early(case), case.got, told_early(case).get("after", case.before), case.keys) == []


def told_early(case: Case) -> dict[str, Any]:
    """The recorded step as it would be if the first phase had come with the state."""
    step = dict(case.step)
    after = step.get("after", case.before)
    began, over = _unseen(after), _unseen(case.before) and not _unseen(after)
    if step.get("after") or began:
        step["after"] = _early_state(after, began=began, over=over)
    for key in ("body", "returned"):
        if step.get(key):
            step[key] = _early_state(step[key], began=began or _pending(step[key]), over=over)
    if "published" in step:
        step["published"] = [_early_state(each, began=_pending(each), over=False) for each in step["published"]]
    if "touched" in step and began and not _unseen(case.before):
        step["touched"] = [*step["touched"], "migration_in"]
    if "touched" in step and over and step["after"]["migration_in"][1:] == ["in_progress", 2]:
        step["touched"] = [part for part in step["touched"] if part != "migration_in"]
    return step


def _early_state(state: dict[str, Any], *, began: bool, over: bool) -> dict[str, Any]:
    slot = state["migration_in"]
    if began and slot is not None and slot[1:] == ["pending", 1]:
        return state | {"migration_in": [slot[0], "in_progress", 2]}
    if over and slot is not None and slot[1:] == ["failed", 2]:
        return state | {"migration_in": [slot[0], "failed", 3]}
    return state


def _unseen(state: dict[str, Any] | None) -> bool:
    known = state or {}
    return known.get("propolis") == ["Migrating", None, None] and (known["migration_in"] or [0])[1:] == ["pending", 1]


def _pending(state: dict[str, Any]) -> bool:
    return state["vmm"][0] == "migrating" and (state["migration_in"] or [0])[1:] == ["pending", 1]


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
    """More is carried out than the original armed its timer for; or its extra lap told an unchanged state again."""
    if case.op[0] != "timers":
        return False
    published, recorded = case.got.published, case.step["published"]
    last, news = {key: (case.before or {}).get(key) for key in ("vmm", "migration_in", "migration_out")}, []
    for each in recorded:
        if each != last:
            news.append(each)
        last = each
    return len(published) > len(recorded) or (len(news) < len(recorded) and published == news)


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


def goes_on(name: str, case: Case) -> bool:
    """Whether we are now exactly where the rule says and the original comes there too, so that the trace goes on."""
    slot = (case.step.get("after", case.before) or {}).get("migration_in")
    return name == "D04" and slot is not None and slot[1] != "failed"


def explain(case: Case) -> str | None:
    """The one id that explains a mismatch. None: nobody does. AssertionError: two do."""
    fitting = [name for name, rule in RULES.items() if rule(case)]
    if len(fitting) > 1 and "D02" in fitting:
        fitting = ["D02"]  # a panic ends the trace, whatever else it stands in
    assert len(fitting) <= 1, f"{case.op} is explained twice: {fitting}"
    return fitting[0] if fitting else None
