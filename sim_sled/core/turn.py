"""One turn of a rack, and the fabric on which migrations meet.

One turn: an input is judged and carried out (rack.py), Propolis machines move, messages between migrating VMMs are
delivered until there are none, then each VMM that Propolis published for is looked at once (`Vmm.see`) and its new
record goes to its sled's outbox. Nothing waits within a turn.

Read before: core/contract.py, core/sled.py. Read next: core/rack.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Final
from uuid import UUID

import attrs

from propolis_stub.contract import Crashed, Dial, FromPeer, MigrateOut, PeerClosed, PeerLost, ToPeer
from propolis_stub.contract import Effect as VmEffect
from propolis_stub.waiting import Pacer
from sim_sled.core import contract
from sim_sled.core.contract import Effect
from sim_sled.core.errors import InvalidRequest, PropolisRefused
from sim_sled.core.estate import AtOnce, SledPacer
from sim_sled.core.happenings import Happening, Kind, Watch
from sim_sled.core.pacers import PresetPacer
from sim_sled.core.scheduler import Scheduler
from sim_sled.core.sled import Sled
from sim_sled.core.vmm import BaggageOf, Vmm, no_baggage

MESSAGES_MAX: Final = 10_000
"""Messages between two VMMs in one turn: a whole migration is about 40; more is a loop, and a bug."""


@attrs.define(eq=False)
class Fabric(ABC):
    """All sleds of one process. `remote_peers`: a migration source that is not in this rack is looked for on
    the network; without it such a source is imagined, as the existing simulator does. `expose`: everything that a
    VM says comes out as `FromPropolis`, for shells that serve the Propolis API.
    """

    sleds: dict[UUID, Sled] = attrs.field(factory=dict)
    pacer: Pacer = attrs.field(factory=PresetPacer)
    sled_pacer: SledPacer = attrs.field(factory=AtOnce)
    seed: int = 0
    remote_peers: bool = False
    expose: bool = False
    baggage: BaggageOf = no_baggage
    watch: Watch | None = None
    _scheduler: Scheduler = attrs.field(factory=Scheduler)
    _sources: dict[str, Vmm] = attrs.field(factory=dict)  # by the Propolis address that Nexus chose
    _touched: list[Vmm] = attrs.field(factory=list)
    _messages: deque[tuple[Vmm, Vmm, VmEffect]] = attrs.field(factory=deque)
    _now_us: int = 0

    def _after(self, vmm: Vmm, rest: list[VmEffect], effects: list[Effect]) -> None:
        """Route what Propolis said; the VMM is looked at when the turn settles."""
        self._touched.append(vmm)
        if vmm.peer is None and not self.expose:
            return
        for effect in rest:
            if vmm.peer is not None and isinstance(effect, Dial | ToPeer | PeerClosed):
                self._messages.append((vmm, vmm.peer, effect))
                continue
            if type(effect) is Crashed:
                self._disconnect(vmm, effects)
            if self.expose:
                effects.append(contract.FromPropolis(vmm.sled_id, vmm.propolis_id, effect))

    def _settle(self, effects: list[Effect]) -> None:
        if self._messages:
            self._deliver_all(effects)
        touched, self._touched = self._touched, []
        for vmm in touched:
            published = vmm.latest
            if published is not None:
                before, seen_before = vmm.record, vmm.seen
                record = vmm.see(self._now_us)
                if self.watch is not None and vmm.seen is published:
                    self._tell(vmm, Kind.PROPOLIS, (seen_before, published))
                if record is not None and vmm.registered:
                    if self.watch is not None:
                        self._tell(vmm, Kind.OBSERVED, (before, record))
                    self._publish(vmm.sled, vmm, effects)
            if vmm.registered:
                self._scheduler.set(vmm, vmm.deadline_us())

    def _deliver_all(self, effects: list[Effect]) -> None:
        for _ in range(MESSAGES_MAX):
            if not self._messages:
                return
            self._deliver(*self._messages.popleft(), effects)
        raise AssertionError("two VMMs talk without end")

    def _deliver(self, sender: Vmm, receiver: Vmm, effect: VmEffect, effects: list[Effect]) -> None:
        """Carry one message between two VMMs of this rack."""
        if isinstance(effect, Dial):
            self._dial(sender, receiver, effect.migration_id, effects)
        elif receiver.peer is not sender or receiver.vm is None:
            if isinstance(effect, ToPeer) and sender.peer is receiver:
                self._part(sender, "the peer is gone", effects)
        elif isinstance(effect, ToPeer):
            message = FromPeer(effect.message, effect.migration_id)
            self._after(receiver, receiver.drive(message, self._now_us), effects)
        else:
            sender.peer = None
            self._part(receiver, "the peer closed the connection", effects)

    def _dial(self, target: Vmm, source: Vmm, migration_id: UUID, effects: list[Effect]) -> None:
        """A target asks its source to migrate; what the source's queue denies, the target sees as a lost peer."""
        if source.vm is None or source.peer is not None:
            self._part(target, "the source is not there", effects)
            return
        baggage = self.baggage(source.sled_id, source.propolis_id)
        try:
            source.check_untried(migration_id)
            opened = source.migrate_out(MigrateOut(migration_id, baggage=baggage), self._now_us)
        except (InvalidRequest, PropolisRefused) as denied:
            self._tell(target, Kind.MIGRATION, f"the source refuses: {denied}")
            self._part(target, str(denied), effects)
            return
        source.peer = target
        self._tell(source, Kind.MIGRATION, f"asked to migrate to {target.propolis_id}")
        self._after(source, opened, effects)

    def _part(self, vmm: Vmm, why: str, effects: list[Effect]) -> None:
        """The other side of this VMM's migration is gone."""
        vmm.peer = None
        if vmm.vm is not None:
            self._after(vmm, vmm.drive(PeerLost(why), self._now_us), effects)

    def _disconnect(self, vmm: Vmm, effects: list[Effect]) -> None:
        """The Propolis of this VMM is gone, and with it its connection: the other side notices."""
        other, vmm.peer = vmm.peer, None
        if other is not None and other.peer is vmm:
            self._part(other, "the peer is gone", effects)

    @abstractmethod
    def _publish(self, sled: Sled, vmm: Vmm, effects: list[Effect]) -> None:
        """Hand the VMM's record to its sled's outbox."""

    def _rearm(self, vmm: Vmm) -> None:
        if vmm.registered:
            self._scheduler.set(vmm, vmm.deadline_us())

    def _tell(self, vmm: Vmm, kind: Kind, data: object) -> None:
        if self.watch is not None:
            self.watch(Happening(self._now_us, vmm.sled_id, vmm.propolis_id, kind, data))
