"""A Propolis that is gone, empty or silent, as a rule: what its agent noticed, and what it said itself (LG 5 #5, 6).

Read before: incident/sheet.py, incident/life.py. Read next: incident/departures.py.
"""

from __future__ import annotations

from typing import Final

import attrs

from sim_sled.incident.facts import Ended, Ending
from sim_sled.incident.life import ran_since, times_before
from sim_sled.incident.sheet import Sheet, at, duration, host_named
from sim_sled.incident.timeline import Instance, Vmm

_DEADLY: Final = frozenset({Ending.ZONE_GONE, Ending.EMPTY, Ending.SILENT, Ending.PROCESS_DIED})


@attrs.define
class Deaths:
    """Writes the rule of a Propolis that died on the sheet of an incident."""

    sheet: Sheet

    def of(self, instance: Instance, vmm: Vmm) -> None:
        """One death of a VMM, whoever tells of it: the first word says when, the surest one which (LG 6)."""
        words = _words(vmm)
        if not words:
            return
        first = words[0]
        sure = next((each for each in words if each.how is not Ending.SILENT), None)
        if sure is None and any(o.at_us > first.at_us and o.state != "failed" for o in vmm.observed):
            self.sheet.draft.notes.append(
                f"{first.where}: Propolis of {instance.shown} did not answer for a while, and did again: no rule."
            )
            return
        kill = f"{{kill_propolis: {{restart: {'false' if sure is None else 'true'}}}}}"
        doubt = [] if sure is not None else ["Propolis died or hung: the log cannot tell"]
        if ran_since(vmm, first.at_us) is not None and first.how is not Ending.PROCESS_DIED:
            doubt.append("the agent noticed then; when it died is not known")
        why = dict.fromkeys(at(each.where, each.how.value) for each in (first, sure) if each is not None)
        name = f"{instance.shown}-propolis-dies"
        stopping = next((each for each in vmm.observed if each.state == "stopping"), None)
        if stopping is not None and vmm.state_at(first.at_us) == "stopping":
            # in the middle of a stop, which would be over by then
            do = f"[{{stall: forever}}, {{delay: {duration(first.at_us - stopping.at_us)}}}, {kill}]"
            skip = times_before(instance, "stopping", stopping.at_us)
            whom = host_named(instance.shown)
            self.sheet.rule(name, whom, "{state: stopping}", do, why=why, doubt=doubt, times=1, skip=skip)
            return
        self.sheet.in_its_life(name, instance, vmm, first.at_us, kill, why=why, doubt=doubt)


def _words(vmm: Vmm) -> list[Ended]:
    """Who tells of a death, in order. A second process of a Propolis has no VM (LG 2.3); what its VMM's end brings
    about is none.
    """
    words = sorted((each for each in vmm.ended if each.how in _DEADLY), key=lambda each: each.at_us)
    second = [each for each in vmm.ended if each.how is Ending.PROCESS_STARTED][1:2]
    words += [attrs.evolve(each, how=Ending.EMPTY) for each in second]
    over_us = min((o.at_us for o in vmm.observed if o.state in ("stopped", "destroyed")), default=2**62)
    return sorted(
        (each for each in words if each.how is not Ending.PROCESS_DIED or each.at_us < over_us),
        key=lambda each: each.at_us,
    )
