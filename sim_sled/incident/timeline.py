"""What is known of an incident, on one clock: sleds, instances, and what happened to each VMM in order (LG 5).

Read before: incident/clocks.py, incident/eras.py, incident/facts.py, incident/silences.py.
Read next: incident/naming.py, incident/collecting.py, incident/life.py, incident/derive.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import attrs

from sim_sled.incident.clocks import Skew
from sim_sled.incident.eras import Era
from sim_sled.incident.facts import (
    Agent,
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
from sim_sled.incident.lines import Where
from sim_sled.incident.silences import Shortened

ELSEWHERE: Final = "elsewhere"
"""The sled of VMMs that the logs imply and do not have."""
AS_NEXUS_TELLS: Final = "as Nexus tells"
"""Why a request failed, where only Nexus's log has it."""
WISH_US: Final = 2_000_000
"""What a user wishes begins within that, before or after the answer to it."""
TERMINAL: Final = frozenset({"destroyed", "failed"})


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

    def instance(self, instance_id: str) -> Instance:
        """The one of an id, made if nothing is known of it yet."""
        return self.instances.setdefault(instance_id, Instance(instance_id))

    def last_agent_restart(self, sled: str, before_us: int) -> Agent | None:
        """The last time before `before_us` that the agent of a sled began anew."""
        found = [a for a in self.agents if a.host == sled and a.step == "starts" and a.at_us <= before_us]
        return found[-1] if found else None
