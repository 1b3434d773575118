"""scheduler.py: one heap, lazy cancel, ties in the order in which they were set."""

import attrs
from hypothesis import given
from hypothesis import strategies as st

from sim_sled.core.scheduler import Scheduler


@attrs.define(eq=False)
class _Actor:
    name: str
    due_us: int | None = None
    armed: int = 0


def _popped(scheduler, now_us):
    names = []
    while (actor := scheduler.pop_due(now_us)) is not None:
        assert actor.armed == 0
        assert actor.due_us is None
        names.append(actor.name)
    return "".join(names)


def _set(scheduler, **due):
    actors = {}
    for name, due_us in due.items():
        actors[name] = _Actor(name)
        scheduler.set(actors[name], due_us)
    return actors


def test_nobody_is_due_in_an_empty_one():
    scheduler = Scheduler()
    assert scheduler.next_us() is None
    assert scheduler.pop_due(10**18) is None


def test_the_earliest_comes_first_and_nobody_early():
    scheduler = Scheduler()
    _set(scheduler, c=30, a=10, b=20)
    assert scheduler.next_us() == 10
    assert _popped(scheduler, 9) == ""
    assert _popped(scheduler, 20) == "ab"
    assert scheduler.next_us() == 30
    assert _popped(scheduler, 30) == "c"
    assert scheduler.next_us() is None


def test_equal_times_fire_in_the_order_in_which_they_were_set():
    scheduler = Scheduler()
    actors = _set(scheduler, b=10, a=10, c=10)
    scheduler.set(actors["b"], 11)
    scheduler.set(actors["b"], 10)
    assert _popped(scheduler, 10) == "acb"


def test_setting_the_same_time_again_keeps_the_place():
    scheduler = Scheduler()
    actors = _set(scheduler, a=10, b=10)
    scheduler.set(actors["a"], 10)
    assert _popped(scheduler, 10) == "ab"


def test_a_cancelled_actor_is_not_due():
    scheduler = Scheduler()
    actors = _set(scheduler, a=10, b=20)
    scheduler.set(actors["a"], None)
    assert scheduler.next_us() == 20
    assert _popped(scheduler, 20) == "b"


def test_a_cancelled_actor_does_not_hide_those_behind_it():
    """The heap's first entry is dead and lies after `now`; the next live one decides."""
    scheduler = Scheduler()
    actors = _set(scheduler, a=10)
    scheduler.set(actors["a"], None)
    assert scheduler.pop_due(10) is None
    assert scheduler.next_us() is None


def test_a_moved_actor_fires_once_at_its_latest_time():
    scheduler = Scheduler()
    actors = _set(scheduler, a=10, b=15)
    scheduler.set(actors["a"], 20)
    scheduler.set(actors["a"], 12)
    assert _popped(scheduler, 100) == "ab"


def test_an_actor_may_be_set_again_from_its_own_turn():
    scheduler = Scheduler()
    _set(scheduler, a=10)
    actor = scheduler.pop_due(10)
    scheduler.set(actor, 10)
    assert scheduler.pop_due(10) is actor


def test_dead_entries_are_thrown_away():
    """A thousand moves of one deadline leave no thousand entries behind, and lose no live one."""
    scheduler = Scheduler()
    mover = _Actor("m")
    others = _set(scheduler, **{f"x{number}": 10_000 + number for number in range(50)})
    for number in range(5_000):
        scheduler.set(mover, 1_000_000 - number)
    assert len(scheduler._heap) < 300
    fired = []
    while (actor := scheduler.pop_due(2_000_000)) is not None:
        fired.append(actor)
    assert fired == [*others.values(), mover]


_NAMES = "abcde"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.sampled_from(_NAMES), st.none() | st.integers(0, 20)),
            st.tuples(st.just("pop"), st.integers(0, 25)),
            st.just(("churn",)),
        ),
        max_size=60,
    )
)
def test_against_a_sorted_list(steps):
    """The oracle is a dict from name to (time, when it was set); it is searched as a whole each time."""
    scheduler = Scheduler()
    actors = {name: _Actor(name) for name in _NAMES}
    churned = _Actor("z")
    oracle = {}
    for count, step in enumerate(steps):
        match step:
            case ("set", name, due_us):
                scheduler.set(actors[name], due_us)
                if due_us is None:
                    oracle.pop(name, None)
                elif oracle.get(name, (None,))[0] != due_us:
                    oracle[name] = (due_us, count)
            case ("pop", now_us):
                due = sorted((when, name) for name, when in oracle.items() if when[0] <= now_us)
                assert _popped(scheduler, now_us) == "".join(name for _, name in due)
                for _, name in due:
                    del oracle[name]
            case _:  # enough to make it compact, in the midst of everything else
                for number in range(200):
                    scheduler.set(churned, 1_000 + number)
                scheduler.set(churned, None)
        assert scheduler.next_us() == min((when[0] for when in oracle.values()), default=None)
        assert {name: actor.due_us for name, actor in actors.items() if actor.armed} == {
            name: when[0] for name, when in oracle.items()
        }
