"""Bootstore, identity, zones, root of trust, zone bundles, diagnostics (SR 4.4, 4.6, 4.7)."""

import attrs
import pytest
from support.rack.driving import V1, V2, registration
from support.rack.estate import OTHER, POOLS, SLED, START, EstateDriver, an_id, config, dataset, zone
from support.rows import in_one_test

from nexus_client.types import SledRole
from sim_sled.core import contract
from sim_sled.core.bootstore.store import Bootstore, NetworkConfig
from sim_sled.core.config import Hardware
from sim_sled.core.diagnostics.queries import Diagnostics
from sim_sled.core.diagnostics.zone_bundles import BUNDLE_BYTES, QUOTA, CleanupContext, ZoneBundles
from sim_sled.core.errors import BadRequest, Internal, Missing
from sim_sled.core.identity.rot import RootOfTrust
from sim_sled.core.identity.small import STOP, Identity
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger

FULL = config(2, datasets=[dataset(1), dataset(2, "crucible")], zones=[zone(1, "crucible"), zone(2)])


def register(driver, propolis_id, at=1):
    driver.rack.handle(contract.Register(at, SLED, propolis_id, registration(propolis_id)), START)


def unregister(driver, propolis_id):
    driver.rack.handle(contract.Unregister(99, SLED, propolis_id), START)


# ---- bootstore -----------------------------------------------------------------------------------------------------


def network(generation):
    return NetworkConfig(generation, 48, {"rack_network_config": None})


def test_any_generation_overwrites_as_in_the_existing_simulator():
    driver = EstateDriver()
    for generation in (3, 3, 2, 9):
        driver.ask(Bootstore, Bootstore.put, network(generation))
        status = driver.ask(Bootstore, Bootstore.status)
        assert status["network_config_ledger_generation"] == generation
        assert driver.ask(Bootstore, Bootstore.read).generation == generation


def test_a_strict_sled_wants_generations_that_grow():
    driver = EstateDriver(strict=True)
    with pytest.raises(Internal):
        driver.ask(Bootstore, Bootstore.put, network(0))
    driver.ask(Bootstore, Bootstore.put, network(3))
    for generation in (2, 3):
        with pytest.raises(Internal):
            driver.ask(Bootstore, Bootstore.put, network(generation))
    assert driver.ask(Bootstore, Bootstore.read).generation == 3


def test_nothing_written_is_told_as_nothing():
    driver = EstateDriver()
    assert driver.ask(Bootstore, Bootstore.status)["network_config_ledger_generation"] is None
    assert driver.ask(Bootstore, Bootstore.read).generation == 0


def test_other_sleds_of_the_process_are_peers():
    driver = EstateDriver(sleds=(SLED, OTHER))
    status = driver.ask(Bootstore, Bootstore.status)
    assert status["peers"] == ["[fd00:1122:3344:101::1]:12347"]
    [connection] = status["established_connections"]
    assert connection["baseboard"]["identifier"] == f"sim-{OTHER}"


def test_the_network_config_is_there_after_a_restart():
    driver, again = EstateDriver(), EstateDriver()
    driver.ask(Bootstore, Bootstore.put, network(7))
    again.of(Bootstore).load(driver.of(Bootstore).dump())
    assert again.ask(Bootstore, Bootstore.read) == network(7)


# ---- identity and zones --------------------------------------------------------------------------------------------


def test_identifiers_inventory_and_registration_agree():
    driver = EstateDriver()
    ids = driver.ask(Identity, Identity.identifiers)
    told = driver.ask(Inventory, Inventory.read)
    info = driver.rack.sleds[SLED].info("[::1]:1", 2)
    assert ids["sled_id"] == told["sled_id"]
    assert (ids["model"], ids["serial"]) == tuple(told["baseboard_id"].values())
    assert (ids["model"], ids["serial"], ids["revision"]) == (
        info.baseboard.part, info.baseboard.serial, info.baseboard.revision,
    )  # fmt: skip
    assert driver.ask(Identity, Identity.role) == told["sled_role"] == info.role.value


def test_zones_are_those_that_run_the_vmms_and_the_switch():
    driver = EstateDriver()
    driver.of(Ledger).faults.zones[an_id(0xE02)] = "no"
    driver.ask(Ledger, configure.put, FULL)
    register(driver, V1)
    assert driver.ask(Identity, Identity.zones) == sorted(
        [f"oxz_crucible_{an_id(0xE01)}", f"oxz_propolis-server_{V1}", "oxz_switch"]
    )
    unregister(driver, V1)
    assert f"oxz_propolis-server_{V1}" not in driver.ask(Identity, Identity.zones)


