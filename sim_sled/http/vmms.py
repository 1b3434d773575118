"""Operations on VMMs: 1 to 4 of SA 3.1 and the three that only simulators have (2.8).

Read before: http/routes.py. Read next: http/operations.py.
"""

from __future__ import annotations

from nexus_client.dropshot.json import encode
from sim_sled.core import contract
from sim_sled.http.bodies_register import to_registration
from sim_sled.http.bodies_small import MigrationResult
from sim_sled.http.routes import Answer, Call

NO_CONTENT = Answer(204)


async def register(call: Call) -> Answer:
    host = call.host
    item = contract.Register(host.ticket(), call.sled_id, call.propolis_id, to_registration(call.body))
    return Answer(200, encode(await host.submit(item)))


async def unregister(call: Call) -> Answer:
    host = call.host
    return Answer(200, encode(await host.submit(contract.Unregister(host.ticket(), call.sled_id, call.propolis_id))))


async def get_state(call: Call) -> Answer:
    host = call.host
    return Answer(200, encode(await host.submit(contract.GetState(host.ticket(), call.sled_id, call.propolis_id))))


async def put_state(call: Call) -> Answer:
    host = call.host
    item = contract.PutState(host.ticket(), call.sled_id, call.path[0], call.body.state)
    return Answer(200, encode(await host.submit(item)))


async def poke(call: Call) -> Answer:
    host = call.host
    await host.submit(contract.Poke(host.ticket(), call.sled_id, call.propolis_id, drain=True))
    return NO_CONTENT


async def poke_single_step(call: Call) -> Answer:
    host = call.host
    await host.submit(contract.Poke(host.ticket(), call.sled_id, call.propolis_id, drain=False))
    return NO_CONTENT


async def sim_migration_source(call: Call) -> Answer:
    host, body = call.host, call.body
    succeeds = body.result is MigrationResult.SUCCESS
    item = contract.SimMigrationSource(
        host.ticket(), call.sled_id, call.propolis_id, body.migration_id.uuid, succeeds
    )
    await host.submit(item)
    return NO_CONTENT
