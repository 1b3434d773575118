"""backoff.py against the table of NX 3.1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client.backoff import (
    INDEFINITE,
    INTERNAL_SERVICE,
    INTERNAL_SERVICE_AGGRESSIVE,
    LOCAL,
    Policy,
    base_us,
    delay_us,
)
from nexus_client.draw import DRAW_END

_POLICIES = [INTERNAL_SERVICE, INTERNAL_SERVICE_AGGRESSIVE, LOCAL, INDEFINITE]
_DRAWS = st.integers(min_value=0, max_value=DRAW_END - 1)


@in_one_test(
    ("policy", "bases_ms"),
    [
        pytest.param(
            INTERNAL_SERVICE,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 180000, 180000],
            id="publishing doubles from 250 ms and stops at 180 s",
        ),
        pytest.param(INTERNAL_SERVICE_AGGRESSIVE, [100, 120, 144, 172.8, 207.36], id="aggressive grows by a fifth"),
        pytest.param(LOCAL, [50, 100, 200, 400, 800, 1000, 1000], id="local stops at 1 s"),
        pytest.param(INDEFINITE, [167, 334, 668], id="the second library doubles from 167 ms"),
    ],
)
def test_bases_grow_as_written(policy, bases_ms):
    assert [base_us(policy, attempt) for attempt in range(len(bases_ms))] == [int(ms * 1000) for ms in bases_ms]


@pytest.mark.parametrize("policy", _POLICIES[:3])
@given(attempt=st.integers(min_value=0, max_value=10**12), draw=_DRAWS)
def test_property_26_a_delay_lies_between_half_and_one_and_a_half_of_its_base(policy, attempt, draw):
    base = base_us(policy, attempt)
    assert policy.initial_us <= base <= policy.max_us
    assert 0.5 * base <= delay_us(policy, attempt, draw) <= 1.5 * base


@given(attempt=st.integers(min_value=0, max_value=100), draw=_DRAWS)
def test_additive_jitter_only_adds(attempt, draw):
    base = base_us(INDEFINITE, attempt)
    assert base <= delay_us(INDEFINITE, attempt, draw) < 2 * base


def test_the_cap_is_on_the_base_and_not_on_the_delay():
    assert delay_us(INTERNAL_SERVICE, 50, DRAW_END - 1) == 269_999_999  # 1.5 times 180 s, less one draw


def test_the_least_and_the_greatest_draw_give_the_ends_of_the_interval():
    assert delay_us(INTERNAL_SERVICE, 0, 0) == 125_000
    assert delay_us(INTERNAL_SERVICE, 0, DRAW_END - 1) == 374_999


@pytest.mark.parametrize(("attempt", "draw"), [(-1, 0), (0, -1), (0, DRAW_END)])
def test_nonsense_is_refused(attempt, draw):
    with pytest.raises(ValueError):
        delay_us(LOCAL, attempt, draw)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((0, 200, 10), id="an initial delay of nothing"),
        pytest.param((10, 100, 20), id="no growth"),
        pytest.param((10, 200, 9), id="a maximum below the initial delay"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(fields):
    with pytest.raises(ValueError):
        Policy(*fields)


def test_a_tiny_initial_delay_still_grows():
    assert Policy(1, 120, 5).bases_us == (1, 2, 3, 4, 5)
