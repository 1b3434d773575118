"""Request bodies: size, content type, JSON, in this order (SA 1.3, 1.4; DS 1), and a bound on all that are under way.

Nearly every body has arrived with its head and costs one look. One that comes slowly is read as it comes, up to a
size and a time, and its client is told to go on if it waits for that (`Expect: 100-continue`).

Read before: dropshot/answers.py, dropshot/json.py, dropshot/listen.py. Read next: sim_sled/http/routes.py.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol, TypeVar

from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from multidict import istr

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import JSON_TYPE, Refused, bad_request
from nexus_client.dropshot.json import BadJson
from nexus_client.dropshot.listen import PATIENCE, Connection, one_line

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

BODY_MAX: Final = 1024 * 1024
"""Bytes of a request body (SA 1.4)."""

UNDER_WAY_MAX: Final = 64 * 1024 * 1024
"""Bytes of all bodies of a server that have begun and not ended: 64 of the largest. Nexus sends a few KiB each."""

_CONTENT_TYPE: Final = istr("content-type")
_EXPECT: Final = istr("expect")
_KNOWN_TYPES: Final = frozenset(
    {"application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data", "application/x-ndjson"}
)


class Decoder(Protocol[T_co]):
    """`Json`, or something like it: `decode` raises `BadJson`."""

    def decode(self, body: bytes, /) -> T_co: ...


class _Coming(Struct, eq=False):
    """A body under way."""

    deadline: asyncio.Timeout
    size: int = 0
    given_up: bool = False


class Bodies:
    """Bodies of one server, or of several, that are under way; `bytes_max` in all.

    When they are too many, the one that has been coming for longest is given up: whoever sends a body quickly is not
    refused because a thousand others send theirs slowly.
    """

    def __init__(self, bytes_max: int = UNDER_WAY_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._coming: dict[_Coming, None] = {}  # in order of age

    def begin(self, deadline: asyncio.Timeout) -> _Coming:
        """A body that is read under `deadline`."""
        coming = _Coming(deadline)
        self._coming[coming] = None
        return coming

    def came(self, coming: _Coming, size: int) -> None:
        """`size` more bytes of it. May give up others, or this one: then its deadline is now."""
        coming.size += size
        self._bytes += size
        while self._bytes > self._bytes_max and self._coming:
            oldest = next(iter(self._coming))
            self.end(oldest)
            oldest.given_up = True
            oldest.deadline.reschedule(asyncio.get_running_loop().time())

    def end(self, coming: _Coming) -> None:
        """It is complete, or given up."""
        if self._coming.pop(coming, self) is not self:
            self._bytes -= coming.size

    def __len__(self) -> int:
        """Bytes under way."""
        return self._bytes


async def read_json(request: web.BaseRequest, kind: Decoder[T], bodies: Bodies, size_max: int = BODY_MAX) -> T:
    """The body as `kind`. Raises `Refused`: the size is looked at first, then the content type, then the JSON."""
    return json_of(request, await read_body(request, bodies, size_max), kind)


def json_of(request: web.BaseRequest, body: bytes, kind: Decoder[T]) -> T:
    """A body that was read, as `kind`. Raises `Refused`, as `read_json`."""
    content_type = request.headers.get(_CONTENT_TYPE)
    if content_type is not None and content_type != JSON_TYPE:
        check_content_type(content_type)
    try:
        return kind.decode(body)
    except BadJson as bad:
        raise bad_json(bad) from None


def is_json(request: web.BaseRequest) -> bool:
    """Whether its body is looked at as JSON."""
    try:
        check_content_type(request.headers.get(_CONTENT_TYPE, JSON_TYPE))
    except Refused:
        return False
    return True


def bad_json(bad: BadJson) -> Refused:
    """The 400 for a body that does not fit."""
    return bad_request(f"unable to parse JSON body: {bad}")


def check_content_type(header: str) -> None:
    """Raises `Refused` for what is not taken as JSON."""
    kind = header.partition(";")[0].strip().lower()
    if kind == JSON_TYPE or (kind.startswith("application/") and kind.endswith("+json") and "/" not in kind[12:]):
        return
    if kind in _KNOWN_TYPES:
        raise bad_request(f'expected content type "{JSON_TYPE}", got "{kind}"')
    raise bad_request(f"unsupported content-type: {kind}")


async def read_body(request: web.BaseRequest, bodies: Bodies, size_max: int = BODY_MAX) -> bytes:
    """The whole body. Raises `Refused`: too large, too slow, broken off."""
    content, protocol = request.content, request.protocol
    whole = protocol.whole(content) if isinstance(protocol, Connection) else None
    if whole is not None and content.exception() is None and len(whole) <= size_max:
        return whole
    if content.is_eof() and content.exception() is None:
        body = content.read_nowait()
        if len(body) > size_max:
            raise _too_large(size_max)
        return body
    length = request.content_length
    if length is not None and length > size_max:
        raise _too_large(size_max)  # what is still on its way is read and dropped by aiohttp for a while
    await go_on(request)
    patience = protocol.patience if isinstance(protocol, Connection) else PATIENCE
    parts = bytearray()
    coming: _Coming | None = None
    try:
        async with asyncio.timeout(patience.body_s) as deadline:
            coming = bodies.begin(deadline)
            while chunk := await content.readany():
                parts += chunk
                if len(parts) > size_max:
                    raise _too_large(size_max)
                bodies.came(coming, len(chunk))
    except TimeoutError:
        if coming is not None and coming.given_up:
            raise Refused(503, "Service Unavailable", close=True) from None
        raise Refused(400, f"request body did not arrive within {patience.body_s:g} s", close=True) from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise Refused(400, f"error streaming request body: {one_line(error)}", close=True) from None
    finally:
        if coming is not None:
            bodies.end(coming)
    return bytes(parts)


async def go_on(request: web.BaseRequest) -> None:
    """Tells a client that waits for leave to send its body that it has it, as soon as somebody reads it (DS 3)."""
    if request.headers.get(_EXPECT, "").lower() == "100-continue" and not request.content.is_eof():
        # low-level servers leave this to the handler; curl would wait a second for it
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


def _too_large(size_max: int) -> Refused:
    return bad_request(f"request body exceeded maximum size of {size_max} bytes")
