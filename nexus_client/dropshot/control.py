"""Control APIs: who may use them. One manner for all three programs.

A control API owns what its program simulates, and its usual protection is that it listens on loopback. Every browser
of the machine reaches that, too, with requests made by any page. So a request must name the listener as its host (a
page whose own name was made to lead here does not), must not come from a page of elsewhere, and must say that its
body is JSON, which a page cannot without asking first. Beyond loopback it carries a token. And what is answered can
be used by nobody else: no page of elsewhere loads it, shows it in a frame, or takes it for a script.

Read before: dropshot/answers.py, dropshot/bearer.py. Read next: dropshot/control_api.py.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import JSON_TYPE, Refused
from nexus_client.dropshot.bearer import carries
from nexus_client.dropshot.body import check_content_type

ALWAYS: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
"""Names of loopback that no name server can make lead elsewhere, or that are only believed by the machine itself."""

SIMPLE_TYPES: Final = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""What a page may send anywhere without being allowed to; refused also where there is no body."""

SAFE_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""On every answer, for browsers: nothing of it runs, and no page of elsewhere may load, frame or reach it."""

NOT_BY_A_PAGE: Final = frozenset({"cross-site", "same-site"})
"""Of `sec-fetch-site`: a page of elsewhere loads this, as an image or a script, which says no origin."""


_UNKNOWN: Final = (
    "the control API does not know this host by the name in the request: "
    "names beside localhost are told to it at its start (--control-host; of propolis-stub control_hosts)"
)


class Guard:
    """Who may use a control API. `hosts`: further names of its listener, without ports."""

    def __init__(self, token: str | None, hosts: Iterable[str] = ()) -> None:
        self._token = token or None
        self._names = ALWAYS | {socket.gethostname().lower()} | {name.lower() for name in hosts}

    def check(self, request: web.BaseRequest, *, token: bool = True) -> None:
        """Raises `Refused`: 403 for a foreign host or origin, 401 for the token, 415 for a body that is no JSON.
        `token` False: none is wanted.
        """
        host = request.headers.get("host", "")
        if not self._is_ours(host, request):
            raise Refused(403, _UNKNOWN)
        for origin in request.headers.getall("origin", ()):
            if origin.lower() != f"http://{host.lower()}":
                raise Refused(403, "the control API takes no requests from pages of elsewhere")
        if request.headers.get("sec-fetch-site") in NOT_BY_A_PAGE and not _is_followed_link(request):
            raise Refused(403, "the control API takes no requests from pages of elsewhere")
        if token and self._token is not None and not carries(request.headers.get("authorization"), self._token):
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
        if told.is_loopback or told.is_unspecified:  # as localhost: nobody makes these lead here from elsewhere
            return True
        transport = request.transport
        here = None if transport is None else transport.get_extra_info("sockname")
        if not isinstance(here, tuple):
            return False
        listens = ip_address(str(here[0]).partition("%")[0])
        return told in {listens, getattr(listens, "ipv4_mapped", None)}


def _is_followed_link(request: web.BaseRequest) -> bool:
    """Whether somebody has followed a link: the answer becomes a page of its own, of which the other sees nothing."""
    told = request.headers
    return (
        request.method in {"GET", "HEAD"}
        and told.get("sec-fetch-mode") == "navigate"
        and told.get("sec-fetch-dest") == "document"
    )


def _without_port(host: str) -> str:
    """`[::1]:80`, `::1` and `name:80` without brackets and port, in lower case."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0] if "]" in text else ""
    name, colon, port = text.rpartition(":")
    return name if colon and ":" not in name and (port.isdigit() or not port) else text
