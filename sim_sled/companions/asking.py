"""How handlers of companion servers call the core.

Read before: core/companions.py, http/asking.py.
Read next: companions/crucible.py, companions/depot.py, companions/dns.py, companions/imports.py,
companions/pantry.py, companions/servers.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from sim_sled.core.companions import Companions, Where
from sim_sled.core.errors import Unavailable
from sim_sled.http import asking
from sim_sled.http.routes import Call

R = TypeVar("R")

WAIT_S: Final = 55.0
"""How long an answer may wait for something to happen: Nexus gives up after 60 s, and asks again after a 503."""

LOOK_S: Final = 0.05
"""How often it is looked whether it has: a wait is rare, and its end may be moved by a scenario."""


async def ask(call: Call, where: Where, how: Callable[..., R], *args: Any) -> R:
    """What `how` of the core at `where` returns; raises its refusal."""
    op = call.op  # `asking.ask` tells it once only
    made: R = await asking.ask(call, Companions, Companions.call, where, op, how, args)
    return made


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it. Raises `Unavailable` after `WAIT_S`."""

    async def look() -> None:
        while not await happened():  # noqa: ASYNC110 -- what happens is told by a pure core, not by an event
            await asyncio.sleep(LOOK_S)  # see LOOK_S

    try:
        await asyncio.wait_for(look(), WAIT_S)
    except TimeoutError:
        raise Unavailable(f"nothing happened within {WAIT_S:.0f} s") from None
