"""What a line of a recording is. A folder has parts; each is JSON lines.

    {"recording": 3, "of": ID, "part": 1, "version": ..., "sleds": ..., ...}   how the rack began: `Header`
    {"recording": 3, "of": ID, "part": 2}                                     a later part begins
    {"recording": 3, "of": ID, "part": 9, "state": ..., ...}                  ... with a checkpoint
    {"at": US, "in": INPUT, "out": [EFFECT, ...], "told": [...]}              one turn of the core
    [US, NAME, INPUT, [EFFECT, ...]]                                          the same, short: the most frequent ones
    [US, "asked", TICKET, SLED, TARGET, VERSION, STATE, ANSWER]               the same of a request for a VMM's state
    {"at": US, "did": {"kind": "join", ...}}                                  what a shell does beside turns
    {"at": US, "http": {"op": ..., "method": ..., ...}}                       a request, when it is answered
    [US, "http", SLED, OP, METHOD, TARGET, VERSION, STATUS, BODY]             the same, short; without a body: eight
    {"end": WHY}                                                              the recording ends before the rack does

INPUT is a form (recording/forms.py): requests, answers of Nexus and timers. An EFFECT is told by the name of its
type; it is compared and never read back, so it is written as it comes: {"Reply": {...}}. What rules say they do
("told") stands beside it. Times are integer microseconds of the daemon's clock.

Short lines are what msgspec makes of the objects themselves, many at once: a dict around each of them would cost more
than the rest. Their reader gives them as the long ones, so nobody else knows. Format 1 had none, format 2 had a line
for every request.

Read before: play/calls.py, recording/forms.py.
Read next: recording/scribe.py, daemon/recordings.py, recording/replaying.py, recording/scrub.py, recording/tape.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from nexus_client import types
from nexus_client.outbox import Delivered
from propolis_stub.contract import ToPeer
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.play.calls import Ended, Send, Step
from sim_sled.recording.forms import form

FORMAT: Final = 3
FORMATS: Final = (1, 2, FORMAT)
"""Those that can be read."""
BEGINNING: Final = "from the beginning"
"""Before any input."""
IN_BETWEEN: Final = "at a checkpoint"
"""Where the part before ends."""
REMOTE: Final = "registered"
"""Where a VMM's Propolis is served if it can be reached from other racks."""
RESTORED: Final = "with a snapshot"
"""That was restored: what follows does not follow from what is recorded before."""


class Header(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The first line of a part; all but the first three fields only where a replay can begin: of the first part, and
    of one with a checkpoint (`state`: daemon/checkpoint.py).

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
    """One of `BEGINNING`, `IN_BETWEEN`, `RESTORED`."""
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
    propolis: str = ""
    """Where the Propolis API of its VMMs is served; empty: nowhere. `REMOTE`: migrations reach other racks."""
    scrubbed: str = ""
    """Of a copy without personal things: what was done to it."""
    files: dict[str, str] = msgspec.field(default_factory=dict)
    """Texts of the scenario's files, for people: `scenario` is what is played."""
    state: str = ""
    """Of the rack, when this part begins; empty: nothing has happened yet, or this is no place to begin."""


class Owned(msgspec.Struct, array_like=True):
    """What the owner of a migrating VM answered to its core (play/baggage.py)."""

    propolis_id: UUID
    question: str
    answer: Any


class Turn(msgspec.Struct, kw_only=True, omit_defaults=True, rename={"item": "in"}):
    """One input and what came of it. `baggage`: what owners of VMs answered meanwhile. `drawn`: of a copy without
    personal things, what was drawn by ids that it does not have; by `key_of` of the ids that it has. `api`: it is of
    a request of this version, carried out and answered with 200, that says no more than the input: it has no line of
    its own.
    """

    at: int
    item: Any
    out: list[Any]
    told: list[Any] = []
    baggage: list[Owned] = []
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
    return ENCODER.encode(line)


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


ENCODER: Final = msgspec.json.Encoder(enc_hook=_otherwise, order="deterministic")
PLAIN: Final = msgspec.json.Decoder()


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


def _told_from_propolis(effect: contract.FromPropolis) -> dict[str, Any]:
    said = [_named_message(each) if type(each) is ToPeer else _named(each) for each in effect.effects]
    return {"sled_id": effect.sled_id, "propolis_id": effect.propolis_id, "effects": said}


def _named(value: Any) -> dict[str, Any]:
    return {type(value).__name__: value}


def _named_message(effect: ToPeer) -> dict[str, Any]:
    return {"ToPeer": {"migration_id": effect.migration_id, "message": _named(effect.message)}}


_TOLD: Final[dict[type, Callable[[Any], Any]]] = {
    Send: _told_send,
    Ended: _told_ended,
    contract.FromPropolis: _told_from_propolis,
}
"""Effects that hold more than is to be told (objects of rules, one body twice), or parts that need their names."""


def told_effect(effect: Any) -> dict[str, Any]:
    """As a line has it; `written` makes it text."""
    kind = type(effect)
    tell = _TOLD.get(kind)
    return {kind.__name__: effect if tell is None else tell(effect)}


def effects_as_written(effects: Iterable[Any]) -> list[Any]:
    """Effects as a reader of their line has them."""
    out: list[Any] = []
    for effect in effects:
        told = told_effect(effect)
        try:
            out.append(PLAIN.decode(ENCODER.encode(told)))
        except (TypeError, ValueError, RecursionError):
            out.append(_unwritten(effect))
    return out


def _unwritten(effect: Any) -> dict[str, Any]:
    return {type(effect).__name__: "cannot be written down"}


HEARD: Final = "Heard"
SHORT: Final[Mapping[type, str]] = {
    contract.PutState: "PutState",
    contract.GetState: "GetState",
    contract.NexusReplied: HEARD,
    Step: "Step",
}
"""Inputs that may stand in short lines, by their names there; of `NexusReplied` those that say `Delivered`."""
SHORT_EFFECTS: Final = (contract.PutToNexus, contract.Reply)
"""Effects that may: their fields say which one it is."""
HTTP: Final = "http"
"""What stands in a short line of a request where others have the name of an input."""
ASKED: Final = "asked"
"""... of one that says no more than its turn, and is answered with its only effect."""


def simple(told: dict[str, Any]) -> Any:
    """The input of a line that is no form. Raises msgspec.ValidationError, KeyError."""
    if told["~"] == "Heard":
        return contract.NexusReplied(*msgspec.convert(told["is"], tuple[UUID, UUID, int]), Delivered())
    return msgspec.convert(told["is"], _SIMPLE[told["~"]])


_SIMPLE: Final = {"PutState": contract.PutState, "GetState": contract.GetState}


def raised(error: BaseException) -> dict[str, Any]:
    """The only effect of an input that was refused, or that met a bug."""
    return {"Raised": [type(error).__name__, str(error)]}


_OK: Final = 200
_PLAIN_BODIES: Final[Mapping[bytes | None, str | None]] = {
    None: None,
    **{
        json.dumps({"state": {"type": each.value}}, separators=separators).encode(): each.value
        for each in types.Asked
        for separators in ((",", ":"), (", ", ": "))
    },
}
"""Bodies of a request for a state that say no more than the state, as nearly everybody writes them; and the state."""


def asked_of_whom(sled_id: UUID, target: str) -> msgspec.Raw:
    """SLED and TARGET of an `ASKED` line, ready made: they are a quarter of its cost."""
    return msgspec.Raw(written([sled_id, target])[1:-1])


def asked_how(version: str | None, body: bytes | None) -> msgspec.Raw | None:
    """VERSION and STATE of an `ASKED` line, ready made; None: no such line says it."""
    if version is None or body not in _PLAIN_BODIES:
        return None
    return msgspec.Raw(written([version, _PLAIN_BODIES[body]])[1:-1])


def state_target(propolis_id: UUID | str) -> str:
    """Of requests for a VMM's state."""
    return f"/vmms/{propolis_id}/state"


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
        target=state_target(told["propolis_id"]),
        version=turn.api,
        status=_OK,
        body={"state": {"type": told["requested"]["type"]}} if put else msgspec.UNSET,
    )


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
        known = PLAIN.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(f"this is no JSON: {error}") from None
    if isinstance(known, list):
        return _short(known)
    if not isinstance(known, dict):
        raise BadLine("this is no line of a recording")
    kind = next((kind for mark, kind in _KINDS.items() if mark in known), None)
    if kind is None:
        raise BadLine(f"this is no line of a recording; it has {', '.join(map(repr, list(known)[:4])) or 'nothing'}")
    if kind is Header and known["recording"] not in FORMATS:
        formats = " and ".join(map(str, FORMATS))
        raise BadLine(f"the recording has format {known['recording']!r:.40}, and this sim-sled knows {formats}")
    try:
        found: Line = msgspec.convert(known, kind)
    except msgspec.ValidationError as error:
        raise BadLine(f"this is no line of a recording: {error}") from None
    return found


