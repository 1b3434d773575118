"""What a sled has beside its VMMs and their networks: areas, each made when it is first asked for.

An area is pure state with methods: it decides first, refuses with a `SledError`, changes second, and does no I/O. A
call on one is a value (`Ask`) that goes through the one door of the core like every other input:

    contract.CallArea(ticket, sled_id, ESTATE, ask(Ledger, configure.put, config))

Areas of one sled reach each other by `estate.of(Other)`, those of other sleds of this process by `estate.neighbours`.
Nothing here knows which areas there are, so a sled that is never asked about its disks pays for none.

Read before: core/sled.py.
Read next: core/artifacts/store.py, core/bootstore/store.py, core/companions.py, core/omicron_config/ledger.py,
core/storage/volumes.py, core/trust_quorum/node.py, daemon/state_dir.py, daemon/taking_up.py, http/asking.py,
play/asks.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar
from uuid import UUID

import attrs

from sim_sled.core.config import Hardware, SledConfig

if TYPE_CHECKING:
    from sim_sled.core.contract import Effect
    from sim_sled.core.vmm import Vmm

ESTATE: Final = "estate"
"""Name of all this in `contract.CallArea.facts`."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

LOG_LINES_KEPT: Final = 1_000
"""Of one sled; some 200 KB."""

RACK_ID: Final = UUID("c19a698f-c6f9-4a17-ae30-20d711b8f7dc")
"""The rack of every development cluster (SA 1.9); a rack of another id says so by its hand-off."""


class SledPoint(Enum):
    """Where a sled takes its time, beside its VMMs."""

    RECONCILE = "reconcile"  # one run of the config reconciler (SR 3.2)
    TRUST_QUORUM_ACK = "trust quorum ack"  # until a member acknowledges a prepare (SR 4.5)


class SledPacer(Protocol):
    """How long a sled takes, in microseconds; the same question always has the same answer."""

    def sled_pace_us(self, sled_id: UUID, point: SledPoint, occurrence: int) -> int: ...


class AtOnce:
    """No time at all: the existing simulator's reconciler is idle right after each PUT (SR 3.2)."""

    def sled_pace_us(self, sled_id: UUID, point: SledPoint, occurrence: int) -> int:  # noqa: ARG002 -- a SledPacer
        return 0


class Regions(Protocol):
    """The Crucible agents of this process, as a disk snapshot needs them (SR 4.3)."""

    def snapshot(self, targets: Iterable[str], snapshot_id: UUID, now_us: int) -> None:
        """Make a snapshot of the region behind each target, `address:port`. Raises `Internal` where one is missing or
        unusable; snapshots made for earlier targets stay.
        """
        ...


class Area:
    """Base of areas. `kept_as`: the name under which its state survives a restart; None: it does not."""

    kept_as: str | None = None

    def __init__(self, estate: Estate) -> None:
        self.estate = estate

    def next_deadline_us(self) -> int | None:
        """When `tick` has something to do."""
        return None

    def tick(self) -> None:
        """Whatever is due by `estate.now_us` happens."""

    def dump(self) -> Any:
        """What must survive a restart, as JSON values. Only those are asked who call `changed`."""
        raise NotImplementedError(f"{type(self).__name__} keeps nothing")

    def load(self, kept: Any) -> None:
        """Take up what `dump` gave to an earlier process. ValueError, KeyError, TypeError if it is not that."""
        raise NotImplementedError(f"{type(self).__name__} keeps nothing")

    def changed(self) -> None:
        """Call after each change of what `dump` gives."""
        self.estate.unsaved.add(type(self))


A = TypeVar("A", bound=Area)
R_co = TypeVar("R_co", covariant=True)
P = ParamSpec("P")


class OnEstate(Generic[R_co]):
    """Base of calls (`contract.AreaCall`) on the estate of a sled."""

    __slots__ = ()

    def apply(self, area: object, now_us: int) -> R_co:
        """See `contract.AreaCall`."""
        assert isinstance(area, Estate), f"a call on a sled's estate went to {type(area).__name__}"
        area.now_us = now_us
        return self.on(area)

    def on(self, estate: Estate) -> R_co:
        """Carry it out. Raises `SledError`, and has changed nothing then."""
        raise NotImplementedError  # what it does is all that a call is


