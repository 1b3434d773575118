"""Heads of websocket frames: what a server must refuse before a byte of it is read (RFC 6455 5.1)."""

from __future__ import annotations

import struct

import pytest
from aiohttp import WebSocketError
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from propolis_stub.server.websocket import FRAME_BYTES_MAX, FrameHeads


class Noted:
    """A reader that notes what it gets, and what was refused."""

    def __init__(self) -> None:
        self.data = b""
        self.refused: list[int] = []
        self.heads = FrameHeads(self, lambda error: self.refused.append(error.code))

    def feed_data(self, data: bytes, /) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        raise AssertionError


def frame(payload: bytes, *, masked: bool = True, first: int = 0x82, declared: int | None = None) -> bytes:
    size = len(payload) if declared is None else declared
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 1 << 16:
        head = bytes([first, bit | 126]) + struct.pack(">H", size)
    else:
        head = bytes([first, bit | 127]) + struct.pack(">Q", size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]
GOOD = b"".join(frame(bytes([0x02]) * size) for size in SIZES)


@pytest.mark.parametrize("piece", [13, 1_000, 1 << 20])
def test_masked_frames_of_every_length_pass_however_they_are_cut(piece: int) -> None:
    noted = Noted()
    for at in range(0, len(GOOD), piece):
        assert noted.heads.feed_data(GOOD[at : at + piece]) == (False, b"")
    assert (noted.data == GOOD, noted.refused) == (True, [])


@in_one_test(
    ("bad", "code"),
    [
        pytest.param(frame(b"root\r", masked=False), 1002, id="a short frame without mask"),
        pytest.param(frame(b"", masked=False), 1002, id="an empty frame without mask"),
        pytest.param(frame(b"x" * 300, masked=False), 1002, id="a longer frame without mask"),
        pytest.param(frame(b"x" * 70_000, masked=False), 1002, id="a long frame without mask"),
        pytest.param(frame(b"hi", masked=False, first=0x81), 1002, id="a text without mask"),
        pytest.param(frame(b"", masked=False, first=0x89), 1002, id="a ping without mask"),
        pytest.param(frame(b"\x03\xe8", masked=False, first=0x88), 1002, id="a close without mask"),
        pytest.param(frame(b"", declared=FRAME_BYTES_MAX + 1), 1009, id="a frame of more than 16 MiB"),
        pytest.param(frame(b"", declared=2**63), 1009, id="a frame without end"),
    ],
)
@in_one_test("piece", [1, 2, 7, 1 << 20])
def test_nothing_passes_from_the_first_offence_on(bad: bytes, code: int, piece: int) -> None:
    noted = Noted()
    sent = frame(b"before") + bad[:40] + frame(b"after")
    for at in range(0, len(sent), piece):
        noted.heads.feed_data(sent[at : at + piece])
    assert noted.refused == [code]
    assert noted.data.startswith(frame(b"before"))
    assert len(noted.data) < len(frame(b"before")) + 14, "at most a part of a head that was not read yet"
    assert noted.heads.feed_data(b"x") == (True, b"")


def test_16_mib_are_no_offence() -> None:
    noted = Noted()
    noted.heads.feed_data(frame(b"", declared=FRAME_BYTES_MAX))
    assert noted.refused == []


@given(st.lists(st.tuples(st.binary(max_size=200), st.booleans()), max_size=6), st.data())
def test_the_first_unmasked_frame_is_found_wherever_it_stands(
    frames: list[tuple[bytes, bool]], cuts: st.DataObject
) -> None:
    noted = Noted()
    sent = b"".join(frame(payload, masked=masked) for payload, masked in frames)
    at = 0
    while at < len(sent):
        size = cuts.draw(st.integers(1, len(sent) - at))
        noted.heads.feed_data(sent[at : at + size])
        at += size
    assert noted.refused == ([] if all(masked for _, masked in frames) else [1002])


def test_the_errors_are_those_that_aiohttp_closes_with() -> None:
    errors: list[WebSocketError] = []
    FrameHeads(Noted(), errors.append).feed_data(frame(b"x", masked=False))
    assert (errors[0].code, str(errors[0])) == (1002, "a client's frame is not masked")
