"""Facts of several hosts on one clock, each to whom it belongs (LG 5).

Sleds are told apart by host name, never by file.
Health checks that went well are only counted: a gigabyte of them must not cost memory.

Read before: incident/naming.py, incident/silences.py, incident/timeline.py.
Read next: incident/importing.py.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Final

import attrs

from sim_sled.incident.clocks import VALID_SINCE_US, mend_1986, set_right
from sim_sled.incident.facts import (
    A_MIGRATION,
    Agent,
    Answered,
    Asked,
    Declined,
    Described,
    Doing,
    Dropped,
    Ended,
    Fact,
    Migrated,
    NexusStep,
    Noted,
    NotTaken,
    Observed,
    OnSled,
    Op,
    Phase,
    Published,
    Received,
    Sides,
    Starting,
    Unwound,
    User,
    Verdict,
    Wanted,
    Zone,
)
from sim_sled.incident.lines import OURS, SMF_SAYS, LogLine, Where
from sim_sled.incident.naming import give_names
from sim_sled.incident.silences import shortened
from sim_sled.incident.timeline import AS_NEXUS_TELLS, TERMINAL, WISH_US, Incident, Vmm

FACTS_MAX: Final = 5_000_000
"""Facts that are kept: some 2 GB. Nobody has an incident with more, and then the oldest part is told."""
_QUICK_US: Final = 1_000_000
"""A health check answered within that is nothing to tell."""


@attrs.define
class Collector:
    """Takes facts in the order of the files; `incident()` sets the clocks right and sorts."""

    facts: list[Fact] = attrs.field(factory=list)
    programs: Counter[str] = attrs.field(factory=Counter)
    _quiet: Counter[str] = attrs.field(factory=Counter)
    _alive: dict[str, Asked] = attrs.field(factory=dict)
    """Of each sled: the last check that went well. Not kept, but it says that the agent lived."""
    _processes: dict[str, LogLine] = attrs.field(factory=dict)
    """Of each host: its last record."""
    _ended: dict[str, LogLine] = attrs.field(factory=dict)
    """Of each sled: the last record of an agent's process after which another one wrote."""
    _places: set[tuple[str, str]] = attrs.field(factory=set)
    _heard: dict[str, str] = attrs.field(factory=dict)
    """Of each VMM: the state that Nexus took last."""
    _pids: dict[str, set[int]] = attrs.field(factory=lambda: defaultdict(set))
    _peers: set[str] = attrs.field(factory=set)
    _hosts: dict[str, str] = attrs.field(factory=dict)
    _wrote: dict[str, Where] = attrs.field(factory=dict)
    _first: dict[str, int] = attrs.field(factory=dict)
    _last: dict[str, int] = attrs.field(factory=dict)
    overflowed: bool = False

    def seen(self, line: LogLine, at_us: int) -> None:
        """Called for every record: who writes, and from when to when."""
        program, host = line.program, line.host
        if line.msg.startswith(SMF_SAYS):
            return
        self.programs[program] += 1
        if host not in self._hosts:
            self._hosts[host] = program
            self._wrote[host] = line.where
        process = self._processes.get(host)
        if program == "sled-agent" and (process is None or process.pid != line.pid):
            if process is not None:
                self._ended[host] = process
                new = line.pid and line.pid not in self._pids[host] and line.text("name") != OURS
                if new:  # its first words may be among those that were dropped
                    self.add(Agent(where=line.where, host=host, at_us=at_us, pid=line.pid, step="starts"))
            self._pids[host].add(line.pid)
        elif program == "nexus" and process is not None and process.pid != line.pid:
            self._ended[host] = process
        self._processes[host] = line
        if at_us >= VALID_SINCE_US:
            self._first[host] = min(at_us, self._first.get(host, at_us))
            self._last[host] = max(at_us, self._last.get(host, at_us))

    def add(self, fact: Fact) -> None:
        """Keep one, unless it is a check that went well."""
        if isinstance(fact, Asked) and fact.peer:
            self._peers.add(fact.peer)
        if isinstance(fact, Asked) and fact.op is Op.GET_STATE and fact.status == 200 and fact.latency_us < _QUICK_US:
            self._quiet[fact.vmm] += 1
            self._alive[fact.host] = fact
            return
        if isinstance(fact, Agent) and fact.step == "starts":
            for last in (self._alive.pop(fact.host, None), self._lived(fact)):
                if last is not None:
                    lived = Agent(where=last.where, host=last.host, at_us=last.at_us, pid=last.pid, step="lives")
                    self.facts.append(lived)
        if isinstance(fact, NexusStep) and fact.step == "starts":
            self._nexus_lived(fact)
        if isinstance(fact, OnSled):
            if (fact.vmm, fact.serial) in self._places:
                return
            self._places.add((fact.vmm, fact.serial))
        if isinstance(fact, Received) and self._heard.get(fact.vmm) == fact.state and not fact.pushed:
            return  # a health check that brought nothing new
        if isinstance(fact, Received):
            self._heard[fact.vmm] = fact.state
        if len(self.facts) >= FACTS_MAX:
            self.overflowed = True
            return
        self.facts.append(fact)

    def _nexus_lived(self, start: NexusStep) -> None:
        last = self._lived(start)
        if last is not None:
            lived = NexusStep(where=last.where, host=last.host, at_us=last.at_us, pid=last.pid, step="lives")
            self.facts.append(lived)

    def _lived(self, start: Agent | NexusStep) -> Fact | None:
        """The last record of the process before, if an agent that starts is another one."""
        line = self._ended.pop(start.host, None)
        if line is None or line.time_us is None or line.pid == start.pid:
            return None
        return Fact(where=line.where, host=line.host, at_us=line.time_us, pid=line.pid)

    def incident(self) -> Incident:
        """The whole, on one clock."""
        out = Incident(programs=self.programs, peers=self._peers, wrote=self._wrote)
        out.nexuses = sum(program == "nexus" for program in self._hosts.values())
        out.sleds = sorted(host for host, program in self._hosts.items() if program == "sled-agent" and host)
        out.skews, out.zones = set_right(self.facts, out.sleds)
        out.booted_1986 = mend_1986(self.facts, out.skews)
        facts = sorted((_shifted(fact, out) for fact in self.facts), key=lambda fact: fact.at_us)
        facts = list(_of_vmms(facts))
        out.shortened = shortened(facts)
        if out.shortened.silences:
            facts = [attrs.evolve(fact, at_us=out.shortened.of(fact.at_us)) for fact in facts]
        for fact in _one_by_one(facts):
            _take(out, fact)
        _heard_of(out)
        _tie(out)
        for vmm_id, count in self._quiet.items():
            if vmm_id in out.vmms:
                out.vmms[vmm_id].quiet_checks = count
            else:
                out.left_out += 1
        give_names(out)
        starts = [out.shortened.of(at + _offset(out, host)) for host, at in self._first.items()]
        out.last_us = {host: out.shortened.of(at + _offset(out, host)) for host, at in self._last.items()}
        ends = list(out.last_us.values())
        if not starts and facts:  # a sled that never found the time: all of its times are of 1986
            starts = ends = [fact.at_us for fact in facts]
        out.begin_us, out.end_us = min(starts, default=0), max(ends, default=0)
        return out


