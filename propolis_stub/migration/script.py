"""Both sides of one migration as pure machines that exchange messages (PR 3.5, 3.6, 4.5).

Theory
------
A side is a *script*: a tuple of operations, gone through by a program counter. `Migration.step()` does operations
until one concerns somebody else and returns it as an action: publish a phase, wait a while, send a message, build
the VM's objects ... The driver (`vm.py`) performs the action and asks again. `Blocked` means: the peer's turn.

The scripts are the dialogue of PR 4.5 line by line, so the wire is the same thing with a codec around it.
Hand-over point: when the source has sent its last Okay it has migrated out, whatever becomes of the message; a target
that does not get it fails itself. So one side at most runs the guest.

*Scripted* sides have an imagined peer: expectations are met at once, nothing is sent, and the peer fails in the
phase that `fails_in` names.

Read before: migration/messages.py, request_queue.py. Read next: contract.py, driver.py, vm.py.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final, Protocol
from uuid import UUID

import attrs
from msgspec import Struct

from propolis_stub.migration.messages import (
    Error,
    Malformed,
    MemDone,
    MemEnd,
    MemOffer,
    MemQuery,
    Message,
    Okay,
    Serialized,
    Text,
)
from propolis_stub.types import MigrationPhase as Phase
from propolis_stub.types import Role
from propolis_stub.waiting import Point

PROTOCOLS: Final = ("propolis-migrate-ron/0",)
"""What we speak, best first."""

U64_MAX: Final = 2**64 - 1


class Payload(Enum):
    """What a `Serialized` message carries, by its place in the dialogue."""

    PREAMBLE = "preamble"  # the source's spec and blobs
    TIME = "time"
    DEVICES = "devices"
    ADDRESS = "address"  # where console clients find the target
    HISTORY = "history"  # of the serial console


class Baggage(Protocol):
    """What a VM's owner packs into a migration. Pure; called at the moment the message is made or read."""

    def pack(self, payload: Payload, /) -> str:
        """The text to send."""
        ...

    def unpack(self, payload: Payload, text: str, /) -> str | None:
        """Takes what came in; a returned text says why it cannot be accepted and fails this side."""
        ...

    def unbuildable(self) -> bool:
        """Whether no VM can be made of the specification that came: the target's objects fail (PR 3.6)."""
        ...


class _NoBaggage:
    def pack(self, payload: Payload, /) -> str:
        return f"({payload.value})"

    def unpack(self, _payload: Payload, _text: str, /) -> str | None:
        return None

    def unbuildable(self) -> bool:
        return False


NO_BAGGAGE: Final[Baggage] = _NoBaggage()


class ErrorKind(Enum):
    """Internal names of PR 4.5; only seen in logs and Error frames."""

    WEBSOCKET = "Websocket"
    INITIATE = "Initiate"
    PROTOCOL_PARSE = "ProtocolParse"
    NO_MATCHING_PROTOCOL = "NoMatchingProtocol"
    CODEC = "Codec"
    SPECS_INCOMPATIBLE = "InstanceSpecsIncompatible"
    TARGET_INIT = "TargetInstanceInitializationFailed"
    UNEXPECTED_MESSAGE = "UnexpectedMessage"
    PHASE = "Phase"
    DEVICE_STATE = "DeviceState"
    REMOTE = "RemoteError"


class Failure(Struct, frozen=True):
    """Why a side gave up. `tell`: whether the peer may still be told (it is there, and it is not its own error)."""

    kind: ErrorKind
    text: str
    tell: bool = True
    close_code: int | None = None

    def __str__(self) -> str:
        return f"{self.kind.value}({self.text})"


# --- operations of a script -------------------------------------------------------------------------------------


class Mark(Enum):
    """Places in a script that concern the driver but neither phase nor peer."""

    NEGOTIATED = "negotiated"  # source: Migrating is published together with the first Sync
    DIAL = "dial"
    CREATE = "create"  # target: build the VM's objects (may fail); then ensure answers 201
    CREATED = "created"
    PAUSED = "paused"  # source: the guest stands still from here
    HANDED_OVER = "handed over"  # source: past the point of no return


class Publish(Struct, frozen=True):
    phase: Phase


class Await(Struct, frozen=True):
    """This side's own work in a phase: how long, and whether it fails, is the pacer's business."""

    point: Point


