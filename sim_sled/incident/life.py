"""Questions about one VMM of an incident: how long its edges took, what its end was, what was forgotten.

Read before: incident/timeline.py.
Read next: incident/deaths.py, incident/departures.py, incident/derive.py, incident/hosts.py, incident/migrations.py,
incident/reports.py, incident/requests.py, incident/sheet.py.
"""

from __future__ import annotations

from typing import Final

from sim_sled.incident.facts import Asked, Ending, Fact, NotTaken, Observed, Op, Published, Received, Wanted
from sim_sled.incident.timeline import TERMINAL, Incident, Instance, Vmm

SECOND_US: Final = 1_000_000
TEARDOWN: Final = "stopped -> destroyed"
"""The edge of the language which the agent's own work (zone bundle, zone removal) lengthens."""
LEFT: Final = "stopping -> destroyed"
"""The edge of a source whose guest has moved away: it has no Stopped (PR 1.1)."""
SLOW_US: Final = {
    # three times a good day on real hardware and beyond its p99 (presets.py, rack); less is noise
    "starting -> running": 30 * SECOND_US,
    "stopping -> stopped": 5 * SECOND_US,
    TEARDOWN: 25 * SECOND_US,
    LEFT: 25 * SECOND_US,
    "rebooting -> running": 30 * SECOND_US,
}
CLIENT_US: Final = 60 * SECOND_US
"""How long Nexus waits for an answer about a VMM (omicron#5235)."""
ONE_CAUSE_US: Final = 5 * SECOND_US
"""Things of one kind on one sled within that are assumed to have one cause (LG 6)."""
CHECK_PERIOD_US: Final = 30 * SECOND_US
"""Between two health checks of a VMM, and two passes of the instance updater (NX 4.5)."""
RESTART_PERIOD_US: Final = 60 * SECOND_US
"""Between two passes of Nexus over what has failed (NX 4.5)."""
SILENT_US: Final = 15 * SECOND_US
"""A log that ends that much sooner than the others has stopped, or is not the whole."""
_NEAR_US: Final = SECOND_US // 10
"""Lines of two programs of one sled about one request are that near to it."""


def first(vmm: Vmm, state: str) -> Observed | None:
    return next((o for o in vmm.observed if o.state == state), None)


def ran_since(vmm: Vmm, at_us: int) -> int | None:
    """When it last came to run by a time; None if no line says that it did."""
    return max((o.at_us for o in vmm.observed if o.state == "running" and o.at_us <= at_us), default=None)


def told_end(vmm: Vmm) -> Published | Received | None:
    """The report of its end, by its agent or, where the log of that is missing, by Nexus."""
    reports: list[Published | Received] = [*(vmm.published or vmm.received)]
    return next((each for each in reports if each.state == "destroyed"), None)


def is_target(vmm: Vmm) -> bool:
    """Whether it was registered as a migration's target."""
    return vmm.described is not None and vmm.described.migration != ""


def unregistered(vmm: Vmm) -> Asked | None:
    """The first request to forget it: its sled observes nothing more of it."""
    return next((each for each in vmm.asked if each.op is Op.UNREGISTER and each.status is not None), None)


def blocked(vmm: Vmm, from_us: int, to_us: int) -> NotTaken | None:
    """A report that Nexus did not take meanwhile: then the agent observed nothing, whatever Propolis did."""
    return next((n for n in vmm.not_taken if not n.final and from_us <= n.at_us <= to_us), None)


def seen_late(vmm: Vmm, seen_us: int) -> bool:
    """Whether the agent saw a state only when it had told the one before it, and so did what it saw right then: when
    Propolis came into it, it does not know.
    """
    before = max((each.at_us for each in vmm.observed if each.at_us < seen_us - _NEAR_US), default=seen_us)
    exact = any(each.exact and each.at_us == seen_us for each in vmm.observed)
    return not exact and blocked(vmm, before, seen_us) is not None


def forgotten(vmm: Vmm) -> Asked | None:
    """A 404 about a VMM whose end is only told afterwards (LG 0 #9)."""
    for check in vmm.asked:
        if check.op is Op.GET_STATE and check.status == 404:
            end = next((p for p in vmm.published if p.state in TERMINAL), None)
            if end is not None and end.at_us > check.at_us:
                return check
    return None


