"""Mishaps of the servers beside a sled, what upstairs tell Nexus, and restarts (SR 7.10, 8)."""

import json
from uuid import UUID

import pytest
from support.rack.estate import Fixed, config, nothing_changes_unheard, zone
from support.rack.estate import dataset as dataset_row
from support.rows import in_one_test
from support.wire.documents import fits

from propolis_stub.spec.volumes import Region, RegionOptions
from sim_sled.core import contract
from sim_sled.core.companions import Companions, Server, Where
from sim_sled.core.config import BareDisk, CrucibleDataset, Hardware, PhysicalDisk, SledConfig
from sim_sled.core.contract import TellNexus
from sim_sled.core.crucible.agent import Agent
from sim_sled.core.crucible.agents import equip
from sim_sled.core.crucible.blocks import Forgotten
from sim_sled.core.crucible.values import RegionRequest, RegionState
from sim_sled.core.dns.zones import Dns, DnsConfig, Record, Srv, Zone
from sim_sled.core.errors import BadRequest, ConnectionDropped, DnsBusy, Injected, Internal, Missing
from sim_sled.core.estate import ESTATE, ask
from sim_sled.core.mishaps import Adjust, BreakDownstairs, Refuse, SetRegion, TakeOver
from sim_sled.core.omicron_config.ledger import Ledger
from sim_sled.core.omicron_config.values import OmicronConfig
from sim_sled.core.pantry.pantry import Pantry
from sim_sled.core.rack import Rack
from sim_sled.language.pacer import PresetPacer

SLED = UUID(int=1)
REGION = RegionRequest(UUID(int=10), 512, 131072, 2, True)
REGION_ID = str(REGION.id)


class Bench:
    """One sled in a rack, asked through the one door of the core."""

    def __init__(self):
        self.rack = Rack(pacer=PresetPacer("instant"), seed=0)
        self.sled = self.rack.add_sled(SledConfig(SLED, "[::1]:0", hardware=Hardware(zpools=3)))
        equip(self.rack.sleds.values())
        self.datasets = [each.dataset_id for each in self.sled.config.hardware.crucible_datasets_of(SLED)]
        self.now_us = 0
        self.told = []
        self._ticket = 0

    def area(self, how, *args):
        self._ticket += 1
        call = contract.CallArea(self._ticket, SLED, ESTATE, ask(Companions, how, *args))
        with nothing_changes_unheard(self.rack):
            effects = self.rack.handle(call, self.now_us)
        self.told += [each for each in effects if isinstance(each, TellNexus)]
        (value,) = (each.value for each in effects if isinstance(each, contract.Reply))
        return value

    def suffer(self, mishap):
        return self.area(Companions.suffer, mishap)

    def crucible(self, op, how, *args, dataset=0):
        return self.area(Companions.call, Where(Server.CRUCIBLE, self.datasets[dataset]), op, how, args)

    def pantry(self, op, how, *args):
        return self.area(Companions.call, Where(Server.PANTRY), op, how, args)

    def create(self, **at):
        return self.crucible("region_create", Agent.create, REGION, **at)

    def wait(self, us):
        self.now_us += us
        with nothing_changes_unheard(self.rack):
            effects = self.rack.handle(contract.Tick(), self.now_us)
        self.told += [each for each in effects if isinstance(each, TellNexus)]


@pytest.fixture(name="bench")
def _bench():
    return Bench()


def test_a_pantry_that_has_crashed_answers_nothing_and_the_other_servers_go_on(bench):
    bench.suffer(Adjust("pantry", (("crashed", True),)))
    for op, how, *args in (("pantry_status", Pantry.status), ("detach", Pantry.detach, "v")):
        with pytest.raises(ConnectionDropped, match="crashed"):
            bench.pantry(op, how, *args)
    assert bench.crucible("region_list", lambda agent: len(agent.regions)) == 0


