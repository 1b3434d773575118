"""Bodies are read as serde_json reads them (DS 1), by the one decoder of all three servers."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client.dropshot.json import BadJson, Json


class Color(Enum):
    RED = "red"


class Dot(msgspec.Struct, tag="dot", tag_field="type"):
    at: int


class Line(msgspec.Struct, tag="line", tag_field="type"):
    start: int
    end: int


@attrs.frozen
class Asked:
    """Adjacently tagged."""

    type: Color
    value: int | None = None


class Whole(msgspec.Struct):
    number: int = 0
    color: Color | None = None
    shape: Dot | Line | None = None
    asked: Asked | None = None
    many: list[Dot] = []
    named: dict[str, int] = {}
    id: UUID | None = None
    when: datetime | None = None
    ratio: float = 0.0
    raw: msgspec.Raw = msgspec.Raw()
    free: Any = None


WHOLE = Json(Whole)


def read(text: str) -> Whole:
    return WHOLE.decode(text.encode())


@in_one_test(
    ("text", "why"),
    [
        ('{"number": 1, "number": 2}', "duplicate field `number`"),
        ('{"number": 1, "n\\u0075mber": 2}', "duplicate field `number`"),
        ('{"number": 1, "number": 1, "free": "' + "x" * 3000 + '"}', "duplicate field `number`"),
        ('{"shape": {"type": "dot", "at": 1, "at": 1}}', "shape: duplicate field `at`"),
        ('{"shape": {"type": "dot", "type": "dot", "at": 1}}', "shape: duplicate field `type`"),
        (
            '{"many": [{"type": "dot", "at": 1}, {"type": "dot", "at": 1, "at": 2}]}',
            r"many\[1\]: duplicate field `at`",
        ),
        ('{"asked": {"type": "red", "type": "red"}}', "asked: duplicate field `type`"),
    ],
)
def test_a_field_given_twice_is_refused_wherever_it_is(text, why):
    with pytest.raises(BadJson, match=why):
        read(text)


@in_one_test(
    "text",
    [
        '{"unknown": 1, "unknown": 2}',
        '{"free": {"a": 1, "a": 2}}',
        '{"named": {"a": 1, "a": 2}}',
        '{"unknown": {"number": 1, "number": 2}}',
    ],
)
def test_what_is_no_field_may_come_twice_and_the_last_counts(text):
    got = read(text)
    assert got.named in ({}, {"a": 2})
    assert got.free in (None, {"a": 2})


def test_a_part_that_somebody_else_reads_keeps_its_keys_as_they_came():
    assert bytes(read('{"raw": {"a": 1, "a": {"b": -0}}}').raw) == b'{"a":1,"a":{"b":-0}}'


@in_one_test(
    "text",
    ['{"number": -0}', '{"number":-0, "free": 1}', '{"many": [{"type": "dot", "at": -0}]}', '{"named": {"a": -0}}'],
)
def test_minus_zero_is_no_integer(text):
    with pytest.raises(BadJson, match=r"invalid type: floating point `-0.0`"):
        read(text)


@in_one_test(
    "text",
    ['{"ratio": -0}', '{"free": -0}', '{"unknown": [-0]}', '{"ratio": -0.0}', '{"number": 0}', '{"ratio": -0.5}'],
)
def test_minus_zero_is_a_number_where_any_will_do(text):
    read(text)


@in_one_test("text", ['{"number": "-0"}', '{"color": -0}', '{"id": -0}', '{"color": [-0]}'])
def test_minus_zero_in_the_place_of_something_else_is_refused_too(text):
    with pytest.raises(BadJson):
        read(text)


@in_one_test("rest", ["x", " {}", "]", "\n\n", "\x00", '{"number": -0}'])
def test_what_follows_the_document_is_not_read(rest):
    assert read('{"number": 7}' + rest).number == 7


def test_bytes_that_are_no_text_behind_the_document_are_still_refused():
    with pytest.raises(BadJson, match="line 2 column 1"):
        WHOLE.decode(b'{"number": 7}\n\xff')


@in_one_test(
    ("text", "same"),
    [
        ('{"asked": ["red", 3]}', '{"asked": {"type": "red", "value": 3}}'),
        ('{"asked": ["red", null]}', '{"asked": {"type": "red"}}'),
        ('{"shape": ["line", 1, 2]}', '{"shape": {"type": "line", "start": 1, "end": 2}}'),
        ('{"many": [["dot", 1], ["dot", 2]]}', '{"many": [{"type": "dot", "at": 1}, {"type": "dot", "at": 2}]}'),
        ("[1, null, null, null, [], {}, null, null, 0.5, null, null]", '{"number": 1, "ratio": 0.5, "raw": null}'),
        ('{"color": {"red": null}}', '{"color": "red"}'),
        ('{"id": "{12345678-9ABC-def0-1234-56789abcdef0}"}', '{"id": "12345678-9abc-def0-1234-56789abcdef0"}'),
        ('{"when": "2026-03-04 05:06:07 UTC"}', '{"when": "2026-03-04T05:06:07Z"}'),
        ('{"when": "2026-03-04T05:06:07.0000009Z"}', '{"when": "2026-03-04T05:06:07Z"}'),
    ],
)
def test_what_serde_takes_for_the_same_is_the_same(text, same):
    assert read(text) == read(same)


@in_one_test(
    "text",
    ['{"asked": ["red"]}', '{"asked": ["red", 1, 2]}', '{"asked": {"type": {"red": null}}}', '{"color": {"red": 1}}',
     '{"color": {"red": null, "blue": null}}',
     '{"color": {"blue": null}}', '{"shape": ["star", 1]}', '{"shape": [["line"], 1, 2]}', '{"shape": []}', "[1]",
     '{"number": NaN}', '{"number": 1e999}',
     '{"number": ' + "9" * 5000 + "}", '{"free": Infinity}'],
)  # fmt: skip
def test_what_serde_refuses_is_refused(text):
    with pytest.raises(BadJson):
        read(text)


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    id: UUID


def test_a_body_read_twice_still_has_no_unknown_fields():
    with pytest.raises(BadJson, match="unknown field `more`"):
        Json(Strict).decode(b'{"id": "urn:uuid:12345678-9abc-def0-1234-56789abcdef0", "more": 1}')


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(_values)
def test_any_document_is_read_as_it_is(value):
    assert Json(Any).decode(json.dumps(value).encode()) == value


class Holder(msgspec.Struct):
    a: Annotated[int, msgspec.Meta(ge=0)]
    b: str


@given(st.integers(0, 2**40), st.text(), _values)
def test_a_second_reading_gives_what_the_first_gives(number, text, other):
    """A field nobody knows, given twice, forces the second reading."""
    plain = json.dumps({"a": number, "b": text, "c": other})
    odd = plain[:-1] + ', "c": 1}'
    assert Json(Holder).decode(odd.encode()) == Json(Holder).decode(plain.encode()) == Holder(number, text)


@given(st.binary(max_size=80))
def test_no_bytes_are_worse_than_refused(raw):
    with suppress(BadJson):
        WHOLE.decode(raw)


@attrs.frozen
class _Boards:
    """Maps by what is no plain text."""

    by_id: dict[UUID, Dot] = attrs.field(factory=dict)
    by_color: dict[Color, int] = attrs.field(factory=dict)


_ID = "11111111-1111-4111-8111-111111111111"


@in_one_test(
    ("body", "path"),
    [
        pytest.param({"by_id": {"x": {"type": "dot", "at": 1}}}, "$.by_id", id="a key that is no UUID"),
        pytest.param({"by_color": {"blue": 1}}, "$.by_color", id="a key that is no member of an enumeration"),
        pytest.param({"by_id": {_ID: {"type": "dot", "at": "a"}}}, "$.by_id[...].at", id="a value below a map"),
        pytest.param({"by_color": {"red": "a"}}, "$.by_color[...]", id="a value of a map"),
    ],
)
def test_an_error_in_a_map_says_where_it_is(body: object, path: str) -> None:
    with pytest.raises(BadJson) as refused:
        Json(_Boards).decode(json.dumps(body).encode())
    assert refused.value.path == path
    assert "`" not in refused.value.message.replace("`int`", "").replace("`str`", ""), (
        "the place stands in `path` alone"
    )


def test_an_error_that_only_the_second_reading_finds_says_the_key_it_is_under() -> None:
    with pytest.raises(BadJson) as refused:
        Json(_Boards).decode(b'{"by_id": {"%b": {"type": "dot", "at": -0}}}' % _ID.encode())
    assert refused.value.path == f"$.by_id.{_ID}.at"
