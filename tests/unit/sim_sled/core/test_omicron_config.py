"""A sled's configuration: generations, runs that take their time, a result for each part (SR 3.1 to 3.3)."""

import copy
import uuid

import attrs
import pytest
from support.rack.estate import POOLS, SECOND, SLED, EstateDriver, Fixed, an_id, config, dataset, disk, zone
from support.rows import in_one_test

from sim_sled.core.config import BareDisk, Hardware, PhysicalDisk
from sim_sled.core.errors import BadRequest
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import FIRST_IMAGES, Ledger
from sim_sled.core.omicron_config.reconcile import Image

HASH = "ab" * 32
OVERRIDE = an_id(0x77)
FULL = config(
    2,
    datasets=[
        dataset(1, "zone"),
        dataset(2, "crucible"),
        dataset(3, f"zone/oxz_crucible_{an_id(0xE01)}"),
        dataset(4, "zone", on=2),
    ],
    zones=[zone(1, "crucible"), zone(2, "internal_ntp", on=2)],
)


def put(driver, wanted):
    driver.ask(Ledger, configure.put, wanted)


def inventory(driver):
    return driver.ask(Inventory, Inventory.read)


# ---- generations ---------------------------------------------------------------------------------------------------


def test_a_sled_that_was_never_configured_has_not_run():
    told = inventory(EstateDriver())
    assert (told["ledgered_sled_config"], told["last_reconciliation"], told["datasets"]) == (None, None, [])
    assert told["reconciler_status"] == {"status": "not_yet_run"}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        pytest.param(config(1), "Generation number too old", id="an older one"),
        pytest.param(config(2, disks=[disk(1)]), "Generation number unchanged", id="another one of the same age"),
    ],
)
def test_a_refused_configuration_changes_nothing(second, message):
    driver = EstateDriver()
    put(driver, config(2))
    before = inventory(driver)
    with pytest.raises(BadRequest, match=message):
        put(driver, second)
    assert inventory(driver) == before


def test_the_same_again_changes_nothing_visible():
    driver = EstateDriver(pacer=Fixed(SECOND))
    put(driver, FULL)
    driver.wait(2 * SECOND)
    before = inventory(driver)
    put(driver, type(FULL)(copy.deepcopy(FULL.wire)))
    assert inventory(driver) == before
    assert driver.rack.next_deadline_us() is None, "no further run"


def test_a_generation_may_be_skipped_and_the_first_may_be_any():
    driver = EstateDriver()
    for generation in (5, 6, 9):
        put(driver, config(generation))
    assert inventory(driver)["ledgered_sled_config"]["generation"] == 9


def test_a_zone_root_beside_the_roots_of_zones_is_an_ordinary_configuration():
    """SA 6 #39: the original's storage dies of it, whatever comes first."""
    for rows in (FULL.wire["datasets"], dict(reversed(list(FULL.wire["datasets"].items())))):
        driver = EstateDriver()
        put(driver, config(2, datasets=list(rows.values()), zones=list(FULL.wire["zones"].values())))
        assert all(each == {"result": "ok"} for each in inventory(driver)["last_reconciliation"]["datasets"].values())


# ---- runs that take their time -------------------------------------------------------------------------------------


def test_a_run_takes_its_time_and_what_was_reconciled_last_stays_until_it_ends():
    driver = EstateDriver(pacer=Fixed(5 * SECOND))
    put(driver, config(2))
    driver.wait(5 * SECOND)
    put(driver, config(3))
    driver.wait(2 * SECOND)
    told = inventory(driver)
    assert told["ledgered_sled_config"]["generation"] == 3
    assert told["last_reconciliation"]["last_reconciled_config"]["generation"] == 2
    status = told["reconciler_status"]
    assert (status["status"], status["config"]["generation"]) == ("running", 3)
    assert status["running_for"] == {"secs": 2, "nanos": 0}
    driver.wait(3 * SECOND)
    told = inventory(driver)
    assert told["last_reconciliation"]["last_reconciled_config"]["generation"] == 3
    assert told["reconciler_status"]["status"] == "idle"
    assert told["reconciler_status"]["ran_for"] == {"secs": 5, "nanos": 0}


