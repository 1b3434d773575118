"""A finished run as the page takes it: who there was, and every line of its trace as an event.

    {"sleds": ["sled-1"], "vms": [{"n": 1, "name": "web-1", "sled": 0}], "fields": FIELDS, "events": [[...], ...]}

The state at any time of the slider follows from the events before it; nothing is computed here.

Read before: page/files.py, play/translate.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from sim_sled.language.check import sleds_of
from sim_sled.language.printing import rule_in_words
from sim_sled.language.schema import Scenario
from sim_sled.play.run import Result
from sim_sled.play.trace import Line, Trace

EVENTS_MAX: Final = 250_000
"""Of one page: some 30 MB, about what a browser opens without a pause."""
FIELDS: Final = ("at_us", "kind", "vm", "sled", "from", "to", "gen", "attempt", "text")

# as `play/translate.py` writes them
_MOVED: Final = re.compile(r"(\S+) -> (\S+)")
_RECORD: Final = re.compile(r"(\w+) gen (\d+)(?:.* attempt (\d+))?")
_BARE: Final = re.compile(r"(\w+)$")
_RECORDS: Final = frozenset({"registered", "sent", "acked", "forgotten", "unregistered"})


class TooManyEvents(Exception):
    """The run has more events than a page takes; the text says so."""


def recording_of(result: Result) -> dict[str, Any]:
    """The recording of a run that has just been played."""
    return _recording(result.scenario, result.trace(), result.lines) | {
        "elapsed_us": result.elapsed_us,
        "failures": [{"at_us": each.at_us, "text": each.text, "why": list(each.why)} for each in result.failures],
        "counts": result.counts,
        "judged": True,
    }


def recording_of_trace(scenario: Scenario, trace: Trace, lines: Iterable[Line]) -> dict[str, Any]:
    """The same of a trace alone: who judged the run, and how, is not in it."""
    told = list(lines)
    return _recording(scenario, trace, told) | {
        "elapsed_us": told[-1].at_us if told else 0,
        "failures": [],
        "counts": {},
        "judged": False,
    }


def _recording(scenario: Scenario, trace: Trace, lines: Iterable[Line]) -> dict[str, Any]:
    sleds = {sled.name: i for i, sled in enumerate(sleds_of(scenario.fleet))}
    vms: dict[str, dict[str, Any]] = {}
    events = []
    for line in lines:
        sled = -1
        if line.sled not in ("-", "nexus", ""):
            sled = sleds.setdefault(line.sled, len(sleds))
        vm = -1
        if line.vmm != "-":
            known = vms.setdefault(line.vmm, {"n": int(line.vmm[1:]), "name": line.hostname, "sled": -1})
            if known["sled"] < 0:
                known["sled"] = sled
            vm = int(line.vmm[1:])
        events.append([line.at_us, line.kind, vm, sled, *_said(line), line.text])
        if len(events) > EVENTS_MAX:
            raise TooManyEvents(
                f"more than {EVENTS_MAX} events: too many for one page; end the run earlier with --until"
            )
    return {
        "name": scenario.name,
        "seed": trace.seed,
        "variant": trace.variant,
        "sled_variant": trace.sled_variant,
        "scenario": trace.scenario,
        "end": trace.end,
        "sleds": list(sleds),
        "vms": sorted(vms.values(), key=lambda vm: int(vm["n"])),
        "rules": [
            {
                "name": rule.name,
                "where": str(rule.mark()),
                "words": rule_in_words(rule),
                "enabled": rule.enabled,
            }
            for rule in scenario.rules
        ],
        "fields": list(FIELDS),
        "events": events,
    }


def _said(line: Line) -> tuple[str, str, int, int]:
    """From, to, generation, attempt: what a line says of a state."""
    if line.kind == "propolis":
        moved = _MOVED.match(line.text)
        return ("", "", 0, 0) if moved is None else (moved[1].strip("-"), moved[2], 0, 0)
    if line.kind in _RECORDS:
        record = _RECORD.match(line.text)
        return ("", "", 0, 0) if record is None else ("", record[1], int(record[2]), int(record[3] or 1) - 1)
    if line.kind == "public":
        bare = _BARE.search(line.text)
        return ("", "" if bare is None else bare[1], 0, 0)
    return ("", "", 0, 0)
