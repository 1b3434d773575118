"""Hypothesis profiles. SIM_SLED_PROFILE chooses: dev (every day), ci (`.ci/run` sets it), nightly (campaign).

The same tree gives the same examples: dev and ci start from one seed, so that a red run is red for everybody. The
campaign (nightly) draws a new seed each time, and so does `--hypothesis-seed=random`; the seed is in the header,
and a failure prints its blob (`@reproduce_failure`).
"""

import gc
import logging
import os
import random
import signal
from itertools import islice

import pytest
import structlog
from hypothesis import HealthCheck, Phase, core, settings
from support import processes, signals

_COMMON = {"deadline": None, "print_blob": True, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("dev", max_examples=25, stateful_step_count=20, **_COMMON)
settings.register_profile("ci", max_examples=60, stateful_step_count=30, **_COMMON)
settings.register_profile(
    "nightly",
    max_examples=5000,
    stateful_step_count=80,
    phases=tuple(p for p in Phase if p != Phase.explain),
    **_COMMON,
)
_SEED = 20261122
_PROFILE = os.environ.get("SIM_SLED_PROFILE", "dev")
settings.load_profile(_PROFILE)
if _PROFILE != "nightly":  # in which pip fetches what an image is built of
    # Nobody here speaks TLS, but each import of aiohttp reads the machine's certificates: a seventh of a start.
    os.environ["SSL_CERT_FILE"] = os.devnull


def pytest_configure(config):
    # Begun in the background of a script, or by nohup, as CI may do it, it ignores Ctrl-C, or a closed terminal, and
    # so would every program it starts.
    for ignored, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(ignored) is signal.SIG_IGN:
            signal.signal(ignored, usual)
    # Chosen here, not by hypothesis, so that it can be printed; xdist workers inherit it through the environment.
    chosen = config.getoption("hypothesis_seed", None) or os.environ.get("SIM_SLED_HYPOTHESIS_SEED")
    if chosen is None:
        chosen = str(random.SystemRandom().getrandbits(64)) if _PROFILE == "nightly" else str(_SEED)
    if str(chosen) != "random":
        os.environ["SIM_SLED_HYPOTHESIS_SEED"] = str(chosen)
        core.global_force_seed = int(chosen)


@pytest.hookimpl(trylast=True)  # after `-m` has chosen
def pytest_collection_modifyitems(items):
    """What takes some seconds begins first, with half of the workers, as most of it waits: the others work meanwhile.
    Each worker has a stretch of the list; what is left at the end is short, and stolen by whoever has nothing to do.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    early = [item for item in items if item.get_closest_marker("early") is not None]
    others = iter([item for item in items if item.get_closest_marker("early") is None])
    stretch, waiting = len(items) // workers, (workers + 1) // 2
    items.clear()
    for worker in range(workers):
        own = early[worker::waiting] if worker < waiting else []
        items += own + list(islice(others, stretch - len(own)))
    items += others


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Nothing of many thousand collected tests is garbage, and all of it stays. Searched by the collector while it is
    made, and again in the middle of tests (who then miss what should happen "at once"), it is a fifth of their time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_report_header():
    return f"hypothesis profile {_PROFILE}, --hypothesis-seed={core.global_force_seed}"


@pytest.fixture(scope="session", autouse=True)
def _racks_of_tests_are_their_own(tmp_path_factory):
    """Commands look for racks by name: those of other workers and of whoever works on this machine are not meant."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        yield


@pytest.fixture(autouse=True)
def _nothing_of_a_test_is_left():
    """A test that makes its logs quiet would make those of later tests quiet, which look for lines in them; what a
    signal does is what it did before, since programs of later tests inherit it; and no process outlives the test that
    started it.
    """
    before = signals.handlers()
    yield
    after = signals.handlers()
    signals.give_back(before)
    structlog.reset_defaults()
    root = logging.getLogger()
    for each in [each for each in root.handlers if type(each).__module__ == "sim_sled.logs"]:
        root.removeHandler(each)
    processes.end_all()
    assert after == before, f"this test has changed what {', '.join(each.name for each in signals.KEPT)} do"
