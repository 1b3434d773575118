"""A rack without a scenario has no conductor; the rack that it gets one for is the same one."""

import attrs
import pytest
from support.rack.driving import ACK, RUNNING, SECOND, SLED_A, SLED_B, T0, V1, registration
from support.rows import in_one_test

from nexus_client.types import VmmState
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.errors import SledError, SledGone
from sim_sled.core.happenings import Kind
from sim_sled.language.check import parse_scenario
from sim_sled.language.pacer import PresetPacer
from sim_sled.play.calls import STEP, Begin, Call, Carried, Ended, Load, Lost, Send
from sim_sled.play.passage import Passage

SLOW = (
    "version: 1\nname: x\nfleet: {sleds: 1}\nlatency: {preset: instant}\nrules:\n"
    "- {name: slow, when: {state: stopping}, do: {delay: 40s}}\n"
)


@attrs.define
class World:
    """A passage of one sled, its watcher."""

    passage: Passage = None
    now_us: int = T0
    effects: list = attrs.field(factory=list)
    seen: list = attrs.field(factory=list)

    @classmethod
    def of(cls, **more):
        world = cls()
        world.passage = Passage(None, 1, world, PresetPacer("instant", 1), **more)
        world.passage.rack.add_sled(SledConfig(SLED_A, "[::1]:12345"))
        return world

    def put(self, item):
        done = [*self.passage.run(item, self.now_us)]
        self.effects += done
        for each in done:
            if isinstance(each, contract.PutToNexus):  # Nexus takes everything
                self.put(contract.NexusReplied(each.sled_id, each.propolis_id, each.serial, ACK))
        return done

    def running(self):
        self.put(contract.Register(1, SLED_A, V1, registration()))
        self.put(contract.PutState(2, SLED_A, V1, RUNNING))
        self.pass_by(SECOND)

    def pass_by(self, us):
        """So much time, and whatever is due in it."""
        until_us = self.now_us + us
        while (due_us := self.passage.next_deadline_us()) is not None and due_us <= until_us:
            self.now_us = max(self.now_us, due_us)
            self.put(STEP)
        self.now_us = until_us

    @property
    def vmm(self):
        return self.passage.rack.sleds[SLED_A].vmms[V1]

    # what the passage tells
    def happened(self, happening, who, /):
        self.seen.append((happening.kind, who))

    def tell(self, *_): ...
    def carried(self, *_): ...
    def lost(self, *_): ...


def load(text=SLOW):
    scenario, problems = parse_scenario(text)
    assert scenario is not None, problems.text()
    return Load(scenario)


def leaves(world):
    """As a daemon has a sled leave."""
    for propolis_id in list(world.passage.rack.sleds[SLED_A].vmms):
        world.put(contract.ForgetVmm(99, SLED_A, propolis_id))
    world.passage.rack.remove_sled(SLED_A, world.now_us)
    world.passage.leave(SLED_A)


def test_everything_passes_straight_through_and_nobody_conducts():
    world = World.of()
    world.running()
    assert world.vmm.state is VmmState.RUNNING
    assert {type(effect) for effect in world.effects} <= {contract.Reply, contract.PutToNexus}
    assert Kind.REGISTERED in {kind for kind, _ in world.seen}
    assert not world.passage.has_rules
    assert world.passage.who(V1) is None
    assert world.passage.name_of(SLED_A) is None
    assert world.passage.fired() == {}
    assert world.passage._conductor is None


def test_a_refusal_passes_too():
    with pytest.raises(SledError):
        World.of().put(contract.GetState(1, SLED_A, V1))


def test_a_step_before_anything_is_due_does_nothing():
    world = World.of()
    assert world.put(STEP) == []


def test_nothing_is_told_if_nobody_watches_until_there_are_rules():
    world = World.of(watched=False)
    world.running()
    assert world.seen == []
    world.put(load())
    world.put(Call(3, "vmm_put_state", contract.PutState(3, SLED_A, V1, RUNNING)))
    assert world.seen


def test_rules_that_come_later_mean_the_vmms_that_are_there():
    world = World.of()
    world.put(Begin())
    world.running()
    rack, vmm = world.passage.rack, world.vmm
    world.put(load())
    assert (world.passage.has_rules, world.passage.rack, world.vmm) == (True, rack, vmm)
    assert world.passage.who(V1).hostname == vmm.about.hostname
    assert world.passage.name_of(SLED_A) == "sled-1"
    world.put(contract.InjectGuest(4, SLED_A, V1, contract.GuestEvent.HALT))
    world.pass_by(39 * SECOND)
    assert world.vmm.state is VmmState.STOPPING
    world.pass_by(2 * SECOND)
    assert Send in {type(effect) for effect in world.effects}, "reports go the way of rules"
    assert world.passage.fired() == {"slow": 1}


