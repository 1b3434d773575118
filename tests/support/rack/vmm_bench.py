"""One VMM on a bench: its clock, its steps, and nobody around it."""

import attrs
from support.rack.driving import RUNNING, SLED_A, T0, V1, ScriptedPacer, registration, target

from nexus_client.types import VmmState
from sim_sled.core import observe
from sim_sled.core.vmm import How, Vmm
from sim_sled.core.why import told

GRACE_US = 600_000_000
IN = target("[fd00::99]:12400")


@attrs.define(eq=False)
class Bench:
    """A VMM and its clock: 1 us per call."""

    vmm: Vmm
    how: How
    now_us: int = T0

    def put(self, requested):
        self.now_us += 1
        verdict, _ = self.vmm.put_state(requested, self.how, scripted=True, now_us=self.now_us)
        return verdict

    def step(self):
        """What is seen after one step; None if nothing waited."""
        self.now_us += 1
        done = self.vmm.step(self.now_us)
        self.vmm.see(self.now_us)
        return None if done is None else told(self.vmm.record)

    def steps(self):
        texts = []
        while (text := self.step()) is not None:
            texts.append(text)
        return texts

    @property
    def told(self):
        return told(self.vmm.record)


def bench_of(state=VmmState.STARTING, migration_id=None, *, stepped=True, pacer=None, grace_us=GRACE_US):
    body = registration(V1, state, migration_id=migration_id)
    vmm = Vmm(SLED_A, V1, body, observe.registered(body.vmm_runtime, migration_id, T0))
    return Bench(vmm, How(pacer or ScriptedPacer(0), stepped, grace_us))


def running(**options):
    bench = bench_of(**options)
    bench.put(RUNNING)
    assert bench.steps() == ["running gen 3"]
    return bench
