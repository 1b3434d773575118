"""Component keys: which spellings are one key, and the form it is told in (DS 2, PR 4.2)."""

from __future__ import annotations

from support.rows import in_one_test

from propolis_stub.spec.types import spec_key

PLAIN = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9"
DIGITS = PLAIN.replace("-", "")
SPELLINGS = [PLAIN, PLAIN.upper(), DIGITS, DIGITS.upper(), "{" + PLAIN + "}", "urn:uuid:" + PLAIN]
NO_UUIDS = ["{" + DIGITS + "}", "urn:uuid:" + DIGITS, PLAIN[:-1], PLAIN + "0", "", "disk-1", PLAIN.replace("0", "g")]


@in_one_test("text", SPELLINGS)
def test_every_spelling_of_a_uuid_is_the_same_key(text: str) -> None:
    assert spec_key(text) == PLAIN


@in_one_test("text", NO_UUIDS)
def test_what_is_no_uuid_is_a_name_as_it_stands(text: str) -> None:
    assert spec_key(text) == text