def test_a_conductor_knows_when_scenario_time_began_before_it():
    world = World.of()
    world.put(Begin())
    world.now_us += 5 * SECOND
    assert world.passage.begun
    assert (world.passage.conductor.begun, world.passage.conductor.engine.start_us) == (True, T0)
    assert world.passage.conductor is world.passage.conductor
    assert not World.of().passage.conductor.begun


def test_a_sled_that_leaves_is_meant_no_more():
    world = World.of()
    world.passage.leave(SLED_A)
    world.put(load())
    world.passage.leave(SLED_A)
    assert world.passage.name_of(SLED_A) is None


LATE = SLOW.partition("- {name")[0].replace("sleds: 1", "sleds: 2") + "- {name: late, when: WHEN, do: DO}\n"


def late(when, do):
    return load(LATE.replace("WHEN", when).replace("DO", do))


def of_two_sleds():
    world = World.of()
    world.passage.rack.add_sled(SledConfig(SLED_B, "[::1]:12346"))
    return world


@in_one_test(
    "action",
    [
        "{set_state: failed}",
        "{kill_propolis: {restart: true}}",
        "{kill_propolis: {}}",
        "{forget_vmm: {}}",
        "{guest: halt}",
        "{stall: 1s}",
        "{clock: {jump: 1s}}",
        "{restart_agent: {down: 1s}}",
        "{reboot_sled: {down: 1s}}",
        "{power_off_sled: {lasts: 1s}}",
        "{expunge_sled: {}}",
        "{set: {boot_slot: b}}",
    ],
)
def test_what_a_rule_was_about_to_do_to_a_sled_that_has_left_comes_to_nothing(action):
    world = of_two_sleds()
    world.put(late("{state: running}", f"[{{delay: 5s}}, {action}]"))
    world.put(Begin())
    world.put(Call(1, "vmm_register", contract.Register(1, SLED_A, V1, registration())))
    world.put(Call(2, "vmm_put_state", contract.PutState(2, SLED_A, V1, RUNNING)))
    world.pass_by(SECOND)
    assert world.passage.fired() == {"late": 1}
    leaves(world)
    assert world.passage.who(V1).gone
    world.pass_by(20 * SECOND)
    assert world.passage.next_deadline_us() is None, "nothing is left to be done"


def test_a_request_that_a_rule_holds_up_is_cut_off_when_its_sled_leaves():
    world = of_two_sleds()
    world.put(late("{request: vmm_put_state}", "{delay: 5s}"))
    world.put(contract.Register(1, SLED_A, V1, registration()))
    world.put(Call(3, "vmm_put_state", contract.PutState(3, SLED_A, V1, RUNNING)))
    leaves(world)
    world.pass_by(6 * SECOND)
    assert [each.ending for each in world.effects if isinstance(each, Ended)] == [Lost.RESET]


def test_an_answer_that_is_under_way_when_its_sled_leaves_arrives():
    world = of_two_sleds()
    world.put(late("{response: vmm_put_state}", "{delay: 5s}"))
    world.put(contract.Register(1, SLED_A, V1, registration()))
    world.put(Call(3, "vmm_put_state", contract.PutState(3, SLED_A, V1, RUNNING)))
    leaves(world)
    world.pass_by(6 * SECOND)
    assert [type(each.ending) for each in world.effects if isinstance(each, Ended)] == [Carried]


def test_at_a_sled_that_has_left_nobody_answers():
    world = of_two_sleds()
    leaves(world)
    with pytest.raises(SledGone):
        world.put(contract.GetState(1, SLED_A, V1))
    world.put(late("{state: running}", "{note: x}"))
    world.put(Call(3, "vmm_get_state", contract.GetState(3, SLED_A, V1)))
    assert [each.ending for each in world.effects if isinstance(each, Ended)] == [Lost.REFUSED]


def test_who_does_one_thing_to_one_vm_changes_the_pace_of_no_other():
    """A rule that came to a sled of another pace made all of its VMMs wait as `latency: dev` says."""
    passage = World.of().passage
    assert passage.base.preset == "instant"
    assert passage.conductor.engine.scenario.latency.preset == "instant"
