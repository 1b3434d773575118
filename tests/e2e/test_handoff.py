"""The rack hand-off over sockets, and in the place of the original among containers (SR 6)."""

import asyncio
import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import aiohttp
import argon2
import attrs
import dns.asyncquery
import dns.message
import dns.rdatatype
import pytest
from support.command import in_process
from support.rows import in_one_test

from nexus_client.dropshot.text import SocketAddress
from nexus_client.stub.server.serve import NexusServer
from sim_sled.companions import handoff
from sim_sled.companions.handoff import facts_of
from sim_sled.companions.servers import Ports
from sim_sled.core.config import SledConfig
from sim_sled.core.handoff.body import config_of
from sim_sled.core.handoff.wishes import Wishes
from sim_sled.daemon import handing_over
from sim_sled.daemon.daemon import Daemon
from sim_sled.daemon.handing_over import HandoffRunner
from sim_sled.daemon.options import Options
from sim_sled.language.pacer import PresetPacer

ZONE = "control-plane.oxide.internal"
HASH = "$argon2id$v=19$m=98304,t=23,p=1$c2FsdHNhbHRzYWx0$aGFzaA"
LIMIT_S = 60


@pytest.fixture(autouse=True)
def _a_cheap_hash(monkeypatch):
    monkeypatch.setattr(handing_over, "password_hash", lambda _wishes: HASH)


class Rack:
    """A daemon with sleds and a hand-off under way, beside a model of Nexus."""

    def __init__(self, sleds=1, nexus=None, **wishes):
        self.configs = [SledConfig(uuid.UUID(int=number + 1), "[::1]:0") for number in range(sleds)]
        self.nexus = nexus or NexusServer()
        self.more = wishes

    async def __aenter__(self):
        await self.nexus.__aenter__()
        lockstep = SocketAddress.parse(self.nexus.lockstep).port
        wishes = Wishes(self.nexus.internal, lockstep, nexus_external="[::1]:12220", **self.more)
        options = Options(
            nexus=self.nexus.internal, pacer=PresetPacer("instant"), companions=Ports(), shutdown_wait_s=0.2
        )
        self.daemon = Daemon(self.configs, options)
        await self.daemon.start()
        self.runner = HandoffRunner(self.daemon, wishes, 0)
        self.task = asyncio.create_task(self.runner.run())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.daemon.stop()
        await self.nexus.__aexit__()

    async def done(self):
        async with asyncio.timeout(LIMIT_S):
            await self.runner.done.wait()

    async def asked(self, method, path, sled=0, **more):
        address = self.daemon.addresses[self.configs[sled].sled_id]
        async with (
            aiohttp.ClientSession(headers={"api-version": "48.0.0"}) as http,
            http.request(method, f"http://{address}{path}", **more) as answer,
        ):
            return answer.status, await answer.text()


async def test_nexus_takes_the_rack_and_every_sled_has_the_configuration_that_nexus_will_send():
    async with Rack(sleds=2, cockroach=("[::1]:32221",)) as rack:
        await rack.done()
        sleds = rack.nexus.host.rack.handed_over.blueprint.sleds
        assert len(sleds) == 2
        for number, config in enumerate(rack.configs):
            status, text = await rack.asked("GET", "/inventory", number)
            ledgered = json.loads(text)["ledgered_sled_config"]
            assert (status, ledgered["generation"]) == (200, sleds[config.sled_id].sled_agent_generation)
            status, text = await rack.asked("PUT", "/omicron-config", number, json=ledgered)
            assert status == 204, "the first execution of the blueprint changes nothing"


async def test_internal_dns_answers_what_was_handed_over():
    async with Rack() as rack:
        await rack.done()
        address = SocketAddress.parse(rack.daemon.listening.companion_addresses()[rack.configs[0].sled_id].dns)
        question = dns.message.make_query(f"_crucible-pantry._tcp.{ZONE}", dns.rdatatype.SRV)
        reply = await dns.asyncquery.udp(question, address.host, port=address.port, timeout=LIMIT_S)
        pantry = SocketAddress.parse(rack.daemon.listening.companion_addresses()[rack.configs[0].sled_id].pantry)
        assert reply.answer[0][0].port == pantry.port
        assert reply.additional[0][0].address == pantry.host


async def test_dns_of_somebody_else_is_filled_through_its_api_and_a_newer_one_is_left_alone(monkeypatch):
    monkeypatch.setattr(handing_over, "dns_is_elsewhere", lambda *_: True)
    options = Options(nexus="[::1]:1", companions=Ports(), register=False, shutdown_wait_s=0.1)
    other = Daemon([SledConfig(uuid.uuid4(), "[::1]:0")], options)
    await other.start()
    try:
        (beside,) = other.listening.companion_addresses().values()
        wishes = Wishes("[::1]:1", 1, dns=beside.dns, dns_http=beside.dns_http)
        sleds = [attrs.evolve(each.config, address=each.address) for each in other.rack.sleds.values()]
        made = handing_over.make(wishes, facts_of(wishes, sleds, other.listening.companion_addresses(), 0, HASH))
        runner = HandoffRunner(other, wishes, 0)
        async with aiohttp.ClientSession() as http:
            config = f"http://{beside.dns_http}/config"
            for generation in (1, 5):
                assert await runner._fill_dns(made) is None  # the second time Nexus has been there before
                async with http.get(config) as answer:
                    told = await answer.json()
                    assert (told["generation"], told["zones"][0]["zone_name"]) == (generation, ZONE)
                async with http.put(config, json=made.dns | {"generation": 5}) as answer:
                    assert answer.status == 204
    finally:
        await other.stop()


