"""What every operation of the Propolis API shares: version header, bodies, answers, websocket upgrades (PR 4.1, 4.3).

Read before: server/refusals.py, server/websocket.py. Read next: server/operations.py, server/streams.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl
from uuid import UUID

from nexus_client.dropshot import version, web
from nexus_client.dropshot.answers import Refused, bad_request, new_request_id
from nexus_client.dropshot.body import Bodies, read_json
from nexus_client.dropshot.json import Json, encode, parse_uuid
from nexus_client.dropshot.response import Response, refused_answer
from propolis_stub.server.websocket import Websocket

T = TypeVar("T")

NEWEST: Final = 5
_BODIES: Final = Bodies()
"""Of all VMs of this process."""

_CLOSE_TIMEOUT_S: Final = 2.0
"""For the other side's half of a closing handshake, before the connection is cut."""


@lru_cache(maxsize=64)  # clients send a handful of different ones; refusals are raised anew each time
def level_of(header: str | None) -> int:
    """The newest published version that is not above the one asked for, as a number. Raises `Refused` (400)."""
    try:
        return version.level_of(header, NEWEST)
    except version.BadVersion as bad:
        raise bad_request(bad.message) from None


# --- answers ----------------------------------------------------------------------------------------------------


def answer(status: int, body: bytes | None = None) -> web.StreamResponse:
    """A success. `body` is JSON; None: no body at all."""
    return cast("web.StreamResponse", Response(status, new_request_id(), body))


def answer_json(status: int, value: Any) -> web.StreamResponse:
    return answer(status, encode(value))


def answer_refusal(refusal: Refused) -> web.StreamResponse:
    return cast("web.StreamResponse", refused_answer(refusal))


# --- what comes in ----------------------------------------------------------------------------------------------


async def decoded(request: web.BaseRequest, decoder: Json[T]) -> T:
    """The body as `decoder` reads it. Raises `Refused` (400)."""
    return await read_json(request, decoder, _BODIES)


def query_numbers(request: web.BaseRequest, names: tuple[str, ...]) -> Mapping[str, int | None]:
    """Optional u64 parameters by name; others are ignored. Raises `Refused` (400)."""
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
    """A UUID in a path. Raises `Refused` (400)."""
    try:
        return parse_uuid(text)
    except ValueError as problem:
        raise bad_request(f"bad parameter in URL path: {name}: {problem}") from None


async def upgrade(request: web.BaseRequest, *, pings: bool) -> web.WebSocketResponse:
    """101, whatever comes afterwards: the VM has not been looked at yet (PR 4.3). Raises `Refused` (400).

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
    ws.headers["x-request-id"] = new_request_id()
    try:
        await ws.prepare(request)
    except web.HTTPBadRequest:  # a key that is none
        raise bad_request("missing websocket key") from None
    return ws
