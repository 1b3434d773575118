"""`import` as a whole: files to a scenario that passes `check` and `run`, and the summary that is said about it.

Read before: incident/archives.py, incident/reading.py, incident/clocks.py, incident/eras.py, incident/messages.py,
incident/derive.py, incident/verify.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Final

import attrs

from nexus_client.dropshot.text import counted
from sim_sled.incident.archives import Shelf, Source, sources
from sim_sled.incident.clocks import VALID_SINCE_US, Steady
from sim_sled.incident.derive import derive
from sim_sled.incident.eras import Era
from sim_sled.incident.lines import LogLine, Reading
from sim_sled.incident.messages import facts_of
from sim_sled.incident.reading import read_lines
from sim_sled.incident.sheet import Draft
from sim_sled.incident.timeline import Collector, Incident
from sim_sled.incident.verify import Difference, compare, replay
from sim_sled.incident.writing import scenario_text, summary_text
from sim_sled.language.check import parse_scenario


class NothingFound(ValueError):
    """No usable line in any file; the text says what was read."""


@attrs.frozen
class Imported:
    """`text`: the scenario. `differences`: where its replay departs from the logs; `failed`: what it misses."""

    text: str
    summary: str
    draft: Draft
    incident: Incident
    differences: tuple[Difference, ...]
    failed: tuple[str, ...]


Progress = Callable[[Source, int, int], None]
"""The file that is being read; bytes of all files that have been, and that there are, as they lie on the disk."""


@attrs.frozen
class Window:
    """Which records count, by the clocks of those who wrote them: microseconds since the epoch. A clock that has not
    found the time cannot be asked, so what it wrote counts.
    """

    since_us: int = 0
    until_us: int = 2**62

    def has(self, at_us: int) -> bool:
        return at_us < VALID_SINCE_US or self.since_us <= at_us <= self.until_us


ALWAYS: Final = Window()


def collect(
    paths: Sequence[str], day: date | None = None, progress: Progress | None = None, window: Window = ALWAYS
) -> tuple[Incident, Reading]:
    """All files, on one clock."""
    reading = Reading()
    with Shelf() as shelf:
        found = sources(paths, reading.unreadable.append, shelf)
        return _read(found, reading, day, progress, window), reading


def _read(
    found: Sequence[Source], reading: Reading, day: date | None, progress: Progress | None, window: Window
) -> Incident:
    collector, steady, era = Collector(), Steady(reading), Era()

    def take(line: LogLine) -> None:
        if line.time_us is not None and not window.has(line.time_us):
            reading.outside += 1
            return
        if line.time_us is not None:
            collector.seen(line, line.time_us)
        told = facts_of(line)
        for fact in told:
            collector.add(fact)
        if told:
            era.note(line)

    before, total = 0, sum(source.size for source in found)
    for source in found:
        for count, read in enumerate(read_lines(source, reading, day)):
            if steady.agrees(read):
                take(read)
            else:
                for line in steady.passed(read):
                    take(line)
            if progress is not None and count % 4096 == 0:
                progress(source, before + reading.consumed(), total)
        before += source.size
    for line in steady.rest():
        take(line)
    incident = collector.incident()
    incident.era = era
    if collector.overflowed:
        reading.unreadable.append("too many facts for one incident: the newest part was left out; choose fewer files")
    return incident


def import_logs(
    paths: Sequence[str],
    name: str,
    day: date | None = None,
    progress: Progress | None = None,
    window: Window = ALWAYS,
) -> Imported:
    """The scenario of the incident in these logs. Raises `NothingFound`."""
    incident, reading = collect(paths, day, progress, window)
    return imported(incident, reading, list(paths), name)


def imported(incident: Incident, reading: Reading, files: Sequence[str], name: str) -> Imported:
    """Derived, written, checked and played once. What the replay does not meet is switched off, and said."""
    if not incident.told():
        files_read = counted(len(reading.records), "file")
        raise NothingFound(
            (
                f"{counted(sum(reading.records.values()), 'record')} of {files_read}: nothing of a VMM's life"
                if reading.records
                else "there is no log record in what was given"
            )
            + (f"\n  {counted(reading.outside, 'record')} before --since or after --until" if reading.outside else "")
            + "".join(f"\n  not read, or not to its end: {each}" for each in reading.unreadable)
            + "".join(f"\n  {counted(count, 'line')}: {kind}" for kind, count in sorted(reading.odd.items()))
        )
    draft = derive(incident, name)
    dropped: set[str] = set()
    while True:
        text = scenario_text(draft, files, reading, dropped)
        scenario, problems = parse_scenario(text, "imported")
        if scenario is None and _left_out(draft):
            continue
        assert scenario is not None, f"an imported scenario is not valid, which is a bug:\n{problems.text()}\n{text}"
        result, played = replay(scenario)
        missed = {_name_of(failure.key) for failure in result.failures}
        new = {entry.name for entry in draft.expect if entry.name in missed} - dropped
        invariants = [each for each in draft.always if each in missed]
        if not new and not invariants:
            break
        dropped |= new
        for each in invariants:
            draft.always.remove(each)
            draft.doubts.append(
                f"The replay breaks '{each}'; it is not demanded. The incident may have broken it too."
            )
    differences = compare(draft, played)
    failed = tuple(sorted(dropped)) + tuple(failure.text for failure in result.failures)
    summary = summary_text(draft, reading)
    summary += "".join(
        f"  uncertain: the replay does not meet '{each}', which is switched off in the file\n"
        for each in sorted(dropped)
    )
    return Imported(text, summary, draft, incident, tuple(differences), failed)


def _left_out(draft: Draft) -> bool:
    """Leaves out rules that are not valid, and says so: garbage in a log that nothing before has noticed makes no
    rule. Whether there were any.
    """
    bad = []
    for rule in draft.rules:
        alone = attrs.evolve(draft, rules=[rule], expect=[])
        if parse_scenario(scenario_text(alone, (), Reading()), "imported")[0] is None:
            bad.append(rule)
    if len(bad) == len(draft.rules) > 1:
        return False  # it is not the rules
    for rule in bad:
        draft.rules.remove(rule)
        draft.doubts.append(f"A rule is left out, as its figures cannot be: {rule.name} ({', '.join(rule.why[:1])}).")
    return bool(bad)


def _name_of(key: str) -> str:
    """The name of the expectation or invariant in a failure's key."""
    return key.rpartition(" ")[2].strip("'\"") if " " in key else key
