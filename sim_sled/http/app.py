"""The Sled Agent API over HTTP: one low-level aiohttp server per sled (SA 1).

No aiohttp router, no middleware: the order of checks is the original's (version, route, path, query, body, handler)
and every answer, aiohttp's own included, is one of ours. A handler whose client hangs up runs to its end, because
aiohttp cancels nothing unless told to.

Read before: daemon/daemon.py, http/operations.py, http/raw.py, http/response.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from os import urandom
from typing import Any, Final, cast
from uuid import UUID

import attrs
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler
from multidict import istr

from nexus_client.dropshot.json import BadJson, Json
from nexus_client.dropshot.version import BadVersion, level_of
from sim_sled.core.errors import ConnectionDropped, SledError
from sim_sled.http.answers import Refused, error_body, refusal
from sim_sled.http.host import Host
from sim_sled.http.operations import ROUTER
from sim_sled.http.raw import RawResponse
from sim_sled.http.response import JSON_TYPE, Response
from sim_sled.http.routes import NEWEST, Answer, Call, RawAnswer, Route, Router

BODY_MAX: Final = 1024 * 1024
"""Bytes of a request body (SA 1.4)."""

BODY_WAIT_S: Final = 60.0
"""How long a body may take to arrive: Nexus itself gives up after 60 s."""

VERSIONS_KEPT: Final = 256
"""Version texts remembered; clients send one or two."""

TARGETS_KEPT: Final = 4096
"""Request lines remembered with what they mean; all are forgotten when there are more."""

TARGET_KEPT_MAX: Final = 256
"""Characters of a request target worth remembering: every path of the API with its ids is shorter."""

PEERS_TOLD: Final = 1024
"""(peer, version) pairs whose newer version was reported."""

_log = logging.getLogger(__name__)

_API_VERSION: Final = istr("api-version")


@attrs.frozen
class Api:
    """What a server serves: its operations, its newest version, the bytes that a body may have.

    `unversioned`: requests without an `api-version` are taken for the newest; others are looked at all the same.
    """

    router: Router
    newest: int
    unversioned: bool = False
    body_max: int = BODY_MAX


SLED: Final = Api(ROUTER, NEWEST)
_CONTENT_TYPE: Final = istr("content-type")
_EXPECT: Final = istr("expect")
_KNOWN_TYPES: Final = frozenset(
    {"application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data"}
)
_VARIANT: Final = "89ab"


def new_request_id() -> str:
    """A random UUID of version 4: `uuid.uuid4` without the object."""
    h = urandom(16).hex()
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-{_VARIANT[int(h[16], 16) & 3]}{h[17:20]}-{h[20:]}"


def make_server(
    host: Host,
    sled_id: UUID,
    *,
    api: Api = SLED,
    accept_newer_api: bool = False,
    on_newer_api: Callable[[str, str], None] | None = None,
) -> web.Server:
    """A server of sled `sled_id`: `loop.create_server(make_server(...), ...)` binds it, `.shutdown()` ends it.

    `api`: its own, or that of a server beside it.

    With `accept_newer_api` an `api-version` above the newest known one is taken as the newest known one, and
    `on_newer_api(peer address, version text)` is called once per peer and version. Call it in a running loop.
    """
    app = _App(host, sled_id, api, accept_newer_api, on_newer_api)
    # auto_decompress: Dropshot takes bodies as they are, and 1 MiB must not become 1 GiB
    handler = cast("Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]", app.handle)
    return _Server(handler, access_log=None, auto_decompress=False)


class _App:
    """Dispatch of one sled's requests."""

    def __init__(
        self,
        host: Host,
        sled_id: UUID,
        api: Api,
        accept_newer_api: bool,
        on_newer_api: Callable[[str, str], None] | None,
    ) -> None:
        self._host = host
        self._sled_id = sled_id
        self._api = api
        self._accept_newer_api = accept_newer_api
        self._on_newer_api = on_newer_api
        self._levels: dict[str | None, int] = {}
        self._targets: dict[tuple[str, str, int], tuple[Route, tuple[Any, ...], Mapping[str, Any]]] = {}
        self._told: set[tuple[str, str]] = set()

    async def handle(self, request: web.BaseRequest) -> Response | RawResponse:
        request_id = new_request_id()
        try:
            header = request.headers.get(_API_VERSION)
            level = self._levels.get(header)
            if level is None:
                level = self._level(header, request)
            key = (request.method, request.raw_path, level)
            route, values, query = self._targets.get(key) or self._target(*key)
            call = Call(self._host, self._sled_id, values, None, level, query, request, route.op or "")
            if route.body is not None:
                call.body = await read_json(request, route.body, self._api.body_max)
            answer = await route.handler(call)
        except Refused as refused:
            return error_response(request_id, refused)
        except SledError as error:
            _log.debug("%s %s refused: %s", request.method, request.raw_path, error)
            return error_response(request_id, refusal(error))
        except ConnectionDropped as dropped:
            _log.debug("%s %s: %s", request.method, request.raw_path, dropped)
            if request.transport is not None:
                request.transport.abort()  # what is answered after this goes nowhere
            return error_response(request_id, Refused(503, "connection dropped", close=True))
        except Exception:  # noqa: BLE001 -- a bug of ours costs its own request and nothing else
            _log.exception("%s %s failed", request.method, request.raw_path)
            return error_response(request_id, Refused(500, "Internal Server Error", "Internal"))
        if type(answer) is Answer:
            return Response(answer.status, request_id, answer.body)
        assert isinstance(answer, RawAnswer)
        return RawResponse(answer, request_id)

    def _target(self, method: str, target: str, level: int) -> tuple[Route, tuple[Any, ...], Mapping[str, Any]]:
        """Row, path values and query values of a request line. Raises `Refused`.

        Remembered while there is room: Nexus asks for the same VMMs again and again, and this is a third of our share
        of a request.
        """
        path, query = split_target(target)
        route, variables = self._api.router.find(method, path, level)
        found = (route, route.parse_path(variables), route.parse_query(query))
        if len(target) <= TARGET_KEPT_MAX:
            if len(self._targets) >= TARGETS_KEPT:
                self._targets.clear()
            self._targets[method, target, level] = found
        return found

    def _level(self, header: str | None, request: web.BaseRequest) -> int:
        try:
            unversioned = header is None and self._api.unversioned
            level = self._api.newest if unversioned else level_of(header, self._api.newest)
        except BadVersion as bad:
            if not (bad.newer and self._accept_newer_api):
                raise Refused(400, bad.message) from None
            assert header is not None
            self._tell_newer(request.remote or "unknown", header)
            return self._api.newest
        if len(self._levels) < VERSIONS_KEPT:
            self._levels[header] = level
        return level

    def _tell_newer(self, peer: str, version: str) -> None:
        if self._on_newer_api is None or (peer, version) in self._told or len(self._told) >= PEERS_TOLD:
            return
        self._told.add((peer, version))
        self._on_newer_api(peer, version)


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target, still encoded. Absolute targets (`http://host/path`) lose their host."""
    if not target.startswith("/") and "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    return path, query


async def read_json(request: web.BaseRequest, kind: Json[Any], size_max: int = BODY_MAX) -> Any:
    """The body as `kind`. Raises `Refused`; the size is looked at first, then the content type, then the JSON."""
    content = request.content
    body = content.read_nowait() if content.is_eof() else await _read_slowly(request, size_max)
    if len(body) > size_max:
        raise _too_large(size_max)
    content_type = request.headers.get(_CONTENT_TYPE)
    if content_type is not None and content_type != JSON_TYPE:
        _check_content_type(content_type)
    try:
        return kind.decode(body)
    except BadJson as bad:
        raise Refused(400, f"unable to parse JSON body: {bad}") from None


def _check_content_type(header: str) -> None:
    kind = header.partition(";")[0].rstrip().lower()
    if kind == JSON_TYPE:
        return
    if kind in _KNOWN_TYPES:
        raise Refused(400, f'expected content type "{JSON_TYPE}", got "{kind}"')
    raise Refused(400, f'unsupported content-type: "{kind}"')


def _too_large(size_max: int) -> Refused:
    return Refused(400, f"request body exceeded maximum size of {size_max} bytes")


async def _read_slowly(request: web.BaseRequest, size_max: int) -> bytes:
    """A body that has not arrived completely. Raises `Refused`."""
    length = request.content_length
    if length is not None and length > size_max:
        raise _too_large(size_max)  # what is still on its way is read and dropped by aiohttp for a while
    if request.headers.get(_EXPECT, "").lower() == "100-continue":
        # Low-level servers leave this to the handler; curl would wait a second for it
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > size_max:
                    raise _too_large(size_max)
    except TimeoutError:
        raise Refused(400, f"request body did not arrive within {BODY_WAIT_S:.0f} s", close=True) from None
    except (web.RequestPayloadError, HttpProcessingError) as error:
        raise Refused(400, f"malformed request body: {_one_line(error)}", close=True) from None
    except ConnectionError as error:
        raise Refused(400, f"connection lost: {_one_line(error)}", close=True) from None
    return bytes(body)


def error_response(request_id: str, refused: Refused) -> Response:
    body = error_body(request_id, refused)
    return Response(
        refused.status, request_id, body, allow=refused.allow, close=refused.close, headers=refused.headers
    )


def _one_line(error: BaseException | str) -> str:
    return str(error).partition("\n")[0]


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """aiohttp's connection, with its own error pages replaced."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is no HTTP, as a Dropshot error; `exc` None cannot happen in our handlers."""
        if status >= 500:
            _log.error("%s failed outside of its handler", request.raw_path, exc_info=exc)
        else:
            _log.debug("malformed HTTP from %s: %s", request.remote, _one_line(message or ""))
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already; a second one would be read as the next")
        text = "Internal Server Error" if status >= 500 else f"malformed HTTP request: {_one_line(message or '')}"
        return cast("web.StreamResponse", error_response(new_request_id(), Refused(status, text, close=True)))
