"""A Crucible agent against a naive oracle (SR 5.1), with what must hold at all times (SR 9, 6 and 7)."""

from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.profile import by_profile

from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.values import RegionRequest, RegionState
from sim_sled.core.errors import BadRequest, Conflict, Internal, Missing, SledError

DATASET = UUID(int=99)
regions = st.integers(1, 4)
names = st.sampled_from(["s", "t"])
extents = st.sampled_from([1, 1, 1, 2])
GONE = {RegionState.DESTROYED}
PORTS = 4


class Oracle:
    """Dicts and nothing else. Everything happens at once."""

    def __init__(self):
        self.regions = {}  # id: [extents, port, alive]
        self.snapshots = set()
        self.running = {}  # (id, name): port, or None when it was ended

    def port(self):
        taken = {port for _, port, alive in self.regions.values() if alive}
        taken |= {port for port in self.running.values() if port is not None}
        free = [port for port in range(1000, 1000 + PORTS) if port not in taken]
        if not free:
            raise Internal("")
        return free[0]

    def create(self, region, size):
        if region in self.regions:
            if self.regions[region][0] != size:
                raise Conflict("")
        else:
            self.regions[region] = [size, self.port(), True]
        return self.regions[region][1]

    def delete(self, region):
        if region in self.regions and self.regions[region][2]:
            if any(of == region for of, _ in self.snapshots):
                raise BadRequest("")
            self.regions[region][2] = False

    def snapshot(self, region, name):
        if not self.regions.get(region, [0, 0, False])[2]:
            raise Internal("")
        self.snapshots.add((region, name))

    def run(self, region, name):
        if (region, name) not in self.snapshots:
            raise Missing("")
        if self.running.get((region, name)) is None:
            self.running[region, name] = self.port()
        return self.running[region, name]

    def stop(self, region, name):
        self._known(region)
        if (region, name) in self.running:
            self.running[region, name] = None

    def delete_snapshot(self, region, name):
        self._known(region)
        if self.running.get((region, name)) is not None:
            raise BadRequest("")
        self.snapshots.discard((region, name))

    def _known(self, region):
        if region not in self.regions:
            raise Missing("")


class CrucibleMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.agents = Agents()
        self.agents.add_sled("::1", [DATASET])
        self.agent = self.agents.agent(DATASET)
        self.agent.knobs.ports = PORTS
        self.oracle = Oracle()
        self.ports = {}

    def same(self, real, naive):
        answers = []
        for side in (real, naive):
            try:
                answers.append(side())
            except SledError as refused:
                answers.append(type(refused))
        assert answers[0] == answers[1]

    @rule(region=regions, size=extents)
    def create(self, region, size):
        request = RegionRequest(UUID(int=region), 512, 131072, size, True)
        self.same(lambda: self.agent.create(request, 0).port, lambda: self.oracle.create(region, size))

    @rule(region=regions)
    def delete(self, region):
        self.same(lambda: self.agent.delete(_id(region), 0), lambda: self.oracle.delete(region))

    @rule(region=regions, name=names)
    def snapshot(self, region, name):
        def take():
            there = self.agent.regions.get(_id(region))
            if there is None:
                raise Internal("")
            self.agent.take_snapshot(there, name, 0)

        self.same(take, lambda: self.oracle.snapshot(region, name))

    @rule(region=regions, name=names)
    def run(self, region, name):
        self.same(lambda: self.agent.run_snapshot(_id(region), name, 0).port, lambda: self.oracle.run(region, name))

    @rule(region=regions, name=names)
    def stop(self, region, name):
        self.same(lambda: self.agent.stop_snapshot(_id(region), name, 0), lambda: self.oracle.stop(region, name))

    @rule(region=regions, name=names)
    def delete_snapshot(self, region, name):
        self.same(
            lambda: self.agent.delete_snapshot(_id(region), name), lambda: self.oracle.delete_snapshot(region, name)
        )

    @rule(region=regions, other=regions, name=names)
    def two_snapshots_run(self, region, other, name):
        """Steps that chance alone seldom puts in this order."""
        for one in (region, other):
            self.create(one, 1)
            self.snapshot(one, name)
            self.run(one, name)

    @rule()
    def restart(self):
        """What was acknowledged is there again."""
        kept = self.agent.dump()
        self.agents = Agents()
        self.agents.add_sled("::1", [DATASET])
        self.agent = self.agents.agent(DATASET)
        self.agent.knobs.ports = PORTS
        self.agent.load(kept, 0)
        assert self.agent.dump() == kept

    @invariant()
    def ports_differ(self):
        used = [region.port for region in self.agent.regions.values() if region.state not in GONE]
        for region in self.agent.regions.values():
            used += [each.port for each in region.running.values() if each.state not in GONE]
        assert len(used) == len(set(used))

    @invariant()
    def a_region_keeps_its_port(self):
        for key, region in self.agent.regions.items():
            assert self.ports.setdefault(key, region.port) == region.port

    @invariant()
    def a_region_with_snapshots_is_not_destroyed(self):
        for region in self.agent.regions.values():
            assert not (region.snapshots and region.state in GONE)


def _id(number):
    return str(UUID(int=number))


TestCrucible = CrucibleMachine.TestCase
TestCrucible.settings = settings(
    max_examples=by_profile(30, nightly=settings.default.max_examples), stateful_step_count=60
)
