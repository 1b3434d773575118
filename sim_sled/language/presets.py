"""The presets of `latency:`: the rows of `propolis_stub/presets.py`, as distributions that a scenario draws from.

Read before: language/latency.py. Read next: language/pacer.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from propolis_stub import presets
from sim_sled.language.distribution import Distribution, parse_distribution

DEFAULT_PRESET: Final = presets.DEFAULT


class Preset(Struct, frozen=True):
    """`lines`: (kind, what, distribution as text, where the figure is from), as a scenario could write them.
    `sled`: what a sled does beside its VMMs, by the name of its point; scenarios have `set` for that.
    """

    name: str
    doc: str
    lines: tuple[tuple[str, str, str, str], ...]
    takes: Mapping[tuple[str, str], Distribution]
    sled: Mapping[str, Distribution]


def _preset(of: presets.Preset) -> Preset:
    named = [(*_kind(row.what), row) for row in of.rows]
    return Preset(
        of.name,
        of.doc,
        tuple((kind, what, row.text, row.source) for kind, what, row in named if kind != "sled"),
        {(kind, what): _takes(row.text) for kind, what, row in named if kind != "sled"},
        {what: _takes(row.text) for kind, what, row in named if kind == "sled"},
    )


def _kind(row: str) -> tuple[str, str]:
    if "->" in row or row == "network":
        return ("network" if row == "network" else "edge"), row
    kind, _, what = row.partition(" ")
    return kind, what


def _takes(text: str) -> Distribution:
    def no_file(_name: str) -> tuple[int, ...]:
        raise AssertionError("presets use no files")

    return parse_distribution(text, no_file)


PRESETS: Final[Mapping[str, Preset]] = {name: _preset(each) for name, each in presets.PRESETS.items()}
