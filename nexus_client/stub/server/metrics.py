"""What the Nexus model counts, and its metrics for Prometheus. By word and by sled, never by instance.

Read before: dropshot/observing.py. Read next: stub/server/host.py, stub/server/control.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nexus_client.dropshot.observing import Family, one

if TYPE_CHECKING:
    from nexus_client.stub.server.host import Host


def families(host: Host) -> Iterator[Family]:
    """All metrics of the model."""
    yield from host.counters.families()
    nexus = host.nexus
    yield one("sim_nexus_up", "1 while it takes requests, 0 after a crash", "gauge", nexus.up)
    states = Counter(nexus.public_state(row.id).value for row in nexus.instances())
    yield Family(
        "sim_nexus_instances", "Instances by public state", "gauge", ("state",),
        {(state,): count for state, count in states.items()},
    )  # fmt: skip
    sagas: Counter[tuple[str, ...]] = Counter(
        (saga.kind.value, "stuck" if saga.stuck else "running") for saga in nexus.sagas
    )
    yield Family("sim_nexus_sagas", "Sagas under way", "gauge", ("kind", "state"), dict(sagas))
    yield one("sim_nexus_sled_calls_open", "Calls to sleds that are not answered", "gauge", host.on_the_network)
    yield Family(
        "sim_nexus_faults_fired_total", "Faults of the internal API that struck", "counter", ("do",),
        {(do,): count for do, count in host.faults.struck.items()},
    )  # fmt: skip