@attrs.frozen
class Ask(OnEstate[R_co]):
    """A call on an area as a value: `how` is one of its methods."""

    area: type[Area]
    how: Callable[..., R_co]
    args: tuple[Any, ...]

    def on(self, estate: Estate) -> R_co:
        return self.how(estate.of(self.area), *self.args)


def ask(area: type[A], how: Callable[Concatenate[A, P], R_co], *args: P.args, **none: P.kwargs) -> Ask[R_co]:
    """`how` of `area`, with its arguments checked."""
    assert not none, "arguments by position only: a call is compared and printed"
    return Ask(area, how, args)


class OfSled(Protocol):
    """What areas may know of the sled whose estate they are."""

    config: SledConfig
    vmms: dict[UUID, Vmm]
    regions: Regions | None
    sled_pacer: SledPacer
    address: str
    ended: list[tuple[UUID, datetime]]
    clock_us: int

    def get(self, propolis_id: UUID) -> Vmm:
        """The VMM, or `NoSuchVmm`."""
        ...

    @property
    def rack(self) -> Mapping[UUID, OfSled]:
        """All sleds of this process, this one too."""
        ...

    @property
    def estate(self) -> Estate:
        """Made at the first use."""
        ...


@attrs.define(eq=False)
class Estate:
    """The areas of one sled. `now_us`: the time of the call or tick that is being carried out."""

    sled: OfSled
    now_us: int = 0
    unsaved: set[type[Area]] = attrs.field(factory=set)
    made: dict[type[Area], Area] = attrs.field(factory=dict)
    effects: list[Effect] = attrs.field(factory=list)
    """What shall be done about the files that belong to the areas' facts; the rack takes it after each turn."""
    log: deque[tuple[int, str]] = attrs.field(factory=lambda: deque(maxlen=LOG_LINES_KEPT))
    """What the areas did lately, with its time: the sled agent's own log (SR 4.7)."""
    kept: dict[str, Any] = attrs.field(factory=dict)
    """What an earlier process left, by `Area.kept_as`, for areas that have not been made yet."""

    def of(self, kind: type[A]) -> A:
        """The area of this kind."""
        area = self.made.get(kind)
        if area is None:
            area = self.made[kind] = kind(self)
            if kind.kept_as is not None and kind.kept_as in self.kept:
                self._load(area, kind.kept_as)
        assert isinstance(area, kind)
        return area

    def _load(self, area: Area, kept_as: str) -> None:
        """All of it, or there is no such area: half of one would be kept instead of what was kept before."""
        kept = self.kept.pop(kept_as)
        try:
            area.load(kept)
        except BaseException:
            self.kept[kept_as] = kept
            del self.made[type(area)]
            raise

    def next_deadline_us(self) -> int | None:
        """The soonest of all areas."""
        dues = [due_us for area in self.made.values() if (due_us := area.next_deadline_us()) is not None]
        return min(dues, default=None)

    def tick(self, now_us: int) -> None:
        """Whatever is due happens, in the order in which the areas were made."""
        self.now_us = now_us
        for area in tuple(self.made.values()):
            due_us = area.next_deadline_us()
            if due_us is not None and due_us <= now_us:
                area.tick()

    # --- what areas know of their sled ------------------------------------------------------------------------------

    @property
    def sled_id(self) -> UUID:
        return self.sled.config.sled_id

    @property
    def hardware(self) -> Hardware:
        return self.sled.config.hardware

    @property
    def serial(self) -> str:
        """Of the baseboard."""
        return self.hardware.serial_of(self.sled_id)

    def pace_us(self, point: SledPoint, occurrence: int) -> int:
        """How long this sled takes for something now."""
        return self.sled.sled_pacer.sled_pace_us(self.sled_id, point, occurrence)

    @property
    def neighbours(self) -> list[Estate]:
        """Of the other sleds of this process, by id."""
        return [each.estate for key, each in sorted(self.sled.rack.items()) if each is not self.sled]

    def note(self, text: str) -> None:
        """A line of the log."""
        self.log.append((self.now_us, text))

    def time(self, at_us: int | None = None) -> str:
        """RFC 3339 of a core time, of now without one (SA 1.5)."""
        when = _EPOCH + timedelta(microseconds=(self.now_us if at_us is None else at_us) + self.sled.clock_us)
        return when.isoformat(timespec="microseconds").replace("+00:00", "Z")
