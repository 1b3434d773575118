"""Support bundles: checks in order, states, and datasets that take them along (SR 4.1)."""

import uuid

import pytest
from support.rack.estate import POOLS, SLED, EstateDriver, an_id, config, dataset

from sim_sled.core.bundles.store import Bundles, Where, complete_key, temporary_key
from sim_sled.core.errors import BadRequest, Internal, Missing, NoNestedDataset
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger

DEBUG = Where(POOLS[0].id, uuid.UUID(an_id(0xA01)))
BUNDLE = uuid.UUID(an_id(0xBB))
HASH, OTHER = "ab" * 32, "cd" * 32
CONFIG = config(2, datasets=[dataset(1, "debug"), dataset(2, "crucible"), dataset(3, "debug", on=2)])


@pytest.fixture(name="driver")
def _driver():
    driver = EstateDriver()
    driver.ask(Ledger, configure.put, CONFIG)
    return driver


def ask(driver, how, *args, where=DEBUG):
    return driver.ask(Bundles, how, where, *args)


def finish(driver, wanted, found, where=DEBUG):
    which = ask(driver, Bundles.check_finalize, BUNDLE, wanted, where=where)
    ask(driver, Bundles.finalize, BUNDLE, wanted, found, which, where=where)


def complete(driver, where=DEBUG):
    ask(driver, Bundles.start, BUNDLE, where=where)
    finish(driver, HASH, HASH, where=where)


CALLS = [
    pytest.param(Bundles.list, (), id="list"),
    pytest.param(Bundles.start, (BUNDLE,), id="start"),
    pytest.param(Bundles.check_transfer, (BUNDLE,), id="transfer"),
    pytest.param(Bundles.check_finalize, (BUNDLE, HASH), id="finalize"),
    pytest.param(Bundles.check_read, (BUNDLE,), id="read"),
    pytest.param(Bundles.delete, (BUNDLE,), id="delete"),
]


@pytest.mark.parametrize(("how", "args"), CALLS)
def test_the_dataset_is_looked_at_first(how, args, driver):
    with pytest.raises(Missing, match="no sled configuration"):
        ask(EstateDriver(), how, *args)
    with pytest.raises(Missing, match="no dataset"):
        ask(driver, how, *args, where=Where(uuid.uuid4(), uuid.uuid4()))
    with pytest.raises(Internal):
        ask(driver, how, *args, where=Where(POOLS[1].id, DEBUG.dataset_id))
    with pytest.raises(Missing, match="belongs to a zone"):
        ask(driver, how, *args, where=Where(POOLS[0].id, uuid.UUID(an_id(0xA02))))
    driver.of(Bundles).unmounted.add(str(DEBUG.dataset_id))
    with pytest.raises(Internal, match="not mounted"):
        ask(driver, how, *args)


@pytest.mark.parametrize(("how", "args"), [each for each in CALLS if each.id in {"transfer", "finalize", "read"}])
def test_an_unknown_bundle_is_missing(how, args, driver):
    with pytest.raises(Missing, match="no bundle"):
        ask(driver, how, *args)


def test_only_one_refusal_tells_nexus_that_a_bundle_is_gone(driver):
    with pytest.raises(NoNestedDataset):
        ask(driver, Bundles.delete, BUNDLE)
    complete(driver)
    ask(driver, Bundles.delete, BUNDLE)
    assert {temporary_key(DEBUG, BUNDLE), complete_key(DEBUG, BUNDLE)} <= set(driver.dropped)
    with pytest.raises(NoNestedDataset):
        ask(driver, Bundles.delete, BUNDLE)


def test_a_bundle_is_incomplete_until_it_is_finalised(driver):
    assert ask(driver, Bundles.start, BUNDLE) == "incomplete"
    assert ask(driver, Bundles.list) == [(BUNDLE, "incomplete")]
    with pytest.raises(Internal, match="not complete"):
        ask(driver, Bundles.check_read, BUNDLE)
    ask(driver, Bundles.check_transfer, BUNDLE)
    finish(driver, HASH, HASH)
    assert ask(driver, Bundles.list) == [(BUNDLE, "complete")]
    ask(driver, Bundles.check_read, BUNDLE)


def test_starting_again_throws_away_what_was_transferred(driver):
    ask(driver, Bundles.start, BUNDLE)
    driver.dropped.clear()
    ask(driver, Bundles.start, BUNDLE)
    assert driver.dropped == [temporary_key(DEBUG, BUNDLE)]


def test_a_complete_bundle_is_not_touched_by_a_start(driver):
    complete(driver)
    driver.dropped.clear()
    assert ask(driver, Bundles.start, BUNDLE) == "complete"
    assert driver.dropped == []
    with pytest.raises(Internal):
        ask(driver, Bundles.check_transfer, BUNDLE)