class Send(Struct, frozen=True):
    message: Message


class _Pack(Struct, frozen=True):
    payload: Payload


class _Expect(Struct, frozen=True):
    message: type[Message]
    payload: Payload | None = None


class _Offer(Struct, frozen=True):
    """Target: send what we speak."""


class _Choose(Struct, frozen=True):
    """Source: answer the offer."""


class _ReadChoice(Struct, frozen=True):
    """Target: is the choice one of ours?"""


class Redirect(Struct, frozen=True):
    """Source, Server phase: console clients go to `destination`."""

    destination: str


class Pause(Enum):
    """Why `step` returned without an action to perform."""

    BLOCKED = "blocked"  # the peer's turn
    FINISHED = "finished"


Action = Publish | Await | Send | Mark | Redirect | Failure | Pause
_Op = Publish | Await | Send | Mark | _Pack | _Expect | _Offer | _Choose | _ReadChoice

_QUERY: Final = MemQuery(0, U64_MAX)
_END: Final = MemEnd(0, U64_MAX)

_SOURCE: Final[tuple[_Op, ...]] = (
    _Expect(Text),
    _Choose(),
    Mark.NEGOTIATED,  # publishes Sync, once for the state and once for the phase: PR 3.5
    Publish(Phase.SYNC),
    Await(Point.M_SYNC),
    _Pack(Payload.PREAMBLE),
    _Expect(Okay),
    Publish(Phase.RAM_PUSH),
    _Expect(MemQuery),
    Await(Point.M_RAM_PUSH),
    Send(_END),
    _Expect(MemDone),
    Publish(Phase.PAUSE),
    Publish(Phase.PAUSE),
    Mark.PAUSED,
    Await(Point.M_PAUSE),
    Publish(Phase.RAM_PUSH_DIRTY),
    _Expect(MemQuery),
    Await(Point.M_RAM_PUSH_DIRTY),
    Send(_END),
    _Expect(MemDone),
    Publish(Phase.PAUSE),
    Await(Point.M_TIME),
    _Pack(Payload.TIME),
    _Expect(Okay),
    Publish(Phase.DEVICE),
    Await(Point.M_DEVICE),
    _Pack(Payload.DEVICES),
    Send(Okay()),
    _Expect(Okay),
    Publish(Phase.RAM_PUSH),
    _Expect(MemQuery),
    Publish(Phase.PAUSE),
    Await(Point.M_RAM_PULL),
    Send(_END),
    _Expect(MemDone),
    Publish(Phase.RAM_PUSH_DIRTY),
    Publish(Phase.SERVER),
    _Expect(Serialized, Payload.ADDRESS),
    Await(Point.M_SERVER),
    _Pack(Payload.HISTORY),
    _Expect(Okay),
    Publish(Phase.FINISH),
    _Expect(Okay),
    Await(Point.M_FINISH),
    Send(Okay()),
    Mark.HANDED_OVER,
)

_TARGET: Final[tuple[_Op, ...]] = (
    Await(Point.M_CONNECT),
    Mark.DIAL,
    _Offer(),
    _Expect(Text),
    _ReadChoice(),
    Publish(Phase.SYNC),
    Await(Point.M_SYNC),
    _Expect(Serialized, Payload.PREAMBLE),
    Mark.CREATE,
    Send(Okay()),
    Mark.CREATED,
    Publish(Phase.RAM_PUSH),
    Send(_QUERY),
    _Expect(MemEnd),
    Await(Point.M_RAM_PUSH),
    Send(MemDone()),
    Publish(Phase.PAUSE),
    Await(Point.M_PAUSE),
    Publish(Phase.RAM_PUSH_DIRTY),
    Send(_QUERY),
    _Expect(MemEnd),
    Await(Point.M_RAM_PUSH_DIRTY),
    Send(MemDone()),
    Publish(Phase.PAUSE),
    _Expect(Serialized, Payload.TIME),
    Await(Point.M_TIME),
    Send(Okay()),
    Publish(Phase.DEVICE),
    _Expect(Serialized, Payload.DEVICES),
    _Expect(Okay),
    Await(Point.M_DEVICE),
    Send(Okay()),
    Publish(Phase.RAM_PULL),
    Send(_QUERY),
    _Expect(MemEnd),
    Await(Point.M_RAM_PULL),
    Send(MemDone()),
    Publish(Phase.SERVER),
    _Pack(Payload.ADDRESS),
    _Expect(Serialized, Payload.HISTORY),
    Await(Point.M_SERVER),
    Send(Okay()),
    Publish(Phase.FINISH),
    Await(Point.M_FINISH),
    Send(Okay()),
    _Expect(Okay),
)

