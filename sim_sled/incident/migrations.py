"""Migrations: sides of them that no log has, and rules of those that failed (LG 5 #5).

Often the logs of one sled are all there is. A side that nobody wrote down is put into the incident as a VMM on a sled
called `elsewhere`, with no more states than what the other side implies, so that the replay can play the migration.

Read before: incident/life.py, incident/sheet.py. Read next: incident/departures.py, incident/derive.py.
"""

from __future__ import annotations

from typing import Final

import attrs

from sim_sled.incident.facts import A_MIGRATION, Described, Observed, Phase, Published
from sim_sled.incident.life import SECOND_US, is_target
from sim_sled.incident.sheet import Sheet, at, host_named
from sim_sled.incident.timeline import ELSEWHERE, Incident, Instance, Vmm

_BEFORE_US: Final = 60 * SECOND_US
"""So long before a source begins to migrate its target was registered, at most."""
_LEAD_US: Final = 4 * SECOND_US
"""How long that takes as a rule: the zone of the target."""
_ENDS: Final = frozenset({"stopping", "stopped", "destroyed"})


def add_unseen_sides(incident: Incident) -> None:
    """Puts what is missing of migrations into an incident, in place."""
    for instance in incident.told():
        for vmm in instance.vmms[1:]:
            if vmm.observed and vmm.observed[0].state == "migrating":
                if _side(vmm) == "out":
                    _ran_before_it_moved(vmm, instance.vmms)
                else:
                    _call_target(vmm)  # its registration is lost
        instance.vmms.sort(key=Vmm.first_us)
        for vmm in list(instance.vmms):
            _targets_elsewhere(incident, instance, vmm)
        first = next((vmm for vmm in instance.vmms if not vmm.is_noise), None)
        if first is not None and (is_target(first) or _came_in(first)):
            _source_elsewhere(incident, instance, first)
        instance.vmms.sort(key=Vmm.first_us)
    moved = any(is_target(vmm) for each in incident.told() for vmm in each.vmms)
    if moved and len(incident.sleds) == 1:
        incident.sleds.append(ELSEWHERE)


def _came_in(vmm: Vmm) -> bool:
    """Whether it is the target of a migration that began before the logs do."""
    begins = vmm.observed[0].state if vmm.observed else ""
    return vmm.described is None and begins == "migrating" and _side(vmm) == "in"


def _side(vmm: Vmm) -> str:
    """On which side of its first migration it was: "in", "out", "" if no line says."""
    if vmm.phases:
        return vmm.phases[0].side
    told = next((each for each in vmm.published if each.migration_in or each.migration_out), None)
    return "" if told is None else "in" if told.migration_in else "out"


def _ran_before_it_moved(source: Vmm, vmms: list[Vmm]) -> None:
    """A source of which no line before its migration is left was there before its target."""
    moved = source.observed[0]
    targets = [vmm.first_us() for vmm in vmms if is_target(vmm) and 0 <= moved.at_us - vmm.first_us() <= _BEFORE_US]
    at_us = min([moved.at_us, *targets]) - SECOND_US
    source.observed.insert(0, attrs.evolve(moved, at_us=at_us, state="running"))


def _call_target(vmm: Vmm) -> Described:
    """A target of which no registration is left: what begins with migrating is one."""
    if vmm.described is None:
        began = vmm.observed[0]
        vmm.described = Described(
            where=began.where, host=began.host, at_us=vmm.first_us(), vmm=vmm.id, migration=A_MIGRATION
        )
    return vmm.described


def _source_elsewhere(incident: Incident, instance: Instance, target: Vmm) -> None:
    began = _call_target(target)
    source = Vmm(f"source of {target.id}", instance=instance.id, sled=ELSEWHERE)
    source.observed.append(
        Observed(where=began.where, host=ELSEWHERE, at_us=began.at_us - SECOND_US, vmm=source.id, state="running")
    )
    _add(incident, instance, source)


