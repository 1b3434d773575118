"""Whole lives in the core, and the floor they are measured against: a machine that only looks up a dict."""

import time
from uuid import UUID

import attrs

from nexus_client.outbox import Delivered
from nexus_client.types import (
    Asked,
    SledVmmState,
    UpdatedRuntime,
    VmmRuntimeState,
    VmmState,
    VmmStateRequested,
    time_of,
)
from propolis_stub.types import InstanceState
from sim_sled.core import contract
from sim_sled.core.config import SledConfig
from sim_sled.core.rack import Rack
from sim_sled.language.pacer import PresetPacer

SLED = UUID(int=1)
T0_US = 1_700_000_000_000_000
_SILO, _PROJECT = UUID(int=7), UUID(int=8)
_DELIVERED = Delivered()
_RUN, _STOP = VmmStateRequested(Asked.RUNNING), VmmStateRequested(Asked.STOPPED)


def registration(number: int) -> contract.Registration:
    """What a plain VM with one NIC registers with; values as they come off the wire: silo and project are
    shared, all else is its own.
    """
    first = VmmRuntimeState(VmmState.STARTING, 2, time_of(T0_US))
    subnet = f"172.{16 + number % 16}.{number // 16 % 256}.0/24"
    return contract.Registration(
        instance_id=UUID(int=2**64 + number),
        vmm_runtime=first,
        propolis_addr=f"[fd00:1122:3344:{number // 65536 + 1:x}::{number % 65536:x}]:12400",
        ncpus=2,
        memory_mib=8192,
        hostname=f"host-{number}",
        silo_id=_SILO,
        project_id=_PROJECT,
        nics=(contract.Nic(number % 2**24, (subnet,)),),
    )


def rack_with(registered: int) -> Rack:
    """A rack whose one sled knows `registered` VMMs that are never started."""
    rack = Rack(pacer=PresetPacer("sim"))
    rack.add_sled(SledConfig(SLED))
    for number in range(registered):
        rack.handle(contract.Register(number, SLED, UUID(int=2**70 + number), registration(number)), T0_US)
    return rack


def our_life(rack: Rack, number: int, now_us: int) -> tuple[list[SledVmmState], int]:
    """Register, run, stop, until it is destroyed, acknowledged and forgotten; every PUT is answered at once.

    Returns what was published, and the time at the end.
    """
    vmm = UUID(int=2**80 + number)
    published = []
    inputs = [
        contract.Register(0, SLED, vmm, registration(number)),
        contract.PutState(1, SLED, vmm, _RUN),
        contract.PutState(2, SLED, vmm, _STOP),
    ]
    tick = contract.Tick()
    for item in inputs:
        todo = rack.handle(item, now_us)
        while True:
            more = []
            for effect in todo:
                if type(effect) is contract.PutToNexus:
                    published.append(effect.body)
                    answer = contract.NexusReplied(SLED, vmm, effect.serial, _DELIVERED)
                    more += rack.handle(answer, now_us)
            if not more:
                due_us = rack.next_deadline_us()
                # the agent's patience with a stop (10 min) is a deadline too, but never comes due here
                if due_us is None or due_us > now_us + 10_000_000:
                    break
                now_us = due_us
                more = rack.handle(tick, now_us)
            todo = more
    return published, now_us


_P, _S = InstanceState, VmmState
_PROPOLIS = {
    (_P.CREATING, "start"): _P.STARTING,
    (_P.STARTING, "started"): _P.RUNNING,
    (_P.RUNNING, "stop"): _P.STOPPING,
    (_P.STOPPING, "halted"): _P.STOPPED,
    (_P.STOPPED, "run down"): _P.DESTROYED,
}
_SLED = {
    _P.RUNNING: _S.RUNNING,
    _P.STOPPING: _S.STOPPING,
    _P.STOPPED: _S.STOPPING,
    _P.DESTROYED: _S.DESTROYED,
}
_EVENTS = (("start", False), ("started", True), ("stop", True), ("halted", True), ("run down", True))
"""What happens to Propolis in a life, and whether the sled sees it: a start is over before it looks."""


@attrs.define(eq=False)
class _Record:
    about: contract.Registration
    body: SledVmmState
    propolis: InstanceState = _P.CREATING
    monitor_gen: int = 1


class DictMachine:
    """The floor of (c): a registry, a record, two tables and the bodies; no queue, no time, no outbox."""

    def __init__(self):
        self.records = {}

    def life(self, number: int, now_us: int) -> tuple[list[SledVmmState], int]:
        vmm = UUID(int=2**80 + number)
        published = []
        about = registration(number)
        self.records[vmm] = _Record(about, SledVmmState(about.vmm_runtime))
        for event, seen in _EVENTS:
            now_us += 1_000
            record = self.records[vmm]
            if event == "stop":  # told in the answer before anything has happened
                UpdatedRuntime(self.move(record, _S.STOPPING, now_us))
            record.propolis = _PROPOLIS[record.propolis, event]
            record.monitor_gen += 1
            if seen:
                published.append(self.move(record, _SLED[record.propolis], now_us))
        del self.records[vmm]
        return published, now_us

    def move(self, record: _Record, state: VmmState, now_us: int) -> SledVmmState:
        gen = record.body.vmm_state.gen + 1
        record.body = SledVmmState(VmmRuntimeState(state, gen, time_of(now_us)))
        return record.body


def lives_per_second(life, count: int, first: int) -> float:
    """`life(number, now_us) -> (bodies, now_us)`, `count` times; by processor time: neighbours do not count."""
    now_us = T0_US
    began = time.process_time()
    for number in range(first, first + count):
        _, now_us = life(number, now_us)
    return count / (time.process_time() - began)


def assert_same_moves(rack: Rack) -> int:
    """Both arms publish the same states with the same generations, or the comparison means nothing."""
    ours, _ = our_life(rack, 10**9, T0_US)
    floor, _ = DictMachine().life(10**9, T0_US)
    told = [[(body.vmm_state.state, body.vmm_state.gen) for body in bodies] for bodies in (ours, floor)]
    assert told[0] == told[1], told
    return len(ours)
