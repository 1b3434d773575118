"""The Sled Agent API over HTTP: one low-level aiohttp server per sled (sled-agent-api.md 1)."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from aiohttp import web

from sim_sled.http.host import Host


def make_server(
    host: Host,
    sled_id: UUID,
    *,
    accept_newer_api: bool = False,
    on_newer_api: Callable[[str, str], None] | None = None,
) -> web.Server:
    """A server of sled `sled_id`: `loop.create_server(make_server(...), ...)` binds it, `.shutdown()` ends it.

    With `accept_newer_api` an `api-version` above the newest known one is taken as the newest known one, and
    `on_newer_api(peer address, version text)` is called once per peer and version.
    """
    raise NotImplementedError