def test_each_run_takes_its_own_time():
    class Numbered(Fixed):
        def sled_pace_us(self, sled_id, point, occurrence):
            return (1 + occurrence) * SECOND

    driver = EstateDriver(pacer=Numbered(0))
    for generation, took in ((2, 1), (3, 2)):
        put(driver, config(generation))
        driver.wait(10 * SECOND)
        assert inventory(driver)["reconciler_status"]["ran_for"]["secs"] == took


def test_a_configuration_that_comes_during_a_run_has_a_run_of_its_own_after_it():
    driver = EstateDriver(pacer=Fixed(5 * SECOND))
    put(driver, config(2))
    driver.wait(SECOND)
    put(driver, config(3))
    put(driver, config(4))
    driver.wait(4 * SECOND)
    told = inventory(driver)
    assert told["last_reconciliation"]["last_reconciled_config"]["generation"] == 2
    assert told["reconciler_status"]["config"]["generation"] == 4, "3 was overtaken"
    driver.wait(5 * SECOND)
    assert inventory(driver)["last_reconciliation"]["last_reconciled_config"]["generation"] == 4


def test_the_time_of_the_last_run_never_goes_back():
    driver = EstateDriver()
    seen = []
    for generation in (1, 2, 3):
        put(driver, config(generation))
        seen.append(inventory(driver)["reconciler_status"]["completed_at"])
        driver.wait(SECOND)
    assert seen == sorted(seen)
    assert len(set(seen)) == 3
    assert inventory(driver)["reconciler_status"]["completed_at"] == seen[-1], "looking is not running"


# ---- results -------------------------------------------------------------------------------------------------------


def last(driver):
    return inventory(driver)["last_reconciliation"]


def test_every_key_of_a_result_is_in_the_configuration_and_the_other_way_round():
    driver = EstateDriver()
    put(driver, FULL)
    told = last(driver)
    for results, part in (("external_disks", "disks"), ("datasets", "datasets"), ("zones", "zones")):
        assert told[results].keys() == FULL.wire[part].keys()
        assert set(map(str, told[results].values())) == {"{'result': 'ok'}"}


def test_a_disk_that_is_not_in_the_sled_takes_its_datasets_and_zones_down():
    driver = EstateDriver()
    driver.of(Ledger).faults.missing_disks.add("serial-1")
    put(driver, FULL)
    told = last(driver)
    assert told["external_disks"][an_id(0xD1)] == {
        "result": "err",
        "message": "Disk requested by control plane, but not found on device",
    }
    assert told["external_disks"][an_id(0xD2)] == {"result": "ok"}
    name = f"oxp_{POOLS[0].id}"
    assert told["datasets"][an_id(0xA02)]["message"] == f"could not find matching zpool {name}"
    assert told["datasets"][an_id(0xA04)] == {"result": "ok"}
    root = f"{name}/crypt/zone/oxz_crucible_{an_id(0xE01)}"
    assert told["zones"][an_id(0xE01)]["message"] == f"zone's transient root dataset is not available: {root}"
    assert told["zones"][an_id(0xE02)] == {"result": "ok"}
    assert [row["identity"]["serial"] for row in inventory(driver)["disks"]] == ["serial-2"]
    assert [row["name"] for row in inventory(driver)["datasets"]] == [f"oxp_{POOLS[1].id}/crypt/zone"]


def test_a_disk_that_comes_back_is_found_by_the_next_run():
    driver = EstateDriver()
    faults = driver.of(Ledger).faults
    faults.missing_disks.add("serial-1")
    put(driver, FULL)
    faults.missing_disks.clear()
    driver.ask(Ledger, Ledger.world_changed)
    assert set(map(str, last(driver)["zones"].values())) == {"{'result': 'ok'}"}


@pytest.mark.parametrize(
    ("part", "key", "results"),
    [
        ("disks", an_id(0xD1), "external_disks"),
        ("datasets", an_id(0xA02), "datasets"),
        ("zones", an_id(0xE02), "zones"),
    ],
)
def test_a_fault_of_one_thing_is_its_result(part, key, results):
    driver = EstateDriver()
    getattr(driver.of(Ledger).faults, part)[key] = "it burns"
    put(driver, FULL)
    assert last(driver)[results][key] == {"result": "err", "message": "it burns"}


