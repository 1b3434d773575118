"""`propolis-stub serve`: one Propolis on its listeners, until a signal ends it.

Read before: server/host.py, server/app.py, server/control.py, server/config_file.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import attrs

from nexus_client.dropshot import collector, ending, service
from nexus_client.dropshot.bearer import require_token
from nexus_client.dropshot.descriptors import raise_open_files
from nexus_client.dropshot.listen import Listener, Server, listen
from nexus_client.dropshot.port_file import told_in
from nexus_client.dropshot.text import SocketAddress
from propolis_stub.pacers import SettablePacer
from propolis_stub.presets import paces
from propolis_stub.server.app import make_server
from propolis_stub.server.config_file import Config
from propolis_stub.server.control import control_api
from propolis_stub.server.host import StandaloneHost
from propolis_stub.server.instance import PropolisServer


@attrs.define(eq=False)
class Running:
    """A Propolis that serves; `close` ends it."""

    host: StandaloneHost
    api: Listener
    control: Listener | None

    @property
    def server(self) -> PropolisServer:
        return self.host.server

    async def close(self) -> None:
        await self.host.close()
        await self.api.close()
        if self.control is not None:
            await self.control.close()


async def start(
    address: SocketAddress,
    control: SocketAddress | None = None,
    config: Config | None = None,
    *,
    base_paces: bool = True,
) -> Running:
    """Binds and serves. `base_paces` False: every point is instant unless configured. Raises `OSError` or
    `ValueError`.
    """
    config = config or Config()
    if control is not None:
        require_token(control, config.token)
    pacer = SettablePacer(paces(config.preset) if base_paces else {})
    for point, (pace, times) in config.paces.items():
        pacer.set(point, pace, times)
    server = PropolisServer()
    host = StandaloneHost(server, pacer, config.hazards)
    api = await listen(make_server(lambda _request: server), address)
    server.address = api.address
    listener = None
    if control is not None:
        handler = Server(control_api(host, config.token, config.control_hosts).handle)
        try:
            listener = await listen(handler, control)
        except OSError:
            await api.close()
            raise
    return Running(host, api, listener)


async def serve(
    address: SocketAddress,
    control: SocketAddress | None,
    config: Config,
    port_file: Path | None,
    tell: Callable[[dict[str, str | None]], None],
) -> int:
    """Serves until SIGINT or SIGTERM; returns the exit code. `tell` gets the bound addresses when ready."""
    raise_open_files()
    over = ending.asked()
    running = await start(address, control, config)
    bound = {"propolis": running.api.address, "control": running.control.address if running.control else None}
    try:
        with told_in(port_file, json.dumps(bound) + "\n"):
            tell(bound)
            collector.started()
            service.tell("READY=1")
            code = await over
            service.tell("STOPPING=1")
            return code
    finally:
        await running.close()
