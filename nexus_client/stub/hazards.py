"""What real Nexus does wrong, by name: each can be played, and each can be left out.

A hazard is a recorded behaviour of the original that a user would call a bug. `ORIGINAL` is all of them; `DEFAULT`
leaves out the two that end a process or refuse what the public state promises. This is not variants.py, whose
wrongs are made up to test judges.

Read before: stub/config.py. Read next: stub/update_decision.py.
"""

from __future__ import annotations

from typing import Final

from nexus_client.dropshot.identity import IdentityEnum


class Hazard(IdentityEnum):
    PANIC_WITHOUT_TARGET = "panic_without_target"
    """A completed migration whose target has no record left ends the process, and again at each start (NX 5.2,
    hazard 1; omicron#6520). Off: the instance ends as `failed`, its guest having been lost with the target."""
    LATE_HALF_STOPS_FAILED = "late_half_stops_failed"
    """A failed half of a migration, told after both VMMs were given up, turns `failed` into `stopped` (NX 5.2,
    hazard 2). Off: the instance stays `failed`, and is restarted if its user wants it to run."""
    START_OVERRULES_STOP = "start_overrules_stop"
    """An auto-restart under way starts an instance whose user has stopped it meanwhile (NX 4.2). Off: the start
    finds that the record has moved, and unwinds."""
    RESERVATION_LAGS = "reservation_lags"
    """Between an update saga's commit and its clean-up `stopped` shows, and a start is refused with 409 (NX 7, #38).
    Off: the old reservation steps aside."""
    STOP_LOST_IN_MIGRATION = "stop_lost_in_migration"
    """A stop that is sent to the source of a migration goes away with the source: the target runs on, although the
    intended state is `stopped` (NX 4.2). Off: the update that ends the migration stops the VMM that is left."""
    CHECKS_WHAT_IS_OVER = "checks_what_is_over"
    """The health check asks a sled for a VMM that Nexus knows to be Failed, round after round until its record is
    deleted, and each new reason is one more generation and one more saga (NX 4.5). Off: it leaves them alone."""

    FAILS_UNREGISTERED = "fails_unregistered"
    """A stop or reboot meets a VMM that has a record and that its sled does not know yet, or no longer; the 404 makes
    the record Failed, while its start goes on, or although it has ended (NX 4.4, derived). Reports are answered 500
    then, or a second guest runs. Off: it is refused with 503, and may be asked again."""


ORIGINAL: Final = frozenset(Hazard)
DEFAULT: Final = ORIGINAL - {Hazard.PANIC_WITHOUT_TARGET, Hazard.RESERVATION_LAGS}


PANICS: Final = "Nexus panics: "
"""How a `crash` line begins that nobody outside has caused."""


class NexusPanicked(Exception):
    """The original's process would abort here; caught by nexus.py, which dies as at a `Crash`."""
