"""draw.py: chance as a function."""

import os
import subprocess
import sys
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client.draw import DRAW_END, draw

_ID = UUID("e10e1e9e-5f7d-4d4b-9c2e-5b8f4c6a3d21")
_PARTS = st.integers() | st.text() | st.binary() | st.uuids()


def test_a_draw_is_the_same_for_ever():
    """A changed constant would silently change every recorded run."""
    assert draw(0) == 0x842B7D9D43CDDF75
    assert draw(7, "retry", _ID, 3, 0) == 0xD8D51D2689861782


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_draw_does_not_depend_on_the_hash_seed(hash_seed):
    program = (
        f"from nexus_client.draw import draw; from uuid import UUID; print(draw(7, 'a', b'b', 3, UUID('{_ID}')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) == draw(7, "a", b"b", 3, _ID)


@in_one_test(
    ("one", "other"),
    [
        pytest.param(("ab", "c"), ("a", "bc"), id="where one part ends matters"),
        pytest.param((1,), ("1",), id="a number is not its text"),
        pytest.param(("a",), (b"a",), id="text is not bytes"),
        pytest.param((_ID,), (_ID.bytes,), id="a UUID is not its bytes"),
        pytest.param((1, 2), (12,), id="numbers do not run together"),
        pytest.param((), ("",), id="an empty part is a part"),
        pytest.param(("a|s1:b",), ("a", "b"), id="the separator cannot be forged"),
    ],
)
def test_different_keys_draw_differently(one, other):
    assert draw(0, *one) != draw(0, *other)


def test_different_seeds_draw_differently():
    assert draw(1, "x") != draw(2, "x")
    assert draw(1, 2) != draw(12)


@given(st.lists(_PARTS, max_size=4), st.integers())
def test_every_draw_is_within_its_range(key, seed):
    assert 0 <= draw(seed, *key) < DRAW_END


def test_draws_are_spread_evenly():
    """Each sixteenth of the range gets its share within 5 standard deviations (draws are fixed: no flakes)."""
    counts = [0] * 16
    for n in range(16_000):
        counts[draw(11, "spread", n) >> 60] += 1
    assert all(abs(count - 1000) < 155 for count in counts)
