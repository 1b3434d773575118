"""What rules speak about: each VMM and each sled of a run, as far as the engine knows them, and who is meant.

Read before: language/selector.py. Read next: engine/engine.py, play/judge/invariants.py.
"""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase
from typing import Final
from uuid import UUID

import attrs

from nexus_client.types import SledVmmState
from sim_sled.language.actions import MigrationFate
from sim_sled.language.draw import draw, happens
from sim_sled.language.selector import EVERYTHING, Selector
from sim_sled.language.source import Mark

NOTES_MAX: Final = 12
"""Remembered per VMM for `why`."""
PUBLISHED_KEPT: Final = 6
"""Bodies remembered per VMM for `stale` (`back` is at most 5)."""


@attrs.frozen
class Note:
    """A rule touched a VMM: when, which, how."""

    at_us: int
    rule: str
    mark: Mark
    text: str


@attrs.define(eq=False)
class SledInfo:
    """One sled. `down`: why it does not answer ("" if it does), until when."""

    name: str
    id: UUID
    down: str = ""
    down_until_us: int = 0
    no_disks_until_us: int = 0
    vmms: int = 0


@attrs.define(eq=False)
class Subject:
    """One VMM. `key` is what its fate is drawn by: the host name and which incarnation of it this is, so that VMMs
    which come and go elsewhere shift nothing; `truth` is Propolis's state in lower case.
    """

    propolis_id: UUID
    ordinal: int
    key: str
    sled: SledInfo
    instance_id: UUID
    hostname: str
    ncpus: int
    memory: int
    project: tuple[str, ...]
    silo: tuple[str, ...]
    truth: str = "creating"
    role: str | None = None
    migration_id: UUID | None = None
    asked: str = ""
    gone: bool = False
    ended_out: bool = False
    """It has migrated out: after Stopping comes Destroyed."""
    failing: bool = False
    """Its start fails: after this comes Failed, not Stopped."""
    stalled_until_us: int = 0
    skip: frozenset[str] = frozenset()
    fate: MigrationFate | None = None
    error_told: UUID | None = None
    edge_taken: tuple[str, str] = ("", "")
    record: SledVmmState | None = None
    acked: SledVmmState | None = None
    told_gen: int = 0
    """The newest generation that Nexus has, by a report or in an answer."""
    waiting: int = 0
    """Requests for it that the agent has accepted and not carried out."""
    published: deque[SledVmmState] = attrs.field(factory=lambda: deque(maxlen=PUBLISHED_KEPT))
    notes: deque[Note] = attrs.field(factory=lambda: deque(maxlen=NOTES_MAX))
    counts: dict[str, int] = attrs.field(factory=dict)

    @property
    def short(self) -> str:
        return f"v{self.ordinal}"

    def count(self, what: str) -> int:
        """How often this was asked before, from 0."""
        n = self.counts.get(what, 0)
        self.counts[what] = n + 1
        return n


@attrs.frozen
class Facts:
    """The facts that selectors look at, taken once per question."""

    sled: str
    vmm: tuple[str, ...]
    instance: str
    hostname: str
    project: tuple[str, ...]
    silo: tuple[str, ...]
    ncpus: int
    memory: int
    state: str
    role: str | None
    ordinal: int
    key: str


def facts_of(subject: Subject) -> Facts:
    return Facts(
        subject.sled.name,
        (subject.short, str(subject.propolis_id)),
        str(subject.instance_id),
        subject.hostname,
        subject.project,
        subject.silo,
        subject.ncpus,
        subject.memory,
        subject.truth,
        subject.role,
        subject.ordinal,
        subject.key,
    )


_TEXTS: Final = ("sled", "vmm", "instance", "hostname", "project", "silo")


def means(selector: Selector, facts: Facts, seed: int, who: str) -> bool:
    """Whether the selector means this one. `who` names the rule, so that shares of different rules differ."""
    if selector is EVERYTHING:
        return True
    for key in _TEXTS:
        globs: tuple[str, ...] = getattr(selector, key)
        if globs:
            known: str | tuple[str, ...] = getattr(facts, key)
            words = (known,) if isinstance(known, str) else known
            if not any(fnmatchcase(word, g) for g in globs for word in words):
                return False
    if selector.ncpus is not None and facts.ncpus not in selector.ncpus:
        return False
    if selector.memory is not None and facts.memory not in selector.memory:
        return False
    if selector.state and facts.state not in selector.state:
        return False
    if selector.role is not None and facts.role != selector.role:
        return False
    if selector.nth_vmm and not any(facts.ordinal in span for span in selector.nth_vmm):
        return False
    if selector.percent is not None and not happens(draw(seed, f"percent/{who}", facts.key), selector.percent):
        return False
    if selector.not_ is not None and means(selector.not_, facts, seed, f"{who}/not"):
        return False
    inner = enumerate(selector.any_)
    return not selector.any_ or any(means(one, facts, seed, f"{who}/any{i}") for i, one in inner)


def means_sled(selector: Selector, sled: str) -> bool:
    """Whether a selector that is asked about a sled alone means it; what speaks of VMMs does not mean a sled."""
    if selector.sled and not any(fnmatchcase(sled, g) for g in selector.sled):
        return False
    if selector.not_ is not None and not selector.not_.names_vmms() and means_sled(selector.not_, sled):
        return False
    return not selector.any_ or any(means_sled(one, sled) for one in selector.any_)