def _one_by_one(facts: list[Fact]) -> Iterator[Fact]:
    """Each fact once, although the seam of two files has it twice, and of each host at a time of its own: forms for
    people cut times to milliseconds, and the order of the file counts.
    """
    last_us: dict[str, int] = {}
    for _, at_once in groupby(facts, lambda fact: fact.at_us):
        told: list[Fact] = []
        for fact in at_once:
            if fact in told:
                continue
            told.append(fact)
            at_us = max(fact.at_us, last_us.get(fact.host, fact.at_us - 1) + 1)
            last_us[fact.host] = at_us
            yield fact if at_us == fact.at_us else attrs.evolve(fact, at_us=at_us)


def _of_vmms(facts: list[Fact]) -> Iterator[Fact]:
    """Until 2024-08 the paths of requests named instances (LG 2.4): the VMM is meant that was registered last on that
    sled when the request came. Facts come in the order of time.
    """
    known: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    instances = {fact.instance for fact in facts if fact.instance}
    for fact in facts:
        if isinstance(fact, Described | Observed | Published | Zone) and fact.instance and fact.vmm:
            vmms = known[(fact.host, fact.instance)]
            if not vmms or vmms[-1][1] != fact.vmm:
                vmms.append((fact.at_us, fact.vmm))
        if isinstance(fact, Asked | Received) and fact.vmm in instances:
            vmms = known.get((fact.host, fact.vmm), [])
            waited_us = fact.latency_us if isinstance(fact, Asked) and fact.op is not Op.REGISTER else 0
            before = [vmm for at_us, vmm in vmms if at_us <= fact.at_us - waited_us + WISH_US]
            vmm = before[-1] if before else vmms[-1][1] if vmms else ""
            yield attrs.evolve(fact, vmm=vmm, instance=fact.vmm)
        else:
            yield fact


