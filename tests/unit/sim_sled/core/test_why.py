"""why.py: a VMM explains itself: what was asked, what it waits for, what Nexus knows."""

import pytest
from support.rack.driving import (
    DOWN,
    FOR_EVER,
    GONE,
    M1,
    REBOOT,
    RUNNING,
    SECOND,
    SLED_A,
    STOPPED,
    T0,
    V1,
    RackDriver,
    ScriptedPacer,
    address_of,
    instance_of,
    target,
)

from nexus_client.types import VmmState, stamp
from propolis_stub.waiting import Pace, Point
from sim_sled.core.config import ASKED_KEPT, SimMode
from sim_sled.core.why import row, why


def _why(driver, propolis_id=V1, *, on=SLED_A):
    return why(driver.sled(on), driver.vmm(propolis_id, on=on), driver.now_us)


def test_a_registered_vmm_waits_for_nexus():
    driver = RackDriver()
    driver.register()
    told = _why(driver)
    assert told["asked"] == []
    assert (told["waits_for"], told["due_in_ms"], told["told_nexus"]) == (None, None, None)
    assert told["says"] == [
        f"{V1} (host-1) is starting gen 2 and will rest in starting.",
        "Nexus has asked for nothing yet.",
        "It has no Propolis: none was needed yet.",
        "Nexus acknowledged nothing yet; the answers told it all.",
    ]


def test_a_row_has_everything_for_the_table():
    driver = RackDriver()
    driver.running()
    assert row(driver.vmm()) == {
        "propolis_id": str(V1),
        "sled_id": str(SLED_A),
        "instance_id": str(instance_of(V1)),
        "hostname": "host-1",
        "state": "running",
        "gen": 4,
        "resting": "running",
        "propolis": "Running",
        "acked": "running",
        "refused": None,
        "migration_in": None,
        "migration_out": None,
        "propolis_addr": address_of(V1),
    }


def test_what_it_waits_for_and_how_long():
    driver = RackDriver(pacer=ScriptedPacer(0, {Point.BACKENDS: Pace(8 * SECOND)}))
    driver.register()
    driver.put(RUNNING)
    driver.wait(3 * SECOND)
    told = _why(driver)
    assert told["waits_for"] == "starting block backends (backends)"
    assert told["due_in_ms"] == 5_000
    assert told["asked"] == [{"at": stamp(T0), "request": "running"}]
    assert "Nexus last asked for running at 2023-11-14T22:13:20.000000Z." in told["says"]
    assert "Propolis waits: starting block backends (backends), for 5s more." in told["says"]


@pytest.mark.parametrize(
    ("mode", "pacer", "sentence"),
    [
        pytest.param(
            SimMode.EXPLICIT,
            ScriptedPacer(0),
            "Propolis waits: a step: picking up work (wake), until somebody pokes it.",
            id="a stepped VMM waits for a poke",
        ),
        pytest.param(
            SimMode.AUTO,
            ScriptedPacer(0, {Point.BACKENDS: FOR_EVER}),
            "Propolis waits: starting block backends (backends), for ever; only a request or a fault ends that.",
            id="a backend that never comes up",
        ),
    ],
)
def test_what_never_comes_by_itself(mode, pacer, sentence):
    driver = RackDriver(mode, pacer=pacer)
    driver.register()
    driver.put(RUNNING)
    assert sentence in _why(driver)["says"]


def test_a_vmm_at_rest_waits_for_nothing():
    driver = RackDriver()
    driver.running()
    assert "Propolis waits for nothing." in _why(driver)["says"]
    assert "Nexus acknowledged running gen 4." in _why(driver)["says"]


def test_a_silent_propolis_is_named():
    driver = RackDriver()
    driver.running()
    driver.kill(restart=False)
    assert "Its Propolis died and does not answer; the agent asks it for ever." in _why(driver)["says"]


def test_what_nexus_does_not_take():
    driver = RackDriver(acks=False, pacer=ScriptedPacer(0))
    driver.register()
    driver.put(RUNNING)
    told = _why(driver)
    assert told["told_nexus"] == {
        "pending": "running gen 3",
        "in_flight": True,
        "attempt": 0,
        "last_failure": "",
        "retry_in_ms": None,
    }
    assert "Nexus is being told running gen 3 (attempt 0)." in told["says"]
    driver.nexus_answers(DOWN)
    told = _why(driver)
    left_ms = told["told_nexus"]["retry_in_ms"]
    assert 125 <= left_ms <= 375
    assert f"Nexus does not take running gen 3: connection refused; next try in {left_ms}ms." in told["says"]


def test_what_nexus_has_refused_for_good_is_not_called_untold():
    driver = RackDriver()
    driver.running()
    driver.acks = False
    driver.put(REBOOT)
    driver.wait(SECOND)
    while driver.flying:
        driver.nexus_answers(GONE)
    told = _why(driver)
    assert told["refused"] == "410: Gone"
    assert told["says"][-1] == "Nexus has refused the last publication for good: 410: Gone."


def test_both_sides_of_a_migration_are_shown():
    driver = RackDriver()
    driver.register(V1, VmmState.MIGRATING, migration_id=M1)
    driver.put(target("[fd00::99]:1"))
    driver.wait(SECOND)
    assert row(driver.vmm())["migration_in"] == {"migration_id": str(M1), "state": "completed", "gen": 3}


def test_only_the_latest_requests_are_remembered():
    driver = RackDriver(SimMode.EXPLICIT)
    driver.running()
    for _ in range(ASKED_KEPT):
        driver.put(REBOOT)
        driver.poke()
    driver.put(STOPPED)
    asked = [each["request"] for each in _why(driver)["asked"]]
    assert asked == ["reboot"] * (ASKED_KEPT - 1) + ["stopped"]
