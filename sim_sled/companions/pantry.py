"""A Crucible pantry over HTTP: API 2.0.0 and older, the header may be absent (SR 5.2, SA 5.2).

Read before: companions/asking.py, companions/imports.py, core/pantry/pantry.py. Read next: companions/servers.py.
"""

from __future__ import annotations

from typing import Final

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U64, Uuid
from propolis_stub.spec import volumes
from sim_sled.companions.asking import ask, until
from sim_sled.companions.imports import IMPORTS_AT_A_TIME, fetch
from sim_sled.core.companions import Server, Where
from sim_sled.core.errors import TooMany
from sim_sled.core.pantry.pantry import Pantry
from sim_sled.http.app import Api
from sim_sled.http.asking import NO_CONTENT, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.routes import Answer, Call, Route, Router

VERSION: Final = 2
BODY_MAX: Final = 8 * 1024 * 1024
"""Bytes, as the existing simulator: more than a bulk write of 512 KiB in base64."""

_HERE: Final = Where(Server.PANTRY)


class _Attach(Struct, kw_only=True):
    volume_construction_request: volumes.Request


class _AttachBackground(Struct, kw_only=True):
    volume_construction_request: volumes.Request
    job_id: str


class _Digest(Struct, kw_only=True, forbid_unknown_fields=True):
    sha256: str


class _Import(Struct, kw_only=True):
    url: str
    expected_digest: _Digest | None = None


class _Snapshot(Struct, kw_only=True):
    snapshot_id: Uuid


class _Write(Struct, kw_only=True):
    offset: U64
    base64_encoded_data: str


class _Read(Struct, kw_only=True):
    offset: U64
    size: U64


class _Validate(Struct, kw_only=True):
    expected_digest: _Digest
    size_to_validate: U64 | None = None


def api() -> Api:
    """The operations of a pantry."""
    pantry = "/crucible/pantry/0"
    volume = pantry + "/volume/{volume_id}"
    job = pantry + "/job/{job_id}"
    routes = (
        Route("GET", pantry, _status, op="pantry_status"),
        Route("GET", volume, _volume, op="volume_status"),
        Route("POST", volume, _attach, Json(_Attach), op="attach"),
        Route("DELETE", volume, _detach, op="detach"),
        Route("POST", volume + "/background", _background, Json(_AttachBackground), op="attach_activate_background"),
        Route("POST", volume + "/bulk-write", _bulk_write, Json(_Write), op="bulk_write"),
        Route("POST", volume + "/bulk-read", _bulk_read, Json(_Read), op="bulk_read"),
        Route("POST", volume + "/import-from-url", _import, Json(_Import), op="import_from_url"),
        Route("POST", volume + "/snapshot", _snapshot, Json(_Snapshot), op="snapshot"),
        Route("POST", volume + "/scrub", _scrub, op="scrub"),
        Route("POST", volume + "/validate", _validate, Json(_Validate), op="validate"),
        Route("POST", volume + "/replace", _replace, Json(_Attach), op="replace"),
        Route("GET", job + "/is-finished", _is_finished, op="is_job_finished"),
        Route("GET", job + "/ok", _is_ok, op="job_result_ok"),
    )
    return Api(Router(routes), VERSION, unversioned=True, body_max=BODY_MAX)


async def _status(call: Call) -> Answer:
    volumes, jobs = await ask(call, _HERE, Pantry.status)
    return ok({"volumes": volumes, "num_job_handles": jobs})


async def _volume(call: Call) -> Answer:
    told = await ask(call, _HERE, Pantry.told, call.path[0])
    if call.level < VERSION:
        del told["info"]  # version 1 does not tell it
    return ok(told)


async def _attach(call: Call) -> Answer:
    volume_id = call.path[0]
    await ask(call, _HERE, Pantry.attach, volume_id, call.body.volume_construction_request)

    async def active() -> bool:
        return await ask(call, _HERE, Pantry.activated, volume_id)

    await until(active)
    return ok({"id": volume_id})


async def _background(call: Call) -> Answer:
    request = call.body.volume_construction_request
    await ask(call, _HERE, Pantry.attach_in_background, call.path[0], request, call.body.job_id)
    return NO_CONTENT


async def _detach(call: Call) -> Answer:
    await ask(call, _HERE, Pantry.detach, call.path[0])
    return NO_CONTENT


async def _bulk_write(call: Call) -> Answer:
    await ask(call, _HERE, Pantry.bulk_write, call.path[0], call.body.offset, call.body.base64_encoded_data)
    return NO_CONTENT


async def _bulk_read(call: Call) -> Answer:
    data = await ask(call, _HERE, Pantry.bulk_read, call.path[0], call.body.offset, call.body.size)
    return ok({"base64_encoded_data": data})


async def _import(call: Call) -> Answer:
    volume_id = call.path[0]
    job_id = await ask(call, _HERE, Pantry.start_import, volume_id)
    digest = None if call.body.expected_digest is None else call.body.expected_digest.sha256
    work = fetch(call, volume_id, job_id, url=call.body.url, expected=digest)
    if not call.host.in_background(work, IMPORTS_AT_A_TIME):
        await ask(call, _HERE, Pantry.job_done, job_id, "too many imports at a time")
        raise TooMany(f"{IMPORTS_AT_A_TIME} imports are on their way")
    return ok({"job_id": job_id})


async def _snapshot(call: Call) -> Answer:
    await ask(call, _HERE, Pantry.snapshot, call.path[0], call.body.snapshot_id.uuid)
    return NO_CONTENT


async def _scrub(call: Call) -> Answer:
    return ok({"job_id": await ask(call, _HERE, Pantry.start_job, call.path[0])})


async def _validate(call: Call) -> Answer:
    digest, size = call.body.expected_digest.sha256, call.body.size_to_validate
    return ok({"job_id": await ask(call, _HERE, Pantry.validate, call.path[0], digest, size)})


async def _replace(call: Call) -> Answer:
    return ok(await ask(call, _HERE, Pantry.replace, call.path[0], call.body.volume_construction_request))


async def _is_finished(call: Call) -> Answer:
    return ok({"job_is_finished": await ask(call, _HERE, Pantry.is_finished, call.path[0])})


async def _is_ok(call: Call) -> Answer:
    """Waits for the job's end, as the original does."""
    result: bool | None = None

    async def ended() -> bool:
        nonlocal result
        result = await ask(call, _HERE, Pantry.is_ok, call.path[0])
        return result is not None

    await until(ended)
    return ok({"job_result_ok": result})
