"""The JSON Schema for editors and the reference page: both written from the same field declarations."""

from __future__ import annotations

import json
import re
from typing import Final

from sim_sled.language import schema as language
from sim_sled.language.actions import ACTIONS, Action
from sim_sled.language.codes import CODES
from sim_sled.language.knobs import CrucibleKnobs, PantryKnobs
from sim_sled.language.presets import PRESETS
from sim_sled.language.record import DEFINITIONS, FACTORY, FieldInfo, Located, fields_of, refer
from sim_sled.language.schema import Scenario
from sim_sled.language.selector import Selector, Trigger
from sim_sled.language.words import INVARIANTS

_CLASSES: Final[tuple[type[Located], ...]] = (
    Scenario,
    language.Fleet,
    language.Shape,
    language.Override,
    language.Nexus,
    language.Agent,
    language.Retry,
    language.Rule,
    Selector,
    Trigger,
    language.Expect,
    language.That,
    language.Load,
    language.Create,
    language.Migrate,
    language.Churn,
    language.Task,
    CrucibleKnobs,
    PantryKnobs,
)


def schema_json() -> str:
    """JSON Schema (draft 2020-12) of a scenario file, for editors (`# yaml-language-server: $schema=`)."""
    root = refer(Scenario)
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sim-sled scenario",
        **root,
        "$defs": {name: DEFINITIONS[name] for name in sorted(DEFINITIONS)},
    }
    return json.dumps(document, indent=1) + "\n"


_HEAD: Final = """# Scenario reference: every field

<!-- Written by `sim-sled scenario reference`; a test holds it against the code. -->

How the language is meant stands in [scenarios.md](scenarios.md). A scenario is YAML read strictly: no anchors, no
aliases, no tags, no key twice, no value that YAML 1.1 would read differently (`on`, `1:30`). Durations need a unit
(`us`, `ms`, `s`, `m`, `h`, `d`; `1m30s`), sizes too (`KiB` .. `TiB`), ranges are `a..b`. Where a list is allowed,
one item may stand alone.

A *distribution* is `2s`, `1s..3s` (uniform), `normal(m s)`, `lognormal(p50= p99=)`, `exp(m)`,
`choice(90%=1s 10%=30s)` or `file(x.csv)` (the first column of a file beside the scenario).
"""


def reference_md() -> str:
    """The reference page."""
    parts = [_HEAD]
    parts += [_section(cls, cls.__name__) for cls in _CLASSES]
    parts.append("## Actions\n")
    parts.append(
        "`do` is one mapping of actions or a list; they are done in order, and a `delay` holds up what follows.\n"
    )
    parts += [_section(cls, cls.key, level=3) for cls in ACTIONS.values()]
    parts.append("## Latency presets\n")
    for preset in PRESETS.values():
        parts.append(f"### {preset.name}\n\n{preset.doc}\n")
        if preset.lines:
            rows = [f"| `{_line(kind, what)}` | `{takes}` | {source} |"
                    for kind, what, takes, source in preset.lines]  # fmt: skip
            parts.append("\n".join(["| What | Takes | Source |", "|---|---|---|", *rows]) + "\n")
    parts.append(
        "## Invariants\n\n" + "\n".join(f"* `{name}`: {meaning}." for name, meaning in INVARIANTS.items()) + "\n"
    )
    parts.append(
        "## Codes\n\n" + "\n".join(["| Code | Meaning |", "|---|---|", *(f"| {c} | {m} |" for c, m in CODES.items())])
    )
    return "\n".join(parts) + "\n"


def parts() -> dict[str, str]:
    """The sections of the reference by their names in lower case, in order. Of one that has others in it (`actions`)
    its own text, and the first paragraph of each of those.
    """
    found: dict[str, str] = {}
    whole = ""
    for text in re.split(r"^(?=##)", reference_md(), flags=re.MULTILINE)[1:]:
        marks, title = text.split("\n", 1)[0].split(" ", 1)
        found[title.lower()] = text
        if marks == "##":
            whole = title.lower()
        else:
            says = text.split("\n\n", 2)[1]
            found[whole] += f"* `{title}`: {says}\n"
    return found


def _line(kind: str, what: str) -> str:
    return what if kind in ("edge", what) else f"{kind} {what}"


def _section(cls: type[Located], title: str, level: int = 2) -> str:
    doc = " ".join((cls.__doc__ or "").split())
    lines = [f"{'#' * level} {title}", "", doc, ""]
    infos = fields_of(cls)
    if infos:
        lines += ["| Field | Value | Default | Meaning | Codes |", "|---|---|---|---|---|"]
        lines += [
            f"| `{i.key}` | {i.kind.words()} | {_default(i)} | {i.doc} | {i.codes or '-'} |" for i in infos.values()
        ]
        lines.append("")
    if cls.short:
        lines += [f"A single value is its `{cls.short}`.", ""]
    if issubclass(cls, Action):
        lines += [f"Example: `do: {{{cls.key}: {cls.example}}}`", ""]
    return "\n".join(lines)


def _default(info: FieldInfo) -> str:
    if info.required:
        return "required"
    if info.default_words:
        return info.default_words
    if info.default is None or info.default == () or isinstance(info.default, FACTORY):
        return "-"
    shown = info.kind.show(info.default)
    return f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"  # as a file has to write it
