"""Actions on the run itself: its trace, its triggers, its Nexus.

Read before: engine/act/firing.py. Read next: engine/act/__init__.py.
"""

from __future__ import annotations

from sim_sled.engine.act.firing import Firing, does
from sim_sled.engine.plans import RestartNexus as Restarted
from sim_sled.engine.plans import TakeSnapshot
from sim_sled.language.actions import Fire, Note, RestartNexus, Snapshot


@does(Note)
def note(firing: Firing, action: Note) -> None:
    firing.tell("note", action.text, who=firing.who)


@does(Snapshot)
def snapshot(firing: Firing, action: Snapshot) -> None:
    firing.want(TakeSnapshot(action.name))


@does(Fire)
def fire(firing: Firing, action: Fire) -> None:
    firing.hands.rules.fire(action.manual, firing.now_us, firing.who, firing.sled)


@does(RestartNexus)
def restart_nexus(firing: Firing, action: RestartNexus) -> None:
    firing.want(Restarted(action.point, action.down.at(firing.draw("down"))))
