"""The conductor as a pure core: how requests end that rules delay, hang, fail or cut off; what becomes of reports."""

import attrs
import pytest
from support.rack.driving import ACK, RUNNING, SECOND, SLED_A, T0, V1, registration
from support.rows import in_one_test

from nexus_client.outbox import Transient
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.errors import SledError
from sim_sled.engine.plans import CLIENT_LOST_US, Overrun
from sim_sled.language.check import parse_scenario
from sim_sled.language.pacer import PresetPacer
from sim_sled.play import conductor as conducting
from sim_sled.play.calls import (
    STEP,
    Answered,
    Begin,
    Call,
    Carried,
    Due,
    Ended,
    Failed,
    Load,
    Lost,
    Refused,
    Send,
)
from sim_sled.play.conductor import Conductor
from sim_sled.play.fleet import engine_for, no_rules

HEAD = "version: 1\nname: x\nfleet: {sleds: 1}\nlatency: {preset: instant}\n"
DOWN = "- {name: off, for: {sled: sled-1}, when: {at: 1s}, do: {reboot_sled: {down: 5s}}}"
PATIENCE_US, SILENCE_US = 60 * SECOND, 65 * SECOND


def scenario_of(*rules, more=""):
    text = "".join(f"{rule}\n" for rule in rules)
    scenario, problems = parse_scenario(HEAD + more + (f"rules:\n{text}" if rules else ""))
    assert scenario is not None, problems.text()
    return scenario


@attrs.define
class World:
    """A conductor of one sled, on a clock that the test moves. `seen`: effects, with microseconds from the start."""

    core: Conductor
    now_us: int = 0
    told: list = attrs.field(factory=list)
    seen: list = attrs.field(factory=list)

    @classmethod
    def of(cls, *rules, patient=True, more="", scenario=True):
        engine = engine_for(scenario_of(*rules, more=more), 1, [SLED_A]) if scenario else no_rules(1)
        world = cls(None)
        world.core = Conductor(
            engine,
            1,
            world,
            PresetPacer("instant", 1),
            patience_us=PATIENCE_US if patient else None,
            silence_us=SILENCE_US,
            now_us=T0,
        )
        world.core.rack.add_sled(SledConfig(SLED_A, "[::1]:12345"))
        world.put(Begin())
        return world

    def put(self, item):
        self.seen += [(self.now_us, effect) for effect in self.core.handle(item, T0 + self.now_us)]

    def until(self, now_us):
        """Time passes; whatever is due happens at its time."""
        while (due_us := self.core.next_deadline_us()) is not None and due_us <= T0 + now_us:
            self.now_us = max(self.now_us, due_us - T0)
            self.put(STEP)
        self.now_us = now_us

    def register(self, key=1):
        self.put(Call(key, "vmm_register", contract.Register(key, SLED_A, V1, registration())))

    def run(self, key=2):
        self.put(Call(key, "vmm_put_state", contract.PutState(key, SLED_A, V1, RUNNING)))

    def ends(self):
        """(microseconds, key, how) of every call that is over."""
        return [(at, one.call.key, one.ending) for at, one in self.seen if isinstance(one, Ended)]

    def end(self):
        [(at, _, ending)] = self.ends()
        return at, ending

    def sends(self):
        return [one for _, one in self.seen if isinstance(one, Send)]

    # what the conductor tells
    def happened(self, happening, who, /): ...
    def carried(self, call, ending, who, /): ...
    def lost(self, who, /):
        self.told.append(("lost", who.hostname))

    def tell(self, kind, who, sled, text, /):
        self.told.append((kind, text))


def test_without_rules_a_request_passes_straight_through():
    world = World.of(scenario=False)
    world.register()
    at, ending = world.end()
    assert (at, type(ending)) == (0, Carried)


def test_a_request_that_was_delayed_past_the_fall_of_its_sled_is_reset():
    world = World.of("- {name: slow, when: {request: vmm_register}, do: {delay: 3s}}", DOWN)
    world.register()
    world.until(10 * SECOND)
    assert world.end() == (3 * SECOND, Lost.RESET)
    assert V1 not in world.core.rack.sleds[SLED_A].vmms


