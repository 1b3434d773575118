"""Control APIs: who may use them, and that whatever happens the answer is JSON. One manner for all three programs.

A control API owns what its program simulates, and its usual protection is that it listens on loopback. Every browser
of the machine reaches that, too, with requests made by any page. So a request must name the listener as its host (a
page whose own name was made to lead here does not), must not come from a page of elsewhere, and must say that its
body is JSON, which a page cannot without asking first. Beyond loopback it carries a token.

Read before: dropshot/answers.py, dropshot/bearer.py, dropshot/routes.py. Read next: stub/server/control.py.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Any, Final

from aiohttp import web

from nexus_client.dropshot.answers import JSON_TYPE, Refused, Unanswered, bad_request, error_body, new_request_id
from nexus_client.dropshot.bearer import carries
from nexus_client.dropshot.body import BODY_MAX, check_content_type
from nexus_client.dropshot.json import BadJson, Json

log = logging.getLogger(__name__)

ALWAYS: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
"""Names of loopback that no name server can make lead elsewhere, or that are only believed by the machine itself."""

SIMPLE_TYPES: Final = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""What a page may send anywhere without being allowed to; refused also where there is no body."""

U64_DIGITS_MAX: Final = 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RefusalOf = Callable[[Exception], Refused | None]
"""What a program's own error is told as; None: it is a bug."""


class Guard:
    """Who may use a control API. `hosts`: further names of its listener, without ports."""

    def __init__(self, token: str | None, hosts: Iterable[str] = ()) -> None:
        self._token = token or None
        self._names = ALWAYS | {socket.gethostname().lower()} | {name.lower() for name in hosts}

    def check(self, request: web.BaseRequest) -> None:
        """Raises `Refused`: 403 for a foreign host or origin, 401 for the token, 415 for a body that is no JSON."""
        host = request.headers.get("host", "")
        if not self._is_ours(host, request):
            raise Refused(403, "the control API does not know this host by the name in the request")
        for origin in request.headers.getall("origin", ()):
            if origin.lower() != f"http://{host.lower()}":
                raise Refused(403, "the control API takes no requests from pages of elsewhere")
        if self._token is not None and not carries(request.headers.get("authorization"), self._token):
            raise Refused(401, "the control API wants authorization: Bearer TOKEN")
        kind = request.headers.get("content-type", "")
        if not request.can_read_body and kind.partition(";")[0].strip().lower() not in SIMPLE_TYPES:
            return
        try:
            check_content_type(kind)
        except Refused as refused:
            raise Refused(415, refused.message, headers={"accept": JSON_TYPE}) from None

    def _is_ours(self, host: str, request: web.BaseRequest) -> bool:
        name = _without_port(host)
        if not name:
            return False
        if name.rstrip(".") in self._names:
            return True
        try:
            told = ip_address(name)
        except ValueError:
            return False
        transport = request.transport
        here = None if transport is None else transport.get_extra_info("sockname")
        if not isinstance(here, tuple):
            return False
        listens = ip_address(str(here[0]).partition("%")[0])
        return told in {listens, getattr(listens, "ipv4_mapped", None)} or (told.is_loopback and listens.is_loopback)


def _without_port(host: str) -> str:
    """`[::1]:80`, `::1` and `name:80` without brackets and port, in lower case."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0] if "]" in text else ""
    name, colon, port = text.rpartition(":")
    return name if colon and ":" not in name and (port.isdigit() or not port) else text


def guarded(guard: Guard, refusal_of: RefusalOf) -> Any:
    """Middleware of an aiohttp application: the guard, and JSON for whatever goes wrong behind it."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        request_id = new_request_id()
        try:
            guard.check(request)
            return await handler(request)
        except Refused as refused:
            return refused_response(request_id, refused)
        except Unanswered:
            raise
        except web.HTTPException as error:
            return refused_response(request_id, told_by_aiohttp(error))
        except ConnectionError:
            raise  # nobody is there to be told
        except Exception as error:
            told = refusal_of(error)
            if told is None:
                log.exception("%s %s failed", request.method, request.raw_path)
                told = Refused(500, "Internal Server Error", "Internal")
            return refused_response(request_id, told)

    return middleware


def told_by_aiohttp(error: web.HTTPException) -> Refused:
    """What its router and its reader of bodies refuse, in our words."""
    words = {404: "Not Found", 405: "Method Not Allowed", 413: "the body is too large"}
    allow = tuple(sorted(each.strip() for each in error.headers.get("allow", "").split(",") if each.strip()))
    return Refused(error.status, words.get(error.status, error.reason), allow=allow)


def refused_response(request_id: str, refused: Refused) -> web.Response:
    """A Dropshot error as aiohttp's kind of answer."""
    response = web.Response(
        status=refused.status, body=error_body(request_id, refused), headers={"x-request-id": request_id}
    )
    response.headers["content-type"] = JSON_TYPE
    response.headers.update(refused.headers)
    for method in refused.allow:
        response.headers.add("allow", method)
    if refused.close:
        response.force_close()
    return response


def malformed(status: int, message: str) -> web.Response:
    """The answer to what is no HTTP."""
    return refused_response(new_request_id(), Refused(status, message, close=True))


async def read_control_json(request: web.Request, kind: Json[Any], size_max: int = BODY_MAX) -> Any:
    """The body as `kind`, whatever its charset says: JSON is UTF-8. Raises `Refused`."""
    try:
        return kind.decode(await request.read())
    except BadJson as bad:
        raise bad_request(f"unable to parse JSON body: {bad}") from None
    except web.HTTPRequestEntityTooLarge:
        raise bad_request(f"request body exceeded maximum size of {size_max} bytes") from None


def number(text: str, what: str, most: int = 2**64 - 1) -> int:
    """A number in a path or query. Raises `Refused`; thousands of digits are none, too."""
    if not (text.isascii() and text.isdigit() and len(text) <= U64_DIGITS_MAX) or int(text) > most:
        raise bad_request(f"{what} is no number up to {most}: {text[:40]}")
    return int(text)
