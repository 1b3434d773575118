"""One JSON body to somebody else's server, and what it said.

Read next: companions/handoff.py, daemon/daemon.py, daemon/reporting.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp
import attrs

from nexus_client.dropshot import foreign
from nexus_client.dropshot.answers import JSON_TYPE
from nexus_client.dropshot.telling import reason

ANSWER_S: Final = 60.0
"""How long Nexus may take: it writes the whole rack into its database in one transaction."""

ANSWER_BYTES_MAX: Final = 64 * 1024
"""Of an answer that says why not."""


@attrs.frozen
class Answered:
    """What a server said. `status` None: nobody answered, and `message` is why."""

    status: int | None
    message: str


async def put(url: str, body: bytes, headers: Mapping[str, str]) -> Answered:
    """One PUT with JSON."""
    return await _send("PUT", url, body, headers)


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> Answered:
    """One POST with JSON."""
    return await _send("POST", url, body, headers)


async def _send(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answered:
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, data=body, headers={"content-type": JSON_TYPE, **headers}) as answer,
        ):
            text = (await answer.content.read(ANSWER_BYTES_MAX)).decode(errors="replace")
            return Answered(answer.status, _message(text))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return Answered(None, reason(error))


def _message(text: str) -> str:
    """Of a Dropshot error; of anything else the beginning."""
    try:
        return str(foreign.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
