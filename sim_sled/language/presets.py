"""Latencies with a name and a source each. Times that a scenario does not set come from its preset.

Read before: language/latency.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from sim_sled.language.distribution import Distribution, parse_distribution
from sim_sled.language.words import PHASES

DEFAULT_PRESET: Final = "dev"


@attrs.frozen
class Preset:
    """`lines`: (kind, what, distribution as text, where the figure is from)."""

    name: str
    doc: str
    lines: tuple[tuple[str, str, str, str], ...]
    takes: Mapping[tuple[str, str], Distribution]


def _preset(name: str, doc: str, *lines: tuple[str, str, str, str]) -> Preset:
    def no_file(_name: str) -> tuple[int, ...]:
        raise AssertionError("presets use no files")

    return Preset(
        name, doc, lines, {(kind, what): parse_distribution(text, no_file) for kind, what, text, _ in lines}
    )


def _migration(takes: str, source: str) -> tuple[tuple[str, str, str, str], ...]:
    quick = {"connect", "pause", "time_data", "server", "finish"}
    return tuple(("migration", p, "10ms" if p in quick else takes, source) for p in PHASES)


_PEER = "peer's automatic step, `sim/collection.rs`"
_OURS = "our choice: short enough to watch, long enough to see the states"

PRESETS: Final[Mapping[str, Preset]] = {
    p.name: p
    for p in (
        _preset(
            "dev",
            "A developer's cluster: states can be watched, nobody waits long.",
            ("edge", "creating -> starting", "50ms", _OURS),
            ("edge", "starting -> running", "1500ms", _PEER),
            ("edge", "rebooting -> running", "1500ms", _PEER),
            ("edge", "stopping -> stopped", "1500ms", _PEER),
            ("edge", "stopped -> destroyed", "750ms", "zone gone after stop, omicron#5363"),
            ("edge", "stopping -> destroyed", "750ms", "zone gone after a migration out, as after a stop"),
            ("network", "network", "1ms", _OURS),
            *_migration("200ms", _OURS),
        ),
        _preset("instant", "Everything takes no time: for looking at order only."),
        _preset(
            "console",
            "As the web console's own mock.",
            ("edge", "creating -> starting", "1500ms", "console `mock-api/msw/handlers.ts`"),
            ("edge", "starting -> running", "4s", "console `mock-api/msw/handlers.ts`"),
            ("edge", "rebooting -> running", "3s", "console `mock-api/msw/handlers.ts`"),
            ("edge", "stopping -> stopped", "3s", "console `mock-api/msw/handlers.ts`"),
            ("edge", "stopped -> destroyed", "0s", "console `mock-api/msw/handlers.ts`"),
            ("network", "network", "1ms", _OURS),
            *_migration("200ms", _OURS),
        ),
        _preset(
            "rack",
            "Real hardware on a good day.",
            ("edge", "creating -> starting", "normal(2800ms 300ms)", "zone install, log in omicron#1215"),
            ("edge", "starting -> running", "normal(3200ms 400ms)", "zone boot, log in omicron#1215"),
            ("edge", "rebooting -> running", "normal(3200ms 400ms)", "as a boot, omicron#1215"),
            ("edge", "stopping -> stopped", "20ms", "Propolis shuts down, omicron#5363"),
            ("edge", "stopped -> destroyed", "lognormal(p50=4s p99=25s)", "zone bundle, omicron#6809: 6.8 s seen"),
            ("edge", "stopping -> destroyed", "lognormal(p50=4s p99=25s)", "zone bundle, omicron#6809"),
            ("request", "vmm_register", "lognormal(p50=40ms p99=400ms)", _OURS),
            ("network", "network", "500us", _OURS),
            *_migration("normal(2s 400ms)", _OURS),
        ),
    )
}
