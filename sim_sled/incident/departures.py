"""What departed from a normal day, as rules: here the lives of VMMs, slow, stuck, failed, lost; what befell whole
sleds, reports and requests have modules of their own (LG 5 #5).

Read before: incident/deaths.py, incident/hosts.py, incident/life.py, incident/migrations.py, incident/reports.py,
incident/requests.py, incident/sheet.py.
Read next: incident/derive.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypedDict

import attrs

from sim_sled.incident.deaths import Deaths
from sim_sled.incident.facts import Asked, Ended, Ending, Observed, Op, Published, User, Wanted
from sim_sled.incident.hosts import Hosts
from sim_sled.incident.life import (
    CLIENT_US,
    ONE_CAUSE_US,
    SECOND_US,
    SLOW_US,
    TEARDOWN,
    blocked,
    edges,
    first,
    forgotten,
    is_start,
    is_target,
    moves,
    ran_before,
    ran_since,
    starts_before,
    times_before,
    told_end,
    unknown,
    unregistered,
    was_started,
)
from sim_sled.incident.migrations import Migrations
from sim_sled.incident.reports import Reports
from sim_sled.incident.requests import Requests
from sim_sled.incident.sheet import Sheet, at, duration, host_named
from sim_sled.incident.timeline import TERMINAL, Incident, Instance, Vmm

STUCK_US: Final = 60 * SECOND_US
"""A state that lasts longer than that until the logs end is told as stuck."""
GRACE_US: Final = 600 * SECOND_US
"""How long an agent lets a VMM stop before it ends it by force (SA 2.12)."""
_EXPLAINS: Final = frozenset(
    {Ending.ZONE_GONE, Ending.EMPTY, Ending.SILENT, Ending.SETUP_FAILED, Ending.ENSURE_FAILED}
)


class Once(TypedDict, total=False):
    """Words of a rule that means one time of several."""

    times: int
    skip: int


@attrs.define
class Departures:
    """Writes the rules of an incident on its sheet."""

    sheet: Sheet

    @property
    def incident(self) -> Incident:
        return self.sheet.incident

    def all(self, told: list[Instance]) -> None:
        """Every rule, the widest causes first."""
        hosts = Hosts(self.sheet)
        hosts.all()
        Reports(self.sheet).all()
        for instance in told:
            for vmm in instance.vmms:
                if not vmm.is_noise:
                    self._life(instance, vmm)
                    hosts.of(instance, vmm)
        Requests(self.sheet).all(told)

    def _life(self, instance: Instance, vmm: Vmm) -> None:
        host = instance.shown
        lost = forgotten(vmm)
        if lost is not None:
            self._forget(instance, vmm, lost)
        for edge, began, took, seen in edges(vmm):
            if took <= SLOW_US[edge] or (edge == TEARDOWN and lost is not None):
                continue
            unheard = blocked(vmm, began, began + took)
            agents_part = began == seen.at_us  # what the agent did after Propolis had ended
            if unheard is not None and (agents_part or not seen.exact):
                self.sheet.draft.notes.append(
                    f"{seen.where}: {edge} of {host} looks as if it took {duration(took)}; the agent could not "
                    f"observe while its report was not taken ({unheard.where}): no rule."
                )
                continue
            self._slow(instance, vmm, edge, took, seen=seen, began=began)
        Deaths(self.sheet).of(instance, vmm)
        for each in sorted(vmm.ended, key=lambda ended: ended.at_us):
            self._ending(instance, vmm, each)
        self._fails(instance, vmm)
        self._taken_away(instance, vmm)
        self._by_itself(instance, vmm)
        self._never_ran(instance, vmm)
        self._stuck(instance, vmm)
        Migrations(self.sheet).of(instance, vmm)
        self._gone(instance, vmm)

    def _gone(self, instance: Instance, vmm: Vmm) -> None:
        """A VMM of which a check met 404, and the log of its sled that could say why is not here or begins later."""
        lost = unknown(vmm)
        gone = lost or next((each for each in vmm.verdicts if each.why == "gone"), None)
        words = (vmm.asked and not lost) or vmm.published or vmm.ended
        told = words or any(each.state in TERMINAL for each in vmm.observed)
        if gone is None or told or self.incident.last_agent_restart(vmm.sled, 2**62) is not None:
            return
        log = "the log of its sled is missing" if lost is None else "the log of its sled begins later"
        self.sheet.rule(
            f"{instance.shown}-is-gone",
            host_named(instance.shown),
            self.sheet.when(gone.at_us - SECOND_US),
            "{forget_vmm: true}",
            why=[at(gone.where, "404: its sled knows nothing of it")],
            doubt=[f"{log}: its agent may have started anew, and lost others too"],
            times=1,
        )

    def _forget(self, instance: Instance, vmm: Vmm, check: Asked) -> None:
        host = instance.shown
        stopped = next((o for o in vmm.observed if o.state == "stopped"), None)
        end = next((o for o in vmm.observed if o.state in TERMINAL), None)
        told = next(p for p in vmm.published if p.state in TERMINAL)
        if stopped is None or end is None:
            begin_us = check.at_us if end is None else end.at_us
            self.sheet.rule(
                f"{host}-forgotten",
                host_named(host),
                self.sheet.when(begin_us),
                "{forget_vmm: true}",
                why=[at(check.where, "404 before its end was told")],
                doubt=["when the agent forgot it is not known"],
                times=1,
            )
            return
        after, held = max(end.at_us - stopped.at_us, 0), max(told.at_us - end.at_us, 0)
        hold = f"{{hold: {{publish: {told.state}, lasts: {duration(held)}}}}}"
        self.sheet.draft.forgotten.add(vmm.id)
        before = times_before(instance, "stopped", stopped.at_us)
        rule = self.sheet.rule(
            f"{host}-forgotten-before-reported",
            host_named(host),
            "{state: stopped}",
            f"[{{delay: {duration(after)}}}, {hold}, {{forget_vmm: true}}]",
            why=[
                at(stopped.where, "stopped"),
                at(end.where, f"Propolis: {end.state}"),
                at(check.where, "404 NO_SUCH_INSTANCE"),
                at(told.where, "told only now"),
            ],
            doubt=["forgotten with the end of Propolis; no line says when exactly"],
            times=1,
            skip=before,
        )
        # a stop of before, after which nothing was forgotten and a user may have started it again, promises neither
        fired = f"{{rule: {rule}}}"
        stop = fired if before else "{state: stopped}"
        asked = fired if before else "{request: vmm_put_state, to: stopped}"
        self.sheet.expect(
            "the-watcher-hears-404",
            [
                f"for: {host_named(host)}",
                f"after: {stop}",
                "within: 40s",
                "that: {request: vmm_get_state}",
            ],
            [at(check.where, "404")],
        )
        if self._stop_was_asked(vmm):
            self.sheet.expect(
                f"{host}-stays-stopped",
                [
                    f"for: {host_named(host)}",
                    f"after: {asked}",
                    "lasts: 60s",
                    "never: {request: vmm_register, same: instance}",
                ],
                [],
                ["what the user wants, not what happened: a Nexus of that time may have started it again"],
            )

    def _stop_was_asked(self, vmm: Vmm) -> bool:
        instance = self.incident.instances.get(vmm.instance)
        return instance is not None and any(user.verb == "stop" for user in instance.users)

    def _slow(self, instance: Instance, vmm: Vmm, edge: str, took: int, *, seen: Observed, began: int) -> None:
        host = instance.shown
        bundle = [e for e in vmm.ended if e.how in (Ending.BUNDLE_BEGINS, Ending.BUNDLE_ENDS)]
        why = [at(seen.where, f"{edge.partition(' ')[0]}")]
        if edge == TEARDOWN:
            why += [at(each.where, each.how.value) for each in bundle[:2]]
            told = told_end(vmm)
            why += [] if told is None else [at(told.where, "its end is told")]
        why += _last_deed(vmm, began, began + took)
        doubt = self.sheet.gap(began, began + took)
        if seen.heard:
            doubt.append("as Nexus heard of it: what of a VMM was slow it does not know")
            if edge == TEARDOWN and took >= GRACE_US:
                doubt.append("as long as an agent's grace: it may have ended the VMM by force, as it does here")
                self.sheet.draft.forgotten.add(vmm.id)
        verb = {
            "starting -> running": "start",
            "stopping -> stopped": "stop",
            TEARDOWN: "teardown",
        }.get(edge, "reboot")
        self.sheet.rule(
            f"{host}-{verb}-takes-{duration(took).replace('.', '-')}",
            host_named(host),
            f"{{edge: {edge}}}",
            f"{{delay: {duration(took)}}}",
            why=why,
            doubt=doubt,
            **self._only(instance, vmm, edge, began),
        )

    def _only(self, instance: Instance, vmm: Vmm, edge: str, began: int) -> Once:
        """Which time an instance took an edge, if it did so several times."""
        again = edge == "rebooting -> running"
        if edge == "starting -> running":
            # a start that came to nothing was one as well
            took = [each.id for each in instance.vmms if was_started(each)]
            number = took.index(vmm.id) if vmm.id in took else 0
        else:
            all_ = sorted(
                (at_us, each.id) for each in instance.vmms for which, at_us, _, _ in edges(each) if which == edge
            )
            took = [whose for _, whose in all_] if again else list(dict.fromkeys(whose for _, whose in all_))
            number = [at_us for at_us, _ in all_].index(began) if again else took.index(vmm.id)
        return {} if len(took) < 2 else {"times": 1, "skip": number}

    def _ending(self, instance: Instance, vmm: Vmm, fact: Ended) -> None:
        host = instance.shown
        if fact.how in (Ending.SETUP_FAILED, Ending.ENSURE_FAILED):
            if not self.sheet.once("cannot start", vmm.id):
                return
            began = next((z.at_us for z in vmm.zones if z.step == "configuring"), fact.at_us)
            lasted = fact.at_us - began
            slow = f"[{{delay: {duration(lasted)}}}, {{set_state: failed}}]"
            self.sheet.rule(
                f"{host}-cannot-start",
                host_named(host),
                "{edge: starting -> running}",
                slow if lasted > SLOW_US["starting -> running"] else "{set_state: failed}",
                why=[at(fact.where, f"{fact.how.value}: {fact.text}")],
                times=1,
                skip=starts_before(instance, vmm),
            )
        elif fact.how is Ending.GRACE_OVER:
            stopping = next((o for o in vmm.observed if o.state == "stopping"), None)
            if stopping is not None:
                self.sheet.draft.agent = [f"stop_grace: {duration(fact.at_us - stopping.at_us)}"]
                self.sheet.draft.agent_why = [at(stopping.where, "stopping"), at(fact.where, fact.how.value)]
            self.sheet.rule(
                f"{host}-never-stops",
                host_named(host),
                "{state: stopping}",
                "{stall: forever}",
                why=[at(fact.where, fact.how.value), *_last_deed(vmm, 0, fact.at_us)],
                skip=0 if stopping is None else times_before(instance, "stopping", stopping.at_us),
            )
        elif fact.how in (Ending.GUEST_HALT, Ending.GUEST_RESET):
            self._guest(instance, vmm, fact)

    def _fails(self, instance: Instance, vmm: Vmm) -> None:
        """A VMM that failed, and no line says of what."""
        words: list[Observed | Published] = [*vmm.observed, *vmm.published]
        failed = min((each for each in words if each.state == "failed"), key=lambda each: each.at_us, default=None)
        told = any(each.how in _EXPLAINS or each.how is Ending.GRACE_OVER for each in vmm.ended)
        if failed is None or told or is_target(vmm) or unregistered(vmm) is not None or forgotten(vmm) is not None:
            return
        if ran_since(vmm, failed.at_us) is None and not ran_before(vmm):
            text = Ended(at_us=failed.at_us, host=failed.host, where=failed.where, how=Ending.SETUP_FAILED)
            self._ending(instance, vmm, attrs.evolve(text, text="no line says why"))
            return
        said = [
            at(noted.where, noted.text)
            for noted in self.incident.noted
            if noted.instance == instance.id and abs(noted.at_us - failed.at_us) < ONE_CAUSE_US
        ]
        self.sheet.in_its_life(
            f"{instance.shown}-fails",
            instance,
            vmm,
            failed.at_us,
            "{set_state: failed}",
            why=[at(failed.where, "failed"), *said],
            doubt=[] if said else ["no line says why"],
        )

    def _taken_away(self, instance: Instance, vmm: Vmm) -> None:
        """A VMM that ran and was unregistered, although no saga had a reason to take it back."""
        asked = unregistered(vmm)
        if asked is None or (asked.status or 0) >= 400 or is_target(vmm) or moves(vmm):
            return
        began_us = asked.at_us - asked.latency_us
        puts = [put for put in vmm.asked if put.op is Op.PUT_STATE]
        refused = any(put.status is None or put.status >= 400 for put in puts)
        if refused or vmm.state_at(began_us) != "running":
            return
        self.sheet.in_its_life(
            f"{instance.shown}-is-taken-away",
            instance,
            vmm,
            began_us,
            "{set_state: destroyed}",
            why=[at(asked.where, "vmm_unregister of a VM that ran")],
            doubt=["who unregistered it no line says; it is played as its end at once"],
        )

    def _guest(self, instance: Instance, vmm: Vmm, fact: Ended, doubt: Iterable[str] = ()) -> None:
        """What a guest did by itself. Several lines tell one halt, and Nexus's comes when all is over."""
        ends = fact.how is Ending.GUEST_HALT
        shown = [o for o in vmm.observed if o.state == ("stopping" if ends else "rebooting")]
        seen = min(shown, key=lambda o: abs(o.at_us - fact.at_us), default=None)
        moment = fact.at_us if seen is None else min(seen.at_us, fact.at_us)
        if not self.sheet.once(fact.how.value, vmm.id if ends else f"{vmm.id} {moment // SECOND_US}"):
            return
        event = "halt" if ends else "triple-fault" if "triple fault" in fact.text.lower() else "reset"
        nth = sum(what == fact.how.value and whose.startswith(vmm.id) for what, whose in self.sheet.said)
        name = f"{instance.shown}-guest-{event}s" + (f"-{nth}" if nth > 1 else "")
        why = [at(fact.where, fact.how.value)]
        self.sheet.in_its_life(name, instance, vmm, moment, f"{{guest: {event}}}", why=why, doubt=doubt)

    def _by_itself(self, instance: Instance, vmm: Vmm) -> None:
        """A reboot or an end that nobody asked the sled for, although what it was asked is in its log."""
        puts = [put for put in vmm.asked if put.op is Op.PUT_STATE]
        alone = self.incident.has_nexus_log and not vmm.asked and not vmm.published and bool(vmm.received)
        if not puts and not alone:
            return
        explained = any(each.how in _EXPLAINS for each in vmm.ended)
        asked = self._asks(instance, vmm)
        was = ""
        for seen in vmm.observed:
            before, was = was, seen.state
            how = {"rebooting": Ending.GUEST_RESET, "stopping": Ending.GUEST_HALT}.get(seen.state)
            if before not in ("running", "") or how is None:
                continue
            said = any(
                each.how is how and (how is Ending.GUEST_HALT or abs(each.at_us - seen.at_us) < ONE_CAUSE_US)
                for each in vmm.ended
            )
            ended_otherwise = seen.state == "stopping" and (explained or moves(vmm))
            if said or ended_otherwise or unregistered(vmm) is not None:
                continue
            # the agent may see late what a request has brought about, and each brings one thing about
            cause = next((each for each in asked if each[0] <= seen.at_us <= each[1]), None)
            if cause is not None:
                asked.remove(cause)
                continue
            fact = Ended(at_us=seen.at_us, host=seen.host, where=seen.where, vmm=vmm.id, how=how)
            self._guest(instance, vmm, fact, ["no user's request for it is in Nexus's log"] if alone else [])

    def _asks(self, instance: Instance, vmm: Vmm) -> list[tuple[int, int]]:
        """When it was asked to stop or to reboot: from when to when that may show."""
        ran = next((each for each in vmm.observed if each.state not in ("creating", "starting")), None)
        ran_us = ran.at_us if ran is not None and ran.state == "running" else 0
        puts = [
            (put.at_us - put.latency_us, put.at_us)
            for put in vmm.asked
            if put.op is Op.PUT_STATE and put.at_us > ran_us and not is_start(vmm, put)
            if put.status is None or put.status < 300
        ]
        wishes: list[User | Wanted] = [*instance.users, *vmm.wanted]
        told = [
            (wish.at_us, wish.at_us)
            for wish in wishes
            if wish.verb in ("stop", "reboot", "delete")
            and wish.at_us >= vmm.first_us()
            and not any(since - ONE_CAUSE_US <= wish.at_us <= until + ONE_CAUSE_US for since, until in puts)
        ]
        return sorted((since - SECOND_US, until + CLIENT_US) for since, until in [*puts, *told])

    def _never_ran(self, instance: Instance, vmm: Vmm) -> None:
        """A start that lasted until somebody ended it: longer than a replay's would, which then had run first."""
        began = min((a.at_us - a.latency_us for a in vmm.asked if a.op is Op.PUT_STATE), default=None)
        over = next((each for each in vmm.observed if each.state in ("stopping", "stopped", "destroyed")), None)
        told = told_end(vmm)
        states: list[Observed | Published] = [*vmm.observed, *vmm.published]
        explained = any(each.how in _EXPLAINS for each in vmm.ended) or unregistered(vmm) is not None
        if began is None or is_target(vmm) or explained:
            return
        if not {each.state for each in states}.isdisjoint(("running", "rebooting", "migrating", "failed")):
            return
        if first(vmm, "stopping") is not None:
            return  # what has not run goes to Stopped at once (PR 1.1): the line that says so is lost
        end = over or told
        usual = self.sheet.longest.get("starting -> running", SECOND_US)
        if end is None or end.at_us - began <= usual or vmm.described is None:
            return
        self.sheet.rule(
            f"{instance.shown}-start-takes-too-long",
            host_named(instance.shown),
            "{edge: starting -> running}",
            f"{{delay: {duration(end.at_us - began + CLIENT_US)}}}",
            why=[at(vmm.described.where, "registered"), at(end.where, f"{end.state}, and it never ran")],
            doubt=["how long its start would have taken is not known: a minute more than it lived is invented"],
            times=1,
            skip=starts_before(instance, vmm),
        )

    def _stuck(self, instance: Instance, vmm: Vmm) -> None:
        """A state that never ended while the logs go on."""
        host = instance.shown
        if any(e.how is Ending.GRACE_OVER for e in vmm.ended) or any(p.state in TERMINAL for p in vmm.published):
            return
        last = vmm.observed[-1] if vmm.observed else None
        began_us, state, where = 0, "", None
        if last is not None and last.state in ("stopping", "rebooting", "stopped", "starting", "creating"):
            began_us, state, where = last.at_us, last.state, last.where
        elif last is None and vmm.zones and not vmm.ended:
            began_us, state, where = vmm.zones[0].at_us, "starting", vmm.zones[0].where
        if (
            where is None
            or blocked(vmm, began_us, 2**62) is not None
            or any(e.how in _EXPLAINS or e.how is Ending.RUNNER_EXITED for e in vmm.ended)
            or unregistered(vmm) is not None
        ):
            return
        lasted = self.incident.end_us - began_us
        if lasted < STUCK_US or self.incident.last_agent_restart(vmm.sled, 2**62) is not None:
            return
        word = "stopped" if state == "stopped" else state
        self.sheet.draft.run_on.add(host)
        self.sheet.rule(
            f"{host}-stuck-in-{word}",
            host_named(host),
            f"{{state: {word}}}",
            "{stall: forever}",
            why=[at(where, f"{word}, and nothing more"), *_last_deed(vmm, began_us, 2**62)],
            doubt=[
                f"it lasted at least {duration(lasted)}, until the logs end; 'forever' is invented",
                *self.sheet.gap(began_us, self.incident.end_us),
            ],
            skip=starts_before(instance, vmm)
            if state in ("creating", "starting")
            else times_before(instance, state, began_us),
        )


def _last_deed(vmm: Vmm, from_us: int, to_us: int) -> list[str]:
    """What Propolis was at last, quoted: if it took long, that names the culprit (LG 2.3 #133)."""
    deeds = [each for each in vmm.doing if from_us <= each.at_us <= to_us]
    return [at(deeds[-1].where, deeds[-1].text)] if deeds else []
