"""Actions on reports, and on the way between sleds and Nexus.

Read before: engine/act/firing.py. Read next: engine/act/__init__.py.
"""

from __future__ import annotations

from sim_sled.engine.act.firing import Firing, does, on
from sim_sled.engine.plans import PublishPlan
from sim_sled.language.actions import Drop, Duplicate, Hold, NexusReplies, Partition, Release, Reorder, Stale


@does(Drop, plans=on(PublishPlan))
def drop(firing: Firing, action: Drop) -> None:
    if isinstance(firing.plan, PublishPlan):
        firing.plan.dropped, firing.plan.retry = True, action.retry
        firing.note("drops a report")


@does(Duplicate, plans=on(PublishPlan))
def duplicate(firing: Firing, action: Duplicate) -> None:
    if isinstance(firing.plan, PublishPlan):
        at_us = 0
        for copy in range(action.copies):
            at_us += action.gap.at(firing.draw("gap", f"/{copy}"))
            firing.plan.copies.append(at_us)
        firing.note(f"sends a report {1 + action.copies} times")


@does(Reorder, plans=on(PublishPlan))
def reorder(firing: Firing, action: Reorder) -> None:
    if isinstance(firing.plan, PublishPlan):
        firing.plan.window = max(firing.plan.window, action.window)
        firing.note("lets later reports pass")


@does(Stale, plans=on(PublishPlan))
def stale(firing: Firing, action: Stale) -> None:
    if isinstance(firing.plan, PublishPlan):
        firing.plan.stale.append((action.back, firing.rule.name))
        firing.note("repeats an older report")


@does(Hold, plans=lambda firing, action: isinstance(firing.plan, PublishPlan) and not action.publish)
def hold(firing: Firing, action: Hold) -> None:
    """The report that fired, or whatever matches from now on."""
    if isinstance(firing.plan, PublishPlan):
        firing.plan.held_by = firing.rule.name
        firing.plan.hold_lasts_us, firing.plan.hold_until = action.lasts, action.until
        firing.note("holds a report")
    else:
        firing.hands.post.hold(firing.rule, action, firing.who, firing.sled, firing.now_us)


@does(Release)
def release(firing: Firing, action: Release) -> None:
    if firing.hands.post.release(action.rule, firing.now_us):
        firing.worked(action)
    else:
        firing.had_no_effect(action, f"rule '{action.rule}' held nothing")


@does(Partition)
def partition(firing: Firing, action: Partition) -> None:
    firing.hands.post.partition(firing.rule, action, firing.now_us)


@does(NexusReplies)
def nexus_replies(firing: Firing, action: NexusReplies) -> None:
    firing.hands.post.replies(firing.rule, action, firing.now_us)
