r"""How a sled makes itself known to Nexus: GET, then POST with the stored generation + 1 (NX 3.3).

    READING --Found, identical--------------------------> REGISTERED --InfoChanged--> POSTING
       |  \--Found, different  / NotFound--> POSTING --204--> REGISTERED
       |                                      |
       |<-- WAITING <---- transient failure --+   (what was known is forgotten: GET again)
       |
       |  (REGISTERED, every `recheck_us`: GET again, quietly; a Nexus that has forgotten the sled answers 404)
       +--Found, decommissioned--> SILENT, for ever
       +--4xx (either call)------> REFUSED, until the info changes

This is the real sled's sequence. The original simulator POSTs generation 1 for ever, so it never comes back under
an id that Nexus knows, and it takes a 4xx for a slow Nexus (SA 6 #34).

With `recheck_us` the sled looks now and then whether Nexus still knows it, by the same GET. The real sled does not:
its Nexus has a database. One without comes back empty, and would place nothing on this sled ever again. A look that
fails is repeated soon, then at the pace of looks: ten thousand sleds do nothing else while Nexus is away.

Pace: the first call is immediate and a POST follows its GET at once. After a transient failure the next GET
waits by `RETRY`: it starts like the aggressive policy, so that a Nexus which comes up is found quickly, and its
base stops at the 2 s tick of the real sled.

Read before: types.py, backoff.py. Read next: client.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, assert_never
from uuid import UUID

import attrs
from msgspec import Struct
from msgspec.structs import replace

from nexus_client.backoff import Policy, delay_us
from nexus_client.draw import draw
from nexus_client.outbox import Delivered, Permanent, Tick, Transient
from nexus_client.types import GENERATION_MAX, SledAgentInfo

RETRY: Final = Policy(100_000, 120, 2_000_000)
LOOK_AGAIN: Final = Policy(100_000, 200, 60_000_000)
"""After a look that failed; never later than the next look would have been."""
FIRST_GENERATION: Final = 1


class Phase(Enum):
    """Where the registration stands."""

    NEW = "new"  # nothing asked yet: the first Tick starts it
    READING = "reading"
    POSTING = "posting"
    WAITING = "waiting"  # for the next attempt
    REGISTERED = "registered"
    SILENT = "silent"  # decommissioned
    REFUSED = "refused"


class Found(Struct, frozen=True):
    """Nexus knows this sled."""

    info: SledAgentInfo


class NotFound(Struct, frozen=True):
    """Nexus answered 404: it does not know this sled."""


GetOutcome = Found | NotFound | Transient | Permanent
PostOutcome = Delivered | Transient | Permanent


class GetReplied(Struct, frozen=True):
    """How the `GetSledAgent` ended."""

    outcome: GetOutcome


class PostReplied(Struct, frozen=True):
    """How the `PostSledAgent` ended."""

    outcome: PostOutcome


class InfoChanged(Struct, frozen=True):
    """The sled is different now, for example its reservoir. `generation` and `decommissioned` are ignored."""

    info: SledAgentInfo


RegistrationInput = Tick | GetReplied | PostReplied | InfoChanged


class GetSledAgent(Struct, frozen=True):
    """Please GET /sled-agents/{sled_id}; answer with `GetReplied`."""

    sled_id: UUID


class PostSledAgent(Struct, frozen=True):
    """Please POST `info` to /sled-agents/{sled_id}; answer with `PostReplied`."""

    sled_id: UUID
    info: SledAgentInfo


class Registered(Struct, frozen=True):
    """Nexus knows the sled as it is now, under this generation."""

    generation: int


class Decommissioned(Struct, frozen=True):
    """Nexus has decommissioned this sled: nothing more is sent, whatever happens."""


class RegistrationRefused(Struct, frozen=True):
    """Nexus refuses: trying again would not help. `message` is meant for the operator."""

    message: str
    status: int | None


RegistrationEffect = GetSledAgent | PostSledAgent | Registered | Decommissioned | RegistrationRefused


@attrs.define(eq=False)
class Registration:
    """One sled's registration; `handle` is the only door. The first `Tick` starts it.

    `next_deadline_us` is 0 until then: overdue, whatever the time is.
    """

    sled_id: UUID
    info: SledAgentInfo
    seed: int = 0
    retry: Policy = RETRY
    recheck_us: int | None = None  # pause between two looks whether Nexus still knows it; None: never
    phase: Phase = attrs.field(init=False, default=Phase.NEW)
    why: str = attrs.field(init=False, default="")  # the last failure
    _stored: SledAgentInfo | None = attrs.field(init=False, default=None)  # what Nexus has, as far as known
    _sent: SledAgentInfo | None = attrs.field(init=False, default=None)  # the POST in flight
    _attempt: int = attrs.field(init=False, default=0)  # failures in a row
    _due_us: int = attrs.field(init=False, default=0)
    _looking: bool = attrs.field(init=False, default=False)  # the GET in flight, or waited for, is such a look

    def handle(self, item: RegistrationInput, now_us: int) -> list[RegistrationEffect]:
        """Take one input; returns what shall be done about it, in this order.

        An answer that nothing waits for is ignored.
        """
        match item:
            case Tick():
                return self._tick(now_us)
            case GetReplied(outcome):
                return self._got(outcome, now_us) if self.phase is Phase.READING else []
            case PostReplied(outcome):
                return self._posted(outcome, now_us) if self.phase is Phase.POSTING else []
            case InfoChanged(info):
                return self._changed(info, now_us)
            case _:
                assert_never(item)

    def next_deadline_us(self) -> int | None:
        """When the next `Tick` has something to do; None: never, as things are."""
        looks = self.phase is Phase.REGISTERED and self.recheck_us is not None
        return self._due_us if looks or self.phase in {Phase.NEW, Phase.WAITING} else None

    @property
    def generation(self) -> int | None:
        """The generation that Nexus is known to have; None if that is not known."""
        return None if self._stored is None else self._stored.generation

    @property
    def stored(self) -> SledAgentInfo | None:
        """What Nexus is known to have; None if that is not known."""
        return self._stored

    def in_flight(self) -> GetSledAgent | PostSledAgent | None:
        """The call that waits for its answer."""
        if self.phase is Phase.READING:
            return GetSledAgent(self.sled_id)
        if self.phase is Phase.POSTING and self._sent is not None:
            return PostSledAgent(self.sled_id, self._sent)
        return None

    def _tick(self, now_us: int) -> list[RegistrationEffect]:
        due_us = self.next_deadline_us()
        return self._read() if due_us is not None and due_us <= now_us else []

    def _read(self) -> list[RegistrationEffect]:
        # a look that failed is the same look when it is repeated: an outage makes no sled unregistered
        self._looking = self.phase is Phase.REGISTERED or (self.phase is Phase.WAITING and self._looking)
        self.phase = Phase.READING
        return [GetSledAgent(self.sled_id)]

    def _got(self, outcome: GetOutcome, now_us: int) -> list[RegistrationEffect]:
        match outcome:
            case Found(info):
                if info.decommissioned:
                    self.phase = Phase.SILENT
                    return [Decommissioned()]
                same = self._looking and info == self._stored and self._attempt == 0
                self._stored = info
                compared = self._compare(now_us)
                # nothing is news if it was so before
                return [] if same and self.phase is Phase.REGISTERED else compared
            case NotFound():
                self._stored = None
                return self._post(FIRST_GENERATION)
            case Transient(why):
                return self._later(why, now_us)
            case Permanent() if self._looking:
                self._attempt = 0
                self.why = ""
                return self._settled(now_us)  # a look is harmless, and so is its refusal
            case Permanent(why, status):
                return self._refused(f"Nexus refuses to tell what it knows of sled {self.sled_id}: {why}", status)
            case _:
                assert_never(outcome)

    def _posted(self, outcome: PostOutcome, now_us: int) -> list[RegistrationEffect]:
        sent, self._sent = self._sent, None
        match outcome:
            case Delivered():
                self._stored = sent
                return self._compare(now_us)  # the info may have changed while this was on its way
            case Transient(why):
                return self._later(why, now_us)
            case Permanent(why, status):
                return self._refused(f"Nexus refuses to register sled {self.sled_id}: {why}", status)
            case _:
                assert_never(outcome)

    def _settled(self, now_us: int) -> list[RegistrationEffect]:
        self.phase = Phase.REGISTERED
        self._due_us = now_us + (self.recheck_us or 0)
        return []

    def _compare(self, now_us: int) -> list[RegistrationEffect]:
        """What Nexus has is known: is there anything to tell?"""
        stored = self._stored
        assert stored is not None, "compared with nothing"
        self._attempt = 0
        self.why = ""
        if self._is_told():
            self._settled(now_us)
            return [Registered(stored.generation)]
        if stored.generation >= GENERATION_MAX:
            return self._refused(f"sled {self.sled_id} is registered under the last generation there is", None)
        return self._post(stored.generation + 1)

    def _post(self, generation: int) -> list[RegistrationEffect]:
        self.phase = Phase.POSTING
        self._looking = False
        self._sent = replace(self.info, generation=generation, decommissioned=False)
        return [PostSledAgent(self.sled_id, self._sent)]

    def _later(self, why: str, now_us: int) -> list[RegistrationEffect]:
        if not self._looking:
            # A POST may have arrived although its answer did not, so nothing is known any more.
            self._stored = None
        self.phase = Phase.WAITING
        self.why = why
        self._due_us = now_us + self._pause_us()
        self._attempt += 1
        return []

    def _pause_us(self) -> int:
        number = draw(self.seed, "registration", self.sled_id, self._attempt)
        if self._looking and self.recheck_us is not None and self._is_told():
            return min(delay_us(LOOK_AGAIN, self._attempt, number), self.recheck_us)
        return delay_us(self.retry, self._attempt, number)

    def _is_told(self) -> bool:
        """Whether Nexus has, as far as known, the sled as it is now."""
        stored = self._stored
        return stored is not None and stored == replace(
            self.info, generation=stored.generation, decommissioned=stored.decommissioned
        )

    def _refused(self, message: str, status: int | None) -> list[RegistrationEffect]:
        self._stored = None
        self.phase = Phase.REFUSED
        self.why = message
        return [RegistrationRefused(message, status)]

    def _changed(self, info: SledAgentInfo, now_us: int) -> list[RegistrationEffect]:
        self.info = info
        match self.phase:
            case Phase.REGISTERED:
                return self._compare(now_us)
            case Phase.REFUSED:
                # perhaps the new info is acceptable; what was wrong with the old one is not ours to judge
                self._attempt = 0
                return self._read()
            case Phase.WAITING if self._looking:  # news does not wait for the next look
                self._due_us = min(self._due_us, now_us + self._pause_us())
                return []
            case Phase.NEW | Phase.READING | Phase.POSTING | Phase.WAITING | Phase.SILENT:
                return []  # whatever comes next looks at the new info
            case _:
                assert_never(self.phase)
