"""Whatever an input may hold is read again as what it was, and what is no form is refused."""

import json
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Address, ip_address
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client.dropshot.text import U64
from nexus_client.outbox import Permanent, Transient
from nexus_client.types import VmmState
from sim_sled.core.contract import Unregister
from sim_sled.core.omicron_config.configure import put
from sim_sled.recording.forms import DEPTH_MAX, BadForm, NoForm, form, value_of

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=6),
    st.sampled_from(["~", "~~", "~uuid", "~enum x", "~bytes AA=="]),
    st.floats(allow_nan=False),
    st.binary(max_size=6),
    st.uuids(),
    st.sampled_from(VmmState),
    st.ip_addresses(),
    st.builds(Unregister, st.integers(), st.uuids(), st.uuids()),
    st.builds(Permanent, st.text(max_size=3), st.none() | st.integers()),
    st.builds(Transient, st.text(max_size=3)),
)
KEYS = st.one_of(st.text(max_size=4), st.just("~"), st.integers(), st.uuids(), st.tuples(st.uuids(), st.booleans()))
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.sets(KEYS, max_size=3),
        st.frozensets(KEYS, max_size=3),
    ),
    max_leaves=8,
)


def again(value):
    """As a file has it in between."""
    return value_of(json.loads(json.dumps(form(value), allow_nan=False)))


def kinds(value):
    """Of it and all that is in it; `1 == True`, and a set is equal to a frozen one."""
    inner = value.items() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [type(value), *map(kinds, inner)]


@given(VALUES)
def test_a_value_is_read_again_as_what_it_was(value):
    assert again(value) == value
    assert kinds(again(value)) == kinds(value)


@in_one_test(
    "value",
    [
        datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        IPv4Network("10.0.0.0/8"),
        IPv6Address("fd00::1"),
        float("inf"),
        float("-inf"),
        msgspec.UNSET,
        msgspec.Raw(b'{"a": 1}'),
        Unregister,
        put,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_has_not_is_read_again_too(value):
    assert again(value) == value
    assert again([value]) == [value]


def test_what_is_no_number_stays_none():
    found = again(float("nan"))
    assert found != found  # noqa: PLR0124 -- which nothing else is


def test_a_number_of_the_wire_is_a_number():
    assert again(U64(512)) == 512


@attrs.frozen
class Foreign:
    """Of no room of ours."""


@in_one_test(
    "value", [Foreign(), Foreign, json.dumps, object(), {Foreign()}, [print]], ids=lambda value: type(value).__name__
)
def test_what_is_not_ours_has_no_form(value):
    with pytest.raises(NoForm):
        form(value)


def deep(levels):
    made = 5
    for _ in range(levels):
        made = [made]
    return made


def test_what_is_deep_is_refused_before_it_ends_the_reader():
    assert value_of(deep(DEPTH_MAX)) is not None
    with pytest.raises(BadForm, match="values in values"):
        value_of(deep(DEPTH_MAX + 1))


@in_one_test(
    "told",
    [
        "~nothing x",
        "~uuid x",
        "~bytes !",
        "~ip fd00::1::2",
        "~time yesterday",
        "~enum nexus_client.types:VmmState NOTHING",
        "~enum sim_sled.core.contract:Unregister NOTHING",
        "~class builtins:eval",
        "~function os:system",
        "~function sim_sled.core.vmm:attrs",
        {"~": "subprocess:Popen", "args": "x"},
        {"~": "nexus_client.types:VmmState", "_value_": "running"},
        {"~": "sim_sled.core.errors:NoSuchVmm", "args": []},
        {"~": "sim_sled.core.contract:Unregister", "ticket": 1},
        {"~": "sim_sled.core.contract:Unregister", "ticket": 1, "sled_id": 1, "propolis_id": 1, "more": 1},
        {"~": "dict", "of": [[1]]},
        {"~": "dict", "of": [[{"a": 1}, 1]]},
        {"~": "list"},
        {"~": 5},
    ],
    ids=str,
)
def test_what_is_no_form_is_refused(told):
    with pytest.raises(BadForm):
        value_of(told)


def test_a_set_stands_in_one_order():
    several = [UUID(int=number) for number in range(40)]
    assert form(set(several)) == form({*several[20:], *several[:20]})


def test_an_address_and_a_text_of_it_are_two_things():
    assert again([ip_address("::1"), "::1"]) == [ip_address("::1"), "::1"]