def test_the_next_answers_of_an_operation_are_refused_at_one_agent_only(bench):
    bench.suffer(Refuse("region_create", 503, 2, bench.datasets[0]))
    bench.create(dataset=1)
    for _ in range(2):
        with pytest.raises(Injected) as caught:
            bench.create()
        assert caught.value.status == 503
    assert bench.crucible("region_list", lambda agent: len(agent.regions)) == 0
    assert bench.create().state is RegionState.CREATED


def test_a_connection_can_break_instead(bench):
    bench.suffer(Refuse("pantry_status", None))
    with pytest.raises(ConnectionDropped):
        bench.pantry("pantry_status", Pantry.status)
    assert bench.pantry("pantry_status", Pantry.status) == ([], 0)


def test_a_disk_stuck_in_creating_goes_on_when_the_knob_is_turned_back(bench):
    def born(state):
        bench.suffer(Adjust("crucible", (("born", state),), bench.datasets[0]))

    born(RegionState.REQUESTED)
    region = bench.create()
    bench.wait(10**12)
    assert region.state is RegionState.REQUESTED
    born(RegionState.CREATED)
    assert region.state is RegionState.CREATED


def test_creation_takes_its_time_through_the_timer_of_the_rack(bench):
    bench.suffer(Adjust("crucible", (("create_us", 50), ("delete_us", 70)), bench.datasets[0]))
    region = bench.create()
    assert (region.state, bench.rack.next_deadline_us()) == (RegionState.REQUESTED, 50)
    bench.wait(50)
    assert region.state is RegionState.CREATED
    bench.crucible("region_delete", Agent.delete, REGION_ID)
    bench.wait(69)
    assert region.state is RegionState.TOMBSTONED
    bench.wait(1)
    assert region.state is RegionState.DESTROYED


def volume(bench):
    return Region(
        block_size=512, blocks_per_extent=131072, extent_count=2, gen=1,
        opts=RegionOptions(
            id=UUID(int=5), target=tuple(f"[::1]:{port}" for port in (1000, 1050, 1100)), lossy=False, read_only=False
        ),
    )  # fmt: skip


def test_a_pantry_that_never_activates_goes_on_when_the_knob_is_turned_back(bench):
    bench.suffer(Adjust("pantry", (("activates", False),)))
    bench.pantry("attach_activate_background", Pantry.attach_in_background, "v", volume(bench), "job")
    bench.wait(10**12)
    assert not bench.pantry("is_job_finished", Pantry.is_finished, "job")
    bench.suffer(Adjust("pantry", (("activates", True),)))
    assert bench.pantry("is_job_finished", Pantry.is_finished, "job")
    bench.suffer(TakeOver("v"))
    assert bench.pantry("volume_status", Pantry.volume, "v").gone


def test_dns_and_depot_misbehave(bench):
    config = DnsConfig(1, 1, "2026-11-28T00:00:00Z", ())
    bench.suffer(Adjust("dns", (("busy", True),)))
    with pytest.raises(DnsBusy):
        bench.area(Companions.call, Where(Server.DNS), "dns_config_put", Dns.put, (config,))
    bench.suffer(Adjust("repo-depot", (("broken", True),)))
    with pytest.raises(Injected):
        bench.area(
            Companions.call, Where(Server.REPO_DEPOT), "artifact_get_by_sha256", Companions.has_artifact, ("a",)
        )


@in_one_test(
    "mishap",
    [
        Refuse("no_such_operation", 503),
        Refuse("attach", 200),
        Refuse("attach", 503, 0),
        Adjust("nobody", ()),
        Adjust("crucible", ()),
        Adjust("pantry", (("no_such_knob", 1),)),
        Adjust("pantry", (("attach_us", -1),)),
        Adjust("pantry", (("attach_us", True),)),
        Adjust("pantry", (("jobs_ok", False), ("job_us", "soon"))),
    ],
)
def test_what_is_no_mishap_changes_nothing(bench, mishap):
    before = bench.area(Companions.overview)
    with pytest.raises(BadRequest):
        bench.suffer(mishap)
    assert bench.area(Companions.overview) == before


