"""What one turn of a rack has at hand: the time, who watches, whose deadlines move, and whom to look at in the end.

One turn: an input is judged and carried out (rack.py), Propolis machines move, messages between migrating VMMs are
delivered until there are none (links.py), then each VMM that Propolis published for is looked at once (`Vmm.see`) and
its new record goes to its sled's outbox. Nothing waits within a turn.

Read before: core/contract.py, core/scheduler.py, core/sled.py, core/vmm.py. Read next: core/links.py.
"""

from __future__ import annotations

import attrs

from sim_sled.core.happenings import Happening, Kind, Watch
from sim_sled.core.scheduler import Scheduler
from sim_sled.core.vmm import Vmm


@attrs.define(eq=False)
class Turn:
    """See the module. `watch` is told what happens as it happens; None: nobody watches, and nothing is made up."""

    watch: Watch | None = None
    now_us: int = 0
    scheduler: Scheduler = attrs.field(factory=Scheduler)
    touched: list[Vmm] = attrs.field(factory=list)

    def tell(self, vmm: Vmm, kind: Kind, data: object) -> None:
        if self.watch is not None:
            self.watch(Happening(self.now_us, vmm.sled_id, vmm.propolis_id, kind, data))

    def rearm(self, vmm: Vmm) -> None:
        """The VMM's deadline is what it says now."""
        if vmm.registered:
            self.scheduler.set(vmm, vmm.deadline_us())

    def take_touched(self) -> list[Vmm]:
        touched, self.touched = self.touched, []
        return touched
