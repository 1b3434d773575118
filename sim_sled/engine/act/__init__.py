"""What each action does: a function per action, in a module per subject, found by the action's class (`DOING`).

Read before: engine/act/estate.py, engine/act/reports.py, engine/act/requests.py, engine/act/run.py,
engine/act/sleds.py, engine/act/vmms.py. Read next: engine/engine.py.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from nexus_client.types import brief
from sim_sled.engine.act import estate, reports, requests, run, sleds, vmms
from sim_sled.engine.act.firing import DOING, Doing, Firing, Needs
from sim_sled.engine.plans import RequestPlan
from sim_sled.language.actions import REQUEST_ONLY, Action, Delay

__all__ = ["carry_out", "estate", "reports", "requests", "run", "sleds", "vmms"]


def carry_out(firing: Firing) -> None:
    """The actions of `do` in order. What changes the plan does so now; a delay holds up everything else behind it."""
    later_us = 0
    for nth, action in enumerate(firing.rule.do):
        one = attrs.evolve(firing, nth=nth)
        if isinstance(action, Delay):
            takes = requests.delay_us(one, action)
            later_us += takes
            if one.plan is not None:
                one.plan.delay_us += takes
                one.note(f"delays by {brief(takes)}")
            continue
        doing = DOING[type(action)]
        if doing.plans(one, action):
            if not _is_decided(one, action):
                doing.does(one, action)
        elif later_us == 0:
            _do(attrs.evolve(one, plan=None), doing, action)
        else:
            one.later(later_us, _bound(one, doing, action))


def _is_decided(firing: Firing, action: Action) -> bool:
    """The first action that ends a request stands."""
    plan = firing.plan
    return isinstance(plan, RequestPlan) and not plan.passes and isinstance(action, REQUEST_ONLY)


def _bound(firing: Firing, doing: Doing, action: Action) -> Callable[[int], None]:
    return lambda now_us: _do(attrs.evolve(firing, plan=None, now_us=now_us), doing, action)


def _do(firing: Firing, doing: Doing, action: Action) -> None:
    """An action that stands on its own."""
    who = firing.who
    if doing.needs is Needs.VMM and (who is None or who.gone):
        gone = "the VMM was gone by then" if who is not None else "there was nobody to do it to"
        firing.had_no_effect(action, gone)
    elif doing.needs is Needs.SLED and firing.sled is None:
        firing.had_no_effect(action, "there was nobody to do it to")
    else:
        doing.does(firing, action)
