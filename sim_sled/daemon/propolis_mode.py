"""Whether each VMM of a daemon is served as a Propolis of its own. Apart, so that who does not want it imports none.

Read next: daemon/propolis_api.py.
"""

from __future__ import annotations

from enum import Enum


class PropolisMode(Enum):
    """Where each VMM's Propolis listens: nowhere, on loopback, at the address that Nexus registered."""

    NONE = "none"
    LOOPBACK = "loopback"
    REGISTERED = "registered"
