"""What a swarm aims at moments of a VMM's life, so that things meet which chance alone would seldom bring together.

Most wrongs of a control plane need several facts at once: a report is late, *and* its sled is lost just then, *and*
a user asks before anybody has noticed. Faults that strike at times of their own seldom meet. An **ambush** is laid at
what VMMs go through instead: at a moment (a state is entered, a phase of a migration begins) the reports of some fall
silent, and at the same or a later moment something strikes one side or both. **Watchful** users look several times a
second and ask something of whoever is in a certain state: so their wishes fall into windows of a few milliseconds.

Nothing here knows a particular wrong: moments, sides, silences, strikes and wishes are drawn independently.

Read before: campaign/draws.py, language/schema.py. Read next: campaign/swarm.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from propolis_stub.types import Role
from sim_sled.campaign.draws import Draws
from sim_sled.language.actions import (
    Action,
    Delay,
    Guest,
    Hold,
    KillPropolis,
    MigrationFate,
    Partition,
    PowerOffSled,
    RebootSled,
    RestartAgent,
    RestartNexus,
)
from sim_sled.language.distribution import Distribution, Fixed, Uniform
from sim_sled.language.figures import FOREVER, SHARE_ONE
from sim_sled.language.schema import Load, Migrate, Rule
from sim_sled.language.selector import Selector, Trigger
from sim_sled.language.words import STATES, Truth

SECOND: Final = 1_000_000
MOMENT_US: Final = 10 * SECOND
"""Faults of a swarm come at multiples of this, and users ask then or a little later: races are where things nearly
coincide, and chance alone would seldom bring them together."""
_BOTH: Final = (Role.SOURCE, Role.TARGET)
_SIDES: Final = (_BOTH, _BOTH, (Role.SOURCE,), (Role.TARGET,))
"""Who falls silent; both twice, as what one side keeps to itself the other mostly tells."""
_STRUCK: Final = (_BOTH, (Role.SOURCE,), (Role.TARGET,), (Role.TARGET,))
_SILENCES_US: Final = (5 * SECOND, 80 * SECOND, 150 * SECOND)
"""Shorter and longer than it takes a Nexus to ask by itself (NX 4.5)."""
_OF_MIGRATION: Final = (
    Trigger(migration=("ram_push",)),
    Trigger(migration=("finish",)),
    Trigger(migration=("error",)),
    Trigger(state=("running",)),
)
_OF_LIFE: Final = (
    Trigger(state=("starting",)),
    Trigger(state=("running",)),
    Trigger(state=("running",)),
    Trigger(state=("stopping",)),
    Trigger(state=("rebooting",)),
)
_PAUSES: Final[tuple[Distribution | None, ...]] = (None, None, Uniform(0, SECOND), Uniform(SECOND, 20 * SECOND))
"""Between the moment and the strike."""
_STRIKES: Final[tuple[Action, ...]] = (
    PowerOffSled(lasts=60 * SECOND),
    PowerOffSled(lasts=60 * SECOND),
    PowerOffSled(lasts=FOREVER),
    RebootSled(),
    RestartAgent(keep_vmms=0),
    KillPropolis(restart=True),
    KillPropolis(),
    Guest(event="halt"),
    Partition(from_="nexus", lasts=40 * SECOND),
    RestartNexus(),
)
VERBS: Final = ("stop", "start", "delete", "reboot", "migrate")
_LOOKS_US: Final = (100_000, 300_000, 700_000)
_LOOKS_FOR_US: Final = (3 * SECOND, 15 * SECOND, None)
"""Not only to the end: a later wish hides what became of an earlier one."""
_MOMENTS: Final = (1, 1, 2, 4)
"""When guests die and when the watchful begin to look, in `MOMENT_US`: mostly at once."""
_NOBODY: Final = Selector(not_=Selector(state=STATES))
"""Instances without a VMM: before it is linked, or after it was given up."""
_STARTS: Final = Selector(state=(Truth.CREATING, Truth.STARTING))
_RUNS: Final = Selector(state=(Truth.RUNNING,))
_REBOOTS: Final = Selector(state=(Truth.REBOOTING,))
_ENDS: Final = Selector(state=(Truth.STOPPING, Truth.STOPPED))
_FAILED: Final = Selector(state=(Truth.FAILED,))
_MOVES: Final = Selector(role=Role.SOURCE)
_WISHES: Final = (
    *((_NOBODY, verb) for verb in ("stop", "start", "delete")),
    *((_NOBODY, verb) for verb in ("stop", "start", "delete")),
    *((_STARTS, verb) for verb in ("stop", "reboot", "migrate")),
    *((_RUNS, verb) for verb in ("stop", "reboot", "migrate")),
    *((_REBOOTS, verb) for verb in ("stop", "reboot")),
    *((_ENDS, verb) for verb in ("start", "delete")),
    *((_FAILED, verb) for verb in ("stop", "start", "delete")),
    *((_MOVES, verb) for verb in ("stop", "reboot", "migrate")),
)
"""Who is seen, and what is asked of them: what may be accepted just then. Nobody's twice: there the windows are."""
_HOW_MANY: Final = (SHARE_ONE // 4, SHARE_ONE // 10, SHARE_ONE // 30)
"""Of those a watchful user sees. Few: who is asked again and again shows nothing but the last wish."""


def ambush(what: Draws, whom: Draws, until_us: int) -> tuple[list[Rule], list[Load]]:
    """Rules that lie in wait, and users who bring somebody there."""
    if what.below("ambush", 2):
        return list(_in_a_life(what, whom)), []
    again = 20 * SECOND * (1 + what.below("again", 2))
    moved = Migrate(percent=what.one_of("moved", (SHARE_ONE, SHARE_ONE // 2, SHARE_ONE // 4)))
    move = Load(name="swarm-ambush-moves", every=Fixed(again), from_=15 * SECOND, to=until_us, migrate=moved)
    return list(_in_a_migration(what, whom)), [move]


def unlucky(draws: Draws) -> Rule:
    """Guests that die at a moment. Nexus starts them again, but not twice within minutes (NX 4.2)."""
    share = draws.one_of("how unlucky", (SHARE_ONE, SHARE_ONE // 2))
    return Rule(
        name="swarm-unlucky",
        for_=Selector(percent=share),
        when=Trigger(at=MOMENT_US * draws.one_of("unlucky at", _MOMENTS)),
        do=(KillPropolis(restart=True),),
    )


def _in_a_life(what: Draws, whom: Draws) -> Iterator[Rule]:
    if what.below("silent", 2):
        silence = Hold(publish=("*",), lasts=what.one_of("lasts", _SILENCES_US))
        yield Rule(name="swarm-ambush-silence", when=what.one_of("silent at", _OF_LIFE), do=(silence,))
    yield _strike("life", Selector(percent=SHARE_ONE // 2), what.one_of("strikes at", _OF_LIFE), whom)


def _in_a_migration(what: Draws, whom: Draws) -> Iterator[Rule]:
    if what.below("silent", 4):
        silence = Hold(publish=("*",), lasts=what.one_of("lasts", _SILENCES_US))
        for role in what.one_of("silent side", _SIDES):
            name = f"swarm-ambush-silent-{role.value}"
            yield Rule(name=name, for_=Selector(role=role), when=_OF_MIGRATION[0], do=(silence,))
    if what.below("fails", 4) == 0:
        fate = MigrationFate(result="failed", source="resumes", target="failed")
        yield Rule(
            name="swarm-ambush-fails",
            for_=Selector(role=Role.SOURCE),
            when=Trigger(migration=("ram_push",)),
            do=(fate,),
        )
    apart = whom.below("apart", 2)  # else one cause strikes both, as a power cut does
    for n, role in enumerate(what.one_of("struck", _STRUCK)):
        yield _strike(role.value, Selector(role=role), what.one_of("strikes at", _OF_MIGRATION, n), whom, n * apart)


def _strike(name: str, who: Selector, moment: Trigger, whom: Draws, n: int = 0) -> Rule:
    """... once or a few times, so that somebody is left."""
    pause = whom.one_of("pause", _PAUSES, n)
    do = () if pause is None else (Delay(base=pause),)
    blow = whom.one_of("strike", _STRIKES, n)
    return Rule(
        name=f"swarm-ambush-strikes-{name}",
        for_=who,
        when=moment,
        do=(*do, blow),
        times=whom.one_of("times", (1, 1, 3), n),
        skip=whom.one_of("skip", (0, 0, 0, 2), n),
    )


def watchful(draws: Draws, n: int, until_us: int) -> Load:
    """A user who looks again and again, and asks something of some of those that are just in a certain state."""
    seen, verb = draws.one_of("wish", _WISHES, n)
    who = attrs.evolve(seen, percent=draws.one_of("how many", _HOW_MANY, n))
    looks = Fixed(draws.one_of("looks", _LOOKS_US, n))
    begins_us = MOMENT_US * draws.one_of("looks from", _MOMENTS, n)
    looks_for_us = draws.one_of("looks for", _LOOKS_FOR_US, n)
    ends_us = until_us if looks_for_us is None else begins_us + looks_for_us
    load = Load(name=f"swarm-watchful-{n + 1}", every=looks, from_=begins_us, to=ends_us)
    return asking(load, verb, who)


def asking(load: Load, verb: str, who: Selector) -> Load:
    """The load with users who ask this (one of `VERBS`) of those."""
    match verb:
        case "stop":
            return attrs.evolve(load, stop=who)
        case "start":
            return attrs.evolve(load, start=who)
        case "delete":
            return attrs.evolve(load, delete=who)
        case "reboot":
            return attrs.evolve(load, reboot=who)
        case _:
            meant = {field.name: getattr(who, field.name) for field in attrs.fields(Selector) if field.init}
            return attrs.evolve(load, migrate=Migrate(**meant))


__all__ = ["MOMENT_US", "SECOND", "VERBS", "ambush", "asking", "unlucky", "watchful"]
