"""Player of Propolis's state driver: our VM, whose pacer does what the script's world decides.

The recording's stand-ins for devices, backends and the migration protocol publish nothing and keep a list of calls to
the VM's objects. Our VM has no such objects, so their calls are read off the points it passes; and the phases which a
migration's protocol publishes are left out, the first of them apart, since there the driver itself speaks.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

from propolis_stub.contract import (
    Crashed,
    Disposed,
    EnsureSpec,
    EnsureTarget,
    Guest,
    GuestEvent,
    MigrateOut,
    Published,
    Request,
    Settle,
)
from propolis_stub.errors import GuestNotRunning, NoInstance, RequestDenied
from propolis_stub.types import InstanceState, MigrationPhase, Publication, RequestKind
from propolis_stub.vm import Hazard, Vm
from propolis_stub.waiting import Pace, Point

VM_ID, MIGRATION = UUID(int=0xA), UUID(int=0xD)
GUEST = {
    "guest_halt": GuestEvent.HALT,
    "guest_reset": GuestEvent.RESET,
    "triple_fault": GuestEvent.TRIPLE_FAULT,
    "chipset_halt": GuestEvent.CHIPSET_HALT,
    "chipset_reset": GuestEvent.CHIPSET_RESET,
}
REQUESTS = {"start": RequestKind.RUN, "stop": RequestKind.STOP, "reboot": RequestKind.REBOOT}
WORLD = {
    "backend_ok": (Point.BACKENDS, False),
    "backend_fails": (Point.BACKENDS, True),
    "migration_ok": (Point.M_SYNC, False),
    "migration_fails": (Point.M_SYNC, True),
}
PANIC = (
    "internal error: entered unreachable code: external request State(MigrateAsSource { migration_id: "
    "00000000-0000-0000-0000-00000000000d }) shouldn't be queued while starting"
)
ENDS = (InstanceState.DESTROYED, InstanceState.FAILED)


class Script:
    """The world's decisions, each once: given ahead of time, they wait for their point."""

    def __init__(self, *, device_start_fails: bool, initiate_fails: bool) -> None:
        self.device_start_fails = device_start_fails
        self.initiate_fails = initiate_fails
        self.ahead: Counter[tuple[Point, bool]] = Counter()
        self.waits: Point | None = None
        self.decided = False
        self.scripted = True  # the migration in that comes before the recording

    def pace(self, _vm_id: UUID, point: Point, _occurrence: int, _edge: Any, /) -> Pace:
        if point is Point.DEVICES:
            return Pace(0, fail=self.device_start_fails)
        if point is Point.M_SYNC and not self.scripted:
            # the stand-in decides once: a migration after one that failed fails, too
            return Pace(0, fail=True) if self.decided else self._asked(point)
        return self._asked(point) if point is Point.BACKENDS else Pace(0)

    def _asked(self, point: Point) -> Pace:
        for fails in (False, True):
            if self.ahead[point, fails]:
                self.ahead[point, fails] -= 1
                self.decided = self.decided or point is Point.M_SYNC
                return Pace(0, fail=fails)
        self.waits = point
        return Pace(None)


class Player:
    def __init__(self, given: dict[str, Any]) -> None:
        self.script = Script(
            device_start_fails=given["device_start_fails"], initiate_fails=given["migration_initiate_fails"]
        )
        self.migrated_in = given["migrated_in"]
        self.initiate_fails = given["migration_initiate_fails"]
        self.vm = Vm(VM_ID, self.script, strict=Hazard.MIGRATE_IN_START)
        self.state: InstanceState | None = None
        self.phase: MigrationPhase | None = None
        self.ran = False
        self.now_us = 0
        self.first: dict[str, Any] | None = None
        if self.migrated_in:
            self.script.device_start_fails, fails = False, self.script.device_start_fails
            self.first = self._step("", EnsureTarget(MIGRATION, scripted=True))
            self.first["published"] = []
            self.first["objects"] = ["resume_kernel_vm"]
            self.script.device_start_fails = fails
        else:
            self._step("", EnsureSpec())
        self.script.scripted = False

    def play(self, op: str) -> dict[str, Any]:
        if op in WORLD:
            point, fails = WORLD[op]
            if self.script.waits is point:
                self.script.waits = None
                self.script.decided = self.script.decided or point is Point.M_SYNC
                return self._step(op, Settle(fail=fails))
            self.script.ahead[point, fails] += 1
            return self._step(op, None)
        if op in GUEST:
            return self._step(op, Guest(GUEST[op]))
        if op == "migrate":
            fails_in = Point.M_CONNECT if self.initiate_fails else None
            return self._step(op, MigrateOut(MIGRATION, scripted=True, fails_in=fails_in))
        return self._step(op, Request(REQUESTS[op]))

    def _step(self, op: str, item: Any) -> dict[str, Any]:
        answer: dict[str, Any] = {"op": op, "result": None, "published": [], "objects": []}
        if item is None:
            return answer
        try:
            self.now_us += 1  # two events of one kind are two if their times differ
            effects = self.vm.handle(item, self.now_us)
        except RequestDenied as denied:
            answer["result"] = {"denied": denied.reason.code_name}
            return answer
        except GuestNotRunning:
            return answer
        except NoInstance:
            answer["result"] = {"denied": "NoInstance"}
            return answer
        for effect in effects:
            match effect:
                case Disposed():
                    answer["result"] = "accepted"
                case Published(publication):
                    self._published(publication, answer)
                case Crashed():
                    answer["exit"] = {"panic": PANIC}
        return answer

    def _published(self, publication: Publication, answer: dict[str, Any]) -> None:
        state, out = publication.state, publication.migration_out
        before, self.state = self.state, state
        moved = state is not before
        phase = None if out is None else out.state
        if state in ENDS:
            answer["exit"] = {"final_state": state.value}
        elif moved:
            shown = {"state": state.value}
            if state is InstanceState.MIGRATING and phase is MigrationPhase.SYNC:
                shown["migration_out"] = "Sync"
            answer["published"].append(shown)
            self._objects(before, state, answer["objects"])
        elif phase is MigrationPhase.ERROR and state is InstanceState.RUNNING and self.phase is not phase:
            answer["published"].append({"migration_out": "Error"})
        self.phase = phase

    def _objects(self, before: InstanceState | None, state: InstanceState, calls: list[str]) -> None:
        """The calls which the driver makes on its way into `state`."""
        if state is InstanceState.STARTING:
            calls.append("reset_vcpus")
        elif state is InstanceState.REBOOTING:
            calls.append("reboot")
        elif state is InstanceState.STOPPING:
            # a source that has migrated out is paused already
            calls += ["halt"] if before is InstanceState.MIGRATING else ["pause", "halt"]
        elif state is InstanceState.RUNNING and not self.ran:
            self.ran = True
            calls.append("resume_vcpus")


def propolis_state_driver(_rules: str, given: dict[str, Any]) -> Any:
    player = Player(given)
    steps = [] if player.first is None else [player.first]
    return steps + [player.play(op) for op in given["ops"]]


PROPOLIS = {"propolis_state_driver": propolis_state_driver}
