"""Actions on a request of Nexus, before it is carried out.

Read before: engine/act/firing.py. Read next: engine/act/__init__.py.
"""

from __future__ import annotations

from sim_sled.core.spoil import How, Spoil
from sim_sled.engine.act.firing import Firing, does, on
from sim_sled.engine.plans import RequestPlan
from sim_sled.language.actions import Delay, Dribble, Fail, Garbage, Hang, Reset, Truncate
from sim_sled.language.figures import FOREVER, lasting


def delay_us(firing: Firing, action: Delay) -> int:
    """How long this delay lasts this time."""
    takes = action.base.at(firing.draw("delay"))
    if firing.sled is not None:
        takes += action.per_vmm.at(firing.draw("per_vmm")) * firing.sled.vmms
    return min(takes, FOREVER)


@does(Delay)
def delay(_firing: Firing, _action: Delay) -> None:
    """Nothing: it is the time between the others (`carry_out`)."""


@does(Fail, plans=on(RequestPlan))
def fail(firing: Firing, action: Fail) -> None:
    if isinstance(firing.plan, RequestPlan):
        firing.plan.fail = action
        firing.note(f"answers {action.status}")


@does(Hang, plans=on(RequestPlan))
def hang(firing: Firing, action: Hang) -> None:
    if isinstance(firing.plan, RequestPlan):
        firing.plan.hang_us = action.lasts
        firing.note(f"hangs {lasting(action.lasts)}")


@does(Reset, plans=on(RequestPlan))
def reset(firing: Firing, _action: Reset) -> None:
    if isinstance(firing.plan, RequestPlan):
        firing.plan.reset = True
        firing.note("closes the connection")


@does(Dribble, plans=on(RequestPlan))
def dribble(firing: Firing, action: Dribble) -> None:
    _spoil(firing, Spoil(How.DRIBBLE, action.lasts))


@does(Truncate, plans=on(RequestPlan))
def truncate(firing: Firing, _action: Truncate) -> None:
    _spoil(firing, Spoil(How.TRUNCATE))


@does(Garbage, plans=on(RequestPlan))
def garbage(firing: Firing, _action: Garbage) -> None:
    _spoil(firing, Spoil(How.GARBAGE))


def _spoil(firing: Firing, spoil: Spoil) -> None:
    if isinstance(firing.plan, RequestPlan):
        firing.plan.spoil = spoil
        firing.note(f"its answer {spoil.how.value}")
