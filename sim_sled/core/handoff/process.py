"""The hand-off as a sequence: fill internal DNS, wait for the registration, ledger the configurations, hand over.

    FILL_DNS --> WAIT --registered--> LEDGER --> HAND_OVER --204--> DONE
       ^ |                                           ^ |
       +-+ again after a pause                       +-+ again after a pause, for ever

DNS comes before everything else: a Nexus that looks for its database there does not even start without it. Every
failure of the hand-over is tried again for ever, as the original does (SA 5.5): most are a control plane that has not
come up yet. What it says is told in plain words, once per reason.

Read before: core/handoff/body.py. Read next: companions/handoff.py.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import attrs

from nexus_client.backoff import INTERNAL_SERVICE_AGGRESSIVE, delay_us
from nexus_client.draw import draw


class Step(Enum):
    """What is to be done now."""

    FILL_DNS = "fill internal DNS"
    WAIT = "wait for the registration"
    LEDGER = "ledger the sled configurations"
    HAND_OVER = "hand the rack over"
    DONE = "done"


_NEXT: Final = {
    Step.FILL_DNS: Step.WAIT,
    Step.WAIT: Step.LEDGER,
    Step.LEDGER: Step.HAND_OVER,
    Step.HAND_OVER: Step.DONE,
}


@attrs.define(eq=False)
class Process:
    """Where a hand-off stands. `why`: what went wrong last, None if nothing did since."""

    seed: int
    step: Step = Step.FILL_DNS
    attempt: int = 0
    why: str | None = None

    def did(self) -> Step:
        """The present step succeeded; returns the next one."""
        self.step = _NEXT[self.step]
        self.attempt, self.why = 0, None
        return self.step

    def failed(self, why: str) -> tuple[int, bool]:
        """The present step failed. Returns the pause in microseconds, and whether the reason is a new one."""
        assert self.step in {Step.FILL_DNS, Step.HAND_OVER}, "only what goes over a network is tried again"
        pause_us = delay_us(
            INTERNAL_SERVICE_AGGRESSIVE, self.attempt, draw(self.seed, f"handoff/{self.step.value}/{self.attempt}")
        )
        self.attempt += 1
        new = why != self.why
        self.why = why
        return pause_us, new
