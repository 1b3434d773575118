"""What rules want of Nexus itself, done to the model that runs in this process.

Read next: daemon/on_sockets.py, daemon/small_rack.py.
"""

from __future__ import annotations

from nexus_client.stub import contract as nx
from nexus_client.stub.server.serve import NexusServer
from sim_sled.engine.plans import Expunge, Power, RestartNexus


async def do_to_model(server: NexusServer, effect: Power | Expunge | RestartNexus) -> None:
    """As the rack's management network and a supervisor of Nexus would; returns once the model has it."""
    if isinstance(effect, Power):
        power = "a0" if effect.on else "off"
        await server.host.submit(lambda ticket: nx.SetSled(ticket, effect.sled_id, power=power))
    elif isinstance(effect, Expunge):
        await server.host.submit(lambda ticket: nx.SetSled(ticket, effect.sled_id, policy="expunged"))
    elif effect.point == "now":
        server.restart(effect.down_us // 1000)
    else:
        server.restart_when_crashed(effect.down_us // 1000)
        point = nx.CrashPoint(effect.point)
        await server.host.submit(lambda ticket: nx.ArmCrash(ticket, point))
