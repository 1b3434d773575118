"""The artifact store: configurations, membership, copies, host images (SR 4.2, 3.8)."""

import hashlib

import pytest
from support.rack.estate import EstateDriver, config
from support.rows import in_one_test

from sim_sled.core.artifacts.store import ArtifactConfig, Artifacts, image_of
from sim_sled.core.errors import BadRequest, ConfigGeneration, Missing, OtherGeneration, TooMany
from sim_sled.core.inventory import Inventory
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger

A, B, C = ("aa" * 32, "bb" * 32, "cc" * 32)


def wanted(generation, *artifacts):
    return ArtifactConfig(generation, frozenset(artifacts))


def put(driver, generation, *artifacts):
    driver.ask(Artifacts, Artifacts.put_config, wanted(generation, *artifacts))


def store(driver, sha256, head=b"", size=None):
    return driver.ask(Artifacts, Artifacts.stored, sha256, len(head) if size is None else size, head)


def listed(driver):
    return driver.ask(Artifacts, Artifacts.list)


def test_without_a_configuration_there_is_no_store():
    driver = EstateDriver()
    with pytest.raises(Missing):
        driver.ask(Artifacts, Artifacts.get_config)
    for call, args in ((Artifacts.list, ()), (Artifacts.check_put, (A, 1))):
        with pytest.raises(BadRequest, match="No artifact configuration present"):
            driver.ask(Artifacts, call, *args)


def test_an_artifact_that_is_not_listed_any_more_is_in_no_slot_after_a_restart_either():
    driver = EstateDriver()
    put(driver, 1, A)
    store(driver, A)
    estate = driver.of(Ledger).estate
    estate.unsaved.clear()
    put(driver, 2)
    assert estate.unsaved == {Artifacts, Ledger}
    again = EstateDriver()
    for area in (Ledger, Artifacts):
        again.of(area).load(driver.of(area).dump())
    again.ask(Ledger, configure.put, config(2, slot_a=A))
    assert again.ask(Inventory, Inventory.read)["last_reconciliation"]["boot_partitions"]["slot_a"] == {
        "err": f"could not find desired artifact {A}"
    }


@pytest.mark.parametrize("copies", [1, 2])
def test_one_copy_is_enough_for_a_depot_and_for_a_configuration(copies):
    driver = EstateDriver(strict=True)
    put(driver, 1, A)
    driver.of(Artifacts).disks = copies
    assert not driver.of(Artifacts).has(A)
    store(driver, A)
    assert listed(driver) == (1, {A: copies})
    assert (driver.of(Artifacts).has(A), driver.of(Artifacts).has(B)) == (True, False)
    driver.ask(Ledger, configure.put, config(2, slot_a=A))


@in_one_test(
    ("second", "refused"),
    [
        pytest.param(wanted(4, B), None, id="a newer one"),
        pytest.param(wanted(3, A, B), None, id="the same again"),
        pytest.param(wanted(3, A), "generation 3 while at 3", id="other artifacts of the same generation"),
        pytest.param(wanted(2, A, B), "generation 2 while at 3", id="an older one"),
    ],
)
def test_generations(second, refused):
    driver = EstateDriver()
    put(driver, 3, A, B)
    if refused is None:
        driver.ask(Artifacts, Artifacts.put_config, second)
        assert driver.ask(Artifacts, Artifacts.get_config) == second
    else:
        with pytest.raises(ConfigGeneration, match=refused):
            driver.ask(Artifacts, Artifacts.put_config, second)
        assert driver.ask(Artifacts, Artifacts.get_config) == wanted(3, A, B)


def test_order_of_refusals_of_an_upload():
    driver = EstateDriver()
    put(driver, 3, A)
    driver.of(Artifacts).disks = 0
    with pytest.raises(OtherGeneration, match="Attempt to put object with generation 2 while at 3"):
        driver.ask(Artifacts, Artifacts.check_put, B, 2)
    with pytest.raises(BadRequest, match=f"Attempt to put artifact {B} not in config generation 3"):
        driver.ask(Artifacts, Artifacts.check_put, B, 3)
    with pytest.raises(TooMany):
        driver.ask(Artifacts, Artifacts.check_put, A, 3)


