"""What happened to each VMM lately, for `log`, `why` and the live table. Bounded in VMMs and lines."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final
from uuid import UUID

import attrs

from nexus_client.outbox import Permanent, Transient
from nexus_client.types import SledVmmState, VmmStateRequested
from propolis_stub.types import Publication
from sim_sled.core.happenings import Happening, Kind
from sim_sled.core.rules import Verdict
from sim_sled.core.why import told

LINES_PER_VMM: Final = 64
"""About two lives; older ones fall off."""

VMMS_KEPT: Final = 10_000
"""The least recently changed are dropped: at some 10 KB each this stays around 100 MB."""


def text_of(happening: Happening) -> str:
    """One line, without time and ids: what happened."""
    match happening.kind, happening.data:
        case (Kind.ASKED, (VmmStateRequested(type=asked), Verdict() as verdict)):
            return f"asked {asked.value}: {verdict.value}"
        case (Kind.REFUSED, (VmmStateRequested(type=asked), error)):
            return f"asked {asked.value}: refused, {error}"
        case (Kind.PROPOLIS, (before, Publication() as after)):
            was = before.state.value if isinstance(before, Publication) else "-"
            return f"propolis[{was}] -> [{after.state.value}]{_phases(after)} gen {after.gen}"
        case (Kind.OBSERVED, (SledVmmState() as before, SledVmmState() as after)):
            return f"{before.vmm_state.state.value} -> {told(after)}"
        case (Kind.SENT, (SledVmmState() as body, int(attempt))):
            return f"sent {told(body)}" + (f", attempt {attempt}" if attempt else "")
        case (kind, Transient(why=why) | Permanent(why=why)):
            return f"{kind.value}: {why}"
        case (kind, SledVmmState() as body):
            return f"{kind.value} {told(body)}"
        case (kind, data):
            return f"{kind.value}: {data}"


def _phases(publication: Publication) -> str:
    text = ""
    for side, status in (("in", publication.migration_in), ("out", publication.migration_out)):
        if status is not None:
            text += f" {side}={status.state.value}"
    return text


@attrs.define(eq=False)
class History:
    """A ring of happenings per VMM; also of VMMs that are gone."""

    _of: OrderedDict[UUID, deque[Happening]] = attrs.field(factory=OrderedDict)

    def add(self, happening: Happening) -> None:
        """Take one; the oldest make room."""
        if happening.propolis_id is None:
            return
        lines = self._of.get(happening.propolis_id)
        if lines is None:
            lines = self._of[happening.propolis_id] = deque(maxlen=LINES_PER_VMM)
            if len(self._of) > VMMS_KEPT:
                self._of.popitem(last=False)
        else:
            self._of.move_to_end(happening.propolis_id)
        lines.append(happening)

    def of(self, propolis_id: UUID) -> list[Happening]:
        """What is kept of one VMM, oldest first; empty if nothing is."""
        return list(self._of.get(propolis_id, ()))
