"""Known wrongs: the library's scenarios that show each, and `storm.yaml` with one at a time: which judge notices it,
and where the search begins.
"""

from pathlib import Path

import attrs

from nexus_client.stub.hazards import DEFAULT, Hazard
from sim_sled.campaign.explore import explore, place_of
from sim_sled.campaign.guide import OneByOne
from sim_sled.campaign.job import Job
from sim_sled.language.actions import Delay
from sim_sled.language.check import load_scenarios
from sim_sled.language.distribution import Fixed
from sim_sled.language.schema import Agent, Nexus
from sim_sled.play.many import Task
from sim_sled.play.run import How, play
from sim_sled.play.shrink import shrink

FOLDER = Path(__file__).parents[2] / "scenarios"


def scenario_of(name):
    [loaded], problems = load_scenarios([str(FOLDER / f"{name}.yaml")])
    assert loaded.scenario is not None, problems.text()
    return loaded.scenario


def with_nexus(*hazards):
    return lambda scenario: attrs.evolve(
        scenario, nexus=attrs.evolve(scenario.nexus, hazards=tuple(hazard.value for hazard in hazards))
    )


def with_agent(scenario):
    return attrs.evolve(scenario, agent=Agent(hazards=("stop_before_start",)))


SHOWN = [
    ("target-lost", with_nexus(*DEFAULT, Hazard.PANIC_WITHOUT_TARGET), "started-again"),
    ("stop-overruled", with_nexus(Hazard.START_OVERRULES_STOP), "stays-as-its-user-wants"),
    ("stop-before-start", with_agent, "others-live-on"),
    ("both-sleds-lost", with_nexus(Hazard.LATE_HALF_STOPS_FAILED), "started-again"),
    ("stop-in-migration", with_nexus(Hazard.STOP_LOST_IN_MIGRATION), "is-stopped"),
    ("failed-still-checked", with_nexus(Hazard.CHECKS_WHAT_IS_OVER), "known-to-be-over"),
]

LATE_S = 10
"""So late may a user or a sled be on a busy machine."""


def on_the_wall(scenario):
    """As it is played on the wall clock: the gap of `stop-before-start` is wide enough for those who are late.

    The stop comes in the middle of it.
    """
    if scenario.name != "stop-before-start":
        return scenario
    [rule] = scenario.rules
    gap = Delay(Fixed(2 * LATE_S * 1_000_000))
    *others, stop = scenario.load
    later = attrs.evolve(stop, at=stop.at + LATE_S * 1_000_000)
    return attrs.evolve(scenario, rules=(attrs.evolve(rule, do=(gap,)),), load=(*others, later))


STORM = Path(__file__).with_name("storm.yaml")
STOP_BEFORE_START = "stop_before_start"
SEEDS_MAX = 200
"""Within so many a hazard is found."""
SLEDS_MAX, VMMS_MAX = 2, 3
"""To so little it is reduced."""
_AT_ONCE = 10
"""Seeds between two looks at what was noticed."""


@attrs.frozen
class Prey:
    """A hazard of `storm.yaml`. `key`: the judge that must notice it; `pinned`: a seed of the first 200 with which it
    does.
    """

    name: str
    key: str
    pinned: int
    saga_node: int = Nexus().saga_node
    """Microseconds of a node of a saga: how wide its windows are."""


PREY = (
    Prey(Hazard.PANIC_WITHOUT_TARGET.value, "final_state_acked", 0),
    Prey(Hazard.LATE_HALF_STOPS_FAILED.value, "wishes_kept", 0),
    Prey(Hazard.START_OVERRULES_STOP.value, "wishes_kept", 61),
    Prey(STOP_BEFORE_START, "agents_live", 0),
    Prey(Hazard.STOP_LOST_IN_MIGRATION.value, "wishes_kept", 2),
    Prey(Hazard.CHECKS_WHAT_IS_OVER.value, "over_left_alone", 2),
    Prey(Hazard.FAILS_UNREGISTERED.value, "nexus_properties/37", 0, saga_node=500_000),
)


def storm(prey=None):
    """The churn, with one hazard or none."""
    [loaded], problems = load_scenarios([str(STORM)])
    assert loaded.scenario is not None, problems.text()
    if prey is None:
        return loaded.scenario
    if prey.name == STOP_BEFORE_START:
        return attrs.evolve(loaded.scenario, agent=Agent(hazards=(prey.name,)))
    return attrs.evolve(loaded.scenario, nexus=Nexus(hazards=(prey.name,), saga_node=prey.saga_node))


def sightings(prey, first, runs, jobs=1):
    """The seeds with which the judge notices it, in order; what others notice before does not count."""
    job = Job("storm.yaml", storm(prey), How())
    place = place_of(job, jobs)
    try:
        for begin in range(first, first + runs, _AT_ONCE):
            some = min(_AT_ONCE, first + runs - begin)
            group = explore(job, OneByOne(begin), some, place, stop_after=some).groups.get(prey.key)
            yield from () if group is None else group.seeds
    finally:
        place.close()


def found(prey, first, runs):
    """The first such seed, or None."""
    return next(sightings(prey, first, runs), None)


def shows(prey, small):
    """Whether what it was reduced to is seen with the hazard, and not without it."""
    nexus = attrs.evolve(small.scenario.nexus, hazards=storm().nexus.hazards)
    without = attrs.evolve(small.scenario, nexus=nexus, agent=Agent())

    def seen(scenario):
        return any(failure.key == prey.key for failure in play(scenario, small.seed, How(keep=False)).failures)

    return seen(small.scenario) and not seen(without)


def reduced(prey, seed):
    """The smallest scenario that still shows it."""
    return shrink(Task("storm.yaml", storm(prey), seed, How()), prey.key)
