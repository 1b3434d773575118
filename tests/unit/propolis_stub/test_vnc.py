"""RFB 3.8 in bytes: as much as a viewer needs to see nothing."""

from __future__ import annotations

import struct

import pytest
from support.rows import in_one_test

from propolis_stub.vnc import HEIGHT, WIDTH, Rfb, RfbError

HELLO = b"RFB 003.008\n" + b"\x01" + b"\x01"


def ready() -> Rfb:
    rfb = Rfb()
    rfb.feed(HELLO)
    return rfb


def test_the_handshake_may_come_byte_by_byte() -> None:
    whole, pieces = Rfb(), Rfb()
    assert b"".join(pieces.feed(bytes([byte])) for byte in HELLO) == whole.feed(HELLO)


def test_only_a_request_for_everything_is_answered() -> None:
    rfb = ready()
    assert rfb.feed(struct.pack(">BBHHHH", 3, 1, 0, 0, WIDTH, HEIGHT)) == b""
    update = rfb.feed(struct.pack(">BBHHHH", 3, 0, 0, 0, WIDTH, HEIGHT))
    assert len(update) == 16 + 4 * WIDTH * HEIGHT
    assert rfb.feed(struct.pack(">BBHHHH", 3, 0, WIDTH, 0, 10, 10)) == b"", "beyond the screen"
    rfb.feed(bytes([0, 0, 0, 0, 16, 16, 0, 1]) + bytes(12))
    assert len(rfb.feed(struct.pack(">BBHHHH", 3, 0, 0, 0, 10, 10))) == 16 + 2 * 100


def test_keys_pointer_clipboard_and_encodings_are_read_and_ignored() -> None:
    rfb = ready()
    keys = bytes([4]) + bytes(7)
    pointer = bytes([5]) + bytes(5)
    clipboard = bytes([6, 0, 0, 0]) + struct.pack(">I", 3) + b"abc"
    encodings = bytes([2, 0]) + struct.pack(">H", 2) + bytes(8)
    assert rfb.feed(keys + pointer + clipboard + encodings) == b""
    assert rfb.feed(struct.pack(">BBHHHH", 3, 0, 0, 0, 1, 1)) != b""


@in_one_test(
    "data",
    [
        pytest.param(b"RFB 003.003\n", id="an old version"),
        pytest.param(b"RFB 003.008\n\x02", id="a security type that was not offered"),
        pytest.param(HELLO + b"\x63", id="an unknown message"),
        pytest.param(HELLO + bytes([6, 0, 0, 0]) + struct.pack(">I", 1 << 30), id="a huge clipboard"),
        pytest.param(HELLO + bytes([0, 0, 0, 0, 24, 24, 0, 1]) + bytes(12), id="24 bits per pixel"),
    ],
)
def test_a_viewer_that_speaks_something_else_is_refused(data: bytes) -> None:
    with pytest.raises(RfbError):
        Rfb().feed(data)
