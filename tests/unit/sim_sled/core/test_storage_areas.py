"""Local storage, disk snapshots and the disks of old (SR 3.4, 4.3, 4.9)."""

import uuid

import pytest
from msgspec.structs import replace
from support.rack.driving import V1, registration
from support.rack.estate import POOLS, SLED, START, EstateDriver, an_id, config, dataset
from support.rows import in_one_test

from sim_sled.core import contract
from sim_sled.core.errors import (
    Internal,
    InvalidRequest,
    Missing,
    NoSuchVmm,
    NotSupported,
    NotYetThere,
    TooMany,
)
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.storage.local import LocalDataset, LocalStorage
from sim_sled.core.storage.old_disks import DiskRuntime, DiskState, OldDisks
from sim_sled.core.storage.volumes import Volumes

POOL = POOLS[0].id
DATASET = uuid.UUID(an_id(1))
SIZES = LocalDataset(200, 100)
WITH_BOTH = config(2, datasets=[dataset(1, "local_storage_unencrypted"), dataset(2, "local_storage")])


def ensure(driver, pool=POOL, sizes=SIZES, *, encrypted=False):
    driver.ask(LocalStorage, LocalStorage.ensure, pool, DATASET, sizes, encrypted)


def delete(driver, pool=POOL, *, encrypted=False):
    driver.ask(LocalStorage, LocalStorage.delete, pool, DATASET, encrypted)


@pytest.fixture(name="driver")
def _driver():
    driver = EstateDriver()
    driver.ask(Ledger, configure.put, WITH_BOTH)
    return driver


def test_a_dataset_can_be_made_again_and_its_quota_follows(driver):
    ensure(driver)
    ensure(driver)
    ensure(driver, sizes=LocalDataset(300, 100))
    assert driver.of(LocalStorage).datasets == {(str(POOL), str(DATASET)): LocalDataset(300, 100)}


def test_a_volume_keeps_its_size(driver):
    ensure(driver)
    with pytest.raises(Internal):
        ensure(driver, sizes=LocalDataset(200, 101))
    assert driver.of(LocalStorage).datasets == {(str(POOL), str(DATASET)): SIZES}


def test_what_is_not_there_is_deleted_already(driver):
    delete(driver)
    ensure(driver)
    delete(driver)
    delete(driver)
    assert driver.of(LocalStorage).datasets == {}


def test_a_deleted_volume_may_have_another_size_next_time(driver):
    ensure(driver)
    delete(driver)
    ensure(driver, sizes=LocalDataset(9, 9))
    assert driver.of(LocalStorage).datasets == {(str(POOL), str(DATASET)): LocalDataset(9, 9)}


def test_encrypted_storage_cannot_be_made_but_deleted(driver):
    with pytest.raises(NotSupported, match="using encrypted local storage not supported"):
        ensure(driver, encrypted=True)
    delete(driver, encrypted=True)
    ensure(driver)
    delete(driver, encrypted=True)
    assert driver.of(LocalStorage).datasets, "an encrypted dataset of the same id is another one"


def test_encryption_is_looked_at_before_the_pool():
    with pytest.raises(NotSupported):
        ensure(EstateDriver(), pool=uuid.uuid4(), encrypted=True)


@pytest.mark.parametrize("call", [ensure, delete])
def test_a_pool_without_the_dataset_is_asked_again_for_ever(call):
    driver = EstateDriver()
    driver.ask(Ledger, configure.put, config(2))
    with pytest.raises(NotYetThere, match=f"local storage unencrypted dataset for pool {POOL} missing!"):
        call(driver)


def test_deleting_encrypted_storage_needs_its_own_dataset():
    driver = EstateDriver()
    driver.ask(Ledger, configure.put, config(2, datasets=[dataset(1, "local_storage_unencrypted")]))
    with pytest.raises(NotYetThere, match=f"^local storage dataset for pool {POOL} missing!"):
        delete(driver, encrypted=True)


def test_the_dataset_of_another_pool_does_not_count(driver):
    with pytest.raises(NotYetThere):
        ensure(driver, pool=POOLS[1].id)


def test_a_sled_that_nobody_configured_takes_what_concerns_its_pools():
    ensure(EstateDriver())
    with pytest.raises(NotYetThere):
        ensure(EstateDriver(), pool=uuid.uuid4())