def test_one_that_was_delayed_and_meets_its_sled_is_carried_out():
    world = World.of("- {name: slow, when: {request: vmm_register}, do: {delay: 3s}}")
    world.register()
    world.until(10 * SECOND)
    at, ending = world.end()
    assert (at, type(ending)) == (3 * SECOND, Carried)
    assert V1 in world.core.rack.sleds[SLED_A].vmms


def test_a_sled_that_is_down_refuses_connections():
    world = World.of(DOWN)
    world.until(2 * SECOND)
    world.register()
    assert world.end() == (2 * SECOND, Lost.REFUSED)


@pytest.mark.parametrize(("patient", "at"), [(True, PATIENCE_US), (False, SILENCE_US)])
def test_a_request_whose_answer_is_lost_is_carried_out_and_ends_when_its_caller_gives_up(patient, at):
    cut = "- {name: cut, for: {sled: sled-1}, when: {at: 0s}, do: {partition: {from: nexus, direction: out}}}"
    world = World.of(cut, patient=patient)
    world.until(0)
    world.register()
    world.until(0)
    assert V1 in world.core.rack.sleds[SLED_A].vmms
    assert world.ends() == []
    world.until(100 * SECOND)
    assert world.end() == (at, Lost.NO_ANSWER if patient else Lost.CLOSED)


@pytest.mark.parametrize("patient", [True, False])
def test_a_request_that_reaches_nobody_is_kept_as_long_as_silence_is(patient):
    cut = "- {name: cut, for: {sled: sled-1}, when: {at: 0s}, do: {partition: {from: nexus, direction: in}}}"
    world = World.of(cut, patient=patient)
    world.until(0)
    world.register()
    assert world.ends() == []
    world.until(100 * SECOND)
    assert world.end() == (SILENCE_US, Lost.SILENT)


@in_one_test(
    ("lasts", "patient", "end"),
    [
        ("5s", True, (5 * SECOND, Lost.CLOSED)),
        ("forever", True, (PATIENCE_US, Lost.NO_ANSWER)),
        ("forever", False, (SILENCE_US, Lost.CLOSED)),
        ("2m", True, (PATIENCE_US, Lost.NO_ANSWER)),
    ],
)
def test_a_request_that_hangs_ends_once(lasts, patient, end):
    world = World.of(f"- {{name: h, when: {{request: vmm_register}}, do: {{hang: {lasts}}}}}", patient=patient)
    world.register()
    world.until(200 * SECOND)
    assert world.end() == end
    assert ("request", "vmm_register hangs") in world.told
    assert world.core.rack.sleds[SLED_A].vmms == {}


def test_a_rule_answers_after_its_delay_and_nothing_is_carried_out():
    world = World.of("- {name: f, when: {request: vmm_register}, do: [{delay: 2s}, {fail: 507}]}")
    world.register()
    world.until(10 * SECOND)
    at, ending = world.end()
    assert (at, type(ending), ending.fail.status) == (2 * SECOND, Failed, 507)
    assert world.core.rack.sleds[SLED_A].vmms == {}


def test_a_vm_whose_registration_was_refused_is_unknown_to_the_rules_until_it_comes_again():
    world = World.of("- {name: f, when: {request: vmm_register}, times: 1, do: {fail: 503}}")
    world.register(1)
    world.until(SECOND)
    assert world.core.engine.cast.subjects[V1].gone
    world.register(2)
    world.until(2 * SECOND)
    assert not world.core.engine.cast.subjects[V1].gone


def test_the_sleds_own_refusal_is_the_end_of_a_call_and_of_nothing_else():
    world = World.of()
    world.run()
    world.until(SECOND)
    _, ending = world.end()
    assert isinstance(ending, Refused)
    with pytest.raises(SledError):  # an input to which nobody waits as a caller tells whoever gave it
        world.core.handle(contract.PutState(9, SLED_A, V1, RUNNING), T0 + SECOND)


def running():
    world = World.of("- {name: twice, when: {publish: running}, do: {duplicate: {copies: 1, gap: 0s}}}")
    world.register()
    world.run()
    world.until(0)
    return world