def test_mishaps_of_what_is_not_there(bench):
    for mishap in (
        SetRegion(bench.datasets[0], UUID(int=404), RegionState.FAILED),
        SetRegion(UUID(int=404), REGION.id, RegionState.FAILED),
        TakeOver("v"),
        BreakDownstairs(bench.datasets[0], REGION.id),
    ):
        with pytest.raises(Missing):
            bench.suffer(mishap)


def test_upstairs_tell_nexus_of_a_repair_from_its_start_to_its_end(bench):
    for dataset in range(3):
        bench.create(dataset=dataset)
    bench.pantry("attach", Pantry.attach, "v", volume(bench))
    bench.suffer(BreakDownstairs(bench.datasets[1], REGION.id, repair_us=100))
    assert [each.path.rpartition("/")[2] for each in bench.told] == ["stopped", "repair-start"]
    bench.wait(50)
    bench.wait(50)
    kinds = ["stopped", "repair-start", "progress", "repair-finish"]
    assert [each.path.rpartition("/")[2] for each in bench.told] == kinds
    schemas = ["DownstairsClientStopped", "RepairStartInfo", "RepairProgress", "RepairFinishInfo"]
    for told, schema in zip(bench.told, schemas, strict=True):
        assert not fits("nexus-internal/1.0.0", schema, told.body)
        assert told.path.startswith(f"/crucible/0/upstairs/{UUID(int=5)}/")
    assert bench.told[1].body["repairs"] == [{"region_uuid": REGION_ID, "target_addr": "[::1]:1050"}]
    assert bench.told[3].body["aborted"] is False
    assert (bench.told[2].body["current_item"], bench.told[2].body["total_items"]) == (1, 2), "half of it"
    assert [each.body["time"][14:] for each in bench.told] == [
        "00:00.000000Z", "00:00.000000Z", "00:00.000050Z", "00:00.000100Z",
    ]  # fmt: skip


def test_an_aborted_repair_leaves_a_failed_region_and_nobody_who_does_not_write_says_anything(bench):
    region = bench.create()
    bench.suffer(BreakDownstairs(bench.datasets[0], REGION.id, aborted=True))
    assert (region.state, bench.told) == (RegionState.FAILED, [])
    with pytest.raises(BadRequest):
        bench.suffer(BreakDownstairs(bench.datasets[0], REGION.id))


def test_regions_snapshots_and_dns_outlive_a_restart_but_not_the_bytes(bench):
    region = bench.create()
    bench.create(dataset=1)
    region.blocks.write(0, b"x" * 512)
    agent = bench.sled.regions.agent(bench.datasets[0])
    agent.take_snapshot(region, "s", 7)
    bench.crucible("region_run_snapshot", Agent.run_snapshot, REGION_ID, "s")
    srv = Record("SRV", Srv(0, 0, 17000, "a.host.z"))
    config = DnsConfig(
        4, 4, "2026-11-28T00:00:00Z", (Zone("z", {"_p._tcp": (srv,), "a.host": (Record("AAAA", "::1"),)}),)
    )
    bench.area(Companions.fill_dns, config)
    kept = json.loads(json.dumps(bench.sled.estate.of(Companions).dump()))
    later = Bench()
    later.sled.estate.kept["companions"] = kept
    again = later.create()
    assert (again.port, again.state, list(again.snapshots)) == (1000, RegionState.CREATED, ["s"])
    running = later.crucible("region_run_snapshot", Agent.run_snapshot, REGION_ID, "s")
    assert (running.port, running.state) == (1001, RegionState.CREATED)
    assert later.sled.estate.of(Companions).dns.config.zones == config.zones
    with pytest.raises(Forgotten):
        again.blocks.read(0, 512)
    assert later.create(dataset=1).blocks.read(0, 512) == bytes(512)
    assert json.loads(json.dumps(later.sled.estate.of(Companions).dump())) == kept


