"""A hypothesis machine that does to the Nexus model what a rack and its users may do, in any order.

Used with the right model (every property holds after every step) and with wrong variants (some property breaks).
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.nexus.world import World

from nexus_client.stub.config import SECOND_US, SagaMode
from nexus_client.stub.contract import (
    ArmCrash,
    Boot,
    Crash,
    CrashPoint,
    ErrorAnswered,
    NoConnection,
    RunTask,
    Task,
    TimedOut,
)
from nexus_client.stub.properties import Checker
from nexus_client.types import TERMINAL

NAMES = ("a", "b")
INDEX = st.integers(0, 5)


def machine(variant=None, modes=tuple(SagaMode)):
    """The machine class for a variant; None: the right model."""

    class NexusMachine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.world = None
            self.lost = set()

        @initialize(
            mode=st.sampled_from(modes),
            cooldown_s=st.sampled_from([300, 0, 5]),
            seed=st.integers(0, 3),
            running=st.sampled_from(["a", "ab", ""]),
            twice=st.booleans(),
        )
        def begin(self, mode, cooldown_s, seed, running, twice):
            self.world = World.make(
                sleds=2,
                seed=seed,
                saga_mode=mode,
                variant=variant,
                cooldown_us=cooldown_s * SECOND_US,
                nodes_twice=twice,
            )
            self.world.real_agents = True
            self.world.checker = Checker(self.world.nexus)
            for name in running:
                self.world.create(name)
                self.world.settle()

        def up(self):
            return self.world is not None and self.world.nexus.up

        def instance(self, name):
            return self.world.nexus.find(name)

        # -- users

        @precondition(up)
        @rule(name=st.sampled_from(NAMES), start=st.booleans(), policy=st.sampled_from([None, "never"]))
        def create(self, name, start, policy):
            if self.instance(name) is None:
                self.world.create(name, start=start, auto_restart_policy=policy)

        @precondition(up)
        @rule(name=st.sampled_from(NAMES), what=st.sampled_from(["start", "stop", "reboot", "reboot", "delete"]))
        def act(self, name, what):
            row = self.instance(name)
            if row is not None:
                getattr(self.world, what)(row.id)

        @precondition(up)
        @rule(name=st.sampled_from(NAMES), number=st.sampled_from([1, 2]))
        def migrate(self, name, number):
            row = self.instance(name)
            if row is not None:
                self.world.migrate(row.id, number)

        # -- sleds

        @precondition(up)
        @rule(choices=st.lists(st.integers(0, 20), min_size=1, max_size=8))
        def flow(self, choices):
            """Some of what is on its way arrives, and some VMMs go on, in this order."""
            world = self.world
            for choice in choices:
                ways = [(world.answer, (call,)) for call in world.calls]
                ways += [(world.deliver, pair) for pair in world.waiting_reports()]
                ways += [
                    (sled.step, (vmm.id,)) for sled in world.sleds.values() for vmm in sled.vmms.values() if vmm.plan
                ]
                if not ways or not self.up():
                    return
                do, arguments = ways[choice % len(ways)]
                do(*arguments)

        @precondition(lambda self: self.up() and self.world.calls)
        @rule(index=INDEX, how=st.sampled_from(["ok", "ok", "ok", "busy", "refused", "lost answer"]))
        def answer(self, index, how):
            call = self.world.calls[index % len(self.world.calls)]
            if how == "lost answer":  # done, but Nexus never hears of it
                self.world.sleds[call.sled_id].answer(call.op)
            outcomes = {
                "busy": ErrorAnswered(503, None, "busy"),
                "refused": NoConnection(),
                "lost answer": TimedOut(),
            }
            self.world.answer(call, outcomes.get(how))

        @precondition(lambda self: self.up() and self.world.waiting_reports())
        @rule(index=INDEX, acknowledged=st.booleans())
        def report(self, index, acknowledged):
            waiting = self.world.waiting_reports()
            sled, vmm = waiting[index % len(waiting)]
            if acknowledged:
                self.world.deliver(sled, vmm)
            else:  # taken, but the sled never hears of it and will send it again
                body = vmm.body(self.world.now_us)
                self.world.sent.append((vmm.id, body))
                self.world.report(vmm.id, body)

        @precondition(lambda self: self.up() and self.world.sent)
        @rule(index=st.integers(0, 50))
        def straggler(self, index):
            """A post of any time arrives once more."""
            self.world.report(*self.world.sent[index % len(self.world.sent)])

        @precondition(lambda self: self.world is not None)
        @rule(index=INDEX)
        def step(self, index):
            due = [(sled, vmm) for sled in self.world.sleds.values() for vmm in sled.vmms.values() if vmm.plan]
            if due:
                sled, vmm = due[index % len(due)]
                sled.step(vmm.id)

        def live(self):
            return [
                (sled, vmm)
                for sled in self.world.sleds.values()
                for vmm in sled.vmms.values()
                if vmm.state not in TERMINAL
            ]

        @precondition(lambda self: self.world is not None and self.live())
        @rule(index=INDEX, lost=st.booleans())
        def vmm_dies(self, index, lost):
            """Failed, or forgotten by its sled without a word."""
            sled, vmm = self.live()[index % len(self.live())]
            if lost:
                self.lost.add(vmm.id)
                sled.lose(vmm.id)
            else:
                sled.fail(vmm.id)

        # -- Nexus

        @precondition(up)
        @rule(task=st.sampled_from(Task))
        def run_task(self, task):
            self.world.ask(RunTask, task)

        @precondition(up)
        @rule(us=st.sampled_from([10_000, 50_000, SECOND_US, 10 * SECOND_US, 61 * SECOND_US]))
        def wait(self, us):
            self.world.wait(us)

        @precondition(up)
        @rule(how=st.sampled_from(["restart", "restart", "crash", *CrashPoint]))
        def crash(self, how):
            """At once, with or without coming back; or in the middle of something later."""
            if isinstance(how, CrashPoint):
                self.world.ask(ArmCrash, how)
                return
            self.world.do(Crash())
            if how == "restart":
                self.boot()

        @precondition(lambda self: self.world is not None and not self.world.nexus.up)
        @rule()
        def boot(self):
            self.world.calls.clear()
            self.world.do(Boot())

        @precondition(up)
        @rule()
        def let_it_rest(self):
            """Everything on its way arrives, and the tasks run until nothing changes."""
            self.world.rest()
            if self.up():  # an armed crash may have struck meanwhile
                on_sleds = {
                    key for sled in self.world.sleds.values() for key in sled.vmms
                }  # registered again, perhaps
                self.world.checker.must(self.world.checker.at_rest(self.lost - on_sleds))

        def teardown(self):
            if self.world is None:
                return
            for _ in range(3):
                if not self.world.nexus.up:
                    self.boot()
                self.let_it_rest()

    NexusMachine.__name__ = f"NexusMachine_{variant or 'right'}"
    return NexusMachine