def unknown(vmm: Vmm) -> Asked | None:
    """The first check that met 404 if a sled says nothing else of a VMM: it was lost before the log begins."""
    lost = all(each.op is Op.GET_STATE and each.status == 404 for each in vmm.asked)
    told = vmm.described or vmm.published or vmm.ended or any(not each.heard for each in vmm.observed)
    return vmm.asked[0] if vmm.asked and lost and not told else None


def vanished_with_its_sled(incident: Incident, vmm: Vmm, before_us: int) -> bool:
    """Whether a VMM's sled has fallen silent for good while it ran, before the instance was registered anew then."""
    states: list[Observed | Published] = [*vmm.observed, *vmm.published]
    over = any(each.state in TERMINAL for each in states)
    last_us = incident.last_us.get(vmm.sled)
    lived = bool(states) and vmm.sled in incident.sleds and not over
    return lived and last_us is not None and last_us + SILENT_US < before_us


def wanted(vmm: Vmm, put: Asked) -> Wanted | None:
    """Who says which state a request was about: Propolis, or our own sled; None: what followed has to tell."""
    began_us = put.at_us - put.latency_us
    for each in vmm.wanted:
        if began_us - _NEAR_US <= each.at_us <= put.at_us + _NEAR_US:
            return each
    return None


def edges(vmm: Vmm) -> list[tuple[str, int, int, Observed]]:
    """(edge, began, took, the observation that ended it) of one VMM."""
    found = []
    began = next((z.at_us for z in vmm.zones if z.step == "configuring"), None)
    put = next((a for a in vmm.asked if a.op is Op.PUT_STATE and a.status is not None), None)
    if began is None and put is not None and vmm.registered is not None:
        began = put.at_us - put.latency_us
    starting = first(vmm, "starting")
    if began is None and starting is not None and (starting.exact or starting.heard):
        began = starting.at_us
    if began is None and vmm.starting is not None and all(each.heard for each in vmm.observed):
        began = vmm.starting.at_us
    running = next((o for o in vmm.observed if o.state not in ("creating", "starting")), None)
    ran = running is not None and running.state == "running"  # else the line that says so is lost
    if began is not None and running is not None and ran and running.at_us > began and not is_target(vmm):
        found.append(("starting -> running", began, running.at_us - began, running))
    moved_away = False
    if vmm.observed and vmm.observed[0].state == "destroyed" and vmm.observed[0].exact:  # ... before it even started
        found.append((TEARDOWN, vmm.observed[0].at_us, 0, vmm.observed[0]))
    for before, after in zip(vmm.observed, vmm.observed[1:], strict=False):
        edge = f"{before.state} -> {after.state}"
        moved_away |= edge == "migrating -> stopping"
        if edge == "migrating -> destroyed" and after.exact:  # one instant: its Stopping was not seen (PR 3.7)
            found.append((LEFT, after.at_us, 0, after))
        elif edge == "starting -> destroyed" and after.exact:  # stopped before it ran: one instant, too
            found.append((TEARDOWN, after.at_us, 0, after))
        elif edge == LEFT and after.exact and moved_away:
            found.append((LEFT, before.at_us, after.at_us - before.at_us, after))
        elif edge == LEFT and before.heard and not moves(vmm):
            found.append((TEARDOWN, before.at_us, after.at_us - before.at_us, after))
        elif edge == LEFT and after.exact:
            # a monitor sees the last of what was published in one instant (PR 3.7): Stopped took no time
            found.append(("stopping -> stopped", before.at_us, after.at_us - before.at_us, after))
            found.append((TEARDOWN, after.at_us, 0, after))
        elif edge in SLOW_US and edge not in ("starting -> running", LEFT):
            found.append((edge, before.at_us, after.at_us - before.at_us, after))
    told, stopped = told_end(vmm), first(vmm, "stopped")
    gone = first(vmm, "destroyed")
    if told is not None and gone is not None and not gone.whole and not gone.heard:
        # the agent tells the end when the zone is gone, long after Propolis has said so
        found.append((TEARDOWN, gone.at_us, told.at_us - gone.at_us, gone))
    elif told is not None and stopped is not None and gone is None:
        found.append((TEARDOWN, stopped.at_us, told.at_us - stopped.at_us, stopped))
    return found