async def test_a_refusal_is_told_in_plain_words_and_tried_again_until_it_is_none():
    nexus = NexusServer()
    nexus.host.rack.switch_ports = frozenset()
    async with Rack(nexus=nexus) as rack:
        async with asyncio.timeout(LIMIT_S):
            while rack.runner.process.why is None:
                await asyncio.sleep(0.01)  # until Nexus has said no; there is no event for a refusal
        assert "Dendrite" in rack.runner.process.why
        nexus.host.rack.switch_ports = frozenset({"qsfp0"})
        await rack.done()


async def test_the_config_of_somebody_who_was_earlier_is_kept():
    async with Rack() as rack:
        await rack.done()
        made = rack.nexus.host.rack.handed_over.blueprint.sleds
        (generation,) = {sled.sled_agent_generation for sled in made.values()}
        _, text = await rack.asked("GET", "/inventory")
        newer = json.loads(text)["ledgered_sled_config"] | {"generation": generation + 3}
        assert (await rack.asked("PUT", "/omicron-config", json=newer))[0] == 204
        again = HandoffRunner(rack.daemon, rack.runner._wishes, 0)
        async with asyncio.timeout(LIMIT_S):
            await again.run()
        _, text = await rack.asked("GET", "/inventory")
        assert json.loads(text)["ledgered_sled_config"]["generation"] == generation + 3


# ---- the command ---------------------------------------------------------------------------------------------------

COMMAND = (
    "B6D65341167C41DF9B5C41CDED99C229",
    "[fd00:1122:3344:101::6]:12345",
    "[fd00:1122:3344:101::5]:12221",
    "12232",
    "--rss-nexus-external-addr=[fd00:1122:3344:101::5]:12220",
    "--rss-nexus-id=e6bff1ff-24fb-49dc-a54e-c6a350cd4d6c",
    "--rss-internal-dns-dns-addr=[fd00:1122:3344:101::3]:53",
    "--rss-internal-dns-http-addr=[fd00:1122:3344:101::3]:5353",
    "--cockroach-addr=[fd00:1122:3344:101::4]:32221",
    "--rack-subnet=fd00:1122:3344::/56",
)


def test_a_dry_run_prints_the_body_and_the_configurations_that_go_with_it(monkeypatch):
    assert (handoff.MEMORY_KIB, handoff.ROUNDS) == (98_304, 23), "what Nexus demands, and what takes seconds"
    monkeypatch.setattr(handoff, "MEMORY_KIB", 64)
    monkeypatch.setattr(handoff, "ROUNDS", 1)
    body = json.loads(in_process("handoff", "--dry-run", *COMMAND)[1])
    configs = json.loads(in_process("handoff", "--configs", *COMMAND)[1])
    hashed = body["recovery_silo"]["user_password_hash"]
    assert hashed.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert argon2.PasswordHasher().verify(hashed, "oxide")
    ((sled_id, sled),) = body["blueprint"]["sleds"].items()
    assert sled_id == "b6d65341-167c-41df-9b5c-41cded99c229"
    assert configs == {sled_id: config_of(sled)}
    assert body["internal_dns_zone_config"]["zones"][0]["zone_name"] == ZONE


@in_one_test(
    ("words", "told"),
    [
        (("--rss-internal-dns-http-addr=[::1]:5353",), "--rss-internal-dns-dns-addr"),
        (("--rss-tls-cert=x.pem",), "go together"),
        (("--rss-nexus-external-addr=nowhere",), "--rss-nexus-external-addr"),
        (("--rack-subnet=fd00::1/56",), "--rack-subnet"),
        (("--zpools=0", "--cockroach-addr=[::1]:1"), "--zpools"),
    ],
)
def test_options_that_cannot_be_meant_end_with_2_before_anything_starts(words, told):
    code, out, errors = in_process("serve", str(uuid.uuid4()), "[::1]:0", "[::1]:1", "12232", *words)
    assert (code, out) == (2, "")
    assert told in errors


@pytest.mark.skipif(
    shutil.which("ip") is None or shutil.which("unshare") is None, reason="needs `ip` and `unshare` for namespaces"
)
@pytest.mark.early
@pytest.mark.long
def test_the_command_line_of_the_original_in_its_place_among_containers():
    """Five network namespaces with the addresses of a public compose file (omicron d6121683): the model is `nexus`, a
    second process `internal-dns`; the workload is ready when the rack is handed over and an instance runs.
    """
    driver = Path(__file__).parents[1] / "support" / "daemon" / "containers.py"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "--mount", "--kill-child", "--pid", "--fork",
         sys.executable, str(driver), *COMMAND],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=110,
    )  # fmt: skip
    if "unshare" in done.stderr and "not permitted" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {"dns": True, "ledgered": 2, "instance": "running"}
