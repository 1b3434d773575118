"""A scenario as YAML again: `parse(print(s)) == s` for every valid scenario."""

from __future__ import annotations

from typing import Any

import yaml

from sim_sled.language.record import Struct
from sim_sled.language.schema import Scenario


def plain(scenario: Scenario) -> dict[str, Any]:
    """As it stands in YAML, in plain lists and mappings."""
    shown = Struct(Scenario).show(scenario)
    assert isinstance(shown, dict)
    return {"version": scenario.version, "name": scenario.name} | shown


def print_scenario(scenario: Scenario, comment: str = "") -> str:
    """YAML text; `comment` becomes `#` lines at its head."""
    head = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    body = yaml.dump(plain(scenario), Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=110)
    return head + body
