"""What a line of a recording is. A folder has parts; each is JSON lines.

    {"recording": 1, "of": ID, "part": 1, "version": ..., "sleds": ..., ...}   how the rack began: `Header`
    {"recording": 1, "of": ID, "part": 2}                                     a later part begins
    {"at": US, "in": INPUT, "out": [EFFECT, ...], "told": [...]}              one turn of the core
    {"at": US, "did": {"kind": "join", ...}}                                  what a shell does beside turns
    {"at": US, "http": {"op": ..., "method": ..., ...}}                       a request, when it is answered
    {"end": WHY}                                                              the recording ends before the rack does

INPUT is a form (recording/forms.py): requests, answers of Nexus and timers. An EFFECT is told by the name of its
type; it is compared and never read back, so it is written as it comes: {"Reply": {...}}. What rules say they do
("told") stands beside it. Times are integer microseconds of the daemon's clock.

Read before: http/exchange.py, play/calls.py, recording/forms.py.
Read next: daemon/recorder.py, daemon/recordings.py, recording/replaying.py, recording/scrub.py, recording/tape.py.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs
import msgspec

from nexus_client import types
from nexus_client.outbox import Delivered
from nexus_client.types import SledVmmState, UpdatedRuntime
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.play.calls import Answered, Ended, Send, Step
from sim_sled.recording.forms import NoForm, form

if TYPE_CHECKING:
    from sim_sled.engine.cast import Subject
    from sim_sled.http.exchange import Exchange

FORMAT: Final = 1


class Header(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The first line of a part; all but the first three fields only of the first part.

    `of`: which recording; `program`: a fingerprint of the sources. `sleds`, `scenario`, `pacer` and `sled_pacer` are
    forms; `scenario` None: no rules. `plays`: see `Passage.first_name`.
    """

    recording: int
    of: str
    part: int
    version: str = ""
    program: str = ""
    began: str = ""
    begins: str = ""
    """"from the beginning": before any input."""
    seed: int = 0
    rules_seed: int = 0
    sleds: Any = None
    scenario: Any = None
    plays: str | None = None
    pacer: Any = None
    sled_pacer: Any = None
    silence_us: int = 0
    watched: bool = True
    companions: bool = False
    scrubbed: str = ""
    """Of a copy without personal things: what was done to it."""
    files: dict[str, str] = msgspec.field(default_factory=dict)
    """Texts of the scenario's files, for people: `scenario` is what is played."""


class Turn(msgspec.Struct, kw_only=True, omit_defaults=True, rename={"item": "in"}):
    """One input and what came of it. `drawn`: of a copy without personal things, what was drawn by ids that it does
    not have; by `key_of` of the ids that it has. `api`: it is of a request of this version, carried out and answered
    with 200, that says no more than the input: it has no line of its own.
    """

    at: int
    item: Any
    out: list[Any]
    told: list[Any] = []
    drawn: dict[str, int] = {}
    api: str | None = None


class Did(msgspec.Struct, kw_only=True):
    """What a shell did to the rack beside turns."""

    at: int
    did: dict[str, Any]


class Asked(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request to a sled's API, with one body or none: JSON that fits, other text, bytes that are none."""

    sled_id: UUID
    op: str
    method: str
    target: str
    version: str | None
    status: int
    body: Any = msgspec.UNSET
    body_text: str | None = None
    body_base64: str | None = None
    body_missing: bool = False
    """There was one, and nobody read it as JSON: stored bytes."""

    @property
    def has_json(self) -> bool:
        """Whether `body` is it."""
        return self.body is not msgspec.UNSET


class Http(msgspec.Struct, kw_only=True):
    """A request, written when it was answered: its turns stand before it."""

    at: int
    http: Asked


class End(msgspec.Struct, kw_only=True):
    """The recording ends here, and why; what follows is not in it."""

    end: str


Line = Header | Turn | Did | Http | End


# ---- writing


def written(line: Any) -> bytes:
    """A line as it stands in a file."""
    return _ENCODER.encode(line)


def _otherwise(value: object) -> Any:
    """What msgspec does not know: of errors what they say; of the rest only what it is, as its address differs from
    run to run.
    """
    if isinstance(value, BaseException):
        return [type(value).__name__, str(value)]
    if isinstance(value, msgspec.Raw | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, int | str):  # a number of the wire, which was checked where it was read
        return int(value) if isinstance(value, int) else str(value)
    kind = type(value)
    if kind.__module__ == "ipaddress":
        return str(value)
    return f"a {kind.__qualname__}"


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_otherwise, order="deterministic")
_PLAIN: Final = msgspec.json.Decoder()


