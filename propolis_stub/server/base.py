"""What every operation of the Propolis API shares: version header, bodies, answers, websocket upgrades (PR 4.1, 4.3).

Read before: server/refusals.py, server/websocket.py. Read next: server/operations.py, server/streams.py.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import lru_cache
from json import dumps
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID

from aiohttp import web

from nexus_client.dropshot import version
from nexus_client.dropshot.answers import JSON_TYPE, Refused
from nexus_client.dropshot.body import Bodies, read_json
from nexus_client.dropshot.json import BadJson, Json, encode, parse_uuid
from propolis_stub.server.refusals import Refusal, bad_request
from propolis_stub.server.websocket import Websocket

T = TypeVar("T")

NEWEST: Final = 5
_BODIES: Final = Bodies()
"""Of all VMs of this process."""

_CLOSE_TIMEOUT_S: Final = 2.0
"""For the other side's half of a closing handshake, before the connection is cut."""


@lru_cache(maxsize=64)  # clients send a handful of different ones; refusals are raised anew each time
def level_of(header: str | None) -> int:
    """The newest published version that is not above the one asked for, as a number. Raises `Refusal` (400)."""
    try:
        return version.level_of(header, NEWEST)
    except version.BadVersion as bad:
        raise bad_request(bad.message) from None


# --- answers ----------------------------------------------------------------------------------------------------


def request_id() -> str:
    return str(uuid.uuid4())  # noqa: TID251  fresh and random for each request, as documented; the core never sees it


def answer(status: int, body: bytes | None = None) -> web.Response:
    """A success. `body` is JSON; None: no body at all."""
    if body is None:
        return web.Response(status=status, headers={"x-request-id": request_id()})
    return web.Response(status=status, body=body, headers={"x-request-id": request_id(), "content-type": JSON_TYPE})


def answer_json(status: int, value: Any) -> web.Response:
    return answer(status, encode(value))


def answer_refusal(refusal: Refusal) -> web.Response:
    identity = request_id()
    body = {"request_id": identity, "message": refusal.message}
    if refusal.code is not None:
        body["error_code"] = refusal.code
    response = web.Response(
        status=refusal.status,
        body=dumps(body, indent=2).encode(),
        headers={"x-request-id": identity, "content-type": JSON_TYPE},
    )
    for method in refusal.allow:
        response.headers.add("Allow", method)
    return response


# --- what comes in ----------------------------------------------------------------------------------------------


async def decoded(request: web.BaseRequest, decoder: Json[T]) -> T:
    """The body as `decoder` reads it. Raises `Refusal` (400)."""
    try:
        return await read_json(request, decoder, _BODIES)
    except Refused as refused:
        raise Refusal(refused.status, refused.message) from None


def bad_json(problem: BadJson) -> Refusal:
    return bad_request(f"unable to parse JSON body: {problem}")


def query_numbers(request: web.BaseRequest, names: tuple[str, ...]) -> Mapping[str, int | None]:
    """Optional u64 parameters by name; others are ignored. Raises `Refusal` (400)."""
    found: dict[str, int | None] = dict.fromkeys(names)
    for name, text in parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True):
        if name not in found:
            continue
        if found[name] is not None:
            raise bad_request(f"unable to parse query string: duplicate field `{name}`")
        if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) >= 2**64:
            raise bad_request("unable to parse query string: invalid digit found in string")
        found[name] = int(text)
    return found


def path_uuid(text: str, name: str) -> UUID:
    """A UUID in a path. Raises `Refusal` (400)."""
    try:
        return parse_uuid(text)
    except ValueError as problem:
        raise bad_request(f"bad parameter in URL path: {name}: {problem}") from None


async def upgrade(request: web.BaseRequest, *, pings: bool) -> web.WebSocketResponse:
    """101, whatever comes afterwards: the VM has not been looked at yet (PR 4.3). Raises `Refusal` (400).

    `pings`: answer them; else they are handed to the reader like any other frame.
    """
    headers = request.headers
    if "upgrade" not in {part.strip().lower() for part in headers.get("connection", "").split(",")}:
        raise bad_request("expected connection upgrade")
    if headers.get("upgrade", "").lower() != "websocket":
        raise bad_request("unexpected protocol for upgrade")
    if headers.get("sec-websocket-version") != "13":
        raise bad_request("missing or invalid websocket version")
    if "sec-websocket-key" not in headers:
        raise bad_request("missing websocket key")
    ws = Websocket(timeout=_CLOSE_TIMEOUT_S, autoping=pings)
    ws.headers["x-request-id"] = request_id()
    try:
        await ws.prepare(request)
    except web.HTTPBadRequest:  # a key that is none
        raise bad_request("missing websocket key") from None
    return ws
