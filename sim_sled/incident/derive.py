"""From an incident to the draft of a scenario: fleet, load, latencies, departures, expectations (LG 5).

Each entry carries the lines it rests on and, where something was concluded or invented, a word of doubt (LG 6).
Rules mean host names, never ids: ids differ in a replay.

Read before: incident/departures.py, incident/life.py, incident/migrations.py, incident/sheet.py,
incident/silences.py, incident/timeline.py. Read next: incident/importing.py, incident/writing.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

import attrs

from nexus_client.dropshot.text import counted
from sim_sled.incident.clocks import Proof
from sim_sled.incident.departures import Departures
from sim_sled.incident.facts import Asked, Ending, Fact, Observed, Op, Published, Received, User
from sim_sled.incident.life import (
    CHECK_PERIOD_US,
    SECOND_US,
    SLOW_US,
    TEARDOWN,
    begins_here,
    blocked,
    by_itself,
    edges,
    first,
    forgotten,
    is_start,
    is_target,
    left_failed,
    seen_late,
    told_end,
    unregistered,
    vanished_with_its_sled,
    wanted,
)
from sim_sled.incident.migrations import add_unseen_sides
from sim_sled.incident.sheet import Draft, Entry, Sheet, at, duration, host_named, slug, word
from sim_sled.incident.silences import HOUR_US
from sim_sled.incident.timeline import ELSEWHERE, TERMINAL, Incident, Instance, Vmm
from sim_sled.language.schema import GIB, Shape

BOOT_US: Final = 20 * SECOND_US
"""How long VMs that already ran get to boot in the replay before the first thing happens to them."""
_WISH_US: Final = 5 * SECOND_US
"""So long after, or before the answer to, a user's request a sled is asked: clocks of hosts agree that well."""
_AFTER_US: Final = 300_000
"""So long after what had to come first something is asked for in a replay."""
_TO_RUNNING: Final = ("starting -> running", "rebooting -> running")
_TO_THE_END: Final = ("stopping -> stopped", TEARDOWN)
NCPUS: Final = 2
MEMORY: Final = 4 * GIB
"""What is invented where no line has a VM's size."""
CPUS_MAX: Final = 4_096
"""Of a sled, in the language."""
_PAUSE_MAX_US: Final = 270 * SECOND_US
"""Between two attempts of an agent to report: 3 min, and half as much again (NX 3.1)."""
_UNSEEN: Final = "its source alone"
_BY: Final = {Proof.PHASE: " of one migration's phases", Proof.MIGRATION: " of what both agents say of a migration"}
_NOTED_MAX: Final = 20
"""Lines quoted that play nothing: what repeats tells nothing new."""


def derive(incident: Incident, name: str) -> Draft:
    """The scenario of an incident. Never fails: what cannot be told is in `doubts`."""
    add_unseen_sides(incident)
    _add_unseen_sled(incident)
    sheet = Sheet(incident, Draft(name, max(1, len(incident.sleds))))
    return _Deriver(sheet).all()


def _add_unseen_sled(incident: Incident) -> None:
    """What a sled has lost for good is started elsewhere, even if no line says where."""
    for instance in incident.told():
        for before, after in pairwise(instance.vmms):
            lost = any(verdict.why in ("sled off", "expunged") for verdict in before.verdicts)
            if lost and not after.sled:
                after.sled = ELSEWHERE
                if ELSEWHERE not in incident.sleds:
                    incident.sleds.append(ELSEWHERE)