_SCRIPTS: Final = {Role.SOURCE: _SOURCE, Role.TARGET: _TARGET}
_HANDSHAKE_END: Final = {Role.SOURCE: _SOURCE.index(Mark.NEGOTIATED), Role.TARGET: _TARGET.index(Publish(Phase.SYNC))}

_INBOX_MAX: Final = 4096
"""Messages kept while this side cannot read them. The dialogue allows a handful; a peer that offers pages of a big
guest sends one message per region. Whoever exceeds it is refused, so that a peer cannot fill the memory."""

_OFFERED: Final = re.compile(r"[a-z0-9-]+/[0-9]+")


class Asked(Protocol):
    """What `contract.EnsureTarget` and `contract.MigrateOut` have in common."""

    @property
    def migration_id(self) -> UUID: ...
    @property
    def scripted(self) -> bool: ...
    @property
    def fails_in(self) -> Point | None: ...
    @property
    def baggage(self) -> Baggage: ...
    @property
    def protocols(self) -> tuple[str, ...]: ...


def choose_protocol(offer: str, known: tuple[str, ...] = PROTOCOLS) -> str | Failure:
    """The highest version that both sides know, out of the comma-separated `offer` (PR 4.5)."""
    names = [part.strip() for part in offer.split(",")]
    if not all(_OFFERED.fullmatch(name) for name in names):
        return Failure(ErrorKind.PROTOCOL_PARSE, f"unreadable offer {offer[:200]!r}", tell=False)
    common = [name for name in known if name in names]
    if not common:
        return Failure(
            ErrorKind.NO_MATCHING_PROTOCOL, f"{offer[:200]!r} offers none of {', '.join(PROTOCOLS)}", tell=False
        )
    return common[0]


