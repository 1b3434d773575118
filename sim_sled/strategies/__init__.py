"""Hypothesis strategies for other people's property tests: what a sled is asked, what it tells, and whole scenarios.

    from hypothesis import given
    from sim_sled.strategies import lives

    @given(life=lives())
    def test_the_newest_report_wins(life): ...

Everything they make is valid by construction: nothing is filtered out afterwards, and what is shrunk is valid, too.
They shrink towards the plainest: the VM without a device, the life that only starts, the scenario without rules.
Needs the extra `[strategies]`. See docs/properties.md.

Read next: strategies/scenario.py, strategies/wire.py.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("hypothesis") is None:
    raise ImportError("sim_sled.strategies needs Hypothesis: pip install 'sim-sled[strategies]'")

from sim_sled.strategies.scenario import scenario_texts, scenarios
from sim_sled.strategies.wire import Request, lives, register_bodies, reports, requests, state_requests, vmm_specs

__all__ = [
    "Request",
    "lives",
    "register_bodies",
    "reports",
    "requests",
    "scenario_texts",
    "scenarios",
    "state_requests",
    "vmm_specs",
]
