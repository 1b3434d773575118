"""One firing of a rule, as its actions see it, and which function does which action.

Read before: engine/cast.py, engine/plans.py, engine/reports.py, engine/timers.py.
Read next: engine/act/estate.py, engine/act/reports.py, engine/act/requests.py, engine/act/run.py,
engine/act/sleds.py, engine/act/vmms.py.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Protocol, TypeVar

import attrs

from sim_sled.core import contract
from sim_sled.engine.cast import Cast, SledInfo, Subject
from sim_sled.engine.plans import EngineEffect, Inject, PacePlan, PublishPlan, RequestPlan, Tell
from sim_sled.engine.reports import Post
from sim_sled.engine.timers import Act, Timers
from sim_sled.language.actions import ACTIONS, Action
from sim_sled.language.draw import draw
from sim_sled.language.schema import Rule
from sim_sled.language.words import On

NOBODY: Final = 0
"""The ticket of what nobody waits for."""

Plan = RequestPlan | PacePlan | PublishPlan


@attrs.define(eq=False)
class Counter:
    """How often a rule matched and fired; kept over a reload by the rule's name."""

    matched: int = 0
    fired: int = 0
    worked: set[str] = attrs.field(factory=set)
    """Actions that have had an effect, of those that may have none."""
    futile: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """Actions that had none: how often, and why the first time."""

    def had_no_effect(self, action: str, why: str) -> None:
        """What this action wanted could not be done."""
        times, first = self.futile.get(action, (0, why))
        self.futile[action] = (times + 1, first)


class Rules(Protocol):
    """What an action may have the rules themselves do."""

    def fire(self, name: str, now_us: int, who: Subject | None = None, sled: SledInfo | None = None) -> bool:
        """A manual trigger."""
        ...

    def sled_up(self, sled: SledInfo, now_us: int) -> None:
        """A sled that was down is to answer again."""
        ...


@attrs.frozen
class Hands:
    """What all firings of an engine have in common: whom there is, timers, the way of reports, what is wanted."""

    seed: int
    cast: Cast
    timers: Timers
    post: Post
    wanted: list[EngineEffect]
    tell: Tell
    rules: Rules


@attrs.frozen
class Firing:
    """A rule fires: for whom, because of what, when. `plan`: what is about to happen, if it can still be changed;
    `occurrence`: how often it fired for this one before; `nth`: which of its actions is at work.
    """

    hands: Hands
    rule: Rule
    counter: Counter
    who: Subject | None
    sled: SledInfo | None
    on: On
    now_us: int
    plan: Plan | None = None
    occurrence: int = 0
    nth: int = 0

    @property
    def key(self) -> str:
        """By which chance is drawn."""
        if self.who is not None:
            return self.who.key
        return self.sled.name if self.sled is not None else ""

    @property
    def place(self) -> str:
        """The sled's name, for a line of the trace."""
        return self.sled.name if self.sled is not None else "-"

    def draw(self, what: str, more: str = "") -> int:
        """Chance in the language's own share, always the same for this firing and action."""
        return draw(self.hands.seed, f"{what}/{self.rule.name}/{self.nth}{more}", self.key, self.occurrence)

    def note(self, text: str, who: Subject | None = None, *, stalls_until_us: int = 0) -> None:
        """For `why`: what the rule does to its VMM, or to another."""
        one = self.who if who is None else who
        if one is not None:
            one.remember(self.rule, text, self.now_us, stalls_until_us)

    def tell(self, kind: str, text: str, *, who: Subject | None = None, place: str | None = None) -> None:
        """A line of the trace."""
        self.hands.tell(kind, who, self.place if place is None else place, text, self.rule.mark())

    def want(self, effect: EngineEffect) -> None:
        """This shall be done."""
        self.hands.wanted.append(effect)

    def inject(self, item: contract.Injection, action: Action | None = None) -> None:
        """This shall be done to a VMM or a sled. `action`: whose wish it is, so that it is told if it cannot be."""
        self.want(Inject(item, None if action is None else (self.rule.name, action.key)))

    def later(self, after_us: int, act: Act) -> None:
        self.hands.timers.at(self.now_us + after_us, act)

    def worked(self, action: Action) -> None:
        """What this action wanted has been done."""
        self.counter.worked.add(action.key)

    def had_no_effect(self, action: Action, why: str) -> None:
        """... or could not be."""
        self.counter.had_no_effect(action.key, why)


class Needs(Enum):
    """Without what an action has nobody to do it to."""

    NOTHING = "nothing"
    SLED = "a sled"
    VMM = "a VMM that is there"


A = TypeVar("A", bound=Action)
Does = Callable[[Firing, Any], None]
"""`(firing, action)`: does it. Any: the action is of the class that the function is registered for."""
Plans = Callable[[Firing, Any], bool]
"""Whether it changes what is about to happen, and so acts at once even behind a `delay`."""


@attrs.frozen
class Doing:
    """How an action is done."""

    does: Does
    needs: Needs
    plans: Plans


DOING: Final[dict[type[Action], Doing]] = {}
"""By action; `engine/act/__init__.py` fills it by importing its modules."""


def _never(_firing: Firing, _action: Action) -> bool:
    return False


def on(plan: type[Plan]) -> Plans:
    """It is about what this plan is for."""
    return lambda firing, _action: isinstance(firing.plan, plan)


def does(
    action: type[A], *, needs: Needs = Needs.NOTHING, plans: Plans = _never
) -> Callable[[Callable[[Firing, A], None]], Callable[[Firing, A], None]]:
    """Registers the function that does `action`. Raises ValueError for a second one, or if no scenario can say it."""

    def register(function: Callable[[Firing, A], None]) -> Callable[[Firing, A], None]:
        if action in DOING or ACTIONS.get(action.key) is not action:
            raise ValueError(f"{action.__name__} is done already, or is no action of the language")
        DOING[action] = Doing(function, needs, plans)
        return function

    return register