def test_a_snapshot_that_somebody_elses_disk_makes_is_to_be_kept(bench):
    """By the sled that has the region, also if a later target is missing: what was made before stays."""
    region = bench.create()
    at = str(bench.sled.regions.address_of(bench.datasets[0], region.port, "::1"))
    bench.sled.estate.unsaved.clear()
    with pytest.raises(Internal, match="no region behind"):
        bench.sled.regions.snapshot([at, "[::1]:1"], UUID(int=77), 5)
    assert list(region.snapshots) == [str(UUID(int=77))]
    assert bench.sled.estate.unsaved == {Companions}


def test_that_a_region_has_bytes_is_to_be_kept_once(bench):
    """Else it would read as zeros after a restart, instead of saying that its bytes are gone."""
    region = bench.create()
    at = str(bench.sled.regions.address_of(bench.datasets[0], region.port, "::1"))
    for expected in ({Companions}, set()):
        bench.sled.estate.unsaved.clear()
        for each in bench.sled.regions.to_write([at]):
            each.blocks.write(0, b"x")
        assert bench.sled.estate.unsaved == expected


ADOPTED = BareDisk(PhysicalDisk(UUID(int=0xD1), "v", "m", "new"), 2**39)
"""A disk that no pool is on; the configurations of these tests put POOL there."""
POOL = str(UUID(int=0xB1))
DATASET = UUID(int=0xC1)


def adopting(generation, *addresses, crucible=True, pool=POOL):
    """A configuration that adopts the disk, with a Crucible zone at each address."""
    row = dataset_row(1, "crucible" if crucible else "debug") | {"id": str(DATASET)}
    row["name"]["pool_name"] = f"oxp_{pool}"
    zones = [zone(number, "crucible") for number, _ in enumerate(addresses)]
    for each, address in zip(zones, addresses, strict=True):
        each["filesystem_pool"] = f"oxp_{POOL}"
        each["zone_type"] |= {"address": address, "dataset": {"pool_name": f"oxp_{POOL}"}}
    bare = {"id": str(ADOPTED.disk.id), "identity": {"vendor": "v", "model": "m", "serial": "new"}, "pool_id": POOL}
    return config(generation, disks=[bare], datasets=[row], zones=zones)


class Adopting(Bench):
    """A sled with a bare disk and no Crucible dataset of its own; `asked`: what it wants listened for, each time."""

    def __init__(self, reconciles_us=0):
        super().__init__()
        self.rack = Rack(pacer=PresetPacer("instant"), seed=0)
        self.rack.sled_pacer = Fixed(reconciles_us)
        self.sled = self.rack.add_sled(SledConfig(SLED, "[::1]:0", hardware=Hardware(zpools=0, disks=(ADOPTED,))))
        equip(self.rack.sleds.values())
        self.asked = []

    def configure(self, wanted):
        call = contract.CallArea(0, SLED, ESTATE, ask(Ledger, Ledger.take, wanted))
        self._hear(self.rack.handle(call, self.now_us))

    def tick(self):
        self._hear(self.rack.handle(contract.Tick(), self.now_us))

    def _hear(self, effects):
        self.asked += [each.servers for each in effects if isinstance(each, contract.ServeZones)]


AGENT = contract.ZoneServer("[fd00::21]:32345", DATASET)


def test_a_zone_is_listened_for_when_it_has_started_and_not_again_while_nothing_is_different():
    bench = Adopting(reconciles_us=5)
    bench.configure(adopting(2, AGENT.address))
    assert bench.asked == [], "the run takes its time"
    bench.now_us = 5
    bench.tick()
    assert bench.asked == [(AGENT,)]
    bench.configure(adopting(3, AGENT.address))
    bench.now_us = 10
    bench.tick()
    assert bench.asked == [(AGENT,)]
    bench.configure(adopting(4))
    bench.now_us = 15
    bench.tick()
    assert bench.asked == [(AGENT,), ()]


