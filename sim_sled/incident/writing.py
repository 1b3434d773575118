"""A draft as a scenario file: every line with the log lines it rests on, every doubt beside it (LG 6).

Read before: incident/derive.py. Read next: incident/verify.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap
from typing import Final

from nexus_client.dropshot.text import counted
from sim_sled.incident.lines import Reading
from sim_sled.incident.sheet import Draft, Entry
from sim_sled.incident.timeline import ELSEWHERE

WIDTH: Final = 118
_SHAPE: Final = "what a sled has is in no line; as much as all of these VMs could need on one of them"
_FILES_MAX: Final = 8
"""Files named in the first line: a rack's logs are hundreds, and each entry names its own."""
_NOT_MEANT: Final = "Nobody has to believe this file: what was concluded says so ('uncertain:')."


def scenario_text(draft: Draft, files: Iterable[str], reading: Reading, dropped: Iterable[str] = ()) -> str:
    """The scenario as YAML. `dropped`: names of expectations that the replay did not meet; they stay as comments."""
    named = list(files)
    shown = ", ".join(named[:_FILES_MAX]) + (f" and {len(named) - _FILES_MAX} more" if named[_FILES_MAX:] else "")
    out = _comment(f"Imported from {shown}. {_NOT_MEANT}")
    for note in draft.notes:
        out += _comment(note)
    for doubt in draft.doubts:
        out += _comment(f"uncertain: {doubt}")
    if reading.hosts_missing:
        nameless = ", ".join(sorted(reading.hosts_missing)[:_FILES_MAX])
        out += _comment(
            f"uncertain: no line of these names its host, so each is taken for the log of one: {nameless}"
        )
    for each in reading.unreadable:
        out += _comment(f"uncertain: not read, or not to its end: {each}")
    if reading.dates_missing:
        out += _comment(f"uncertain: {counted(reading.dates_missing, 'line')} had no date, and none was given.")
    for kind, count in sorted(reading.odd.items()):
        out += _comment(f"No records: {counted(count, 'line')} ({kind}).")
    out += ["version: 1", f"name: {draft.name}", *_fleet(draft)]
    if draft.agent:
        for why in draft.agent_why:
            out += _comment(why)
        out.append(f"agent: {{{', '.join(draft.agent)}}}")
    if draft.latency:
        out.append("latency:")
        for entry in draft.latency:
            out += [f"  {line}" for line in (*_quotes(entry), *entry.text)]
    if draft.load:
        out.append("load:")
        for _, entry in draft.load:
            out += _item(entry)
    if draft.rules:
        out.append("rules:")
        for entry in draft.rules:
            out += _item(entry)
    out += ["expect:", f"- always: [{', '.join(draft.always)}]"]
    missed = set(dropped)
    for entry in draft.expect:
        if entry.name in missed:
            out += _comment("uncertain: the replay does not meet what the logs show here; switched off:")
            out += [f"# {line}" for line in _item(entry)]
        else:
            out += _item(entry)
    return "\n".join(out) + "\n"


def _fleet(draft: Draft) -> list[str]:
    if not draft.hosts:
        return [f"fleet: {{sleds: {draft.sleds}}}"]
    out = [f"fleet:\n  sleds: {draft.sleds}"]
    if draft.shape:
        out += [f"  # uncertain: {_SHAPE}", f"  shape: {draft.shape}"]
    out.append("  overrides:")
    for number, (host, name) in enumerate(draft.hosts.items(), 1):
        said = f"{draft.wrote[host]}  " if host in draft.wrote else ""
        known = "uncertain: in no log; where VMs came from or went to" if host == ELSEWHERE else said + host
        out += [f"  # {_flat(known)}", f"  - {{sled: sled-{number}, name: {name}}}"]
    return out


def _item(entry: Entry) -> list[str]:
    lines = [f"name: {entry.name}", *entry.text] if entry.name else list(entry.text)
    return [*_quotes(entry), f"- {lines[0]}", *(f"  {line}" for line in lines[1:])]


def _quotes(entry: Entry) -> list[str]:
    out: list[str] = []
    for why in entry.why:
        out += _comment(why)
    for doubt in entry.doubt:
        out += _comment(f"uncertain: {doubt}")
    return out


def _comment(text: str) -> list[str]:
    """Text of a log never becomes a line of the scenario: whatever ends a line is gone."""
    return [f"# {line}" for line in wrap(_flat(text), WIDTH - 2, break_on_hyphens=False, break_long_words=False)] or [
        "#"
    ]


def _flat(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def summary_text(draft: Draft, reading: Reading) -> str:
    """What is said on stderr: what was read, what came of it, what is uncertain."""
    records = sum(reading.records.values())
    created = sum(1 for _, entry in draft.load if any(line.startswith("create") for line in entry.text))
    read = f"{counted(records, 'record')} of {counted(len(reading.records), 'file')}"
    rules = counted(len(draft.rules), "rule")
    out = [f"{read}; {counted(len(draft.hosts), 'sled')}, {counted(created, 'instance')}, {rules}"]
    out += [f"  {note}" for note in draft.notes]
    out += [f"  no records: {counted(count, 'line')} ({kind})" for kind, count in sorted(reading.odd.items())]
    out += [f"    {_flat(each)}" for each in reading.quoted[:5]]
    out += [f"  not read, or not to its end: {each}" for each in reading.unreadable]
    if reading.outside:
        out.append(f"  left out: {counted(reading.outside, 'record')} before --since or after --until")
    if reading.dates_missing:
        out.append(
            f"  without a date: {counted(reading.dates_missing, 'line')}; give --date YYYY-MM-DD (order is kept)"
        )
    if reading.hosts_missing:
        files = counted(len(reading.hosts_missing), "file")
        out.append(f"  uncertain: {files} in a form that names no hosts; each is taken for the log of one host")
    out += [f"  uncertain: {doubt}" for doubt in draft.doubts]
    return "\n".join(map(_flat, out)) + "\n"
