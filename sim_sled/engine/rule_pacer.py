"""How long each waiting point of a VMM lasts: latencies of the scenario, then the rules for edges and phases.

A VMM asks when it *enters* a point, which is also when it enters the state that the point belongs to: so a state that
is passed in no time is noticed too.

    CREATE creating -> starting    BACKENDS starting -> running (a target: migrating -> running)
    REBOOT rebooting -> running    HALT stopping -> stopped     RUNDOWN stopped -> destroyed (or stopping -> ...)
    WAKE   running -> what was asked                            M_*     the phase of that name

Read before: engine/act.py, engine/engine.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from propolis_stub.types import InstanceState
from propolis_stub.waiting import Pace, Point
from sim_sled.core import contract
from sim_sled.engine.act import NOBODY
from sim_sled.engine.cast import Subject
from sim_sled.engine.plans import Event, Inject, PacePlan, vmm_state
from sim_sled.language.actions import SetState
from sim_sled.language.draw import draw
from sim_sled.language.figures import FOREVER

if TYPE_CHECKING:
    from sim_sled.engine.engine import Engine

_PHASES: Final = {p: p.value for p in Point if p.name.startswith("M_")}
_CAN_FAIL: Final = frozenset({Point.CREATE, Point.DEVICES, Point.BACKENDS})
_AT_ONCE: Final = Pace()


def pace(engine: Engine, vm_id: UUID, point: Point, occurrence: int, leads_to: InstanceState | None) -> Pace:
    """See `propolis_stub.waiting.Pacer`."""
    who = engine.subjects.get(vm_id)
    if who is None or point is Point.RECONFIGURE:
        return _AT_ONCE
    if point in _PHASES:
        return _result(engine, who, point, _phase(engine, who, point, occurrence))
    plan = PacePlan()
    _enter(engine, who, point, plan)
    if point is Point.DEVICES:
        # What stalls a start stalls the backends: that is where Propolis can wait for ever and still be stopped
        # (PR 3.2).
        who.stalled_until_us = max(who.stalled_until_us, min(FOREVER, engine.now_us + plan.stall_us))
        takes = 0 if plan.at_once else plan.delay_us
        if plan.becomes not in (None, "failed"):
            return _forced(engine, who, plan, takes)
        who.failing = plan.becomes == "failed"
        engine.took_effect((plan.becomes_by, SetState.key))
        return Pace(takes, fail=who.failing)
    edge = _edge(who, point, leads_to)
    if edge is None:
        return _result(engine, who, point, plan)
    taken = " -> ".join(edge)
    latency = engine.takes("edge", taken)
    if latency is not None:
        plan.delay_us += latency.at(draw(engine.seed, f"latency/{taken}", who.key, occurrence))
    who.edge_taken = edge
    engine.happened(Event("edge", (edge,)), who, who.sled, plan)
    if point is Point.CREATE and who.sled.no_disks_until_us > engine.now_us:
        plan.fail = True  # the agent is up before its disks are (omicron#9095)
    return _result(engine, who, point, plan)


def _enter(engine: Engine, who: Subject, point: Point, plan: PacePlan) -> None:
    """The state that begins with this point."""
    if point is Point.HALT and who.truth == "migrating":
        who.ended_out = True
    entered = {
        Point.DEVICES: "" if who.role == "target" and who.truth == "migrating" else "starting",
        Point.REBOOT: "rebooting",
        Point.HALT: "stopping",
        # also after a start that a stop aborted: Propolis goes to Stopped without Stopping
        Point.RUNDOWN: "" if who.ended_out or who.failing else "stopped",
    }.get(point, "")
    if entered:
        engine.entered(who, entered, plan)


def _edge(who: Subject, point: Point, leads_to: InstanceState | None) -> tuple[str, str] | None:
    is_target = who.role == "target" and who.truth == "migrating"
    match point:
        case Point.CREATE:
            return None if is_target else ("creating", "starting")
        case Point.BACKENDS:
            return (who.truth, "running") if who.truth in ("starting", "migrating") else None
        case Point.REBOOT:
            return "rebooting", "running"
        case Point.HALT:
            return None if who.ended_out else ("stopping", "stopped")
        case Point.RUNDOWN:
            return (who.truth, "destroyed") if who.truth in ("stopped", "stopping") else None
        case Point.WAKE if who.truth == "running" and leads_to is not None:
            return "running", leads_to.value.lower()
    return None


def _phase(engine: Engine, who: Subject, point: Point, occurrence: int) -> PacePlan:
    phase = _PHASES[point]
    plan = PacePlan()
    if who.truth == "running":  # a source: negotiated, and about to say so
        who.role = "source"
        engine.entered(who, "migrating", plan)
    latency = engine.takes("migration", phase)
    if latency is not None:
        plan.delay_us += latency.at(draw(engine.seed, f"latency/{phase}/{who.role}", who.key, occurrence))
    engine.happened(Event("migration", (phase,)), who, who.sled, plan)
    fate = who.fate
    if fate is not None and fate.result == "failed" and fate.phase in (None, phase):
        plan.fail = True
    if engine.post.cut_between(who, _peers(engine, who)):
        plan.fail = True
    return plan


def _peers(engine: Engine, who: Subject) -> list[Subject]:
    return [other for other in engine.of_instance(who) if other is not who]


def _result(engine: Engine, who: Subject, point: Point, plan: PacePlan) -> Pace:
    stall_us = FOREVER if who.stalled_until_us >= FOREVER else who.stalled_until_us - engine.now_us
    stall_us = max(plan.stall_us, stall_us)
    takes = 0 if plan.at_once or who.truth in who.skip else plan.delay_us
    takes += max(0, stall_us)
    if plan.becomes is not None:
        if plan.becomes == "failed" and point in _CAN_FAIL:
            who.failing = True
            engine.took_effect((plan.becomes_by, SetState.key))
            return Pace(takes, fail=True)
        return _forced(engine, who, plan, takes)
    who.failing = who.failing or (plan.fail and point in _CAN_FAIL)
    return Pace(None if takes >= FOREVER else takes, fail=plan.fail)


def _forced(engine: Engine, who: Subject, plan: PacePlan, takes: int) -> Pace:
    """It never comes to where it was going: then it is somewhere else."""
    assert plan.becomes is not None
    forced = Inject(
        contract.InjectState(
            NOBODY, who.sled.id, who.propolis_id, vmm_state(plan.becomes), plan.illegal or plan.becomes != "failed"
        ),
        (plan.becomes_by, SetState.key),
    )
    if takes < FOREVER:
        engine.later(takes, lambda: engine.effects.append(forced))
    return Pace(None)