@pytest.mark.parametrize(
    "wanted",
    [
        adopting(2, AGENT.address, crucible=False),
        adopting(2, AGENT.address, pool=str(UUID(int=0xB2))),
        config(2, disks=[], zones=[zone(1, "internal_ntp", on=None), zone(2, "crucible_pantry", on=None)]),
    ],
    ids=["no Crucible dataset", "one of another pool", "zones that did not start"],
)
def test_a_zone_that_cannot_run_is_not_listened_for(wanted):
    bench = Adopting()
    bench.configure(wanted)
    assert bench.asked == []
    assert bench.area(Companions.datasets) == ()


def test_a_pantry_is_listened_for_and_other_kinds_of_zones_are_not():
    bench = Adopting()
    pantry = zone(1, "crucible_pantry") | {"filesystem_pool": f"oxp_{POOL}"}
    ntp = zone(2, "internal_ntp") | {"filesystem_pool": f"oxp_{POOL}"}
    wire = adopting(2).wire | {"zones": {row["id"]: row for row in (pantry, ntp)}}
    bench.configure(OmicronConfig(wire))
    assert bench.asked == [(contract.ZoneServer(pantry["zone_type"]["address"], None),)]


def test_the_agent_of_an_adopted_disk_outlives_a_restart_before_the_sled_has_reconciled_again():
    bench = Adopting()
    bench.configure(adopting(2, AGENT.address))
    bench.datasets = [DATASET]
    region = bench.create()
    at = str(bench.sled.regions.address_of(DATASET, region.port, "::1"))
    assert (at, bench.sled.regions.region(at)) == ("[fd00::21]:1000", region), "volumes find it at the zone's host"
    kept = json.loads(json.dumps(bench.sled.estate.of(Companions).dump()))
    later = Adopting()
    later.datasets = [DATASET]
    later.sled.estate.kept["companions"] = kept
    assert (later.create().port, later.area(Companions.datasets)) == (region.port, (DATASET,))


def test_an_adopted_dataset_with_the_id_of_another_sleds_gets_no_agent():
    bench = Adopting()
    taken = Hardware(zpools=0, crucible_datasets=(CrucibleDataset(UUID(POOL), DATASET),))
    other = bench.rack.add_sled(SledConfig(UUID(int=2), "[::1]:0", hardware=taken))
    equip([other], bench.sled.regions)
    bench.configure(adopting(2, AGENT.address))
    assert bench.area(Companions.datasets) == ()
    with pytest.raises(Missing, match="another sled's"):
        bench.suffer(SetRegion(DATASET, REGION.id, RegionState.FAILED))


@pytest.mark.parametrize(
    "mishap",
    [
        lambda dataset: Adjust("crucible", (("create_us", 50),), dataset),
        lambda dataset: SetRegion(dataset, REGION.id, RegionState.FAILED),
        lambda dataset: BreakDownstairs(dataset, REGION.id, 0, True),
    ],
    ids=["a knob", "a state", "a break"],
)
def test_a_mishap_of_one_sled_does_not_reach_the_agents_of_another(bench, mishap):
    other = bench.rack.add_sled(SledConfig(UUID(int=2), "[::1]:0", hardware=Hardware(zpools=3)))
    agents = equip(bench.rack.sleds.values())
    dataset = other.config.hardware.crucible_datasets_of(UUID(int=2))[0].dataset_id
    region = agents.agent(dataset).create(REGION, 0)
    with pytest.raises(Missing, match="another sled's"):
        bench.suffer(mishap(dataset))
    assert region.state is RegionState.CREATED
    assert agents.agent(dataset).knobs.create_us == 0
