"""What was on its way to Nexus at a checkpoint is heard by the model, when it was answered in the record."""

import pytest
from msgspec.structs import replace
from support.rack.driving import ACK, DOWN, GONE, RUNNING, SLED_A, STOPPED, V1, V2, registration

from nexus_client.registration import Found, GetReplied, NotFound, PostReplied
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.daemon.checkpoint import resume, taken
from sim_sled.daemon.graph import program
from sim_sled.language.pacer import PresetPacer
from sim_sled.play.calls import STEP
from sim_sled.recording.forms import form
from sim_sled.recording.lines import IN_BETWEEN, RESTORED, Header, read
from sim_sled.recording.open_loop import open_loop
from sim_sled.recording.replaying import CannotReplay, rack_of, replay
from sim_sled.recording.scribe import Scribe

MS = 1_000
T0 = 1_700_000_000_000_000
CONFIG = SledConfig(SLED_A, recheck_us=60_000_000)


class Recorded:
    """A rack without rules and its recording, of which every line can be the last before a checkpoint."""

    def __init__(self):
        self.now_us = T0
        self._header = Header(
            recording=3,
            of="this",
            part=1,
            program=program(),
            sleds=form((CONFIG,)),
            pacer=form(PresetPacer("instant")),
            sled_pacer=form(PresetPacer("instant")),
        )
        self.rack = rack_of(self._header, None)
        self._scribe = Scribe()
        self.lines = [self._header]

    def does(self, item, after_ms=1):
        """One input, so long after the one before; returns its effects."""
        self.now_us += after_ms * MS
        told = self._scribe.input(item)
        effects = self.rack.passage.run(item, self.now_us)
        self.lines.append(read(bytes(self._scribe.turn(self.now_us, told, effects))))
        return effects

    def steps(self):
        """Whatever is due; returns what it has for Nexus."""
        found = []
        while (due_us := self.rack.passage.next_deadline_us()) is not None and due_us <= self.now_us + 10 * MS:
            found += self.does(STEP)
        return [each for each in found if type(each) is contract.PutToNexus]

    def state(self):
        """As a checkpoint's header has it."""
        state = taken(self.rack.passage, self.rack.desk, self._scribe.sends, self._scribe.sent)
        return replace(self._header, part=2, begins=IN_BETWEEN, state=state)

    def checkpoint(self):
        """A part with one begins."""
        self.lines.append(self.state())

    def restore(self, header):
        """What was since is undone."""
        self.rack = rack_of(header, None)
        resume(self.rack, header)
        self.lines.append(replace(header, begins=RESTORED))

    def from_checkpoint(self):
        """What is left when the part before has gone."""
        last = max(number for number, line in enumerate(self.lines) if isinstance(line, Header))
        return numbered(self.lines[last:])


def numbered(lines):
    return [(f"part-00001.jsonl:{number}", line) for number, line in enumerate(lines, 1)]


def opened(lines):
    return open_loop(lambda: iter(lines), resume)


def heard(put, outcome=ACK):
    return contract.NexusReplied(put.sled_id, put.propolis_id, put.serial, outcome)


def running(rack, vmm=V1):
    """The VMM is about to report that it runs; returns the report."""
    rack.does(contract.Register(1, SLED_A, vmm, registration(vmm)))
    rack.does(contract.PutState(2, SLED_A, vmm, RUNNING))
    [put] = rack.steps()
    return put


@pytest.fixture(name="rack")
def _rack():
    return Recorded()


def test_a_report_that_is_on_its_way_is_answered_and_its_vmm_goes_on(rack):
    put = running(rack)
    rack.checkpoint()
    rack.does(contract.PutState(3, SLED_A, V1, STOPPED))
    rack.steps()
    [after] = [each for each in rack.does(heard(put), 40) if type(each) is contract.PutToNexus]
    rack.does(heard(after), 5)
    found = opened(rack.from_checkpoint())
    assert found.departures == []
    assert found.reports == 1, "what waited behind the one that was on its way"
    assert found.ends[V1] == ("destroyed (gen 7)", "destroyed (gen 7)")


def test_a_report_that_is_on_its_way_is_answered_when_it_was(rack):
    put = running(rack)
    rack.checkpoint()
    rack.does(contract.GetState(3, SLED_A, V1))
    rack.does(heard(put, DOWN), 300)
    found = opened(rack.from_checkpoint())
    [departure] = found.departures
    assert departure.what == f"Nexus answers VMM {V1}, gen 3"
    assert (departure.recorded, departure.here) == ("transient", "delivered")
    assert departure.at_us == rack.now_us


