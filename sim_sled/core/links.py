"""The connections between migrating VMMs of one rack, and who is a source at which address.

What Propolis says to its peer is carried to the other VMM of the same rack; a source that is here is never imagined,
or one guest would run twice. Nor is one that was here and is gone, with the power of its sled or otherwise: nobody
answers at its address, and no guest comes from nowhere. Messages are queued and delivered when the turn settles.

Read before: core/turn.py. Read next: core/rack.py.
"""

from __future__ import annotations

from collections import deque
from typing import Final
from uuid import UUID

import attrs

from nexus_client.dropshot.text import canonical_address
from propolis_stub.contract import Crashed, Dial, FromPeer, MigrateOut, PeerClosed, PeerLost, ToPeer
from propolis_stub.contract import Effect as VmEffect
from sim_sled.core import contract
from sim_sled.core.contract import Effect
from sim_sled.core.errors import InvalidRequest, PropolisRefused
from sim_sled.core.happenings import Kind
from sim_sled.core.turn import Turn
from sim_sled.core.vmm import BaggageOf, Vmm, no_baggage

MESSAGES_MAX: Final = 10_000
"""Messages between two VMMs in one turn: a whole migration is about 40; more is a loop, and a bug."""

GONE_MAX: Final = 100_000
"""Addresses of VMMs that are gone; the oldest are forgotten, and a source there is imagined again."""


_OVER: Final[list[VmEffect]] = [Crashed()]


@attrs.define(eq=False)
class Links:
    """See the module. `expose`: everything that a VM says comes out as `FromPropolis` too. `baggage`: what a source
    takes along.
    """

    turn: Turn
    expose: bool = False
    baggage: BaggageOf = no_baggage
    _sources: dict[str, Vmm] = attrs.field(factory=dict)  # by the Propolis address that Nexus chose
    _gone: dict[str, None] = attrs.field(factory=dict)  # addresses where nobody is any more, the oldest first
    messages: deque[tuple[Vmm, Vmm, VmEffect]] = attrs.field(factory=deque)
    """Under way: from whom, to whom, what."""

    # --- who is where -----------------------------------------------------------------------------------------------

    def add_source(self, vmm: Vmm) -> None:
        """From now on this VMM is what can be migrated from at its address, also if another one was before."""
        self._sources[vmm.about.propolis_addr] = vmm
        self._gone.pop(vmm.about.propolis_addr, None)

    def remove_source(self, vmm: Vmm) -> None:
        """An address that was given anew stays with the newer VMM."""
        if self._sources.get(vmm.about.propolis_addr) is vmm:
            del self._sources[vmm.about.propolis_addr]
            self._gone[vmm.about.propolis_addr] = None
            if len(self._gone) > GONE_MAX:
                del self._gone[next(iter(self._gone))]

    def source_at(self, address: str, target: Vmm) -> Vmm | None:
        """The VMM of this rack that `target` shall migrate from, if it is here. Whether it can is seen when it is
        dialled.
        """
        source = self._sources.get(canonical_address(address))
        return None if source is target else source

    def is_gone(self, address: str) -> bool:
        """Whether a VMM of this rack was there, and nobody is now."""
        return canonical_address(address) in self._gone

    # --- what is said -----------------------------------------------------------------------------------------------

    def after(self, vmm: Vmm, rest: list[VmEffect], effects: list[Effect]) -> None:
        """Route what Propolis said; the VMM is looked at when the turn settles."""
        self.turn.touched.append(vmm)
        if vmm.peer is None and not vmm.source_gone:
            self._expose(vmm, rest, effects)
            return
        said: list[VmEffect] = []
        for effect in rest:
            if vmm.source_gone and isinstance(effect, Dial):
                self.messages.append((vmm, vmm, effect))
                continue
            if vmm.peer is not None and isinstance(effect, Dial | ToPeer | PeerClosed):
                self.messages.append((vmm, vmm.peer, effect))
                continue
            if type(effect) is Crashed:
                self._expose(vmm, said, effects)  # before its peer hears that it is gone
                said = []
                self.disconnect(vmm, effects)
            said.append(effect)
        self._expose(vmm, said, effects)

    def _expose(self, vmm: Vmm, said: list[VmEffect], effects: list[Effect]) -> None:
        if said and self.expose:
            effects.append(contract.FromPropolis(vmm.sled_id, vmm.propolis_id, said))

    def over(self, vmm: Vmm, effects: list[Effect]) -> None:
        """The Propolis of this VMM has run down and is forgotten: whoever still talks to it hears no more."""
        self._expose(vmm, _OVER, effects)

    def deliver_all(self, effects: list[Effect]) -> None:
        for _ in range(MESSAGES_MAX):
            if not self.messages:
                return
            self._deliver(*self.messages.popleft(), effects)
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
            self.after(receiver, receiver.drive(message, self.turn.now_us), effects)
        else:
            sender.peer = None
            self._part(receiver, "the peer closed the connection", effects)

    def _dial(self, target: Vmm, source: Vmm, migration_id: UUID, effects: list[Effect]) -> None:
        """A target asks its source to migrate; what the source's queue denies, the target sees as a lost peer.

        A target that would dial a source which is gone stands for both.
        """
        if source is target or source.vm is None or source.peer is not None:
            self._part(target, "the source is not there", effects)
            return
        baggage = self.baggage(source.sled_id, source.propolis_id)
        try:
            source.check_untried(migration_id)
            opened = source.migrate_out(MigrateOut(migration_id, baggage=baggage), self.turn.now_us)
        except (InvalidRequest, PropolisRefused) as denied:
            self.turn.tell(target, Kind.MIGRATION, f"the source refuses: {denied}")
            self._part(target, str(denied), effects)
            return
        source.peer = target
        self.turn.tell(source, Kind.MIGRATION, f"asked to migrate to {target.propolis_id}")
        self.after(source, opened, effects)

    def _part(self, vmm: Vmm, why: str, effects: list[Effect]) -> None:
        """The other side of this VMM's migration is gone."""
        vmm.peer = None
        if vmm.vm is not None:
            self.after(vmm, vmm.drive(PeerLost(why), self.turn.now_us), effects)

    def disconnect(self, vmm: Vmm, effects: list[Effect]) -> None:
        """The Propolis of this VMM is gone, and with it its connection: the other side notices."""
        other, vmm.peer = vmm.peer, None
        if other is not None and other.peer is vmm:
            self._part(other, "the peer is gone", effects)
