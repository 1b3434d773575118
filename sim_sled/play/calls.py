"""What passes between whoever runs a rack and its conductor, as values: inputs, effects, and who is told of it.

Of a module of their own, since a daemon without a scenario knows them and has no conductor (play/passage.py).

Read next: daemon/reporting.py, play/conductor.py, play/passage.py, recording/lines.py.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from uuid import UUID

from msgspec import Struct, field

from nexus_client.outbox import Outcome
from nexus_client.types import SledVmmState
from sim_sled.core import contract
from sim_sled.core.errors import SledError
from sim_sled.core.happenings import Happening
from sim_sled.core.spoil import Spoil

if TYPE_CHECKING:
    from sim_sled.engine.cast import Subject
    from sim_sled.engine.plans import Expunge, Power, Publication, RestartNexus
    from sim_sled.language.actions import Fail
    from sim_sled.language.schema import Scenario

SILENCE_US: Final = 65_000_000
"""How long a connection is kept without an answer where nothing answers: longer than Nexus waits (60 s)."""


# ---- inputs


class Call(Struct, frozen=True, eq=False):
    """Nexus makes a request. `item`: the rack's input, or a `Plain` that a rack need not see. `key` counts calls."""

    key: int
    op: str
    item: Any


class Plain(Struct, frozen=True):
    """A request that changes nothing in the rack (addresses, inventory)."""

    ticket: int
    sled_id: UUID
    propolis_id: UUID | None


class Answered(Struct, frozen=True):
    """Nexus has answered a `Send`."""

    send: Send
    outcome: Outcome


class Begin(Struct, frozen=True):
    """The fleet is registered: scenario time starts."""


class Step(Struct, frozen=True):
    """The next thing that is due, and only that one."""


STEP: Final = Step()


class Fire(Struct, frozen=True):
    """A person fires a manual trigger, for one VMM if it is named."""

    name: str
    propolis_id: UUID | None = None


class LetGo(Struct, frozen=True):
    """A person lets go what a rule holds."""

    rule: str


class Load(Struct, frozen=True):
    """Other rules from now on; what is on its way stays on its way, counters of rules that keep their name stay.
    `ordinals`: where there were no rules, the VMMs that have been counted already; `counted`: up to where.
    """

    scenario: Scenario
    ordinals: dict[UUID, int] = field(default_factory=dict)
    counted: int = 0


# ---- effects


class Lost(Enum):
    """How a request ends to which no answer comes; the value is what its caller sees."""

    REFUSED = "connection refused"
    RESET = "connection reset"
    CLOSED = "connection closed"
    SILENT = "timed out"
    NO_ANSWER = "no answer within 60 s"


class Carried(Struct, frozen=True):
    """The request was carried out. `value` as the rack replied."""

    value: object


class Spoilt(Struct, frozen=True):
    """The request was carried out, and its answer does not arrive as it was. `value` as the rack replied."""

    spoil: Spoil
    value: object


class Refused(Struct, frozen=True):
    """The sled refused it."""

    error: SledError


class Failed(Struct, frozen=True):
    """A rule answered instead."""

    fail: Fail


Ending = Carried | Spoilt | Refused | Failed | Lost


class Ended(Struct, frozen=True, eq=False):
    """A call is over: this is its answer, or that there is none. `who` is the VMM that it concerned."""

    call: Call
    ending: Ending
    who: Subject | None


class Send(Struct, frozen=True):
    """Tell Nexus now; its answer comes back by `Answered`. `answered`: the sled waits for it. `answer_lost`: it will
    not hear it.
    """

    publication: Publication
    body: SledVmmState
    answered: bool
    answer_lost: bool = False

    @property
    def propolis_id(self) -> UUID:
        return self.publication.propolis_id

    @property
    def attempt(self) -> int:
        return self.publication.attempt


class Due(Struct, frozen=True):
    """Something of the world around that was put on its way (`Conductor.put`) has arrived."""

    what: object


Effect: TypeAlias = "Ended | Send | Due | Power | Expunge | RestartNexus | contract.Effect"
Input: TypeAlias = "Call | Answered | Begin | Step | Fire | LetGo | Load | contract.Input"


class Watcher(Protocol):
    """Who is told what happens, at once. None of these may call back."""

    def happened(self, happening: Happening, who: Subject | None, /) -> None:
        """The rack's happening, before rules make anything of it."""
        ...

    def tell(self, kind: str, who: Subject | None, sled: str, text: str, /) -> None:
        """A line: a rule fired, a note, a sled went down, a request hangs, ..."""
        ...

    def carried(self, call: Call, ending: Carried | Refused, who: Subject | None, /) -> None:
        """The rack has carried out a request, or refused it; its answer is not back yet."""
        ...

    def lost(self, who: Subject, /) -> None:
        """A rule made the agent forget a VMM."""
        ...