def test_of_two_vmms_only_what_was_not_answered_before_is_asked_again(rack):
    first, second = running(rack), running(rack, V2)
    rack.does(heard(first))
    rack.checkpoint()
    rack.does(heard(second), 20)
    found = opened(rack.from_checkpoint())
    assert (found.departures, found.reports) == ([], 0)


REGISTERED = [GetReplied(NotFound()), PostReplied(ACK)]


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_a_sled_that_registers_goes_on_where_it_was(rack, answered):
    """It is asked for, then posted; and looked at again, a minute later, when the model must know it."""
    registering(rack, answered)
    rack.checkpoint()
    for each in REGISTERED[answered:]:
        rack.does(contract.RegistrationReplied(SLED_A, each), 10)
    rack.does(STEP, 60_001)
    registered = rack.rack.passage.rack.sleds[SLED_A].registration.stored
    rack.does(contract.RegistrationReplied(SLED_A, GetReplied(Found(registered))), 10)
    rack.does(STEP, 60_001)
    assert opened(rack.from_checkpoint()).departures == []


def registering(rack, answered):
    """A sled, and so many answers of Nexus to it."""
    rack.does(contract.Announce(SLED_A, rack.rack.passage.rack.sleds[SLED_A].info("[::1]:1", 2)))
    for each in REGISTERED[:answered]:
        rack.does(contract.RegistrationReplied(SLED_A, each), 10)


@pytest.mark.parametrize(("answered", "lost"), [(0, GetReplied(DOWN)), (1, PostReplied(DOWN))])
def test_what_a_sled_asks_at_a_checkpoint_is_answered_by_the_model(rack, answered, lost):
    registering(rack, answered)
    rack.checkpoint()
    rack.does(contract.RegistrationReplied(SLED_A, lost), 50)
    [departure] = opened(rack.from_checkpoint()).departures
    assert (departure.what, departure.recorded) == (f"Nexus answers sled {SLED_A}", "transient")
    assert departure.at_us == rack.now_us


def stopped(rack):
    """A VMM that runs has its end, and Nexus knows it."""
    rack.does(contract.PutState(3, SLED_A, V1, STOPPED))
    for put in rack.steps():
        for each in rack.does(heard(put), 5):
            if type(each) is contract.PutToNexus:
                rack.does(heard(each))


def test_a_snapshot_that_is_restored_begins_anew_also_for_the_model(rack):
    rack.does(heard(running(rack)))
    state = rack.state()
    stopped(rack)
    rack.restore(state)
    stopped(rack)
    whole = opened(numbered(rack.lines))
    rest = opened(rack.from_checkpoint())
    assert (whole.departures, rest.departures) == ([], [])
    assert whole.reports == 2 * rest.reports + 1
    assert whole.ends == rest.ends == {V1: ("destroyed (gen 7)", "destroyed (gen 7)")}
    assert whole.began_us < rest.began_us


def test_a_checkpoint_in_the_middle_is_passed_over(rack):
    put = running(rack)
    rack.checkpoint()
    rack.does(heard(put), 5)
    assert opened(numbered(rack.lines)).departures == []
    assert opened(numbered(rack.lines)).began_us == T0 + MS


def test_without_anybody_who_takes_up_a_checkpoint_it_is_refused_with_its_place(rack):
    rack.checkpoint()
    for plays in (replay, lambda lines: open_loop(lambda: iter(lines))):
        with pytest.raises(CannotReplay, match=r"^part-00001\.jsonl:1: it goes on from a checkpoint there"):
            plays(rack.from_checkpoint())


def test_of_a_vmm_that_goes_another_way_only_the_first_departure_is_told(rack):
    """What follows of it follows from that; another VMM's is told."""
    for put in (running(rack), running(rack, V2)):
        rack.does(heard(put, GONE), 20)
    rack.does(contract.PutState(3, SLED_A, V1, STOPPED))
    for put in rack.steps():
        rack.does(heard(put, GONE), 5)
    found = opened(numbered(rack.lines))
    assert sorted(each.what for each in found.departures) == [f"Nexus answers VMM {vmm}, gen 3" for vmm in (V1, V2)]


def test_a_time_of_day_in_an_answer_is_no_departure(rack):
    put = running(rack)
    rack.does(contract.GetState(3, SLED_A, V1))
    rack.does(heard(put))
    last = next(line for line in reversed(rack.lines) if "GetState" in str(line))
    told = last.out[0]["Reply"]["value"]["vmm_state"]
    told["time_updated"] = "2020-01-02T03:04:05.678Z"
    assert opened(numbered(rack.lines)).departures == []
    told["gen"] += 1
    assert [each.what for each in opened(numbered(rack.lines)).departures] == ["request 3 is answered"]
