"""Short lines are written at once, and one of a request is told to be of it when that is answered."""

import errno
import json
import os
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import msgspec
import pytest

from nexus_client import types
from nexus_client.codec import encode
from nexus_client.outbox import Delivered
from propolis_stub.migration.script import NO_BAGGAGE, Payload
from sim_sled.core import contract
from sim_sled.core.errors import NoSuchVmm
from sim_sled.daemon.part_files import CannotRecord, PartFiles
from sim_sled.daemon.recorder import TOGETHER, Recorder, _Disk
from sim_sled.daemon.small_rack import SmallRack
from sim_sled.http.exchange import Exchange
from sim_sled.http.routes import Call
from sim_sled.play.calls import STEP
from sim_sled.recording.lines import (
    FORMAT,
    SHORT,
    BadLine,
    Header,
    Http,
    Turn,
    asked_of,
    asked_of_whom,
    read,
    state_target,
)
from sim_sled.recording.scribe import block

SLED, VMM = UUID(int=1), UUID(int=2)
STATE = types.SledVmmState(types.VmmRuntimeState(types.VmmState.RUNNING, 3, datetime(2026, 1, 2, tzinfo=UTC)))
PUT = contract.PutState(7, SLED, VMM, types.VmmStateRequested(types.Asked.REBOOT))
GET = contract.GetState(7, SLED, VMM)
HEARD = contract.NexusReplied(SLED, VMM, 4, Delivered())
ANSWER = [contract.Reply(7, types.UpdatedRuntime(STATE))]
PUT_BODY = b'{"state":{"type":"reboot"}}'


@pytest.fixture(name="recorder")
def _recorder(tmp_path):
    return Recorder(tmp_path / "r", {})


def turn(recorder, item, effects=()):
    assert recorder.turn(SimpleNamespace(run=lambda item, now_us: effects), item, 5) is effects


def lines(recorder):
    recorder._settle()
    return [read(each) for each in bytes(recorder._lines).splitlines()]


MARK = asked_of_whom(SLED, state_target(VMM))


def call(item, body=None, *, with_body=False):
    decoded = None if body is None else types.VmmPutStateBody(item.requested)
    request = SimpleNamespace(body_exists=with_body, raw_path=state_target(VMM))
    return Call(None, SLED, (VMM,), decoded, 48, request=request)


@pytest.mark.parametrize("item", [PUT, GET, HEARD, STEP], ids=lambda item: type(item).__name__)
def test_a_turn_has_the_short_line_of_its_input(recorder, item):
    turn(recorder, item, ANSWER)
    turn(recorder, STEP)
    assert bytes(recorder._lines) == block([(5, SHORT[type(item)], item, ANSWER), (5, "Step", STEP, ())])


@pytest.mark.parametrize(
    ("item", "body"),
    [(PUT, PUT_BODY), (PUT, b'{"state": {"type": "reboot"}}'), (GET, None)],
    ids=["as Nexus writes it", "with blanks", "without a body"],
)
def test_a_request_that_says_no_more_than_its_input_stands_in_the_line_of_its_turn(recorder, item, body):
    turn(recorder, item, ANSWER)
    assert recorder.went(MARK, call(item, body), "48.0.0", body, encode(ANSWER[0].value))
    turn(recorder, STEP)
    line, step = lines(recorder)
    plain = read(block([(5, SHORT[type(item)], item, ANSWER)]))
    assert isinstance(step, Turn)
    assert line == msgspec.structs.replace(plain, api="48.0.0")
    told = asked_of(line)
    assert (told.sled_id, told.target, told.version, told.status) == (SLED, state_target(VMM), "48.0.0", 200)
    assert told.body == (msgspec.UNSET if body is None else json.loads(body))


OTHER_VMM = contract.PutState(7, SLED, UUID(int=3), PUT.requested)
OTHER_STATE = contract.PutState(7, SLED, VMM, types.VmmStateRequested(types.Asked.STOPPED))