def _heard_of(out: Incident) -> None:
    """What only Nexus tells: sagas that a sled refused, and states of VMMs whose sled's log is missing."""
    req_ids = {asked.req_id for vmm in out.vmms.values() for asked in vmm.asked if asked.req_id}
    vmms = {start.saga: start.vmm for each in out.instances.values() for start in each.starts if start.saga}
    told_by_sleds = {vmm.id for vmm in out.vmms.values() if vmm.asked}
    for vmm in out.vmms.values():
        if not vmm.published and not vmm.not_taken:
            vmm.not_taken += [
                NotTaken(
                    where=no.where, host=no.host, at_us=no.at_us, vmm=vmm.id, status=no.status, final=no.status < 500
                )
                for no in vmm.declined
            ]
    for fact in out.unwound:
        vmm_id = fact.vmm or vmms.get(fact.saga, "")
        if fact.req_id in req_ids or not vmm_id:
            continue
        vmm = out.vmms.setdefault(vmm_id, Vmm(vmm_id))
        checked = fact.op is Op.GET_STATE and vmm.id not in told_by_sleds
        if checked or (not vmm.asked and not vmm.observed):
            vmm.instance = vmm.instance or _instance_of(out, vmm_id)
            vmm.asked.append(
                Asked(
                    where=fact.where,
                    host=fact.host,
                    at_us=fact.at_us,
                    vmm=vmm_id,
                    op=fact.op,
                    status=fact.status,
                    latency_us=0,
                    req_id=fact.req_id,
                    why=AS_NEXUS_TELLS,
                )
            )
    for vmm in out.vmms.values():
        news = vmm.starting or any(told.pushed or told.state != "running" for told in vmm.received)
        if not vmm.observed and not vmm.published and news:
            vmm.instance = vmm.instance or _instance_of(out, vmm.id)
            newest = 0
            for told in vmm.received:
                if told.gen < newest or (told.state == "failed" and not told.pushed):
                    continue  # overtaken: Nexus keeps what is newer; or its own verdict
                newest = told.gen
                _observe(
                    vmm,
                    Observed(
                        where=told.where, host=told.host, at_us=told.at_us, vmm=vmm.id, state=told.state, heard=True
                    ),
                )


def _tie(out: Incident) -> None:
    """Two VMMs of one migration are of one instance, and one is its target: Nexus says so, or Propolis's ids do."""
    pairs = [(fact.vmm, fact.target) for fact in out.sides]
    sources = {phase.migration: vmm.id for vmm in out.vmms.values() for phase in vmm.phases if phase.side == "out"}
    pairs += [
        (sources.get(phase.migration, ""), vmm.id)
        for vmm in out.vmms.values()
        for phase in vmm.phases
        if phase.side == "in" and phase.migration
    ]
    for source_id, target_id in dict.fromkeys(pairs):
        source, target = out.vmms.get(source_id), out.vmms.get(target_id)
        if target is None:
            continue
        if source is not None:
            source.instance = source.instance or target.instance or _instance_of(out, source.id) or f"of-{source.id}"
            target.instance = target.instance or source.instance
        first = min(target.facts(), key=lambda fact: fact.at_us, default=None)
        if target.described is None and first is not None:
            target.described = Described(
                where=first.where, host=first.host, at_us=target.first_us(), vmm=target.id, migration=A_MIGRATION
            )


