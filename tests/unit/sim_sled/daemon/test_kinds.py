"""Fields hold what their classes say: whatever else a file has put there is noticed."""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from uuid import UUID

import attrs
import msgspec
import pytest
from support.rows import in_one_test

from sim_sled.daemon import kinds
from sim_sled.recording import names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from decimal import Decimal

    Number = str
else:
    Number = int


class Colour(Enum):
    RED = 1


class Struct(msgspec.Struct):
    colour: Colour


class Deadline(Protocol):
    armed: int

    def fire(self) -> None: ...


class Armed:
    armed = 1

    def fire(self):
        pass


@attrs.define
class Told:
    count: int
    share: float = 0.5
    who: UUID | None = None
    words: list[tuple[int, str]] = attrs.Factory(list)
    row: tuple[int, ...] = ()
    by_name: Mapping[str, Struct] = attrs.Factory(dict)
    order: OrderedDict[str, int] = attrs.Factory(OrderedDict)
    last: deque[str] = attrs.Factory(deque)
    all: Sequence[int] = ()
    calls: Callable[[], None] | None = None
    mode: Literal["a", "b"] = "a"
    kind: type[Struct] = Struct
    due: Deadline | None = None
    fixed: Final[int] = 1
    open: Any = None
    later: Decimal | None = None


class ByHand:
    def __init__(self, count: int, *, names: list[str]) -> None:
        self.count = count
        self.names: Final = names
        self.due: int | None = None
        self.sum = count + 1


@pytest.fixture(autouse=True)
def here_is_ours(monkeypatch):
    monkeypatch.setattr(names, "ROOMS", (__name__,))
    monkeypatch.setattr(kinds, "_KNOWN", {})


GOOD = {
    "share": [1, 0.5],
    "who": [None, UUID(int=1)],
    "words": [[], [(1, "x")]],
    "row": [(), (1, 2, 3)],
    "by_name": [{"x": Struct(Colour.RED)}],
    "order": [OrderedDict(x=1)],
    "last": [deque(["x"])],
    "all": [[1], (1,)],
    "calls": [None, print],
    "mode": ["b"],
    "kind": [Struct],
    "due": [None, Armed()],
    "open": [1, "x"],
}
WRONG = {
    "count": ["1", True, None, 1.5],
    "share": ["x", True],
    "who": ["00000000-0000-0000-0000-000000000001", 1],
    "words": [None, ["x"], [(1,)], [("x", 1)], [(1, "x", 2)], ((1, "x"),)],
    "row": [(1, "x"), [1]],
    "by_name": [[], {1: Struct(Colour.RED)}, {"x": 1}],
    "order": [{"x": 1}, OrderedDict(x="x")],
    "last": [["x"], deque([1])],
    "all": [["x"], 1],
    "calls": [1],
    "mode": ["c", 1],
    "kind": ["Struct", 1],
    "due": ["x", 1],
    "fixed": ["x"],
    "later": [1],
}


@in_one_test("name", GOOD)
def test_what_may_stand_there_passes(name):
    for value in GOOD[name]:
        kinds.check(attrs.evolve(Told(1), **{name: value}))


@in_one_test("name", WRONG)
def test_what_may_not_is_told_by_the_name_of_its_field(name):
    for value in WRONG[name]:
        told = Told(1)
        setattr(told, name, value)
        with pytest.raises(kinds.Misfit, match=rf"^{name} of a Told cannot be "):
            kinds.check(told)


def test_of_a_struct_too():
    with pytest.raises(kinds.Misfit, match="colour of a Struct cannot be 1"):
        kinds.check(Struct(1))


@pytest.mark.parametrize(("name", "value"), [("count", "x"), ("due", "x")])
def test_a_class_that_is_made_by_hand_says_it_in_its_maker(name, value):
    made = ByHand(1, names=["x"])
    kinds.check(made)
    setattr(made, name, value)
    with pytest.raises(kinds.Misfit):
        kinds.check(made)


class Counted(msgspec.Struct):
    number: Number


def test_a_name_means_what_it_is_and_not_what_a_type_checker_is_told():
    kinds.check(Counted(1))
    with pytest.raises(kinds.Misfit):
        kinds.check(Counted("x"))