@attrs.define
class _Deriver:
    sheet: Sheet
    _late: dict[str, list[tuple[int, int]]] = attrs.field(factory=lambda: defaultdict(list))
    """Of each instance: when something was asked for, and how much later it is in the replay."""

    @property
    def incident(self) -> Incident:
        return self.sheet.incident

    @property
    def draft(self) -> Draft:
        return self.sheet.draft

    def all(self) -> Draft:
        told = self.incident.told()
        self._hosts()
        self._room(told)
        self._start_of_time(told)
        self._latencies(told)
        for instance in told:
            self._load(instance)
        Departures(self.sheet).all(told)
        for instance in told:
            self._replayed(instance)
            self._expectations(instance)
        self._say()
        self.draft.load.sort(key=lambda each: each[0])
        return self.draft

    def _replayed(self, instance: Instance) -> None:
        """Which VMMs a replay is held against: one that an automatic restart made after a user's stop is not, since
        Nexus has stopped doing that (LG 3 #1).
        """
        for vmm in instance.vmms:
            if vmm.is_noise:
                continue
            if by_itself(instance, vmm) and any(
                user.verb == "stop" and user.at_us < vmm.first_us() for user in instance.users
            ):
                self.draft.notes.append(
                    f"{instance.shown} was started again by Nexus itself after a user's stop, as Nexus did then; "
                    "today's does not, so the replay ends otherwise."
                )
                break
            self.draft.compared.setdefault(instance.shown, []).append(vmm)

    def _hosts(self) -> None:
        for host in self.incident.sleds:
            self.draft.hosts[host] = slug(host)
        self.draft.wrote = self.incident.wrote
        if not self.incident.sleds and any(is_target(vmm) for vmm in self.incident.vmms.values()):
            self.draft.sleds = 2  # for a migration, wherever it went

    def _room(self, told: list[Instance]) -> None:
        """Sleds with room for all VMs, and as much again for targets of migrations: what they have nobody logs."""
        usual = Shape()
        cpus = 2 * sum(each.ncpus or NCPUS for each in told)
        memory_gib = -(-2 * sum(each.memory or MEMORY for each in told) // GIB)
        if cpus > usual.cpus or memory_gib * GIB > usual.reservoir:
            cpus = min(max(cpus, usual.cpus), CPUS_MAX)
            self.draft.shape = f"{{cpus: {cpus}, ram: {memory_gib + 64}GiB, reservoir: {memory_gib}GiB}}"

    def _start_of_time(self, told: list[Instance]) -> None:
        """T = 0 is the earliest record; where VMs ran before, they are created first and everything is shifted."""
        early = [vmm for each in told for vmm in each.vmms[:1] if not vmm.is_noise and self._ran_before(each)]
        if early:
            first_us = min(vmm.first_us() for vmm in early)
            self.sheet.shift_us = max(0, BOOT_US - (first_us - self.incident.begin_us))
            self.draft.notes.append(
                f"{counted(len(early), 'VM')} ran before the logs begin: created at 0 s, all else is shifted "
                f"by {duration(self.sheet.shift_us)}, for the time to boot."
            )

        else:
            # what a start finds there was created at 0 s, stopped, which takes a moment
            starts = [user.at_us for each in told for user in each.users if user.verb == "start" and user.counts]
            self.sheet.shift_us = max(0, SECOND_US - (min(starts, default=2**62) - self.incident.begin_us))

    def _ran_before(self, instance: Instance) -> bool:
        vmm = next(iter(instance.vmms), None)
        if vmm is None or begins_here(vmm):
            return False
        begun = [user.at_us for user in instance.users if user.verb == "start" and user.counts]
        begun += [each.at_us for each in instance.starts if not each.vmm and not each.automatic]
        return all(at_us > vmm.first_us() + SECOND_US for at_us in begun)

    def _load(self, instance: Instance) -> None:
        size = f"ncpus: {instance.ncpus or NCPUS}, memory: {_size(instance.memory or MEMORY)}"
        called = instance in self.incident.called.values()
        doubt = (
            []
            if instance.name or called
            else [f"no line names {instance.id}, or not as it can be named here; '{instance.shown}' is invented"]
        )
        if instance.ncpus is None:
            doubt.append("its size is in no line; 2 CPUs and 4 GiB are invented")
        starts = [user for user in instance.users if user.verb == "start" and user.counts]
        wishes = [user for user in instance.users if user.counts]
        begins = next((vmm for vmm in instance.vmms if not vmm.is_noise), None)
        from_start = begins is None and bool(wishes) and wishes[0].verb == "start"
        if from_start or (begins and starts and starts[0].at_us <= begins.first_us() + SECOND_US):
            # a start before there was a VMM
            why = [at(starts[0].where, "started")]
            self._create(instance, 0, size, why, [*doubt, "it existed, stopped, before the logs begin"], start=False)
        elif begins is None:
            why = [at(instance.users[0].where, "spoken of first")]
            self._create(instance, 0, size, why, [*doubt, "it ran before"], start=True)
        elif self._ran_before(instance):
            why = [at(_first_word(begins).where, "already there")]
            self._create(instance, 0, size, why, [*doubt, "it ran before"], start=True)
        else:
            began = begins.described or begins.registered
            why = [at(began.where, "registered") if began else at(_first_word(begins).where, "spoken of first")]
            asked = [
                user
                for user in self.incident.users
                if user.verb == "create" and user.counts and 0 <= begins.first_us() - user.at_us <= _WISH_US
            ]
            if len(asked) == 1:
                why.insert(0, at(asked[0].where, f"POST, {asked[0].status}"))
            self._create(instance, self.sheet.t(begins.first_us()), size, why, doubt, start=True)
        for user in instance.users:
            self._user(instance, user)
        self._inferred(instance)

    def _create(
        self, instance: Instance, at_us: int, size: str, why: list[str], doubt: list[str], *, start: bool
    ) -> None:
        more = "" if start else ", start: false"
        left = left_failed(self.incident, instance)
        if left is not None:
            more += ", auto_restart: never"
            why = [*why, at(left.where, "failed, and Nexus did not start it again")]
            doubt = [*doubt, "that its policy forbids automatic restarts is inferred"]
        on = self._started_on(instance)
        if on and len(self.draft.hosts) > 1:
            more += f", sled: {on[0] if len(on) == 1 else '[' + ', '.join(on) + ']'}"
        self.sheet.load(at_us, f"create: {{hostname: {word(instance.shown)}, {size}{more}}}", why, doubt)

    def _user(self, instance: Instance, user: User) -> None:
        if not user.counts:
            self.draft.notes.append(
                f"{user.where}: a user's {user.verb} of {instance.shown} was refused ({user.status})."
            )
            return
        if user.verb == "migrate":
            # the saga registers its target while the request is answered: nearest in time, of several migrations
            targets = [v for v in instance.vmms if is_target(v)]
            target = min(targets, key=lambda v: abs(v.first_us() - user.at_us), default=None)
            self._migrate(instance, target, user.at_us, at(user.where, _asked(user)))
            return
        self._wish(instance, user.verb, user.at_us, [at(user.where, _asked(user))])

    def _began_on(self, instance: Instance) -> str | None:
        """The sled on which it first ran, or was to run: on which a rule about that sled meets it."""
        placed = (vmm for vmm in instance.vmms if not vmm.is_noise and not is_target(vmm))
        return next((self.draft.hosts.get(vmm.sled) for vmm in placed), None)

    def _started_on(self, instance: Instance) -> list[str]:
        """The sled of each of its starts in their order; of one that nobody tells, the one before."""
        found: list[str] = []
        for vmm in instance.vmms:
            if not vmm.is_noise and not is_target(vmm):
                known = self.draft.hosts.get(vmm.sled)
                found += [known] if known is not None else found[-1:]
        while len(found) > 1 and found[-1] == found[-2]:
            found.pop()
        return found

    def _wish(self, instance: Instance, verb: str, at_us: int, why: list[str], doubt: tuple[str, ...] = ()) -> None:
        """What somebody wants of a VM; not before what it came after in the logs has happened in the replay, too."""
        ready_us, late = self._pushed(instance, verb, at_us)
        self.sheet.load(self.sheet.t(ready_us), f"{verb}: {host_named(instance.shown)}", why, (*doubt, *late))

    def _pushed(self, instance: Instance, verb: str, at_us: int) -> tuple[int, tuple[str, ...]]:
        """As `_ready`, and what comes after something that is later in the replay is as much later."""
        ready_us, late = self._ready(instance, verb, at_us)
        earlier = [by_us for since_us, by_us in self._late[instance.id] if since_us < at_us]
        ready_us += max(earlier, default=0)
        self._late[instance.id].append((at_us, ready_us - at_us))
        return ready_us, late

    def _ready(self, instance: Instance, verb: str, at_us: int) -> tuple[int, tuple[str, ...]]:
        """When it can be asked for, and why that is not when it was. An agent that starts a VM takes the next request
        only then (LG 0 #8), and a latency of several samples may be longer in the replay than it was here.
        """
        later = 0
        for i, vmm in enumerate(instance.vmms):
            if vmm.first_us() > at_us or vmm.is_noise:
                continue
            # what Nexus starts by itself is as much later as the end before it
            wished = _asked_for(instance, "start", vmm.first_us())
            fell = i > 0 and self._fell(instance, _active_before(instance, i), vmm.first_us())
            began_later = later = later if by_itself(instance, vmm) or (fell and not wished) else 0
            over_us = _taken_back(vmm)
            if verb == "migrate" and is_target(vmm) and over_us <= at_us < over_us + CHECK_PERIOD_US + _AFTER_US:
                return over_us + CHECK_PERIOD_US + _AFTER_US, (
                    "later, as a migration that came to nothing is cleared by the updater's next pass",
                )
            ran = first(vmm, "running")
            if i and not wished and ran is not None and _told_by_checks(_active_before(instance, i)):
                took = ran.at_us - vmm.first_us()
                ready = ran.at_us + CHECK_PERIOD_US + self._more("starting -> running", took) + _AFTER_US
                if verb != "start" and ran.at_us <= at_us < ready:
                    return ready, ("a little later, as Nexus may notice later here that it has to start it again",)
            for edge, began, took, _ in edges(vmm):
                ready = began + took + self._more(edge, took) + _AFTER_US
                # a guest's own reboot comes so long after its start
                ready += later if edge == "rebooting -> running" else began_later
                later += self._more(edge, took)
                waits = verb in ("stop", "reboot", "migrate") and edge in _TO_RUNNING and began <= at_us < ready
                if waits and any(o.at_us > began + took for o in vmm.observed):
                    return ready, ("asked for while it started; it ran first, so it is asked here when it runs",)
            later += self._later_to_fail(vmm)
            told = told_end(vmm)
            if verb == "start" and told is not None and told.at_us <= at_us:
                ready = told.at_us + _AFTER_US
                lasted: Counter[str] = Counter()
                for edge, _, part, _ in edges(vmm):  # of a teardown Propolis's part and the agent's
                    lasted[edge] += part
                ready += sum(self._more(edge, lasted[edge]) for edge in _TO_THE_END if edge in lasted)
                if at_us < ready:
                    return ready, ("a little later, as the end before it may last longer here",)
        return at_us, ()

    def _later_to_fail(self, vmm: Vmm) -> int:
        """How much later a start that came to nothing may fail in the replay: when it would have run."""
        failed = [e.at_us for e in vmm.ended if e.how in (Ending.SETUP_FAILED, Ending.ENSURE_FAILED)]
        return self._more("starting -> running", min(failed) - vmm.first_us()) if failed else 0

    def _more(self, edge: str, took: int) -> int:
        """How much longer an edge may last in the replay; what a rule delays has its latency besides."""
        longest = self.sheet.longest.get(edge, 0)
        return max(0, longest - took) if took <= SLOW_US[edge] else longest

    def _migrate(
        self, instance: Instance, target: Vmm | None, at_us: int, why: str, doubt: tuple[str, ...] = ()
    ) -> None:
        host = None if target is None else self.draft.hosts.get(target.sled)
        if target is not None:
            i = instance.vmms.index(target)
            is_on = self.draft.hosts.get(_active_before(instance, i).sled) if i else None
            if host == is_on:  # whatever the logs mean, a migration is to another sled
                host = None
        to = "" if host is None else f", to: {host}"
        ready_us, late = self._pushed(instance, "migrate", at_us)
        action = f"migrate: {{hostname: {word(instance.shown)}{to}}}"
        self.sheet.load(self.sheet.t(ready_us), action, [why], (*doubt, *late))

    def _inferred(self, instance: Instance) -> None:
        """What no user's request explains, as Nexus's log is missing or one of several: a request to the sled, and
        what followed it (LG 0 #2).
        """
        missing = (
            "no user's request for it is in Nexus's log" if self.incident.has_nexus_log else "Nexus's log is missing"
        )
        for i, vmm in enumerate(instance.vmms):
            self._asked_of_propolis(instance, vmm)
            if i == 0:
                self._asked_before(instance, vmm)
            if is_target(vmm) and vmm.described is not None:
                if _asked_for(instance, "migrate", vmm.described.at_us):
                    continue
                self._migrate(
                    instance,
                    vmm,
                    vmm.described.at_us,
                    at(vmm.described.where, "it migrates" if vmm.unseen else "a target is registered"),
                    (f"inferred from {_UNSEEN if vmm.unseen else 'the registration of a target'}; {missing}",),
                )
            elif i > 0 and not vmm.is_noise and not self._fell(instance, _active_before(instance, i), vmm.first_us()):
                self._registered_anew(instance, i, missing)
            for put in (each for each in vmm.asked if each.op is Op.PUT_STATE and (each.status or 0) < 300):
                if put.status is None:
                    continue
                said = wanted(vmm, put)
                began_us = put.at_us - put.latency_us
                if said is not None:
                    if said.verb in ("stop", "reboot") and not _asked_for(instance, said.verb, began_us):
                        self._wish(
                            instance,
                            said.verb,
                            said.at_us if said.arrived else began_us,
                            [at(put.where, "PUT state"), at(said.where, f"{said.verb} was asked for")],
                        )
                    continue
                verb = self._what_followed(vmm, put)
                if verb and not _asked_for(instance, verb, began_us):
                    self._wish(
                        instance,
                        verb,
                        began_us,
                        [at(put.where, "PUT state")],
                        (f"inferred from what followed: {verb}; {missing}, and bodies are not logged",),
                    )

    def _registered_anew(self, instance: Instance, i: int, missing: str) -> None:
        """A later VMM of an instance that did not fail: its start, and its end before, if nobody tells of them."""
        vmm, before = instance.vmms[i], _active_before(instance, i)
        began_us, anew = vmm.first_us(), [at(_first_word(vmm).where, "registered anew")]
        if by_itself(instance, vmm):
            return
        stopped = any(
            u.verb in ("stop", "delete") and before.first_us() <= u.at_us <= began_us for u in instance.users
        )
        if before is instance.vmms[i - 1] and not stopped and _has_no_end(before):
            at_us = max(before.first_us() + _AFTER_US, began_us - BOOT_US)
            doubt = "how the VMM before it ended is in no line: that it was stopped is invented"
            self._wish(instance, "stop", at_us, anew, (doubt,))
        if not _asked_for(instance, "start", began_us):
            doubt = f"inferred: a new VMM after an orderly end; {missing}"
            self._wish(instance, "start", began_us, anew, (doubt,))

    def _asked_before(self, instance: Instance, vmm: Vmm) -> None:
        """A VM that ran before the logs begin, and whose first word is what somebody asked for before that."""
        words: list[Observed | Published] = [*vmm.observed, *vmm.published]
        seen = min(words, key=lambda each: each.at_us, default=None)
        verbs = {"stopping": "stop", "stopped": "stop", "destroyed": "stop", "rebooting": "reboot"}
        verb = verbs.get("" if seen is None else seen.state)
        if seen is None or verb is None or vmm.described is not None or vmm.registered is not None:
            return
        began = [each.at_us - each.latency_us for each in vmm.asked if each.op is Op.PUT_STATE]
        began += [user.at_us for user in instance.users if user.counts] + [each.at_us for each in vmm.wanted]
        if not any(at_us <= seen.at_us + SECOND_US for at_us in began):
            doubt = "who asked for it, or whether the guest did it, is before the logs begin"
            self._wish(instance, verb, seen.at_us, [at(seen.where, f"{seen.state} already")], (doubt,))

    def _asked_of_propolis(self, instance: Instance, vmm: Vmm) -> None:
        """What Propolis says it was asked for where the log of its sled, which asked, is missing."""
        puts = [(put.at_us - put.latency_us, put.at_us) for put in vmm.asked if put.op is Op.PUT_STATE]
        for said in vmm.wanted:
            asked = any(since - SECOND_US <= said.at_us <= until + SECOND_US for since, until in puts)
            if said.verb in ("stop", "reboot") and not asked and not _asked_for(instance, said.verb, said.at_us):
                self._wish(
                    instance,
                    said.verb,
                    said.at_us,
                    [at(said.where, f"{said.verb} was asked for")],
                    ("the request to the sled is in no log: who wanted it is not known",),
                )

    def _fell(self, instance: Instance, vmm: Vmm, before_us: int) -> bool:
        """Whether it ended so that Nexus starts the instance again by itself: it failed, or its agent or sled did."""
        if unregistered(vmm) is not None or left_failed(self.incident, instance) is not None:
            return (
                False  # a start that was taken back, or an end that was asked for: whoever starts it again wants it
            )
        words: list[Observed | Published] = [*vmm.observed, *vmm.published]
        restarted = self.incident.last_agent_restart(vmm.sled, before_us)
        return (
            any(each.state == "failed" for each in words)
            or (restarted is not None and restarted.at_us > vmm.first_us())
            or vanished_with_its_sled(self.incident, vmm, before_us)
        )

    def _what_followed(self, vmm: Vmm, put: Asked) -> str:
        if is_start(vmm, put):
            return ""
        began_us = put.at_us - put.latency_us
        puts = (each for each in vmm.asked if each.op is Op.PUT_STATE)
        starts_it = began_us == min(each.at_us - each.latency_us for each in puts)
        means = {"stopping": "stop", "stopped": "stop", "destroyed": "stop", "rebooting": "reboot"}
        for each in vmm.observed:
            if each.at_us >= began_us - SECOND_US // 10:
                verb = means.get(each.state)
                if each.state == "migrating":
                    return ""  # what follows that is the migration's
                if verb is not None or starts_it:
                    return verb or ""
        return ""

    def _latencies(self, told: list[Instance]) -> None:
        samples: dict[str, list[tuple[int, Observed]]] = defaultdict(list)
        for instance in told:
            for vmm in instance.vmms:
                # of a teardown Propolis's part and the agent's part add up, unless the latter has a rule of its own
                parts: dict[str, tuple[int, Observed]] = {}
                gone = forgotten(vmm)
                for edge, began, took, seen in edges(vmm):
                    agents_part = edge == TEARDOWN and seen.at_us == began
                    if took > SLOW_US[edge] or blocked(vmm, began, began + took) or seen_late(vmm, began):
                        continue
                    if agents_part and gone:
                        continue
                    if edge != TEARDOWN:  # what a VMM does several times, like a reboot, took each time what it took
                        samples[edge].append((took, seen))
                        continue
                    before = parts[edge][0] if edge in parts else 0
                    parts[edge] = (before + took, seen)
                for edge, part in parts.items():
                    samples[edge].append(part)
        for edge, found in sorted(samples.items()):
            low, high = min(t for t, _ in found), max(t for t, _ in found)
            self.sheet.longest[edge] = high
            value = (
                duration(found[0][0])
                if len(found) == 1 or duration(low) == duration(high)
                else f"{duration(low)}..{duration(high)}"
            )
            why = tuple(at(seen.where, f"{edge} took {duration(took)}") for took, seen in found[:3])
            self.draft.latency.append(Entry(edge, (f"{edge}: {value}",), why))

    def _expectations(self, instance: Instance) -> None:
        """What was seen of each instance in the end, with half as much time again."""
        vmms = [vmm for vmm in self.draft.compared.get(instance.shown, []) if not vmm.unseen]
        if not vmms or instance.shown in self.draft.run_on:
            return
        last = vmms[-1]
        stop = next((o for o in last.observed if o.state == "stopping"), None)
        told = told_end(last)
        host = instance.shown
        lost = any(each.final for each in last.not_taken)
        if told is not None and stop is not None and forgotten(last) is None and not lost:
            within = _generous(max(self._took_to_end(vmm) for vmm in vmms))
            self.sheet.expect(
                f"{host}-is-told-in-the-end",
                [
                    f"for: {host_named(host)}",
                    "after: {state: stopping}",
                    f"within: {duration(within)}",
                    "that: {vmm: destroyed, acked: destroyed}",
                ],
                [at(stop.where, "stopping"), at(told.where, "destroyed is told")],
            )
            return
        running = next((o for o in last.observed if o.state == "running"), None)
        never_ran = any(
            first(vmm, "running") is None and any(each.op is Op.PUT_STATE for each in vmm.asked) for vmm in vmms[:-1]
        )
        if running is not None and begins_here(last) and told is None and not never_ran:
            began = ((vmm.first_us(), first(vmm, "running")) for vmm in vmms if begins_here(vmm))
            took = [ran.at_us - began_us for began_us, ran in began if ran is not None]
            # one latency stands for all, so it may take as long as that of another VM
            within = _generous(max(*took, self.sheet.longest.get("starting -> running", 0)))
            self.sheet.expect(
                f"{host}-runs" if len(vmms) == 1 else f"{host}-a-later-start-works",
                [
                    f"for: {host_named(host)}",
                    "after: {request: vmm_put_state, to: running}",
                    f"within: {duration(within)}",
                    "that: {vmm: running}",
                ],
                [at(running.where, "running")],
            )

    def _took_to_end(self, vmm: Vmm) -> int:
        """From its stopping until its end was told; an expectation is about each VMM of an instance."""
        stop, told = first(vmm, "stopping"), told_end(vmm)
        return 0 if stop is None or told is None else told.at_us - stop.at_us + self._after_storm(vmm, told)

    def _after_storm(self, vmm: Vmm, told: Fact) -> int:
        """A replay may try again at other moments: a pause is at most as long as three times all before it."""
        bad = [each for each in vmm.not_taken if not each.final]
        if not bad:
            return 0
        later = max(each.at_us + (each.retry_us or 0) for each in bad) - told.at_us
        return max(0, later) + min(_PAUSE_MAX_US, 3 * (bad[-1].at_us - bad[0].at_us))

    def _say(self) -> None:
        incident, draft = self.incident, self.draft
        draft.notes += incident.era.notes()
        reference = next(iter(incident.skews), "")
        for host, skew in sorted(incident.skews.items()):
            if host == reference:
                continue
            by = f"{counted(skew.pairs, 'pair')}{_BY.get(skew.proof, '')}"
            if skew.pairs and not skew.offset_us:
                draft.notes.append(f"The clocks of {host} and {skew.to} agree ({by}).")
            elif skew.pairs:
                draft.notes.append(
                    f"The clock of {host} is {abs(skew.offset_us) / 1e6:.3f} s "
                    f"{'behind' if skew.offset_us > 0 else 'ahead of'} that of {skew.to} "
                    f"({by}, spread {skew.spread_us / 1e3:.0f} ms); set right."
                )
            else:
                draft.doubts.append(
                    f"The clock of {host} cannot be compared with that of {reference}: no request of one is "
                    f"in the other's log. Taken as equal; order between them is not certain."
                )
        for silence in incident.shortened.silences:
            draft.doubts.append(
                f"From {_moment(silence.from_us)} to {_moment(silence.to_us)} nothing is told: several incidents? "
                f"It is played as {silence.kept_us // HOUR_US} h; --since and --until take one of them."
            )
        for host in sorted(incident.booted_1986):
            draft.doubts.append(
                f"The clock of {host} believed in 1986 when it booted: what it wrote before it found the time is set "
                "right by what Nexus heard of it, or before its first line after that, in its order."
            )
        for user in incident.in_vain:
            draft.notes.append(
                f"{user.where}: a user's {user.verb} of '{user.key}', of which nothing else is known: {user.status}."
            )
        for key, instance in incident.called.items():
            draft.doubts.append(
                f"No line says which instance users call '{key}'; "
                + (
                    f"it is taken for {instance.shown}, to which something happened each time."
                    if instance.vmms
                    else "nothing else is known of it, and nothing that they asked for reached a sled."
                )
            )
        for lost in incident.dropped:
            draft.doubts.append(
                f"{lost.where}: the logger dropped {counted(lost.count, 'line')}; what is missing near may be there."
            )
        times = Counter(noted.text for noted in incident.noted)
        firsts = {noted.text: noted for noted in reversed(incident.noted)}
        for noted in sorted(firsts.values(), key=lambda each: each.at_us)[:_NOTED_MAX]:
            again = f" ({times[noted.text]} x)" if times[noted.text] > 1 else ""
            draft.notes.append(f"{noted.where}: {noted.text}{again}: no action of a sled plays that.")
        if 0 < incident.nexuses < len(incident.peers):
            draft.doubts.append(
                f"{len(incident.peers)} Nexuses asked these sleds for VMMs, and logs of {incident.nexuses} are here: "
                "what users asked the others for is inferred."
            )
        if incident.left_out:
            draft.notes.append(f"{counted(incident.left_out, 'VM')} only answered health checks: left out.")
        if not incident.has_nexus_log:
            draft.doubts.append(
                "Nexus's log is missing: what users did is inferred; a report counts as taken if no failure follows."
            )
        if incident.sleds and draft.hosts:
            if ELSEWHERE in draft.hosts:
                draft.doubts.append(
                    f"'{ELSEWHERE}' stands for sleds whose logs are not here: VMs came from there or went there."
                )
            names = ", ".join(f"{slug} is {host}" for host, slug in draft.hosts.items() if host != ELSEWHERE)
            draft.notes += [f"Sleds: {names}."] if names else []


def _asked(user: User) -> str:
    """A user's request as it is quoted."""
    verb = "DELETE" if user.verb == "delete" else f"POST {user.verb}"
    return f"{verb}, {user.status or 'not waited for'}{', when it had begun' if user.status >= 400 else ''}"


def _asked_for(instance: Instance, verb: str, began_us: int) -> bool:
    """Whether a user's request in Nexus's log is the cause of one to a sled that began then."""
    return any(user.verb == verb and abs(user.at_us - began_us) <= _WISH_US for user in instance.users)


def _moment(us: int) -> str:
    """A time of the logs, to the second."""
    return f"{datetime.fromtimestamp(us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _first_word(vmm: Vmm) -> Fact:
    return min(vmm.facts(), key=lambda each: each.at_us)


def _has_no_end(vmm: Vmm) -> bool:
    """Whether a VMM ran, and no line tells that it ended or was about to."""
    words: list[Observed | Published | Received] = [*vmm.observed, *vmm.published, *vmm.received]
    states = {each.state for each in words}
    over = bool(vmm.ended or vmm.verdicts) or any(each.op is Op.UNREGISTER for each in vmm.asked)
    ran = "running" in states or vmm.quiet_checks > 0
    return ran and not over and states.isdisjoint(("stopping", "stopped", "destroyed", "failed"))


def _told_by_checks(vmm: Vmm) -> bool:
    """Whether only a health check could tell Nexus that it is lost: its own sled says nothing of its end."""
    words: list[Observed | Published] = [*vmm.observed, *vmm.published]
    return not is_target(vmm) and TERMINAL.isdisjoint(each.state for each in words)


def _active_before(instance: Instance, i: int) -> Vmm:
    """Which VMM was the instance's before its VMM `i`: a target of a migration that failed never was."""
    earlier = instance.vmms[:i]
    return next((v for v in reversed(earlier) if not is_target(v) or first(v, "running") is not None), earlier[-1])


def _taken_back(target: Vmm) -> int:
    """When a migration came to nothing, as its target was refused or taken back; long ago if neither."""
    words = [each for each in (target.registered, unregistered(target)) if each is not None]
    return max(
        (each.at_us for each in words if each.op is Op.UNREGISTER or (each.status or 0) >= 400), default=-(2**62)
    )


def _generous(us: int) -> int:
    """Half as much again and ten seconds, in whole five seconds."""
    return -(-(us * 3 // 2 + 10 * SECOND_US) // (5 * SECOND_US)) * 5 * SECOND_US


def _size(memory: int) -> str:
    for unit, each in (("GiB", 1024**3), ("MiB", 1024**2)):
        if memory % each == 0 and memory:
            return f"{memory // each}{unit}"
    return f"{max(1, memory // 1024**2)}MiB"
