"""Two real servers migrate a VM to and fro, with faults where hypothesis likes them.

The bulk of this is done in memory (tests/model/test_propolis_vm_machine.py); here it is proved that the sockets
between the two change nothing: histories stay within the table, and at most one side runs the guest.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.propolis.arms import FAILS, R
from support.propolis.oracle import check_history
from support.propolis.wire import PATIENCE_S, WireArm, WireNet

from propolis_stub.types import InstanceState, MigrationPhase, MigrationStatus, Publication
from propolis_stub.waiting import Pace, Point

POINTS = st.sampled_from([point for point in Point if point.name.startswith("M_")])
FAULTS = st.one_of(
    st.none(),
    st.tuples(st.sampled_from(["source", "target"]), POINTS, st.sampled_from(["fails", "dies"])),
)


def read(told: dict[str, dict[str, dict[str, str]]]) -> Publication:
    def status(name: str) -> MigrationStatus | None:
        given = told["migration"][name]
        return None if given is None else MigrationStatus(UUID(given["id"]), MigrationPhase(given["state"]))

    return Publication(
        int(str(told["gen"])), InstanceState(str(told["state"])), status("migration_in"), status("migration_out")
    )


async def look_at(arm: WireArm) -> str | None:
    view = await arm.look()
    if view["publications"]:
        check_history([read(told) for told in view["publications"]])
    return None if view["state"] is None else str(view["state"])


async def move(source: WireArm, target: WireArm, fault: tuple[str, Point, str] | None) -> None:
    if fault is not None:
        side, point, how = fault
        faulty = source if side == "source" else target
        await faulty.pace(point, FAILS if how == "fails" else Pace(None))
    await target.target_begin(source)
    if fault is not None:
        if how == "dies":
            # It may not get there at all: sources do not connect, and a refused target is done at once.
            async with asyncio.timeout(PATIENCE_S):
                while point.value not in ((await faulty.look())["waits_for"] or ""):
                    if (await target.look())["waits_for"] is None:
                        break
            await faulty.crash()
        await faulty.pace(point, Pace())
    for arm in (target, source):
        await arm.until(lambda view: view["waits_for"] is None)


@settings(max_examples=settings().max_examples // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FAULTS, min_size=1, max_size=5))
def test_at_most_one_side_runs_the_guest_whatever_happens(faults: list[tuple[str, Point, str] | None]) -> None:
    async def go() -> None:
        async with WireNet() as net:
            here, there = await net.arm(), await net.arm()
            await here.ensure()
            await here.put(R)
            await here.told("3 Running")
            for fault in faults:
                await move(here, there, fault)
                states = [await look_at(here), await look_at(there)]
                assert states.count("Running") <= 1, states
                if fault is None and states[1] != "Running":
                    # a negotiation that failed earlier, or a console that has gone, keeps a source for ever
                    assert states[0] in {"Running", "Destroyed", "Failed", None}
                if states[1] == "Running":
                    here, there = there, here
                if "Running" not in states:
                    return

    asyncio.run(go())
