"""The rows of a control API: of each come its route, its line of the page and its place in the OpenAPI document.

    OPERATIONS = (
        Operation("GET", "/vmms/{who}", Control.why, "Everything about a VMM", Why),
        Operation("POST", "/scale", Control.scale, "Sleds join or leave", Sleds, body=Scale),
    )

A handler gets its parameters and its body read as the row says, and returns the value of the row's `answer`: JSON by
itself, `Answered` for another status that the row has, a text, or a `StreamResponse` that it has sent by itself.
Whatever it refuses is raised as `Refused`.

Read before: dropshot/json.py, dropshot/routes.py.
Read next: dropshot/control_api.py, dropshot/observing.py, dropshot/openapi.py, sim_sled/daemon/control_answers.py,
sim_sled/daemon/page_api.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeVar
from uuid import UUID

import attrs
from msgspec import Struct, field

from nexus_client.dropshot import web
from nexus_client.dropshot.json import BadJson, Json, parse_uuid
from nexus_client.dropshot.routes import names

O = TypeVar("O")  # noqa: E741 -- the owner of the handlers
B = TypeVar("B")
"""Of a body."""

DIGITS_MAX: Final = 20
"""Of a number in a path or query: 64 bits have no more, and thousands of digits are none."""

Value = str | int | bool | UUID | None


class Parameter(Struct, frozen=True):
    """A value in the path, the query or a header. `read` raises ValueError with what is wrong; `schema` is a JSON
    Schema.
    """

    name: str
    says: str
    read: Callable[[str], Value]
    schema: Mapping[str, Any]
    default: Value = None
    required: bool = False
    where: Literal["path", "query", "header"] = "query"


def number(
    name: str,
    says: str,
    *,
    default: int | None = 0,
    least: int = 0,
    most: int = 2**63 - 1,
    where: Literal["path", "query"] = "query",
) -> Parameter:
    """A whole number."""

    def read(text: str) -> int:
        digits = text.removeprefix("-")
        if text.isascii() and digits.isdigit() and len(digits) <= DIGITS_MAX and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"{name} is a number from {least} to {most}, not {text[:40]!r}")

    return Parameter(
        name, says, read, {"type": "integer", "minimum": least, "maximum": most}, default, where == "path", where
    )


def one_of(name: str, says: str, words: Sequence[str]) -> Parameter:
    """One of some words, which has to be given."""

    def read(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"{name} is one of {', '.join(words)}, not {text[:40]!r}")

    return Parameter(name, says, read, {"type": "string", "enum": list(words)}, required=True)


def flag(name: str, says: str) -> Parameter:
    """`1`, or nothing."""
    return Parameter(name, says, lambda text: text not in {"", "0", "false"}, {"type": "string"}, default=False)


def resume(name: str, says: str) -> Parameter:
    """A header with a number; what is none is as if it were not there (-1), as with browsers."""

    def read(text: str) -> int:
        return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else -1

    return Parameter(name, says, read, {"type": "string"}, default=-1, where="header")


def text_header(name: str, says: str) -> Parameter:
    """A header, or ""."""
    return Parameter(name, says, str, {"type": "string"}, default="", where="header")


def text_in_path(name: str, says: str) -> Parameter:
    """A part of the path."""
    return Parameter(name, says, str, {"type": "string"}, required=True, where="path")


def uuid_in_path(name: str, says: str) -> Parameter:
    """A part of the path that is a UUID."""

    def read(text: str) -> UUID:
        try:
            return parse_uuid(text)
        except ValueError as error:
            raise ValueError(f"bad parameter in URL path: {name} is not a UUID: {error}") from None

    return Parameter(name, says, read, {"type": "string", "format": "uuid"}, required=True, where="path")


class OneOf(Generic[B]):
    """A body of one of several shapes, each known by a field that no other has. The shapes forbid unknown fields.

    `kinds` is asked when a body comes, or somebody wants the document.
    """

    def __init__(self, name: str, kinds: Callable[[], Mapping[str, type[B]]]) -> None:
        self.name: Final = name
        self._kinds = kinds

    @property
    def kinds(self) -> Mapping[str, type[B]]:
        """The shapes, by the field that each is known by."""
        return self._kinds()

    def decode(self, body: bytes) -> B:
        """Raises `BadJson`."""
        tree, kinds = Json(Any).decode(body), self.kinds
        known = [kind for mark, kind in kinds.items() if isinstance(tree, dict) and mark in tree]
        if len(known) != 1:
            raise BadJson("$", f"wanted is an object with one of {', '.join(kinds)}")
        return Json(known[0]).decode(body)


class Text:
    """An answer that is no JSON: its media types, the first of which is what a string is sent as."""

    def __init__(self, *media: str) -> None:
        self.media: Final = media


class Named(Struct, frozen=True):
    """An answer whose schema is written by hand, in `About.schemas`."""

    name: str


class Answered(Struct, frozen=True):
    """What a handler returns if it is not simply the value of the row's first answer."""

    value: Any
    status: int = 200
    media: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Call(Struct, Generic[B], frozen=True, eq=False):
    """One request as its row reads it. `body`: None if the row has none; if one may be left out and is, the default
    of its type.
    """

    request: web.BaseRequest
    values: Mapping[str, Value]
    body: B

    def text(self, name: str) -> str:
        value = self.values[name]
        assert isinstance(value, str), f"{name} is a text"
        return value

    def number(self, name: str) -> int:
        value = self.values[name]
        assert isinstance(value, int), f"{name} is a number"
        return value

    def flag(self, name: str) -> bool:
        return bool(self.values[name])

    def uuid(self, name: str) -> UUID:
        value = self.values[name]
        assert isinstance(value, UUID), f"{name} is a UUID"
        return value


@attrs.frozen(eq=False)
class Operation(Generic[O, B]):
    """A row. `answer`: the type of what is told with `status`, None for no body; `others`: further statuses, with
    theirs. `parameters`: those of the query, and those of the path that are no plain text. Refusals all look alike.
    """

    method: str
    path: str
    handler: Callable[[O, Call[B]], Awaitable[Any]]
    summary: str
    answer: Any = None
    status: int = 200
    others: Mapping[int, Any] = attrs.field(factory=dict, kw_only=True)
    parameters: tuple[Parameter, ...] = attrs.field(default=(), kw_only=True)
    body: type[B] | OneOf[B] | None = attrs.field(default=None, kw_only=True)
    optional: bool = attrs.field(default=False, kw_only=True)
    """Whether the body may be left out."""
    open: bool = attrs.field(default=False, kw_only=True)
    """Whether it is told without the token: for probes, which have none, and for the files of a page, which tell
    nothing.
    """
    body_max: int | None = attrs.field(default=None, kw_only=True)
    """Bytes that the body may have, if that is not the API's own limit."""

    @property
    def answers(self) -> Mapping[int, Any]:
        """Every status that is no refusal, with what is told."""
        return {self.status: self.answer, **self.others}

    def all_parameters(self) -> tuple[Parameter, ...]:
        """With those of the path that the row does not explain."""
        told = {each.name for each in self.parameters}
        plain = tuple(text_in_path(name, "") for name in names(self.path) if name not in told)
        return plain + self.parameters


class About(Struct, frozen=True):
    """The head of page and document; `schemas` are those that are written by hand."""

    title: str
    description: str
    version: str = "1.0.0"
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
