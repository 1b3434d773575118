"""Two VMMs of one migration: V1 runs on sled A, V2 waits on sled B for migration M1.

Each point of a script takes 1 ms, so that a test that does something every millisecond does it in every phase.
"""

from support.rack.driving import M1, SLED_B, V1, V2, RackDriver, address_of, target

from nexus_client.types import VmmState
from propolis_stub.waiting import Point
from sim_sled.core.config import SimMode

AUTO, EXPLICIT = SimMode.AUTO, SimMode.EXPLICIT
IN = target(address_of(V1))
PHASES = [point for point in Point if point.name.startswith("M_")]
BOTH_SIDES = [point for point in PHASES if point is not Point.M_CONNECT]
MOVING_MS = range(1, 14)
"""A migration of the default pace takes 11 ms from the request to its end."""


def pair(mode=AUTO, **options):
    driver = RackDriver(mode, **options)
    driver.running(V1)
    driver.register(V2, VmmState.MIGRATING, on=SLED_B, migration_id=M1)
    return driver


def migrating(**options):
    driver = pair(**options)
    driver.put(IN, V2, on=SLED_B)
    return driver


def state_of(texts):
    return texts[-1].split(" ")[0] if texts else None


def sides(driver):
    """Last state of each, and its last migration state."""

    def of(propolis_id, side):
        bodies = [post.body for post in driver.posts if post.propolis_id == propolis_id]
        if not bodies:
            return None
        migration = getattr(bodies[-1], side)
        return bodies[-1].vmm_state.state.value, migration and migration.state.value

    return of(V1, "migration_out"), of(V2, "migration_in")


MOVED = ("destroyed", "completed"), ("running", "completed")
STAYED = ("running", "failed"), ("failed", "failed")