def _targets_elsewhere(incident: Incident, instance: Instance, source: Vmm) -> None:
    """A target for each time a VMM began to migrate away and none of its instance was registered just before."""
    targets = [vmm for vmm in instance.vmms if is_target(vmm) and vmm is not source]
    before, since_us = "", 0
    for number, seen in enumerate(source.observed):
        began = seen.state == "migrating" != before
        comes_in = before in ("", "creating", "starting") and (is_target(source) or _came_in(source))
        if began and not comes_in and not _registered(targets, source, seen.at_us):
            outcome = next((each for each in source.observed[number:] if each.state != "migrating"), None)
            wish = next(
                (u for u in instance.users if u.verb == "migrate" and 0 <= seen.at_us - u.at_us <= _BEFORE_US), None
            )
            at_us = wish.at_us if wish is not None else max(seen.at_us - _LEAD_US, since_us + SECOND_US // 2)
            _add(incident, instance, _target(instance, source, seen, min(at_us, seen.at_us), outcome))
        before, since_us = seen.state, seen.at_us


def _registered(targets: list[Vmm], source: Vmm, at_us: int) -> bool:
    """Whether the target of a migration is among these: by its id, or if no line has that, by its time."""
    told: list[Published | Phase] = [each for each in source.published if each.migration_out]
    told += [each for each in source.phases if each.side == "out"]
    known = min((each for each in told if each.at_us >= at_us), key=lambda each: each.at_us, default=None)
    if known is not None and any(t.described and t.described.migration == known.migration for t in targets):
        return True
    return any(-SECOND_US <= at_us - vmm.first_us() <= _BEFORE_US for vmm in targets)


def _target(instance: Instance, source: Vmm, began: Observed, at_us: int, outcome: Observed | None) -> Vmm:
    target = Vmm(f"target of {source.id} at {began.where}", instance=instance.id, sled=ELSEWHERE)
    target.described = Described(where=began.where, host=ELSEWHERE, at_us=at_us, vmm=target.id, migration=A_MIGRATION)
    if outcome is not None and outcome.state in _ENDS:
        for state, seen in (("migrating", began), ("running", outcome)):
            target.observed.append(
                Observed(where=seen.where, host=ELSEWHERE, at_us=seen.at_us, vmm=target.id, state=state)
            )
    return target


def _add(incident: Incident, instance: Instance, vmm: Vmm) -> None:
    vmm.unseen = True
    incident.vmms[vmm.id] = vmm
    instance.vmms.append(vmm)
    if ELSEWHERE not in incident.sleds:
        incident.sleds.append(ELSEWHERE)


@attrs.define
class Migrations:
    """Writes the rules of migrations that failed on the sheet of an incident."""

    sheet: Sheet

    def of(self, instance: Instance, vmm: Vmm) -> None:
        """The rule of each migration that failed, of which a VMM tells as one of its sides."""
        told = [(m.at_us, m.where, m.phase) for m in vmm.migrated if m.failed]
        was = {"in": "", "out": ""}
        for each in vmm.published:
            for side, now in (("in", each.migration_in), ("out", each.migration_out)):
                if now == "failed" != was[side]:
                    told.append((each.at_us, each.where, ""))
                was[side] = now
        for at_us, where, phase in sorted(told, key=lambda each: each[0]):
            # both sides tell of it, and Nexus does: which migration it was, its target says
            targets = [each for each in instance.vmms if is_target(each) and each.first_us() <= at_us]
            if not self.sheet.once("migration", targets[-1].id if targets else instance.id):
                continue
            seen = [p.phase for p in vmm.phases if p.at_us <= at_us and p.phase not in ("finish", "error")]
            doubt = [] if seen or phase else ["in which phase it failed is in no line: ram_push is invented"]
            self.sheet.rule(
                f"{instance.shown}-migration-fails",
                host_named(instance.shown, ", role: source" if len(targets) > 1 else ""),
                f"{{migration: {phase or (seen[-1] if seen else 'ram_push')}}}",
                "{migration: {result: failed, source: resumes, target: failed}}",
                why=[at(where, "the migration failed")],
                doubt=doubt,
                times=1,
                skip=max(0, len(targets) - 1),
            )
            self.sheet.expect(
                f"{instance.shown}-stays",
                [
                    f"for: {host_named(instance.shown)}",
                    "after: {migration: error}",
                    "within: 60s",
                    "that: {migration_out: failed, sled: unchanged}",
                ],
                [at(where, "failed")],
            )
