"""Local storage, disk snapshots and the disks of old over HTTP (SR 3.4, 4.3, 4.9).

Read before: http/asking.py. Read next: http/operations.py.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import Uuid, utc
from sim_sled.core.storage.local import LocalDataset, LocalStorage
from sim_sled.core.storage.old_disks import DiskRuntime, DiskState, OldDisks
from sim_sled.core.storage.volumes import Volumes
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.bodies_omicron import ByteCount, Generation, tagged, union
from sim_sled.http.routes import Answer, Call


class _Sizes(Struct, kw_only=True):
    dataset_size: ByteCount
    volume_size: ByteCount


class EnsureBody(_Sizes, kw_only=True):
    zpool_id: Uuid
    dataset_id: Uuid
    encrypted_at_rest: bool


class DeleteBody(Struct, kw_only=True):
    zpool_id: Uuid
    dataset_id: Uuid
    encrypted_at_rest: bool


_States: Any = union(
    *(
        tagged(f"Disk_{state}", state, "state")
        for state in (
            "creating",
            "detached",
            "import_ready",
            "importing_from_url",
            "importing_from_bulk_writes",
            "finalizing",
            "maintenance",
            "destroyed",
            "faulted",
        )
    ),
    *(tagged(f"Disk_{state}", state, "state", instance=Uuid) for state in ("attaching", "attached", "detaching")),
)
_Wanted: Any = union(
    *(tagged(f"Want_{state}", state, "state") for state in ("detached", "destroyed", "faulted")),
    tagged("Want_attached", "attached", "state", instance=Uuid),
)


class RuntimeBody(Struct, kw_only=True):
    disk_state: _States
    gen: Generation
    time_updated: datetime


class DiskBody(Struct, kw_only=True):
    initial_runtime: RuntimeBody
    target: _Wanted


ENSURE: Final = Json(EnsureBody)
DELETE: Final = Json(DeleteBody)
OLD_ENSURE: Final = Json(_Sizes)
DISK: Final = Json(DiskBody)


async def ensure(call: Call) -> Answer:
    body = call.body
    wanted = LocalDataset(body.dataset_size, body.volume_size)
    await ask(
        call,
        LocalStorage,
        LocalStorage.ensure,
        body.zpool_id.uuid,
        body.dataset_id.uuid,
        wanted,
        body.encrypted_at_rest,
    )
    return NO_CONTENT


async def delete(call: Call) -> Answer:
    body = call.body
    pool, dataset = body.zpool_id.uuid, body.dataset_id.uuid
    await ask(call, LocalStorage, LocalStorage.delete, pool, dataset, body.encrypted_at_rest)
    return NO_CONTENT


async def old_ensure(call: Call) -> Answer:
    """9 to 16: the ids are in the path, and encryption goes without saying."""
    pool, dataset = call.path
    wanted = LocalDataset(call.body.dataset_size, call.body.volume_size)
    await ask(call, LocalStorage, LocalStorage.ensure, pool, dataset, wanted, True)
    return NO_CONTENT


async def old_delete(call: Call) -> Answer:
    pool, dataset = call.path
    await ask(call, LocalStorage, LocalStorage.delete, pool, dataset, True)
    return NO_CONTENT


async def snapshot(call: Call) -> Answer:
    propolis_id, disk_id = call.path
    made = await ask(call, Volumes, Volumes.snapshot, propolis_id, disk_id, call.body.snapshot_id.uuid)
    return ok({"snapshot_id": str(made)})


async def put_disk(call: Call) -> Answer:
    body = call.body
    runtime = body.initial_runtime
    when = utc(runtime.time_updated).isoformat().replace("+00:00", "Z")
    first = DiskRuntime(_state(runtime.disk_state), runtime.gen, when)
    there = await ask(call, OldDisks, OldDisks.ensure, call.path[0], first, _state(body.target))
    state: dict[str, object] = {"state": there.state.state}
    if there.state.instance is not None:
        state["instance"] = str(there.state.instance)
    return ok({"disk_state": state, "gen": there.gen, "time_updated": there.updated})


def _state(told: Any) -> DiskState:
    instance = getattr(told, "instance", None)
    return DiskState(told.__struct_config__.tag, None if instance is None else instance.uuid)
