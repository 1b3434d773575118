"""HTTP manners of the Nexus model's servers: error bodies, request ids, version header, and that this is not Nexus.

Errors are those of the web framework of the original (SA 1.2, 1.3; NX 3). Shell.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from nexus_client.dropshot import body
from nexus_client.dropshot.answers import Refused, Unanswered, bad_request, new_request_id
from nexus_client.dropshot.control import malformed
from nexus_client.dropshot.json import Json, parse_uuid
from nexus_client.dropshot.listen import Server
from nexus_client.dropshot.routes import Paths, names, split_target
from nexus_client.dropshot.version import BadVersion, level_of
from nexus_client.stub.contract import Dropped, ErrorBody, Reply

log = logging.getLogger(__name__)

NOT_NEXUS: Final = "this is not Nexus"
_BODIES: Final = body.Bodies()
"""Of all servers of this process."""
API_VERSION: Final = 1
"""The one version of Nexus's internal API (NX 3)."""

VARIABLES: Final = web.RequestKey("variables", dict[str, str])
"""Of the path, by name."""
REQUEST_ID: Final = web.RequestKey("request_id", str)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Layer(Protocol):
    """Something around a handler."""

    def __call__(self, request: web.BaseRequest, handler: Handler) -> Awaitable[web.StreamResponse]: ...


T = TypeVar("T")
_ENCODER: Final = msgspec.json.Encoder()


def json_response(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=_ENCODER.encode(body), status=status, content_type="application/json")


def error_response(status: int, error: ErrorBody, ident: str) -> web.Response:
    body: dict[str, Any] = {"request_id": ident, "message": error.message}
    if error.error_code is not None:
        body["error_code"] = error.error_code
    return json_response(body, status)


def answer(outcome: Reply | Dropped, request: web.BaseRequest) -> web.Response:
    """The core's answer on the wire. Raises `Unanswered` if Nexus died meanwhile."""
    if isinstance(outcome, Dropped):
        raise Unanswered
    if isinstance(outcome.body, ErrorBody):
        return error_response(outcome.status, outcome.body, request[REQUEST_ID])
    if outcome.body is None:
        return web.Response(status=outcome.status)
    return json_response(outcome.body, outcome.status)


async def manners(request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
    """Request id, `x-sim-sled` header, and JSON errors for everything that goes wrong on the way."""
    ident = request[REQUEST_ID] = new_request_id()
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Refused as bad:
        response = error_response(bad.status, ErrorBody(bad.error_code, bad.message), ident)
        for method in bad.allow:
            response.headers.add("allow", method)
        if bad.close:
            response.force_close()
    except Unanswered:
        if request.transport is not None:
            request.transport.close()
        response = web.Response(status=500)  # goes nowhere: the transport is closed
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.raw_path)
        response = error_response(500, ErrorBody("Internal", "Internal Server Error"), ident)
    response.headers["x-request-id"] = ident
    response.headers["x-sim-sled"] = NOT_NEXUS
    return response


def check_version(request: web.BaseRequest) -> None:
    """The `api-version` header of the internal API: required, a semver, not newer than 1.0.0 (NX 3)."""
    try:
        level_of(request.headers.get("api-version"), API_VERSION)
    except BadVersion as bad:
        raise bad_request(bad.message) from None


async def versioned(request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
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
        handle: Handler = self._dispatch
        for layer in reversed(layers):
            handle = functools.partial(layer, handler=handle)
        return Server(handle, malformed)

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        (handler, variables), values = self._paths.find(request.method, split_target(request.raw_path)[0])
        request[VARIABLES] = dict(zip(variables, values, strict=True))
        return await handler(request)
