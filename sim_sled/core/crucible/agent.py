"""One Crucible agent: the regions of one dataset (SR 5.1).

    POST -> requested -> created -DELETE-> tombstoned -> destroyed
                 |                              |
                 +-> failed -DELETE-> tombstoned+-> failed

Where the simulated and the real agent differ, this follows the decisions of SR 5.1: a repeated POST gets the region
that is there, whatever its state, with its port; a port is free again when its region is destroyed, never when it
failed; a running snapshot has the id of its region.

Read before: core/crucible/values.py. Read next: companions/crucible.py, core/crucible/agents.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import attrs

from sim_sled.core.crucible.blocks import Blocks, Memory
from sim_sled.core.crucible.values import (
    GOING,
    REPAIR_PORT_OFFSET,
    Region,
    RegionRequest,
    RegionState,
    RunningSnapshot,
    Snapshot,
)
from sim_sled.core.errors import BadRequest, Conflict, Internal, Missing, TooMany, Unavailable
from sim_sled.core.timed import timed

PORTS: Final = 50
"""Of one dataset (SA 1.7)."""

REGIONS_KEPT: Final = 10_000
"""Of one dataset, destroyed ones included: those have no port, so only this bounds them. A dataset has at most 50 at
once."""

SNAPSHOTS_MAX: Final = 1_000
"""Of one region: Nexus has one per snapshot of a user."""


@attrs.define
class Knobs:
    """How an agent misbehaves (SR 8). Delays in microseconds; `ports` is how many of `PORTS` may be used.

    `born`: what a new region becomes after `create_us`; `REQUESTED` means it never becomes anything else.
    `delete_fails`: what is deleted fails instead of going; `run_fails`: a running snapshot fails instead of running.
    """

    born: RegionState = RegionState.CREATED
    create_us: int = 0
    delete_us: int = 0
    delete_fails: bool = False
    run_us: int = 0
    run_fails: bool = False
    ports: int = PORTS


class Agent:
    """The regions of one dataset, by id, in the order in which they were made; destroyed ones stay."""

    heard: Callable[[], None] | None = None
    """Called when somebody beside this sled's own servers has changed a region: a disk of another sled's VMM."""

    def __init__(self, first_port: int, memory: Memory, source: Callable[[str], Blocks | None]) -> None:
        self.first_port: Final = first_port
        self.knobs = Knobs()
        self.regions: dict[str, Region] = {}
        self._memory = memory
        self._source = source
        self._waiting: dict[tuple[str, str | None], int] = {}  # (region, running snapshot): due

    # --- regions ----------------------------------------------------------------------------------------------------

    def all(self) -> list[Region]:
        """Destroyed ones too."""
        return list(self.regions.values())

    def get(self, region_id: str) -> Region:
        region = self.regions.get(region_id)
        if region is None:
            raise Missing(f"no region {region_id}")
        return region

    @timed
    def create(self, request: RegionRequest, now_us: int) -> Region:
        """The region of this id: made now, or the one that is there in whatever state.

        Raises `Conflict` for other parameters under the same id, `Internal` when all ports are taken.
        """
        region_id = str(request.id)
        there = self.regions.get(region_id)
        if there is not None:
            if there.request != request:
                raise Conflict(f"region {region_id} already exists with different parameters")
            return there
        if len(self.regions) >= REGIONS_KEPT:
            raise TooMany(f"more than {REGIONS_KEPT} regions")
        port = self._free_port()
        source = None if request.source is None else self._source(request.source)
        blocks = Blocks(self._memory) if source is None else source.copy()
        region = self.regions[region_id] = Region(request, port, RegionState.REQUESTED, blocks)
        if self.knobs.born is not RegionState.REQUESTED:
            self._later(region, None, now_us + self.knobs.create_us, now_us)
        return region

    @timed
    def delete(self, region_id: str, now_us: int) -> None:
        """Raises `BadRequest` while it has snapshots, `Unavailable` while it is made. Unknown: nothing to do."""
        region = self.regions.get(region_id)
        if region is None or region.state in GOING:
            return
        if region.snapshots:
            raise BadRequest("must delete snapshots first!")
        if region.due_us is not None:
            raise Unavailable(f"region {region_id} is being created")
        region.state = RegionState.TOMBSTONED
        self._later(region, None, now_us + self.knobs.delete_us, now_us)

    def check_states(self, wanted: Mapping[str, RegionState]) -> None:
        """Whether these regions can be in these states. Raises `Missing`; `BadRequest` for one that was destroyed, if
        another region or a running snapshot has its port by now, or one of them gets it.
        """
        taken = self._taken_ports()
        for region_id, state in wanted.items():
            region = self.get(region_id)
            if region.state is RegionState.DESTROYED is not state:
                if region.port in taken:
                    raise BadRequest(f"region {region_id} was destroyed, its port {region.port} is another's")
                taken.add(region.port)

    def set_state(self, region_id: str, state: RegionState) -> None:
        """A region is in another state, because somebody wants it to be: what was under way with it is over."""
        self.check_states({region_id: state})
        region = self.get(region_id)
        self._waiting.pop(_key(region, None), None)
        region.due_us = None
        region.state = state
        if state is RegionState.DESTROYED:
            region.blocks.clear()

    # --- snapshots --------------------------------------------------------------------------------------------------

    def snapshots(self, region_id: str) -> tuple[list[Snapshot], list[RunningSnapshot]]:
        """Those of a region; of one that is not `created` none are told, as the real agent does."""
        region = self.get(region_id)
        if region.state is not RegionState.CREATED:
            return [], []
        return list(region.snapshots.values()), list(region.running.values())

    def snapshot(self, region_id: str, name: str) -> Snapshot:
        found = self.get(region_id).snapshots.get(name)
        if found is None:
            raise Missing(f"no snapshot {name} of region {region_id}")
        return found

    def take_snapshot(self, region: Region, name: str, now_us: int) -> None:
        """What Propolis or a pantry makes a downstairs do. Idempotent. Raises `Internal` for a region that is not
        there to write on.
        """
        if region.state is not RegionState.CREATED:
            raise Internal(f"region {region.request.id} is {region.state.value}")
        if name in region.snapshots:
            return
        if len(region.snapshots) >= SNAPSHOTS_MAX:
            raise Internal(f"region {region.request.id} has {SNAPSHOTS_MAX} snapshots")
        region.snapshots[name] = Snapshot(name, now_us, region.blocks.copy())
        if self.heard is not None:
            self.heard()

    def delete_snapshot(self, region_id: str, name: str) -> None:
        """Raises `BadRequest` while it runs. An unknown name: nothing to do."""
        region = self.get(region_id)
        running = region.running.get(name)
        if running is not None and running.state is not RegionState.DESTROYED:
            raise BadRequest(f"must delete running snapshots first! {name} is {running.state.value}")
        snapshot = region.snapshots.pop(name, None)
        if snapshot is not None:
            snapshot.blocks.clear()

    @timed
    def run_snapshot(self, region_id: str, name: str, now_us: int) -> RunningSnapshot:
        """The running snapshot of this name; a destroyed one is started anew, with a new port."""
        region = self.get(region_id)
        self.snapshot(region_id, name)
        there = region.running.get(name)
        if there is not None and there.state is not RegionState.DESTROYED:
            return there
        made = region.running[name] = RunningSnapshot(name, self._free_port(), RegionState.REQUESTED)
        self._later(region, made, now_us + self.knobs.run_us, now_us)
        return made

    @timed
    def stop_snapshot(self, region_id: str, name: str, now_us: int) -> None:
        """Ends a running snapshot; an unknown name: nothing to do."""
        region = self.get(region_id)
        running = region.running.get(name)
        if running is None or running.state in GOING:
            return
        running.state = RegionState.TOMBSTONED
        self._later(region, running, now_us + self.knobs.delete_us, now_us)

    # --- ports ------------------------------------------------------------------------------------------------------

    def at_port(self, port: int) -> Region | None:
        """The region whose downstairs listens there: any but a destroyed one."""
        for region in self.regions.values():
            if region.port == port and region.state is not RegionState.DESTROYED:
                return region
        return None

    def source_at(self, port: int) -> Blocks | None:
        """Bytes of the region or running snapshot at a port or its repair port."""
        for region in self.regions.values():
            if port in _ports(region.port) and region.state is not RegionState.DESTROYED:
                return region.blocks
            for running in region.running.values():
                if port in _ports(running.port) and running.state is not RegionState.DESTROYED:
                    return region.snapshots[running.name].blocks
        return None

    def _taken_ports(self) -> set[int]:
        taken = {region.port for region in self.regions.values() if region.state is not RegionState.DESTROYED}
        for region in self.regions.values():
            taken |= {each.port for each in region.running.values() if each.state is not RegionState.DESTROYED}
        return taken

    def _free_port(self) -> int:
        taken = self._taken_ports()
        for port in range(self.first_port, self.first_port + self.knobs.ports):
            if port not in taken:
                return port
        raise Internal(f"all {self.knobs.ports} ports of this dataset are in use")

    # --- time -------------------------------------------------------------------------------------------------------

    def next_deadline_us(self) -> int | None:
        return min(self._waiting.values(), default=None)

    def tick(self, now_us: int) -> None:
        """Whatever is due happens, the oldest first."""
        for (region_id, name), due_us in sorted(self._waiting.items(), key=lambda each: (each[1], str(each[0]))):
            if due_us <= now_us:
                region = self.regions[region_id]
                self._due(region, None if name is None else region.running[name])

    def go_on(self, now_us: int) -> None:
        """A knob was turned: regions that were never to be made are made after all, if that is what it says now."""
        if self.knobs.born is RegionState.REQUESTED:
            return
        for region in self.regions.values():
            if region.state is RegionState.REQUESTED and region.due_us is None:
                self._later(region, None, now_us + self.knobs.create_us, now_us)

    def _later(self, region: Region, running: RunningSnapshot | None, due_us: int, now_us: int) -> None:
        (running or region).due_us = due_us
        if due_us <= now_us:
            self._due(region, running)
        else:
            self._waiting[_key(region, running)] = due_us

    def _due(self, region: Region, running: RunningSnapshot | None) -> None:
        self._waiting.pop(_key(region, running), None)
        what = running or region
        what.due_us = None
        if what.state is RegionState.REQUESTED:
            failed = RegionState.FAILED if self.knobs.run_fails else RegionState.CREATED
            what.state = self.knobs.born if running is None else failed
        elif self.knobs.delete_fails:
            what.state = RegionState.FAILED
        else:
            what.state = RegionState.DESTROYED
            if running is None:
                region.blocks.clear()

    # --- restarts ---------------------------------------------------------------------------------------------------

    def dump(self) -> Any:
        """Everything but the bytes, as JSON values."""
        return [
            {
                "request": attrs.asdict(each.request) | {"id": str(each.request.id)},
                "port": each.port,
                "state": each.state.value,
                "written": each.blocks.any_written(),
                "snapshots": {name: snapshot.created_us for name, snapshot in each.snapshots.items()},
                "running": {name: [one.port, one.state.value] for name, one in each.running.items()},
            }
            for each in self.regions.values()
        ]

    def load(self, kept: Any, now_us: int) -> None:
        """Take up what `dump` gave; what was under way then is done by now."""
        for row in kept:
            request = RegionRequest(**(row["request"] | {"id": UUID(row["request"]["id"])}))
            region = Region(request, row["port"], RegionState(row["state"]), Blocks(self._memory))
            self.regions[str(request.id)] = region
            if row["written"]:
                region.blocks.lose()
            for name, created_us in row["snapshots"].items():
                region.snapshots[name] = Snapshot(name, created_us, region.blocks.copy())
            for name, (port, state) in row["running"].items():
                region.running[name] = RunningSnapshot(name, port, RegionState(state))
            for one in (None, *region.running.values()):
                if (one or region).state in {RegionState.REQUESTED, RegionState.TOMBSTONED}:
                    self._later(region, one, now_us, now_us)


def _key(region: Region, running: RunningSnapshot | None) -> tuple[str, str | None]:
    return str(region.request.id), None if running is None else running.name


def _ports(port: int) -> tuple[int, int]:
    return port, port + REPAIR_PORT_OFFSET
