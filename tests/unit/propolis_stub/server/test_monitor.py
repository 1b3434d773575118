"""The monitor's channel: who is answered at once, who waits, who is told that it is over (PR 3.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from propolis_stub.server.monitor import Channel, Gone
from propolis_stub.types import InstanceState, Publication


def publication(gen: int) -> Publication:
    return Publication(gen, InstanceState.RUNNING)


def channel_at(gen: int) -> Channel[str]:
    channel: Channel[str] = Channel()
    for each in range(1, gen + 1):
        channel.publish(publication(each))
    return channel


@in_one_test("gen", [0, 1, 2, 3])
def test_a_generation_that_is_there_is_answered_with_the_newest(gen: int) -> None:
    assert channel_at(3).ask(gen, "me") == publication(3)


def test_a_channel_without_publication_lets_even_0_wait() -> None:
    channel = channel_at(0)
    assert channel.ask(0, "me") is None
    assert channel.publish(publication(1)) == ["me"]


def test_those_who_wait_are_woken_by_their_generation_and_once() -> None:
    channel = channel_at(3)
    assert [channel.ask(gen, name) for gen, name in ((5, "five"), (4, "four"), (4, "four too"), (9, "nine"))] == [
        None
    ] * 4
    assert channel.publish(publication(4)) == ["four", "four too"]
    assert channel.publish(publication(5)) == ["five"]
    assert channel.publish(publication(6)) == []
    assert channel.waiting == 1
    assert channel.close() == ["nine"]
    assert channel.waiting == 0


def test_a_closed_channel_tells_its_last_value_and_nothing_more() -> None:
    channel = channel_at(3)
    channel.close()
    assert channel.ask(3, "me") == publication(3)
    assert channel.ask(4, "me") is Gone.GONE


def test_who_has_gone_away_is_not_woken() -> None:
    channel = channel_at(3)
    channel.ask(4, "me")
    channel.ask(4, "you")
    channel.forget(4, "me")
    channel.forget(4, "me")
    channel.forget(9, "nobody")
    assert channel.publish(publication(4)) == ["you"]


def test_a_gap_in_the_generations_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        channel_at(3).publish(publication(5))


@given(st.lists(st.integers(0, 12), max_size=30), st.integers(0, 12))
def test_everybody_is_answered_exactly_once(asked: list[int], last: int) -> None:
    channel: Channel[int] = Channel()
    answered: list[int] = []
    for index, gen in enumerate(asked):
        if channel.ask(gen, index) is not None:
            answered.append(index)
        if channel.newest is None or channel.newest.gen < last:
            answered += channel.publish(publication(1 if channel.newest is None else channel.newest.gen + 1))
    answered += channel.close()
    assert sorted(answered) == list(range(len(asked)))


def test_clients_that_poll_new_generations_and_go_away_leave_nothing_behind() -> None:
    channel = channel_at(3)
    for gen in range(4, 104):
        for name in ("one", "two"):
            assert channel.ask(gen, name) is None
        channel.forget(gen, "one")
        channel.forget(gen, "one")  # twice does no harm
        assert channel.waiting == 1
        channel.forget(gen, "two")
    assert (channel.waiting, channel._waiting) == (0, {})