def test_a_dataset_that_could_not_be_made_is_missing():
    driver = EstateDriver()
    driver.of(Ledger).faults.datasets[an_id(0xA01)] = "no space"
    driver.ask(Ledger, configure.put, WITH_BOTH)
    with pytest.raises(NotYetThere):
        ensure(driver)


def test_somebody_may_want_the_next_calls_to_fail(driver):
    driver.of(LocalStorage).errors_left = 2
    for call in (ensure, delete):
        with pytest.raises(TooMany):
            call(driver)
    ensure(driver)


# ---- snapshots -----------------------------------------------------------------------------------------------------

DISK = uuid.UUID(an_id(0x51))
SNAPSHOT = uuid.UUID(an_id(0x52))


class Agents:
    """Remembers what it was asked for; `broken`: this target has no region."""

    def __init__(self, broken=None):
        self.made = []
        self.broken = broken

    def snapshot(self, targets, snapshot_id, _now_us):
        for each in targets:
            if each == self.broken:
                raise Internal(f"no region at {each}")
            self.made.append((each, snapshot_id))


@pytest.fixture(name="vmm")
def _vmm():
    driver = EstateDriver()
    body = replace(registration(V1), disk_targets=((DISK, ("[::1]:1", "[::1]:2", "[::1]:3")),))
    driver.rack.handle(contract.Register(1, SLED, V1, body), START)
    driver.rack.sleds[SLED].regions = Agents()
    return driver


def snapshot(driver, vmm=V1, disk=DISK):
    return driver.ask(Volumes, Volumes.snapshot, vmm, disk, SNAPSHOT)


def test_a_snapshot_is_made_of_each_region(vmm):
    assert snapshot(vmm) == SNAPSHOT
    assert vmm.rack.sleds[SLED].regions.made == [(f"[::1]:{port}", SNAPSHOT) for port in (1, 2, 3)]


def test_snapshots_that_were_made_before_one_failed_stay(vmm):
    vmm.rack.sleds[SLED].regions = agents = Agents(broken="[::1]:3")
    with pytest.raises(Internal):
        snapshot(vmm)
    assert len(agents.made) == 2


def test_who_and_what_is_unknown_is_told_apart(vmm):
    with pytest.raises(NoSuchVmm):
        snapshot(vmm, vmm=uuid.UUID(int=9))
    with pytest.raises(Missing):
        snapshot(vmm, disk=uuid.UUID(int=9))


# ---- disks of old --------------------------------------------------------------------------------------------------

VM_A, VM_B = uuid.UUID(int=0xA), uuid.UUID(int=0xB)


@in_one_test(
    ("first", "target", "then"),
    [
        pytest.param(("creating", None), ("attached", VM_A), ("attached", VM_A), id="a new disk is attached"),
        pytest.param(("detached", None), ("attached", VM_A), ("attached", VM_A), id="a free one too"),
        pytest.param(("attached", VM_A), ("attached", VM_A), ("attached", VM_A), id="to the same again"),
        pytest.param(("attached", VM_A), ("attached", VM_B), None, id="not to another"),
        pytest.param(("attached", VM_A), ("detached", None), ("detached", None), id="detached"),
        pytest.param(("creating", None), ("detached", None), ("detached", None), id="detached from nowhere"),
        pytest.param(("attached", VM_A), ("destroyed", None), ("destroyed", None), id="destroyed while attached"),
        pytest.param(("detached", None), ("faulted", None), ("faulted", None), id="faulted"),
        pytest.param(("destroyed", None), ("attached", VM_A), None, id="nothing comes back"),
        pytest.param(("destroyed", None), ("detached", None), None, id="nor is it detached"),
        pytest.param(("import_ready", None), ("attached", VM_A), None, id="an import is not for a VM"),
    ],
)
def test_disks_of_old(first, target, then):
    driver = EstateDriver()
    runtime = DiskRuntime(DiskState(*first), 7, "2026-01-01T00:00:00Z")
    disk_id = uuid.UUID(int=5)
    if then is None:
        with pytest.raises(InvalidRequest):
            driver.ask(OldDisks, OldDisks.ensure, disk_id, runtime, DiskState(*target))
        assert driver.of(OldDisks).disks == {}
        return
    got = driver.ask(OldDisks, OldDisks.ensure, disk_id, runtime, DiskState(*target))
    assert got.state == DiskState(*then)
    assert got.gen == (7 if first == then else 8), "each change takes a generation"
    assert driver.ask(OldDisks, OldDisks.ensure, disk_id, runtime, DiskState(*target)) == got, "again is no change"
