"""Values between the engine and whoever runs it (the world or a daemon): plans for one thing that is about to
happen, and effects for what shall be done besides.

Read before: core/spoil.py, language/actions.py.
Read next: engine/act/firing.py, engine/match.py, engine/reports.py, engine/timers.py.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.outbox import Outcome
from nexus_client.types import SledVmmState, VmmState
from sim_sled.core import contract
from sim_sled.core.spoil import Spoil
from sim_sled.language.actions import Fail, MigrationFate
from sim_sled.language.selector import Trigger
from sim_sled.language.source import Mark
from sim_sled.language.words import On, Truth

CLIENT_LOST_US = 15_000_000
"""When a sled takes a report for lost to which nothing answers (NX 3.1: 15 s)."""


class Overrun(RuntimeError):
    """Rules make more than there is room for; the text says of what. It ends a run."""


@attrs.define(eq=False)
class RequestPlan:
    """What becomes of one request of Nexus: after `delay_us` it is carried out, unless something else is set."""

    delay_us: int = 0
    fail: Fail | None = None
    hang_us: int | None = None
    """No answer for that long, then the connection is closed."""
    reset: bool = False
    silent: bool = False
    """No answer at all: no power, or the way is cut."""
    answer_lost: bool = False
    """Carried out, but the answer does not arrive."""
    spoil: Spoil | None = None
    """Carried out, but the answer does not arrive as it was."""

    @property
    def passes(self) -> bool:
        return self.fail is None and self.hang_us is None and not self.reset and not self.silent


@attrs.define(eq=False)
class PacePlan:
    """How long a VMM waits at a point, and how that ends."""

    delay_us: int = 0
    stall_us: int = 0
    fail: bool = False
    becomes: Truth | None = None
    becomes_by: str = ""
    """The rule that wants it."""
    illegal: bool = False
    at_once: bool = False


@attrs.define(eq=False)
class PublishPlan:
    """What becomes of one report on its way to Nexus."""

    delay_us: int = 0
    held_by: str = ""
    hold_lasts_us: int = 0
    hold_until: str | None = None
    dropped: bool = False
    retry: bool = True
    copies: list[int] = attrs.field(factory=list)
    """Delays of the duplicates behind the report."""
    window: int = 0
    stale: list[tuple[int, str]] = attrs.field(factory=list)
    """How many publications older, and which rule wants it."""


class Publication(Struct, frozen=True):
    """One `PutToNexus` of the rack."""

    sled_id: UUID
    propolis_id: UUID
    body: SledVmmState
    attempt: int
    serial: int


# ---- effects


class Deliver(Struct, frozen=True):
    """Send `body` to Nexus after a while. `answered`: Nexus's answer is the answer to `publication`."""

    publication: Publication
    body: SledVmmState
    after_us: int
    answered: bool
    answer_lost: bool = False


class Answer(Struct, frozen=True):
    """Tell the sled after a while how its publication ended; Nexus hears nothing."""

    publication: Publication
    outcome: Outcome
    after_us: int


class Inject(Struct, frozen=True):
    """Do this to a VMM, whatever it was doing. `cause`: the rule and action that want it; None: it follows from what
    another did.
    """

    item: contract.Injection
    cause: tuple[str, str] | None = None


def vmm_state(state: Truth) -> VmmState:
    """What a sled says of a VMM that is in this state in truth."""
    return VmmState.STARTING if state is Truth.CREATING else VmmState(state.value)


class Power(Struct, frozen=True):
    """The sled's power as the rack's management network sees it."""

    sled_id: UUID
    on: bool


class Expunge(Struct, frozen=True):
    """An operator expunges the sled."""

    sled_id: UUID


class RestartNexus(Struct, frozen=True):
    """Nexus dies (at a point of its work, or now) and starts again after a while."""

    point: str
    down_us: int


class TakeSnapshot(Struct, frozen=True):
    name: str


EngineEffect = Deliver | Answer | Inject | Power | Expunge | RestartNexus | TakeSnapshot


class Event(Struct, frozen=True):
    """Something a trigger may wait for. `words` are the names it goes by (`running`, `vmm_register`, ...). `timed`:
    the trigger whose time has come; `every: 5s` from 1m on is not that of another who begins at once.
    """

    kind: On
    words: tuple[object, ...]
    to: str | None = None
    body: object = None
    timed: Trigger | None = None


class Listener(Protocol):
    """Told every event, with the VMM and sled it concerns: expectations."""

    def heard(self, event: Event, who: object, sled: object, now_us: int, /) -> None: ...


class Tell(Protocol):
    """Takes a line for the trace: kind, VMM or None, sled name, text, mark of the rule or None."""

    def __call__(self, kind: str, who: object, sled: str, text: str, mark: Mark | None, /) -> None: ...


__all__ = [
    "Answer",
    "Deliver",
    "EngineEffect",
    "Event",
    "Expunge",
    "Fail",
    "Inject",
    "Listener",
    "MigrationFate",
    "Overrun",
    "PacePlan",
    "Power",
    "Publication",
    "PublishPlan",
    "RequestPlan",
    "RestartNexus",
    "TakeSnapshot",
    "Tell",
    "vmm_state",
]
