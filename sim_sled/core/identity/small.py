"""Operations too small for an area of their own: identifiers, role, switch zone policy, zones (SR 4.6).

Read before: core/omicron_config/ledger.py. Read next: core/diagnostics/queries.py, core/diagnostics/zone_bundles.py.
"""

from __future__ import annotations

from typing import Final

from nexus_client.types import SledRole, VmmState
from sim_sled.core.errors import BadRequest
from sim_sled.core.estate import RACK_ID, Area, Estate
from sim_sled.core.omicron_config.ledger import Ledger

PRESENT: Final = "start_if_switch_present"
STOP: Final = "stop_despite_switch_presence"

_NO_ZONE: Final = frozenset({VmmState.DESTROYED, VmmState.FAILED})


def propolis_zone(propolis_id: object) -> str:
    """Name of the zone of a VMM."""
    return f"oxz_propolis-server_{propolis_id}"


class Identity(Area):
    """Who this sled is. `switch_zone_policy` is forgotten by a restart, as in the real agent."""

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.rack_id = RACK_ID
        self.switch_zone_policy = PRESENT

    def identifiers(self) -> dict[str, object]:
        """`SledIdentifiers`: the baseboard of the registration."""
        hardware = self.estate.hardware
        return {
            "rack_id": str(self.rack_id),
            "sled_id": str(self.estate.sled_id),
            "model": hardware.baseboard_model,
            "revision": hardware.baseboard_revision,
            "serial": self.estate.serial,
        }

    def role(self) -> str:
        return self.estate.hardware.role.value

    def policy(self) -> str:
        return self.switch_zone_policy

    def put_policy(self, policy: str, from_own_switch_zone: bool) -> None:
        """Raises `BadRequest` for a switch zone that wants to stop itself: nobody could start it again."""
        if policy == STOP and from_own_switch_zone:
            raise BadRequest("requests to disable the switch zone must come from the other switch zone")
        self.switch_zone_policy = policy

    def put_destroy_orphans(self, destroy: bool) -> None:
        if not destroy:
            raise BadRequest("orphaned dataset destruction can no longer be disabled")

    def zones(self) -> list[str]:
        """Running zones by name: what the reconciler started, the switch zone of a scrimlet, one per VMM."""
        names = self.estate.of(Ledger).running_zones()
        if self.estate.hardware.role is SledRole.SCRIMLET and self.switch_zone_policy == PRESENT:
            names.append("oxz_switch")
        names += [propolis_zone(key) for key, vmm in self.estate.sled.vmms.items() if vmm.state not in _NO_ZONE]
        return sorted(names)
