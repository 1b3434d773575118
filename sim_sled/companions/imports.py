"""Imports from a URL into a volume, in the background (SR 5.2).

The original fetches ranges; so does this. Only addresses of this machine and of underlay networks are fetched from: a
simulator is no door to the world.

Read before: companions/asking.py. Read next: companions/pantry.py.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv6Network, ip_address
from typing import Final

import aiohttp
from yarl import URL

from sim_sled.companions.asking import ask
from sim_sled.core.companions import Server, Where
from sim_sled.core.errors import BadRequest, Missing, SledError
from sim_sled.core.pantry.pantry import CHUNK_MAX, Pantry
from sim_sled.http.routes import Call

IMPORTS_AT_A_TIME: Final = 64
"""Background work of one daemon: nobody imports so many images at once."""

WAIT_S: Final = 15.0
"""How long a server may take to begin, and between two pieces."""

_UNDERLAY: Final = IPv6Network("fd00::/8")
_HERE: Final = Where(Server.PANTRY)


async def fetch(call: Call, volume_id: str, job_id: str, *, url: str, expected: str | None) -> None:
    """Fetch, write, compare the SHA-256; the job gets the result."""
    why: str | None = None
    try:
        found = await _copy(call, volume_id, _allowed(url))
        if expected is not None and found != expected.lower():
            why = f"sha256 is {found}, not {expected}"
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, SledError) as error:
        why = f"{url}: {error}"
    await ask(call, _HERE, Pantry.job_done, job_id, why)


def _allowed(text: str) -> URL:
    url = URL(text)
    if url.scheme not in {"http", "https"} or url.host is None:
        raise ValueError("no http or https URL")
    if url.host != "localhost":
        address = ip_address(url.host)  # names are none: whoever answers for one could answer anything
        if not (address.is_loopback or (address.version == 6 and address in _UNDERLAY)):
            raise ValueError("only addresses of this machine and of underlay networks are fetched from")
    return url


async def _copy(call: Call, volume_id: str, url: URL) -> str:
    """Returns the SHA-256 of all bytes."""
    digest = hashlib.sha256()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=WAIT_S, sock_read=WAIT_S)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        async with session.head(url, allow_redirects=False) as head:
            if head.status != 200:
                # nor is a redirection followed: it may lead to where nothing is fetched from
                raise Missing(f"it is answered with {head.status}")
            size = head.content_length
        if size is None:
            raise BadRequest("the server does not tell a length")
        for offset in range(0, size, CHUNK_MAX):
            last = min(offset + CHUNK_MAX, size) - 1
            wanted = {"range": f"bytes={offset}-{last}"}
            async with session.get(url, headers=wanted, allow_redirects=False) as answer:
                if answer.status != 206:
                    raise Missing(f"bytes {offset} to {last} are answered with {answer.status}")
                data = await answer.content.readexactly(last + 1 - offset)
            digest.update(data)
            # the last block is filled up with zeros, as a disk has only whole ones
            block = (await ask(call, _HERE, Pantry.volume, volume_id)).request.block_size or 1
            await ask(call, _HERE, Pantry.write, volume_id, offset, data + bytes(-len(data) % block))
    return digest.hexdigest()
