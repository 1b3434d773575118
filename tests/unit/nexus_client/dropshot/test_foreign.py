"""JSON of others: one error for whatever cannot be read."""

import io

import pytest
from support.rows import in_one_test

from nexus_client.dropshot.foreign import load, loads


@in_one_test("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, b"\xff", "1" * 10_000, "'a'"])
def test_what_cannot_be_read_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        loads(text)
    with pytest.raises(ValueError, match=r"."):
        load(io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def test_what_can_be_read_is_what_it_says():
    assert loads('{"a": [1, null]}') == {"a": [1, None]}
    assert load(io.BytesIO(b'"x"')) == "x"
    assert loads('{"a": {"b": 1}}', lambda pairs: [name for name, _ in pairs]) == ["a"]