@pytest.mark.parametrize(
    ("item", "of", "version", "body"),
    [
        pytest.param(PUT, call(PUT, PUT_BODY), "48.0.0", PUT_BODY[:-1] + b',"x":1}', id="its body says more"),
        pytest.param(PUT, call(PUT, PUT_BODY), None, PUT_BODY, id="it has no version"),
        pytest.param(GET, call(GET, with_body=True), "48.0.0", None, id="it has a body that nobody reads"),
        pytest.param(STEP, call(GET), "48.0.0", None, id="a timer's turn came last"),
        pytest.param(OTHER_VMM, call(PUT, PUT_BODY), "48.0.0", PUT_BODY, id="the turn is of another VMM"),
        pytest.param(OTHER_STATE, call(PUT, PUT_BODY), "48.0.0", PUT_BODY, id="another one asked for another state"),
    ],
)
def test_a_request_that_says_more_has_a_line_of_its_own(recorder, item, of, version, body):
    turn(recorder, item, ANSWER)
    assert not recorder.went(MARK, of, version, body, b"{}")
    recorder.over(Exchange(SLED, "op", "PUT", "/x", version, 200, body, fits=True, has_body=body is not None))
    alone, request = lines(recorder)
    assert alone == read(block([(5, SHORT[type(item)], item, ANSWER)]))
    assert isinstance(request, Http)


@pytest.mark.parametrize("more", ["an effect", "what a rule says"])
def test_a_request_whose_turn_did_more_than_answer_has_a_line_of_its_own(recorder, more):
    """A report to Nexus may follow of it at once."""
    told = contract.PutToNexus(SLED, VMM, STATE, 1, 1)

    def run(_item, _now_us):
        if more == "what a rule says":
            recorder.tell("rule", None, "sled-1", "late: delay")
        return [*ANSWER, told] if more == "an effect" else ANSWER

    recorder.turn(SimpleNamespace(run=run), PUT, 5)
    assert not recorder.went(MARK, call(PUT, PUT_BODY), "48.0.0", PUT_BODY, b"{}")
    [line] = lines(recorder)
    assert line.api is None
    assert (len(line.out), len(line.told)) == ((2, 0) if more == "an effect" else (1, 1))


def test_lines_of_requests_that_are_written_together_stand_where_they_happened(recorder):
    for at_us, version in enumerate(["47.0.0", *["48.0.0"] * TOGETHER, "47.0.0"]):
        for item, body in [(PUT, PUT_BODY), (GET, None)]:
            recorder.turn(SimpleNamespace(run=lambda _item, _now_us: ANSWER), item, at_us)
            assert recorder.went(MARK, call(item, body), version, body, encode(ANSWER[0].value))
        if at_us == 3:
            turn(recorder, STEP)
            recorder.listens(SLED, "[::1]:1", 6)
    said = [(each.at, each.api) if isinstance(each, Turn) else each.did["kind"] for each in lines(recorder)]
    asked = [(0, "47.0.0"), *[(at_us, "48.0.0") for at_us in range(1, TOGETHER + 1)], (TOGETHER + 1, "47.0.0")]
    twice = [each for each in asked for _ in (PUT, GET)]
    assert said == [*twice[:8], (5, None), "listens", *twice[8:]]


async def test_the_last_requests_do_not_wait_for_others_to_be_written(recorder):
    turn(recorder, GET, ANSWER)
    assert recorder.went(MARK, call(GET), "48.0.0", None, b"{}")
    recorder._tick()
    recorder._timer.cancel()
    assert recorder._disk._wake.is_set()
    assert recorder._take() == [bytearray(block([(5, "asked", 7, MARK, "48.0.0", None, msgspec.Raw(b"{}"))]))]


@pytest.mark.parametrize("between", ["listens", "end", "again", "block"])
def test_only_the_turn_of_the_last_line_is_a_request_and_of_one_only(recorder, between):
    turn(recorder, GET, ANSWER)
    match between:
        case "listens":
            recorder.listens(SLED, "[::1]:1", 5)
        case "end":
            recorder.end("no more")
        case "again":
            assert recorder.went(MARK, call(GET), "48.0.0", None, b"{}")
        case "block":
            recorder._flush()
    before = lines(recorder)
    assert not recorder.went(MARK, call(GET), "48.0.0", None, b"{}")
    assert lines(recorder) == before


