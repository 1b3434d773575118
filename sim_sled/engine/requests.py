"""What becomes of a request of Nexus to a sled: rules, latencies, the agent's queue (SA 2.12).

Read before: engine/engine.py. Read next: play/conductor.py.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec.structs import asdict

from nexus_client.types import SledVmmState, UpdatedRuntime, VmmState
from propolis_stub.types import Role
from sim_sled.core import contract
from sim_sled.core.vmm import Vmm
from sim_sled.engine.cast import SledInfo, Subject
from sim_sled.engine.engine import Engine
from sim_sled.engine.plans import Event, RequestPlan
from sim_sled.language.actions import Fail
from sim_sled.language.distribution import drawn
from sim_sled.language.words import TRUTH_OF, On, Truth


def _meant(item: object) -> UUID | None:
    """The VMM of which an input of the rack is, also one that concerns its networks."""
    at = item.call if isinstance(item, contract.CallArea) else item
    propolis_id: UUID | None = getattr(at, "propolis_id", None)
    return propolis_id


def on_request(engine: Engine, item: Any, op: str, now_us: int) -> tuple[RequestPlan, Subject | None]:
    """Before `item` is carried out. A register makes the VMM known here, so that rules can mean it.

    Whoever carries the request out, or gives it up, says so by `done`.
    """
    sled = engine.cast.by_id[item.sled_id]
    plan = RequestPlan()
    propolis_id = _meant(item)
    who = engine.cast.who(propolis_id)
    if who is None and isinstance(item, contract.Register):
        who = _new_subject(engine, item, sled)
    elif who is not None and who.gone and isinstance(item, contract.Register):
        engine.cast.found(who)  # a saga that runs twice registers again
    engine.post.request_plan(sled, plan, now_us)
    if not plan.passes:
        return plan, who
    latency = engine.takes("request", op)
    if latency is not None:
        key = who.key if who is not None else sled.name
        nth = who.count(f"latency/{op}") if who is not None else 0
        plan.delay_us += drawn(latency, engine.seed, f"latency/{op}", key, nth)
    asked = item.requested.type.value if isinstance(item, contract.PutState) else None
    engine.happened(Event(On.REQUEST, (op,), asked, _body(engine, item)), who, sled, plan, now_us)
    if who is not None:
        if plan.passes and who.waiting >= engine.scenario.agent.queue:
            plan.delay_us = 0  # refused at the door
            plan.fail = Fail(status=503, code="INSTANCE_CHANNEL_FULL", message="Service Unavailable")
        who.waiting += 1
        if plan.passes and asked is not None and plan.delay_us == 0:
            who.asked = asked
    return plan, who


def carried(item: Any, who: Subject | None) -> None:
    """`item` is about to be given to the rack."""
    if who is not None and isinstance(item, contract.PutState):
        who.asked = item.requested.type.value


def done(who: Subject | None) -> None:
    """A request of `on_request` is off the agent's hands."""
    if who is not None:
        who.waiting -= 1


def given_up(engine: Engine, item: Any, who: Subject | None) -> None:
    """`item` will not be carried out. A VMM whose registration never came through is on no sled."""
    if who is not None and isinstance(item, contract.Register) and who.record is None:
        engine.lost(who)


def on_response(engine: Engine, item: Any, op: str, answer: object, now_us: int) -> int:
    """Before an answer goes out; returns how much later it shall. An answer with news tells Nexus the state."""
    propolis_id = _meant(item)
    who = engine.cast.who(propolis_id)
    body = answer.updated_runtime if isinstance(answer, UpdatedRuntime) else answer
    if who is not None and isinstance(body, SledVmmState):
        engine.post.asked(who, body)
    plan = RequestPlan()
    asked = item.requested.type.value if isinstance(item, contract.PutState) else None
    sled = engine.cast.by_id.get(item.sled_id)
    if sled is not None:  # else it has left before it answered
        engine.happened(Event(On.RESPONSE, (op,), asked), who, sled, plan, now_us)
    return plan.delay_us


def _new_subject(engine: Engine, item: contract.Register, sled: SledInfo, ordinal: int | None = None) -> Subject:
    about = item.body

    def make(ordinal: int, key: str) -> Subject:
        return Subject(
            propolis_id=item.propolis_id,
            ordinal=ordinal,
            key=key,
            sled=sled,
            instance_id=about.instance_id,
            hostname=about.hostname,
            ncpus=about.ncpus,
            memory=about.memory_mib * 2**20,
            project=_named(engine, about.project_id),
            silo=_named(engine, about.silo_id),
            truth=Truth.MIGRATING if about.vmm_runtime.state is VmmState.MIGRATING else Truth.CREATING,
            role=Role.TARGET if about.migration_id is not None else None,
            migration_id=about.migration_id,
        )

    who = engine.cast.add(make, about.hostname, ordinal)
    if who.role is Role.TARGET:
        for other in engine.cast.of_instance(who):
            if other is not who:
                other.role, other.migration_id = Role.SOURCE, about.migration_id
                other.fate = None
    return who


def adopt(engine: Engine, vmm: Vmm, ordinal: int | None) -> None:
    """Make a VMM known that was registered before there were rules, and maybe counted (`ordinal`); sleds that no rule
    can mean are left out.
    """
    sled = engine.cast.by_id.get(vmm.sled_id)
    if sled is None:
        return
    who = _new_subject(engine, contract.Register(0, vmm.sled_id, vmm.propolis_id, vmm.about), sled, ordinal)
    state = vmm.vm.state if vmm.vm is not None and not vmm.terminal else None
    who.truth = Truth(vmm.state.value) if state is None else TRUTH_OF[state]
    who.record, who.acked = vmm.record, vmm.acked


def _named(engine: Engine, key: UUID) -> tuple[str, ...]:
    name = engine.names.get(key)
    return (str(key),) if name is None else (str(key), name)


def _body(engine: Engine, item: Any) -> object:
    """The request's body as `when: {body: ...}` sees it, in the shape of the wire; made only if a rule asks."""
    if not engine.asks_bodies:
        return None
    if isinstance(item, contract.Register):
        about = item.body
        return {
            "instance_id": str(about.instance_id),
            "propolis_addr": about.propolis_addr,
            "migration_id": None if about.migration_id is None else str(about.migration_id),
            "local_config": {"hostname": about.hostname},
            "vmm_spec": {"board": {"cpus": about.ncpus, "memory_mb": about.memory_mib}},
            "metadata": {"silo_id": str(about.silo_id), "project_id": str(about.project_id)},
            "vmm_runtime": {"state": about.vmm_runtime.state.value, "gen": about.vmm_runtime.gen},
        }
    if isinstance(item, contract.PutState):
        value = item.requested.value
        told = None if value is None else asdict(value)
        return {"state": {"type": item.requested.type.value, "value": told}}
    return {}
