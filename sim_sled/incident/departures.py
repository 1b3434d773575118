"""What departed from a normal day, as rules: agents and Nexus that went away, reports that were not taken, slow and
stuck VMMs, requests that were refused or not answered (LG 5 #5).

Read before: incident/sheet.py, incident/life.py. Read next: incident/derive.py.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import zip_longest
from typing import Final, TypedDict

import attrs

from sim_sled.incident.facts import Asked, Ended, Ending, NotTaken, Observed, Op, Published, User, Verdict, Wanted
from sim_sled.incident.life import (
    SECOND_US,
    SLOW_US,
    TEARDOWN,
    TERMINAL,
    blocked,
    edges,
    forgotten,
    is_target,
    told_end,
    unregistered,
    vanished_with_its_sled,
    wanted,
)
from sim_sled.incident.lines import Where
from sim_sled.incident.sheet import Entry, Sheet, at, duration, host_named, quoted
from sim_sled.incident.timeline import Incident, Instance, Vmm

STUCK_US: Final = 60 * SECOND_US
"""A state that lasts longer than that until the logs end is told as stuck."""
CLIENT_US: Final = 60 * SECOND_US
"""How long Nexus waits for an answer about a VMM (omicron#5235)."""
ONE_CAUSE_US: Final = 5 * SECOND_US
"""Things of one kind on one sled within that are assumed to have one cause (LG 6)."""
CHECK_PERIOD_US: Final = 30 * SECOND_US
"""Between two health checks of a VMM (NX 4.5)."""
QUIET_US: Final = 75 * SECOND_US
"""Two checks of its VMs have left no line: silent for longer, an agent was away, or its lines are not here."""
RESTART_US: Final = 5 * SECOND_US
"""SMF starts an agent again within seconds."""
_AFTER_US: Final = 80_000
"""So much later than in the logs a replay may be with what comes first."""
DELAY_MIN_US: Final = 10_000
"""A refusal that came sooner came at once."""
_ONE_SIDED: Final = "agent or network: which was slow, one log cannot tell"
_EXPLAINS: Final = frozenset(
    {Ending.ZONE_GONE, Ending.EMPTY, Ending.SILENT, Ending.SETUP_FAILED, Ending.ENSURE_FAILED}
)


class Once(TypedDict, total=False):
    """Words of a rule that means one time of several."""

    times: int
    skip: int


@attrs.define
class Departures:
    """Writes the rules of an incident on its sheet; a line that a wider rule has explained gets none of its own."""

    sheet: Sheet
    explained: set[Where] = attrs.field(factory=set)
    said: set[tuple[str, str]] = attrs.field(factory=set)

    @property
    def incident(self) -> Incident:
        return self.sheet.incident

    def all(self, told: list[Instance]) -> None:
        """Every rule, the widest causes first."""
        self._agents()
        self._nexus_restarts()
        self._storms()
        for instance in told:
            for vmm in instance.vmms:
                if not vmm.is_noise:
                    self._life(instance, vmm)
        self._hangs_of_sleds(told)
        for instance in told:
            for vmm in instance.vmms:
                self._refusals(instance, vmm)
                self._cancelled(instance, vmm)

    def _agents(self) -> None:
        for host in self.incident.sleds:
            steps = [each for each in self.incident.agents if each.host == host]
            begun: list[int] = []
            for step in steps:
                if step.step != "starts" or (begun and step.at_us - begun[-1] < ONE_CAUSE_US):
                    continue
                begun.append(step.at_us)
                listens = next((s.at_us for s in steps if s.step == "listens" and s.at_us >= step.at_us), None)
                before = self._last_word(host, step.at_us)
                doubt = ["down from its last word before to its first answer after"]
                if before is None:
                    if not self._lost(host, step.at_us):
                        continue  # the log begins with it: nothing was lost that anybody knows of
                    before, doubt = step.at_us, ["how long it was down before its log begins is not known"]
                silent_us = self._silent(host, before, step.at_us)
                boot = (
                    host in self.incident.booted_1986
                    or silent_us > CLIENT_US
                    or any(s.step == "boots" and abs(s.at_us - step.at_us) < 600 * SECOND_US for s in steps)
                    or any(s.step == "enabled" and abs(s.at_us - step.at_us) < ONE_CAUSE_US for s in steps)
                )
                if not boot and step.at_us - before > QUIET_US:
                    # nor was it asked how its VMs are: such a log is not the whole, and SMF starts an agent at once
                    before, doubt = step.at_us - RESTART_US, ["when the old one ended no line says: just before"]
                before = min(before + _AFTER_US, step.at_us)  # a replay's last word before may be that much later
                down = max((listens or step.at_us) - before, SECOND_US)
                name = f"{self.sheet.draft.hosts[host]}-{'reboots' if boot else 'restarts'}" + (
                    f"-{len(begun)}" if len(begun) > 1 else ""
                )
                if silent_us > CLIENT_US:
                    doubt.append(f"taken for a boot: Nexus could not reach it for {duration(silent_us)}")
                action = (
                    f"reboot_sled: {{down: {duration(down)}}}"
                    if boot
                    else f"restart_agent: {{down: {duration(down)}, keep_vmms: 0%}}"
                )
                if not boot:
                    doubt.append("taken for a restart of the agent: no line shows a boot of the host")
                self.sheet.rule(
                    name,
                    f"{{sled: {self.sheet.draft.hosts[host]}}}",
                    self.sheet.when(before),
                    f"{{{action}}}",
                    why=[at(step.where, "the agent starts")],
                    doubt=doubt,
                )

    def _silent(self, host: str, from_us: int, to_us: int) -> int:
        """For how long Nexus's checks did not reach the agent of a sled, as far as they tell (LG 6)."""
        times = [
            verdict.at_us
            for vmm in self.incident.vmms.values()
            if vmm.sled == host
            for verdict in vmm.verdicts
            if verdict.why == "unreachable" and from_us < verdict.at_us < to_us
        ]
        return to_us - min(times, default=to_us)

    def _lost(self, host: str, since_us: int) -> bool:
        """Whether the new agent is asked for a VMM that it knows nothing of, and was never given."""
        return any(
            asked.host == host and asked.status == 404 and asked.op is Op.GET_STATE and asked.at_us >= since_us
            for vmm in self.incident.vmms.values()
            if vmm.described is None and vmm.registered is None
            for asked in vmm.asked
        )

    def _last_word(self, host: str, before_us: int) -> int | None:
        best: int | None = None
        for vmm in self.incident.vmms.values():
            for fact in (*vmm.asked, *vmm.observed, *vmm.published):
                if fact.host == host and fact.at_us < before_us and (best is None or fact.at_us > best):
                    best = fact.at_us
        lived = [
            a.at_us for a in self.incident.agents if a.host == host and a.step == "lives" and a.at_us < before_us
        ]
        return max([*lived, *([] if best is None else [best])], default=None)

    def _nexus_restarts(self) -> None:
        for i, start in enumerate(self.incident.nexus_starts):
            if start.at_us - self.incident.begin_us < SECOND_US:
                continue
            self.sheet.rule(
                f"nexus-restarts-{i + 1}",
                "",
                self.sheet.when(start.at_us),
                "{restart_nexus: {down: 5s}}",
                why=[at(start.where, "Nexus starts")],
                doubt=["how long it was away is not known: 5 s are invented"],
            )

    def _storms(self) -> None:
        """Runs of reports that were not taken, over all VMMs (LG 5 #5)."""
        attempts: list[tuple[int, str, NotTaken | None]] = []
        for vmm in self.incident.vmms.values():
            words = sorted([*vmm.published, *vmm.not_taken, *vmm.observed, *vmm.ended], key=lambda each: each.at_us)
            for word, following in zip_longest(words, words[1:]):
                if isinstance(word, NotTaken):
                    attempts.append((word.at_us, word.host, word))
                elif isinstance(word, Published) and following is not None and not isinstance(following, NotTaken):
                    # accepted, as far as anybody can know: no failure followed (LG 0 #1)
                    attempts.append((word.at_us, word.host, None))
        attempts.sort(key=lambda each: each[0])
        count = 0
        for final in (False, True):
            meant = [a for a in attempts if a[2] is None or a[2].final is final]
            alone = _alone(meant) & self.sheet.draft.hosts.keys()
            parts = {host: [a for a in meant if a[1] == host] for host in sorted(alone)}
            parts[""] = [a for a in meant if a[1] not in alone]
            for host, part in parts.items():
                for run in _runs(part):
                    count += 1
                    self._storm(run, count, host, final=final)

    def _storm(self, run: _Run, number: int, host: str, *, final: bool) -> None:
        statuses = [bad.status for bad in run.bad]
        status = max(set(statuses), key=statuses.count)
        first, last = run.bad[0], run.bad[-1]
        begin = (run.good_before + first.at_us) // 2 if run.good_before is not None else first.at_us - SECOND_US // 2
        end = (last.at_us + run.good_after) // 2 if run.good_after is not None else last.at_us + SECOND_US
        begin = max(begin, first.at_us - 30 * SECOND_US)
        name = "nexus-answers" if number == 1 else f"nexus-answers-{number}"
        lasts = duration(end - begin)
        if status is None:
            action = f"{{partition: {{from: nexus, direction: out, lasts: {lasts}}}}}"
            name = name.replace("answers", "out-of-reach")
        else:
            action = f"{{nexus_replies: {{status: {status}, lasts: {lasts}}}}}"
            name = name.replace("answers", f"answers-{status}")
        good = "nothing before" if run.good_before is None else f"last good {duration(self.sheet.t(run.good_before))}"
        better = "nothing after" if run.good_after is None else f"first good {duration(self.sheet.t(run.good_after))}"
        began, ended = duration(self.sheet.t(first.at_us)), duration(self.sheet.t(last.at_us))
        doubt = [f"it began between {good} and {began}, and ended between {ended} and {better}; the middle is taken"]
        if host:
            doubt.append("meanwhile Nexus took what other sleds reported: it is this one's alone")
        elif len({bad.host for bad in run.bad}) == 1 and len(self.incident.sleds) > 1:
            doubt.append("only one sled shows it")
        why = [at(first.where, f"not taken: {first.status or 'no answer'}"), at(last.where, "the last one")]
        why.append(f"{len(run.bad)} reports in all")
        whom = f"{{sled: {self.sheet.draft.hosts[host]}}}" if host else ""
        self.sheet.rule(name, whom, self.sheet.when(begin), action, why=why, doubt=doubt)
        if final and "final_state_acked" in self.sheet.draft.always:
            self.sheet.draft.always.remove("final_state_acked")
            self.sheet.draft.notes.append("A report was lost for good (4xx): 'final_state_acked' is not demanded.")

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
        for each in sorted(vmm.ended, key=lambda ended: ended.at_us):
            self._ending(instance, vmm, each)
        self._fails(instance, vmm)
        self._by_itself(instance, vmm)
        self._never_ran(instance, vmm)
        self._stuck(instance, vmm)
        self._migration(instance, vmm)
        self._vanished(instance, vmm)
        for verdict in vmm.verdicts:
            if verdict.why == "sled off":
                silent = [v for v in vmm.verdicts if v.why == "unreachable" and v.at_us < verdict.at_us]
                self._no_power(
                    instance,
                    vmm,
                    silent[0].at_us if silent else verdict.at_us,
                    [at(each.where, "unreachable") for each in silent[:1]] + [at(verdict.where, "not in A0")],
                    "Nexus noticed then; when the power went is not known",
                )
            elif verdict.why == "expunged":
                self._expunged(vmm, verdict)

    def _vanished(self, instance: Instance, vmm: Vmm) -> None:
        """A VMM whose sled falls silent for good, while another of its instance is registered later: it was lost."""
        following = next((each for each in instance.vmms if each.first_us() > vmm.first_us()), None)
        told = {"sled off", "expunged"} & {verdict.why for verdict in vmm.verdicts}
        if self.incident.last_agent_restart(vmm.sled, 2**62) is not None:
            return  # what it ran is lost with that
        if following is None or following.described is None or is_target(following) or told:
            return
        if vanished_with_its_sled(self.incident, vmm, following.first_us()):
            self._no_power(
                instance,
                vmm,
                self.incident.last_us[vmm.sled] + SECOND_US,
                [at(following.described.where, f"registered anew, and {vmm.sled} says nothing any more")],
                "that its sled lost power is inferred: its log ends, or the rest of it is not here",
            )

    def _no_power(self, instance: Instance, vmm: Vmm, at_us: int, why: list[str], doubt: str) -> None:
        sled = self.sheet.draft.hosts.get(vmm.sled)
        if sled is None or not self._once("power", sled):
            return
        doubts = [doubt]
        do = "{power_off_sled: {lasts: forever}}"
        if any(each.sled != vmm.sled and each.first_us() > at_us for each in instance.vmms):
            do = f"[{do}, {{expunge_sled: true}}]"
            doubts.append("expunged as well: the replay's Nexus would place what was on it there again")
        for_, when = f"{{sled: {sled}}}", self.sheet.when(at_us)
        self.sheet.rule(f"{sled}-has-no-power", for_, when, do, why=why, doubt=doubts)

    def _expunged(self, vmm: Vmm, verdict: Verdict) -> None:
        sled = self.sheet.draft.hosts.get(vmm.sled)
        if sled is not None and self._once("expunged", sled):
            self.sheet.rule(
                f"{sled}-is-expunged",
                f"{{sled: {sled}}}",
                self.sheet.when(verdict.at_us),
                "{expunge_sled: true}",
                why=[at(verdict.where, "Expunged")],
                doubt=["Nexus noticed then; when its operator did it is not known"],
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
        self.sheet.rule(
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
            skip=_times_before(instance, "stopped", stopped.at_us),
        )
        self.sheet.expect(
            "the-watcher-hears-404",
            [
                f"for: {host_named(host)}",
                "after: {state: stopped}",
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
                    "after: {request: vmm_put_state, to: stopped}",
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
        doubt = self.sheet.gap(began, began + took)
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
            took = [each.id for each in instance.vmms if _was_started(each)]
            number = took.index(vmm.id) if vmm.id in took else 0
        else:
            all_ = sorted(
                (at_us, each.id) for each in instance.vmms for which, at_us, _, _ in edges(each) if which == edge
            )
            took = [whose for _, whose in all_] if again else list(dict.fromkeys(whose for _, whose in all_))
            number = [at_us for at_us, _ in all_].index(began) if again else took.index(vmm.id)
        return {} if len(took) < 2 else {"times": 1, "skip": number}

    def _once(self, what: str, of: str) -> bool:
        """Whether this is said for the first time of one VMM or migration: several lines tell one thing."""
        new = (what, of) not in self.said
        self.said.add((what, of))
        return new

    def _before(self, instance: Instance, op: Op, asked: Asked) -> int:
        """How many requests of one kind came before one that departed, and are played as well."""
        all_ = [each for vmm in instance.vmms for each in vmm.asked if each.op is op and not each.late]
        return sum(
            each.at_us < asked.at_us and each.status is not None and each.status < 400
            for each in all_
            if each is not asked
        )

    def _ending(self, instance: Instance, vmm: Vmm, fact: Ended) -> None:
        host = instance.shown
        if fact.how is Ending.PROCESS_STARTED:
            starts = [each for each in vmm.ended if each.how is Ending.PROCESS_STARTED]
            if fact is starts[0]:
                return
            fact = attrs.evolve(fact, how=Ending.EMPTY)  # a second process has no VM (LG 2.3)
        kills = {Ending.ZONE_GONE: "true", Ending.EMPTY: "true", Ending.SILENT: "false"}
        ran = [each for each in vmm.observed if each.state == "running" and each.at_us <= fact.at_us]
        if fact.how in kills:
            if not self._once("dies", vmm.id):
                return
            skip = 0
            doubt = [] if fact.how is not Ending.SILENT else ["Propolis died or hung: the log cannot tell"]
            if not ran:
                when, do = (
                    self.sheet.when(fact.at_us),
                    f"{{kill_propolis: {{restart: {kills[fact.how]}}}}}",
                )
            else:
                when, skip = "{state: running}", _times_before(instance, "running", ran[-1].at_us)
                after = duration(fact.at_us - ran[-1].at_us)
                do = f"[{{delay: {after}}}, {{kill_propolis: {{restart: {kills[fact.how]}}}}}]"
                doubt.append("the agent noticed then; when it died is not known")
            self.sheet.rule(
                f"{host}-propolis-dies",
                host_named(host),
                when,
                do,
                why=[at(fact.where, fact.how.value)],
                doubt=doubt,
                times=1,
                skip=skip,
            )
        elif fact.how in (Ending.SETUP_FAILED, Ending.ENSURE_FAILED):
            if not self._once("cannot start", vmm.id):
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
                skip=_starts_before(instance, vmm),
            )
        elif fact.how is Ending.GRACE_OVER:
            stopping = next((o for o in vmm.observed if o.state == "stopping"), None)
            if stopping is not None:
                self.sheet.draft.agent = [f"stop_grace: {duration(fact.at_us - stopping.at_us)}"]
            self.sheet.rule(
                f"{host}-never-stops",
                host_named(host),
                "{state: stopping}",
                "{stall: forever}",
                why=[at(fact.where, fact.how.value)],
                skip=0 if stopping is None else _times_before(instance, "stopping", stopping.at_us),
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
        ran = [each for each in vmm.observed if each.state == "running" and each.at_us <= failed.at_us]
        if not ran:
            text = Ended(at_us=failed.at_us, host=failed.host, where=failed.where, how=Ending.SETUP_FAILED)
            self._ending(instance, vmm, attrs.evolve(text, text="no line says why"))
            return
        self.sheet.rule(
            f"{instance.shown}-fails",
            host_named(instance.shown),
            "{state: running}",
            f"[{{delay: {duration(failed.at_us - ran[-1].at_us)}}}, {{set_state: failed}}]",
            why=[at(failed.where, "failed")],
            doubt=["no line says why"],
            times=1,
            skip=_times_before(instance, "running", ran[-1].at_us),
        )

    def _guest(self, instance: Instance, vmm: Vmm, fact: Ended) -> None:
        """What a guest did by itself. Several lines tell one halt, and Nexus's comes when all is over."""
        host = instance.shown
        ends = fact.how is Ending.GUEST_HALT
        shown = [o for o in vmm.observed if o.state == ("stopping" if ends else "rebooting")]
        seen = min(shown, key=lambda o: abs(o.at_us - fact.at_us), default=None)
        moment = fact.at_us if seen is None else min(seen.at_us, fact.at_us)
        ran = [o for o in vmm.observed if o.state == "running" and o.at_us <= moment]
        if not self._once(fact.how.value, vmm.id if ends else f"{vmm.id} {moment // SECOND_US}"):
            return
        event = "halt" if ends else "triple-fault" if "triple fault" in fact.text.lower() else "reset"
        nth = sum(what == fact.how.value and whose.startswith(vmm.id) for what, whose in self.said)
        if ran:
            when, skip = "{state: running}", _times_before(instance, "running", ran[-1].at_us)
            do = f"[{{delay: {duration(moment - ran[-1].at_us)}}}, {{guest: {event}}}]"
        else:
            when, skip, do = self.sheet.when(moment), 0, f"{{guest: {event}}}"
        self.sheet.rule(
            f"{host}-guest-{event}s" + (f"-{nth}" if nth > 1 else ""),
            host_named(host),
            when,
            do,
            why=[at(fact.where, fact.how.value)],
            times=1,
            skip=skip,
        )

    def _by_itself(self, instance: Instance, vmm: Vmm) -> None:
        """A reboot or an end that nobody asked the sled for, although what it was asked is in its log."""
        puts = [put for put in vmm.asked if put.op is Op.PUT_STATE]
        if not puts:
            return
        explained = any(each.how in _EXPLAINS for each in vmm.ended)
        asked = self._asks(instance, vmm)
        was = ""
        for seen in vmm.observed:
            before, was = was, seen.state
            how = {"rebooting": Ending.GUEST_RESET, "stopping": Ending.GUEST_HALT}.get(seen.state)
            if before != "running" or how is None:
                continue
            said = any(
                each.how is how and (how is Ending.GUEST_HALT or abs(each.at_us - seen.at_us) < ONE_CAUSE_US)
                for each in vmm.ended
            )
            ended_otherwise = seen.state == "stopping" and (explained or _moves(vmm))
            if said or ended_otherwise or unregistered(vmm) is not None:
                continue
            # the agent may see late what a request has brought about, and each brings one thing about
            cause = next((each for each in asked if each[0] <= seen.at_us <= each[1]), None)
            if cause is not None:
                asked.remove(cause)
                continue
            self._guest(instance, vmm, Ended(at_us=seen.at_us, host=seen.host, where=seen.where, vmm=vmm.id, how=how))

    def _asks(self, instance: Instance, vmm: Vmm) -> list[tuple[int, int]]:
        """When it was asked to stop or to reboot: from when to when that may show."""
        ran_us = next((each.at_us for each in vmm.observed if each.state == "running"), 0)
        puts = [
            (put.at_us - put.latency_us, put.at_us)
            for put in vmm.asked
            if put.op is Op.PUT_STATE and put.at_us > ran_us and (put.status is None or put.status < 300)
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
        if not {each.state for each in states}.isdisjoint(("running", "migrating", "failed")):
            return
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
            skip=_starts_before(instance, vmm),
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
            why=[at(where, f"{word}, and nothing more")],
            doubt=[
                f"it lasted at least {duration(lasted)}, until the logs end; 'forever' is invented",
                *self.sheet.gap(began_us, self.incident.end_us),
            ],
            skip=_starts_before(instance, vmm)
            if state in ("creating", "starting")
            else _times_before(instance, state, began_us),
        )

    def _migration(self, instance: Instance, vmm: Vmm) -> None:
        host = instance.shown
        failed = [m for m in vmm.migrated if m.failed]
        sides = [(p, side) for p in vmm.published for side in (p.migration_in, p.migration_out) if side == "failed"]
        if not failed and not sides:
            return
        where = failed[0].where if failed else sides[0][0].where
        moment = failed[0].at_us if failed else sides[0][0].at_us
        # both sides tell of it, and Nexus does: which migration it was, its target says
        targets = [each for each in instance.vmms if is_target(each) and each.first_us() <= moment]
        if not self._once("migration", targets[-1].id if targets else instance.id):
            return
        seen = [p.phase for p in vmm.phases if p.at_us <= moment and p.phase not in ("finish", "error")]
        phase = (failed[0].phase if failed else "") or (seen[-1] if seen else "ram_push")
        doubt = (
            []
            if seen or (failed and failed[0].phase)
            else ["in which phase it failed is in no line: ram_push is invented"]
        )
        self.sheet.rule(
            f"{host}-migration-fails",
            host_named(host, ", role: source" if len(targets) > 1 else ""),
            f"{{migration: {phase}}}",
            "{migration: {result: failed, source: resumes, target: failed}}",
            why=[at(where, "the migration failed")],
            doubt=doubt,
            times=1,
            skip=max(0, len(targets) - 1),
        )
        self.sheet.expect(
            f"{host}-stays",
            [
                f"for: {host_named(host)}",
                "after: {migration: error}",
                "within: 60s",
                "that: {migration_out: failed, sled: unchanged}",
            ],
            [at(where, "failed")],
        )

    def _refusals(self, instance: Instance, vmm: Vmm) -> None:
        by_kind: dict[tuple[Op, int], list[Asked]] = defaultdict(list)
        for asked in vmm.asked:
            if asked.status is not None and asked.status >= 400 and not asked.late and not self._harmless(vmm, asked):
                by_kind[(asked.op, asked.status)].append(asked)
        for (op, status), found in by_kind.items():
            first = found[0]
            skip = 0 if op is Op.GET_STATE else self._before(instance, op, first)
            self._asked_again(instance, vmm, [a for a in found if (a.status or 0) >= 500], "reboot")
            if (op, status) == (Op.PUT_STATE, 403):
                # Propolis's queue denied what the sled let pass (PR 3.9): it would do so again, and a rule would
                # refuse another request than this one
                self.sheet.draft.notes.append(
                    f"{first.where}: {op.value} for {instance.shown} was answered {status}: Propolis refused it in "
                    f"the state it was in. Who asked is not known, so nobody asks here ({len(found)} x)."
                )
                continue
            code = (
                ", code: INSTANCE_CHANNEL_FULL"
                if "channel at capacity" in first.why
                else ", code: Internal"
                if status == 500
                else ""
            )
            said = first.said or ("Internal Server Error" if status == 500 else "")
            message = f', message: "{quoted(said)}"' if said else ""
            delay = f"{{delay: {duration(first.latency_us)}}}, " if first.latency_us >= DELAY_MIN_US else ""
            fail = f"{{fail: {{status: {status}{code}{message}}}}}"
            do = f"[{delay}{fail}]" if delay else fail
            why = [at(each.where, f"{op.value}: {status} {each.why}") for each in found[:3]]
            word = {Op.REGISTER: "register", Op.PUT_STATE: "put", Op.GET_STATE: "check", Op.UNREGISTER: "unregister"}[
                op
            ]
            name = f"{instance.shown}-{word}-refused" + ("" if status == 500 else f"-{status}")
            self.sheet.rule(
                name,
                host_named(instance.shown),
                f"{{request: {op.value}}}",
                do,
                why=why,
                times=len(found),
                skip=skip,
                between=_meanwhile(vmm, found) if op is Op.GET_STATE else None,
            )

    def _asked_again(self, instance: Instance, vmm: Vmm, found: list[Asked], invented: str) -> None:
        """Who asks what was refused or not answered: a start and a migration ask by themselves, the rest nobody does
        in a replay. `invented`: what is asked for if no line tells.
        """
        for asked in found:
            began_us = asked.at_us - asked.latency_us
            earlier = any(a.op is Op.PUT_STATE and a.at_us < began_us for a in vmm.asked)
            played = any(u.status < 400 and abs(u.at_us - began_us) < ONE_CAUSE_US for u in instance.users)
            if asked.op is not Op.PUT_STATE or not earlier or played:
                continue
            said = wanted(vmm, asked)
            by_user = [u for u in instance.users if u.status >= 400 and abs(u.at_us - began_us) < ONE_CAUSE_US]
            verb = said.verb if said is not None else by_user[0].verb if by_user else invented
            if verb not in ("stop", "reboot"):
                continue
            why = [at(asked.where, f"{asked.op.value}: {asked.status or 'not answered'}")]
            why += [] if said is None else [at(said.where, f"{verb} was asked for")]
            why += [at(user.where, f"a user's {verb}, {user.status}") for user in by_user[:1]]
            doubt = [] if said or by_user else [f"what was asked for is in no line: a {invented} is invented"]
            self.sheet.load(self.sheet.t(began_us), f"{verb}: {host_named(instance.shown)}", why, doubt)

    def _harmless(self, vmm: Vmm, asked: Asked) -> bool:
        """Whether the refusal follows from what else is played, or from a VMM that is over."""
        if asked.status in (404, 410):
            if asked is forgotten(vmm) or forgotten(vmm) is not None:
                return True
            # told, or seen and not told yet: the runner is ending and takes nothing more (410)
            ends: list[Observed | Published] = (
                [*vmm.published, *vmm.observed] if asked.status == 410 else [*vmm.published]
            )
            over = any(p.state in TERMINAL and p.at_us <= asked.at_us for p in ends)
            restarted = self.incident.last_agent_restart(vmm.sled, asked.at_us)
            died = any(
                e.how in (Ending.EMPTY, Ending.ZONE_GONE, Ending.RUNNER_EXITED) and e.at_us <= asked.at_us + SECOND_US
                for e in vmm.ended
            )
            forgot = unregistered(vmm)
            gone = forgot is not None and forgot.at_us <= asked.at_us
            return over or restarted is not None or died or gone or asked.op is Op.UNREGISTER
        dead = any(
            e.how in (Ending.EMPTY, Ending.SILENT, Ending.SETUP_FAILED, Ending.ENSURE_FAILED) for e in vmm.ended
        )
        states: list[Observed | Published] = [*vmm.observed, *vmm.published]
        began = any(each.state == "failed" and each.at_us - asked.at_us < SECOND_US for each in states)
        return asked.op is Op.PUT_STATE and (dead or began)

    def _cancelled(self, instance: Instance, vmm: Vmm) -> None:
        by_op: dict[Op, list[Asked]] = defaultdict(list)
        for asked in vmm.asked:
            slow = (
                asked.status is not None
                and asked.status < 400
                and asked.latency_us > SECOND_US
                and asked.op is Op.GET_STATE
            )
            if asked.status is None and asked.op is Op.PUT_STATE and _began_it(vmm, asked):
                waited = f"{asked.where}: Nexus waited {duration(asked.latency_us)} for {instance.shown} to start"
                self.sheet.draft.notes.append(f"{waited} and gave up; the sled went on: played as a slow start.")
                continue
            if (asked.status is None or slow) and not asked.late and asked.where not in self.explained:
                by_op[asked.op].append(asked)
        for op, found in by_op.items():
            self._asked_again(instance, vmm, [a for a in found if a.status is None], "stop")
            states = {vmm.state_at(each.at_us - each.latency_us) for each in found}
            longest = max(each.latency_us for each in found)
            unanswered = any(each.status is None for each in found)
            lasts = CLIENT_US if unanswered and abs(longest - CLIENT_US) < SECOND_US else longest
            do = f"{{hang: {duration(lasts)}}}" if unanswered else f"{{delay: {duration(longest)}}}"
            why = [at(each.where, f"{op.value}: {_outcome(each)}") for each in found[:3]]
            word = {Op.REGISTER: "register", Op.PUT_STATE: "put", Op.GET_STATE: "check", Op.UNREGISTER: "unregister"}[
                op
            ]
            name = f"{instance.shown}-{word}-not-answered" if unanswered else f"{instance.shown}-{word}-answered-late"
            if states <= {"stopped", "destroyed"} and op is Op.GET_STATE:
                # the agent is busy taking it down and answers nobody: for as long as that lasts
                self.sheet.rule(
                    name,
                    host_named(instance.shown, ", state: stopped"),
                    f"{{request: {op.value}}}",
                    do,
                    why=[*why, "asked while it was being taken down"],
                    doubt=[_ONE_SIDED],
                )
            else:
                self.sheet.rule(
                    name,
                    host_named(instance.shown),
                    f"{{request: {op.value}}}",
                    do,
                    why=why,
                    doubt=[_ONE_SIDED],
                    times=len(found),
                    skip=0 if op is Op.GET_STATE else self._before(instance, op, found[0]),
                    between=_meanwhile(vmm, found) if op is Op.GET_STATE else None,
                )

    def _hangs_of_sleds(self, told: list[Instance]) -> None:
        """Many VMMs of one sled that are not answered at one time have one cause."""
        by_sled: dict[str, list[tuple[Asked, Vmm]]] = defaultdict(list)
        for instance in told:
            for vmm in instance.vmms:
                for asked in vmm.asked:
                    if asked.status is None and vmm.sled:
                        by_sled[vmm.sled].append((asked, vmm))
        for sled, found in by_sled.items():
            if len({vmm.id for _, vmm in found}) < 3 or sled not in self.sheet.draft.hosts:
                continue
            begin = min(a.at_us - a.latency_us for a, _ in found)
            end = max(a.at_us for a, _ in found)
            for asked, _ in found:
                self.explained.add(asked.where)
            ops = sorted({a.op.value for a, _ in found})
            name = self.sheet.draft.hosts[sled]
            between = f"between: {duration(self.sheet.t(begin))}..{duration(self.sheet.t(end))}"
            request = ops[0] if len(ops) == 1 else '"vmm_*"'
            rule = (
                f"for: {{sled: {name}}}",
                f"when: {{request: {request}}}",
                between,
                f"do: {{hang: {duration(max(a.latency_us for a, _ in found))}}}",
            )
            why = tuple(at(a.where, "the caller gave up") for a, _ in found[:3])
            doubt = ("one cause is assumed: all on one sled within one time", "agent or network: the log cannot tell")
            self.sheet.draft.rules.append(Entry(f"{name}-answers-nobody", rule, why, doubt))


def _began_it(vmm: Vmm, put: Asked) -> bool:
    """Whether a sled has begun with a start although its caller gave up. If it was unregistered then, as a saga does
    that unwinds, a request that is not answered plays that.
    """
    if unregistered(vmm) is not None:
        return False
    began_us = put.at_us - put.latency_us
    first = min(each.at_us - each.latency_us for each in vmm.asked if each.op is Op.PUT_STATE)
    came = [z.at_us for z in vmm.zones]
    came += [e.at_us for e in vmm.ended if e.how in (Ending.SETUP_FAILED, Ending.ENSURE_FAILED)]
    came += [o.at_us for o in vmm.observed if o.state in ("starting", "running")]
    return began_us == first and max(came, default=0) >= began_us


def _moves(vmm: Vmm) -> bool:
    """Whether it was a side of a migration: its source stops unasked."""
    return bool(vmm.migrated or vmm.phases) or any(p.migration_in or p.migration_out for p in vmm.published)


def _was_started(vmm: Vmm) -> bool:
    """Whether it was asked to start; a target of a migration never is."""
    return not vmm.is_noise and not is_target(vmm) and any(each.op is Op.PUT_STATE for each in vmm.asked)


def _starts_before(instance: Instance, vmm: Vmm) -> int:
    """How many VMMs of an instance were started before this one."""
    started = [each.id for each in instance.vmms if each is vmm or _was_started(each)]
    return started.index(vmm.id)


def _times_before(instance: Instance, state: str, at_us: int) -> int:
    """How often VMMs of an instance had come into a state before."""
    count = 0
    for vmm in instance.vmms:
        was = ""
        for each in vmm.observed:
            count += each.state == state != was and each.at_us < at_us
            was = each.state
    return count


def _meanwhile(vmm: Vmm, found: list[Asked]) -> tuple[int, int] | None:
    """Between what times checks departed, if others went well. A replay asks at other moments: one period more."""
    if not vmm.quiet_checks:
        return None
    return min(a.at_us - a.latency_us for a in found) - SECOND_US, max(a.at_us for a in found) + CHECK_PERIOD_US


@attrs.define
class _Run:
    """Reports in a row that were not taken, and the good ones around them."""

    bad: list[NotTaken]
    good_before: int | None
    good_after: int | None = None


def _alone(attempts: list[tuple[int, str, NotTaken | None]]) -> set[str]:
    """Sleds whose reports were not taken while those of others were, and only those: the rest is all of Nexus."""
    found = set()
    for host in {host for _, host, bad in attempts if bad is not None}:
        times = [at_us for at_us, whose, bad in attempts if whose == host and bad is not None]
        others = [bad for at_us, whose, bad in attempts if whose != host and times[0] <= at_us <= times[-1]]
        if others and all(bad is None for bad in others):
            found.add(host)
    return found


def _runs(attempts: list[tuple[int, str, NotTaken | None]]) -> list[_Run]:
    """Runs over all sleds. One report that is taken meanwhile on a sled where others fail does not end a run if more
    failures follow within the longest pause of the agent (3 min): a retry is not a new storm.
    """
    runs: list[_Run] = []
    good: int | None = None
    for at_us, _, bad in attempts:
        if bad is None:
            if runs and runs[-1].good_after is None:
                runs[-1].good_after = at_us
            good = at_us
        elif runs and runs[-1].good_after is None:
            runs[-1].bad.append(bad)
        elif runs and at_us - runs[-1].bad[-1].at_us < SECOND_US:
            runs[-1].good_after = None
            runs[-1].bad.append(bad)
        else:
            runs.append(_Run([bad], good))
    return runs


def _outcome(asked: Asked) -> str:
    """How a slow request ended."""
    ended = "the caller gave up" if asked.status is None else "answered"
    return f"{ended} after {duration(asked.latency_us)}"