def _told_send(effect: Send) -> dict[str, Any]:
    told = effect.publication
    return {
        "sled_id": told.sled_id,
        "propolis_id": told.propolis_id,
        "serial": told.serial,
        "attempt": told.attempt,
        "body": effect.body,
        "answered": effect.answered,
        "answer_lost": effect.answer_lost,
    }


def _told_ended(effect: Ended) -> dict[str, Any]:
    ending = effect.ending
    value = ending.name if isinstance(ending, Enum) else ending
    return {"ticket": effect.call.key, type(ending).__name__: value}


_TOLD: Final[dict[type, Callable[[Any], Any]]] = {Send: _told_send, Ended: _told_ended}
"""Effects that hold more than is to be told: objects of the rules, or one body twice."""


def _effect(effect: Any) -> dict[str, Any]:
    kind = type(effect)
    tell = _TOLD.get(kind)
    return {kind.__name__: effect if tell is None else tell(effect)}


def effects_as_written(effects: Iterable[Any]) -> list[Any]:
    """Effects as a reader of their line has them."""
    out: list[Any] = []
    for effect in effects:
        told = _effect(effect)
        try:
            out.append(_PLAIN.decode(_ENCODER.encode(told)))
        except (TypeError, ValueError, RecursionError):
            out.append(_unwritten(effect))
    return out


def _unwritten(effect: Any) -> dict[str, Any]:
    return {type(effect).__name__: "cannot be written down"}


SIMPLE: Final[dict[type, str]] = {contract.PutState: "PutState", contract.GetState: "GetState"}
"""Inputs whose fields say of what type they are, and of which there are most: written as effects are, in a third of
the time of a form.
"""
_STEP: Final = form(Step())
_STAYING: Final = frozenset({*SIMPLE.values(), "Heard"})
_STAY: Final = frozenset({UpdatedRuntime, SledVmmState, type(None)})
"""Inputs and values of replies that nobody changes."""
_OK: Final = 200
_TARGET_CHARS: Final = len("/vmms/00000000-0000-0000-0000-000000000000/state")
"""More is a query, or an id in another notation."""


def simple(told: dict[str, Any]) -> Any:
    """The input of a line that is no form. Raises msgspec.ValidationError, KeyError."""
    if told["~"] == "Heard":
        return contract.NexusReplied(*msgspec.convert(told["is"], tuple[UUID, UUID, int]), Delivered())
    kind = next(kind for kind, name in SIMPLE.items() if name == told["~"])
    return msgspec.convert(told["is"], kind)


def raised(error: BaseException) -> dict[str, Any]:
    """The only effect of an input that was refused, or that met a bug."""
    return {"Raised": [type(error).__name__, str(error)]}


@attrs.define(eq=False)
class Scribe:
    """Makes the lines of a rack's turns. `Answered` names its `Send` by number, as its effects are counted."""

    _sends: dict[int, int] = attrs.field(factory=dict)
    """By identity: whoever sends it holds it until it is answered."""
    _sent: int = 0
    _told: list[Any] = attrs.field(factory=list)

    def tell(self, kind: str, who: Subject | None, sled: str, text: str) -> None:
        """What a rule says that it does, during a turn."""
        self._told.append([kind, "-" if who is None else who.short, sled, text])

    def input(self, item: Any) -> Any:
        """The form of an input. To be asked before the core has it: it may keep and change what is in it."""
        kind = type(item)
        if kind in SIMPLE:
            return {"~": SIMPLE[kind], "is": item}
        try:
            if kind is contract.NexusReplied and type(item.outcome) is Delivered:
                return {"~": "Heard", "is": (item.sled_id, item.propolis_id, item.serial)}
            if kind is Step:
                return _STEP
            if kind is Answered:
                number = self._sends.pop(id(item.send), None)
                return {"~": "Answered", "send": number, "outcome": form(item.outcome)}
            return form(item)
        except (NoForm, RecursionError) as error:
            return {"~": "lost", "what": type(item).__name__, "why": str(error)}

    def turn(self, at_us: int, item: Any, effects: Sequence[Any]) -> bytes | Turn:
        """The line of a turn; `item` as `input` has it, effects as the core has them. A `Turn`: nobody changes what
        is in it, so it may be written later.
        """
        out = []
        if not self._told and item.__class__ is dict and item["~"] in _STAYING:
            for effect in effects:
                kind = effect.__class__
                if kind is not contract.PutToNexus and (
                    kind is not contract.Reply or effect.value.__class__ not in _STAY
                ):
                    break
                out.append({kind.__name__: effect})
            else:
                return Turn(at=at_us, item=item, out=out)
            out = []
        for effect in effects:
            if type(effect) is Send:
                self._sends[id(effect)] = self._sent
                self._sent += 1
            out.append(_effect(effect))
        return self._line(at_us, item, out, effects)

    def failed(self, at_us: int, item: Any, error: BaseException) -> bytes:
        """The line of a turn that raised."""
        return self._line(at_us, item, [raised(error)], [])

    def _line(self, at_us: int, item: Any, out: list[Any], effects: Sequence[Any]) -> bytes:
        line = {"at": at_us, "in": item, "out": out}
        if self._told:
            line["told"], self._told = self._told, []
        try:
            return _ENCODER.encode(line)
        except (TypeError, ValueError, RecursionError):  # whatever an area answers: the rest is worth having
            line["out"] = effects_as_written(effects)
            return _ENCODER.encode(line)


