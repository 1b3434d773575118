"""Our daemon as a `SledUnderTest` of the tape player."""

from typing import Any
from uuid import UUID

from propolis_stub.waiting import Pace, Pacer, Point
from sim_sled.companions.servers import Ports
from sim_sled.core.config import SimMode, SledConfig
from sim_sled.daemon import hardware_file
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.options import Options
from sim_sled.daemon.recorder import Recorder

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
    def pace(self, _vm_id: UUID, point: Point, _occurrence: int, _edge: object, /) -> Pace:
        return _PACE.get(point, Pace())


class DaemonSled:
    """One sled in a daemon of its own, on a real socket of the loopback interface."""

    def __init__(self, *, explicit: bool, pacer: Pacer | None = None, record: Recorder | None = None) -> None:
        self.explicit = explicit
        self._pacer = pacer or _TapePacer()
        self._record = record
        self.capabilities = frozenset({"zpools", "crucible-agent", "depot", "sim-endpoints"})
        self._sled_id = UUID(int=0)
        self._daemon: Daemon | None = None

    async def start(self, sled: dict[str, Any], nexus: str) -> str:
        sled_id = self._sled_id = UUID(sled["id"])
        # the first line of a tape is a hardware file, but for what the command line says
        fields = {key: value for key, value in sled.items() if key not in {"id", "address"}}
        hardware = hardware_file.hardware({"role": "gimlet"} | fields)
        mode = SimMode.EXPLICIT if self.explicit else SimMode.AUTO
        config = SledConfig(sled_id, "[::1]:0", mode=mode, hardware=hardware)
        self._daemon = Daemon(
            [config],
            Options(nexus=nexus, pacer=self._pacer, shutdown_wait_s=1.0, companions=Ports()),
            recorder=self._record,
        )
        await self._daemon.start()
        return self._daemon.addresses[sled_id]

    def server(self, server: dict[str, Any]) -> str | None:
        assert self._daemon is not None, "started first"
        addresses = self._daemon.listening.companion_addresses()[self._sled_id]
        match server["kind"]:
            case "crucible-agent":
                return addresses.crucible.get(UUID(server["dataset_id"]))
            case "crucible-pantry":
                return addresses.pantry
            case "repo-depot":
                return addresses.repo_depot
            case "internal-dns":
                return addresses.dns_http
        return None

    async def stop(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon is not None:
            await daemon.stop()
