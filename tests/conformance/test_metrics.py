"""Metrics and probes of the three programs: parsed by prometheus-client, counted against what happened."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.wire.control_apis import ALL, SLED, a_daemon, a_nexus, a_propolis

from nexus_client.dropshot.control import Guard
from nexus_client.dropshot.control_api import ControlApi
from nexus_client.dropshot.listen import Server, listen
from nexus_client.dropshot.observing import BOUNDS_US, OTHERS, SLOTS_MAX, Histogram, Slots
from nexus_client.dropshot.text import SocketAddress
from sim_sled.core.happenings import Happening, Kind
from sim_sled.daemon.control import ABOUT, OPERATIONS, Control
from sim_sled.daemon.front import sums
from sim_sled.daemon.metrics import Counters

ROOT = Path(__file__).parents[2]


async def scraped(served):
    """Families by name."""
    status, media, text = await served.ask("GET", "/metrics")
    assert (status, media) == (200, "text/plain")
    return {family.name: family for family in text_string_to_metric_families(text)}


def values(family, **labels):
    """The values of the samples with these labels."""
    return [each.value for each in family.samples if labels.items() <= each.labels.items()]


async def after_its_story(which):
    """The metrics after everything that a control API can be asked for; of a daemon, what it counts is looked at."""
    async with ALL[which]() as served:
        async for method, _, path, body in served.story():
            await served.ask(method, path, body)
        found = await scraped(served)
        if which == "daemon":
            assert values(found["sim_sled_faults_fired"], rule="notes") == [1]
            injected = sum(line.kind is Kind.INJECTED for _, line, _ in served.daemon.look.happenings)
            assert sum(values(found["sim_sled_happenings"], kind="injected")) == injected > 0
        return found


async def test_a_daemons_counters_say_what_happened():
    async with a_daemon() as served:
        await served._vm("web-1")
        await served._vm("web-2")
        async for _ in _acknowledged(served):
            pass
        found = await scraped(served)
        history = [line for _, line, _ in served.daemon.look.happenings]
        sent = sum(line.kind is Kind.SENT for line in history)
        acked = sum(line.kind is Kind.ACKED for line in history)
        happenings = found["sim_sled_happenings"]
        assert sum(values(happenings, kind="sent")) == sent > 0
        assert sum(values(happenings, kind="acked")) == acked > 0
        reports = found["sim_sled_report_duration_seconds"]
        assert sum(each.value for each in reports.samples if each.name.endswith("_count")) == acked
        assert all(each.value > 0 for each in reports.samples if each.name.endswith("_sum") and _busy(reports, each))
        started = sum(values(found["sim_sled_transitions"], **{"from": "starting", "to": "running"}))
        assert started == 2
        assert sum(values(found["sim_sled_vmms"])) == 2
        assert sum(values(found["sim_sled_unacknowledged"])) == 0
        assert values(found["sim_sled_sleds_registered"]) == [2]
        assert sum(values(found["sim_sled_memory_used_bytes"])) == 2 * 2**30


async def _acknowledged(served):
    while any(len(sled.outbox) for sled in served.daemon.rack.sleds.values()):
        await served.daemon.look.change(1)
        yield


def _busy(family, sample):
    return any(each.value for each in family.samples if each.name.endswith("_count") and each.labels == sample.labels)


async def test_faults_of_the_model_are_counted():
    async with a_nexus() as nexus:
        await nexus.ask("POST", "/v1/faults", {"do": "answer", "match": "/vmms/", "times": 1})
        body = {"name": "web-1", "ncpus": 1, "memory": 2**30, "sled_id": str(SLED)}
        await nexus.ask("POST", "/v1/instances", body)
        await nexus._reaches("running")
        found = await scraped(nexus)
        assert values(found["sim_nexus_faults_fired"], do="answer") == [1]
        assert values(found["sim_nexus_instances"], state="running") == [1]
        assert values(found["sim_nexus_transitions"], to="running") == [1]
        calls = found["sim_nexus_sled_call_duration_seconds"]
        made = sum(each.value for each in calls.samples if each.name.endswith("_count"))
        assert made >= 2, "it registers a VMM and has it run"
        assert {each.labels["sled_id"] for each in calls.samples} == {str(SLED)}
        reported = found["sim_nexus_report_duration_seconds"]
        assert sum(each.value for each in reported.samples if each.name.endswith("_count")) >= 1


async def test_a_propolis_counts_changes_of_state_of_each_vm_anew():
    async with a_propolis() as served:
        found = await scraped(served)
        assert values(found["propolis_stub_vm_present"]) == [1]
        changes = found["propolis_stub_transitions"]
        assert values(changes, **{"from": "", "to": "Creating"}) == [1]
        assert values(changes, **{"from": "Starting", "to": "Running"}) == [1]
        await served.ask("POST", "/control/crash")
        assert values((await scraped(served))["propolis_stub_crashes"]) == [1]


@pytest.mark.early
async def test_after_all_stories_names_have_units_no_label_names_a_vmm_and_the_dashboard_has_what_it_asks_for():
    there = set()
    for found in await asyncio.gather(*map(after_its_story, ALL)):
        names_have_units_and_no_label_names_a_vmm(found)
        for name, family in found.items():
            kinds = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
            there |= {name + kind for kind in kinds}
    dashboard = json.loads((ROOT / "deploy/grafana/sim-sled.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    names = {name for expr in asked for name in re.findall(r"\b(?:sim_|propolis_|process_)\w+", expr)}
    assert len(names) > 15
    assert names <= there, names - there
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in dashboard["panels"]})


def names_have_units_and_no_label_names_a_vmm(found):
    assert values(found["target"] if "target" in found else found["target_info"]) == [1]
    for name, family in found.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert family.documentation, name
        if family.type == "counter":
            assert all(each.name.endswith("_total") for each in family.samples), name
        if family.type == "histogram":
            assert name.endswith("_seconds"), name
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert label in {
                    "sled_id", "kind", "from", "to", "rule", "le", "what", "outcome", "state", "do", "queue",
                    "service_name", "service_version",
                }, label  # fmt: skip
                if label == "sled_id":
                    assert UUID(value).int in {1, 2}, "a sled's, not a VMM's"
                else:
                    assert not re.search(r"[0-9a-f]{8}-", value), value


async def test_probes_need_no_token_and_everything_else_does():
    async with a_daemon() as served:
        control = Control(served.daemon)
        api = ControlApi(control, OPERATIONS, Guard("secret"), ABOUT)
        listener = await listen(Server(api.handle), SocketAddress("::1", 0))
        served.url = f"http://{listener.address}"
        try:
            assert await served.ask("GET", "/healthz") == (200, "application/json", {"status": "ok"})
            assert (await served.ask("HEAD", "/readyz"))[0] == 200
            for method, path in (("GET", "/metrics"), ("GET", "/"), ("POST", "/healthz"), ("GET", "/healthz/more")):
                assert (await served.ask(method, path))[0] == 401, path
            assert (await served.ask("GET", "/healthz", host="evil.example"))[0] == 403
            served.daemon.reporting.registered[SLED].clear()
            assert await served.ask("GET", "/readyz") == (503, "application/json", {"status": "waiting"})
            assert (await served.ask("GET", "/healthz"))[0] == 200, "it lives, though Nexus does not know it"
        finally:
            await listener.close()


async def test_a_model_that_is_down_is_alive_and_not_ready():
    async with a_nexus() as nexus:
        await nexus.ask("POST", "/v1/restart", {"down_ms": 60_000})
        assert (await nexus.ask("GET", "/readyz"))[0] == 503
        assert (await nexus.ask("GET", "/healthz"))[0] == 200


def test_who_is_never_scraped_does_not_import_prometheus_client():
    code = (
        "import sys, sim_sled.daemon.control, nexus_client.stub.server.serve, propolis_stub.server.serve; "
        "print([name for name in sys.modules if name.startswith('prometheus')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_more_sleds_than_slots_share_one_for_good():
    slots = Slots()
    own = [slots.label(UUID(int=n)) for n in range(SLOTS_MAX)]
    assert OTHERS not in own
    assert slots.label(UUID(int=SLOTS_MAX)) == OTHERS == slots.label(UUID(int=SLOTS_MAX + 1))
    assert slots.label(UUID(int=3)) == own[3], "who has a label keeps it"


def test_all_sleds_together_are_counted_whatever_slot_they_have():
    counters = Counters()
    sleds = SLOTS_MAX + 7
    for n in range(sleds):
        counters.add(Happening(0, UUID(int=n), None, Kind.SLED, "registered"))
    happenings = next(family for family in counters.families() if family.name == "sim_sled_happenings_total")
    of_sled = {labels: count for labels, count in happenings.samples.items() if labels[1] == "sled"}
    assert sum(of_sled.values()) == sleds
    assert len(of_sled) == SLOTS_MAX + 1
    assert of_sled[OTHERS, "sled"] == 7


def test_a_report_that_is_sent_again_counts_from_the_first_time():
    counters, sled, vmm = Counters(), UUID(int=1), UUID(int=2)
    for at_us, kind in ((1_000, Kind.SENT), (2_000, Kind.RETRYING), (500_000, Kind.SENT), (701_000, Kind.ACKED)):
        counters.add(Happening(at_us, sled, vmm, kind, None))
    reports = next(f for f in counters.families() if f.name == "sim_sled_report_duration_seconds")
    histogram = reports.samples[str(sled),]
    assert histogram.total_us == 700_000
    assert dict(histogram.buckets())["0.5"] == 0
    assert dict(histogram.buckets())["1"] == 1
    counters.add(Happening(0, sled, vmm, Kind.SENT, None))
    counters.add(Happening(1, sled, vmm, Kind.GIVEN_UP, None))
    counters.add(Happening(2, sled, vmm, Kind.ACKED, None))
    assert dict(histogram.buckets())["+Inf"] == 1, "what was given up is no report that arrived"


def test_bounds_of_a_histogram_are_inclusive_and_cumulative():
    histogram = Histogram()
    for took_us in (0, BOUNDS_US[0], BOUNDS_US[0] + 1, BOUNDS_US[-1] + 1):
        histogram.observe(took_us)
    buckets = list(histogram.buckets())
    assert buckets[:2] == [("0.001", 2), ("0.0025", 3)]
    assert buckets[-2:] == [("300", 3), ("+Inf", 4)]


def test_metrics_of_several_workers_are_one_text_that_keeps_every_digit():
    one = '# HELP a_total A.\n# TYPE a_total counter\na_total{s="1"} 1234567.0\n# HELP b B.\n# TYPE b gauge\nb 0.5\n'
    two = '# HELP a_total A.\n# TYPE a_total counter\na_total{s="2"} 2.0\n# HELP b B.\n# TYPE b gauge\nb 0.25\n'
    assert sums([one, two]).splitlines() == [
        "# HELP a_total A.", "# TYPE a_total counter", 'a_total{s="1"} 1234567', 'a_total{s="2"} 2',
        "# HELP b B.", "# TYPE b gauge", "b 0.75",
    ]  # fmt: skip
