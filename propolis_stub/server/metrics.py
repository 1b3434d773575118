"""What a stand-alone Propolis counts, and its metrics for Prometheus.

Read before: nexus_client/dropshot/observing.py. Read next: server/host.py, server/control.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nexus_client.dropshot.observing import Family, one

if TYPE_CHECKING:
    from propolis_stub.server.host import StandaloneHost


def families(host: StandaloneHost) -> Iterator[Family]:
    """All metrics of one Propolis."""
    counters, vm, server = host.counters, host.vm, host.server
    yield Family(
        "propolis_stub_transitions_total", "Changes of the VM's state; a new VM comes from ''", "counter",
        ("from", "to"), dict(counters.transitions),
    )  # fmt: skip
    yield one("propolis_stub_publications_total", "States told to monitors", "counter", counters.publications)
    yield one("propolis_stub_crashes_total", "Crashes on demand", "counter", counters.crashes)
    state, component = (0, 0) if vm.queue is None else (len(vm.queue.state_queue), len(vm.queue.component_queue))
    yield Family(
        "propolis_stub_queued_requests", "The request queue", "gauge", ("queue",),
        {("state",): state, ("component",): component},
    )  # fmt: skip
    yield one("propolis_stub_vm_present", "Whether there is a VM", "gauge", vm.state is not None)
    yield one("propolis_stub_monitors_waiting", "Monitors that wait for news", "gauge", server.channel.waiting)
    clients = 0 if server.console is None else server.console.clients
    yield one("propolis_stub_console_clients", "Open serial consoles", "gauge", clients)
    yield one("propolis_stub_console_written_bytes_total", "What the guest wrote to its console", "counter",
              server.serial.history.total)  # fmt: skip
