"""The way between sleds and Nexus: what becomes of each report, who is cut off, what is held.

A machine of its own: it is told of each report, with what the rules have made of it, and of the time; what it wants
done is among the effects, now or when a timer of its own runs. It asks no rule.

A sled has one report per VMM in flight, so later ones wait behind a held one by themselves. To let one fall behind
others (`reorder`), the sled is told it was delivered and the report is kept here until later ones have passed.

Read before: engine/cast.py, engine/match.py, engine/plans.py, engine/timers.py. Read next: engine/act/firing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Final, Protocol
from uuid import UUID

import attrs

from nexus_client.outbox import Delivered, Outcome, Permanent, Transient
from nexus_client.types import SledVmmState
from nexus_client.verdict import is_final
from sim_sled.engine.cast import Cast, Down, SledInfo, Subject
from sim_sled.engine.match import facts_of, means, means_sled
from sim_sled.engine.plans import (
    CLIENT_LOST_US,
    Answer,
    Deliver,
    EngineEffect,
    Publication,
    PublishPlan,
    RequestPlan,
    Tell,
)
from sim_sled.engine.timers import Timers
from sim_sled.language import actions as act
from sim_sled.language.draw import draw, happens
from sim_sled.language.figures import FOREVER, SHARE_ONE, show_duration
from sim_sled.language.schema import Rule

REORDER_LOST_US: Final = 60_000_000
"""A report that was let fall behind arrives then at the latest, if no later one passes it."""


@attrs.define(eq=False)
class Held:
    """A report that is kept back. `rule` "" and `why` say what else keeps it."""

    publication: Publication
    rule: str
    until: str | None = None
    why: str = ""


@attrs.define(eq=False)
class HoldFilter:
    """`hold` outside of `publish`: keeps back what will be published."""

    rule: Rule
    action: act.Hold
    who: Subject | None
    until_us: int
    number: int = 0


@attrs.frozen
class Cut:
    """`partition`: nothing passes between these sleds and the peer."""

    rule: Rule
    action: act.Partition
    until_us: int


@attrs.frozen
class Replying:
    """`nexus_replies`."""

    rule: Rule
    action: act.NexusReplies
    until_us: int


@attrs.define(eq=False)
class Late:
    """A report that falls behind until so many others have passed."""

    publication: Publication
    left: int


class Causes(Protocol):
    """Told whether what an action of a rule wanted came about; `cause`: the rule and the action."""

    def took_effect(self, cause: tuple[str, str], /) -> None: ...

    def had_no_effect(self, cause: tuple[str, str], why: str, /) -> None: ...


@attrs.define(eq=False)
class Post:
    """All that is on its way. `doorbell`: reports wait until Nexus asks (`agent.reporting`)."""

    seed: int
    cast: Cast
    timers: Timers
    wanted: list[EngineEffect]
    tell: Tell
    causes: Causes
    doorbell: bool = False
    held: dict[Held, None] = attrs.field(factory=dict)
    filters: list[HoldFilter] = attrs.field(factory=list)
    """Those that mean more than one VMM."""
    cuts: list[Cut] = attrs.field(factory=list)
    replying: list[Replying] = attrs.field(factory=list)
    _held_of: dict[UUID, dict[Held, None]] = attrs.field(factory=dict)
    _filters_of: dict[UUID, list[HoldFilter]] = attrs.field(factory=dict)
    _late_of: dict[UUID, list[Late]] = attrs.field(factory=dict)
    _awaited: set[str] = attrs.field(factory=set)
    """What holds have ever waited for: most rules that fire release nothing."""
    _filter_count: int = 0

    # ---- reports

    def publish(self, publication: Publication, who: Subject, sled: SledInfo, plan: PublishPlan, now_us: int) -> None:
        """One report of the rack of which the rules have made `plan`."""
        kept = who.published
        if not kept or kept[-1].vmm_state.gen < publication.body.vmm_state.gen:
            kept.append(publication.body)
        self._filtered(who, publication.body.vmm_state.state.value, plan, now_us)
        if self.doorbell:
            self._keep(Held(publication, "", why="doorbell: waits until Nexus asks"))
        else:
            self._send(publication, who, sled, plan, now_us)

    def keep_back(self, publication: Publication, why: str) -> None:
        """No rule was asked: its sled is down. It is published when the sled is up again."""
        self._keep(Held(publication, "", why=why))

    def deliver(self, publication: Publication, now_us: int) -> None:
        """A report of somebody whom no rule can mean."""
        self._deliver(publication, 0, now_us)

    def _send(self, publication: Publication, who: Subject, sled: SledInfo, plan: PublishPlan, now_us: int) -> None:
        tell = self.tell
        state = publication.body.vmm_state.state.value
        if plan.dropped:
            tell("net", who, sled.name, f"{state} dropped{'' if plan.retry else ' for good'}", None)
            outcome: Outcome = Transient("lost on its way") if plan.retry else Delivered()
            self.wanted.append(Answer(publication, outcome, plan.delay_us))
            return
        # what is sent beside a report goes the same way
        passes = self._stopped_by(publication, sled.name, now_us) is None
        for back, rule in plan.stale:
            self._repeat(publication, who, back, (rule, act.Stale.key), passes=passes)
        for at_us in plan.copies if passes else ():
            tell("net", who, sled.name, f"{state} duplicated", None)
            self.wanted.append(Deliver(publication, publication.body, plan.delay_us + at_us, answered=False))
        if plan.held_by:
            tell("net", who, sled.name, f"{state} held by {plan.held_by}", None)
            held = Held(publication, plan.held_by, plan.hold_until)
            self._keep(held)
            if plan.hold_lasts_us < FOREVER:
                self.timers.at(now_us + plan.hold_lasts_us, lambda then_us: self._let_go([held], then_us))
        elif plan.window and passes:
            tell("net", who, sled.name, f"{state} falls behind", None)
            late = Late(publication, plan.window - 1)
            self._late_of.setdefault(publication.propolis_id, []).append(late)
            self.wanted.append(Answer(publication, Delivered(), plan.delay_us))
            self.timers.at(now_us + REORDER_LOST_US, lambda _: self._arrive_late([late]))
        else:
            self._deliver(publication, plan.delay_us, now_us)

    def _deliver(self, publication: Publication, after_us: int, now_us: int) -> None:
        """On its way to Nexus, unless the way is cut or Nexus answers badly."""
        sled = self.cast.by_id.get(publication.sled_id)
        name = sled.name if sled is not None else "-"
        who = self.cast.who(publication.propolis_id)
        stopped = self._stopped_by(publication, name, now_us)
        if isinstance(stopped, Cut):
            if who is not None:
                who.remember(stopped.rule, "cuts its sled off from Nexus", now_us)
            self.wanted.append(Answer(publication, Transient("timed out"), after_us + CLIENT_LOST_US))
        elif stopped is not None:
            status = stopped.action.status
            if who is not None:
                who.remember(stopped.rule, f"lets Nexus answer {status}", now_us)
            self.tell("net", who, name, f"{publication.body.vmm_state.state.value} answered {status}", None)
            self.wanted.append(Answer(publication, outcome_of(status), after_us))
        else:
            lost = self.cut(name, "nexus", "in", now_us) is not None
            self.wanted.append(Deliver(publication, publication.body, after_us, answered=True, answer_lost=lost))
            self._passed(publication)

    def _stopped_by(self, publication: Publication, sled: str, now_us: int) -> Cut | Replying | None:
        """Why what is sent now does not reach Nexus, or is not taken by it."""
        cut = self.cut(sled, "nexus", "out", now_us)
        if cut is not None:
            return cut
        for replying in self.replying:
            if now_us < replying.until_us and self._replies_badly(replying, publication, sled):
                return replying
        return None

    def _replies_badly(self, replying: Replying, publication: Publication, sled: str) -> bool:
        rule, chance = replying.rule, replying.action.chance
        if rule.for_.names_sleds() and not means_sled(rule.for_, sled):
            return False
        who = self.cast.who(publication.propolis_id)
        key = who.key if who is not None else str(publication.propolis_id)
        nth = publication.body.vmm_state.gen * 1_000 + publication.attempt
        return chance >= SHARE_ONE or happens(draw(self.seed, f"replies/{rule.name}", key, nth), chance)

    def _filtered(self, who: Subject, state: str, plan: PublishPlan, now_us: int) -> None:
        if self.filters:
            self.filters = [f for f in self.filters if f.until_us > now_us]
        found = self.filters
        own = self._filters_of.get(who.propolis_id) if self._filters_of else None
        if own is not None:
            own = self._set_filters(who.propolis_id, [f for f in own if f.until_us > now_us])
            found = sorted([*found, *own], key=lambda f: f.number)  # whichever was set first holds it
        for f in found:
            meant = f.who is who if f.who is not None else means(f.rule.for_, facts_of(who), self.seed, f.rule.name)
            if meant and any(fnmatchcase(state, pattern) for pattern in f.action.publish) and not plan.held_by:
                plan.held_by, plan.hold_until = f.rule.name, f.action.until
                plan.hold_lasts_us = FOREVER if f.until_us >= FOREVER else f.until_us - now_us
                who.remember(f.rule, f"holds {state}", now_us)

    def _repeat(
        self, publication: Publication, who: Subject, back: int, cause: tuple[str, str], *, passes: bool
    ) -> None:
        older = [body for body in who.published if body.vmm_state.gen < publication.body.vmm_state.gen]
        if not passes:
            self.causes.had_no_effect(cause, f"nothing that {who.short} tells reaches Nexus, or is taken by it")
        elif len(older) < back:
            self.causes.had_no_effect(cause, f"nothing that is {back} publications older was told of {who.short}")
        else:
            self.causes.took_effect(cause)
            body = older[-back]
            self.tell("net", who, who.sled.name, f"{body.vmm_state.state.value} repeated", None)
            self.wanted.append(Deliver(publication, body, 1_000, answered=False))

    def _passed(self, publication: Publication) -> None:
        """What has fallen behind it has one report less to wait for."""
        waiting = self._late_of.get(publication.propolis_id) if self._late_of else None
        if waiting is None:
            return
        arrived = []
        for late in waiting:
            late.left -= 1
            if late.left <= 0:
                arrived.append(late)
        self._arrive_late(arrived)

    def _arrive_late(self, arrived: list[Late]) -> None:
        for late in arrived:
            publication = late.publication
            waiting = self._late_of.get(publication.propolis_id, [])
            if late in waiting:
                waiting.remove(late)
                if not waiting:
                    del self._late_of[publication.propolis_id]
                self.wanted.append(Deliver(publication, publication.body, 1_000, answered=False))

    # ---- holding

    def hold(self, rule: Rule, action: act.Hold, who: Subject | None, sled: SledInfo | None, now_us: int) -> None:
        """Keep back what matches from now on."""
        until_us = FOREVER if action.lasts >= FOREVER else now_us + action.lasts
        self._add_filter(HoldFilter(rule, action, who, until_us))
        name = sled.name if sled is not None else "-"
        self.tell("net", who, name, f"holds {' '.join(action.publish)}", rule.mark())

    def mute(self, rule: Rule, who: Subject) -> None:
        """Nothing of this VMM is reported any more."""
        self._add_filter(HoldFilter(rule, act.Hold(publish=("*",)), who, FOREVER))

    def _add_filter(self, one: HoldFilter) -> None:
        self._filter_count += 1
        one.number = self._filter_count
        if one.action.until is not None:
            self._awaited.add(one.action.until)
        if one.who is None:
            self.filters.append(one)
        else:
            self._filters_of.setdefault(one.who.propolis_id, []).append(one)

    def _set_filters(self, propolis_id: UUID, left: list[HoldFilter]) -> list[HoldFilter]:
        if left:
            self._filters_of[propolis_id] = left
        else:
            del self._filters_of[propolis_id]
        return left

    def _drop_filters(self, over: Callable[[HoldFilter], bool]) -> bool:
        """Those for which `over` holds; True if there were any."""
        before = len(self.filters)
        self.filters = [f for f in self.filters if not over(f)]
        dropped = len(self.filters) < before
        for propolis_id, own in list(self._filters_of.items()):
            left = [f for f in own if not over(f)]
            dropped = dropped or len(left) < len(own)
            self._set_filters(propolis_id, left)
        return dropped

    def _keep(self, one: Held) -> None:
        self.held[one] = None
        self._held_of.setdefault(one.publication.propolis_id, {})[one] = None
        if one.until is not None:
            self._awaited.add(one.until)

    def _drop(self, one: Held) -> None:
        del self.held[one]
        of_vmm = self._held_of[one.publication.propolis_id]
        del of_vmm[one]
        if not of_vmm:
            del self._held_of[one.publication.propolis_id]

    def holds(self, rule: str) -> bool:
        """Whether a rule holds something, or will."""
        filters = [self.filters, *self._filters_of.values()]
        return any(one.rule == rule for one in self.held) or any(
            f.rule.name == rule for each in filters for f in each
        )

    def release(self, rule: str, now_us: int) -> bool:
        """Let go what a rule holds, and hold nothing for it any more. False if it held nothing."""
        held = [one for one in self.held if one.rule == rule]
        dropped = self._drop_filters(lambda f: f.rule.name == rule)
        self._let_go(held, now_us)
        return bool(held) or dropped

    def release_until(self, name: str, now_us: int) -> None:
        """A rule or manual trigger fired for which holds may wait."""
        if name not in self._awaited:
            return
        self._drop_filters(lambda f: f.action.until == name)
        self._let_go([one for one in self.held if one.until == name], now_us)

    def _let_go(self, going: list[Held], now_us: int) -> None:
        for one in going:
            if one not in self.held:
                continue
            self._drop(one)
            who = self.cast.who(one.publication.propolis_id)
            sled = self.cast.by_id.get(one.publication.sled_id)
            name = sled.name if sled is not None else "-"
            state = one.publication.body.vmm_state.state.value
            self.tell("net", who, name, f"{state} released", None)
            if who is not None:
                who.let_go(one.rule, f"lets {state} go", now_us)
            self._deliver(one.publication, 0, now_us)

    def sled_up(self, sled: SledInfo) -> list[Publication]:
        """What was kept back while it was down: it is to be published now, and forgotten here."""
        waiting = [one for one in self.held if one.why and one.publication.sled_id == sled.id]
        for one in waiting:
            self._drop(one)
        return [one.publication for one in waiting]

    def asked(self, who: Subject, record: SledVmmState) -> None:
        """Nexus has got the VMM's state as an answer: with `doorbell` that is the report."""
        who.told_gen = max(who.told_gen, record.vmm_state.gen)
        if not self.doorbell:
            return
        for one in [one for one in self.held_of(who) if "doorbell" in one.why]:
            self._drop(one)
            self.wanted.append(Answer(one.publication, Delivered(), 0))

    def forget(self, who: Subject) -> None:
        """The VMM is gone and so is what was held of it."""
        for one in self.held_of(who):
            self._drop(one)
        self._filters_of.pop(who.propolis_id, None)

    def held_of(self, who: Subject) -> list[Held]:
        return list(self._held_of.get(who.propolis_id, ()))

    # ---- the way itself

    def partition(self, rule: Rule, action: act.Partition, now_us: int) -> None:
        until_us = FOREVER if action.lasts >= FOREVER else now_us + action.lasts
        self.cuts.append(Cut(rule, action, until_us))
        told = f"cut off from {action.from_} ({action.direction}) for {show_duration(action.lasts)}"
        self.tell("net", None, "-", told, rule.mark())

    def replies(self, rule: Rule, action: act.NexusReplies, now_us: int) -> None:
        until_us = FOREVER if action.lasts >= FOREVER else now_us + action.lasts
        self.replying.append(Replying(rule, action, until_us))
        told = f"Nexus answers {action.status} for {show_duration(action.lasts)}"
        self.tell("net", None, "-", told, rule.mark())

    def cut(self, sled: str, peer: str, direction: str, now_us: int) -> Cut | None:
        """What keeps a message from passing; `direction` as seen from the sled."""
        if not self.cuts:
            return None
        self.cuts = [c for c in self.cuts if c.until_us > now_us]
        for one in self.cuts:
            if one.action.from_ != peer or one.action.direction not in (direction, "both"):
                continue
            if not one.rule.for_.names_sleds() or means_sled(one.rule.for_, sled):
                return one
        return None

    def cut_between(self, who: Subject, others: list[Subject], now_us: int) -> bool:
        """Whether two VMMs that migrate cannot talk."""
        return any(
            self.cut(a.sled.name, b.sled.name, direction, now_us) is not None
            for other in others
            for a, b in ((who, other), (other, who))
            for direction in ("in", "out")
        )

    def request_plan(self, sled: SledInfo, plan: RequestPlan, now_us: int) -> None:
        """Whether a request reaches the sled and its answer comes back."""
        if self.cut(sled.name, "nexus", "in", now_us) is not None or sled.down is Down.POWER:
            plan.silent = True
        elif sled.down:
            plan.reset = True
        elif self.cut(sled.name, "nexus", "out", now_us) is not None:
            plan.answer_lost = True


def outcome_of(status: int) -> Outcome:
    """What a sled makes of an answer of Nexus (NX 3.2)."""
    if 200 <= status < 300:
        return Delivered()  # a scenario may acknowledge with whatever success it likes
    return (
        Permanent(f"answered {status}", status)
        if is_final(status)
        else Transient(f"answered {status}", status=status)
    )
