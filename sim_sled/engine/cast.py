"""Who is known: each VMM and each sled that rules can speak about, and the only functions that let them come and go.

Read before: language/actions.py, language/selector.py.
Read next: engine/act/firing.py, engine/match.py, engine/reports.py, play/judge/invariants.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final
from uuid import UUID

import attrs

from nexus_client.types import SledVmmState
from propolis_stub.types import Role
from sim_sled.language.actions import MigrationFate
from sim_sled.language.schema import Rule
from sim_sled.language.source import Mark
from sim_sled.language.words import Truth

NOTES_MAX: Final = 12
"""Remembered per VMM for `why`."""
PUBLISHED_KEPT: Final = 6
"""Bodies remembered per VMM for `stale` (`back` is at most 5)."""


@attrs.frozen
class Note:
    """A rule touched a VMM: when, which, how. `stalls_until_us`: it keeps it where it is, so long at most."""

    at_us: int
    rule: str
    mark: Mark
    text: str
    stalls_until_us: int = 0


class Down(StrEnum):
    """Why a sled does not answer."""

    AGENT = "agent"
    REBOOT = "reboot"
    POWER = "power"


@attrs.define(eq=False)
class SledInfo:
    """One sled. `down`: why it does not answer (None if it does), until when."""

    name: str
    id: UUID
    down: Down | None = None
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
    truth: Truth = Truth.CREATING
    role: Role | None = None
    migration_id: UUID | None = None
    asked: str = ""
    gone: bool = False
    stalled_until_us: int = 0
    frozen_by: str = ""
    """The rule that keeps its Propolis's time from going on, wherever it is."""
    skip: frozenset[Truth] = frozenset()
    fate: MigrationFate | None = None
    error_told: UUID | None = None
    edge_taken: tuple[Truth, Truth] | None = None
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

    def remember(self, rule: Rule, text: str, now_us: int, stalls_until_us: int = 0) -> None:
        """For `why`: this rule touched it."""
        self.notes.append(Note(now_us, rule.name, rule.mark(), text, stalls_until_us))

    def let_go(self, rule: str, text: str, now_us: int) -> None:
        """For `why`: what this rule was remembered for is over."""
        mark = next((note.mark for note in reversed(self.notes) if note.rule == rule), None)
        if mark is not None:
            self.stalls_end(now_us, rule)
            self.notes.append(Note(now_us, rule, mark, text))

    def stalls_end(self, now_us: int, rule: str | None = None) -> None:
        """Nothing stalls it any more; or a rule does not."""
        for i, note in enumerate(self.notes):
            if rule in (None, note.rule) and note.stalls_until_us > now_us:
                self.notes[i] = attrs.evolve(note, stalls_until_us=now_us)


@attrs.define(eq=False)
class Cast:
    """Everybody. `subjects` by Propolis id, gone ones too; `sleds` by the name that rules know, `by_id` the same."""

    subjects: dict[UUID, Subject] = attrs.field(factory=dict)
    sleds: dict[str, SledInfo] = attrs.field(factory=dict)
    by_id: dict[UUID, SledInfo] = attrs.field(factory=dict)
    _living: dict[UUID, list[Subject]] = attrs.field(factory=dict)
    _incarnations: dict[str, int] = attrs.field(factory=dict)
    counted: int = 0
    """The highest ordinal."""

    def join(self, name: str, sled_id: UUID) -> None:
        """A sled is there; rules mean it by this name."""
        self.sleds[name] = self.by_id[sled_id] = SledInfo(name, sled_id)

    def leave(self, sled_id: UUID) -> None:
        """A sled is not there any more."""
        info = self.by_id.pop(sled_id, None)
        if info is not None:
            del self.sleds[info.name]

    def add(self, subject: Callable[[int, str], Subject], hostname: str, ordinal: int | None = None) -> Subject:
        """A VMM is registered for the first time; its incarnation is given here, and an ordinal if it has none."""
        self.counted = self.counted + 1 if ordinal is None else ordinal
        n = self._incarnations.get(hostname, 0) + 1
        self._incarnations[hostname] = n
        who = subject(self.counted, f"{hostname}/{n}")
        self.subjects[who.propolis_id] = who
        who.sled.vmms += 1
        self._living.setdefault(who.instance_id, []).append(who)
        return who

    def lost(self, who: Subject) -> bool:
        """Its sled does not know this VMM any more. False if that was known."""
        if who.gone:
            return False
        who.gone = True
        living = self._living[who.instance_id]
        living.remove(who)
        if not living:
            del self._living[who.instance_id]
        who.sled.vmms -= 1
        who.published.clear()
        return True

    def found(self, who: Subject) -> None:
        """It is registered again after all."""
        who.gone = False
        who.sled.vmms += 1
        self._living.setdefault(who.instance_id, []).append(who)

    def who(self, propolis_id: UUID | None) -> Subject | None:
        """The VMM of this id, if any rule could mean it."""
        return None if propolis_id is None else self.subjects.get(propolis_id)

    def of_instance(self, who: Subject) -> list[Subject]:
        """The living VMMs of the same instance, oldest first."""
        return list(self._living.get(who.instance_id, ()))

    def living(self) -> list[Subject]:
        """Those that are not gone, in the order of their registration."""
        return [who for who in self.subjects.values() if not who.gone]

    def on(self, sled: SledInfo) -> list[Subject]:
        """The living VMMs of a sled, oldest first."""
        return [who for who in self.subjects.values() if who.sled is sled and not who.gone]
