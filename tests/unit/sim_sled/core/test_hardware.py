"""Pools, disks and datasets of a sled follow from its id, unless somebody says what they are (SA 1.7, 6 #33)."""

import uuid

from sim_sled.core.config import CrucibleDataset, Hardware, PhysicalDisk, Zpool

SLED = uuid.UUID(int=7)
POOL = Zpool(uuid.UUID(int=1), 2**40, PhysicalDisk(uuid.UUID(int=2), "v", "m", "s"))


def test_a_sled_has_the_same_disks_at_each_start():
    assert Hardware().pools_of(SLED) == Hardware().pools_of(SLED)
    assert Hardware().crucible_datasets_of(SLED) == Hardware().crucible_datasets_of(SLED)


def test_two_sleds_share_no_disk_and_no_pool():
    mine, theirs = Hardware().pools_of(SLED), Hardware().pools_of(uuid.UUID(int=8))
    ids = [(pool.id, pool.disk.id, pool.disk.serial) for pool in (*mine, *theirs)]
    assert len({each for triple in ids for each in triple}) == 3 * 20


def test_pools_made_by_number_have_the_given_size_and_ids_that_pool_names_allow():
    pools = Hardware(zpools=3, zpool_size=5).pools_of(SLED)
    assert [pool.total_size for pool in pools] == [5, 5, 5]
    assert {pool.id.version for pool in pools} == {4}  # the documents' pattern of `oxp_…`


def test_pools_that_are_named_are_taken_as_they_are():
    assert Hardware(zpools=(POOL,)).pools_of(SLED) == (POOL,)


def test_each_pool_has_a_crucible_dataset_unless_somebody_says_which():
    hardware = Hardware(zpools=2)
    assert [each.zpool_id for each in hardware.crucible_datasets_of(SLED)] == [
        pool.id for pool in hardware.pools_of(SLED)
    ]
    named = (CrucibleDataset(POOL.id, uuid.UUID(int=3)),)
    assert Hardware(crucible_datasets=named).crucible_datasets_of(SLED) == named
    assert Hardware(crucible_datasets=()).crucible_datasets_of(SLED) == ()
