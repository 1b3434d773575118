"""How long things take, under names: the one table behind every `--pace` and behind `latency:` of a scenario.

A row says how long one thing typically takes and where the figure is from. `spread` is for scenarios, which draw from
a distribution (written as they write it) around that typical time; whoever draws nothing takes the typical time.
A thing without a row takes no time. Rows are called as scenarios call them:

    creating -> starting    an edge of the life of a VM      request vmm_register   an operation of a sled agent
    migration sync          a phase of a migration           network                one way, one message
    sled reconcile          what a sled does beside its VMMs

Read before: waiting.py. Read next: pace_option.py, pacers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from msgspec import Struct

from propolis_stub.waiting import Pace, Point

_MS: Final = 1_000
_S: Final = 1_000_000

DEFAULT: Final = "dev"
"""Of scenarios, and of whatever has no reason for another one."""


class Row(Struct, frozen=True):
    """One thing that takes time; see above."""

    what: str
    typical_us: int
    source: str
    spread: str = ""

    @property
    def text(self) -> str:
        """As a scenario writes it: `1500ms`, `4s`, or its spread."""
        if self.spread:
            return self.spread
        for unit, us in (("s", _S), ("ms", _MS)):
            if self.typical_us % us == 0:
                return f"{self.typical_us // us}{unit}"
        return f"{self.typical_us}us"


class Preset(Struct, frozen=True):
    name: str
    doc: str
    rows: tuple[Row, ...] = ()

    def typical_us(self, what: str) -> int:
        """How long that takes; 0 without a row."""
        return next((row.typical_us for row in self.rows if row.what == what), 0)


def _migration(takes_us: int, source: str, spread: str = "") -> tuple[Row, ...]:
    quick = (Point.M_CONNECT, Point.M_PAUSE, Point.M_TIME, Point.M_SERVER, Point.M_FINISH)
    phases = [point for point in Point if point.name.startswith("M_")]
    return tuple(
        Row(f"migration {p.value}", 10 * _MS, source)
        if p in quick
        else Row(f"migration {p.value}", takes_us, source, spread)
        for p in phases
    )


_PEER: Final = "peer's automatic step, `sim/collection.rs`"
_OURS: Final = "our choice: short enough to watch, long enough to see the states"
_GUESS: Final = "our guess: no figure of a rack is known to us"
_SIM: Final = "the existing simulator's queue, 1500 ms after a request (SA 2.9)"
_QUICK: Final = "our choice: a tenth of the existing simulator's"
_STUB: Final = "our choice: console clients get their close frame before Destroyed is told (PR 3.1)"
_CONSOLE: Final = "console `mock-api/msw/handlers.ts`"
_BUNDLE: Final = "lognormal(p50=4s p99=25s)"
_LOG: Final = "log in omicron#1215"

PRESETS: Final[Mapping[str, Preset]] = {
    p.name: p
    for p in (
        Preset(
            "dev",
            "A developer's cluster: states can be watched, nobody waits long.",
            (
                Row("creating -> starting", 50 * _MS, _OURS),
                Row("starting -> running", 1500 * _MS, _PEER),
                Row("rebooting -> running", 1500 * _MS, _PEER),
                Row("stopping -> stopped", 1500 * _MS, _PEER),
                Row("stopped -> destroyed", 750 * _MS, "zone gone after stop, omicron#5363"),
                Row("stopping -> destroyed", 750 * _MS, "zone gone after a migration out, as after a stop"),
                Row("network", 1 * _MS, _OURS),
                *_migration(200 * _MS, _OURS),
                Row("sled reconcile", 300 * _MS, _OURS),
                Row("sled trust quorum ack", 100 * _MS, _OURS),
            ),
        ),
        Preset("instant", "Everything takes no time: for looking at order only."),
        Preset(
            "stub",
            "A life that a person can watch, and short enough for tests: what `propolis-stub serve` starts with.",
            (
                Row("starting -> running", 100 * _MS, _STUB),
                Row("rebooting -> running", 200 * _MS, _STUB),
                Row("stopping -> stopped", 100 * _MS, _STUB),
                Row("stopped -> destroyed", 20 * _MS, _STUB),
                Row("stopping -> destroyed", 20 * _MS, _STUB),
                Row("migration ram_push", 200 * _MS, _STUB),
                Row("migration ram_push_dirty", 50 * _MS, _STUB),
                Row("migration device", 20 * _MS, _STUB),
            ),
        ),
        Preset(
            "fast",
            "As `sim`, ten times as fast, and a boot has its own time.",
            (
                Row("creating -> starting", 150 * _MS, _QUICK),
                Row("starting -> running", 300 * _MS, _QUICK),
                Row("running -> rebooting", 150 * _MS, _QUICK),
                Row("rebooting -> running", 300 * _MS, _QUICK),
                Row("running -> stopping", 150 * _MS, _QUICK),
                Row("stopping -> stopped", 20 * _MS, _QUICK),
                Row("stopped -> destroyed", 20 * _MS, _QUICK),
                Row("stopping -> destroyed", 20 * _MS, _QUICK),
                Row("migration connect", 170 * _MS, _QUICK),
                Row("migration sync", 20 * _MS, _QUICK),
                Row("migration ram_push", 100 * _MS, _QUICK),
                Row("migration finish", 20 * _MS, _QUICK),
                Row("sled reconcile", 300 * _MS, _OURS),
                Row("sled trust quorum ack", 100 * _MS, _OURS),
            ),
        ),
        Preset(
            "sim",
            "The existing simulator's rhythm: what it is asked for begins 1.5 s later, and is done soon.",
            (
                Row("creating -> starting", 1500 * _MS, _SIM),
                Row("running -> rebooting", 1500 * _MS, _SIM),
                Row("rebooting -> running", 20 * _MS, _SIM),
                Row("running -> stopping", 1500 * _MS, _SIM),
                Row("stopping -> stopped", 20 * _MS, _SIM),
                Row("stopped -> destroyed", 20 * _MS, _SIM),
                Row("stopping -> destroyed", 20 * _MS, _SIM),
                Row("migration connect", 1520 * _MS, _SIM),
                Row("migration sync", 20 * _MS, _SIM),
                Row("migration finish", 20 * _MS, _SIM),
            ),
        ),
        Preset(
            "console",
            "As the web console's own mock.",
            (
                Row("creating -> starting", 1500 * _MS, _CONSOLE),
                Row("starting -> running", 4 * _S, _CONSOLE),
                Row("rebooting -> running", 3 * _S, _CONSOLE),
                Row("stopping -> stopped", 3 * _S, _CONSOLE),
                Row("stopped -> destroyed", 0, _CONSOLE),
                Row("network", 1 * _MS, _OURS),
                *_migration(200 * _MS, _OURS),
                Row("sled reconcile", 300 * _MS, _OURS),
                Row("sled trust quorum ack", 100 * _MS, _OURS),
            ),
        ),
        Preset(
            "rack",
            "Real hardware on a good day.",
            (
                Row("creating -> starting", 2800 * _MS, f"zone install, {_LOG}", "normal(2800ms 300ms)"),
                Row("starting -> running", 3200 * _MS, f"zone boot, {_LOG}", "normal(3200ms 400ms)"),
                Row("rebooting -> running", 3200 * _MS, "as a boot, omicron#1215", "normal(3200ms 400ms)"),
                Row("stopping -> stopped", 20 * _MS, "Propolis shuts down, omicron#5363"),
                Row("stopped -> destroyed", 4 * _S, "zone bundle, omicron#6809: 6.8 s seen", _BUNDLE),
                Row("stopping -> destroyed", 4 * _S, "zone bundle, omicron#6809", _BUNDLE),
                Row("request vmm_register", 40 * _MS, _GUESS, "lognormal(p50=40ms p99=400ms)"),
                Row("network", 500, _GUESS),
                *_migration(2 * _S, _GUESS, "normal(2s 400ms)"),
                Row("sled reconcile", 6500 * _MS, "one zone is some 6 s, omicron#1215", "3s..10s"),
                Row("sled trust quorum ack", 1250 * _MS, _GUESS, "500ms..2s"),
            ),
        ),
    )
}

_AT: Final[Mapping[Point, str]] = {
    Point.BACKENDS: "starting -> running",
    Point.REBOOT: "rebooting -> running",
    Point.HALT: "stopping -> stopped",
    Point.RUNDOWN: "stopped -> destroyed",
} | {point: f"migration {point.value}" for point in Point if point.name.startswith("M_")}
"""At which waiting point a row is waited for, whoever waits; WAKE depends on what the VM is woken for."""


def row_at(point: Point, *, born: bool) -> str:
    """What a VM waits for at a point; empty: nothing that takes time. `born`: it has been started before."""
    if point is Point.WAKE:
        return "running -> stopping" if born else "creating -> starting"
    return _AT.get(point, "")


def paces(name: str) -> dict[Point, Pace]:
    """The typical times of a preset by point, where there is nobody to draw; points that are instant are left out.
    Raises KeyError.
    """
    preset = PRESETS[name]
    found = {point: preset.typical_us(row_at(point, born=True)) for point in Point}
    if not found[Point.WAKE]:  # what is woken at once takes its time to be made
        found[Point.CREATE] = preset.typical_us("creating -> starting")
    return {point: Pace(us) for point, us in found.items() if us}


class NoPreset(ValueError):
    """No preset has that name; the text names the nearest, and all."""


def preset_named(name: str) -> str:
    """The name, checked. Raises `NoPreset`."""
    if name in PRESETS:
        return name
    near = get_close_matches(name[:64], PRESETS, n=1, cutoff=0.55)
    meant = f" (did you mean '{near[0]}'?)" if near else ""
    raise NoPreset(f"there is no '{name[:60]}'{meant}; it is one of {', '.join(PRESETS)}")