def test_what_is_there_is_listed_with_its_copies():
    driver = EstateDriver()
    put(driver, 3, A, B)
    assert listed(driver) == (3, {})
    assert store(driver, A) == 2
    assert listed(driver) == (3, {A: 2})
    driver.of(Artifacts).disks = 1
    assert store(driver, B) == 1
    assert listed(driver) == (3, {A: 2, B: 1})
    driver.of(Artifacts).disks = 0
    assert store(driver, B) == 0
    assert listed(driver) == (3, {A: 2}), "of which no copy is left is not there"
    assert driver.of(Artifacts).complete() == {A}
    assert not driver.of(Artifacts).has(B)


def test_what_a_configuration_does_not_list_is_dropped():
    driver = EstateDriver()
    put(driver, 3, A, B)
    for each in (A, B):
        store(driver, each)
    put(driver, 4, B, C)
    assert listed(driver) == (4, {B: 2})
    assert driver.dropped == [f"artifacts/{A}"]
    put(driver, 5, A)
    assert listed(driver) == (5, {}), "it has to come again"


def test_an_upload_that_a_configuration_overtook_is_dropped():
    driver = EstateDriver()
    put(driver, 3, A)
    put(driver, 4, B)
    store(driver, A)
    assert listed(driver) == (4, {})
    assert driver.dropped == [f"artifacts/{A}"]


def test_a_strict_sled_keeps_what_its_configuration_uses():
    driver = EstateDriver(strict=True)
    put(driver, 3, A, B)
    store(driver, A)
    driver.ask(Ledger, configure.put, config(2, measurements=(A,)))
    with pytest.raises(BadRequest, match=f"not present in new artifact config: {{{A}}}"):
        put(driver, 4, B)
    put(driver, 4, A)


def test_the_store_is_there_after_a_restart():
    driver, again = EstateDriver(), EstateDriver()
    put(driver, 3, A, B)
    store(driver, A)
    again.of(Artifacts).load(driver.of(Artifacts).dump())
    assert listed(again) == (3, {A: 2})


# ---- host images ---------------------------------------------------------------------------------------------------


def host_image(data=b"x" * 512, *, magic=0x1DEB0075, version=2, target=None):
    head = b"".join(
        (
            magic.to_bytes(4, "little"),
            version.to_bytes(4, "little"),
            (3).to_bytes(8, "little"),
            len(data).to_bytes(8, "little"),
            len(data).to_bytes(8, "little"),
            (len(data) if target is None else target).to_bytes(8, "little"),
            hashlib.sha256(data).digest(),
            b"rpool/ROOT".ljust(128, b"\0"),
            b"helios 1.0".ljust(128, b"\0"),
        )
    )
    return head.ljust(4096, b"\0") + data


def test_a_host_image_is_told_by_its_header():
    image = host_image(target=1024)
    told = image_of(A, len(image), image[:4096])
    assert (told.image_name, told.flags, told.data_size, told.target_size) == ("helios 1.0", 3, 512, 1024)
    assert told.data_sha256 == hashlib.sha256(b"x" * 512).digest()
    assert image_of(A, 4096 + 512, host_image()[:4096]).image_name == "helios 1.0", "as large as its target"
    for head, size in ((image[:327], len(image)), (host_image(b"")[:4096], 4095)):
        assert image_of(A, size, head).image_name == A, "half a header is none"


@in_one_test(
    "image",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"short", id="no header"),
        pytest.param(host_image(magic=1), id="another magic number"),
        pytest.param(host_image(version=1), id="another version"),
        pytest.param(host_image(target=100), id="larger than its target"),
        pytest.param(host_image() + b"x", id="another size than it says"),
    ],
)
def test_anything_else_has_its_hash_for_a_name(image):
    told = image_of(A, len(image), image[:4096])
    assert (told.hash, told.image_name, told.data_size) == (A, A, len(image))


def test_an_artifact_that_arrives_late_is_written_to_the_slot_that_waits_for_it():
    driver = EstateDriver()
    put(driver, 1, A)
    driver.ask(Ledger, configure.put, config(2, slot_a=A))
    partitions = driver.ask(Inventory, Inventory.read)["last_reconciliation"]["boot_partitions"]
    assert "err" in partitions["slot_a"]
    image = host_image()
    store(driver, A, image[:4096], len(image))
    partitions = driver.ask(Inventory, Inventory.read)["last_reconciliation"]["boot_partitions"]
    assert partitions["slot_a"]["ok"]["artifact_hash"] == A
