"""The replay against the logs: each VMM goes through the same states in the same order (`import --verify`).

Read before: incident/writing.py. Read next: incident/importing.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from sim_sled.core.happenings import Happening, Kind
from sim_sled.incident.facts import Ending
from sim_sled.incident.life import is_target, unregistered
from sim_sled.incident.sheet import Draft
from sim_sled.incident.timeline import Vmm
from sim_sled.language.schema import Scenario
from sim_sled.play.run import How, Result, result_of, run_to_end
from sim_sled.play.virtual import World

SEED: Final = 1
"""Any seed will do: an imported scenario has no chance in it."""
_COMPARED: Final = frozenset({"running", "rebooting", "migrating", "stopping", "stopped", "destroyed", "failed"})
"""Agents do not write that a VMM is creating or starting."""

_PASSED_BY: Final = frozenset({"stopping", "stopped"})
"""States on the way to the end, in which an agent need not have seen a VMM."""


@attrs.frozen
class Difference:
    """A VMM whose replay differs. `logged` and `played`: its states in order."""

    hostname: str
    number: int
    logged: tuple[str, ...]
    played: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.hostname}, VMM {self.number}: the logs show {_arrows(self.logged)}, "
            f"the replay {_arrows(self.played)}"
        )


def replay(scenario: Scenario) -> tuple[Result, dict[str, list[tuple[str, ...]]]]:
    """Plays the scenario once; the states of each VMM by host name, in the order of registration."""
    world = World(scenario, SEED)
    states: dict[object, list[str]] = {}

    def watch(happening: Happening) -> None:
        if happening.kind is Kind.PROPOLIS and happening.propolis_id is not None:
            before_after = happening.data
            if isinstance(before_after, tuple):
                states.setdefault(happening.propolis_id, []).append(before_after[1].state.value.lower())
        elif (
            happening.kind is Kind.OBSERVED
            and happening.propolis_id is not None
            and isinstance(happening.data, tuple)
        ):
            after = happening.data[1].vmm_state.state.value
            if after == "failed":
                states.setdefault(happening.propolis_id, []).append(after)

    inner = world.rack.watch

    def both(happening: Happening) -> None:
        watch(happening)
        if inner is not None:
            inner(happening)

    world.rack.watch = both
    end = run_to_end(world, How())
    result = result_of(world, end, world.lines)
    played: dict[str, list[tuple[str, ...]]] = {}
    for who in world.engine.cast.subjects.values():
        played.setdefault(who.hostname, []).append(_deduped(states.get(who.propolis_id, ())))
    return result, played


def compare(draft: Draft, played: dict[str, list[tuple[str, ...]]]) -> list[Difference]:
    """What differs, VMM by VMM. A log may begin late and end early: then the rest is not compared."""
    found = []
    for hostname, vmms in draft.compared.items():
        runs = played.get(hostname, [])
        for number, vmm in enumerate(vmms):
            logged = states_of(vmm)
            if any(each.state == "failed" for each in vmm.published) and "failed" not in logged:
                logged = (*logged, "failed")  # an agent tells, and Propolis does not
            over = vmm.id in draft.forgotten or any(each.how is Ending.GRACE_OVER for each in vmm.ended)
            if over and logged[-1:] == ("destroyed",):
                logged = logged[
                    :-1
                ]  # of a VMM that a sled has forgotten, or ended by force, it observes nothing more
            asked_to_forget = unregistered(vmm)
            if asked_to_forget is not None:
                logged = _deduped(each.state for each in vmm.observed if each.at_us < asked_to_forget.at_us)
            replayed = runs[number] if number < len(runs) else ()
            if "stopped" in logged or logged[-1:] == ("destroyed",):
                # an agent's monitor sees the last of what was published between two looks (PR 3.7); lines get lost
                replayed = tuple(state for state in replayed if state not in _PASSED_BY or state in logged)
            if replayed[:1] == ("running",) and logged[:1] != ("running",) and not is_target(vmm):
                replayed = replayed[1:]  # that it ran before it did anything else is in no line, and certain
            if logged and not _fits(logged, replayed, from_start=vmm.described is not None):
                found.append(Difference(hostname, number + 1, logged, replayed))
    return found


def _deduped(states: Iterable[str]) -> tuple[str, ...]:
    out: list[str] = []
    for state in states:
        if state in _COMPARED and (not out or out[-1] != state):
            out.append(state)
    return tuple(out)


def _fits(logged: Sequence[str], replayed: Sequence[str], *, from_start: bool) -> bool:
    starts = range(1) if from_start else range(len(replayed) - len(logged) + 1)
    return any(tuple(replayed[i : i + len(logged)]) == tuple(logged) for i in starts)


def _arrows(states: Sequence[str]) -> str:
    return " -> ".join(states) or "nothing"


def states_of(vmm: Vmm) -> tuple[str, ...]:
    """The states of a VMM that are compared, as the logs have them."""
    return _deduped([each.state for each in vmm.observed])