def test_a_copy_of_a_report_is_sent_and_its_answer_is_nobodys():
    world = running()
    first, copy = sorted(world.sends(), key=lambda send: not send.answered)
    assert (first.answered, copy.answered) == (True, False)
    before = world.core.on_the_way
    world.put(Answered(copy, Transient("503")))
    assert world.core.on_the_way == before
    world.put(Answered(first, ACK))
    world.until(SECOND)
    assert world.core.rack.sleds[SLED_A].vmms[V1].acked is not None


def test_a_report_whose_answer_is_lost_is_given_up_as_long_as_a_client_waits():
    cut = "- {name: cut, for: {sled: sled-1}, when: {state: running}, do: {partition: {from: nexus, direction: in}}}"
    world = World.of(cut)
    world.register()
    world.run()
    world.until(0)
    send = world.sends()[-1]
    assert send.answer_lost
    world.put(Answered(send, ACK))
    sled = world.core.rack.sleds[SLED_A]
    world.until(CLIENT_LOST_US - 1)
    sent = len(world.sends())
    assert sled.vmms[V1].acked is None
    world.until(CLIENT_LOST_US + SECOND)
    assert len(world.sends()) > sent  # the sled takes it for lost and sends again


def test_what_is_put_on_its_way_arrives_at_its_time_and_what_is_given_now_at_once():
    world = World.of()
    world.core.put(SECOND, Due("way"))
    world.put(Due("at once"))
    world.until(2 * SECOND)
    assert [(at, one.what) for at, one in world.seen if isinstance(one, Due)] == [(0, "at once"), (SECOND, "way")]


def test_a_snapshot_is_a_line_in_every_world():
    world = World.of("- {name: s, when: {state: running}, do: {snapshot: here}}")
    world.register()
    world.run()
    world.until(SECOND)
    assert ("snapshot", "here: 1 VMMs, 0 reports held; v1=running") in world.told


def test_at_one_moment_rules_come_before_sleds():
    slow = "- {name: slow, when: {edge: starting -> running}, do: {delay: 1s}}"
    stall = "- {name: stall, for: {hostname: '*'}, when: {at: 1s}, do: {stall: 5s}}"
    world = World.of(slow, stall)
    world.register()
    world.run()
    world.until(3 * SECOND)
    assert world.core.engine.cast.subjects[V1].truth == "starting"
    world.until(7 * SECOND)
    assert world.core.engine.cast.subjects[V1].truth == "running"


def test_there_is_a_bound_to_what_is_on_its_way(monkeypatch):
    world = World.of()
    monkeypatch.setattr(conducting, "ON_THE_WAY_MAX", 2)
    world.core.put(1, Due("a"))
    world.core.put(1, Due("b"))
    with pytest.raises(Overrun, match="more than 2 things"):
        world.core.put(1, Due("c"))


def test_rules_that_come_later_know_the_vms_that_are_there_and_the_time_that_has_passed():
    world = World.of(scenario=False)
    world.register()
    world.run()
    world.until(SECOND)
    rule = "- {name: r, for: {sled: sled-1, state: running}, when: {at: 2s}, do: {note: seen}}"
    world.put(Load(scenario_of(rule, more="agent: {retry: {first: 7s, factor: 1, max: 7s}}\n")))
    assert world.core.engine.cast.subjects[V1].truth == "running"
    assert world.core.rack.sleds[SLED_A].outbox.policy.initial_us == 7 * SECOND
    world.until(10 * SECOND)
    assert ("note", "seen") in world.told


def test_a_vm_that_a_rule_makes_the_agent_forget_is_lost():
    world = World.of("- {name: f, when: {state: running}, do: {forget_vmm: true}}")
    world.register()
    world.run()
    world.until(SECOND)
    assert next(text for kind, text in world.told if kind == "lost") == "the agent has forgotten it"
    assert world.core.engine.cast.subjects[V1].gone


def test_a_wish_that_the_rack_refuses_is_told_of_its_rule():
    world = World.of("- {name: k, when: {state: running}, do: [{forget_vmm: true}, {kill_propolis: true}]}")
    world.register()
    world.run()
    world.until(SECOND)
    assert list(world.core.engine.counters["k"].futile) == ["kill_propolis"]
    assert world.core.engine.counters["k"].worked == {"forget_vmm"}
