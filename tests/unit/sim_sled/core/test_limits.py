"""What a sled keeps is limited: as many as it says, not one more, and what is one too many changes nothing."""

import copy
from uuid import UUID

import pytest
from support.rack.estate import POOLS, EstateDriver, config, dataset

from nexus_client.stub import upstairs
from sim_sled.core.artifacts import store as artifacts
from sim_sled.core.artifacts.store import ArtifactConfig, Artifacts
from sim_sled.core.bundles import store as bundles
from sim_sled.core.bundles.store import Bundles, Where
from sim_sled.core.crucible import agent as crucible
from sim_sled.core.crucible.agents import Agents
from sim_sled.core.crucible.values import RegionRequest
from sim_sled.core.errors import Internal, TooMany
from sim_sled.core.omicron_config import configure
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.storage import local, old_disks
from sim_sled.core.storage.local import LocalDataset, LocalStorage
from sim_sled.core.storage.old_disks import DiskRuntime, DiskState, OldDisks

MOST = 3
CREATING = DiskRuntime(DiskState("creating"), 1, "2026-01-01T00:00:00Z")


@pytest.fixture(name="driver")
def _driver(monkeypatch):
    for module, name in (
        (artifacts, "ARTIFACTS_MAX"),
        (bundles, "BUNDLES_MAX"),
        (crucible, "SNAPSHOTS_MAX"),
        (local, "DATASETS_MAX"),
        (old_disks, "DISKS_MAX"),
    ):
        monkeypatch.setattr(module, name, MOST)
    driver = EstateDriver()
    both = [dataset(1, "debug"), dataset(2, "local_storage_unencrypted")]
    driver.ask(Ledger, configure.put, config(2, datasets=both))
    return driver


def put_artifacts(driver, number):
    names = frozenset(f"{each:064x}" for each in range(number))
    driver.ask(Artifacts, Artifacts.put_config, ArtifactConfig(number, names))


def start_bundle(driver, number):
    where = Where(POOLS[0].id, UUID(dataset(1)["id"]))
    driver.ask(Bundles, Bundles.start, where, UUID(int=number))


def make_dataset(driver, number):
    driver.ask(LocalStorage, LocalStorage.ensure, POOLS[0].id, UUID(int=number), LocalDataset(2**30, 2**30), False)


def ensure_disk(driver, number):
    driver.ask(OldDisks, OldDisks.ensure, UUID(int=number), CREATING, DiskState("detached"))


def kept(driver):
    """Everything that the areas have, as they would write it down."""
    estate = driver.rack.sleds[next(iter(driver.rack.sleds))].estate
    there = {kind.__name__: made for kind, made in estate.made.items()}
    return copy.deepcopy(
        {
            name: {key: value for key, value in vars(made).items() if isinstance(value, dict | list | ArtifactConfig)}
            for name, made in there.items()
            if name in {"Artifacts", "Bundles", "LocalStorage", "OldDisks"}
        }
    )


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(put_artifacts, id="artifacts of a configuration"),
        pytest.param(start_bundle, id="bundles of a dataset"),
        pytest.param(make_dataset, id="local storage datasets"),
        pytest.param(ensure_disk, id="disks of API versions 1 to 20"),
    ],
)
def test_as_many_as_it_says_and_one_more_is_refused(driver, make):
    for number in range(1, MOST + 1):
        make(driver, number)
    before = kept(driver)
    with pytest.raises(TooMany, match=f"more than {MOST} "):
        make(driver, MOST + 1)
    assert kept(driver) == before
    make(driver, MOST)  # what is there may be asked for again


@pytest.mark.usefixtures("driver")
def test_snapshots_of_a_region():
    agents = Agents()
    agents.add_sled("::1", [UUID(int=1)])
    agent = agents.agent(UUID(int=1))
    region = agent.create(RegionRequest(UUID(int=10), 512, 131072, 2, True), 0)
    for number in range(MOST):
        agent.take_snapshot(region, f"s{number}", 0)
    with pytest.raises(Internal, match=f"has {MOST} snapshots"):
        agent.take_snapshot(region, "one too many", 0)
    assert list(region.snapshots) == ["s0", "s1", "s2"]


def test_of_what_upstairs_told_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(upstairs, "RECORDS_MAX", MOST)
    told = upstairs.Upstairs()
    for number in range(MOST + 1):
        told.downstairs("stopped", UUID(int=1), UUID(int=number), upstairs.Stopped("2026-01-01T00:00:00Z", "x"))
    assert [each.about.int for each in told.records] == [1, 2, 3]
