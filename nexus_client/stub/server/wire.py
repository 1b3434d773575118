"""HTTP manners of the Nexus model's servers: error bodies, request ids, version header, and that this is not Nexus.

Errors are those of the web framework of the original (SA 1.2, 1.3; NX 3). Shell.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from nexus_client.dropshot import body
from nexus_client.dropshot.answers import Refused, Unanswered, bad_request, new_request_id
from nexus_client.dropshot.json import Json, parse_uuid
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

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
_ENCODER: Final = msgspec.json.Encoder()


def json_response(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=_ENCODER.encode(body), status=status, content_type="application/json")


def error_response(status: int, error: ErrorBody, ident: str, *, detail: bool = False) -> web.Response:
    body: dict[str, Any] = {"request_id": ident, "message": error.message}
    if error.error_code is not None:
        body["error_code"] = error.error_code
    if detail and error.detail is not None:
        body["detail"] = error.detail
    return json_response(body, status)


def answer(outcome: Reply | Dropped, request: web.Request, *, detail: bool = False) -> web.Response:
    """The core's answer on the wire. Raises `Unanswered` if Nexus died meanwhile."""
    if isinstance(outcome, Dropped):
        raise Unanswered
    if isinstance(outcome.body, ErrorBody):
        return error_response(outcome.status, outcome.body, request[REQUEST_ID], detail=detail)
    if outcome.body is None:
        return web.Response(status=outcome.status)
    return json_response(outcome.body, outcome.status)


@web.middleware
async def manners(request: web.Request, handler: Handler) -> web.StreamResponse:
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
    except web.HTTPException as error:
        names = {404: "Not Found", 405: "Method Not Allowed"}
        response = error_response(error.status, ErrorBody(None, names.get(error.status, error.reason)), ident)
        for method in sorted(each.strip() for each in error.headers.get("Allow", "").split(",") if each.strip()):
            response.headers.add("Allow", method)  # one line per method (SA 1.3)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.raw_path)
        response = error_response(500, ErrorBody("Internal", "Internal Server Error"), ident)
    response.headers["x-request-id"] = ident
    response.headers["x-sim-sled"] = NOT_NEXUS
    return response


def check_version(request: web.Request) -> None:
    """The `api-version` header of the internal API: required, a semver, not newer than 1.0.0 (NX 3)."""
    try:
        level_of(request.headers.get("api-version"), API_VERSION)
    except BadVersion as bad:
        raise bad_request(bad.message) from None


@web.middleware
async def versioned(request: web.Request, handler: Handler) -> web.StreamResponse:
    check_version(request)
    return await handler(request)


def path_uuid(request: web.Request, name: str) -> UUID:
    try:
        return parse_uuid(request[VARIABLES][name])
    except ValueError as error:
        raise bad_request(f"bad parameter in URL path: {error}") from None


async def read_json(request: web.Request, decoder: Json[T]) -> T:
    """The decoded body. Raises `Refused` as the original's framework does."""
    return await body.read_json(request, decoder, _BODIES)


class Table:
    """Operations of one API, found as the original finds them; aiohttp's own router does not read paths that way."""

    def __init__(self) -> None:
        self._paths: Paths[tuple[Handler, tuple[str, ...]]] = Paths()

    def add(self, method: str, template: str, handler: Handler) -> None:
        """One operation."""
        self._paths.add(method, template, (handler, names(template)))

    def app(self, *middlewares: Any) -> web.Application:
        """The application, whose middlewares come before the operation is looked for."""
        app = web.Application(middlewares=middlewares)

        async def nobody_waits(_request: web.Request) -> None:
            """Whoever reads a body tells its client to go on."""

        app.router.add_route("*", "/{all:.*}", self._dispatch, expect_handler=nobody_waits)
        return app

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        (handler, variables), values = self._paths.find(request.method, split_target(request.raw_path)[0])
        request[VARIABLES] = dict(zip(variables, values, strict=True))
        return await handler(request)
