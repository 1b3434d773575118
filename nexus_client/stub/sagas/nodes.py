"""What a saga's program is made of: nodes, and what a node may wish for (NX 4.3, 5).

A saga is a row of the saga log (state.py, durable) and a program (nodes, code). A node acts on the records, or asks a
sled and goes on with the answer, or waits for another saga. A refusal turns the saga round: the undo of every node
that was completed runs, last first. `Boot` after a crash runs the current node again. An undo that cannot work leaves
the saga stuck in the log until somebody intervenes, as the original's.

Read before: stub/context.py, stub/sagas/state.py, stub/scope.py.
Read next: stub/sagas/runner.py, stub/sagas/update.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.stub.contract import Outcome, SledOp

NODES_MAX: Final = 64
"""Nodes and undos of one saga in one go; the longest program has eleven of each."""


class Ask(Struct, frozen=True):
    """A node's wish: ask this sled and come back with the answer."""

    sled_id: UUID
    op: SledOp


class Await(Struct, frozen=True):
    """A node's wish: go on when this saga has ended."""

    saga_id: UUID


class End(Struct, frozen=True):
    """The saga ends here, successfully."""


Wish: TypeAlias = Ask | Await | End | None


class Stuck(Exception):
    """An undo cannot do its work; the saga stays in the log as it is."""


C = TypeVar("C")
S = TypeVar("S")


@attrs.frozen
class Node(Generic[C, S]):
    """One step of a program over a context `C` and a saga's state `S`; raising `Refused` in `act` or `answered` turns
    the saga round.
    """

    name: str
    act: Callable[[C, S], Wish]
    answered: Callable[[C, S, Outcome], Wish] | None = None
    undo: Callable[[C, S], Wish] | None = None
    undo_answered: Callable[[C, S, Outcome], Wish] | None = None
