"""Routing and the error table of the Propolis API: one aiohttp handler for one VM or for thousands.

`make_handler(resolve)` is for a process with many VMs on shared runners: `resolve` finds the server by the request
(its socket name, its host, ...). `serve` is for one VM on its own listener.

Version header first, then the route, then the operation (PR 4.1). A request whose client goes away is
cancelled, which ends a waiting monitor call; what the VM was asked to do happened before anything was awaited, so it
goes on, as with the original's detached handlers.

Read before: server/operations.py, server/streams.py. Read next: server/host.py, server/serve.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

from nexus_client.dropshot import web
from nexus_client.dropshot.answers import new_request_id, not_found
from nexus_client.dropshot.listen import PATIENCE, Patience, Server
from nexus_client.dropshot.response import failed_answer
from nexus_client.dropshot.routes import Paths, names, split_target
from propolis_stub.server import operations as ops
from propolis_stub.server import streams
from propolis_stub.server.base import answer_refusal, level_of
from propolis_stub.server.instance import PropolisServer
from propolis_stub.server.refusals import refusal_of

Operation = Callable[[PropolisServer, web.BaseRequest, int, dict[str, str]], Awaitable[web.StreamResponse]]
Resolve = Callable[[web.BaseRequest], PropolisServer | None]
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

ROUTES: Final[Mapping[str, Mapping[str, Operation]]] = {
    "/instance": {"GET": ops.get_instance, "PUT": ops.put_instance},
    "/instance/spec": {"GET": ops.get_spec},
    "/instance/state-monitor": {"GET": ops.monitor},
    "/instance/state": {"PUT": ops.put_state},
    "/instance/migration-status": {"GET": ops.migration_status},
    "/instance/migrate/{migration_id}/start": {"GET": streams.migrate_start},
    "/instance/serial": {"GET": streams.serial},
    "/instance/serial/history": {"GET": ops.serial_history},
    "/instance/disk/{id}/snapshot/{snapshot_id}": {"POST": ops.snapshot},
    "/instance/disk/{id}/status": {"GET": ops.disk_status},
    "/instance/disk/{id}/vcr": {"PUT": ops.vcr},
    "/instance/nmi": {"POST": ops.nmi},
    "/instance/vnc": {"GET": streams.vnc},
}


def _paths() -> Paths[tuple[Operation, tuple[str, ...]]]:
    paths: Paths[tuple[Operation, tuple[str, ...]]] = Paths()
    for template, methods in ROUTES.items():
        for method, operation in methods.items():
            paths.add(method, template, (operation, names(template)))
    return paths


_PATHS: Final = _paths()
_EXACT: Final = {
    (method, path): operation
    for path, methods in ROUTES.items()
    if "{" not in path
    for method, operation in methods.items()
}
"""What nearly every request asks for, as it is usually written."""


def find(method: str, raw_path: str) -> tuple[Operation, dict[str, str]]:
    """The operation and its path parameters. Raises `Refused`: 400 bad encoding, 404, 405 with `Allow`."""
    whole = _EXACT.get((method, raw_path))
    if whole is not None:
        return whole, {}
    (operation, variables), values = _PATHS.find(method, split_target(raw_path)[0])
    return operation, dict(zip(variables, values, strict=True))


def make_handler(resolve: Resolve) -> Handler:
    """An aiohttp low-level handler. `resolve` returns None where nobody lives: 404."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        server = resolve(request)
        try:
            level = level_of(request.headers.get("api-version"))
            operation, parameters = find(request.method, request.raw_path)
            if server is None:
                return answer_refusal(not_found())
            if transport is not None:
                server.connections.add(transport)
            return await operation(server, request, level, parameters)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the client has gone away, or the process ends
            raise ConnectionResetError("the VM this request waited for has crashed") from None
        except Exception as error:  # noqa: BLE001 -- of every kind, told by `failed_answer`
            return cast("web.StreamResponse", failed_answer(error, request, new_request_id(), refusal_of))
        finally:
            if server is not None and transport is not None:
                server.connections.discard(transport)

    return handle


def make_server(resolve: Resolve, patience: Patience = PATIENCE) -> Server:
    """A server around `make_handler`: `listen` binds it, or `loop.create_server`."""
    return Server(make_handler(resolve), patience=patience, cancels=True)