def test_a_gimlet_has_no_switch_zone_and_a_scrimlet_may_stop_it():
    gimlet = EstateDriver(hardware=Hardware(role=SledRole.GIMLET))
    assert gimlet.ask(Identity, Identity.zones) == []
    scrimlet = EstateDriver()
    scrimlet.ask(Identity, Identity.put_policy, STOP, False)
    assert scrimlet.ask(Identity, Identity.policy) == STOP
    assert scrimlet.ask(Identity, Identity.zones) == []


def test_a_switch_zone_cannot_stop_itself():
    driver = EstateDriver()
    with pytest.raises(BadRequest, match="must come from the other switch zone"):
        driver.ask(Identity, Identity.put_policy, STOP, True)
    driver.ask(Identity, Identity.put_policy, "start_if_switch_present", True)


def test_orphans_are_always_destroyed():
    driver = EstateDriver()
    driver.ask(Identity, Identity.put_destroy_orphans, True)
    with pytest.raises(BadRequest, match="can no longer be disabled"):
        driver.ask(Identity, Identity.put_destroy_orphans, False)


def test_an_attestation_follows_from_sled_and_nonce():
    driver = EstateDriver(sleds=(SLED, OTHER))

    def attest(nonce, sled=SLED):
        return driver.ask(RootOfTrust, RootOfTrust.attest, nonce, sled=sled)["ed25519"]

    assert len(attest("aa" * 32)) == 128
    assert attest("aa" * 32) == attest("aa" * 32)
    assert len({attest("aa" * 32), attest("bb" * 32), attest("aa" * 32, OTHER)}) == 3


# ---- zone bundles --------------------------------------------------------------------------------------------------


def ended(driver, *vmms):
    for number, each in enumerate(vmms):
        register(driver, each, number)
        unregister(driver, each)


def test_a_vmm_that_ends_leaves_a_bundle():
    driver = EstateDriver()
    ended(driver, V1, V2)
    both = driver.ask(ZoneBundles, ZoneBundles.all)
    assert [each.zone_name for each in both] == sorted(f"oxz_propolis-server_{each}" for each in (V1, V2))
    assert driver.ask(ZoneBundles, ZoneBundles.all, str(V2)[-5:]) == [both[-1]]
    assert driver.ask(ZoneBundles, ZoneBundles.of_zone, both[0].zone_name) == [both[0]]
    assert driver.ask(ZoneBundles, ZoneBundles.of_zone, both[0].zone_name[:-1]) == [], "a zone's name is whole"
    assert driver.ask(ZoneBundles, ZoneBundles.get, both[0].zone_name, both[0].bundle_id) == both[0]


def test_a_bundle_can_be_deleted_once():
    driver = EstateDriver()
    ended(driver, V1, V2)
    first, second = driver.ask(ZoneBundles, ZoneBundles.all)
    driver.ask(ZoneBundles, ZoneBundles.delete, first.zone_name, first.bundle_id)
    assert driver.ask(ZoneBundles, ZoneBundles.all) == [second]
    for bundle in (first, attrs.evolve(second, zone_name="oxz_other")):
        with pytest.raises(Missing):
            driver.ask(ZoneBundles, ZoneBundles.delete, bundle.zone_name, bundle.bundle_id)


@in_one_test(
    ("period", "limit", "message"),
    [
        pytest.param((59, 0), 0, "invalid cleanup period (59s): must be between 60s and 86400s", id="period first"),
        pytest.param((86_401, 0), None, "invalid cleanup period (86401s)", id="more than a day"),
        pytest.param((86_400, 1), None, "invalid cleanup period (86400.000000001s)", id="a nanosecond more"),
        pytest.param((60, 0), 0, "invalid storage limit (0): must be expressed as a percentage in (0, 50", id="0"),
        pytest.param((60, 0), 51, "invalid storage limit (51)", id="more than half"),
    ],
)
def test_a_bad_context_changes_nothing(period, limit, message):
    driver = EstateDriver()
    with pytest.raises(BadRequest) as caught:
        driver.ask(ZoneBundles, ZoneBundles.update, period, limit, ("time", "cause"))
    assert caught.value.message.startswith(message)
    assert driver.ask(ZoneBundles, ZoneBundles.get_context) == CleanupContext()


@in_one_test(
    ("update", "then"),
    [
        ((None, None, None), CleanupContext()),
        (((60, 5), None, None), CleanupContext(60, 5)),
        (((86_400, 0), 50, None), CleanupContext(86_400, 0, 50)),
        ((None, 1, ("time", "time")), CleanupContext(storage_limit=1, priority=("time", "time"))),
    ],
)
def test_what_is_not_named_stays(update, then):
    driver = EstateDriver()
    driver.ask(ZoneBundles, ZoneBundles.update, *update)
    assert driver.ask(ZoneBundles, ZoneBundles.get_context) == then


