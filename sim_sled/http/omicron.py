"""The sled's configuration and inventory over HTTP (SR 3.1, 3.6).

Read before: http/asking.py, http/bodies_inventory.py, http/bodies_omicron.py. Read next: http/operations.py.
"""

from __future__ import annotations

from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.bodies_inventory import inventory_of
from sim_sled.http.routes import Answer, Call


async def put_config(call: Call) -> Answer:
    await ask(call, Ledger, configure.put, call.body)
    return NO_CONTENT


async def inventory(call: Call) -> Answer:
    return ok(inventory_of(await ask(call, Inventory, Inventory.read), call.level))
