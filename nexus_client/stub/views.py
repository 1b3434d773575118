"""How records are shown: the `Instance` of the external API (NX 2), and everything behind it for the control
API.

Values are plain dicts for JSON; times are aware datetimes, which msgspec writes as RFC 3339.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from nexus_client.stub.auto_restart import cooldown_ends_us
from nexus_client.stub.contract import Happened
from nexus_client.stub.records import AutoRestartPolicy, Instance, Migration, Sled, Vmm
from nexus_client.types import time_of

if TYPE_CHECKING:
    from nexus_client.stub.context import Context
from nexus_client.stub.scope import Facts


def _time(when_us: int | None) -> datetime | None:
    return None if when_us is None else time_of(when_us)


def instance_view(ctx: Facts, row: Instance) -> dict[str, Any]:
    """`Instance` as nexus-lockstep.json has it."""
    vmm = ctx.records.active_vmm(row)
    last = row.time_last_auto_restarted
    policy = row.auto_restart_policy
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "hostname": row.hostname,
        "ncpus": row.ncpus,
        "memory": row.memory,
        "project_id": row.project_id,
        "run_state": ctx.public(row).value,
        "time_created": _time(row.time_created),
        "time_modified": _time(row.time_created),
        "time_run_state_updated": _time(row.time_state_updated if vmm is None else vmm.time_state_updated),
        "time_last_auto_restarted": _time(last),
        "auto_restart_enabled": policy is not AutoRestartPolicy.NEVER,
        "auto_restart_policy": None if policy is None else policy.value,
        "auto_restart_cooldown_expiration": _time(cooldown_ends_us(row, ctx.config.cooldown_us)),
        "enable_jumbo_frames": False,
        "boot_disk_id": ctx.named_id("disk", str(row.id)),
        "cpu_platform": None,
    }


def vmm_view(row: Vmm) -> dict[str, Any]:
    return {
        "id": row.id,
        "sled_id": row.sled_id,
        "propolis_addr": row.address,
        "state": row.state.value,
        "state_generation": row.state_generation,
        "time_state_updated": _time(row.time_state_updated),
        "failure_reason": None if row.failure_reason is None else row.failure_reason.value,
        "time_deleted": _time(row.time_deleted),
    }


def migration_view(row: Migration) -> dict[str, Any]:
    return {
        "id": row.id,
        "source_propolis_id": row.source_propolis_id,
        "target_propolis_id": row.target_propolis_id,
        "source_state": row.source_state.value,
        "source_gen": row.source_gen,
        "target_state": row.target_state.value,
        "target_gen": row.target_gen,
        "time_deleted": _time(row.time_deleted),
    }


def record_view(row: Instance) -> dict[str, Any]:
    return {
        "state": row.state.value,
        "state_generation": row.state_generation,
        "active_propolis_id": row.active_propolis_id,
        "target_propolis_id": row.target_propolis_id,
        "migration_id": row.migration_id,
        "updater_id": row.updater_id,
        "updater_gen": row.updater_gen,
        "intended_state": row.intended_state.value,
        "time_deleted": _time(row.time_deleted),
    }


def timeline_view(lines: list[Happened]) -> list[dict[str, Any]]:
    return [
        {"time": time_of(line.at_us), "what": line.what, "text": line.text, "propolis_id": line.propolis_id}
        for line in lines
    ]


def full_view(ctx: Context, row: Instance) -> dict[str, Any]:
    """Everything the model knows of one instance: what users see, the records behind it, and how it came about."""
    active = ctx.records.active_vmm(row)
    return {
        "instance": instance_view(ctx, row),
        "sled_id": None if active is None else active.sled_id,
        "record": record_view(row),
        "vmms": [vmm_view(vmm) for vmm in ctx.records.vmms_of(row.id)],
        "migrations": [migration_view(migration) for migration in ctx.records.migrations_of(row.id)],
        "external_ips": [
            {"address": ip.address, "kind": ip.kind.value, "state": ip.state.value}
            for ip in ctx.records.external_ips_of(row.id)
        ],
        "timeline": timeline_view(list(ctx.timelines.get(row.id, ()))),
    }


def sled_view(ctx: Facts, row: Sled) -> dict[str, Any]:
    vmms = [vmm for vmm in ctx.records.vmms.values() if vmm.sled_id == row.id and vmm.time_deleted is None]
    return {
        "id": row.id,
        "sa_address": row.info.sa_address,
        "generation": row.info.generation,
        "policy": row.policy,
        "state": row.state,
        "power": row.power,
        "vmms": [{"id": vmm.id, "instance_id": vmm.instance_id, "state": vmm.state.value} for vmm in vmms],
    }
