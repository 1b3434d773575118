"""The websockets of the Propolis API: migration, serial console, VNC (PR 4.3 to 4.5).

Each upgrades first and looks at the VM afterwards: what is refused then is a connection that ends without a frame.

Read before: server/base.py, server/instance.py, vnc.py. Read next: server/app.py.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import WSMsgType

from nexus_client.dropshot import web
from propolis_stub.errors import NoInstance, RequestDenied
from propolis_stub.serial.console import drop
from propolis_stub.server.base import path_uuid, query_numbers, upgrade
from propolis_stub.server.instance import PropolisServer
from propolis_stub.types import Level
from propolis_stub.vnc import Rfb, RfbError

Parameters = dict[str, str]


async def migrate_start(
    server: PropolisServer, request: web.BaseRequest, _level: int, parameters: Parameters
) -> web.WebSocketResponse:
    """A target connects to this source."""
    migration_id = path_uuid(parameters["migration_id"], "migration_id")
    ws = await upgrade(request, pings=False)
    link = server.link(migration_id)
    try:
        server.accept_peer(migration_id, link)
    except (NoInstance, RequestDenied):
        drop(ws)
        return ws
    try:
        await link.run(ws)
    finally:
        drop(ws)
    return ws


async def serial(
    server: PropolisServer, request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.WebSocketResponse:
    """A console client. Both offsets or none: no replay, no error."""
    asked = query_numbers(request, ("from_start", "most_recent"))
    from_start, most_recent = asked["from_start"], asked["most_recent"]
    ws = await upgrade(request, pings=True)
    console = server.console
    if console is None or server.vm.level is not Level.ACTIVE:
        drop(ws)
        return ws
    start = None
    if (from_start is None) != (most_recent is None):
        start = server.serial.history.start_of(from_start=from_start, most_recent=most_recent)
    await console.serve(ws, start)
    return ws


async def vnc(
    server: PropolisServer, request: web.BaseRequest, _level: int, _parameters: Parameters
) -> web.WebSocketResponse:
    """RFB 3.8 in binary frames; not in the OpenAPI documents."""
    ws = await upgrade(request, pings=True)
    over = server.vnc_over
    if server.vm.level is not Level.ACTIVE or over.is_set():
        drop(ws)
        return ws
    ended = asyncio.ensure_future(over.wait())
    ended.add_done_callback(lambda done: None if done.cancelled() else drop(ws))
    rfb = Rfb()
    try:
        await ws.send_bytes(rfb.greeting)
        async for message in ws:
            if message.type is WSMsgType.BINARY:
                answer = rfb.feed(message.data)
                if answer:
                    await ws.send_bytes(answer)
            elif message.type is WSMsgType.CLOSE:
                break
    except (RfbError, ConnectionError):
        drop(ws)
    finally:
        ended.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ended
    return ws
