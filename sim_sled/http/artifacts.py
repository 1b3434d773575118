"""The artifact store over HTTP (SR 4.2).

Read before: core/artifacts/store.py, http/uploads.py. Read next: http/operations.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
from yarl import URL

from nexus_client.dropshot.json import Json
from sim_sled.core.artifacts.store import COPIES, ArtifactConfig, Artifacts, key_of
from sim_sled.core.errors import BadRequest, Internal, TooMany
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.bodies_omicron import Generation, Sha256
from sim_sled.http.routes import Answer, Call
from sim_sled.http.uploads import UPLOAD_MAX, pieces_of

DEPOT_VERSION: Final = "1.0.0"
DEPOT_WAIT_S: Final = 15.0
"""How long a depot may take to begin its answer."""

COPIES_AT_A_TIME: Final = 64
"""Copies in the background: Nexus asks for eight at a time (SR 4.2)."""

_log = logging.getLogger(__name__)


class ConfigBody(Struct, kw_only=True):
    generation: Generation
    artifacts: tuple[Sha256, ...]


class CopyBody(Struct, kw_only=True):
    depot_base_url: str


CONFIG: Final = Json(ConfigBody)
COPY: Final = Json(CopyBody)


async def get_config(call: Call) -> Answer:
    return ok(_config_json(await ask(call, Artifacts, Artifacts.get_config)))


def _config_json(config: ArtifactConfig) -> dict[str, object]:
    return {"generation": config.generation, "artifacts": sorted(config.artifacts)}


async def put_config(call: Call) -> Answer:
    artifacts = frozenset(str(each) for each in call.body.artifacts)
    await ask(call, Artifacts, Artifacts.put_config, ArtifactConfig(call.body.generation, artifacts))
    return NO_CONTENT


async def list_artifacts(call: Call) -> Answer:
    generation, found = await ask(call, Artifacts, Artifacts.list)
    return ok({"generation": generation, "list": found})


async def put_artifact(call: Call) -> Answer:
    sha256 = str(call.path[0])
    await ask(call, Artifacts, Artifacts.check_put, sha256, call.query["generation"])
    written = await _store(call, sha256, pieces_of(call))
    return ok({"datasets": COPIES, "successful_writes": written})


async def _store(call: Call, sha256: str, pieces: AsyncIterator[bytes]) -> int:
    async with call.host.blobs(call.sled_id).incoming() as incoming:
        await incoming.receive(pieces)
        if incoming.sha256 != sha256:
            raise BadRequest(f"Digest mismatch: expected {sha256}, computed {incoming.sha256}")
        await incoming.keep(key_of(sha256))
        return await ask(call, Artifacts, Artifacts.stored, sha256, incoming.size, incoming.head)


async def copy_from_depot(call: Call) -> Answer:
    """Answers when the depot has begun to; the rest goes on without the caller."""
    sha256 = str(call.path[0])
    await ask(call, Artifacts, Artifacts.check_put, sha256, call.query["generation"])
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if not call.host.in_background(_copy(call, sha256, begun), COPIES_AT_A_TIME):
        raise TooMany(f"{COPIES_AT_A_TIME} copies are on their way")
    await begun
    return ok({}, 202)


async def _copy(call: Call, sha256: str, begun: asyncio.Future[None]) -> None:
    """`begun` gets the depot's answer; what fails after that is only logged, as in the original."""
    url = f"{call.body.depot_base_url}/artifact/sha256/{sha256}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=DEPOT_WAIT_S, sock_read=DEPOT_WAIT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.get(URL(url), headers={"api-version": DEPOT_VERSION}) as answer,
        ):
            if answer.status != 200:
                raise Internal(f"the depot answers {answer.status}")  # noqa: TRY301 -- told as all that can fail here
            begun.set_result(None)
            await _store(call, sha256, _limited(answer.content.iter_any()))
    except asyncio.CancelledError:
        if not begun.done():
            begun.cancel()
        raise
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError, Internal, BadRequest) as error:
        if not begun.done():
            begun.set_exception(Internal(f"no artifact {sha256} from {url}: {error}"))
        else:
            _log.warning("copy of artifact %s from %s failed: %s", sha256, url, error)


async def _limited(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > UPLOAD_MAX:
            raise BadRequest(f"more than {UPLOAD_MAX} bytes")
        yield piece
