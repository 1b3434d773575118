"""Facts of several hosts on one clock: who is who, and what happened to each VMM in order (LG 5).

Sleds are told apart by host name, never by file.
Health checks that went well are only counted: a gigabyte of them must not cost memory.

Read before: incident/clocks.py, incident/eras.py, incident/facts.py, incident/silences.py.
Read next: incident/derive.py, incident/life.py.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Final

import attrs

from sim_sled.incident.clocks import VALID_SINCE_US, Skew, mend_1986, set_right
from sim_sled.incident.eras import Era
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
from sim_sled.incident.silences import Shortened, shortened
from sim_sled.language.schema import GIB

FACTS_MAX: Final = 5_000_000
"""Facts that are kept: some 2 GB. Nobody has an incident with more, and then the oldest part is told."""
NCPUS_MAX: Final = 254
MEMORY_GIB_MAX: Final = 1536
"""The largest VM that a Nexus takes; its memory is whole GiB."""
ELSEWHERE: Final = "elsewhere"
"""The sled of VMMs that the logs imply and do not have."""
AS_NEXUS_TELLS: Final = "as Nexus tells"
"""Why a request failed, where only Nexus's log has it."""
TERMINAL: Final = frozenset({"destroyed", "failed"})
_HOST_NAME: Final = re.compile("[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_WISH_US: Final = 2_000_000
"""What a user wishes begins within that, before or after the answer to it."""
_QUICK_US: Final = 1_000_000
"""A health check answered within that is nothing to tell."""


@attrs.define
class Vmm:
    """One VMM, as far as the logs know it. Lists are in order of time."""

    id: str
    instance: str = ""
    sled: str = ""
    described: Described | None = None
    asked: list[Asked] = attrs.field(factory=list)
    wanted: list[Wanted] = attrs.field(factory=list)
    observed: list[Observed] = attrs.field(factory=list)
    published: list[Published] = attrs.field(factory=list)
    not_taken: list[NotTaken] = attrs.field(factory=list)
    ended: list[Ended] = attrs.field(factory=list)
    zones: list[Zone] = attrs.field(factory=list)
    phases: list[Phase] = attrs.field(factory=list)
    migrated: list[Migrated] = attrs.field(factory=list)
    verdicts: list[Verdict] = attrs.field(factory=list)
    received: list[Received] = attrs.field(factory=list)
    declined: list[Declined] = attrs.field(factory=list)
    starting: Starting | None = None
    doing: list[Doing] = attrs.field(factory=list)
    quiet_checks: int = 0
    come_by: int = 0
    """How many of `observed` the agent has come by, which tells later what Propolis has told already."""
    unseen: bool = False
    """It is in no log: the other side of its migration implies it."""

    @property
    def is_noise(self) -> bool:
        """A VM that only ran: health checks went well, and nothing else was written."""
        told = self.asked or self.observed or self.published or self.ended or self.verdicts
        return not (self.described or self.starting or told)

    @property
    def registered(self) -> Asked | None:
        return next((each for each in self.asked if each.op is Op.REGISTER), None)

    def state_at(self, at_us: int) -> str:
        """The last state seen by then; "" if none was."""
        seen = ""
        for each in self.observed:
            if each.at_us > at_us:
                break
            seen = each.state
        return seen

    def first_us(self) -> int:
        """When it is first spoken of; nothing of it is older than its registration, if that is known. Until 2024-08
        a request that took long may be taken for one about the next VMM of its instance.
        """
        if self.described is not None:
            return self.described.at_us
        begins = [each.at_us - (each.latency_us if isinstance(each, Asked) else 0) for each in self.facts()]
        return min(begins, default=0)

    def facts(self) -> Iterable[Fact]:
        """All that says that it is there."""
        yield from self.asked
        yield from self.observed
        yield from self.published
        yield from self.ended
        yield from self.verdicts
        yield from self.received[:1]
        for begun in (self.described, self.starting):
            if begun is not None:
                yield begun


@attrs.define
class Instance:
    """One instance. `name`: its host name, "" if no line has it; `placeholder`: what it is called then."""

    id: str
    name: str = ""
    ncpus: int | None = None
    memory: int | None = None
    vmms: list[Vmm] = attrs.field(factory=list)
    users: list[User] = attrs.field(factory=list)
    starts: list[Starting] = attrs.field(factory=list)
    placeholder: str = ""

    @property
    def shown(self) -> str:
        return self.name or self.placeholder


@attrs.define
class Incident:
    """Everything of all files on the clock of the first sled. Times in microseconds since the epoch."""

    sleds: list[str] = attrs.field(factory=list)
    vmms: dict[str, Vmm] = attrs.field(factory=dict)
    instances: dict[str, Instance] = attrs.field(factory=dict)
    agents: list[Agent] = attrs.field(factory=list)
    booted_1986: set[str] = attrs.field(factory=set)
    dropped: list[Dropped] = attrs.field(factory=list)
    noted: list[Noted] = attrs.field(factory=list)
    unwound: list[Unwound] = attrs.field(factory=list)
    sides: list[Sides] = attrs.field(factory=list)
    users: list[User] = attrs.field(factory=list)
    in_vain: list[User] = attrs.field(factory=list)
    """Of these: who was refused and named an instance that no line knows."""
    called: dict[str, Instance] = attrs.field(factory=dict)
    """Instances that only users' requests name, by that name."""
    nexus_steps: list[NexusStep] = attrs.field(factory=list)
    skews: dict[str, Skew] = attrs.field(factory=dict)
    """By host; the first is the clock that counts."""
    zones: dict[str, str] = attrs.field(factory=dict)
    """On which sled a zone of Propolis ran."""
    programs: Counter[str] = attrs.field(factory=Counter)
    wrote: dict[str, Where] = attrs.field(factory=dict)
    """Where each host is first spoken of."""
    begin_us: int = 0
    end_us: int = 0
    last_us: dict[str, int] = attrs.field(factory=dict)
    """Of each host: its last record."""
    peers: set[str] = attrs.field(factory=set)
    """Who asked sleds for VMMs."""
    nexuses: int = 0
    """How many Nexuses' logs there are."""
    left_out: int = 0
    era: Era = attrs.field(factory=Era)
    shortened: Shortened = attrs.field(factory=Shortened)
    """Long silences, which are cut out of all times here."""

    @property
    def has_nexus_log(self) -> bool:
        return self.programs["nexus"] > 0

    def told(self) -> list[Instance]:
        """Instances of which there is something to tell, by their first appearance."""
        found = [each for each in self.instances.values() if each.users or any(not v.is_noise for v in each.vmms)]
        return sorted(found, key=lambda each: min((v.first_us() for v in each.vmms if not v.is_noise), default=2**62))

    def last_agent_restart(self, sled: str, before_us: int) -> Agent | None:
        """The last time before `before_us` that the agent of a sled began anew."""
        found = [a for a in self.agents if a.host == sled and a.step == "starts" and a.at_us <= before_us]
        return found[-1] if found else None


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
        _name(out)
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
            before = [vmm for at_us, vmm in vmms if at_us <= fact.at_us - waited_us + _WISH_US]
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
        _instance(out, fact.instance).starts.append(fact)
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


def _instance(out: Incident, instance_id: str) -> Instance:
    return out.instances.setdefault(instance_id, Instance(instance_id))


def _name(out: Incident) -> None:
    """Instances get their VMMs, names, sizes and users."""
    for vmm in sorted(out.vmms.values(), key=lambda each: each.first_us()):
        owner = _instance(out, vmm.instance or f"of-{vmm.id}")
        owner.vmms.append(vmm)
        about = vmm.described
        if about is not None:
            owner.name = owner.name or about.hostname
            owner.ncpus = owner.ncpus if owner.ncpus is not None else _of_nexus(about.ncpus, NCPUS_MAX)
            whole = None if about.memory is None else -(-about.memory // GIB)
            memory_gib = _of_nexus(whole, MEMORY_GIB_MAX)
            owner.memory = owner.memory if owner.memory is not None or memory_gib is None else memory_gib * GIB
    unknown: dict[str, list[User]] = defaultdict(list)
    for user in out.users:
        meant = out.instances.get(user.key) or _named_then(out, user) or out.instances.get(user.instance)
        if meant is not None and user.verb != "create":
            meant.users.append(user)
        elif user.verb != "create" and user.key:
            unknown[user.key].append(user)
    for key, users in unknown.items():
        _whom_users_name(out, key, users)
    for each in out.instances.values():
        each.users = [attrs.evolve(user, begun=_begun(each, user)) for user in each.users]
    count = 0
    for each in out.told():
        if each.shown and _HOST_NAME.fullmatch(each.shown) is None:
            # no host name of the language: the replay calls it something like it
            like = re.sub("[^a-z0-9]+", "-", each.shown.lower()).strip("-")[:50]
            each.name, each.placeholder = "", like if like[:1].isalpha() else f"vm-{like}".strip("-")
        if not each.name and not each.placeholder:
            count += 1
            each.placeholder = f"vm-{count}"
    _tell_apart(out)


def _named_then(out: Incident, user: User) -> Instance | None:
    """Of the instances with the name that a user gives the one that was there: after a delete it is free again."""
    named = [each for each in out.instances.values() if each.name and each.name == user.key]
    named.sort(key=lambda each: min((vmm.first_us() for vmm in each.vmms), default=0))
    there = [each for each in named if any(vmm.first_us() <= user.at_us + _WISH_US for vmm in each.vmms)]
    return next(iter(there[-1:] or named[:1]), None)


def _of_nexus(size: int | None, most: int) -> int | None:
    """A size that Nexus would have taken (NX 4.2); another one was garbled."""
    return size if size is not None and 1 <= size <= most else None


def _whom_users_name(out: Incident, key: str, users: list[User]) -> None:
    """An instance has a name beside its host name, and users may call it by that: it is the one to which something
    happened each time. If nothing ever did, it is one of which the logs know nothing else (LG 3 #22).
    """
    accepted = [user for user in users if user.status < 400 and user.verb != "delete"]
    if not accepted:
        out.in_vain += users  # nothing came of it, and nobody knows whom it meant
        return
    fits = [each for each in out.instances.values() if all(_happened_after(each, user) for user in accepted)]
    if len(fits) == 1:
        [meant] = fits
        meant.placeholder = meant.placeholder or key
    else:
        meant = _instance(out, key)
        meant.placeholder = key
    meant.users += users
    out.called[key] = meant


def _begun(instance: Instance, user: User) -> bool:
    """Whether what a user was refused had begun: a start or a migration whose VMM is there."""
    targets = user.verb == "migrate"
    begins = (
        vmm for vmm in instance.vmms if targets is (vmm.described is not None and vmm.described.migration != "")
    )
    wished = user.verb in ("start", "migrate")
    return wished and any(-_WISH_US <= vmm.first_us() - user.at_us <= 2 * _WISH_US for vmm in begins)


def _happened_after(instance: Instance, user: User) -> bool:
    """Whether what a user wished began just then."""
    begins = [start.at_us for start in instance.starts if not start.automatic]
    for vmm in instance.vmms:
        begins += [each.at_us - each.latency_us for each in vmm.asked if each.op in (Op.PUT_STATE, Op.REGISTER)]
        begins += [each.at_us for each in vmm.received if each.state in ("stopping", "rebooting")]
        begins += [each.at_us for each in vmm.declined[:1]]  # the report that told of it was not taken
    return any(abs(at_us - user.at_us) <= _WISH_US for at_us in begins)


def _tell_apart(out: Incident) -> None:
    """Two instances of one name: the second gets a number, or a rule would mean both."""
    taken: set[str] = set()
    for each in out.told():
        shown = each.shown
        while each.shown in taken:
            each.name, each.placeholder = "", f"{shown}-{len(taken)}"
        taken.add(each.shown)