def _instance_of(out: Incident, vmm_id: str) -> str:
    return next((each.id for each in out.instances.values() if any(s.vmm == vmm_id for s in each.starts)), "")


def _offset(out: Incident, host: str) -> int:
    skew = out.skews.get(out.zones.get(host, host))
    return 0 if skew is None else skew.offset_us


def _shifted(fact: Fact, out: Incident) -> Fact:
    offset = _offset(out, fact.host)
    return fact if not offset else attrs.evolve(fact, at_us=fact.at_us + offset)


def _take(out: Incident, fact: Fact) -> None:
    """One fact to whom it belongs."""
    match fact:
        case Agent():
            out.agents.append(fact)
            return
        case Dropped():
            out.dropped.append(fact)
            return
        case User():
            out.users.append(fact)
            return
        case NexusStep():
            out.nexus_steps.append(fact)
            return
        case Noted():
            out.noted.append(fact)
            return
        case Unwound():
            out.unwound.append(fact)
            return
        case Sides():
            out.sides.append(fact)
            return
        case Answered():
            return
    if isinstance(fact, Starting) and fact.instance:
        out.instance(fact.instance).starts.append(fact)
    if fact.vmm:
        _take_of_vmm(out, fact)


def _take_of_vmm(out: Incident, fact: Fact) -> None:
    vmm = out.vmms.setdefault(fact.vmm, Vmm(fact.vmm))
    vmm.instance = vmm.instance or fact.instance
    if fact.host in out.sleds:
        vmm.sled = fact.host if isinstance(fact, Described | Published | Observed) or not vmm.sled else vmm.sled
    match fact:
        case Described():
            vmm.described = vmm.described or fact
        case Asked():
            if not fact.late or fact.op is Op.UNREGISTER:  # else the same request has ended for its caller
                vmm.asked.append(fact)
        case Wanted():
            vmm.wanted.append(fact)
        case Observed():
            _observe(vmm, fact)
        case Published():
            vmm.published.append(fact)
        case NotTaken():
            vmm.not_taken.append(fact)
        case Ended():
            vmm.ended.append(fact)
        case Zone():
            vmm.zones.append(fact)
        case Phase():
            vmm.phases.append(fact)
        case Migrated():
            vmm.migrated.append(fact)
        case Verdict():
            vmm.verdicts.append(fact)
        case Received():
            vmm.received.append(fact)
        case Starting():
            vmm.starting = vmm.starting or fact
        case Declined():
            vmm.declined.append(fact)
        case Doing():
            vmm.doing.append(fact)
        case OnSled(serial=serial):
            out.wrote.setdefault(serial, fact.where)
            vmm.sled = vmm.sled or serial
            if serial not in out.sleds:
                out.sleds.append(serial)


def _observe(vmm: Vmm, fact: Observed) -> None:
    """Propolis's own word wins over the agent's, which comes later, maybe when Propolis is further (LG 0 #8)."""
    if fact.exact:
        vmm.observed.append(fact)
        return
    for number in range(vmm.come_by, len(vmm.observed)):
        each = vmm.observed[number]
        if each.exact and each.state == fact.state:
            vmm.come_by = number + 1
            return
    if fact.state not in TERMINAL and any(each.exact and each.state in TERMINAL for each in vmm.observed):
        return  # its line of Propolis is lost, and that it was there before the end is known
    vmm.observed.append(fact)
    vmm.come_by = len(vmm.observed)
