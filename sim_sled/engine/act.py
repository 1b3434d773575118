"""What each action does when its rule fires.

Read before: engine/engine.py, engine/plans.py. Read next: engine/reports.py, engine/rule_pacer.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from propolis_stub.contract import Hold, Release
from sim_sled.core import contract
from sim_sled.engine.cast import SledInfo, Subject
from sim_sled.engine.plans import (
    Inject,
    PacePlan,
    Power,
    PublishPlan,
    RequestPlan,
    RestartNexus,
    TakeSnapshot,
    vmm_state,
)
from sim_sled.language import actions as act
from sim_sled.language.distribution import Distribution
from sim_sled.language.draw import draw, happens
from sim_sled.language.figures import FOREVER, show_duration
from sim_sled.language.schema import Rule

if TYPE_CHECKING:
    from sim_sled.engine.engine import Engine

NOBODY: Final = 0
"""The ticket of what nobody waits for."""


@attrs.frozen
class Context:
    """Whom a firing concerns, and what is about to happen."""

    who: Subject | None
    sled: SledInfo | None
    kind: str
    plan: RequestPlan | PacePlan | PublishPlan | None = None
    occurrence: int = 0

    def key(self) -> str:
        """By which chance is drawn."""
        if self.who is not None:
            return self.who.key
        return self.sled.name if self.sled is not None else ""


def carry_out(engine: Engine, rule: Rule, context: Context) -> None:
    """The actions in order. What changes the plan does so now; a delay holds up everything else behind it."""
    later_us = 0
    for i, action in enumerate(rule.do):
        if isinstance(action, act.Delay):
            takes = _delay_us(engine, rule, context, action, i)
            later_us += takes
            if context.plan is not None:
                context.plan.delay_us += takes
                engine.note(context.who, rule, f"delays by {show_duration(takes)}")
        elif context.plan is not None and _planned(engine, rule, context, action, i):
            continue
        elif later_us == 0:
            _do(engine, rule, context, action, i)
        else:
            engine.later(later_us, _bound(engine, rule, context, action, i))


def _bound(engine: Engine, rule: Rule, context: Context, action: act.Action, i: int) -> Callable[[], None]:
    return lambda: _do(engine, rule, attrs.evolve(context, plan=None), action, i)


def _delay_us(engine: Engine, rule: Rule, context: Context, action: act.Delay, i: int) -> int:
    u = draw(engine.seed, f"delay/{rule.name}/{i}", context.key(), context.occurrence)
    takes = action.base.at(u)
    if context.sled is not None:
        v = draw(engine.seed, f"per_vmm/{rule.name}/{i}", context.key(), context.occurrence)
        takes += action.per_vmm.at(v) * context.sled.vmms
    return min(takes, FOREVER)


def _planned(engine: Engine, rule: Rule, context: Context, action: act.Action, i: int) -> bool:
    """Actions on what is about to happen; False: it is none of these."""
    plan = context.plan
    if isinstance(plan, RequestPlan):
        return _planned_request(engine, rule, context, plan, action)
    if isinstance(plan, PublishPlan):
        return _planned_report(engine, rule, context, action, i)
    assert isinstance(plan, PacePlan)
    return _planned_pace(engine, rule, context, plan, action)


def _planned_request(engine: Engine, rule: Rule, context: Context, plan: RequestPlan, action: act.Action) -> bool:
    if not plan.passes:
        return isinstance(action, act.REQUEST_ONLY)  # the first terminal action stands
    match action:
        case act.Fail():
            plan.fail = action
            engine.note(context.who, rule, f"answers {action.status}")
        case act.Hang():
            plan.hang_us = action.lasts
            engine.note(context.who, rule, f"hangs for {show_duration(action.lasts)}")
        case act.Reset():
            plan.reset = True
            engine.note(context.who, rule, "closes the connection")
        case _:
            return False
    return True


def _planned_report(engine: Engine, rule: Rule, context: Context, action: act.Action, i: int) -> bool:
    plan = context.plan
    assert isinstance(plan, PublishPlan)
    match action:
        case act.Drop():
            plan.dropped, plan.retry = True, action.retry
            engine.note(context.who, rule, "drops a report")
        case act.Duplicate():
            at = 0
            for copy in range(action.copies):
                at += action.gap.at(
                    draw(engine.seed, f"gap/{rule.name}/{i}/{copy}", context.key(), context.occurrence)
                )
                plan.copies.append(at)
            engine.note(context.who, rule, f"sends a report {1 + action.copies} times")
        case act.Reorder():
            plan.window = max(plan.window, action.window)
            engine.note(context.who, rule, "lets later reports pass")
        case act.Stale():
            plan.stale.append((action.back, rule.name))
            engine.note(context.who, rule, "repeats an older report")
        case act.Hold() if not action.publish:
            plan.held_by, plan.hold_lasts_us, plan.hold_until = rule.name, action.lasts, action.until
            engine.note(context.who, rule, "holds a report")
        case _:
            return False
    return True


def _planned_pace(engine: Engine, rule: Rule, context: Context, plan: PacePlan, action: act.Action) -> bool:
    match action:
        case act.Stall():
            plan.stall_us = max(plan.stall_us, action.lasts)
            engine.note(context.who, rule, f"stalls it for {show_duration(action.lasts)}")
        case act.SetState():
            plan.becomes, plan.becomes_by, plan.illegal = action.state, rule.name, action.illegal
            engine.note(context.who, rule, f"sets {action.state}")
        case act.SkipStates():
            assert context.who is not None
            context.who.skip |= frozenset(action.states)
            plan.at_once = plan.at_once or context.who.truth in action.states
            engine.note(context.who, rule, f"skips {' '.join(action.states)}")
        case act.MigrationFate() if context.kind == "migration" and action.phase is None:
            _fate(engine, rule, context, action)
            plan.fail = plan.fail or action.result == "failed"
        case _:
            return False
    return True


def _do(engine: Engine, rule: Rule, context: Context, action: act.Action, i: int) -> None:
    """An action that stands on its own."""
    who, sled = context.who, context.sled
    name = sled.name if sled is not None else "-"
    cause = (rule.name, action.key)
    match action:
        case act.Note():
            engine.tell("note", who, name, action.text, rule.mark())
        case act.Snapshot():
            engine.effects.append(TakeSnapshot(action.name))
        case act.Fire():
            engine.fire(action.manual, who, sled)
        case act.Release():
            if engine.post.release(action.rule):
                engine.took_effect(cause)
            else:
                engine.had_no_effect(cause, f"rule '{action.rule}' held nothing")
        case act.Hold():
            engine.post.hold(rule, action, who, sled)
        case act.Partition():
            engine.post.partition(rule, action)
        case act.NexusReplies():
            engine.post.replies(rule, action)
        case act.RestartNexus():
            engine.effects.append(RestartNexus(action.point, _takes(engine, rule, context, action.down, i)))
        case act.RestartAgent() | act.RebootSled() | act.PowerOffSled() if sled is not None:
            _sled_down(engine, rule, context, action, i)
        case _ if who is not None and not who.gone:
            _do_to_vmm(engine, rule, who, action, context)
        case _:
            gone = "the VMM was gone by then" if who is not None else "there was nobody to do it to"
            engine.had_no_effect(cause, gone)


def _do_to_vmm(engine: Engine, rule: Rule, who: Subject, action: act.Action, context: Context) -> None:
    sled_id, propolis_id = who.sled.id, who.propolis_id
    cause = (rule.name, action.key)
    match action:
        case act.SetState():
            engine.effects.append(
                Inject(
                    contract.InjectState(NOBODY, sled_id, propolis_id, vmm_state(action.state), action.illegal), cause
                )
            )
            engine.note(who, rule, f"sets {action.state}")
        case act.Stall():
            stall(engine, who, action.lasts, cause)
            engine.note(who, rule, f"stalls it for {show_duration(action.lasts)}")
        case act.SkipStates():
            who.skip |= frozenset(action.states)
        case act.KillPropolis():
            engine.effects.append(Inject(contract.KillPropolis(NOBODY, sled_id, propolis_id, action.restart), cause))
            engine.note(who, rule, "kills its Propolis")
        case act.ForgetVmm():
            engine.effects.append(Inject(contract.ForgetVmm(NOBODY, sled_id, propolis_id), cause))
            engine.note(who, rule, "makes the agent forget it")
        case act.MigrationFate():
            _fate(engine, rule, context, action)


def stall(engine: Engine, who: Subject, lasts_us: int, cause: tuple[str, str] | None = None) -> None:
    """Whatever the VMM waits for, now or next, does not come before that."""
    who.stalled_until_us = max(who.stalled_until_us, min(FOREVER, engine.now_us + lasts_us))
    engine.effects.append(attrs.evolve(_propolis(who, Hold()), cause=cause))
    if lasts_us < FOREVER:
        engine.later(lasts_us, lambda: _thaw(engine, who))


def _propolis(who: Subject, item: Hold | Release) -> Inject:
    """Propolis's timed waiting stands still, or goes on."""
    return Inject(contract.PropolisInput(NOBODY, who.sled.id, who.propolis_id, item))


