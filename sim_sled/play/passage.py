r"""Between a daemon and its rack: straight through, until there is something to conduct.

    daemon --input--> Passage ---------------------> rack        no scenario: most daemons, for ever
                         \----> Conductor ----> rack             from the first rules on

The rules engine and the language are half of what a daemon would import, so the conductor is made when somebody asks
for it: by rules, by `engine`, by a snapshot. The rack is the same before and after; it has this as its pacer and its
watch, which ask the conductor once there is one.

Read before: core/rack.py, play/calls.py. Read next: daemon/daemon.py, play/conductor.py, recording/replaying.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import attrs

from propolis_stub.waiting import Edge, Pace, Pacer, Point
from sim_sled.core import contract
from sim_sled.core.estate import AtOnce, SledPacer
from sim_sled.core.happenings import Happening
from sim_sled.core.rack import Rack
from sim_sled.language.pacer import PresetPacer
from sim_sled.play.calls import SILENCE_US, Begin, Effect, Fire, LetGo, Load, Step, Watcher

if TYPE_CHECKING:
    from sim_sled.engine.cast import Subject
    from sim_sled.engine.engine import Engine
    from sim_sled.play.conductor import Conductor
    from sim_sled.play.wrong_sleds import WrongSled

_TICK: Final = contract.Tick()
_RULES: Final = (Load, Fire, LetGo)
"""What only means something to a conductor."""


@attrs.define(eq=False)
class Passage:
    """Fields as `play.conductor.Conductor` has them; `rules`: those of a scenario that is there from the start."""

    rules: Engine | None
    seed: int
    watcher: Watcher
    base: Pacer
    silence_us: int = SILENCE_US
    first_name: str | None = None
    watched: bool = True
    sled_pacer: SledPacer = attrs.field(factory=AtOnce)
    wrong: WrongSled | None = None
    rack: Rack = attrs.field(init=False)
    _begun_us: int | None = None
    _conductor: Conductor | None = None
    _left: dict[UUID, str] = attrs.field(factory=dict)
    """Names of sleds that have left: what happened to them is told later, too."""

    def __attrs_post_init__(self) -> None:
        watch = self._watch if self.watched else None
        self.rack = Rack(pacer=self, seed=self.seed, watch=watch, sled_pacer=self.sled_pacer)
        if self.rules is not None or self.wrong is not None:
            self._conduct()

    # ---- the conductor

    @property
    def conductor(self) -> Conductor:
        """Made here, if nobody has asked for it before."""
        return self._conduct() if self._conductor is None else self._conductor

    def _conduct(self) -> Conductor:
        from sim_sled.play.conductor import Conductor  # noqa: PLC0415 -- see the module
        from sim_sled.play.fleet import no_rules  # noqa: PLC0415 -- same

        pace = self.base.preset if isinstance(self.base, PresetPacer) else None
        self._conductor = Conductor(
            self.rules or no_rules(self.seed, pace),
            self.seed,
            self.watcher,
            self.base,
            silence_us=self.silence_us,
            first_name=self.first_name,
            watched=self.watched,
            sled_pacer=self.sled_pacer,
            wrong=self.wrong,
            rack=self.rack,
        )
        if self._begun_us is not None:
            self._conductor.handle(Begin(), self._begun_us)
        self._hear()
        return self._conductor

    def _hear(self) -> None:
        if self.has_rules:
            self.rack.watch = self._watch  # rules hear of what happens, whether or not anybody else does

    @property
    def has_rules(self) -> bool:
        """Whether a scenario is played."""
        return self._conductor is not None and self._conductor.has_rules

    @property
    def begun(self) -> bool:
        """Whether scenario time counts."""
        return self._begun_us is not None

    def who(self, propolis_id: UUID | None) -> Subject | None:
        """The VMM of this id, if any rule could mean it."""
        return None if self._conductor is None else self._conductor.engine.cast.who(propolis_id)

    def subjects(self) -> list[Subject]:
        """All VMMs that rules have met, oldest first, also those that no sled has taken."""
        return [] if self._conductor is None else list(self._conductor.engine.cast.subjects.values())

    def name_of(self, sled_id: UUID) -> str | None:
        """A sled's name in the fleet of the scenario."""
        info = None if self._conductor is None else self._conductor.engine.cast.by_id.get(sled_id)
        return None if info is None else info.name

    def known_as(self, sled_id: UUID) -> str:
        """As the scenario's fleet calls it, or did until it left; its id if none does."""
        return self.name_of(sled_id) or self._left.get(sled_id) or str(sled_id)

    def fired(self) -> dict[str, int]:
        """How often each rule fired."""
        counters = {} if self._conductor is None else self._conductor.engine.counters
        return {name: counter.fired for name, counter in counters.items()}

    def leave(self, sled_id: UUID) -> None:
        """A sled is not there any more."""
        if (name := self.name_of(sled_id)) is not None:
            self._left[sled_id] = name
        if self._conductor is not None:
            self._conductor.leave(sled_id)

    # ---- the doors

    def next_deadline_us(self) -> int | None:
        """When `Step` has something to do."""
        return self.rack.next_deadline_us() if self._conductor is None else self._conductor.next_deadline_us()

    def run(self, item: Any, now_us: int) -> Sequence[Effect]:
        """One input, and with rules whatever is due by then. Raises as `Conductor.handle`."""
        if type(item) is Begin:
            self._begun_us = now_us
        conductor = self.conductor if isinstance(item, _RULES) else self._conductor
        if conductor is not None:
            effects = conductor.run(item, now_us) if conductor.has_rules else conductor.handle(item, now_us)
            if type(item) is Load:
                self._hear()
            return effects
        if type(item) is Begin:
            return []
        if type(item) is not Step:
            return self.rack.handle(item, now_us)
        due_us = self.rack.next_deadline_us()
        return [] if due_us is None or due_us > now_us else self.rack.handle(_TICK, now_us)

    # ---- what the rack asks

    def pace(self, vm_id: UUID, point: Point, occurrence: int, edge: Edge, /) -> Pace:
        """Its pacer (`propolis_stub.waiting.Pacer`)."""
        base = self.base if self._conductor is None else self._conductor
        return base.pace(vm_id, point, occurrence, edge)

    def _watch(self, happening: Happening) -> None:
        if self._conductor is None:
            self.watcher.happened(happening, None)
        else:
            self._conductor.watch(happening)
