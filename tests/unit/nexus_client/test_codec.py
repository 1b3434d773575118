"""codec.py against the JSON conventions of SA 1.5."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test

from nexus_client import codec
from nexus_client.codec import encode
from nexus_client.dropshot.json import BadJson, Json, parse_uuid
from nexus_client.types import (
    GENERATION_MAX,
    Asked,
    Baseboard,
    InstanceMigrationTargetParams,
    MigrationRuntimeState,
    MigrationState,
    SledAgentInfo,
    SledCpuFamily,
    SledRole,
    SledVmmState,
    UpdatedRuntime,
    VmmPutStateBody,
    VmmRuntimeState,
    VmmState,
    VmmStateRequested,
)

_ID = UUID("12345678-9abc-def0-1234-56789abcdef0")
_WHEN = datetime(2024, 6, 1, 12, 30, 15, 250_000, tzinfo=UTC)
_STATE = SledVmmState(VmmRuntimeState(VmmState.RUNNING, 4, _WHEN))
_INFO = SledAgentInfo(
    sa_address="[::1]:12345",
    repo_depot_port=12348,
    role=SledRole.GIMLET,
    baseboard=Baseboard("serial", "part", 3),
    usable_hardware_threads=32,
    usable_physical_ram=2**36,
    reservoir_size=2**35,
    cpu_family=SledCpuFamily.AMD_MILAN,
    generation=1,
    decommissioned=False,
)


def _json(**changes):
    return json.dumps({"state": "running", "gen": 4, "time_updated": "2024-06-01T12:30:15.25Z"} | changes).encode()


_VMM = Json(VmmRuntimeState)

_gens = st.integers(min_value=0, max_value=GENERATION_MAX)
_times = st.datetimes(timezones=st.just(UTC))
_migrations = st.none() | st.builds(MigrationRuntimeState, st.uuids(), st.sampled_from(MigrationState), _gens, _times)
_states = st.builds(
    SledVmmState, st.builds(VmmRuntimeState, st.sampled_from(VmmState), _gens, _times), _migrations, _migrations
)


def test_a_state_is_written_compact_with_explicit_nulls_and_z():
    assert json.loads(encode(_STATE)) == {
        "vmm_state": {"state": "running", "gen": 4, "time_updated": "2024-06-01T12:30:15.250000Z"},
        "migration_in": None,
        "migration_out": None,
    }
    assert b" " not in encode(_STATE)


@given(_states)
def test_every_state_survives_the_wire(state):
    assert codec.SLED_VMM_STATE.decode(encode(state)) == state
    assert codec.UPDATED_RUNTIME.decode(encode(UpdatedRuntime(state))) == UpdatedRuntime(state)


def test_a_sleds_info_survives_the_wire():
    assert codec.SLED_AGENT_INFO.decode(encode(_INFO)) == _INFO


@in_one_test(
    ("raw", "asked"),
    [
        pytest.param(b'{"state":{"type":"running"}}', VmmStateRequested(Asked.RUNNING), id="running"),
        pytest.param(b'{"state":{"type":"stopped"}}', VmmStateRequested(Asked.STOPPED), id="stopped"),
        pytest.param(b'{"state":{"type":"reboot","value":null}}', VmmStateRequested(Asked.REBOOT), id="null value"),
        pytest.param(
            b'{"state":{"type":"migration_target","value":{"src_propolis_addr":"[::1]:1"}},"more":1}',
            VmmStateRequested(Asked.MIGRATION_TARGET, InstanceMigrationTargetParams("[::1]:1")),
            id="migration target, unknown fields ignored",
        ),
    ],
)
def test_requested_states_are_read(raw, asked):
    assert codec.VMM_PUT_STATE_BODY.decode(raw) == VmmPutStateBody(asked)


@in_one_test(
    ("raw", "path", "message"),
    [
        pytest.param(b'{"state":{"type":"runing"}}', "$.state.type", "Invalid enum value 'runing'", id="enum"),
        pytest.param(b'{"state":{"type":"migration_target"}}', "$.state", "`value` is required", id="no value"),
        pytest.param(b'{"state":{}}', "$.state", "missing required field `type`", id="no tag"),
        pytest.param(b"{}", "$", "missing required field `state`", id="no state"),
        pytest.param(b'{"state":"running"}', "$.state", "Expected `object`, got `str`", id="a bare word"),
        pytest.param(b"[]", "$", "Expected `object`, got `array`", id="too short an array"),
        pytest.param(b'{"state":{"type":"running"},"state":1}', "$", "duplicate field `state`", id="a field twice"),
        pytest.param(b"null", "$", "Expected `object`, got `null`", id="null"),
        pytest.param(b"", "$", "truncated", id="nothing"),
        pytest.param(b'{"state":', "$", "truncated", id="a beginning"),
        pytest.param(b"\xff\xfe", "$", "invalid unicode code point at line 1 column 1", id="no text"),
        pytest.param(b'{"state":\n{"type":"r\xff"}}', "$", "line 2 column 11", id="no UTF-8 in a string"),
        pytest.param(b'{"other":' + b"[" * 100_000, "$", "recursion limit exceeded", id="a tower of brackets"),
    ],
)
def test_bad_bodies_are_codec_errors_with_a_path(raw, path, message):
    with pytest.raises(BadJson) as caught:
        codec.VMM_PUT_STATE_BODY.decode(raw)
    assert caught.value.path == path
    assert message in caught.value.message
    assert str(caught.value).endswith(caught.value.message)


@pytest.mark.parametrize("gen", [0, 1, GENERATION_MAX])
def test_generations_in_range_are_read(gen):
    assert _VMM.decode(_json(gen=gen)).gen == gen


@in_one_test("gen", [-1, GENERATION_MAX + 1, 10**30, 5.0, 5.7, "5", True, None])
def test_what_is_no_generation_is_refused(gen):
    with pytest.raises(BadJson) as caught:
        _VMM.decode(_json(gen=gen))
    assert caught.value.path == "$.gen"


@pytest.mark.parametrize(
    ("text", "when"),
    [
        pytest.param("2024-06-01T12:30:15Z", _WHEN.replace(microsecond=0), id="whole seconds"),
        pytest.param("2024-06-01T12:30:15.250000999Z", _WHEN, id="nanoseconds are cut"),
        pytest.param("2024-06-01T14:30:15.25+02:00", _WHEN, id="another offset"),
    ],
)
def test_times_are_read_and_become_utc(text, when):
    read = _VMM.decode(_json(time_updated=text)).time_updated
    assert read == when
    assert read.utcoffset() == timedelta(0)


@in_one_test("text", ["2024-06-01T12:30:15", "2024-06-01", "yesterday", "2024-13-01T00:00:00Z", 5])
def test_naive_and_impossible_times_are_refused(text):
    with pytest.raises(BadJson) as caught:
        _VMM.decode(_json(time_updated=text))
    assert caught.value.path in {"$.time_updated", "$"}


def test_a_time_is_written_with_z_whatever_offset_it_came_with():
    elsewhere = VmmRuntimeState(VmmState.RUNNING, 1, _WHEN.astimezone(timezone(timedelta(hours=2))))
    assert b'"2024-06-01T12:30:15.250000Z"' in encode(elsewhere)


_SPELLINGS = [
    pytest.param(str(_ID), id="hyphenated"),
    pytest.param(str(_ID).upper(), id="upper case"),
    pytest.param(_ID.hex, id="no hyphens"),
    pytest.param("{%s}" % _ID, id="braces"),  # noqa: UP031 -- braces in an f-string read worse
    pytest.param(f"urn:uuid:{_ID}", id="urn"),
    pytest.param(f"urn:uuid:{str(_ID).upper()}", id="urn in upper case"),
]
_NO_UUIDS = [
    "", "x", str(_ID)[:-1], f"{_ID}0", f"{{{_ID}", f"{{{_ID.hex}}}", f"URN:UUID:{_ID}", f"urn:uuid:{_ID.hex}",
    f" {_ID}", f"{_ID}\n", str(_ID).replace("-", "_"), "1234-" + _ID.hex[4:], "١" * 32,
]  # fmt: skip


@attrs.frozen
class _Named:
    id: UUID
    name: str


class _First(msgspec.Struct, tag="first", tag_field="kind"):
    id: UUID


class _Second(msgspec.Struct, tag="second", tag_field="kind"):
    id: str


@attrs.frozen
class _Everywhere:
    plain: UUID
    maybe: UUID | None = None
    many: list[UUID] = attrs.field(factory=list)
    row: tuple[_Named, ...] = ()
    by_id: dict[UUID, UUID] = attrs.field(factory=dict)
    by_name: dict[str, _Named | None] = attrs.field(factory=dict)
    one_of: _First | _Second | None = None
    number: Annotated[int, msgspec.Meta(ge=0)] = 0


@in_one_test("text", _SPELLINGS)
def test_uuids_are_read_in_every_spelling_wherever_they_are(text):
    read = Json(_Everywhere).decode(
        json.dumps(
            {
                "plain": text,
                "maybe": text,
                "many": [text],
                "row": [{"id": text, "name": text}],
                "by_id": {text: text},
                "by_name": {text: {"id": text, "name": text}, "other": None},
                "one_of": {"kind": "first", "id": text},
            }
        ).encode()
    )
    # a name that looks like an id stays as it is
    named = _Named(_ID, text)
    assert read == _Everywhere(_ID, _ID, [_ID], (named,), {_ID: _ID}, {text: named, "other": None}, _First(_ID))
    assert parse_uuid(text) == _ID


def test_a_text_that_looks_like_a_uuid_stays_in_its_spelling():
    text = f"urn:uuid:{_ID}"
    raw = json.dumps({"plain": text, "one_of": {"kind": "second", "id": text}}).encode()
    assert Json(_Everywhere).decode(raw).one_of == _Second(text)


@in_one_test("text", _NO_UUIDS)
def test_what_is_no_uuid_is_refused(text):
    with pytest.raises(BadJson, match="UUID parsing failed") as caught:
        Json(_Named).decode(json.dumps({"id": text, "name": "n"}).encode())
    assert caught.value.path == "$.id"
    with pytest.raises(ValueError, match="UUID parsing failed"):
        parse_uuid(text)


def test_another_fault_beside_an_odd_uuid_is_still_found():
    with pytest.raises(BadJson) as caught:
        Json(_Everywhere).decode(json.dumps({"plain": f"urn:uuid:{_ID}", "number": -1}).encode())
    assert caught.value.path == "$.number"


def test_an_odd_uuid_in_a_tower_of_brackets_is_a_codec_error():
    raw = b'{"plain":"urn:uuid:%s","other":' % str(_ID).encode() + b"[" * 100_000
    with pytest.raises(BadJson):
        Json(_Everywhere).decode(raw)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_escape_as_another_error(raw):
    with pytest.raises(BadJson) as caught:  # so few bytes cannot hold a state
        codec.SLED_VMM_STATE.decode(raw)
    assert caught.value.path.startswith("$")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_no_json_escapes_as_another_error(value):
    with pytest.raises(BadJson):
        codec.SLED_VMM_STATE.decode(json.dumps({"vmm_state": value}).encode())
