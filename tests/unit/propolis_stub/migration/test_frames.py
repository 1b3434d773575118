"""The migration frames: payload first, tag last (PR 4.5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from propolis_stub.migration import messages as m
from propolis_stub.migration.frames import TAGS, decode, encode

U64 = st.integers(0, 2**64 - 1)
TEXTS = st.text(max_size=50)
BYTES = st.binary(max_size=50)
MESSAGES = st.one_of(
    st.builds(m.Okay),
    st.builds(m.MemDone),
    st.builds(m.Error, TEXTS),
    st.builds(m.Serialized, TEXTS),
    st.builds(m.Blob, BYTES),
    st.builds(m.Page, st.binary(min_size=4096, max_size=4096)),
    st.builds(m.MemQuery, U64, U64),
    st.builds(m.MemEnd, U64, U64),
    st.builds(m.MemOffer, U64, U64, BYTES),
    st.builds(m.MemFetch, U64, U64, BYTES),
    st.builds(m.MemXfer, U64, U64, BYTES),
)


@given(MESSAGES)
def test_what_is_encoded_is_decoded(message: m.Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_malformed(frame: bytes) -> None:
    message = decode(frame)
    assert isinstance(message, m.Malformed) or encode(message) == frame


def test_the_tags_are_those_of_the_reference() -> None:
    assert {kind.__name__: tag for kind, tag in TAGS.items()} == {
        "Okay": 0,
        "Error": 1,
        "Serialized": 2,
        "Blob": 3,
        "Page": 4,
        "MemQuery": 5,
        "MemOffer": 6,
        "MemEnd": 7,
        "MemFetch": 8,
        "MemXfer": 9,
        "MemDone": 10,
    }


@in_one_test(
    ("message", "frame"),
    [
        pytest.param(m.Okay(), b"\x00", id="Okay is its tag"),
        pytest.param(m.Serialized("(x)"), b"(x)\x02", id="text, then the tag"),
        pytest.param(m.MemQuery(0, 2**64 - 1), bytes(8) + b"\xff" * 8 + b"\x05", id="everything, little-endian"),
        pytest.param(m.MemOffer(1, 2, b"\x80"), b"\x01" + bytes(7) + b"\x02" + bytes(7) + b"\x80\x06", id="a bitmap"),
    ],
)
def test_frame_by_hand(message: m.Message, frame: bytes) -> None:
    assert encode(message) == frame
    assert decode(frame) == message


@in_one_test(
    "frame",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"x\x00", id="an Okay with a payload"),
        pytest.param(b"\xff\x02", id="text that is not UTF-8"),
        pytest.param(bytes(4095) + b"\x04", id="a short page"),
        pytest.param(bytes(15) + b"\x05", id="a short range"),
        pytest.param(bytes(17) + b"\x07", id="a long range"),
        pytest.param(b"\x0b", id="an unknown tag"),
    ],
)
def test_a_frame_that_is_none(frame: bytes) -> None:
    assert isinstance(decode(frame), m.Malformed)


@pytest.mark.parametrize("message", [m.Text("x"), m.Malformed("x")])
def test_what_is_no_binary_frame_is_a_bug(message: m.Message) -> None:
    with pytest.raises(AssertionError):
        encode(message)
