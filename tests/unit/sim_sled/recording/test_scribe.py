"""Lines are written short and many at once, and read as the long ones that say the same."""

import json
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from support.rows import in_one_test

from nexus_client import types
from nexus_client.outbox import Delivered, Transient
from sim_sled.core import contract
from sim_sled.http.exchange import Exchange
from sim_sled.play.calls import STEP
from sim_sled.recording.lines import SHORT, SHORT_EFFECTS, BadLine, Http, Turn, read, simple, written
from sim_sled.recording.replaying import Rack
from sim_sled.recording.scribe import Clerk, Scribe, block

SLED, VMM = UUID(int=1), UUID(int=2)
STATE = types.SledVmmState(types.VmmRuntimeState(types.VmmState.RUNNING, 3, datetime(2026, 1, 2, tzinfo=UTC)))
EFFECTS = [
    contract.Reply(7, types.UpdatedRuntime(STATE)),
    contract.Reply(7, STATE),
    contract.Reply(7, None),
    contract.PutToNexus(SLED, VMM, STATE, 0, 4),
]
INPUTS = [
    contract.PutState(7, SLED, VMM, types.VmmStateRequested(types.Asked.REBOOT)),
    contract.GetState(7, SLED, VMM),
    contract.NexusReplied(SLED, VMM, 4, Delivered()),
    STEP,
]


@in_one_test("item", INPUTS, ids=lambda item: type(item).__name__)
def test_a_short_line_is_read_as_the_long_one_and_its_input_is_the_one_that_was_asked(item):
    scribe = Scribe()
    short = read(block([(5, SHORT[type(item)], item, EFFECTS)]))
    long = read(block([scribe.turn(5, scribe.input(item), EFFECTS)]))
    assert isinstance(long, Turn)
    assert short == long
    again = Rack(None, None, None, 0).input(short.item)
    assert again == item


def test_every_kind_of_short_input_is_tried_here():
    assert {*map(type, INPUTS)} == {*SHORT}
    assert {*map(type, EFFECTS)} == {*SHORT_EFFECTS}


def test_an_answer_of_nexus_that_is_not_delivered_is_told_whole():
    item = contract.NexusReplied(SLED, VMM, 4, Transient("answered 503"))
    told = Scribe().input(item)
    assert "answered 503" in json.dumps(told)
    with pytest.raises((KeyError, msgspec.ValidationError)):
        simple(told)  # it is a form


@in_one_test("line", ['[1,"Put",{},[]]', '[1,"http"]', "[]", '[1,"PutState",{},[{"x":1}]]', '["a","Step",null,[]]'])
def test_a_line_that_only_looks_short_is_none(line):
    with pytest.raises(BadLine, match="no line of a recording"):
        read(line.encode())


def exchange(body, target="/vmms/x/state", *, fits=True):
    return Exchange(SLED, "vmm_put_state", "PUT", target, "1.0.0", 200, body, fits, has_body=True)


def asked(body, target="/vmms/x/state", *, fits=True):
    """A request with this body as a reader of the recording has it."""
    entry = Clerk().exchanged(9, exchange(body, target, fits=fits))
    # as before an answer of Nexus and after it: a body that breaks its line would break those
    lines = block([(1, "Step", STEP, []), entry, (2, "Step", STEP, [])]).splitlines()
    assert len(lines) == 3
    found = read(lines[1])
    assert isinstance(found, Http)
    assert (found.at, found.http.sled_id, found.http.method, found.http.status) == (9, SLED, "PUT", 200)
    return found.http


FITS = b'{"state": {"type": "running"}}'


def test_a_timer_is_no_request():
    with pytest.raises(BadLine, match="no line of a recording"):
        read(b'[1,"Step",{},[],"48.0.0"]')


def test_a_body_stands_in_its_line_as_it_came():
    assert asked(FITS).body == {"state": {"type": "running"}}
    assert asked(FITS).op == "vmm_put_state"


def test_a_body_of_several_lines_is_json_all_the_same():
    assert asked(FITS.replace(b" ", b"\n  ")).body == {"state": {"type": "running"}}


@pytest.mark.parametrize("more", [b'"\xff"', b'"\\ud800"', b"1e999"], ids=repr)
def test_what_fits_its_schema_and_is_no_json_breaks_no_line(more):
    body = FITS[:-1] + b', "unknown": ' + more + b"}"
    told = asked(body)
    assert not told.has_json
    assert told.body_text == body.decode() if told.body_text else told.body_base64


def test_a_body_that_does_not_fit_is_a_text():
    assert asked(b"{nonsense", fits=False).body_text == "{nonsense"


def test_stored_bytes_are_said_to_be_missing():
    assert asked(None).body_missing


def test_a_target_that_is_no_text_is_told_as_far_as_it_is():
    assert asked(FITS, target="/vmms/\udcff").target == "/vmms/\\udcff"


def test_a_small_body_that_comes_again_is_not_read_again_and_there_is_room_for_some_only():
    clerk = Clerk()
    for number in range(3000):
        clerk.exchanged(1, exchange(b'{"n": %d}' % number))
    assert len(clerk._known) <= 1024


def test_a_line_that_was_read_is_written_long():
    text = block([(5, "GetState", INPUTS[1], EFFECTS[:1])])
    assert read(written(read(text))) == read(text)
