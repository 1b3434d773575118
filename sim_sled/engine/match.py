"""Whom a selector means, and what a trigger waits for. Pure: facts in, yes or no out.

Read before: engine/cast.py, engine/plans.py, language/selector.py. Read next: engine/engine.py, engine/reports.py.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final
from uuid import UUID

from msgspec import Struct

from propolis_stub.types import Role
from sim_sled.engine.cast import Subject
from sim_sled.engine.plans import Event
from sim_sled.language.draw import draw, happens
from sim_sled.language.selector import EVERYTHING, Selector
from sim_sled.language.words import Truth


class Facts(Struct, frozen=True):
    """The facts that selectors look at, taken once per question. Ids become texts where there is a glob for them."""

    sled: str
    vmm: tuple[str | UUID, ...]
    instance: UUID
    hostname: str
    project: tuple[str | UUID, ...]
    silo: tuple[str | UUID, ...]
    ncpus: int
    memory: int
    state: Truth | None
    role: Role | None
    ordinal: int
    key: str


def facts_of(subject: Subject) -> Facts:
    """Those of a VMM, as it is now."""
    return Facts(
        subject.sled.name,
        (subject.short, subject.propolis_id),
        subject.instance_id,
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
            known: str | UUID | tuple[str | UUID, ...] = getattr(facts, key)
            words = known if isinstance(known, tuple) else (known,)
            if not any(fnmatchcase(str(word), g) for g in globs for word in words):
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


def hits(wanted: object, event: Event, to: object, body: tuple[tuple[str, str], ...]) -> bool:
    """Whether a trigger that wants this waits for that event."""
    if isinstance(wanted, tuple):
        found = any(
            word == w or (isinstance(w, str) and isinstance(word, str) and fnmatchcase(word, w))
            for w in wanted
            for word in event.words
        )
    else:
        found = wanted in event.words
    if not found or (isinstance(to, str) and to != event.to):
        return False
    return all(_holds(event.body, path, pattern) for path, pattern in body)


def _holds(body: object, path: str, pattern: str) -> bool:
    for part in path.split("."):
        if not isinstance(body, dict) or part not in body:
            return False
        body = body[part]
    text = "true" if body is True else "false" if body is False else "null" if body is None else str(body)
    return fnmatchcase(text, pattern)
