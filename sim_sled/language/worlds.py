"""What a scenario can have in one world and not in the other: the list that `check` and `run` print from.

Everything else means the same in virtual time and on sockets; `tests/parity` holds that, and leaves out what
stands here.

Read next: cli/scenario_texts.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import attrs

from sim_sled.language.actions import Action, ExpungeSled, PowerOffSled, RestartNexus, SetState
from sim_sled.language.schema import Rule, Scenario
from sim_sled.language.words import On


class World(StrEnum):
    """Where a scenario can be played."""

    VIRTUAL = "in virtual time"
    SOCKETS = "on sockets"
    """`run --clock wall`, and `up` without `--nexus`."""
    DAEMON = "beside a Nexus of your own"
    """`serve`, `up --nexus`, `up --workers`: its rules only; users and expectations are somebody else's."""


@attrs.frozen
class Only:
    """An action under a trigger (None: under any) that in one world means less, or something less certain."""

    action: type[Action]
    on: On | None
    world: World
    there: str
    """What becomes of it in that world."""

    def means(self, rule: Rule, action: Action) -> bool:
        return type(action) is self.action and self.on in (None, rule.when.kind())

    @property
    def text(self) -> str:
        under = "" if self.on is None else f" under '{self.on}'"
        return f"'{self.action.key}'{under} {self.world}: {self.there}"


ONLY: Final = (
    Only(
        SetState,
        On.RESPONSE,
        World.SOCKETS,
        "the report of the state and the answer leave at one moment, and either may come first",
    ),
    Only(RestartNexus, None, World.DAEMON, "that one is not restarted; the log says so"),
    Only(ExpungeSled, None, World.DAEMON, "that one has operators of its own; the log says so"),
    Only(PowerOffSled, None, World.DAEMON, "that one is not told that the sled is off; its calls time out"),
)
"""The first: if the report of a failure precedes the answer to the registration, the start saga is stuck (NX 4.3)."""


def only_somewhere(scenario: Scenario) -> Iterator[tuple[Rule, Only]]:
    """The rules that use something of `ONLY`, in order, each with what it uses."""
    for rule in scenario.rules:
        for only in ONLY:
            if any(only.means(rule, action) for action in rule.do):
                yield rule, only


def notes(scenario: Scenario) -> list[str]:
    """The same as lines for people."""
    return [f"{rule.mark()}: note: {only.text}" for rule, only in only_somewhere(scenario)]
