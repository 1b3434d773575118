"""What Nexus says to a hand-off, in plain words, and what mends it (SR 6.1).

Read before: core/handoff/wishes.py. Read next: companions/handoff.py.
"""

from __future__ import annotations

from typing import Final

from sim_sled.core.handoff.wishes import Wishes

_WORDS: Final = (
    (("rack",), 404, "Nexus has another rack id than {rack_id}: its configuration names it, and --rack-id takes it"),
    (
        ("switch-port", "switch port", "switch_port"),
        404,
        (
            "Nexus does not know port {port} of switch0: it learns them from Dendrite (_dendrite._tcp in DNS); "
            "start one (or a simulation of it) beside a scrimlet, or name a port that it lists with --rss-switch-port"
        ),
    ),
    (
        ("control plane zone",),
        400,
        "Nexus misses the control plane's zone in the DNS configuration of the hand-off: a bug of sim-sled",
    ),
    (
        ("no system services pool",),
        400,
        (
            "an external address of a zone lies in no service pool: check --rss-nexus-external-addr and "
            "--rss-external-dns-internal-addr"
        ),
    ),
    (("zpool",), 404, "Nexus misses a zpool that a Crucible dataset lies on: check the pools of --hardware"),
    (("physical disk", "physical_disk"), 404, "Nexus misses the disk of a zpool: check the pools of --hardware"),
    (("cert", "tls", "private key"), 400, "Nexus refuses the certificate: check --rss-tls-cert and --rss-tls-key"),
    (("password",), 400, "Nexus does not take the password's hash: it wants another algorithm or cost of argon2"),
    (
        ("silo", "user"),
        400,
        "Nexus does not take the recovery silo: check --rss-recovery-silo-name and --rss-recovery-user-name",
    ),
)


def explain(status: int, message: str, wishes: Wishes) -> str:
    """One sentence or two; Nexus's own words are in it."""
    said = message.lower()
    for words, at, text in _WORDS:
        if status == at and any(word in said for word in words):
            return f"{text.format(rack_id=wishes.rack_id, port=wishes.switch_port)} (Nexus says {status} {message!r})"
    if status == 404:
        return f"{wishes.lockstep} is no lockstep API: check NEXUS_LOCKSTEP_PORT (it says {status} {message!r})"
    if status >= 500:
        return f"Nexus cannot do it yet, which is usual while its database comes up (it says {status} {message!r})"
    return f"Nexus refuses the hand-off: {status} {message!r}"


def unreachable(what: str, address: str, error: str) -> str:
    """Nobody answers."""
    return f"{what} at {address} does not answer ({error})"
