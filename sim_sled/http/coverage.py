"""How far each operation of the Sled Agent API goes here, and where its rules stand: `sim-sled api --coverage`.

Emulated: it acts on state, and other operations show it. Canned: it answers in the right shape, from what the sled
is, and changes nothing. Refused: it always answers an error, as on every sled like this one.

Read before: http/operations.py. Read next: cli/api.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

import attrs

from sim_sled.http.operations import ROUTER
from sim_sled.http.routes import NEWEST


class How(Enum):
    EMULATED = "emulated"
    CANNED = "canned"
    REFUSED = "refused"


_CANNED: Final = frozenset(
    {
        "chicken_switch_destroy_orphaned_datasets_get",
        "chicken_switch_destroy_orphaned_datasets_put",
        "rot_attest",
        "rot_certificate_chain",
        "rot_measurement_log",
        "sled_add",
        "support_dladm_info",
        "support_health_check",
        "support_ipadm_info",
        "support_nvmeadm_info",
        "support_pargs_info",
        "support_pfiles_info",
        "support_pstack_info",
        "support_zfs_info",
        "support_zoneadm_info",
        "support_zpool_info",
        "uplink_ensure",
    }
)
_REFUSED: Final = frozenset({("trust_quorum_upgrade_from_lrtq", 13), ("local_storage_dataset_ensure", 9)})
"""Operation and the first version of a row: a share of the old scheme and encrypted local storage, which nobody has;
network configurations of 1 to 24 are refused too, which `_how` sees by their handler."""

_SECTIONS: Final = (
    ("vmm_issue_disk", "SR 4.3"),
    ("vmm_put_state", "SA 2.3"),
    ("vmm_register", "SA 2.2"),
    ("vmm_unregister", "SA 2.8"),
    ("vmm_get_state", "SA 2.8"),
    ("vmm_", "SA 3.4"),
    ("artifact_", "SR 4.2"),
    ("support_bundle_", "SR 4.1"),
    ("support_", "SR 4.7"),
    ("zone_bundle_", "SR 4.7"),
    ("trust_quorum_", "SR 4.5"),
    ("bootstore_", "SR 4.4"),
    ("write_network", "SR 4.4"),
    ("read_network", "SR 4.4"),
    ("uplink_", "SR 4.4"),
    ("inventory", "SR 3.6"),
    ("omicron_config", "SR 3.1"),
    ("local_storage", "SR 3.4"),
    ("sled_add", "SR 3.5"),
    ("disk_put", "SR 4.9"),
    ("probes_put", "SA 3.1"),
    ("vpc_firewall", "SA 3.1"),
    ("set_eip", "SA 3.1"),
)
"""Beginning of an operation's id and where its rules stand; the first that fits."""

_SMALL: Final = ("sled_identifiers", "sled_role", "zones_", "rot_", "debug_", "chicken_")


@attrs.frozen
class Row:
    """One operation with the same path and the same fate in versions `since` to `until`, both served."""

    operation: str
    method: str
    path: str
    since: int
    until: int
    how: How
    section: str


def rows() -> list[Row]:
    """By operation and first version."""
    found: dict[tuple[str, str, str, How], list[int]] = {}
    for operation, method, path, since, until, how in _each():
        span = found.setdefault((operation, method, path, how), [since, until])
        span[0], span[1] = min(span[0], since), max(span[1], until)
    return [
        Row(operation, method, path, since, until, how, section_of(operation))
        for (operation, method, path, how), (since, until) in sorted(
            found.items(), key=lambda item: (item[0][0], item[1])
        )
    ]


def _each() -> Iterator[tuple[str, str, str, int, int, How]]:
    for route in ROUTER.routes:
        if route.op is not None:
            since = max(route.since, 1)
            how = _how(route.op, since, getattr(route.handler, "name", ""))
            yield route.op, route.method, route.template, since, min(route.until - 1, NEWEST), how


def _how(operation: str, since: int, handler: str) -> How:
    if handler == "put_old" or (operation, since) in _REFUSED:
        return How.REFUSED
    return How.CANNED if operation in _CANNED else How.EMULATED


def section_of(operation: str) -> str:
    """Where the rules of an operation stand."""
    if operation.startswith(_SMALL):
        return "SR 4.6"
    for start, section in _SECTIONS:
        if operation.startswith(start):
            return section
    return "SA 3.4"
