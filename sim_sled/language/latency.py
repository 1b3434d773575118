"""`latency`: how long each edge, phase and request takes, over a named preset.

Read next: language/presets.py.
"""

from __future__ import annotations

from typing import Any

import attrs

from sim_sled.language.distribution import Distribution
from sim_sled.language.field_types import BAD, DistributionKind, Reader
from sim_sled.language.load import Map, Node, Scalar, Seq
from sim_sled.language.presets import DEFAULT_PRESET, PRESETS
from sim_sled.language.record import Located
from sim_sled.language.words import ALL_OPERATIONS, EDGES, PHASES, hint, nearest, nearest_two

_EDGE_NAMES = {f"{a} -> {b}" for a, b in EDGES}


@attrs.frozen
class LatencyEntry(Located):
    """One line: `kind` is edge, request, migration or network."""

    kind: str
    what: str
    takes: Distribution

    def key(self) -> str:
        return {"edge": self.what, "network": "network"}.get(self.kind, f"{self.kind} {self.what}")


@attrs.frozen
class Latency(Located):
    """A preset, and what differs from it."""

    preset: str = DEFAULT_PRESET
    entries: tuple[LatencyEntry, ...] = ()

    def find(self, kind: str, what: str) -> Distribution | None:
        """What the scenario itself says, then the preset; None: no time at all."""
        for entry in self.entries:
            if entry.kind == kind and entry.what == what:
                return entry.takes
        return PRESETS[self.preset].takes.get((kind, what))


@attrs.frozen
class LatencyKind:
    """A preset's name, or a mapping."""

    def read(self, node: Node, reader: Reader, field: str) -> Any:
        if isinstance(node, Scalar) and not node.is_null:
            name = self._preset(node, reader)
            return BAD if name is None else Latency(name, marks={"": node.mark})
        if not isinstance(node, Map):
            what = "a list" if isinstance(node, Seq) else "nothing"
            return reader.bad("E111", node.mark, f"'{field}' is a preset or a mapping, not {what}")
        preset, entries = DEFAULT_PRESET, []
        for key, value in node.pairs:
            if key.text == "preset":
                preset = (self._preset(value, reader) if isinstance(value, Scalar) else None) or DEFAULT_PRESET
                continue
            known = self._key(key, reader)
            takes = DistributionKind().read(value, reader, key.text)
            if known is not None and takes is not BAD:
                entries.append(LatencyEntry(*known, takes, marks={"": key.mark, "takes": value.mark}))
        return Latency(preset, tuple(entries), marks={"": node.mark})

    def _preset(self, node: Scalar, reader: Reader) -> str | None:
        if node.text in PRESETS:
            return node.text
        reader.bad(
            "E170", node.mark, f"no preset '{node.text[:60]}'{hint(node.text, PRESETS)}; known: {', '.join(PRESETS)}"
        )
        return None

    def _key(self, key: Scalar, reader: Reader) -> tuple[str, str] | None:
        words = key.text.split()
        if key.text == "network":
            return "network", "network"
        if words[:1] == ["request"] and len(words) == 2:
            if words[1] in ALL_OPERATIONS:
                return "request", words[1]
            near = nearest_two(words[1], ALL_OPERATIONS)
            told = f"; nearest: {', '.join(near)}" if near else ""
            reader.bad("E171", key.mark, f"no operation '{words[1][:60]}'{told}")
        elif words[:1] == ["migration"] and len(words) == 2:
            if words[1] in PHASES:
                return "migration", words[1]
            reader.bad("E170", key.mark, f"no migration phase '{words[1][:60]}'{hint(words[1], PHASES)}")
        elif "->" in key.text:
            edge = " -> ".join(part.strip() for part in key.text.split("->"))
            if edge in _EDGE_NAMES:
                return "edge", edge
            reader.bad("E170", key.mark, f"the state machine has no edge '{edge[:60]}'{hint(edge, _EDGE_NAMES)}")
        else:
            known = ["preset", "network", *_EDGE_NAMES, *(f"migration {p}" for p in PHASES)]
            near_one = nearest(key.text, known)
            advice = (
                f" (did you mean '{near_one}'?)" if near_one else "; write an edge, 'request OP' or 'migration PHASE'"
            )
            reader.bad("E102", key.mark, f"unknown latency '{key.text[:60]}'{advice}")
        return None

    def show(self, value: Latency) -> Any:
        if not value.entries:
            return value.preset
        shown: dict[str, Any] = {} if value.preset == DEFAULT_PRESET else {"preset": value.preset}
        return shown | {entry.key(): entry.takes.show() for entry in value.entries}

    def schema(self) -> dict[str, Any]:
        one = DistributionKind().schema()
        keys = [
            "network",
            *sorted(_EDGE_NAMES),
            *(f"migration {p}" for p in PHASES),
            *(f"request {o}" for o in sorted(ALL_OPERATIONS)),
        ]
        return {
            "anyOf": [
                {"enum": list(PRESETS)},
                {
                    "type": "object",
                    "properties": {"preset": {"enum": list(PRESETS)}} | dict.fromkeys(keys, one),
                    "patternProperties": {"->": one},
                    "additionalProperties": False,
                },
            ]
        }

    def words(self) -> str:
        keys = "`a -> b`, `request OP`, `migration PHASE`, `network`"
        return f"[preset](#latency-presets), or a mapping of {keys} to distributions"