def test_nothing_is_cleaned_up_within_the_limit():
    driver = EstateDriver()
    ended(driver, V1)
    assert driver.ask(ZoneBundles, ZoneBundles.cleanup) == {}
    use = driver.ask(ZoneBundles, ZoneBundles.utilization)
    assert len(use) == 2, "one directory on each M.2 disk"
    quarter = {"dataset_quota": QUOTA, "bytes_available": QUOTA // 4, "bytes_used": BUNDLE_BYTES}
    assert list(use.values()) == [quarter] * 2


# ---- diagnostics ---------------------------------------------------------------------------------------------------


def run(driver, which):
    told = driver.ask(Diagnostics, Diagnostics.run, which)
    return [each["success"] for each in (told if isinstance(told, list) else [told])]


@pytest.fixture(name="busy")
def _busy():
    driver = EstateDriver()
    driver.ask(Ledger, configure.put, FULL)
    register(driver, V1)
    return driver


@in_one_test(
    ("which", "tool", "commands"),
    [
        ("zoneadm-info", "sbin/zoneadm", ["list -cip"]),
        ("ipadm-info", "sbin/ipadm", ["show-if", "show-addr", "show-prop"]),
        ("dladm-info", "sbin/dladm", ["show-phys -m", "show-ether", "show-link", "show-vnic", "show-linkprop"]),
        ("nvmeadm-info", "sbin/nvmeadm", ["list"]),
        ("pargs-info", "bin/pargs", ["-ae 1000", "-ae 2000"]),
        ("pstack-info", "bin/pstack", ["1000", "2000"]),
        ("pfiles-info", "bin/pfiles", ["1000", "2000"]),
        ("zfs-info", "sbin/zfs", ["list -o name,used,avail,quota,reservation,mountpoint,mounted"]),
        ("zpool-info", "sbin/zpool", ["status"]),
    ],
)
def test_commands_are_told_with_their_whole_line(which, tool, commands, busy):
    assert [each["command"] for each in run(busy, which)] == [
        f"/usr/bin/pfexec /usr/{tool} {each}" for each in commands
    ]


@in_one_test(
    ("which", "texts"),
    [
        ("zoneadm-info", [f"oxz_propolis-server_{V1}", f"oxz_crucible_{an_id(0xE01)}", "oxz_switch", "global"]),
        ("nvmeadm-info", ["serial-1", "serial-2"]),
        ("zfs-info", [f"oxp_{POOLS[0].id}/crypt/debug", f"oxp_{POOLS[0].id}/crucible", f"oxp_{POOLS[1].id}"]),
        ("zpool-info", [f"oxp_{pool.id}" for pool in POOLS]),
        ("ipadm-info", ["fd00:1122:3344:101::1/64"]),
        ("pargs-info", ["propolis-server", "sled-agent"]),
    ],
)
def test_what_they_print_is_about_this_sled(which, texts, busy):
    printed = "".join(each["stdio"] for each in run(busy, which))
    assert [text for text in texts if text not in printed] == []
    assert run(busy, which) == run(busy, which)


def test_the_health_check_is_of_what_is_wrong_with_the_sled(busy):
    busy.of(Ledger).faults.missing_disks.add("serial-2")
    busy.of(Inventory).services = [{"fmri": "svc:/a:default", "zone": "global", "state": "maintenance"}]
    checks = {each["command"]: each["stdio"] for each in run(busy, "health-check")}
    assert checks['bash -c "diskinfo -pH | wc -l"'] == "1\n", "as many as nvmeadm lists"
    assert checks["/usr/bin/svcs -xZ"] == "svc:/a:default\n State: maintenance\n"


def test_the_health_check_counts(busy):
    checks = run(busy, "health-check")
    assert len(checks) == 9
    assert [each["stdio"].strip() for each in checks if "disk" in each["command"]] == ["2"]
    assert [each["stdio"].strip() for each in checks if "crucible" in each["command"]] == ["1"]


def test_logs_are_those_of_the_zones(busy):
    zones = busy.ask(Diagnostics, Diagnostics.log_zones)
    assert zones == ["global", *busy.ask(Identity, Identity.zones)]
    assert busy.ask(Diagnostics, Diagnostics.services, "global") == ["sled-agent"]
    assert busy.ask(Diagnostics, Diagnostics.services, f"oxz_propolis-server_{V1}") == ["propolis-server"]
    assert busy.ask(Diagnostics, Diagnostics.services, f"oxz_ntp_{an_id(0xE02)}") == ["ntp"]
    assert busy.ask(Diagnostics, Diagnostics.services, "oxz_nowhere") == []
    assert busy.ask(Diagnostics, Diagnostics.vmm_of_zone, f"oxz_propolis-server_{V1}") == V1
    assert busy.ask(Diagnostics, Diagnostics.vmm_of_zone, "global") is None