def test_another_hash_leaves_the_transfer_open(driver):
    ask(driver, Bundles.start, BUNDLE)
    with pytest.raises(BadRequest, match=r"^Hash mismatch$"):
        finish(driver, OTHER, HASH)
    ask(driver, Bundles.check_transfer, BUNDLE)
    finish(driver, HASH, HASH)


def test_finalising_again_is_no_error_with_the_same_hash(driver):
    """SA 6 #32: the original looks for a temporary file that is gone."""
    complete(driver)
    assert ask(driver, Bundles.check_finalize, BUNDLE, HASH) is None
    with pytest.raises(BadRequest, match=r"^Hash mismatch$"):
        ask(driver, Bundles.check_finalize, BUNDLE, OTHER)


def test_a_transfer_that_breaks_off_has_to_be_started_again(driver):
    ask(driver, Bundles.start, BUNDLE)
    ask(driver, Bundles.broke_off, BUNDLE, 1)
    assert ask(driver, Bundles.list) == [(BUNDLE, "incomplete")]
    for how, args in ((Bundles.check_transfer, (BUNDLE,)), (Bundles.check_finalize, (BUNDLE, HASH))):
        with pytest.raises(Internal):
            ask(driver, how, *args)
    ask(driver, Bundles.start, BUNDLE)
    ask(driver, Bundles.check_transfer, BUNDLE)


def test_a_dataset_that_leaves_takes_its_bundles_along(driver):
    complete(driver)
    second = Where(POOLS[1].id, uuid.UUID(an_id(0xA03)))
    complete(driver, second)
    driver.ask(Ledger, configure.put, config(3, datasets=[dataset(3, "debug", on=2)]))
    assert driver.dropped[-1] == DEBUG.key
    with pytest.raises(Missing):
        ask(driver, Bundles.list)
    assert ask(driver, Bundles.list, where=second) == [(BUNDLE, "complete")]
    driver.ask(Ledger, configure.put, config(4, datasets=[dataset(1, "debug")]))
    assert ask(driver, Bundles.list) == [], "it comes back empty"


def test_a_dataset_that_moves_to_another_pool_leaves_its_bundles_behind(driver):
    complete(driver)
    moved = [dataset(1, "debug", on=2), dataset(2, "crucible"), dataset(3, "debug", on=2)]
    driver.ask(Ledger, configure.put, config(3, datasets=moved))
    assert driver.dropped[-1] == DEBUG.key
    assert ask(driver, Bundles.list, where=Where(POOLS[1].id, DEBUG.dataset_id)) == []


def test_somebody_may_want_finalisations_to_fail(driver):
    ask(driver, Bundles.start, BUNDLE)
    driver.of(Bundles).mismatches_left = 1
    with pytest.raises(BadRequest, match=r"^Hash mismatch$"):
        finish(driver, HASH, HASH)
    finish(driver, HASH, HASH)


def test_bundles_are_there_after_a_restart(driver):
    complete(driver)
    again = EstateDriver()
    again.ask(Ledger, configure.put, CONFIG)
    again.of(Bundles).load(driver.of(Bundles).dump())
    assert ask(again, Bundles.list) == [(BUNDLE, "complete")]


def test_a_connection_that_is_noticed_to_be_gone_late_hurts_nobody(driver):
    ask(driver, Bundles.start, BUNDLE)
    of_round = ask(driver, Bundles.check_transfer, BUNDLE)
    ask(driver, Bundles.start, BUNDLE)
    driver.dropped.clear()
    ask(driver, Bundles.broke_off, BUNDLE, of_round)
    assert driver.dropped == []
    with pytest.raises(Internal, match="given up"):
        ask(driver, Bundles.transferred, BUNDLE, of_round)
    finish(driver, HASH, HASH)


@pytest.mark.parametrize("meanwhile", [Bundles.start, Bundles.check_transfer])
def test_bytes_that_changed_while_they_were_hashed_are_not_finalised(meanwhile, driver):
    ask(driver, Bundles.start, BUNDLE)
    which = ask(driver, Bundles.check_finalize, BUNDLE, HASH)
    ask(driver, meanwhile, BUNDLE)
    with pytest.raises(Internal):
        ask(driver, Bundles.finalize, BUNDLE, HASH, HASH, which)
    finish(driver, HASH, HASH)


def test_a_transfer_that_broke_off_is_forgotten_also_after_a_restart(driver):
    ask(driver, Bundles.start, BUNDLE)
    of_round = ask(driver, Bundles.check_transfer, BUNDLE)
    estate = driver.rack.sleds[SLED].estate
    estate.unsaved.clear()
    driver.dropped.clear()
    ask(driver, Bundles.broke_off, BUNDLE, of_round + 1)
    assert (estate.unsaved, driver.dropped) == (set(), []), "one that was started again since is not touched"
    ask(driver, Bundles.broke_off, BUNDLE, of_round)
    assert estate.unsaved == {Bundles}
    assert driver.dropped == [temporary_key(DEBUG, BUNDLE)]
