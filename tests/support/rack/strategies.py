"""Strategies shared by the tests of the sled core. Small domains on purpose: values meet again."""

from hypothesis import strategies as st
from support.rack.driving import (
    ACK,
    DOWN,
    GONE,
    MIGRATIONS,
    REBOOT,
    RUNNING,
    SLED_A,
    SLED_B,
    STOPPED,
    VMMS,
    address_of,
    target,
)

from nexus_client.outbox import Permanent, Transient
from propolis_stub.guest_events import GuestEvent
from propolis_stub.types import MigrationPhase, MigrationStatus

sled_ids = st.sampled_from([SLED_A, SLED_B])
propolis_ids = st.sampled_from(VMMS[:4])
migration_ids = st.sampled_from(MIGRATIONS[:3])

requested = st.sampled_from([RUNNING, STOPPED, REBOOT, *(target(address_of(each)) for each in VMMS[:4])])
"""What Nexus may ask of a VMM; a migration in may come from any of them, or from itself."""

outcomes = st.sampled_from([ACK, ACK, DOWN, Transient("503: Service Unavailable"), GONE, Permanent("400: no", 400)])
"""How an attempt to tell Nexus ends."""

migration_reports = st.none() | st.builds(MigrationStatus, migration_ids, st.sampled_from(MigrationPhase))
"""What Propolis says of one direction."""

guest_events = st.sampled_from(GuestEvent)

durations_us = st.sampled_from([0, 1, 1_000, 2_000, 5_000, 50_000, 400_000, 20_000_000, 700_000_000])
"""How long one waits: less than a point, some points, a retry, more than the stop grace."""
