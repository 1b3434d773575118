"""Serves the Nexus model: internal API, lockstep API and control API on three listeners. Shell. This is not Nexus.

    async with NexusServer("[::1]:0", config=Config()) as server:
        server.internal, server.lockstep, server.control      # "[::1]:40123", …

`serve` is what `sim-sled nexus` runs.

Read before: stub/nexus.py, stub/server/control.py, stub/server/host.py, stub/server/internal_api.py,
stub/server/store.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Self

import attrs

from nexus_client.dropshot import collector, service
from nexus_client.dropshot.bearer import require_token
from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.listen import Listener, Server, listen
from nexus_client.dropshot.port_file import told_in
from nexus_client.dropshot.text import SocketAddress
from nexus_client.stub.config import Config
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.server.bodies import LATEST
from nexus_client.stub.server.control import control_api
from nexus_client.stub.server.host import Host, wall_clock_us
from nexus_client.stub.server.internal_api import make_internal_server, make_lockstep_server
from nexus_client.stub.server.sled_client import TIMEOUT_S, SledClient

SHUTDOWN_S: Final = 0.2
"""How long a listener waits for its open requests when it goes: a crash does not wait for anybody."""


def with_drawn_loopback(config: Config) -> Config:
    """Its own piece of 127/8 for this process: two Nexus models on one host must not give out the same addresses."""
    return attrs.evolve(
        config, loopback_net=1 + secrets.randbelow(254), loopback_port=10_000 + secrets.randbelow(20_000)
    )


@attrs.define(eq=False)
class _Listener:
    """One address that can go away and come back on the same port."""

    address: str
    make: Callable[[], Server]
    listener: Listener | None = None

    async def up(self) -> None:
        self.listener = await listen(self.make(), SocketAddress.typed(self.address))
        self.address = self.listener.address

    async def down(self) -> None:
        listener, self.listener = self.listener, None
        if listener is not None:
            await listener.close(SHUTDOWN_S)


class NexusServer:
    """The model with its three listeners, as a context manager. Port 0 draws a port; `internal`, `lockstep`,
    `control`
    are the bound addresses. Raises ValueError for a bad address, OSError if one is taken.
    """

    def __init__(
        self,
        address: str = "[::1]:0",
        *,
        lockstep: str = "[::1]:0",
        control: str = "[::1]:0",
        config: Config | None = None,
        seed: int = 0,
        sled_api_version: str = f"{LATEST}.0.0",
        sled_timeout_s: float = TIMEOUT_S,
        control_token: str | None = None,
        control_hosts: tuple[str, ...] = (),
        db: Path | None = None,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        for each in (address, lockstep):
            SocketAddress.typed(each)
        require_token(SocketAddress.typed(control), control_token)
        guard = Guard(control_token, control_hosts)
        store = None
        if db is not None:
            from nexus_client.stub.server.store import Store  # noqa: PLC0415 -- most keep nothing

            store = Store(db)
        drawn = with_drawn_loopback(Config() if config is None else config)
        self.nexus = Nexus(drawn, seed if store is None else store.seed(seed))
        if store is not None:
            store.load_into(self.nexus)
        self._client = SledClient(sled_api_version, timeout_s=sled_timeout_s)
        self.host = Host(self.nexus, self._client.call, clock)
        self.host.store = store
        self._internal = _Listener(address, lambda: make_internal_server(self.host))
        self._lockstep = _Listener(lockstep, lambda: make_lockstep_server(self.host))
        api = control_api(self.host, self.restart, guard)
        self._control = _Listener(control, lambda: Server(api.handle))
        self._moves: set[asyncio.Task[None]] = set()
        self._moving = asyncio.Lock()
        self._restarting = False
        self._back_after_ms: int | None = None
        self._closing = asyncio.Event()

    @property
    def internal(self) -> str:
        return self._internal.address

    @property
    def lockstep(self) -> str:
        return self._lockstep.address

    @property
    def control(self) -> str:
        return self._control.address

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        try:
            for listener in (self._internal, self._lockstep, self._control):
                await listener.up()
        except BaseException:
            await self.__aexit__()
            raise
        self.host.on_crash = self._crashed
        self.host.boot()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.host.on_crash = None
        self._closing.set()  # a restart under way is not cancelled: that would leak the socket it is opening
        await asyncio.gather(*self._moves, return_exceptions=True)
        self.host.faults.clear()
        await self.host.close()
        if self.host.store is not None:
            self.host.store.close()
        for listener in (self._internal, self._lockstep, self._control):
            await listener.down()
        await self._client.__aexit__()

    # -- dying and rising

    def _later(self, move: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.get_running_loop().create_task(move())
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    def _crashed(self) -> None:
        """The core has died: nobody listens any more. `restart` brings it back."""
        if self._restarting:
            return
        down_ms, self._back_after_ms = self._back_after_ms, None
        if down_ms is None:
            self._later(self._go_down)
        else:
            self.restart(down_ms)

    def restart_when_crashed(self, down_ms: int) -> None:
        """When the core dies next (an armed crash), it comes back by itself after so long."""
        self._back_after_ms = down_ms

    async def _go_down(self) -> None:
        async with self._moving:
            await self._internal.down()
            await self._lockstep.down()

    def restart(self, down_ms: int = 0) -> None:
        """Crash, refuse connections for so long, start again on the same ports with the same records."""
        self._later(lambda: self._restart(down_ms))

    async def _restart(self, down_ms: int) -> None:
        async with self._moving:
            self._restarting = True
            try:
                if self.nexus.up:
                    self.host.crash()
                await self._internal.down()
                await self._lockstep.down()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), down_ms / 1000)
                self.host.boot()
                await self._internal.up()
                await self._lockstep.up()
            finally:
                self._restarting = False


def banner(server: NexusServer) -> str:
    """The start message."""
    config = server.nexus.config
    text = f"""This is not Nexus. It is a model of Nexus for tests and demonstrations (rule set {config.rules.value}).
internal API  http://{server.internal}
lockstep API  http://{server.lockstep}
control API   http://{server.control}"""
    if config.variant is not None:
        text += f"\nWRONG ON PURPOSE: variant {config.variant}"
    return text


async def serve(
    server: NexusServer,
    *,
    port_file: Path | None = None,
    say: Callable[[str], None] = print,
    stop: asyncio.Future[int] | None = None,
    ready: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Run until `stop` is set or the task is cancelled. `port_file` gets the addresses as JSON once all listen, and
    `ready` is called with them.

    Raises the `AssertionError` that ended the core: a bug, or a wrong variant that broke a rule of the database.
    """
    async with server, contextlib.AsyncExitStack() as stack:
        addresses = {
            "pid": os.getpid(),
            "address": server.internal,
            "lockstep": server.lockstep,
            "control": server.control,
        }
        stack.enter_context(told_in(port_file, json.dumps(addresses) + "\n"))
        say(banner(server))
        if ready is not None:
            ready(addresses)
        if collector.ours():
            collector.started()
        service.tell("READY=1")
        failed: asyncio.Future[AssertionError] = asyncio.get_running_loop().create_future()
        server.host.failed = failed
        waits: list[asyncio.Future[Any]] = [failed] if stop is None else [failed, stop]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            service.tell("STOPPING=1")
        if failed.done():
            raise failed.result()
