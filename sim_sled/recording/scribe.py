"""Makes the lines of a rack's turns and of requests to its sleds, while they happen: as little as can be at once.

Most turns are of a few kinds, whose lines daemon/recorder.py writes itself; here are all others.

Read before: http/exchange.py, recording/lines.py. Read next: daemon/recorder.py.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import msgspec

from nexus_client.outbox import Delivered
from sim_sled.core import contract
from sim_sled.play.calls import Answered, Send, Step
from sim_sled.recording.forms import NoForm, form
from sim_sled.recording.lines import (
    ENCODER,
    HEARD,
    HTTP,
    PLAIN,
    SHORT,
    Asked,
    Http,
    Owned,
    effects_as_written,
    raised,
    told_effect,
    written,
)

if TYPE_CHECKING:
    from uuid import UUID

    from sim_sled.engine.cast import Subject
    from sim_sled.http.exchange import Exchange

Short: TypeAlias = "tuple[Any, ...]"
"""A short line that is not written yet."""
Entry: TypeAlias = "msgspec.Raw | Short"
"""A line, written or not."""
_BODY_KEPT_MAX: Final = 256
"""Bytes of a body that is looked up instead of read again: states that are asked for, again and again."""
_BODIES_KEPT: Final = 1024
"""So many; then it begins anew."""


def block(entries: Sequence[Entry]) -> bytes:
    """The lines as they stand in a file, each with its end."""
    try:
        return ENCODER.encode_lines(entries)
    except UnicodeEncodeError:  # a target may have bytes that are no text
        return ENCODER.encode_lines(list(map(_as_text, entries)))


def _as_text(entry: Entry) -> Entry:
    if not isinstance(entry, tuple):
        return entry
    return tuple(each.encode(errors="backslashreplace").decode() if isinstance(each, str) else each for each in entry)


def line(told: Any) -> msgspec.Raw:
    """A line that is written now."""
    return msgspec.Raw(written(told))


@attrs.define(eq=False)
class Scribe:
    """Makes the lines of a rack's turns. `Answered` names its `Send` by number, as its effects are counted."""

    said: list[tuple[str, Any]] = attrs.field(factory=list)
    """What stands beside the effects of this turn: by the name of its field what rules tell, what owners answer."""
    _sends: dict[int, tuple[int, Send]] = attrs.field(factory=dict)
    """Those that may be answered, by identity, with their numbers."""
    sent: int = 0

    @property
    def sends(self) -> dict[int, Send]:
        """Reports that may be answered, by their numbers."""
        return dict(self._sends.values())

    def tell(self, kind: str, who: Subject | None, sled: str, text: str) -> None:
        """What a rule says that it does, during a turn."""
        self.said.append(("told", [kind, "-" if who is None else who.short, sled, text]))

    def answered(self, propolis_id: UUID, question: str, answer: object) -> None:
        """What the owner of a migrating VM answers to its core, during a turn."""
        self.said.append(("baggage", Owned(propolis_id, question, answer)))

    def input(self, item: Any) -> Any:
        """The form of an input. To be asked before the core has it: it may keep and change what is in it."""
        kind = type(item)
        try:
            if kind is Answered:
                number, _ = self._sends.pop(id(item.send), (None, None))
                return {"~": "Answered", "send": number, "outcome": form(item.outcome)}
            if kind is Step:
                return _STEP
            if kind is contract.NexusReplied and type(item.outcome) is Delivered:
                return {"~": HEARD, "is": (item.sled_id, item.propolis_id, item.serial)}
            if kind in SHORT and kind is not contract.NexusReplied:
                return {"~": SHORT[kind], "is": item}
            return form(item)
        except (NoForm, RecursionError) as error:
            return {"~": "lost", "what": type(item).__name__, "why": str(error)}

    def turn(self, at_us: int, told: Any, effects: Sequence[Any]) -> msgspec.Raw:
        """The line of a turn; `told` as `input` has it, effects as the core has them."""
        out = []
        for effect in effects:
            if type(effect) is Send:
                self._sends[id(effect)] = self.sent, effect
                self.sent += 1
            out.append(told_effect(effect))
        return self._line(at_us, told, out, effects)

    def failed(self, at_us: int, told: Any, error: BaseException) -> msgspec.Raw:
        """The line of a turn that raised."""
        return self._line(at_us, told, [raised(error)], [])

    def _line(self, at_us: int, told: Any, out: list[Any], effects: Sequence[Any]) -> msgspec.Raw:
        made = {"at": at_us, "in": told, "out": out}
        for field, each in self.said:
            made.setdefault(field, []).append(each)
        self.said.clear()
        try:
            return line(made)
        except (TypeError, ValueError, RecursionError):  # whatever an area answers: the rest is worth having
            made["out"] = effects_as_written(effects)
            return line(made)


_STEP: Final = form(Step())


@attrs.define(eq=False)
class Clerk:
    """Makes the lines of requests to sleds."""

    _known: dict[bytes, msgspec.Raw] = attrs.field(factory=dict)
    """Small bodies of JSON that a reader reads."""

    def exchanged(self, at_us: int, told: Exchange) -> Entry:
        """The line of a request to a sled, when it is answered."""
        body = told.body
        if body is None:
            if not told.has_body:
                return at_us, HTTP, told.sled_id, told.op, told.method, told.target, told.version, told.status
        elif told.fits:
            raw = self._known.get(body) or self._json(body)
            if raw is not None:
                return at_us, HTTP, told.sled_id, told.op, told.method, told.target, told.version, told.status, raw
        return _in_full(at_us, told)

    def _json(self, body: bytes) -> msgspec.Raw | None:
        """The body, to be put into a line as it is; None if a line cannot have it. What fits its schema is not always
        JSON to the end: nobody has looked at texts and numbers of fields that the schema does not know.
        """
        try:
            value = PLAIN.decode(body)
        except (ValueError, RecursionError):
            return None
        raw = msgspec.Raw(written(value) if b"\n" in body else body)
        if len(body) <= _BODY_KEPT_MAX:
            if len(self._known) >= _BODIES_KEPT:
                self._known.clear()
            self._known[body] = raw
        return raw


def _in_full(at_us: int, told: Exchange) -> msgspec.Raw:
    asked = Asked(
        sled_id=told.sled_id,
        op=told.op,
        method=told.method,
        target=told.target,
        version=told.version,
        status=told.status,
    )
    body = told.body
    if body is None:
        asked.body_missing = True
    else:
        try:
            asked.body_text = body.decode()
        except UnicodeDecodeError:
            asked.body_base64 = base64.b64encode(body).decode()
    return line(Http(at=at_us, http=asked))
