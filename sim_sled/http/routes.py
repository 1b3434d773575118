"""The table of routes and how a path finds its row (SA 1.1, 1.3, 3.1 to 3.3).

A row is one operation in one range of versions, with everything that is checked before its handler runs: path
parameters, query parameters, body. Rows of one path may not overlap in versions; `Router` refuses that at import.

Read before: http/answers.py, http/bodies_register.py, http/bodies_small.py, nexus_client/dropshot/body.py,
nexus_client/dropshot/version.py.
Read next: http/asking.py, http/exchange.py, http/networks.py, http/operations.py, http/ranges.py, http/uploads.py,
http/vmms.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import NOT_FOUND, Refused
from nexus_client.dropshot.json import Json
from nexus_client.dropshot.routes import segments
from nexus_client.dropshot.text import IpNet, Uuid
from sim_sled.http.host import Host

NEWEST: Final = 48
"""Major number of the newest Sled Agent API; all published versions are N.0.0."""

_NO_QUERY: Final[Mapping[str, Any]] = MappingProxyType({})
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_INTEGER = re.compile(r"\+?[0-9]{1,20}")


class Call(Struct, eq=False):
    """One request with everything parsed: what a handler gets."""

    host: Host
    sled_id: UUID
    path: tuple[Any, ...]
    body: Any = None
    level: int = NEWEST
    query: Mapping[str, Any] = _NO_QUERY
    request: web.BaseRequest | None = None
    op: str = ""
    """For operations that read their body themselves or answer in pieces."""

    @property
    def propolis_id(self) -> UUID:
        """First path parameter of the operations on a VMM."""
        propolis_id: UUID = self.path[0]
        return propolis_id


class Answer(Struct, frozen=True):
    """Success: `body` is JSON, or None for no body."""

    status: int
    body: bytes | None = None


class RawAnswer(Struct, frozen=True):
    """An answer that is not JSON. `pieces`: what comes after `body`. `close` is called in any case.

    `kind`: content type, None: none. `length` is told in the head, also where the body is not sent (HEAD).
    """

    status: int
    kind: str | None = None
    body: bytes = b""
    length: int | None = None  # None: that of `body`
    headers: Mapping[str, str] = _NO_QUERY
    pieces: AsyncGenerator[bytes, None] | None = None
    close: Callable[[], None] | None = None
    chunked: bool = False  # the length is not told, as the original's depot does not


Handler = Callable[[Call], Awaitable[Answer | RawAnswer]]
Parser = Callable[[str], Any]


class Later:
    """A handler of an area that is imported at its first request: nobody who never asks pays for it."""

    __slots__ = ("_handler", "_module", "name")

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self.name: Final = name
        self._handler: Handler | None = None

    @property
    def handler(self) -> Handler:
        if self._handler is None:
            found: Handler = getattr(import_module(f"sim_sled.http.{self._module}"), self.name)
            self._handler = found
        return self._handler

    def __call__(self, call: Call) -> Awaitable[Answer | RawAnswer]:
        return self.handler(call)


class LaterJson(Json[Any]):
    """A body type of an area, imported and made at its first request. `level`: which shape of a versioned one."""

    __slots__ = ("_level", "_made", "_module", "_name")

    def __init__(self, module: str, name: str, level: int | None = None) -> None:
        self._module = module
        self._name = name
        self._level = level
        self._made: Json[Any] | None = None

    @property
    def json(self) -> Json[Any]:
        if self._made is None:
            found = getattr(import_module(f"sim_sled.http.{self._module}"), self._name)
            if self._level is not None:
                found = found[self._level] if isinstance(found, Mapping) else found(self._level)
            assert isinstance(found, Json), f"{self._name} is no body type"
            self._made = found
        return self._made

    def decode(self, body: bytes) -> Any:
        """The value. Raises `BadJson`."""
        return self.json.decode(body)


# ---- parameters ----------------------------------------------------------------------------------------------------


def uuid_param(text: str) -> UUID:
    return UUID(Uuid.canonical(text))


def sha256_param(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("expected 32 bytes as hexadecimal digits")
    return text.lower()


def net_param(text: str) -> str:
    return IpNet.canonical(text)


def text_param(text: str) -> str:
    return text


def rot_param(text: str) -> str:
    if text != "oxide":
        raise ValueError(f"unknown variant `{text}`, expected `oxide`")
    return text


def u64_param(text: str) -> int:
    if not _INTEGER.fullmatch(text) or int(text) >= 2**64:
        raise ValueError("invalid digit found in string")
    return int(text)


PARAMS: Final[Mapping[str, Parser]] = {
    "propolis_id": uuid_param,
    "disk_id": uuid_param,
    "vpc_id": uuid_param,
    "zpool_id": uuid_param,
    "dataset_id": uuid_param,
    "support_bundle_id": uuid_param,
    "bundle_id": uuid_param,
    "sha256": sha256_param,
    "subnet": net_param,
    "rot": rot_param,
    "region_id": uuid_param,
    "snapshot": text_param,
    "volume_id": text_param,
    "job_id": text_param,
    "file": text_param,
    "zone": text_param,
    "zone_name": text_param,
}
"""Parser of each path parameter by name; it raises `ValueError`."""


# ---- rows ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Route:
    """`since` and `until` are levels, half open. `body` None: none is read."""

    method: str
    template: str
    handler: Handler
    body: Json[Any] | None = None
    query: Mapping[str, Parser] = attrs.field(factory=dict)
    optional: Mapping[str, Parser] = attrs.field(factory=dict)
    """Query parameters that may be absent."""
    since: int = 0
    until: int = NEWEST + 1
    op: str | None = None

    def parse_path(self, raw: tuple[str, ...]) -> tuple[Any, ...]:
        """Values of the variables, in order. Raises `Refused`."""
        try:
            return tuple([parse(text) for parse, text in zip(self.parsers, raw, strict=True)])
        except ValueError as error:
            raise Refused(400, f"bad parameter in URL path: {error}") from None

    def parse_query(self, text: str) -> Mapping[str, Any]:
        """Each named parameter at most once, and well-formed. Raises `Refused`."""
        if not self.query and not self.optional:
            return _NO_QUERY
        found: dict[str, str] = {}
        for key, value in parse_qsl(text, keep_blank_values=True, errors="replace"):
            if key in self.query or key in self.optional:
                if key in found:
                    raise Refused(400, f"unable to parse query string: duplicate field `{key}`")
                found[key] = value
        values: dict[str, Any] = {}
        for key, parse in (*self.query.items(), *self.optional.items()):
            if key not in found:
                if key in self.optional:
                    continue
                raise Refused(400, f"unable to parse query string: missing field `{key}`")
            try:
                values[key] = parse(found[key])
            except ValueError as error:
                # no name of the parameter: the original does not tell it either (SA 7)
                raise Refused(400, f"unable to parse query string: {error}") from None
        return values

    variables: tuple[str, ...] = attrs.field(init=False)
    parsers: tuple[Parser, ...] = attrs.field(init=False)

    @variables.default
    def _variables(self) -> tuple[str, ...]:
        return tuple(part[1:-1] for part in self.template.split("/") if part.startswith("{"))

    @parsers.default
    def _parsers(self) -> tuple[Parser, ...]:
        missing = [name for name in self.variables if name not in PARAMS]
        assert not missing, f"{self.template}: no parser for {missing}"
        return tuple(PARAMS[name] for name in self.variables)


@attrs.define(eq=False)
class _Node:
    literals: dict[str, _Node] = attrs.field(factory=dict)
    variable: _Node | None = None
    methods: dict[str, list[Route | None]] = attrs.field(factory=dict)  # by level


class Router:
    """Finds the row of (method, path, level)."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: Final = tuple(routes)
        self._root = _Node()
        for route in self.routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node = self._root
        for part in route.template.split("/")[1:]:
            if part.startswith("{"):
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.literals.setdefault(part, _Node())
        levels = node.methods.setdefault(route.method, [None] * (NEWEST + 1))
        for level in range(route.since, route.until):
            assert levels[level] is None, f"two rows for {route.method} {route.template} at {level}"
            levels[level] = route

    def find(self, method: str, path: str, level: int) -> tuple[Route, tuple[str, ...]]:
        """The row and the raw path variables. Raises `Refused`: 400, 404 or 405."""
        node = self._root
        variables: tuple[str, ...] = ()
        for segment in segments(path):
            child = node.literals.get(segment)
            if child is None:
                child = node.variable
                if child is None:
                    raise Refused(404, NOT_FOUND)
                variables += (segment,)
            node = child
        levels = node.methods.get(method)
        if levels is not None and (route := levels[level]) is not None:
            return route, variables
        if any(other[level] is not None for other in node.methods.values()):
            # methods of every version, as the original tells them (SA 1.3)
            raise Refused(405, "Method Not Allowed", allow=tuple(sorted(node.methods)))
        raise Refused(404, NOT_FOUND)