def test_a_failed_dataset_takes_only_its_zone_down():
    driver = EstateDriver()
    driver.of(Ledger).faults.datasets[an_id(0xA02)] = "out of space"
    put(driver, FULL)
    zones = last(driver)["zones"]
    durable = f"oxp_{POOLS[0].id}/crucible"
    assert zones[an_id(0xE01)]["message"] == f"zone's durable dataset is not available: {durable}"
    assert zones[an_id(0xE02)] == {"result": "ok"}


def test_without_time_only_zones_that_bring_it_start():
    driver = EstateDriver()
    driver.of(Ledger).faults.time_synchronized = False
    put(driver, FULL)
    zones = last(driver)["zones"]
    assert zones[an_id(0xE01)] == {"result": "err", "message": "Time not yet synchronized"}
    assert zones[an_id(0xE02)] == {"result": "ok"}


def test_a_zone_without_a_place_does_not_start():
    driver = EstateDriver()
    put(driver, config(2, zones=[zone(1, on=None)]))
    assert last(driver)["zones"][an_id(0xE01)]["message"] == "zone config is missing a filesystem pool"


def test_an_expunged_zone_is_absent_from_the_results():
    driver = EstateDriver()
    put(driver, FULL)
    put(driver, config(3, datasets=list(FULL.wire["datasets"].values()), zones=[zone(2, on=2)]))
    assert list(last(driver)["zones"]) == [an_id(0xE02)]


def orphans(driver):
    return [(row["id"], row["name"]) for row in last(driver)["orphaned_datasets"]]


def test_only_what_left_the_configuration_of_a_managed_disk_and_cannot_go_is_an_orphan():
    driver = EstateDriver()
    stays, leaves, lies_elsewhere = dataset(1), dataset(2, "local_storage"), dataset(3, on=2)
    put(driver, config(2, datasets=[stays, leaves, lies_elsewhere]))
    put(driver, config(3, datasets=[stays, lies_elsewhere]))
    assert orphans(driver) == [], "it could be destroyed"
    put(driver, config(4, datasets=[stays, leaves, lies_elsewhere]))
    driver.of(Ledger).faults.keeps_orphans = True
    put(driver, config(5, disks=[disk(1)], datasets=[stays]))
    kept = (leaves["id"], {"pool_name": f"oxp_{POOLS[0].id}", "kind": "local_storage"})
    assert orphans(driver) == [kept], "of the second disk nobody knows anything any more"
    put(driver, config(6, disks=[disk(1)], datasets=[stays]))
    assert orphans(driver) == [kept], "it is there until it can be destroyed"
    assert [row["id"] for row in inventory(driver)["datasets"]] == [stays["id"]]
    driver.of(Ledger).faults.keeps_orphans = False
    driver.ask(Ledger, Ledger.world_changed)
    assert orphans(driver) == []


def test_an_orphan_that_is_wanted_again_is_none_any_more():
    driver = EstateDriver()
    driver.of(Ledger).faults.keeps_orphans = True
    put(driver, config(2, datasets=[dataset(1)]))
    put(driver, config(3))
    assert len(orphans(driver)) == 1
    put(driver, config(4, datasets=[dataset(1)]))
    assert (orphans(driver), last(driver)["datasets"]) == ([], {an_id(0xA01): {"result": "ok"}})


def test_a_sled_knows_nothing_of_its_services_until_somebody_says_something():
    driver = EstateDriver()
    assert inventory(driver)["smf_services_enabled_not_online"] == {"type": "data_unavailable"}
    driver.of(Inventory).services = []
    told = inventory(driver)["smf_services_enabled_not_online"]
    assert (told["type"], told["value"]["services"], told["value"]["errors"]) == ("svcs_enabled_not_online", [], [])


def test_a_missing_disk_leaves_its_slot_empty_and_its_pool_is_still_listed():
    driver = EstateDriver()
    driver.of(Ledger).faults.missing_disks.add("serial-1")
    told = inventory(driver)
    assert [(row["identity"]["serial"], row["variant"], row["slot"]) for row in told["disks"]] == [
        ("serial-2", "U2", 1)
    ]
    assert [row["id"] for row in told["zpools"]] == [str(pool.id) for pool in POOLS]


# ---- disks and pools -----------------------------------------------------------------------------------------------

