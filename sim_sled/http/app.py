"""The Sled Agent API over HTTP: one low-level aiohttp server per sled (SA 1).

No aiohttp router, no middleware: the order of checks is the original's (version, route, path, query, body, handler)
and every answer, aiohttp's own included, is one of ours. A handler whose client hangs up runs to its end, because
aiohttp cancels nothing unless told to.

Read before: daemon/daemon.py, daemon/listening.py, http/exchange.py, http/operations.py, http/raw.py,
http/spoiling.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias, cast
from uuid import UUID

from msgspec import Raw, Struct
from multidict import istr

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import Refused, Unanswered, new_request_id
from nexus_client.dropshot.body import BODY_MAX, Bodies, Decoder, is_json, json_of, read_body
from nexus_client.dropshot.listen import PATIENCE, Handle, Patience, Server
from nexus_client.dropshot.response import Response, failed_answer
from nexus_client.dropshot.routes import split_target
from nexus_client.dropshot.version import BadVersion, level_of
from sim_sled.core.errors import ConnectionDropped, SledError
from sim_sled.http.answers import refusal
from sim_sled.http.exchange import Exchange
from sim_sled.http.host import Host
from sim_sled.http.operations import ROUTER
from sim_sled.http.raw import RawResponse
from sim_sled.http.routes import NEWEST, Answer, Call, RawAnswer, Route, Router
from sim_sled.http.spoiling import SPOIL, SpoiltResponse

VERSIONS_KEPT: Final = 256
"""Version texts remembered; clients send one or two."""

TARGETS_KEPT: Final = 4096
"""Request lines remembered with what they mean; all are forgotten when there are more."""

TARGET_KEPT_MAX: Final = 256
"""Characters of a request target worth remembering: every path of the API with its ids is shorter."""

PEERS_TOLD: Final = 1024
"""(peer, version) pairs whose newer version was reported."""

_API_VERSION: Final = istr("api-version")


class Api(Struct, frozen=True):
    """What a server serves: its operations, its newest version, the bytes that a body may have.

    `unversioned`: requests without an `api-version` are taken for the newest; others are looked at all the same.
    `oldest`: versions below are refused as those beyond the newest are; 0 takes any, as Dropshot does.
    """

    router: Router
    newest: int
    unversioned: bool = False
    body_max: int = BODY_MAX
    oldest: int = 0


class Over(Struct, frozen=True):
    """A request that is over; `response_code` None: whoever asked has gone away. Named as in logs (LG 1.2)."""

    method: str
    uri: str
    response_code: int | None
    latency_us: int
    req_id: str


class Tap(Protocol):
    """Who is told of requests when they are answered."""

    def mark(self, sled_id: UUID, op: str, values: tuple[Any, ...], target: str, /) -> Raw | None:
        """By which `went` knows requests of this target, which remember it; None: it never does."""

    def went(self, mark: Raw, call: Call, version: str | None, body: bytes | None, answer: bytes | None, /) -> bool:
        """One of these was answered with 200. False: it says more than its turn, so `over` is to be told."""

    def over(self, exchange: Exchange, /) -> None:
        """Another one was answered."""


OnRequest = Callable[[UUID, Over], None]

SLED: Final = Api(ROUTER, NEWEST)


def make_server(
    host: Host,
    sled_id: UUID,
    *,
    api: Api = SLED,
    accept_newer_api: bool = False,
    on_newer_api: Callable[[str, str], None] | None = None,
    patience: Patience = PATIENCE,
    bodies: Bodies | None = None,
    on_request: OnRequest | None = None,
    tap: Tap | None = None,
) -> Server:
    """A server of sled `sled_id`: `loop.create_server(make_server(...), ...)` binds it, `.shutdown()` ends it.

    `api`: its own, or that of a server beside it.

    With `accept_newer_api` an `api-version` above the newest known one is taken as the newest known one, and
    `on_newer_api(peer address, version text)` is called once per peer and version. `on_request` is told of each
    request when it is over, `tap` of its body and status, too. Call it in a running loop.
    """
    app = _App(
        host,
        sled_id,
        api,
        bodies or Bodies(),
        accept_newer_api=accept_newer_api,
        on_newer_api=on_newer_api,
        tap=tap,
    )
    handle = app.handle if on_request is None else app.told(on_request)
    return Server(cast("Handle", handle), patience=patience)


_Response: TypeAlias = Response | RawResponse | SpoiltResponse
_Handle: TypeAlias = Callable[[web.BaseRequest], Awaitable[_Response]]
_Target: TypeAlias = tuple[Route, tuple[Any, ...], Mapping[str, Any], Raw | None]
"""Row, path values and query values of a request line, and its mark of the tap."""
_OK: Final = 200


class _App:
    """Dispatch of one sled's requests."""

    def __init__(
        self,
        host: Host,
        sled_id: UUID,
        api: Api,
        bodies: Bodies,
        *,
        accept_newer_api: bool,
        on_newer_api: Callable[[str, str], None] | None,
        tap: Tap | None,
    ) -> None:
        self._host = host
        self._sled_id = sled_id
        self._api = api
        self._accept_newer_api = accept_newer_api
        self._on_newer_api = on_newer_api
        self._bodies = bodies
        self._tap = tap
        self._levels: dict[str | None, int] = {}
        self._targets: dict[tuple[str, str, int], _Target] = {}
        self._told: set[tuple[str, str]] = set()

    async def handle(self, request: web.BaseRequest) -> _Response:
        request_id = new_request_id()
        SPOIL.set(None)  # a server may handle all requests of a connection in one context
        header = call = body = None
        try:
            header = request.headers.get(_API_VERSION)
            level = self._levels.get(header)
            if level is None:
                level = self._level(header, request)
            key = (request.method, request.raw_path, level)
            route, values, query, mark = self._targets.get(key) or self._target(*key)
            decoder: Decoder[Any] | None = route.body
            call = Call(self._host, self._sled_id, values, None, level, query, request, route.op or "")
            if decoder is not None:
                body = await read_body(request, self._bodies, self._api.body_max)
                call.body = json_of(request, body, decoder)
            answer = await route.handler(call)
        except Exception as error:  # noqa: BLE001 -- of every kind, told by `failed_answer`
            failed = failed_answer(error, request, request_id, _refusal_of)
            if self._tap is not None:
                self._tap.over(self._exchange(request, header, call, body, failed.status))
            return failed
        tap = self._tap
        # most are no more than their turn; a value of its own for each would cost as much as all of the turn's line
        if tap is not None and (
            mark is None or answer.status != _OK or not tap.went(mark, call, header, body, answer.body)
        ):
            tap.over(self._exchange(request, header, call, body, answer.status))
        spoil = SPOIL.get()
        if spoil is not None:
            assert isinstance(answer, Answer | RawAnswer)
            return SpoiltResponse(answer, spoil, request_id)
        if type(answer) is Answer:
            return Response(answer.status, request_id, answer.body)
        assert isinstance(answer, RawAnswer)
        return RawResponse(answer, request_id)

    def _exchange(
        self, request: web.BaseRequest, version: str | None, call: Call | None, body: bytes | None, status: int
    ) -> Exchange:
        op, fits = "", False
        if call is not None:
            op, fits = call.op, call.body is not None
        if body is not None and not is_json(request):
            body = None
        return Exchange(
            self._sled_id,
            op,
            request.method,
            request.raw_path,
            version,
            status,
            body,
            fits=fits,
            has_body=request.body_exists,
        )

    def told(self, on_request: OnRequest) -> _Handle:
        """`handle`, with somebody who is told."""

        async def handle(request: web.BaseRequest) -> _Response:
            now = asyncio.get_running_loop().time
            began = now()
            answer = await self.handle(request)
            took_us = round((now() - began) * 1e6)
            gone = request.transport is None or request.transport.is_closing()
            status = None if gone else answer.status
            on_request(self._sled_id, Over(request.method, request.raw_path, status, took_us, answer.request_id))
            return answer

        return handle

    def _target(self, method: str, target: str, level: int) -> _Target:
        """What a request line means. Raises `Refused`.

        Remembered while there is room: Nexus asks for the same VMMs again and again, and this is a third of our share
        of a request.
        """
        path, query = split_target(target)
        route, variables = self._api.router.find(method, path, level)
        values = route.parse_path(variables)
        mark = None if self._tap is None else self._tap.mark(self._sled_id, route.op or "", values, target)
        found = route, values, route.parse_query(query), mark
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
        if level < self._api.oldest:
            raise Refused(400, f"server does not support this API version: {header}")
        if len(self._levels) < VERSIONS_KEPT:
            self._levels[header] = level
        return level

    def _tell_newer(self, peer: str, version: str) -> None:
        if self._on_newer_api is None or (peer, version) in self._told or len(self._told) >= PEERS_TOLD:
            return
        self._told.add((peer, version))
        self._on_newer_api(peer, version)


def _refusal_of(error: Exception) -> Refused | Unanswered | None:
    if isinstance(error, ConnectionDropped):  # first: an agent that aborts is a refusal of the core, too
        return Unanswered()
    return refusal(error) if isinstance(error, SledError) else None