_PUT: Final[dict[types.Asked, bytes]] = {
    each: msgspec.json.encode({"state": {"type": each.value}})
    for each in types.Asked
    if each is not types.Asked.MIGRATION_TARGET
}
"""Bodies of which an input says all."""


def says_all(turn: Turn, exchange: Exchange) -> bool:
    """Whether a turn's line says all of the request that it is of."""
    if exchange.status != _OK or exchange.version is None or len(exchange.request.raw_path) != _TARGET_CHARS:
        return False
    item = turn.item["is"]
    if item.__class__ is contract.PutState:
        return exchange.op == "vmm_put_state" and exchange.body == _PUT.get(item.requested.type)
    return exchange.op == "vmm_get_state" and not exchange.has_body


def asked_of(turn: Turn) -> Asked | None:
    """The request of a turn that says all of it, as it was read; None if it has a line of its own, or was none."""
    if turn.api is None:
        return None
    told = turn.item["is"]
    put = turn.item["~"] == "PutState"
    return Asked(
        sled_id=UUID(told["sled_id"]),
        op="vmm_put_state" if put else "vmm_get_state",
        method="PUT" if put else "GET",
        target=f"/vmms/{told['propolis_id']}/state",
        version=turn.api,
        status=_OK,
        body={"state": {"type": told["requested"]["type"]}} if put else msgspec.UNSET,
    )


def exchanged(at_us: int, sled_id: UUID, exchange: Exchange) -> bytes:
    """The line of a request to a sled."""
    asked = Asked(
        sled_id=sled_id,
        op=exchange.op,
        method=exchange.request.method,
        target=exchange.request.raw_path,
        version=exchange.version,
        status=exchange.status,
    )
    body = exchange.body
    if body is None:
        asked.body_missing = exchange.has_body
    elif exchange.fits and b"\n" not in body:
        asked.body = msgspec.Raw(body)
    else:
        try:
            asked.body_text = body.decode()
        except UnicodeDecodeError:
            asked.body_base64 = base64.b64encode(body).decode()
    return _ENCODER.encode(Http(at=at_us, http=asked))


# ---- what a shell does beside turns


def listens(sled_id: UUID, address: str) -> dict[str, Any]:
    """The sled is bound to this address."""
    return {"kind": "listens", "sled_id": str(sled_id), "address": address}


def joins(config: SledConfig, name: str) -> dict[str, Any]:
    """One more sled."""
    return {"kind": "joins", "config": form(config), "name": name}


def leaves(sled_id: UUID) -> dict[str, Any]:
    """A sled goes."""
    return {"kind": "leaves", "sled_id": str(sled_id)}


def keeps(sled_id: UUID, kept: dict[str, Any]) -> dict[str, Any]:
    """What an earlier process left of a sled."""
    return {"kind": "keeps", "sled_id": str(sled_id), "kept": kept}


# ---- reading


class BadLine(ValueError):
    """No line of a recording; the text says what is wrong with it."""


def read(text: bytes) -> Line:
    """One line. Raises `BadLine`."""
    try:
        known = _PLAIN.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadLine(f"this is no JSON: {error}") from None
    if not isinstance(known, dict):
        raise BadLine("this is no line of a recording")
    kind = next((kind for mark, kind in _KINDS.items() if mark in known), None)
    if kind is None:
        raise BadLine(f"this is no line of a recording; it has {', '.join(map(repr, list(known)[:4])) or 'nothing'}")
    if kind is Header and known["recording"] != FORMAT:
        raise BadLine(f"the recording has format {known['recording']!r:.40}, and this sim-sled knows {FORMAT}")
    try:
        found: Line = msgspec.convert(known, kind)
    except msgspec.ValidationError as error:
        raise BadLine(f"this is no line of a recording: {error}") from None
    return found


_KINDS: Final[dict[str, type]] = {"recording": Header, "in": Turn, "did": Did, "http": Http, "end": End}
