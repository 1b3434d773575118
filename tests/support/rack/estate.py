"""Drives the estate of a sled without sockets, and makes the configurations that Nexus would send."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec

from sim_sled.core import contract
from sim_sled.core.config import Hardware, PhysicalDisk, SledConfig, Zpool
from sim_sled.core.estate import ESTATE, Area, AtOnce, Estate, SledPacer, ask
from sim_sled.core.omicron_config.values import OmicronConfig
from sim_sled.core.rack import Rack

SECOND = 1_000_000
START = 1_790_000_000 * SECOND
SLED = uuid.UUID(int=0x5A)
OTHER = uuid.UUID(int=0x5B)
THIRD = uuid.UUID(int=0x5C)


def an_id(number: int) -> str:
    """A UUID of version 4."""
    return f"00000000-0000-4000-8000-{number:012x}"


def pool(number: int) -> Zpool:
    disk = PhysicalDisk(uuid.UUID(an_id(0xD0 + number)), "vendor", "model", f"serial-{number}")
    return Zpool(uuid.UUID(an_id(0xF0 + number)), 2**40, disk)


POOLS = (pool(1), pool(2))


class Fixed:
    """Every point takes this long."""

    def __init__(self, us: int) -> None:
        self.us = us

    def sled_pace_us(self, sled_id: uuid.UUID, point: object, occurrence: int) -> int:
        return self.us


class EstateDriver:
    """Sleds of one rack; `ask` goes through the one door of the core.

    Whatever an area would keep is looked at before and after: a change that nobody was told would be lost with the
    process.
    """

    def __init__(
        self,
        *,
        pacer: SledPacer | None = None,
        sleds: tuple[uuid.UUID, ...] = (SLED,),
        hardware: Hardware | None = None,
        strict: bool = False,
    ) -> None:
        self.rack = Rack(sled_pacer=pacer or AtOnce())
        for sled_id in sleds:
            made = hardware or Hardware(zpools=POOLS)
            self.rack.add_sled(SledConfig(sled_id, "[fd00:1122:3344:101::1]:12345", hardware=made, strict=strict))
        self.now_us = START
        self.dropped: list[str] = []
        self._tickets = 0

    def ask(self, area: type, how: Any, *args: Any, sled: uuid.UUID = SLED) -> Any:
        with nothing_changes_unheard(self.rack):
            return self.look(area, how, *args, sled=sled)

    def look(self, area: type, how: Any, *args: Any, sled: uuid.UUID = SLED) -> Any:
        """`ask`, by who looks often, and looks himself whether something has changed."""
        self._tickets += 1
        item = contract.CallArea(self._tickets, sled, ESTATE, ask(area, how, *args))
        return self._perform(self.rack.handle(item, self.now_us))

    def _perform(self, effects: list[contract.Effect]) -> Any:
        answer = None
        for effect in effects:
            match effect:
                case contract.Reply():
                    answer = effect.value
                case contract.DropFiles():
                    self.dropped += effect.keys
        return answer

    def wait(self, us: int) -> None:
        """Let time pass; whatever is due happens at its time."""
        until = self.now_us + us
        while (due := self.rack.next_deadline_us()) is not None and due <= until:
            self.now_us = max(self.now_us, due)
            with nothing_changes_unheard(self.rack):
                self._perform(self.rack.handle(contract.Tick(), self.now_us))
        self.now_us = until

    def of(self, area: type, sled: uuid.UUID = SLED) -> Any:
        """The area itself, to set faults and to look inside."""
        return self.rack.sleds[sled].estate.of(area)


@contextlib.contextmanager
def nothing_changes_unheard(rack: Rack) -> Iterator[None]:
    """Whatever an area would keep is as it was, or is to be written."""
    estates = [sled.estate for sled in rack.sleds.values()]
    before = [(estate, set(estate.unsaved), _kept(estate)) for estate in estates]
    for estate in estates:
        estate.unsaved.clear()
    try:
        yield
    finally:
        for estate, unsaved, kept in before:
            now = _kept(estate)
            changed = {kind for kind in kept if now[kind] != kept[kind]}
            assert changed <= estate.unsaved, "an area has changed and told nobody"
            estate.unsaved |= unsaved


def _kept(estate: Estate) -> dict[type[Area], bytes]:
    return {kind: msgspec.json.encode(area.dump()) for kind, area in estate.made.items() if kind.kept_as is not None}


# ---- configurations ------------------------------------------------------------------------------------------------


def disk(number: int, at: Zpool | None = None, *, pool_id: str | None = None) -> dict[str, Any]:
    at = at or POOLS[number - 1]
    identity = {"vendor": at.disk.vendor, "model": at.disk.model, "serial": at.disk.serial}
    return {"id": an_id(0xD0 + number), "identity": identity, "pool_id": pool_id or str(at.id)}


def dataset(number: int, kind: str = "debug", *, on: int = 1, quota: int | None = None) -> dict[str, Any]:
    return {
        "id": an_id(0xA00 + number),
        "name": {"pool_name": f"oxp_{POOLS[on - 1].id}", "kind": kind},
        "compression": {"type": "off"},
        "quota": quota,
        "reservation": None,
    }


def zone(
    number: int, kind: str = "internal_ntp", *, on: int | None = 1, artifact: str | None = None
) -> dict[str, Any]:
    about: dict[str, Any] = {"type": kind, "address": "[fd00:1122:3344:101::10]:123"}
    if kind in {"crucible", "cockroach_db", "clickhouse"}:
        about["dataset"] = {"pool_name": f"oxp_{POOLS[(on or 1) - 1].id}"}
    source = {"type": "install_dataset"} if artifact is None else {"type": "artifact", "hash": artifact}
    return {
        "id": an_id(0xE00 + number),
        "zone_type": about,
        "filesystem_pool": None if on is None else f"oxp_{POOLS[on - 1].id}",
        "image_source": source,
    }


def config(
    generation: int,
    *,
    disks: list[dict[str, Any]] | None = None,
    datasets: list[dict[str, Any]] | tuple[()] = (),
    zones: list[dict[str, Any]] | tuple[()] = (),
    slot_a: str | None = None,
    remove_override: str | None = None,
    measurements: tuple[str, ...] = (),
) -> OmicronConfig:
    """A configuration; by default of both disks."""
    current = {"type": "current_contents"}
    return OmicronConfig(
        {
            "generation": generation,
            "disks": {row["id"]: row for row in ([disk(1), disk(2)] if disks is None else disks)},
            "datasets": {row["id"]: row for row in datasets},
            "zones": {row["id"]: row for row in zones},
            "remove_mupdate_override": remove_override,
            "host_phase_2": {
                "slot_a": current if slot_a is None else {"type": "artifact", "hash": slot_a},
                "slot_b": current,
            },
            "measurements": [{"hash": each} for each in measurements],
        }
    )
