"""How many sockets this process may have, and what for.

Read next: daemon/daemon.py, daemon/reporting.py.
"""

from __future__ import annotations

import resource
from typing import Final

from nexus_client.dropshot.descriptors import raise_open_files
from nexus_client.senders import IN_FLIGHT_MAX

RESERVED: Final = 256
"""For those who connect to us, for files, the model and the control API."""


class TooFewFiles(ValueError):
    """The system does not allow as many open files as there are sleds."""


def allow(sleds: int) -> None:
    """Raise this process's limit of open files as far as the system lets it. Raises `TooFewFiles` if `sleds`
    listeners do not fit all the same.
    """
    raise_open_files()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = sleds + RESERVED
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise TooFewFiles(
            f"{sleds:,} sleds need {wanted:,} open files, and this process may have {hard:,}; "
            f"ask for fewer --sleds or raise the limit (ulimit -Hn, LimitNOFILE=)"
        )


def connections_allowed(sleds: int) -> int:
    """Of reports in flight: half of what the listeners leave, the rest is for those who connect to us."""
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return IN_FLIGHT_MAX
    return max(2, min(IN_FLIGHT_MAX, (files_max - sleds) // 2))