def ran_before(vmm: Vmm) -> bool:
    """Whether it was there before the logs begin: a replay registers and starts it, which is in no line."""
    return not vmm.is_noise and vmm.described is None and vmm.registered is None


def is_start(vmm: Vmm, put: Asked) -> bool:
    """Whether a put is the start for certain, whatever is left of what followed: the first, right after it was
    registered.
    """
    began_us = put.at_us - put.latency_us
    puts = (each.at_us - each.latency_us for each in vmm.asked if each.op is Op.PUT_STATE)
    return vmm.described is not None and began_us == min(puts) and began_us - vmm.described.at_us < ONE_CAUSE_US


def begins_here(vmm: Vmm) -> bool:
    """Whether its beginning is in the logs, whoever tells of it."""
    if vmm.described is not None or vmm.registered is not None or vmm.starting is not None:
        return True
    seen = next(iter(vmm.observed), None)
    began = min((each.at_us for each in vmm.ended if each.how is Ending.PROCESS_STARTED), default=2**62)
    return seen is not None and (seen.state in ("creating", "starting") or began < seen.at_us)


def by_itself(instance: Instance, vmm: Vmm) -> bool:
    """Whether Nexus started a VMM unasked."""
    if vmm.starting is not None and vmm.starting.automatic:
        return True
    return any(each.automatic and abs(vmm.first_us() - each.at_us) < ONE_CAUSE_US for each in instance.starts)


def left_failed(incident: Incident, instance: Instance) -> Fact | None:
    """The end of a VMM after which Nexus would have started its instance again within a pass, and did not; None if
    it has done so once, or nobody can know.
    """
    if not incident.has_nexus_log or any(by_itself(instance, vmm) for vmm in instance.vmms):
        return None
    if any(start.automatic for start in instance.starts):
        return None
    for i, vmm in enumerate(instance.vmms):
        states: list[Observed | Published] = [*vmm.observed, *vmm.published]
        words: list[Fact] = [each for each in states if each.state == "failed"]
        words += [each for each in vmm.verdicts if each.why != "unreachable"]
        failed = min(words, key=lambda each: each.at_us, default=None)
        if failed is None or is_target(vmm):
            continue
        wishes = [user.verb for user in instance.users if user.counts and user.at_us <= failed.at_us]
        following = [each.first_us() for each in instance.vmms[i + 1 :] if not is_target(each)]
        waited_us = min([incident.end_us, *following]) - failed.at_us
        wanted_down = wishes[-1:] in (["stop"], ["delete"])
        return failed if waited_us > RESTART_PERIOD_US + CHECK_PERIOD_US and not wanted_down else None
    return None


def was_started(vmm: Vmm) -> bool:
    """Whether it was asked to start; a target of a migration never is."""
    started = ran_before(vmm) or any(each.op is Op.PUT_STATE for each in vmm.asked)
    return not vmm.is_noise and not is_target(vmm) and started


def starts_before(instance: Instance, vmm: Vmm) -> int:
    """How many VMMs of an instance were started before this one."""
    started = [each.id for each in instance.vmms if each is vmm or was_started(each)]
    return started.index(vmm.id)


def times_before(instance: Instance, state: str, at_us: int) -> int:
    """How often VMMs of an instance had come into a state before."""
    count = 0
    for vmm in instance.vmms:
        was = ""
        seen = next(iter(vmm.observed), None)
        begins = seen is None or seen.state in ("creating", "starting", "running")
        if state == "running" and seen is not None and not begins and seen.at_us < at_us:
            count += ran_before(vmm)  # it ran, before the logs begin
        for each in vmm.observed:
            count += each.state == state != was and each.at_us < at_us
            was = each.state
    return count


def moves(vmm: Vmm) -> bool:
    """Whether it was a side of a migration: its source stops unasked."""
    return bool(vmm.migrated or vmm.phases) or any(p.migration_in or p.migration_out for p in vmm.published)
