"""One side of a migration alone: what it makes of a peer that says something else (PR 4.5)."""

from __future__ import annotations

from uuid import UUID

import pytest
from support.rows import in_one_test

from propolis_stub.migration.messages import (
    Error,
    Malformed,
    MemDone,
    MemEnd,
    MemOffer,
    MemQuery,
    Message,
    Okay,
    Serialized,
    Text,
)
from propolis_stub.migration.script import U64_MAX, Await, ErrorKind, Failure, Migration, Pause, Role

OFFER = MemOffer(0, 4096, b"\x01")
END = MemEnd(0, U64_MAX)


def goes_on(side: Migration, *said: Message) -> Failure | None:
    """Lets it read `said` and do all it can; its failure, if that is where it ends."""
    for message in said:
        side.receive(message)
    while True:
        action = side.step()
        if isinstance(action, Failure):
            return action
        if isinstance(action, Pause):
            return None
        if isinstance(action, Await):
            failure = side.passed()
            if failure is not None:
                return failure


def source(*said: Message) -> tuple[Migration, Failure | None]:
    side = Migration(UUID(int=1), Role.SOURCE)
    return side, goes_on(side, Text("propolis-migrate-ron/0"), *said)


def target(*said: Message) -> tuple[Migration, Failure | None]:
    side = Migration(UUID(int=1), Role.TARGET)
    return side, goes_on(side, Text("propolis-migrate-ron/0"), Serialized("(preamble)"), *said)


@pytest.mark.parametrize("offers", [0, 1, 3])
def test_pages_on_offer_are_passed_over_where_the_end_of_the_offers_is_due(offers: int) -> None:
    side, failure = target(*[OFFER] * offers, END)
    assert failure is None
    assert goes_on(side, *[OFFER] * offers, END) is None


@in_one_test(
    ("role", "said"),
    [
        pytest.param(Role.TARGET, [END, END, OFFER, Serialized("(time)")], id="where the time data are due"),
        pytest.param(Role.SOURCE, [OFFER, Okay()], id="where an Okay is due"),
        pytest.param(Role.SOURCE, [Okay(), OFFER, MemQuery(0, U64_MAX)], id="where a query is due"),
        pytest.param(Role.SOURCE, [Okay(), MemQuery(0, U64_MAX), OFFER, MemDone()], id="where the end is due"),
    ],
)
def test_pages_on_offer_anywhere_else_are_an_error(role: Role, said: list[Message]) -> None:
    _, failure = (source if role is Role.SOURCE else target)(*said)
    assert failure is not None
    assert (failure.kind, failure.tell) == (ErrorKind.UNEXPECTED_MESSAGE, True)
    assert failure.text.startswith("got MemOffer, expected ")


def test_what_the_peer_gave_as_its_reason_stands_whatever_comes_after() -> None:
    for later in ("the connection", Okay(), Error("another reason"), Malformed("garbage")):
        side, failure = source()
        assert failure is None
        side.receive(Error("disk on fire"))
        if isinstance(later, str):
            side.lose(later)
        else:
            side.receive(later)
        told = side.step()
        assert isinstance(told, Failure)
        assert (told.kind, told.text, told.tell) == (ErrorKind.REMOTE, "Destination: disk on fire", False)


def test_a_connection_lost_without_a_word_is_its_own_reason() -> None:
    side, _ = target()
    side.lose("connection lost")
    told = side.step()
    assert isinstance(told, Failure)
    assert (told.kind, told.text) == (ErrorKind.WEBSOCKET, "connection lost")
