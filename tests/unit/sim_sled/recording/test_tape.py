"""What of a recording is on a tape, what is waited for, and what is left out."""

from uuid import UUID

import pytest
from support.rack.driving import SLED_A, SLED_B, V1

from sim_sled.core.config import SledConfig
from sim_sled.recording.forms import form
from sim_sled.recording.lines import Asked, Header, Http, Turn
from sim_sled.recording.tape import NoTape, tape_of

HEADER = Header(recording=3, of="this", part=1, sleds=form((SledConfig(SLED_A),)))


def asked(op, method="GET", *, of=SLED_A, vmm=V1, version="48.0.0", status=200, **more):
    asks = Asked(
        sled_id=of, op=op, method=method, target=f"/vmms/{vmm}/state", version=version, status=status, **more
    )
    return Http(at=1, http=asks)


LOOK = asked("vmm_get_state")
STOP = asked("vmm_put_state", "PUT", body={"state": {"type": "stopped"}})


def reported(state):
    told = {"propolis_id": str(V1), "body": {"vmm_state": {"state": state}}}
    return Turn(at=1, item=None, out=[{"PutToNexus": told}])


def made(*lines, **more):
    return tape_of([(f"here:{number}", each) for number, each in enumerate((HEADER, *lines))], "t", **more)


def ops(tape):
    return [(row["op"], row["expect"]["status"]) for row in tape.rows[1:]]


def test_a_state_that_was_reported_before_the_next_request_is_waited_for():
    [_, row] = made(STOP, reported("stopping"), reported("destroyed")).rows
    assert row["wait"]["until"] == {"vmm": str(V1), "state": "gone"}


def test_a_look_at_a_vmm_that_was_on_its_way_is_left_out_and_counted():
    tape = made(STOP, LOOK, reported("destroyed"))
    assert ops(tape) == [("vmm_put_state", 200)]
    assert tape.left_out == ["looks at a VMM that was on its way: 1"]


def test_a_look_that_found_nothing_more_is_on_the_tape():
    """Until Nexus has acknowledged the end one still finds it, then it does not."""
    gone = asked("vmm_get_state", status=404)
    tape = made(STOP, reported("destroyed"), LOOK, gone)
    assert ops(tape) == [("vmm_put_state", 200), ("vmm_get_state", 404)]
    assert len(tape.left_out) == 1


def test_requests_to_other_sleds_are_told_also_if_nothing_else_is_left_out():
    tape = made(STOP, asked("vmm_get_state", of=SLED_B))
    assert ops(tape) == [("vmm_put_state", 200)]
    [said] = tape.left_out
    assert said.endswith(str(SLED_B))
    assert ops(made(STOP, asked("vmm_get_state", of=SLED_B), sled_id=str(SLED_B))) == [("vmm_get_state", 200)]


def test_only_a_request_of_another_version_says_its_version():
    tape = made(STOP, STOP, asked("vmm_put_state", "PUT", version="47.0.0", body={}))
    assert tape.rows[0]["api_version"] == "48.0.0"
    assert [row.get("headers") for row in tape.rows[1:]] == [None, None, {"api-version": "47.0.0"}]


@pytest.mark.parametrize("body", [{"body_missing": True}, {"body": {"a": "${x}"}}, {"body_text": "${"}])
def test_a_body_that_a_player_cannot_send_is_left_out(body):
    tape = made(STOP, asked("x", "PUT", **body))
    assert len(tape.rows) == 2
    assert tape.left_out[0].startswith(f"here:2: PUT /vmms/{V1}/state: its body is")


def test_without_a_request_there_is_no_tape():
    with pytest.raises(NoTape, match="no request to a sled is recorded"):
        made()
    with pytest.raises(NoTape, match=f"there are requests to {SLED_A}"):
        made(STOP, sled_id=str(UUID(int=9)))