_KINDS: Final[dict[str, type]] = {"recording": Header, "in": Turn, "did": Did, "http": Http, "end": End}


def _short(known: list[Any]) -> Line:
    """A short line as the long one that says the same. Raises `BadLine`."""
    try:
        match known:
            case [int(at), str(name), sled_id, op, method, target, version, status, *body] if (
                name == HTTP and len(body) <= 1
            ):
                told = dict(zip(_SHORT_HTTP, (sled_id, op, method, target, version, status, *body), strict=False))
                return Http(at=at, http=msgspec.convert(told, Asked))
            case [int(at), str(name), int(ticket), sled_id, str(target), str(version), state, answer] if (
                name == ASKED
            ):
                item = _asked_item(ticket, sled_id, target, state)
                return Turn(at=at, item=item, out=[{"Reply": {"ticket": ticket, "value": answer}}], api=version)
            case [int(at), str(name), item, list(out)] if name in _ITEMS:
                return Turn(at=at, item=_ITEMS[name](item), out=[{_EFFECTS[frozenset(each)]: each} for each in out])
    except (msgspec.ValidationError, KeyError, TypeError, AttributeError) as error:
        raise BadLine(f"this is no line of a recording: {error!r:.200}") from None
    raise BadLine(f"this is no line of a recording; it begins with {known[:2]!r:.80}")


def _asked_item(ticket: int, sled_id: Any, target: str, state: Any) -> dict[str, Any]:
    propolis_id = target.removeprefix("/vmms/").removesuffix("/state")
    if target != state_target(propolis_id):
        raise KeyError(target)
    told = {"ticket": ticket, "sled_id": sled_id, "propolis_id": propolis_id}
    if state is None:
        return {"~": "GetState", "is": told}
    return {"~": "PutState", "is": {**told, "requested": {"type": state, "value": None}}}


_SHORT_HTTP: Final = ("sled_id", "op", "method", "target", "version", "status", "body")
_ITEMS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "PutState": lambda item: {"~": "PutState", "is": item},
    "GetState": lambda item: {"~": "GetState", "is": item},
    "Heard": lambda item: {"~": "Heard", "is": [item["sled_id"], item["propolis_id"], item["serial"]]},
    "Step": lambda _: form(Step()),
}
"""Inputs of short lines as long ones have them; by name, those of `SHORT`."""
_EFFECTS: Final = {frozenset(each.__struct_fields__): each.__name__ for each in SHORT_EFFECTS}
