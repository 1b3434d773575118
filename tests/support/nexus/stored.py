"""A closed world (world.py) whose Nexus keeps its records in a file, and dies after writes of it."""

from pathlib import Path

import attrs
from support.nexus.world import FakeSled, World, sled_id, sled_info

from nexus_client.stub.config import Config, SagaMode
from nexus_client.stub.contract import Boot, SledPosted
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.server.store import Store


@attrs.define(eq=False)
class StoredWorld(World):
    """A world whose Nexus keeps its records in a file, and is killed after some of its writes."""

    path: Path = None
    store: Store = None
    mode: SagaMode = SagaMode.INLINE
    writes: int = 0
    dies_after: frozenset = frozenset()

    def begin(self):
        if self.store is not None:
            self.store.close()
        self.store = Store(self.path)
        self.nexus = Nexus(Config(saga_mode=self.mode), self.store.seed(7))
        self.store.load_into(self.nexus)

    def do(self, item):
        """As the shell does it: handled, written, and only then heard of."""
        effects = self.nexus.handle(item, self.now_us)
        before = self.store._db.total_changes
        self.store.save(self.nexus)
        if self.store._db.total_changes != before:
            self.writes += 1
            if self.writes in self.dies_after:
                self.calls.clear()
                self.begin()
                return self.do(Boot())
        return self.hear(item, effects)


def stored(path, mode=SagaMode.INLINE, dies_after=()):
    """A rack of two sleds; Nexus dies after each of these writes, counted from 1."""
    world = StoredWorld(nexus=None, path=path, mode=mode, dies_after=frozenset(dies_after))
    world.real_agents = True
    world.begin()
    world.do(Boot())
    for number in (1, 2):
        world.sleds[sled_id(number)] = FakeSled(sled_id(number), world)
        if sled_id(number) not in world.nexus.records.sleds:  # it may have been written, and never acknowledged
            world.ask(SledPosted, sled_id(number), sled_info(number))
    return world


def until(world, goal, do):
    """A user, or an operator, who asks again when no answer came."""
    for _ in range(4):
        if goal():
            return
        do()
        world.rest()
    assert goal()


def end_of(world):
    """What must be the same, whatever ids and generations it took."""
    records = world.nexus.records
    return {
        "instances": sorted((row.name, world.public(row.id), row.intended_state) for row in world.nexus.instances()),
        "live VMMs": sorted((vmm.state.value, vmm.sled_id) for vmm in records.live_vmms()),
        "reservations": sorted((held.kind.value, held.sled_id) for held in records.reservations.values()),
        "addresses": sorted((ip.address, ip.state.value) for ip in records.external_ips.values()),
        "provisions": len(records.provisions),
        "networks": sorted(network.sled_id for network in records.networks.values()),
        "sleds": sorted(records.sleds),
        "sagas": [(saga.kind, saga.stuck) for saga in world.nexus.sagas],
        "ids left": [row.migration_id for row in world.nexus.instances()],
        "guests": sorted(vmm.state.value for sled in world.sleds.values() for vmm in sled.vmms.values()),
    }