BARE = BareDisk(PhysicalDisk(uuid.UUID(an_id(0xB0)), "vendor", "model", "bare"), 2**39)
ADOPTED = {
    "id": an_id(0xB1),
    "identity": {"vendor": "vendor", "model": "model", "serial": "bare"},
    "pool_id": an_id(9),
}


def test_an_adopted_disk_gets_the_pool_that_nexus_chose():
    driver = EstateDriver(hardware=Hardware(zpools=POOLS, disks=(BARE,)), pacer=Fixed(SECOND))
    assert an_id(9) not in {row["id"] for row in inventory(driver)["zpools"]}
    assert [row["slot"] for row in inventory(driver)["disks"]] == [0, 1, 2], "it is there before anybody adopts it"
    put(driver, config(2, disks=[ADOPTED]))
    assert an_id(9) not in {row["id"] for row in inventory(driver)["zpools"]}, "only the run makes it"
    driver.wait(SECOND)
    assert {"id": an_id(9), "total_size": 2**39, "health": "online"} in inventory(driver)["zpools"]


def test_a_disk_keeps_its_pool_when_nobody_manages_it_any_more():
    driver = EstateDriver(hardware=Hardware(zpools=POOLS, disks=(BARE,)))
    put(driver, config(2, disks=[ADOPTED]))
    put(driver, config(3))
    assert an_id(9) not in {row["id"] for row in inventory(driver)["zpools"]}
    put(driver, config(4, disks=[ADOPTED | {"pool_id": an_id(8)}]))
    assert (
        last(driver)["external_disks"][an_id(0xB1)]["message"]
        == f"Expected zpool UUID of {an_id(8)}, but saw {an_id(9)}"
    )


def test_a_configuration_that_asks_for_another_pool_on_a_disk_is_told_which_is_there():
    driver = EstateDriver()
    put(driver, config(2, disks=[disk(1, pool_id=an_id(8))]))
    message = f"Expected zpool UUID of {an_id(8)}, but saw {POOLS[0].id}"
    assert last(driver)["external_disks"][an_id(0xD1)]["message"] == message


def test_datasets_have_their_full_names_sizes_and_compression():
    driver = EstateDriver()
    rows = [dataset(1, "debug", quota=7) | {"compression": {"type": "gzip_n", "level": 9}}, dataset(2, "crucible")]
    put(driver, config(2, datasets=rows))
    debug, crucible = inventory(driver)["datasets"]
    assert debug["name"] == f"oxp_{POOLS[0].id}/crypt/debug"
    assert (debug["available"], debug["quota"], debug["compression"]) == (7, 7, "gzip-9")
    assert crucible["name"] == f"oxp_{POOLS[0].id}/crucible", "it is not encrypted"
    assert (crucible["available"], crucible["quota"], crucible["compression"]) == (2**40, None, "off")


# ---- host phase 2 and MUPdate (SR 3.8, 3.9) ------------------------------------------------------------------------


def slot(driver, name):
    return last(driver)["boot_partitions"][f"slot_{name}"]


def test_slots_start_with_two_fixed_images():
    driver = EstateDriver()
    put(driver, config(2))
    assert last(driver)["boot_partitions"]["boot_disk"] == {"ok": "A"}
    for name, image in FIRST_IMAGES.items():
        assert slot(driver, name)["ok"]["artifact_hash"] == image.hash
        assert slot(driver, name)["ok"]["artifact_size"] == 1000


def test_an_artifact_that_nobody_has_is_told_and_the_slot_keeps_what_it_had():
    driver = EstateDriver()
    put(driver, config(2, slot_a=HASH))
    assert slot(driver, "a") == {"err": f"could not find desired artifact {HASH}"}
    put(driver, config(3))
    assert slot(driver, "a")["ok"]["artifact_hash"] == FIRST_IMAGES["a"].hash


def test_an_artifact_of_the_store_is_written_and_stays():
    driver = EstateDriver()
    driver.of(Ledger).images[HASH] = Image(HASH, 5096, b"\1" * 32, "helios")
    put(driver, config(2, slot_a=HASH))
    header = slot(driver, "a")["ok"]["header"]
    assert (header["image_name"], header["data_size"], header["sha256"]) == ("helios", 1000, [1] * 32)
    put(driver, config(3))
    assert slot(driver, "a")["ok"]["artifact_hash"] == HASH