@attrs.define(eq=False)
class Migration:
    """One side of one migration. `step` until it is blocked; `receive` what the peer says; `fail` to give up."""

    id: UUID
    role: Role
    scripted: bool = False
    fails_in: Point | None = None
    baggage: Baggage = NO_BAGGAGE
    protocols: tuple[str, ...] = PROTOCOLS  # what this side speaks, best first
    paused: bool = False
    unbuildable: bool = False  # a target's objects cannot be made, whatever the pacer says
    over: bool = False  # finished or failed: nothing more is sent or read
    broken: Failure | None = None  # the peer gave up or is gone; `step` returns this next
    _counter: int = 0
    _inbox: tuple[Message, ...] = ()
    _read: Message | None = None  # what the last `_Expect` took

    @classmethod
    def of(cls, asked: Asked, role: Role) -> Migration:
        return cls(asked.migration_id, role, asked.scripted, asked.fails_in, asked.baggage, asked.protocols)

    @property
    def negotiated(self) -> bool:
        """Whether the handshake is behind us: failures before it look different (PR 3.5, 3.6)."""
        return self._counter >= _HANDSHAKE_END[self.role]

    @property
    def can_go(self) -> bool:
        """Whether `step` would get anywhere: not if the next operation needs a message that has not come."""
        if self.over:
            return False
        return bool(self.scripted or self._inbox or self.broken) or not isinstance(self._op(), _Expect)

    def _op(self) -> _Op | None:
        script = _SCRIPTS[self.role]
        return script[self._counter] if self._counter < len(script) else None

    def receive(self, message: Message) -> None:
        """Keeps a message until the script reads it. If the peer has given up, `broken` says so from now on."""
        if self.over or self.broken is not None:
            return
        if isinstance(message, Error):  # whatever we were doing
            self.broken = Failure(ErrorKind.REMOTE, f"{_PEER[self.role]}: {message.text[:400]}", tell=False)
        elif isinstance(message, Malformed):
            code = None if self.negotiated else 1002
            self.broken = Failure(ErrorKind.CODEC, message.why, tell=self.negotiated, close_code=code)
        elif len(self._inbox) >= _INBOX_MAX:
            self.broken = Failure(ErrorKind.UNEXPECTED_MESSAGE, "the peer talks without waiting for an answer")
        else:
            self._inbox += (message,)

    def lose(self, why: str) -> None:
        """The connection is gone."""
        if not self.over and self.broken is None:
            self.broken = Failure(ErrorKind.WEBSOCKET, why, tell=False)

    @property
    def at_wait(self) -> bool:
        """Whether the script stands at an `Await` (and not at the building of the objects)."""
        return isinstance(self._op(), Await)

    def passed(self) -> Failure | None:
        """The wait that `step` returned is over; the imagined peer of a scripted side may fail now."""
        op = self._op()
        assert isinstance(op, Await)
        if self.scripted and self.fails_in is op.point:
            return Failure(ErrorKind.REMOTE, f"{_PEER[self.role]}: failed in {op.point.value}", tell=False)
        self._counter += 1
        return None

    def step(self) -> Action:
        """Does operations up to the next one that concerns the driver, and returns that."""
        while not self.over:
            if self.broken is not None:
                return self.broken
            op = self._op()
            match op:
                case None:
                    self.over = True
                    return Pause.FINISHED
                case Await():
                    return op  # the counter moves in `passed`
                case _Expect():
                    hindrance = self._take(op)
                    if hindrance is not None:
                        return hindrance
                    self._counter += 1
                    if op.payload is Payload.ADDRESS:
                        address = self._read.text if isinstance(self._read, Serialized) else ""
                        return Redirect(address)
                case _Offer() | _Choose() | _ReadChoice():
                    action = self._negotiate(op)
                    if isinstance(action, Failure):
                        return action
                    self._counter += 1
                    if action is not None:
                        return action
                case Send():
                    self._counter += 1
                    if not self.scripted:
                        return op
                case _Pack(payload):
                    self._counter += 1
                    if not self.scripted:
                        return Send(Serialized(self.baggage.pack(payload)))
                case Publish() | Mark():
                    self._counter += 1
                    if op is Mark.DIAL and self.scripted:
                        continue
                    if op is Mark.PAUSED:
                        self.paused = True
                    if op is Mark.HANDED_OVER:
                        self.over = True
                    return op
        return Pause.FINISHED

    def _take(self, op: _Expect) -> Failure | Pause | None:
        if self.scripted:
            return None
        while self._inbox:
            message, *rest = self._inbox
            self._inbox = tuple(rest)
            if isinstance(message, MemOffer) and op.message is MemEnd:
                continue  # pages on offer are never fetched: this guest has no memory
            if not isinstance(message, op.message):
                what = f"got {type(message).__name__}, expected {op.message.__name__}"
                if self.negotiated:
                    return Failure(ErrorKind.UNEXPECTED_MESSAGE, what)
                return Failure(ErrorKind.INITIATE, what, tell=False, close_code=1002)
            self._read = message
            if op.payload is not None and isinstance(message, Serialized):
                refused = self.baggage.unpack(op.payload, message.text)
                if refused is not None:
                    return Failure(ErrorKind.SPECS_INCOMPATIBLE, refused)
            return None
        return Pause.BLOCKED

    def _negotiate(self, op: _Offer | _Choose | _ReadChoice) -> Send | Failure | None:
        if self.scripted:
            if isinstance(op, _Choose) and self.fails_in is Point.M_CONNECT:
                return Failure(
                    ErrorKind.NO_MATCHING_PROTOCOL, "the imagined target offers nothing we know", tell=False
                )
            return None
        if isinstance(op, _Offer):
            return Send(Text(",".join(self.protocols)))
        text = self._read.text if isinstance(self._read, Text) else ""
        if isinstance(op, _ReadChoice):
            if text in self.protocols:
                return None
            return Failure(ErrorKind.NO_MATCHING_PROTOCOL, f"the source chose {text[:200]!r}", tell=False)
        chosen = choose_protocol(text, self.protocols)
        return chosen if isinstance(chosen, Failure) else Send(Text(chosen))


_PEER: Final = {Role.SOURCE: "Destination", Role.TARGET: "Source"}
"""What the original calls the other side when it tells whose error it was (PR 4.5)."""
