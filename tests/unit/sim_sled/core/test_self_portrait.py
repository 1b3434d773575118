"""Everything that one sled says of itself, beside its VMMs, word for word (SR 3.6, 4.4 to 4.7).

The other tests ask for what they are about; this one notices what nobody asked for. Whoever changes an answer looks
at the difference and writes the file again:
`PYTHONPATH=.:tests python tests/unit/sim_sled/core/test_self_portrait.py`.
"""

import json
from pathlib import Path

from support.rack.driving import V1, registration
from support.rack.estate import OTHER, POOLS, SECOND, SLED, EstateDriver, Fixed, an_id, config, dataset, disk, zone

from sim_sled.core import contract
from sim_sled.core.bootstore.store import Bootstore, NetworkConfig
from sim_sled.core.config import BareDisk, Hardware, PhysicalDisk
from sim_sled.core.diagnostics.queries import Diagnostics
from sim_sled.core.diagnostics.zone_bundles import ZoneBundles
from sim_sled.core.facts import SetFacts
from sim_sled.core.identity.rot import RootOfTrust
from sim_sled.core.identity.small import Identity
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger

LOOKED_AT = Path(__file__).parents[3] / "data" / "self-portrait.json"
BARE = BareDisk(PhysicalDisk(SLED, "vendor", "model", "bare"), 2**39)
QUERIES = (
    "zoneadm-info", "ipadm-info", "dladm-info", "nvmeadm-info", "pargs-info", "pstack-info", "pfiles-info",
    "zfs-info", "zpool-info", "health-check",
)  # fmt: skip
ABSENT = disk(1) | {"id": an_id(0xDD), "identity": {"vendor": "v", "model": "m", "serial": "no"}}
GZIP = {"type": "gzip_n", "level": 9}
WHOLE = config(
    2,
    disks=[disk(1), disk(2), ABSENT],
    datasets=[dataset(1, quota=7), dataset(2, "crucible"), dataset(3, on=2) | {"compression": GZIP}],
    zones=[zone(1, "crucible"), zone(2), zone(3, "oximeter", on=None), zone(4, "boundary_ntp", on=2)],
    slot_a="ab" * 32,
    measurements=("cd" * 32,),
)  # fmt: skip


def _inventory(driver):
    return driver.ask(Inventory, Inventory.read)


def _portrait():
    driver = EstateDriver(
        sleds=(SLED, OTHER), hardware=Hardware(zpools=POOLS, disks=(BARE,)), pacer=Fixed(SECOND + 250_000)
    )
    told = {"inventory": {"new": _inventory(driver)}}
    driver.ask(Ledger, configure.put, WHOLE)
    driver.wait(SECOND)
    told["inventory"]["running"] = _inventory(driver)
    driver.wait(SECOND)
    told["inventory"]["idle"] = _inventory(driver)
    estate = driver.rack.sleds[SLED].estate
    SetFacts(
        reconcile_us=0, missing_disks=(2,), pool_health={2: "faulted"}, pool_sizes={1: 2**30}, keeps_orphans=True,
        boot_disk="gone", boot_slot="b", slots={"b": "unreadable"}, fmd="no answer",
        services={"svc:/system/ipcc:default": "maintenance"}, override=an_id(0x77),
        datasets={"crucible": "full"}, zones={"boundary_ntp": "no"},
    ).apply(estate, driver.now_us)  # fmt: skip
    driver.ask(Ledger, configure.put, config(3, datasets=[dataset(2, "crucible")], remove_override=an_id(0x77)))
    told["inventory"]["sick"] = _inventory(driver)
    driver.rack.handle(contract.Register(1, SLED, V1, registration(V1)), driver.now_us)
    driver.ask(Bootstore, Bootstore.put, NetworkConfig(4, 48, {"rack_network_config": None}))
    told["support"] = {query: driver.ask(Diagnostics, Diagnostics.run, query) for query in QUERIES}
    for area, how in (
        (Diagnostics, Diagnostics.log_zones), (Bootstore, Bootstore.status), (Identity, Identity.identifiers),
        (Identity, Identity.role), (Identity, Identity.policy), (Identity, Identity.zones),
        (RootOfTrust, RootOfTrust.measurement_log), (RootOfTrust, RootOfTrust.certificate_chain),
        (ZoneBundles, ZoneBundles.utilization), (ZoneBundles, ZoneBundles.directories),
    ):  # fmt: skip
        told[f"{area.__name__}.{how.__name__}"] = driver.ask(area, how)
    told["attest"] = driver.ask(RootOfTrust, RootOfTrust.attest, "ab" * 32)
    return json.loads(json.dumps(told))


def test_a_sled_says_of_itself_what_was_looked_at():
    assert _portrait() == json.loads(LOOKED_AT.read_text())


if __name__ == "__main__":
    LOOKED_AT.write_text(json.dumps(_portrait(), indent=1, sort_keys=True) + "\n")
