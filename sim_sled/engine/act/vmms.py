"""Actions on a VMM.

Read before: engine/act/firing.py. Read next: engine/act/__init__.py.
"""

from __future__ import annotations

from propolis_stub.contract import Hold, Release
from propolis_stub.guest_events import GuestEvent
from propolis_stub.types import Role
from sim_sled.core import contract
from sim_sled.engine.act.firing import NOBODY, Firing, Needs, does, on
from sim_sled.engine.cast import Subject
from sim_sled.engine.plans import PacePlan, vmm_state
from sim_sled.language.actions import (
    Action,
    ForgetVmm,
    Guest,
    KillPropolis,
    MigrationFate,
    SetState,
    SkipStates,
    Stall,
)
from sim_sled.language.figures import FOREVER, lasting
from sim_sled.language.words import On, Truth


def _who(firing: Firing) -> Subject:
    assert firing.who is not None, "needed"
    return firing.who


@does(SetState, needs=Needs.VMM, plans=on(PacePlan))
def set_state(firing: Firing, action: SetState) -> None:
    """Instead of where it was going, or at once."""
    if isinstance(firing.plan, PacePlan):
        plan = firing.plan
        plan.becomes, plan.becomes_by, plan.illegal = action.state, firing.rule.name, action.illegal
    else:
        who = _who(firing)
        state = vmm_state(action.state)
        firing.inject(contract.InjectState(NOBODY, who.sled.id, who.propolis_id, state, action.illegal), action)
    firing.note(f"sets {action.state}")


@does(Stall, needs=Needs.VMM, plans=on(PacePlan))
def stall(firing: Firing, action: Stall) -> None:
    """Where it is about to wait, or whatever it waits for now or next."""
    if isinstance(firing.plan, PacePlan):
        firing.plan.stall_us = max(firing.plan.stall_us, action.lasts)
    else:
        _freeze(firing, action, _who(firing))
    until_us = min(FOREVER, firing.now_us + action.lasts)
    firing.note(f"stalls it {lasting(action.lasts)}", stalls_until_us=until_us)


def _freeze(firing: Firing, action: Stall, who: Subject) -> None:
    until_us = min(FOREVER, firing.now_us + action.lasts)
    if until_us >= who.stalled_until_us or not who.frozen_by:  # of several, the one that lasts longest holds it
        who.frozen_by = firing.rule.name
    who.stalled_until_us = max(who.stalled_until_us, until_us)
    _propolis(firing, who, Hold(), action)
    if action.lasts < FOREVER:

        def thaw(now_us: int) -> None:
            if not who.gone and now_us >= who.stalled_until_us:
                who.frozen_by = ""  # nothing is left that somebody could release
                _propolis(firing, who, Release())

        firing.later(action.lasts, thaw)


def _propolis(firing: Firing, who: Subject, item: Hold | Release, action: Action | None = None) -> None:
    """Propolis's timed waiting stands still, or goes on."""
    firing.inject(contract.PropolisInput(NOBODY, who.sled.id, who.propolis_id, item), action)


@does(SkipStates, needs=Needs.VMM, plans=on(PacePlan))
def skip_states(firing: Firing, action: SkipStates) -> None:
    who = _who(firing)
    who.skip |= frozenset(action.states)
    if isinstance(firing.plan, PacePlan):
        firing.plan.at_once = firing.plan.at_once or who.truth in action.states
        firing.note(f"skips {' '.join(action.states)}")


@does(KillPropolis, needs=Needs.VMM)
def kill_propolis(firing: Firing, action: KillPropolis) -> None:
    who = _who(firing)
    firing.inject(contract.KillPropolis(NOBODY, who.sled.id, who.propolis_id, action.restart), action)
    firing.note("kills its Propolis")


@does(ForgetVmm, needs=Needs.VMM)
def forget_vmm(firing: Firing, action: ForgetVmm) -> None:
    who = _who(firing)
    firing.inject(contract.ForgetVmm(NOBODY, who.sled.id, who.propolis_id), action)
    firing.note("makes the agent forget it")


@does(Guest, needs=Needs.VMM)
def guest(firing: Firing, action: Guest) -> None:
    who = _who(firing)
    firing.inject(contract.InjectGuest(NOBODY, who.sled.id, who.propolis_id, GuestEvent(action.event)), action)
    firing.note(f"lets its guest {action.event}")


def _decides_this_phase(firing: Firing, action: MigrationFate) -> bool:
    return isinstance(firing.plan, PacePlan) and firing.on is On.MIGRATION and action.phase is None


@does(MigrationFate, needs=Needs.VMM, plans=_decides_this_phase)
def migration_fate(firing: Firing, action: MigrationFate) -> None:
    """Decide how the migration of this VMM ends; both of its sides are told. One that is to come is not meant: it
    begins with no fate.
    """
    who, hands = _who(firing), firing.hands
    begins = isinstance(firing.plan, PacePlan)
    if not begins and not any(each.truth is Truth.MIGRATING for each in hands.cast.of_instance(who)):
        firing.had_no_effect(action, "the VM was not migrating")
        return
    firing.worked(action)
    sides = [each for each in hands.cast.of_instance(who) if each.role is not None] if who.role is not None else []
    for side in sides or [who]:
        side.fate = action
        firing.note(f"lets its migration be {action.result}", side)
        told = action.source if side.role is Role.SOURCE else action.target if side.role is Role.TARGET else None
        if told == "silent":
            hands.post.mute(firing.rule, side)
        elif told == "dies":
            firing.inject(contract.KillPropolis(NOBODY, side.sled.id, side.propolis_id, restart=True))
    if isinstance(firing.plan, PacePlan):
        firing.plan.fail = firing.plan.fail or action.result == "failed"
