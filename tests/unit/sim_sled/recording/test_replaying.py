"""Of a replay: both sides are compared whole, and what a shell did beside turns is done again."""

from uuid import UUID

import pytest
from support.rack.driving import ACK, SLED_A, SLED_B, V1
from support.rows import in_one_test

from nexus_client.types import SledVmmState, VmmRuntimeState, VmmState, time_of
from propolis_stub.migration.script import NO_BAGGAGE
from sim_sled.core.config import SledConfig
from sim_sled.core.crucible.agent import Missing
from sim_sled.engine.plans import Publication
from sim_sled.language.check import parse_scenario
from sim_sled.language.pacer import PresetPacer
from sim_sled.play.calls import Answered, Send, Step
from sim_sled.recording.forms import form
from sim_sled.recording.lines import Header, Owned, Turn, joins, keeps, leaves
from sim_sled.recording.replaying import CannotReplay, Desk, Player, rack_of
from sim_sled.recording.scribe import Scribe

RULES = "version: 1\nname: r\nfleet: {sleds: 1}\nagent: {retry: {first: 3s, factor: 4, max: 50s}}\n"


def header(**more):
    return Header(
        recording=3,
        of="this",
        part=1,
        sleds=form((SledConfig(SLED_A),)),
        pacer=form(PresetPacer("instant")),
        sled_pacer=form(PresetPacer("instant")),
        companions=True,
        **more,
    )


def compared(recorded, replayed, *, told=(), tells=()):
    player = Player()
    turn = Turn(at=1, item=form(Step()), out=list(recorded), told=list(told))
    player.compare("here:1", turn, (list(replayed), list(tells)))
    return player.difference


@in_one_test(
    ("recorded", "replayed", "number"),
    [
        pytest.param([1, 2], [1, 3], 2, id="another one"),
        pytest.param([1, 2], [1], 2, id="one less"),
        pytest.param([1], [1, 2], 2, id="one more"),
        pytest.param([], [None, 2], 2, id="one more, behind what says nothing"),
    ],
)
def test_effects_are_compared_one_by_one_on_both_sides(recorded, replayed, number):
    assert compared(recorded, recorded) is None
    assert compared(recorded, replayed).number == number


@pytest.mark.parametrize("tells", [[["rule", "b"]], [], [["rule", "a"], ["rule", "a"]]])
def test_what_rules_tell_is_compared_by_what_it_says(tells):
    assert compared([], [], told=[["rule", "a"]], tells=[["rule", "a"]]) is None
    assert compared([], [], told=[["rule", "a"]], tells=tells).number == 0


def test_an_owner_that_is_asked_twice_answers_in_the_order_of_the_record():
    desk = Desk([Owned(V1, "pack history", "first"), Owned(V1, "pack history", "then")])
    witness = desk.baggage(SLED_A, V1)
    said = [desk.asked(witness, "pack history", lambda owner: owner is NO_BAGGAGE) for _ in range(3)]
    assert said == ["first", "then", True]


BODY = SledVmmState(VmmRuntimeState(VmmState.RUNNING, 3, time_of(0)))


def send(number):
    return Send(Publication(SLED_A, V1, BODY, 0, number), BODY, answered=True)


def test_a_report_is_answered_once_and_forgotten():
    rack = rack_of(header(), None)
    rack.sends[0] = send(0)
    answer = {"~": "Answered", "send": 0, "outcome": form(ACK)}
    assert rack.input(answer).outcome == ACK
    with pytest.raises(CannotReplay, match="report 0, which was not sent"):
        rack.input(answer)


def test_the_scribe_forgets_a_report_when_it_is_answered_and_counts_on():
    scribe = Scribe()
    for number in range(3):
        one = send(number)
        lost = Send(one.publication, BODY, answered=False)
        scribe.turn(1, form(Step()), [one, lost])
        assert list(scribe.sends) == [2 * number, 2 * number + 1]
        for each in (one, lost):
            scribe.input(Answered(each, ACK))
        assert scribe.sends == {}
    assert scribe.sent == 6


def test_what_is_said_in_a_turn_stands_in_its_line_only():
    scribe = Scribe()
    scribe.tell("rule", None, "sled-1", "late")
    assert b"late" in bytes(scribe.turn(1, form(Step()), []))
    assert b"late" not in bytes(scribe.turn(2, form(Step()), []))


def test_what_an_earlier_process_left_of_a_sled_is_there():
    rack = rack_of(header(), None)
    rack.do(keeps(SLED_A, {"other": {"a": 1}}), 1)
    assert rack.passage.rack.sleds[SLED_A].estate.kept["other"] == {"a": 1}


def test_a_sled_that_leaves_takes_its_crucible_agents_along():
    rack = rack_of(header(), None)
    rack.do(joins(SledConfig(SLED_B), "b"), 1)
    config = rack.passage.rack.sleds[SLED_B].config
    dataset = config.hardware.crucible_datasets_of(SLED_B)[0].dataset_id
    assert rack.agents.agent(dataset)
    rack.do(leaves(SLED_B), 2)
    assert SLED_B not in rack.passage.rack.sleds
    with pytest.raises(Missing):
        rack.agents.agent(dataset)


def test_a_sled_that_joins_tries_again_as_the_rules_say():
    scenario, problems = parse_scenario(RULES)
    assert scenario is not None, problems.text()
    rack = rack_of(header(scenario=form(scenario)), None)
    rack.do(joins(SledConfig(SLED_B), "b"), 1)
    policies = [sled.outbox.policy for sled in rack.passage.rack.sleds.values()]
    assert policies[0] == policies[1]
    assert policies[0].initial_us == 3_000_000


@pytest.mark.parametrize(
    "did",
    [
        {"kind": "dances"},
        {"kind": "leaves", "sled_id": str(UUID(int=9))},
        {"kind": "joins", "config": 5, "name": "x"},
    ],
)
def test_what_cannot_be_done_is_said(did):
    with pytest.raises(CannotReplay):
        rack_of(header(), None).do(did, 1)
