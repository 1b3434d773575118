"""How long each waiting point of a VMM lasts: latencies of the scenario, then the rules for edges and phases.

A VMM asks when it *enters* a point, which is also when it enters the state that the point belongs to: so a state that
is passed in no time is noticed too. Where it is, and where that leads, its driver says (`Edge`); at which point a
scenario's edge is held up is decided here:

    CREATE creating -> starting    BACKENDS starting -> running (a target: migrating -> running)
    REBOOT rebooting -> running    HALT stopping -> stopped     RUNDOWN what was before -> destroyed or failed
    WAKE   running -> what was asked                            M_*     the phase of that name

Read before: engine/engine.py. Read next: play/conductor.py.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from propolis_stub.types import InstanceState
from propolis_stub.waiting import Edge, Pace, Point
from sim_sled.core import contract
from sim_sled.engine.act.firing import NOBODY
from sim_sled.engine.cast import Subject
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import Event, Inject, PacePlan, vmm_state
from sim_sled.language.actions import SetState
from sim_sled.language.distribution import drawn
from sim_sled.language.figures import FOREVER
from sim_sled.language.words import TRUTH_OF, On, Truth

_PHASES: Final = {p: p.value for p in Point if p.name.startswith("M_")}
_CAN_FAIL: Final = frozenset({Point.CREATE, Point.DEVICES, Point.BACKENDS})
_AT_ONCE: Final = Pace()


def pace(engine: Engine, vm_id: UUID, point: Point, occurrence: int, edge: Edge, *, now_us: int) -> Pace:
    """See `propolis_stub.waiting.Pacer`."""
    who = engine.cast.subjects.get(vm_id)
    if who is None or point is Point.RECONFIGURE:
        return _AT_ONCE
    plan = PacePlan()
    if edge.role is not None:
        who.role = edge.role
    if edge.state is not None and point is not Point.WAKE:  # at WAKE nothing has begun yet
        engine.entered(who, TRUTH_OF[edge.state], now_us, plan)
    if point in _PHASES:
        _phase(engine, who, point, occurrence, plan, now_us=now_us)
        return _result(engine, who, point, plan, now_us)
    if point is Point.DEVICES:
        # What stalls a start stalls the backends: that is where Propolis can wait for ever and still be stopped
        # (PR 3.2).
        who.stalled_until_us = max(who.stalled_until_us, min(FOREVER, now_us + plan.stall_us))
        takes = 0 if plan.at_once else plan.delay_us
        if plan.becomes not in (None, Truth.FAILED):
            return _forced(engine, who, plan, takes, now_us)
        fails = plan.becomes is Truth.FAILED
        if fails:
            engine.took_effect((plan.becomes_by, SetState.key))
        return Pace(takes, fail=fails)
    taken = _edge(point, edge)
    if taken is None:
        return _result(engine, who, point, plan, now_us)
    text = " -> ".join(taken)
    latency = engine.takes("edge", text)
    if latency is not None:
        plan.delay_us += drawn(latency, engine.seed, f"latency/{text}", who.key, occurrence)
    who.edge_taken = taken
    engine.happened(Event(On.EDGE, (taken,)), who, who.sled, plan, now_us)
    if point is Point.CREATE and who.sled.no_disks_until_us > now_us:
        plan.fail = True  # the agent is up before its disks are (omicron#9095)
    return _result(engine, who, point, plan, now_us)


def _edge(point: Point, edge: Edge) -> tuple[Truth, Truth] | None:
    """The edge of a scenario that is held up at this point; None: it is held up elsewhere, or no state changes."""
    if edge.state is None or edge.leads_to is None or edge.leads_to is edge.state:
        return None  # the second notice of a failed import changes nothing
    match point:
        case Point.CREATE if edge.state is not InstanceState.CREATING:
            return None  # a target's objects: it stays migrating
        case Point.WAKE if edge.state is not InstanceState.RUNNING:
            return None  # `creating -> starting` is held up where it is created
    return TRUTH_OF[edge.state], TRUTH_OF[edge.leads_to]


def _phase(engine: Engine, who: Subject, point: Point, occurrence: int, plan: PacePlan, *, now_us: int) -> None:
    phase = _PHASES[point]
    latency = engine.takes("migration", phase)
    if latency is not None:
        plan.delay_us += drawn(latency, engine.seed, f"latency/{phase}/{who.role}", who.key, occurrence)
    engine.happened(Event(On.MIGRATION, (phase,)), who, who.sled, plan, now_us)
    fate = who.fate
    if fate is not None and fate.result == "failed" and fate.phase in (None, phase):
        plan.fail = True
    others = [other for other in engine.cast.of_instance(who) if other is not who]
    if engine.post.cut_between(who, others, now_us):
        plan.fail = True


def _result(engine: Engine, who: Subject, point: Point, plan: PacePlan, now_us: int) -> Pace:
    stall_us = FOREVER if who.stalled_until_us >= FOREVER else who.stalled_until_us - now_us
    stall_us = max(plan.stall_us, stall_us)
    takes = 0 if plan.at_once or who.truth in who.skip else plan.delay_us
    takes += max(0, stall_us)
    if plan.becomes is not None:
        if plan.becomes is Truth.FAILED and point in _CAN_FAIL:
            engine.took_effect((plan.becomes_by, SetState.key))
            return Pace(takes, fail=True)
        return _forced(engine, who, plan, takes, now_us)
    return Pace(None if takes >= FOREVER else takes, fail=plan.fail)


def _forced(engine: Engine, who: Subject, plan: PacePlan, takes: int, now_us: int) -> Pace:
    """It never comes to where it was going: then it is somewhere else."""
    assert plan.becomes is not None
    forced = Inject(
        contract.InjectState(
            NOBODY,
            who.sled.id,
            who.propolis_id,
            vmm_state(plan.becomes),
            plan.illegal or plan.becomes is not Truth.FAILED,
        ),
        (plan.becomes_by, SetState.key),
    )
    if takes < FOREVER:
        engine.timers.at(now_us + takes, lambda _: engine.wanted.append(forced))
    return Pace(None)