def test_an_answer_that_cannot_be_written_breaks_no_line(recorder):
    turn(recorder, GET, ANSWER)
    turn(recorder, GET, [contract.Reply(7, {(1, 2): "a key that JSON has not"})])
    turn(recorder, GET, ANSWER)
    first, odd, last = lines(recorder)
    assert first == last
    assert odd.out == [{"Reply": "cannot be written down"}]


@pytest.mark.parametrize("item", [PUT, contract.Unregister(7, SLED, VMM)], ids=lambda item: type(item).__name__)
def test_a_turn_that_is_refused_or_meets_a_bug_has_a_line_that_says_so(recorder, item):
    """It may have changed something before it came to that, and a replay comes to the same."""

    def refuses(_item, _now_us):
        raise NoSuchVmm(VMM)

    with pytest.raises(NoSuchVmm):
        recorder.turn(SimpleNamespace(run=refuses), item, 5)
    [line] = lines(recorder)
    assert isinstance(line, Turn)
    assert (line.at, line.out) == (5, [{"Raised": ["NoSuchVmm", str(NoSuchVmm(VMM))]}])


def test_what_is_said_in_turns_after_the_end_of_a_recording_is_kept_nowhere(recorder):
    """The rack goes on, for days: it asks servers of migrating VMs, and rules tell what they do."""
    recorder.owned_by(lambda _sled, _vmm: NO_BAGGAGE)
    recorder.end("of this test")
    at_the_end = bytes(recorder._lines)
    recorder.tell("rule", None, "sled-1", "late: delay")
    assert recorder.baggage(SLED, VMM).pack(Payload.ADDRESS) == NO_BAGGAGE.pack(Payload.ADDRESS)
    turn(recorder, PUT, ANSWER)
    assert (bytes(recorder._lines), recorder._scribe.said) == (at_the_end, [])


async def test_a_rack_whose_recording_cannot_even_have_its_first_line_does_not_start(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(PartFiles, "write", full)
    with pytest.raises(CannotRecord, match="No space left on device"):
        await SmallRack(record=Recorder(tmp_path / "r", {})).start()
    monkeypatch.undo()
    Recorder(tmp_path / "r", {})  # there is room by now, and nothing in the way


def test_a_checkpoint_makes_room_before_anything_is_too_much(tmp_path):
    files = PartFiles(tmp_path / "full", total_bytes=100)
    files.begin()
    files.write(b"[1]\n" * 30)
    disk = _Disk(files, 100)
    disk._write([Header(recording=FORMAT, of=files.of, part=2, state="x"), bytearray(b"[2]\n")])
    files.close()
    assert disk.failed == ""
    [left] = (tmp_path / "full").iterdir()
    assert left.read_text().splitlines()[1:] == ["[2]"]


@pytest.mark.parametrize("target", ["/vmms/{vmm}/state?x=1", "/vmms/{upper}/state", "//vmms/{vmm}/state"])
def test_only_a_target_that_is_written_plainly_is_plain(recorder, target):
    vmm = UUID("abcdefab-0000-4000-8000-000000000001")
    plain = f"/vmms/{vmm}/state"
    assert recorder.mark(SLED, "vmm_put_state", (vmm,), plain) == asked_of_whom(SLED, plain)
    assert recorder.mark(SLED, "vmm_put_state", (vmm,), target.format(vmm=vmm, upper=str(vmm).upper())) is None
    assert recorder.mark(SLED, "vmm_register", (vmm,), plain) is None


@pytest.mark.parametrize(
    ("target", "state"), [("/vmms/x", "running"), (f"/vmm/{VMM}/state", None), (f"/vmms/{VMM}/state/", None)]
)
def test_a_line_of_a_request_for_something_else_is_none(target, state):
    with pytest.raises(BadLine, match="no line of a recording"):
        read(json.dumps([5, "asked", 7, str(SLED), target, "48.0.0", state, {}]).encode())
