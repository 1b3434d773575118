"""The rack's network configuration over HTTP (SR 4.4).

Read before: http/asking.py, http/bodies_bootstore.py. Read next: http/operations.py.
"""

from __future__ import annotations

from nexus_client.dropshot.json import plain
from sim_sled.core.bootstore.store import Bootstore, NetworkConfig
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.bodies_bootstore import newer, older, shape_of
from sim_sled.http.routes import Answer, Call

SCHEMA_VERSION = 2


async def put(call: Call) -> Answer:
    config = NetworkConfig(int(call.body.generation), shape_of(call.level), plain(call.body.body))
    await ask(call, Bootstore, Bootstore.put, config)
    return NO_CONTENT


async def put_old(call: Call) -> Answer:
    await ask(call, Bootstore, Bootstore.put_old)
    return NO_CONTENT


async def get(call: Call) -> Answer:
    config = await ask(call, Bootstore, Bootstore.read)
    body = older(newer(config.body, config.shape), call.level)
    return ok({"generation": config.generation, "schema_version": SCHEMA_VERSION, "body": body})


async def status(call: Call) -> Answer:
    return ok(await ask(call, Bootstore, Bootstore.status))


async def ensure_uplinks(call: Call) -> Answer:  # noqa: ARG001 -- a handler like the others
    """Accepted and ignored, as in the existing simulator: there is no switch zone to tell."""
    return NO_CONTENT
