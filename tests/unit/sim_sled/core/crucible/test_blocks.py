"""The bytes of a region: sparse, bounded, cheap to copy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim_sled.core.crucible.blocks import PIECE, Blocks, Forgotten, Memory

writes = st.lists(
    st.tuples(st.integers(0, 3 * PIECE), st.integers(1, 2 * PIECE), st.integers(0, 2)), min_size=1, max_size=12
)


@given(writes)
def test_what_was_written_is_read_again_and_copies_are_independent(writes):
    memory = Memory()
    blocks, oracle = Blocks(memory), bytearray(8 * PIECE)
    copy, kept = blocks.copy(), bytes(oracle)
    for number, (offset, size, value) in enumerate(writes):
        blocks.write(offset, bytes([value]) * size)
        oracle[offset : offset + size] = bytes([value]) * size
        if number == len(writes) // 2:
            copy, kept = blocks.copy(), bytes(oracle)
    assert blocks.read(0, len(oracle)) == oracle
    assert copy.read(0, len(kept)) == kept
    assert memory.left == Memory().left - blocks.kept() - copy.kept()
    blocks.clear()
    copy.clear()
    assert memory.left == Memory().left


def test_zeros_cost_nothing_but_count_as_written():
    memory = Memory()
    blocks = Blocks(memory)
    blocks.write(0, bytes(PIECE))
    assert (memory.left, blocks.has(0), blocks.has(PIECE)) == (Memory().left, True, False)


def test_what_does_not_fit_is_never_told_as_zeros():
    blocks = Blocks(Memory(left=PIECE))
    blocks.write(0, b"a" * 2 * PIECE)
    assert blocks.read(0, PIECE) == b"a" * PIECE
    with pytest.raises(Forgotten):
        blocks.read(PIECE, 1)
    blocks.write(0, bytes(PIECE))  # this gives a piece back
    blocks.write(PIECE, b"b" * PIECE)
    assert blocks.read(PIECE, PIECE) == b"b" * PIECE
