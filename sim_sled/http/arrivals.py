"""How a VMM comes to a sled: registered by Nexus, and by a migration whose source only a simulator imagines (SA 2.8).

Imported at the first of them, with all shapes of a registration.

Read before: http/bodies_register.py, http/bodies_small.py, http/vmms.py. Read next: http/operations.py.
"""

from __future__ import annotations

from nexus_client.dropshot.json import encode
from sim_sled.core import contract
from sim_sled.http.bodies_register import to_registration
from sim_sled.http.bodies_small import MigrationResult
from sim_sled.http.routes import Answer, Call
from sim_sled.http.vmms import NO_CONTENT


async def register(call: Call) -> Answer:
    host = call.host
    item = contract.Register(host.ticket(), call.sled_id, call.propolis_id, to_registration(call.body))
    return Answer(200, encode(await host.submit(item)))


async def sim_migration_source(call: Call) -> Answer:
    host, body = call.host, call.body
    succeeds = body.result is MigrationResult.SUCCESS
    item = contract.SimMigrationSource(
        host.ticket(), call.sled_id, call.propolis_id, body.migration_id.uuid, succeeds
    )
    await host.submit(item)
    return NO_CONTENT