@in_one_test(
    ("there", "asked", "told", "left"),
    [
        pytest.param(None, None, None, None, id="nobody asks"),
        pytest.param(None, OVERRIDE, {"ok": "no_override"}, None, id="none is there"),
        pytest.param(OVERRIDE, OVERRIDE, {"ok": "removed"}, None, id="it is removed"),
        pytest.param(OVERRIDE, None, None, OVERRIDE, id="it stays until somebody asks"),
    ],
)
def test_a_mupdate_override_goes_when_it_is_told_by_its_id(there, asked, told, left):
    driver = EstateDriver()
    driver.of(Ledger).override = there
    put(driver, config(2, remove_override=asked))
    removed = last(driver)["remove_mupdate_override"]
    assert (removed and removed["boot_disk_result"]) == told
    override = inventory(driver)["file_source_resolver"]["mupdate_override"]["boot_override"]["ok"]
    assert override == (None if left is None else {"mupdate_override_id": left})


def test_another_override_than_the_one_that_shall_go_stays():
    driver = EstateDriver()
    driver.of(Ledger).override = an_id(0x78)
    put(driver, config(2, remove_override=OVERRIDE))
    assert "err" in last(driver)["remove_mupdate_override"]["boot_disk_result"]
    assert driver.of(Ledger).override == an_id(0x78)


def test_under_an_override_no_slot_is_written():
    driver = EstateDriver()
    ledger = driver.of(Ledger)
    ledger.override, ledger.images[HASH] = OVERRIDE, Image(HASH, 5096, b"\1" * 32, "helios")
    put(driver, config(2, slot_a=HASH))
    assert slot(driver, "a")["ok"]["artifact_hash"] == FIRST_IMAGES["a"].hash


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(config(2, remove_override=OVERRIDE, zones=[zone(1, artifact=HASH)]), id="a zone"),
        pytest.param(config(2, remove_override=OVERRIDE, slot_a=HASH), id="a slot"),
    ],
)
def test_an_override_cannot_go_where_artifacts_are_used(wanted):
    driver = EstateDriver()
    with pytest.raises(BadRequest, match="sled config is invalid"):
        put(driver, wanted)
    assert inventory(driver)["ledgered_sled_config"] is None


@pytest.mark.parametrize(
    "wanted",
    [config(2, zones=[zone(1, artifact=HASH)]), config(2, slot_a=HASH), config(2, measurements=(HASH,))],
    ids=["a zone", "a slot", "a measurement"],
)
def test_a_strict_sled_wants_artifacts_before_the_configuration_that_names_them(wanted):
    with pytest.raises(BadRequest, match=f"artifacts are not in the store: {HASH}"):
        put(EstateDriver(strict=True), wanted)
    put(EstateDriver(), wanted)


# ---- restarts ------------------------------------------------------------------------------------------------------


def test_a_sled_that_starts_again_has_its_configuration_and_reconciles_it():
    driver = EstateDriver(hardware=Hardware(zpools=POOLS, disks=(BARE,)))
    ledger = driver.of(Ledger)
    ledger.images[HASH], ledger.boot_slot = Image(HASH, 5096, b"\1" * 32, "helios"), "b"
    put(driver, config(7, disks=[ADOPTED], slot_a=HASH))
    before = inventory(driver)
    again = EstateDriver(hardware=Hardware(zpools=POOLS, disks=(BARE,)))
    again.rack.sleds[next(iter(again.rack.sleds))].estate.kept["omicron-config"] = driver.of(Ledger).dump()
    assert inventory(again) == before


def test_configurations_are_compared_by_what_they_mean():
    assert config(2) == config(2)
    assert config(2) != config(2, disks=[disk(1)])
    assert attrs.asdict(config(2), recurse=False)["disks"].keys() == {an_id(0xD1), an_id(0xD2)}


def test_a_run_ends_when_it_is_due_and_not_when_somebody_else_is():
    driver = EstateDriver(pacer=Fixed(SECOND))
    put(driver, FULL)
    estate = driver.rack.sleds[SLED].estate
    ledger = driver.of(Ledger)
    estate.now_us += SECOND - 1
    ledger.tick()
    assert ledger.last is None
    estate.now_us += 1
    ledger.tick()
    assert ledger.last is not None
    ledger.tick()  # there is nothing to do
