"""Requests to sleds that were refused, not answered, or answered late, as rules (LG 5 #5).

Read before: incident/sheet.py, incident/life.py. Read next: incident/departures.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import attrs

from sim_sled.incident.facts import Asked, Ending, Observed, Op, Published
from sim_sled.incident.life import (
    CHECK_PERIOD_US,
    CLIENT_US,
    ONE_CAUSE_US,
    SECOND_US,
    first,
    forgotten,
    is_target,
    ran_before,
    unknown,
    unregistered,
    wanted,
)
from sim_sled.incident.lines import Where
from sim_sled.incident.sheet import Entry, Sheet, at, duration, host_named, quoted
from sim_sled.incident.timeline import AS_NEXUS_TELLS, TERMINAL, Incident, Instance, Vmm

DELAY_MIN_US: Final = 10_000
"""A refusal that came sooner came at once."""
_ONE_SIDED: Final = "agent or network: which was slow, one log cannot tell"
_WORDS: Final = {Op.REGISTER: "register", Op.PUT_STATE: "put", Op.GET_STATE: "check", Op.UNREGISTER: "unregister"}


@attrs.define
class Requests:
    """Writes the rules of requests on the sheet; a line that a wider rule has explained gets none of its own."""

    sheet: Sheet
    explained: set[Where] = attrs.field(factory=set)

    @property
    def incident(self) -> Incident:
        return self.sheet.incident

    def all(self, told: list[Instance]) -> None:
        """Every rule, the widest causes first."""
        self._hangs_of_sleds(told)
        for instance in told:
            for vmm in instance.vmms:
                self._refusals(instance, vmm)
                self._cancelled(instance, vmm)

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

    def _refusals(self, instance: Instance, vmm: Vmm) -> None:
        by_kind: dict[tuple[Op, int], list[Asked]] = defaultdict(list)
        for asked in vmm.asked:
            if asked.status is not None and asked.status >= 400 and not asked.late and not self._harmless(vmm, asked):
                by_kind[(asked.op, asked.status)].append(asked)
        for (op, status), found in by_kind.items():
            first = found[0]
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
            word = _WORDS[op]
            name = f"{instance.shown}-{word}-refused" + ("" if status == 500 else f"-{status}")
            self._answered(instance, vmm, found, name, do=do, why=why)

    def _asked_again(self, instance: Instance, vmm: Vmm, found: list[Asked], invented: str) -> None:
        """Who asks what was refused or not answered: a start and a migration ask by themselves, the rest nobody does
        in a replay. `invented`: what is asked for if no line tells.
        """
        for asked in found:
            began_us = asked.at_us - asked.latency_us
            puts = any(a.op is Op.PUT_STATE and a.at_us < began_us for a in vmm.asked)
            earlier = puts or _start_is_lost(vmm)
            played = any(u.counts and abs(u.at_us - began_us) < ONE_CAUSE_US for u in instance.users)
            if asked.op is not Op.PUT_STATE or not earlier or played:
                continue
            said = wanted(vmm, asked)
            by_user = [u for u in instance.users if not u.counts and abs(u.at_us - began_us) < ONE_CAUSE_US]
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
            if forgotten(vmm) is not None or unknown(vmm) is not None:
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
            word = _WORDS[op]
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
                self._answered(instance, vmm, found, name, do=do, why=why, doubt=[_ONE_SIDED])

    def _answered(
        self,
        instance: Instance,
        vmm: Vmm,
        found: list[Asked],
        name: str,
        *,
        do: str,
        why: list[str],
        doubt: Iterable[str] = (),
    ) -> None:
        """What became of these requests of one kind: after so many that went well, or of checks, which come all the
        time, meanwhile.
        """
        op = found[0].op
        checks = op is Op.GET_STATE
        self.sheet.rule(
            name,
            host_named(instance.shown),
            f"{{request: {op.value}}}",
            do,
            why=why,
            doubt=doubt,
            times=len(found),
            skip=0 if checks else self._before(instance, op, found[0]),
            between=_meanwhile(vmm, found) if checks else None,
        )

    def _before(self, instance: Instance, op: Op, asked: Asked) -> int:
        """How many requests of one kind come before one that departed in a replay: those that were answered well,
        and those of starts that are in no line.
        """
        vmms = [vmm for vmm in instance.vmms if not vmm.is_noise and vmm.first_us() <= asked.at_us]
        all_ = [each for vmm in instance.vmms for each in vmm.asked if each.op is op and not each.late]
        count = sum(
            each.at_us < asked.at_us and each.status is not None and each.status < 400
            for each in all_
            if each is not asked
        )
        if op is Op.REGISTER:
            return count + sum(vmm.registered is None for vmm in vmms)
        return count + (sum(_start_is_lost(vmm) for vmm in vmms) if op is Op.PUT_STATE else 0)


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


def _meanwhile(vmm: Vmm, found: list[Asked]) -> tuple[int, int] | None:
    """Between what times checks departed, if others went well. A replay asks at other moments: one period more."""
    if not vmm.quiet_checks and found[0].why != AS_NEXUS_TELLS:
        return None
    return min(a.at_us - a.latency_us for a in found) - SECOND_US, max(a.at_us for a in found) + CHECK_PERIOD_US


def _outcome(asked: Asked) -> str:
    """How a slow request ended."""
    ended = "the caller gave up" if asked.status is None else "answered"
    return f"{ended} after {duration(asked.latency_us)}"


def _start_is_lost(vmm: Vmm) -> bool:
    """Whether it was asked to start, and the line of that is not here."""
    ran = first(vmm, "running")
    puts = [each.at_us - each.latency_us for each in vmm.asked if each.op is Op.PUT_STATE]
    if is_target(vmm) or (ran is None and not ran_before(vmm)):
        return False
    if ran_before(vmm) and vmm.observed and vmm.observed[0].state not in ("creating", "starting", "running"):
        return True
    return ran is None or not any(began_us <= ran.at_us for began_us in puts)
