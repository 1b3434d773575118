"""The bootstore of one sled: the rack's network configuration and who else keeps it (SR 4.4).

Read before: core/estate.py. Read next: core/facts.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from sim_sled.core.errors import BadRequest, Internal
from sim_sled.core.estate import Area, Estate

PORT: Final = 12347
"""Of the bootstore (SR 4.8)."""

OLD_REFUSED: Final = "old bootstore APIs not supported in simulated sled-agent"


@attrs.frozen
class NetworkConfig:
    """A written configuration: `body` as it was written, canonical, in the shape of version `shape`."""

    generation: int
    shape: int
    body: Mapping[str, Any]


FIRST: Final = NetworkConfig(
    0,
    48,
    {
        "rack_network_config": {
            "rack_subnet": "::/56",
            "infra_ip_first": "0.0.0.0",
            "infra_ip_last": "0.0.0.0",
            "ports": [
                {
                    "routes": [],
                    "addresses": [],
                    "switch": "switch0",
                    "port": "qsfp0",
                    "uplink_port_speed": "speed100_g",
                    "uplink_port_fec": None,
                    "bgp_peers": [],
                    "autoneg": False,
                    "lldp": None,
                    "tx_eq": None,
                    "allow_ddm_traffic": False,
                }
            ],
            "bgp": [],
            "bfd": [],
        },
        "blueprint_external_networking_config": None,
    },
)
"""What an existing simulator starts with (SA 3.4)."""


class Bootstore(Area):
    """`strict`: refuse what the real agent refuses, generations that do not grow."""

    kept_as = "bootstore"

    def __init__(self, estate: Estate) -> None:
        super().__init__(estate)
        self.written: NetworkConfig | None = None
        self.strict = estate.sled.config.strict

    def put(self, config: NetworkConfig) -> None:
        """Store a configuration. Any generation is taken, as in the existing simulator; `strict`: `Internal` for one
        that is not greater than the stored one.
        """
        if self.strict and config.generation <= self.read().generation:
            raise Internal(f"stale network config: generation {config.generation}")
        self.written = config
        self.changed()

    def put_old(self) -> None:
        """Versions 1 to 24."""
        raise BadRequest(OLD_REFUSED)

    def read(self) -> NetworkConfig:
        return FIRST if self.written is None else self.written

    def status(self) -> dict[str, object]:
        """`BootstoreStatus`: the other sleds of this process are connected."""
        others = [(f"[{_host(each.sled.address)}]:{PORT}", each) for each in self.estate.neighbours]
        return {
            "fsm_ledger_generation": 1,
            "network_config_ledger_generation": None if self.written is None else self.written.generation,
            "fsm_state": "initial_member",
            "peers": sorted({address for address, _ in others}),
            "established_connections": [
                {
                    "baseboard": {
                        "type": "gimlet",
                        "identifier": each.serial,
                        "model": each.hardware.baseboard_model,
                        "revision": each.hardware.baseboard_revision,
                    },
                    "addr": address,
                }
                for address, each in others
            ],
            "accepted_connections": [],
            "negotiating_connections": [],
        }

    def dump(self) -> Any:
        return None if self.written is None else attrs.asdict(self.written)

    def load(self, kept: Any) -> None:
        self.written = None if kept is None else NetworkConfig(**kept)


def _host(address: str) -> str:
    host = address.rpartition(":")[0].strip("[]")
    return host if ":" in host else f"::ffff:{host}"
