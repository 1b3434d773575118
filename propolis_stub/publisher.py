"""What the monitor tells of one VM, and the only hand on its generation (PR 3.7).

A publication is one atomic update of generation, state and both migration fields. Each move of the machine is one,
and adds exactly 1. Migration fields are cumulative: a plain state publication keeps both.

Read before: machine.py. Read next: driver.py.
"""

from __future__ import annotations

from msgspec import Struct

from propolis_stub import machine
from propolis_stub.table import Birth, Event
from propolis_stub.types import InstanceState, MigrationStatus, Publication


class Publisher(Struct, eq=False, gc=False):
    """`state` is None and `gen` 0 until the first publication; only `machine` moves `state`."""

    state: InstanceState | None = None
    gen: int = 0
    migration_in: MigrationStatus | None = None
    migration_out: MigrationStatus | None = None

    def forget(self) -> None:
        """There is no VM any more: the next one starts over."""
        machine.forget(self)
        self.gen = 0
        self.migration_in = self.migration_out = None

    @property
    def newest(self) -> Publication | None:
        """None before the first."""
        if self.gen == 0:
            return None
        assert self.state is not None
        return Publication(self.gen, self.state, self.migration_in, self.migration_out)

    def begin(self, birth: Birth, into: MigrationStatus | None = None) -> Publication:
        """The first one of a VM."""
        machine.begin(self, birth)
        return self._publish(into, None)

    def fire(
        self, event: Event, *, into: MigrationStatus | None = None, out: MigrationStatus | None = None
    ) -> Publication:
        """Moves by one row and publishes; a given migration status replaces the last one of its direction."""
        machine.fire(self, event)
        return self._publish(into, out)

    def _publish(self, into: MigrationStatus | None, out: MigrationStatus | None) -> Publication:
        assert self.state is not None
        if into is not None:
            self.migration_in = into
        if out is not None:
            self.migration_out = out
        self.gen += 1
        return Publication(self.gen, self.state, self.migration_in, self.migration_out)
