"""The property steps of a night: each state machine of the property tests plays rules until all have so many steps.

    python -m tests.campaign.steps [--steps 1000000] [--seed N] [--seconds S] [--only RackMachine,...]

The machines take turns with programs of 80 rules, each turn with another seed; a failure is reduced and printed by
hypothesis, and that machine plays no more. Prints a table for docs/campaigns.md; exit 1 if a machine failed.
"""

import argparse
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, core, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parents[1]))  # property tests import `support`, as pytest lets them

from tests.model.test_crucible_machine import CrucibleMachine
from tests.model.test_estate_machine import EstateMachine
from tests.model.test_outbox_machine import OutboxMachine
from tests.model.test_propolis_queue_machine import QueueMachine
from tests.model.test_propolis_vm_machine import LifeMachine, MovingMachine
from tests.model.test_rack_machine import RackMachine
from tests.model.test_registration_machine import RegistrationMachine
from tests.support.nexus.machine import machine
from tests.unit.sim_sled.core.test_networking import NetworkingMachine

MACHINES = (
    RackMachine,
    machine(),
    EstateMachine,
    OutboxMachine,
    CrucibleMachine,
    LifeMachine,
    MovingMachine,
    QueueMachine,
    RegistrationMachine,
    NetworkingMachine,
)
TURN = settings(
    max_examples=50,
    stateful_step_count=80,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
"""Programs of one turn: few, so that a night that is stopped has played all machines alike."""


class Tally:
    """A machine with what it has played so far."""

    def __init__(self, machine_class):
        self.name = machine_class.__name__
        self.steps = self.programs = 0
        self.seconds = 0.0
        self.failed = ""
        tally = self

        class Counted(machine_class):
            def __init__(self):
                super().__init__()
                tally.programs += 1

            @invariant()
            def a_step_is_counted(self):
                tally.steps += 1

        self.counted = Counted

    def turn(self, seed):
        core.global_force_seed = seed
        started = time.perf_counter()
        try:
            run_state_machine_as_test(self.counted, settings=TURN)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what this night has found
            self.failed = f"{type(error).__name__} with seed {seed}: {error}"
        self.seconds += time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.steps")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no turn begins later")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    only = {name for name in options.only.split(",") if name}
    tallies = [Tally(each) for each in MACHINES if not only or each.__name__ in only]
    until, seed = time.monotonic() + options.seconds, options.seed
    while sum(each.steps for each in tallies) < options.steps and time.monotonic() < until:
        # whoever has played least is next: what a step costs differs
        able = [each for each in tallies if not each.failed]
        if not able:
            break
        min(able, key=lambda each: each.steps).turn(seed)
        seed += 1
    print(f"seeds {options.seed} to {seed - 1}\n")
    print("| machine | steps | programs | seconds | found |\n|---|---|---|---|---|")
    for each in tallies:
        found = each.failed or "nothing"
        print(f"| `{each.name}` | {each.steps:,} | {each.programs:,} | {each.seconds:.0f} | {found} |")
    print(f"| all | {sum(each.steps for each in tallies):,} | {sum(each.programs for each in tallies):,} | | |")
    return 1 if any(each.failed for each in tallies) else 0


if __name__ == "__main__":
    raise SystemExit(main())
