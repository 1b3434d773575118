"""The sheet on which a scenario is drafted: entries with the lines they rest on, and the clock of the replay.

Read before: incident/life.py.
Read next: incident/deaths.py, incident/departures.py, incident/derive.py, incident/hosts.py, incident/migrations.py,
incident/reports.py, incident/requests.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from nexus_client.dropshot.text import counted
from sim_sled.incident.life import ran_since, times_before
from sim_sled.incident.lines import Where
from sim_sled.incident.timeline import Incident, Instance, Vmm


@attrs.frozen
class Entry:
    """One item of the scenario: `text` is its YAML in flow style, one key per line; `why` quotes lines."""

    name: str
    text: tuple[str, ...]
    why: tuple[str, ...] = ()
    doubt: tuple[str, ...] = ()


@attrs.define
class Draft:
    """A scenario to be written. `shape`: of every sled, "" if the language's has room for all; `notes`: what is said
    in the head and in the summary; `wrote`: where each host is first spoken of; `compared`: by host name, the VMMs a
    replay is held against; `run_on`: who is left in a state for ever; `forgotten`: ids of forgotten VMMs.
    """

    name: str
    sleds: int = 1
    shape: str = ""
    load: list[tuple[int, Entry]] = attrs.field(factory=list)
    latency: list[Entry] = attrs.field(factory=list)
    rules: list[Entry] = attrs.field(factory=list)
    expect: list[Entry] = attrs.field(factory=list)
    agent: list[str] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    doubts: list[str] = attrs.field(factory=list)
    agent_why: list[str] = attrs.field(factory=list)
    hosts: dict[str, str] = attrs.field(factory=dict)
    wrote: dict[str, Where] = attrs.field(factory=dict)
    always: list[str] = attrs.field(factory=lambda: ["gen_monotonic", "final_state_acked", "one_running_vmm"])
    compared: dict[str, list[Vmm]] = attrs.field(factory=dict)
    run_on: set[str] = attrs.field(factory=set)
    forgotten: set[str] = attrs.field(factory=set)


def duration(us: int) -> str:
    """A duration as people write it: milliseconds below a second, else seconds with as many digits as it needs."""
    ms = max(0, round(us / 1000))
    if ms < 1000:
        return f"{ms}ms"
    return f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"


def at(where: Where, what: str) -> str:
    """A line that a comment quotes."""
    return f"{where}  {' '.join(what.split())[:90]}"


def host_named(name: str, more: str = "") -> str:
    """A selector for one host name."""
    return f"{{hostname: {word(name)}{more}}}"


def word(name: str) -> str:
    """A name as YAML: quoted where it could be taken for something else (`no`, `1e3`)."""
    plain = name[:1].isalpha() and name.replace("-", "a").isalnum() and "-" in name[1:-1]
    return name if plain else f'"{name}"'


def slug(text: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower())
    while "--" in kept:
        kept = kept.replace("--", "-")
    return kept.strip("-")[:63].strip("-") or "unnamed"


def quoted(text: str) -> str:
    """As the inside of a double-quoted YAML string on one line."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
    return flat.replace("\\", "\\\\").replace('"', '\\"')


@attrs.define
class Sheet:
    """A draft while it grows. `shift_us`: added to every time, so that VMs which ran before have booted. `longest`:
    of each edge that has a latency, its upper bound, for which a replay may wait where the logs did not. `said`: what
    has a rule already.
    """

    incident: Incident
    draft: Draft
    shift_us: int = 0
    longest: dict[str, int] = attrs.field(factory=dict)
    said: set[tuple[str, str]] = attrs.field(factory=set)

    def once(self, what: str, of: str) -> bool:
        """Whether this is said for the first time of one VMM, sled or migration: several lines tell one thing."""
        new = (what, of) not in self.said
        self.said.add((what, of))
        return new

    def t(self, us: int) -> int:
        """Time of the run."""
        return max(0, us - self.incident.begin_us + self.shift_us)

    def when(self, us: int) -> str:
        return f"{{at: {duration(self.t(us))}}}"

    def load(self, at_us: int, action: str, why: Iterable[str], doubt: Iterable[str] = ()) -> None:
        entry = Entry("", (f"at: {duration(at_us)}", action), tuple(why), tuple(doubt))
        self.draft.load.append((at_us, entry))

    def names(self) -> list[str]:
        return [entry.name for entry in self.draft.rules]

    def rule(
        self,
        name: str,
        whom: str,
        when: str,
        do: str,
        *,
        why: Iterable[str],
        doubt: Iterable[str] = (),
        times: int | None = None,
        skip: int = 0,
        between: tuple[int, int] | None = None,
    ) -> str:
        """Returns what it is called, as names are unique. `skip`: so often its moment came before, in which nothing
        departed. `between`: times of the logs.
        """
        lines = [f"for: {whom}"] if whom else []
        lines.append(f"when: {when}")
        if between is not None:
            lines.append(f"between: {duration(self.t(between[0]))}..{duration(self.t(between[1]))}")
        if skip:
            lines.append(f"skip: {skip}")
        if times is not None:
            lines.append(f"times: {times}")
        lines.append(f"do: {do}")
        taken = set(self.names())
        unique = name = slug(name)
        number = 2
        while unique in taken:
            unique, number = f"{name[:58]}-{number}", number + 1
        self.draft.rules.append(Entry(unique, tuple(lines), tuple(why), tuple(doubt)))
        return unique

    def in_its_life(
        self,
        name: str,
        instance: Instance,
        vmm: Vmm,
        at_us: int,
        do: str,
        *,
        why: Iterable[str],
        doubt: Iterable[str] = (),
    ) -> None:
        """A rule of one moment in a VMM's life: so long after it ran, or at its time if no line says since when."""
        ran_us = ran_since(vmm, at_us)
        when, skip = self.when(at_us), 0
        if ran_us is not None:
            when, skip = "{state: running}", times_before(instance, "running", ran_us)
            do = f"[{{delay: {duration(at_us - ran_us)}}}, {do}]"
        self.rule(name, host_named(instance.shown), when, do, why=why, doubt=doubt, times=1, skip=skip)

    def expect(self, name: str, lines: Iterable[str], why: Iterable[str], doubt: Iterable[str] = ()) -> None:
        taken = {entry.name for entry in self.draft.expect}
        unique, number = slug(name), 2
        while unique in taken:
            unique, number = f"{slug(name)[:58]}-{number}", number + 1
        self.draft.expect.append(Entry(unique, tuple(lines), tuple(why), tuple(doubt)))

    def gap(self, from_us: int, to_us: int) -> list[str]:
        lost = [d for d in self.incident.dropped if from_us <= d.at_us <= to_us]
        return [
            f"{d.where}: the logger dropped {counted(d.count, 'line')} before this; what is missing may be there"
            for d in lost
        ]
