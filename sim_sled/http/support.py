"""Diagnostics, logs and zone bundles over HTTP (SR 4.7).

Read before: http/asking.py. Read next: http/operations.py.
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from enum import Enum
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U8, U32, U64
from sim_sled.core.diagnostics.queries import LOG_LINES_MAX, Diagnostics
from sim_sled.core.diagnostics.zone_bundles import ZoneBundle, ZoneBundles
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.ranges import ACCEPT
from sim_sled.http.routes import Answer, Call, RawAnswer

_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)
"""Time of all archived files: the same content gives the same bytes."""


class Dimension(Enum):
    CAUSE = "cause"
    TIME = "time"


class Duration(Struct, kw_only=True):
    """Nanoseconds beyond a second are carried, as serde does."""

    secs: U64
    nanos: U32

    def __post_init__(self) -> None:
        if self.secs + self.nanos // 10**9 >= 2**64:
            raise ValueError("overflow deserializing Duration")

    @property
    def carried(self) -> tuple[int, int]:
        """Seconds, and nanoseconds below one."""
        return self.secs + self.nanos // 10**9, self.nanos % 10**9


Priority = Annotated[tuple[Dimension, ...], msgspec.Meta(min_length=2, max_length=2)]


class ContextUpdate(Struct, kw_only=True):
    period: Duration | None = None
    storage_limit: U8 | None = None
    priority: Priority | None = None


CONTEXT: Final = Json(ContextUpdate)


# ---- queries and logs ----------------------------------------------------------------------------------------------


async def query(call: Call) -> Answer:
    assert call.request is not None, "requests come from the server"
    which = [part for part in call.request.path.split("/") if part][-1]
    return ok(await ask(call, Diagnostics, Diagnostics.run, which))


async def log_zones(call: Call) -> Answer:
    return ok(await ask(call, Diagnostics, Diagnostics.log_zones))


async def download_logs(call: Call) -> RawAnswer:
    """A zone without logs, also one that is not there, has an empty archive."""
    zone: str = call.path[0]
    services = await ask(call, Diagnostics, Diagnostics.services, zone)
    vmm = await ask(call, Diagnostics, Diagnostics.vmm_of_zone, zone)
    lines = call.host.log_lines(call.sled_id, vmm)[-LOG_LINES_MAX:] if services else []
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for service in services:
            about = zipfile.ZipInfo(f"{service}/current/oxide-{service}:default.log", _LONG_AGO)
            about.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(about, "".join(f"{_bunyan(service, zone, *line)}\n" for line in lines))
    return RawAnswer(200, "application/zip", archive.getvalue(), headers=ACCEPT)


def _bunyan(service: str, zone: str, time: str, text: str) -> str:
    record: dict[str, Any] = {"msg": text, "v": 0, "name": service, "level": 30, "time": time}
    return json.dumps(record | {"hostname": zone, "pid": 1})


# ---- zone bundles --------------------------------------------------------------------------------------------------


def _bundle_json(bundle: ZoneBundle) -> dict[str, object]:
    return {
        "id": {"zone_name": bundle.zone_name, "bundle_id": str(bundle.bundle_id)},
        "time_created": bundle.created,
        "version": 0,
        "cause": "terminated_instance",
    }


async def list_all(call: Call) -> Answer:
    found = await ask(call, ZoneBundles, ZoneBundles.all, call.query.get("filter", ""))
    return ok([_bundle_json(each) for each in found])


async def list_zone(call: Call) -> Answer:
    found = await ask(call, ZoneBundles, ZoneBundles.of_zone, call.path[0])
    return ok([_bundle_json(each) for each in found])


async def get_bundle(call: Call) -> RawAnswer:
    name, bundle_id = call.path
    bundle = await ask(call, ZoneBundles, ZoneBundles.get, name, bundle_id)
    return RawAnswer(200, "application/gzip", _tar(bundle, call), headers=ACCEPT)


def _tar(bundle: ZoneBundle, call: Call) -> bytes:
    propolis_id = UUID(bundle.zone_name.rpartition("_")[2])
    lines = call.host.log_lines(call.sled_id, propolis_id)
    metadata = (
        f'time_created = "{bundle.created}"\nversion = 0\ncause = "terminated_instance"\n\n'
        f'[id]\nzone_name = "{bundle.zone_name}"\nbundle_id = "{bundle.bundle_id}"\n'
    )
    log = "".join(f"{_bunyan('propolis-server', bundle.zone_name, *line)}\n" for line in lines)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (("metadata.toml", metadata), ("system-illumos-propolis-server:default.log", log)):
            about = tarfile.TarInfo(name)
            about.size = len(text.encode())
            archive.addfile(about, io.BytesIO(text.encode()))
    return packed.getvalue()


async def delete_bundle(call: Call) -> Answer:
    name, bundle_id = call.path
    await ask(call, ZoneBundles, ZoneBundles.delete, name, bundle_id)
    return NO_CONTENT


async def cleanup(call: Call) -> Answer:
    return ok(await ask(call, ZoneBundles, ZoneBundles.cleanup))


async def get_context(call: Call) -> Answer:
    context = await ask(call, ZoneBundles, ZoneBundles.get_context)
    return ok(
        {
            "period": {"secs": context.period_secs, "nanos": context.period_nanos},
            "storage_limit": context.storage_limit,
            "priority": list(context.priority),
        }
    )


async def put_context(call: Call) -> Answer:
    body = call.body
    period = None if body.period is None else body.period.carried
    priority = None if body.priority is None else (body.priority[0].value, body.priority[1].value)
    await ask(call, ZoneBundles, ZoneBundles.update, period, body.storage_limit, priority)
    return NO_CONTENT


async def utilization(call: Call) -> Answer:
    return ok(await ask(call, ZoneBundles, ZoneBundles.utilization))
