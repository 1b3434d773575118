"""The fleet of a scenario as sleds of a rack: ids, hardware, outboxes, and which rules mean which sled.

Read before: language/schema.py, core/config.py. Read next: play/conductor.py, recording/replaying.py.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

from nexus_client.backoff import Policy
from nexus_client.outbox import Outbox
from nexus_client.stub.config import Config, SagaMode
from nexus_client.stub.hazards import DEFAULT, Hazard
from nexus_client.stub.rules import RuleSet
from nexus_client.types import SledCpuFamily, SledRole
from sim_sled.core.config import SECOND_US, Hardware, SledConfig
from sim_sled.engine.engine import Engine
from sim_sled.language.actions import SetFacts
from sim_sled.language.check import parse_scenario, sleds_of
from sim_sled.language.figures import FOREVER
from sim_sled.language.schema import Fleet, Scenario, Shape, paced

NAMESPACE: Final = UUID("5d1f3c1e-9f0a-5b7c-8a63-2f1d8f6d3a10")


class NotInFleet(ValueError):
    """There are more sleds than the scenario's fleet has, or none of that name."""


def hardware_of(shape: Shape) -> Hardware:
    """What a sled of this shape says it is made of."""
    return Hardware(
        hardware_threads=shape.cpus,
        physical_ram=shape.ram,
        reservoir_size=shape.reservoir,
        zpools=shape.zpools,
        cpu_family=SledCpuFamily(shape.cpu_family),
        role=SledRole(shape.role),
        baseboard_model=shape.model,
    )


def is_shaped(fleet: Fleet) -> bool:
    """Whether the scenario says what its sleds are made of."""
    return fleet.has("shape") or bool(fleet.overrides)


def ids_of(scenario: Scenario) -> dict[str, UUID]:
    """The ids of the fleet's sleds by name: the same name is the same sled in every run."""
    return {sled.name: uuid5(NAMESPACE, f"sled/{sled.name}") for sled in sleds_of(scenario.fleet)}


def configs_of(scenario: Scenario, address: str | None = None) -> list[SledConfig]:
    """The fleet's sleds in order. `address`: where each listens; None: an underlay address each (virtual time)."""
    ids = ids_of(scenario)
    return [
        SledConfig(
            ids[sled.name],
            f"[fd00:1122:3344:{0x101 + i:x}::1]:12345" if address is None else address,
            hardware=hardware_of(sled.shape),
            stop_grace_us=scenario.agent.stop_grace,
            recheck_us=None if scenario.agent.recheck >= FOREVER else max(SECOND_US, scenario.agent.recheck),
            stop_before_start="stop_before_start" in scenario.agent.hazards,
        )
        for i, sled in enumerate(sleds_of(scenario.fleet))
    ]


@lru_cache(maxsize=8)
def _policy(initial_us: int, multiplier_percent: int, max_us: int) -> Policy:
    """One for all sleds of a fleet: it has a table in it."""
    return Policy(initial_us, multiplier_percent, max_us)


def outbox_of(scenario: Scenario, seed: int) -> Outbox:
    """The outbox that `agent.retry` asks for."""
    retry = scenario.agent.retry
    first = max(1, retry.first)
    return Outbox(policy=_policy(first, max(101, round(retry.factor * 100)), max(first, retry.max)), seed=seed)


def model_of(scenario: Scenario, variant: str | None) -> Config:
    """The model of Nexus beside a fleet, as the scenario has it. Queued: what lies between two nodes of a saga shows,
    and reports and users can come between.
    """
    named = scenario.nexus.hazards
    hazards = DEFAULT if named is None else frozenset(Hazard(name) for name in named if name != "none")
    rules = RuleSet(scenario.nexus.rules)
    return Config(
        rules=rules,
        hazards=hazards,
        variant=variant,
        saga_mode=SagaMode.QUEUED,
        saga_node_us=scenario.nexus.saga_node,
    )


def needs_servers(scenario: Scenario) -> bool:
    """Whether a scenario is about the servers beside its sleds: only then there are any."""
    facts = [action for rule in scenario.rules for action in rule.do if isinstance(action, SetFacts)]
    return bool(facts) or any(entry.task is not None for entry in scenario.load)


def engine_for(scenario: Scenario, seed: int, sled_ids: list[UUID], first_name: str | None = None) -> Engine:
    """The rules for these sleds: they play the fleet's sleds in order, from `first_name` on. Raises `NotInFleet`."""
    names = [sled.name for sled in sleds_of(scenario.fleet)]
    if first_name is not None:
        if first_name not in names:
            raise NotInFleet(f"the fleet has no sled {first_name!r}; it has {', '.join(names[:8])}")
        names = names[names.index(first_name) :]
    if len(sled_ids) > len(names):
        raise NotInFleet(f"the daemon has {len(sled_ids)} sleds, the scenario's fleet only {len(names)} to play")
    return Engine(scenario, seed, dict(zip(names, sled_ids, strict=False)))


def no_rules(seed: int, pace: str | None = None) -> Engine:
    """The engine of a daemon without a scenario, at its pace: who does one thing to one VM changes no other."""
    scenario, _ = parse_scenario("version: 1\nname: none\n")
    assert scenario is not None
    return Engine(paced(scenario, pace), seed, {})
