"""Actions on a whole sled: its agent restarts, it reboots, it loses power.

Read before: engine/act/firing.py. Read next: engine/act/__init__.py.
"""

from __future__ import annotations

from sim_sled.core import contract
from sim_sled.engine.act.firing import NOBODY, Firing, Needs, does
from sim_sled.engine.cast import Down
from sim_sled.engine.plans import Expunge, Power
from sim_sled.language.actions import Action, Clock, ExpungeSled, PowerOffSled, RebootSled, RestartAgent
from sim_sled.language.draw import draw, happens
from sim_sled.language.figures import FOREVER, show_duration


@does(RestartAgent, needs=Needs.SLED)
def restart_agent(firing: Firing, action: RestartAgent) -> None:
    _goes_down(firing, action, Down.AGENT, action.down.at(firing.draw("down")), keep=action.keep_vmms)


@does(RebootSled, needs=Needs.SLED)
def reboot_sled(firing: Firing, action: RebootSled) -> None:
    if _goes_down(firing, action, Down.REBOOT, action.down.at(firing.draw("down"))) and firing.sled is not None:
        firing.sled.no_disks_until_us = firing.sled.down_until_us + action.early_accept


@does(Clock, needs=Needs.SLED)
def clock(firing: Firing, action: Clock) -> None:
    assert firing.sled is not None, "needed"
    firing.inject(contract.JumpClock(NOBODY, firing.sled.id, -action.jump if action.back else action.jump), action)


@does(ExpungeSled, needs=Needs.SLED)
def expunge_sled(firing: Firing, _action: ExpungeSled) -> None:
    assert firing.sled is not None, "needed"
    firing.tell("sled", "expunged")
    firing.want(Expunge(firing.sled.id))


@does(PowerOffSled, needs=Needs.SLED)
def power_off_sled(firing: Firing, action: PowerOffSled) -> None:
    if _goes_down(firing, action, Down.POWER, action.lasts) and firing.sled is not None:
        firing.want(Power(firing.sled.id, on=False))


def _goes_down(firing: Firing, action: Action, why: Down, lasts_us: int, keep: int = 0) -> bool:
    """`keep`: the share of its VMMs that it still knows afterwards. False: it is off, and nothing restarts."""
    sled, hands = firing.sled, firing.hands
    assert sled is not None, "needed"
    if sled.down is Down.POWER:
        firing.had_no_effect(action, f"{sled.name} had no power; nothing restarts without")
        return False
    firing.worked(action)
    sled.down, sled.down_until_us = why, firing.now_us + lasts_us
    firing.tell("sled", f"{why} down for {show_duration(lasts_us)}")
    what = f"keep/{firing.rule.name}/{firing.nth}"
    for who in hands.cast.on(sled):
        firing.note(f"{why} down", who)
        if not happens(draw(hands.seed, what, who.key, firing.occurrence), keep):
            firing.inject(contract.ForgetVmm(NOBODY, sled.id, who.propolis_id))
    if lasts_us < FOREVER:
        firing.later(lasts_us, lambda now_us: hands.rules.sled_up(sled, now_us))
    return True