def _thaw(engine: Engine, who: Subject) -> None:
    if not who.gone and engine.now_us >= who.stalled_until_us:
        engine.effects.append(_propolis(who, Release()))


def _fate(engine: Engine, rule: Rule, context: Context, action: act.MigrationFate) -> None:
    """Decide how the migration of this VMM ends; both of its sides are told."""
    assert context.who is not None
    who = context.who
    sides = [s for s in engine.of_instance(who) if s.role is not None] if who.role is not None else []
    for side in sides or [who]:
        side.fate = action
        engine.note(side, rule, f"lets its migration be {action.result}")
        if side.role == "source" and action.source == "silent":
            engine.post.mute(rule, side)
        if side.role == "target" and action.target == "silent":
            engine.post.mute(rule, side)
        if side.role == "source" and action.source == "dies":
            engine.effects.append(Inject(contract.KillPropolis(NOBODY, side.sled.id, side.propolis_id, restart=True)))


def _takes(engine: Engine, rule: Rule, context: Context, takes: Distribution, i: int) -> int:
    return takes.at(draw(engine.seed, f"down/{rule.name}/{i}", context.key(), context.occurrence))


def _sled_down(
    engine: Engine, rule: Rule, context: Context, action: act.RestartAgent | act.RebootSled | act.PowerOffSled, i: int
) -> None:
    sled = context.sled
    assert sled is not None
    if sled.down == "power":
        engine.had_no_effect((rule.name, action.key), f"{sled.name} had no power; nothing restarts without")
        return
    engine.took_effect((rule.name, action.key))
    lasts = action.lasts if isinstance(action, act.PowerOffSled) else _takes(engine, rule, context, action.down, i)
    keep = action.keep_vmms if isinstance(action, act.RestartAgent) else 0
    sled.down = {act.RestartAgent: "agent", act.RebootSled: "reboot", act.PowerOffSled: "power"}[type(action)]
    sled.down_until_us = engine.now_us + lasts
    engine.tell("sled", None, sled.name, f"{sled.down} down for {show_duration(lasts)}", rule.mark())
    for who in list(engine.subjects.values()):
        if who.sled is sled and not who.gone:
            kept = happens(draw(engine.seed, f"keep/{rule.name}/{i}", who.key, context.occurrence), keep)
            engine.note(who, rule, f"{sled.down} down")
            if not kept:
                engine.effects.append(Inject(contract.ForgetVmm(NOBODY, sled.id, who.propolis_id)))
    if sled.down == "power":
        engine.effects.append(Power(sled.id, on=False))
    if isinstance(action, act.RebootSled):
        sled.no_disks_until_us = sled.down_until_us + action.early_accept
    if lasts < FOREVER:
        engine.later(lasts, lambda: engine.sled_up(sled))
