"""Texts of a specification: which spellings are taken, and the one form they are told in (DS 2)."""

from __future__ import annotations

import pytest

from propolis_stub.spec.texts import Uuid, socket_address, spec_key

PLAIN = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
DIGITS = PLAIN.replace("-", "")
SPELLINGS = [PLAIN, PLAIN.upper(), DIGITS, DIGITS.upper(), "{" + PLAIN + "}", "urn:uuid:" + PLAIN]
NO_UUIDS = ["{" + DIGITS + "}", "urn:uuid:" + DIGITS, PLAIN[:-1], PLAIN + "0", "", "disk-1", PLAIN.replace("0", "g")]


@pytest.mark.parametrize("text", SPELLINGS)
def test_every_spelling_of_a_uuid_is_the_same_uuid_and_the_same_key(text: str) -> None:
    assert str(Uuid.parse(text)) == PLAIN
    assert spec_key(text) == PLAIN


@pytest.mark.parametrize("text", NO_UUIDS)
def test_what_is_no_uuid_is_a_name_as_it_stands(text: str) -> None:
    assert spec_key(text) == text
    with pytest.raises(ValueError, match="UUID parsing failed"):
        Uuid.parse(text)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1.2.3.4:5", "1.2.3.4:5"),
        ("[::1]:80", "[::1]:80"),
        ("[0:0::1]:00080", "[::1]:80"),
        ("[FE80::A%3]:4000", "[fe80::a%3]:4000"),
        ("[::1%0]:1", "[::1]:1"),
        ("[::1%4294967295]:65535", "[::1%4294967295]:65535"),
        ("127.0.0.1:" + "0" * 100 + "1", "127.0.0.1:1"),
        ("[::ffff:1.2.3.4]:0", "[::ffff:102:304]:0"),
    ],
)
def test_an_address_is_read_as_rust_reads_it(text: str, canonical: str) -> None:
    assert socket_address(text) == canonical


@pytest.mark.parametrize(
    "text",
    ["[fe80::1%lo]:1", "[::1%]:1", "[::1%4294967296]:1", "[::1]:65536", "[::1]:", "::1:1", "localhost:1", "1.2.3:4",
     "01.2.3.4:5", "[1.2.3.4]:5", "[::1]:1 ", "[::1]:-1", "[::1]:" + "9" * 5000, "1.2.3.4", "", "[:::]:1"],
)  # fmt: skip
def test_a_text_that_rust_does_not_take_for_an_address_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        socket_address(text)
