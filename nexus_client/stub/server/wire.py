"""HTTP manners of the Nexus model's servers: error bodies, request ids, version header, and that this is not Nexus.

Errors are those of the web framework of the original (SA 1.2, 1.3; NX 3). Shell.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar, cast
from uuid import UUID

import attrs
import msgspec

from nexus_client.dropshot import body, web
from nexus_client.dropshot.answers import Refused, Unanswered, bad_request, new_request_id
from nexus_client.dropshot.json import Json, parse_uuid
from nexus_client.dropshot.listen import Server
from nexus_client.dropshot.response import Response, failed_answer
from nexus_client.dropshot.routes import Paths, names, split_target
from nexus_client.dropshot.version import BadVersion, level_of
from nexus_client.stub import refusal
from nexus_client.stub.contract import Dropped, ErrorBody, Reply

NOT_NEXUS: Final = "this is not Nexus"
_BODIES: Final = body.Bodies()
"""Of all servers of this process."""
API_VERSION: Final = 1
"""The one version of Nexus's internal API (NX 3)."""

VARIABLES: Final = web.RequestKey("variables", dict[str, str])
"""Of the path, by name."""


T = TypeVar("T")
_ENCODER: Final = msgspec.json.Encoder()
_HEADERS: Final = {"x-sim-sled": NOT_NEXUS}


@attrs.frozen
class Answer:
    """A success. `body` None: there is none."""

    status: int
    body: Any = None


Handler = Callable[[web.BaseRequest], Awaitable[Answer]]


class Layer(Protocol):
    """Something around a handler."""

    def __call__(self, request: web.BaseRequest, handler: Handler) -> Awaitable[Answer]: ...


def answer(outcome: Reply | Dropped) -> Answer:
    """The core's answer on the wire. Raises `Refused`, or `Unanswered` if Nexus died meanwhile."""
    if isinstance(outcome, Dropped):
        raise Unanswered
    if isinstance(outcome.body, ErrorBody):
        raise Refused(outcome.status, outcome.body.message, outcome.body.error_code)
    return Answer(outcome.status, outcome.body)


def check_version(request: web.BaseRequest) -> None:
    """The `api-version` header of the internal API: required, a semver, not newer than 1.0.0 (NX 3)."""
    try:
        level_of(request.headers.get("api-version"), API_VERSION)
    except BadVersion as bad:
        raise bad_request(bad.message) from None


async def versioned(request: web.BaseRequest, handler: Handler) -> Answer:
    check_version(request)
    return await handler(request)


def path_uuid(request: web.BaseRequest, name: str) -> UUID:
    try:
        return parse_uuid(request[VARIABLES][name])
    except ValueError as error:
        raise bad_request(f"bad parameter in URL path: {error}") from None


async def read_json(request: web.BaseRequest, decoder: Json[T]) -> T:
    """The decoded body. Raises `Refused` as the original's framework does."""
    return await body.read_json(request, decoder, _BODIES)


class Table:
    """Operations of one API, found as the original finds them; aiohttp's own router does not read paths that way."""

    def __init__(self) -> None:
        self._paths: Paths[tuple[Handler, tuple[str, ...]]] = Paths()

    def add(self, method: str, template: str, handler: Handler) -> None:
        """One operation."""
        self._paths.add(method, template, (handler, names(template)))

    def server(self, *layers: Layer) -> Server:
        """A server, whose `layers` come one in the other before the operation is looked for."""
        inner: Handler = self._dispatch
        for layer in reversed(layers):
            inner = functools.partial(layer, handler=inner)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            return cast("web.StreamResponse", await _told(request, inner))

        return Server(handle)

    async def _dispatch(self, request: web.BaseRequest) -> Answer:
        (handler, variables), values = self._paths.find(request.method, split_target(request.raw_path)[0])
        request[VARIABLES] = dict(zip(variables, values, strict=True))
        return await handler(request)


async def _told(request: web.BaseRequest, handler: Handler) -> Response:
    """The answer with its request id, and that this is not Nexus; JSON errors for all that goes wrong on the way."""
    request_id = new_request_id()
    try:
        done = await handler(request)
        body = None if done.body is None else _ENCODER.encode(done.body)
    except Exception as error:  # noqa: BLE001 -- of every kind, told by `failed_answer`
        return failed_answer(error, request, request_id, _refusal_of, _HEADERS)
    return Response(done.status, request_id, body, headers=_HEADERS)


def _refusal_of(error: Exception) -> Refused | None:
    """What the model's own rooms refuse."""
    if not isinstance(error, refusal.Refused):
        return None
    why = error.refusal
    return Refused(why.status, why.message, why.error_code)
