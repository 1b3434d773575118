"""Our daemon as a `SledUnderTest` of the tape player."""

from typing import Any
from uuid import UUID

from nexus_client.types import SledCpuFamily, SledRole
from propolis_stub.waiting import Pace, Point
from sim_sled.core.config import CrucibleDataset, Hardware, PhysicalDisk, SimMode, SledConfig, Zpool
from sim_sled.daemon.daemon import Daemon, Options

_PACE = {
    Point.WAKE: Pace(500_000),
    Point.M_CONNECT: Pace(500_000),
    Point.REBOOT: Pace(20_000),
    Point.HALT: Pace(10_000),
    Point.RUNDOWN: Pace(10_000),
    Point.M_SYNC: Pace(10_000),
    Point.M_FINISH: Pace(10_000),
}
"""The existing simulator's rhythm, but faster: half a second before anything is worked off, so that a tape's "at
once" holds on a busy machine. What is not named takes no time, as there: the generations of tapes count on it."""


class _TapePacer:
    def pace(self, _vm_id: UUID, point: Point, _occurrence: int) -> Pace:
        return _PACE.get(point, Pace())


def _zpool(pool: dict[str, Any]) -> Zpool:
    disk = pool["disk"]
    identity = PhysicalDisk(UUID(disk["id"]), disk["vendor"], disk["model"], disk["serial"])
    return Zpool(UUID(pool["id"]), pool["total_size"], identity)


def _dataset(dataset: dict[str, Any]) -> CrucibleDataset:
    return CrucibleDataset(UUID(dataset["zpool_id"]), UUID(dataset["dataset_id"]))


class DaemonSled:
    """One sled in a daemon of its own, on a real socket of the loopback interface."""

    def __init__(self, *, explicit: bool) -> None:
        self.explicit = explicit
        self.capabilities = frozenset({"zpools", "sim-endpoints"})
        self._daemon: Daemon | None = None

    async def start(self, sled: dict[str, Any], nexus: str) -> str:
        sled_id = UUID(sled["id"])
        hardware = Hardware(
            hardware_threads=sled["hardware_threads"],
            physical_ram=sled["physical_ram"],
            reservoir_size=sled["reservoir_size"],
            cpu_family=SledCpuFamily(sled["cpu_family"]),
            role=SledRole(sled.get("role", "gimlet")),
            zpools=tuple(map(_zpool, sled.get("zpools", ()))),
            crucible_datasets=tuple(map(_dataset, sled.get("crucible_datasets", ()))),
        )
        mode = SimMode.EXPLICIT if self.explicit else SimMode.AUTO
        config = SledConfig(sled_id, "[::1]:0", mode=mode, hardware=hardware)
        self._daemon = Daemon([config], Options(nexus=nexus, pacer=_TapePacer(), shutdown_wait_s=1.0))
        await self._daemon.start()
        return self._daemon.addresses[sled_id]

    def server(self, _server: dict[str, Any]) -> str | None:
        return None

    async def stop(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            await daemon.stop()
