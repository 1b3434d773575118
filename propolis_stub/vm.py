"""One Propolis process as a pure machine: `handle(input, now_us) -> effects` and `next_deadline_us()` (PR 3).

`Vm` is the door: it takes an input, hands it to the one part that it concerns, and lets the driver run until nothing
is due. The parts, each with its own file: the publisher (what the monitor tells), the guest's events, what is waited
for, the wrapper (level and request queue), and the driver, which has them all.

Read before: contract.py, driver.py, migration/script.py. Read next: sim_sled/core/vmm.py.
"""

from __future__ import annotations

from typing import Final, assert_never
from uuid import UUID

from propolis_stub import contract
from propolis_stub.contract import Effect, Input
from propolis_stub.driver import Driver, Hazard
from propolis_stub.errors import RepairingRejected
from propolis_stub.request_queue import Disposition, Queued, RequestQueue, RequestType
from propolis_stub.types import InstanceState, Level, MigrationStatus, Publication, RequestKind
from propolis_stub.waiting import MILESTONES, Pacer, Point, Waiting

__all__ = ["Hazard", "Vm"]

_REQUESTS: Final = {
    RequestKind.RUN: Queued(RequestType.START),
    RequestKind.STOP: Queued(RequestType.STOP),
    RequestKind.REBOOT: Queued(RequestType.REBOOT),
}
_DISPOSED: Final = {disposition: contract.Disposed(disposition) for disposition in Disposition}


class Vm:
    """See the module. `stepped`: milestones wait for a `Step` instead of time."""

    __slots__ = ("_driver",)

    def __init__(
        self,
        vm_id: UUID,
        pacer: Pacer,
        *,
        stepped: bool = False,
        milestones: frozenset[Point] = MILESTONES,
        strict: Hazard = Hazard.NONE,
    ) -> None:
        self._driver = Driver(Waiting(vm_id, pacer, stepped=stepped, milestones=milestones), strict)

    # --- what is seen of it -----------------------------------------------------------------------------------------

    @property
    def level(self) -> Level:
        return self._driver.wrapper.level

    @property
    def queue(self) -> RequestQueue | None:
        """To be looked at only. None where there is no VM, and from its rundown on."""
        return self._driver.wrapper.queue

    @property
    def state(self) -> InstanceState | None:
        """None before the first publication."""
        return self._driver.publisher.state

    @property
    def gen(self) -> int:
        """0 before the first publication."""
        return self._driver.publisher.gen

    @property
    def migration_in(self) -> MigrationStatus | None:
        return self._driver.publisher.migration_in

    @property
    def migration_out(self) -> MigrationStatus | None:
        return self._driver.publisher.migration_out

    @property
    def publication(self) -> Publication | None:
        """The newest one; None before the first."""
        return self._driver.publisher.newest

    @property
    def strict(self) -> Hazard:
        """Where it hangs or aborts as the original does; may be changed at any time."""
        return self._driver.strict

    @strict.setter
    def strict(self, hazards: Hazard) -> None:
        self._driver.strict = hazards

    @property
    def stepped(self) -> bool:
        return self._driver.waiting.stepped

    @property
    def can_step(self) -> bool:
        """Whether a `Step` would pass the point where the VM stands: not what lasts for ever, nor a peer's turn."""
        return self._driver.waiting.can_step

    @property
    def objects_locked(self) -> bool:
        """Whether the driver has the VM's objects to itself. Some calls of the API wait for that to end (PR 3.1)."""
        return self._driver.locks_objects

    def resting_state(self) -> InstanceState:
        """Where the VM will be once everything accepted is done, if nothing fails that has not failed yet."""
        return self._driver.resting_state()

    def waits_for(self) -> str | None:
        """What has to happen next, in words; None: nothing is under way."""
        return self._driver.waits_for()

    def next_deadline_us(self) -> int | None:
        """When a `Tick` is due; None: nothing to wait for, or not by time."""
        due_us = self._driver.waiting.due_us
        return None if due_us is None or due_us < 0 or self._driver.held else due_us

    # --- the door ---------------------------------------------------------------------------------------------------

    def handle(self, item: Input, now_us: int) -> list[Effect]:
        """Takes one input. Raises the refusals named in contract.py; a refused input has changed nothing."""
        out: list[Effect] = []
        driver = self._driver
        match item:
            case contract.Tick():
                pass
            case contract.Request():
                request = _REQUESTS.get(item.kind)
                if request is None:  # a caller without type checks, with a state instead of a request
                    raise RepairingRejected("it cannot be asked for")
                out.append(_DISPOSED[driver.wrapper.require_queue().try_queue(request)])
            case contract.Crash():
                driver.crash(out)
            case contract.Step():
                driver.step(now_us, out)
            case contract.EnsureSpec():
                driver.ensure_spec(item, now_us, out)
            case contract.EnsureTarget():
                driver.ensure_target(item, now_us, out)
            case contract.MigrateOut():
                driver.ask_migration(item, out)
            case contract.FromPeer(message, migration_id):
                migration = driver.migration(migration_id)
                if migration is not None:
                    migration.receive(message)
            case contract.PeerLost(why, migration_id):
                migration = driver.migration(migration_id)
                if migration is not None:
                    migration.lose(why)
            case contract.Reconfigure(ticket):
                request = Queued(RequestType.RECONFIGURE_CRUCIBLE, ticket)
                out.append(contract.Disposed(driver.wrapper.require_queue().try_queue(request)))
            case contract.Guest():
                driver.guest_event(item, now_us, out)
            case contract.Settle(fail):
                driver.settle(fail, now_us, out)
            case contract.Hold():
                driver.held = True
            case contract.Release():
                driver.held = False
            case _:
                assert_never(item)
        driver.run(now_us, out)
        return out
