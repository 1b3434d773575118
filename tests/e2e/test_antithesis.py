"""Programs in an Antithesis environment: when each says that all is set up, and what it tells while it lives."""

import asyncio
import json
import signal

import aiohttp
import pytest
from support.daemon.process import ports, sim_sled

SLED = "00000000-0000-4000-8000-0000000051ed"
RULES = """
version: 1
name: live
fleet: {sleds: 1}
rules:
- {name: late, when: {publish: running}, do: {delay: 1ms}}
expect:
- {name: boots, after: {request: vmm_put_state, to: running}, within: 20s, that: {vmm: running, acked: running}}
"""


@pytest.fixture
def out(tmp_path, monkeypatch):
    """`sdk.jsonl` of an Antithesis environment, and a scenario file beside it."""
    monkeypatch.setenv("ANTITHESIS_OUTPUT_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "live.yaml").write_text(RULES)
    return tmp_path / "sdk.jsonl"


def said(out):
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def set_ups(out):
    return [line["antithesis_setup"]["details"]["program"] for line in said(out) if "antithesis_setup" in line]


def hits(out):
    return {
        each["antithesis_assert"]["message"]: each["antithesis_assert"]["condition"]
        for each in said(out)
        if each.get("antithesis_assert", {}).get("hit")
    }


async def until(holds):
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)  # a file has no event


async def ended(process):
    process.send_signal(signal.SIGTERM)
    return await process.wait()


async def test_a_rack_tells_of_its_rules_expectations_and_invariants_as_it_lives(out, tmp_path):
    file = tmp_path / "p.json"
    rack = await sim_sled(
        "up", "--pace", "instant", "--scenario", str(tmp_path / "live.yaml"), "--port-file", str(file)
    )
    users = (await ports(file, rack))["model"]["control"]
    assert set_ups(out) == ["up"], "it is told before anybody can ask for anything"
    async with aiohttp.ClientSession(f"http://{users}") as http, http.post("/v1/instances", json={"name": "web"}):
        pass
    await until(lambda: "live: expectation boots is met" in hits(out))
    assert hits(out)["live: rule late fires"]
    assert "invariant final_state_acked holds" not in hits(out), "nobody knows before the end"
    assert await ended(rack) == 0
    assert all(hits(out).values())
    assert "invariant nexus_properties holds" in hits(out)
    assert said(out)[-1]["sim_sled_counts"]["live: rule late fires"]["passed"] == 1


async def test_a_sled_and_its_nexus_each_say_when_the_sled_is_registered(out, tmp_path):
    nexus = await sim_sled("nexus", "[::1]:0", "--port-file", str(tmp_path / "n.json"))
    where = await ports(tmp_path / "n.json", nexus)
    assert set_ups(out) == [], "a Nexus without a sled is ready for nothing"
    sled = await sim_sled("serve", SLED, "[::1]:0", where["address"], "--port-file", str(tmp_path / "s.json"))
    await until(lambda: sorted(set_ups(out)) == ["nexus", "serve"])
    async with (
        aiohttp.ClientSession(f"http://{where['control']}") as http,
        http.post("/v1/instances", json={"name": "web"}),
    ):
        pass
    await until(lambda: "users see an instance running" in hits(out))
    assert (await ended(sled), await ended(nexus)) == (0, 0)
    assert hits(out)["invariant gen_monotonic holds"], "a daemon without a scenario has invariants, too"
    assert "invariant no_leaks holds" not in hits(out), "only a Nexus knows of leaks"


async def test_a_folder_that_is_not_there_is_bad_input(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTITHESIS_OUTPUT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    commands = (("serve", SLED, "[::1]:0", "[::1]:9"), ("up",), ("nexus", "[::1]:0"), ("run", "happy"))

    async def says(*command):
        process = await sim_sled(*command)
        return (await process.communicate())[1], process.returncode

    for err, code in await asyncio.gather(*(says(*command) for command in commands)):
        assert code == 2, err
        assert b"ANTITHESIS_OUTPUT_DIR" in err
