"""`nexus.external`: the users of a scenario and its `instance:` expectations, by the public API of a Nexus."""

import asyncio
import contextlib
import json
import signal
import uuid
import xml.etree.ElementTree as ET

import pytest
from support.daemon.process import ports, sim_sled
from support.nexus.public_api import TOKEN, PublicApi

from nexus_client.stub import contract as nx
from nexus_client.stub.config import Config
from nexus_client.stub.server.serve import NexusServer

LIMIT_S = 60
SCENARIO = """version: 1
name: users
nexus: {{external: "{url}", token_file: token}}
fleet: {{sleds: 1}}
latency: instant
load:
- {{at: 0s, create: {{hostname: "web-{{n}}", count: 5, project: lab}}}}
- {{at: 3s, stop: {{}}}}
- {{at: 8s, delete: {{hostname: web-1}}}}
rules: [RULES]
expect:
- name: runs
  for: {{project: lab}}
  after: {{request: vmm_put_state, to: running}}
  within: {within}
  that: {{instance: running}}
- {{name: stops, after: {{request: vmm_put_state, to: stopped}}, within: {within}, that: {{instance: stopped}}}}
"""


@pytest.fixture
async def api():
    config = Config(watcher_period_us=1_000_000, updater_period_us=300_000)
    async with NexusServer("[::1]:0", config=config) as server, PublicApi(server) as public:
        yield public


@contextlib.asynccontextmanager
async def serving(api, tmp_path, rules="", token=TOKEN, within="60s"):
    """`sim-sled serve` of that scenario as a process; yields it and where its verdict will be."""
    (tmp_path / "token").write_text(token)
    (tmp_path / "users.yaml").write_text(SCENARIO.format(url=api.url, within=within).replace("RULES", rules))
    words = ("--scenario", str(tmp_path / "users.yaml"), "--junit", str(tmp_path / "out.xml"))
    process = await sim_sled(
        "serve",
        str(uuid.uuid4()),
        "[::1]:0",
        api.server.internal,
        *words,
        "--port-file",
        str(tmp_path / "ports.json"),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def verdict(process):
    process.send_signal(signal.SIGTERM)
    _, error = await process.communicate()
    return process.returncode, error.decode()


async def until(holds):
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.05)  # another process has no event


async def hears(process, text):
    """Its log until a line says so."""
    lines = []
    async with asyncio.timeout(LIMIT_S):
        while not lines or text not in lines[-1]:
            lines.append((await process.stderr.readline()).decode())
            assert lines[-1], f"it ended without having said {text!r}: {''.join(lines)}"
    return "".join(lines)


async def looks(api, more):
    """Until the sled has asked for a list so often again, once a second."""
    before = len(api.lists)
    await until(lambda: len(api.lists) >= before + more)


def publics(api):
    return sorted(api.server.nexus.public_state(row.id).value for row in api.server.nexus.instances())


@pytest.mark.early
async def test_users_are_played_and_what_they_see_is_judged(api, tmp_path):
    reply = await api.server.host.submit(
        lambda ticket: nx.CreateInstance(ticket, "theirs", "theirs", project="other")
    )
    assert reply.status == 201
    async with serving(api, tmp_path) as process:
        await ports(tmp_path / "ports.json", process)
        await until(lambda: publics(api).count("running") >= 5)
        await until(lambda: len(publics(api)) <= 5 and publics(api).count("stopped") >= 4)
        await looks(api, 2)
        code, said = await verdict(process)
    assert code == 0, said
    assert "10/10 expectations met" in said
    created = [body for method, path, body in api.asked if method == "POST" and path.startswith("/v1/instances?")]
    # they go out side by side, and arrive in any order
    assert sorted(body["name"] for body in created) == [f"web-{n}" for n in range(1, 6)]
    assert ("POST", "/v1/projects", {"name": "lab", "description": "made by sim-sled"}) in api.asked
    assert any("page_token" in path for _, path, _ in api.asked), "five are three pages"
    assert not [path for method, path, _ in api.asked if method == "POST" and "theirs" in path]


async def test_what_users_do_not_see_in_time_fails(api, tmp_path):
    stuck = "{name: stuck, for: {hostname: web-2}, when: {state: starting}, do: {stall: forever}}"
    async with serving(api, tmp_path, rules=stuck, within="1s") as process:
        await ports(tmp_path / "ports.json", process)
        failed = await hears(process, "'runs'")
        code, said = await verdict(process)
    assert code == 1, said
    assert "not running" in failed
    assert "'runs'" in said


async def test_a_token_that_is_not_known_is_a_sentence_and_the_sled_goes_on(api, tmp_path):
    async with serving(api, tmp_path, token="stale") as process:
        bound = await ports(tmp_path / "ports.json", process)
        assert bound
        await until(lambda: len([1 for method, path, _ in api.asked if method == "GET"]) > 2)
        code, said = await verdict(process)
    assert "does not know the token" in said
    assert said.count("does not know the token") == 1, "said once"
    assert code in (0, 1)
    assert process.returncode != 2


async def test_a_token_file_that_is_none_is_a_sentence_before_anything_is_played(api, tmp_path):
    async with serving(api, tmp_path, token="two words") as process:
        async with asyncio.timeout(LIMIT_S):
            _, error = await process.communicate()
    assert process.returncode == 2
    assert b"must hold one token" in error
    assert api.asked == []


@pytest.mark.early
async def test_trouble_is_told_and_the_public_api_is_asked_again(api, tmp_path):
    body = json.dumps({"request_id": "r", "error_code": "ServiceNotAvailable", "message": "Service Unavailable"})
    api.troubles["/v1/instances"] = [(503, {}, body), (429, {"retry-after": "1"}, "slow down"), (200, {}, "[]")]
    async with serving(api, tmp_path) as process:
        await ports(tmp_path / "ports.json", process)
        await until(lambda: not api.troubles["/v1/instances"])
        before = len(api.asked)
        await until(lambda: len(api.asked) > before + 8)  # two more looks
        _, said = await verdict(process)
    assert "is in trouble (503); it is asked again: Service Unavailable" in said
    assert "is asked too often (429)" in said
    assert "answers what is not in its document" in said
    assert "the public API answers" in said


async def test_a_public_api_that_is_not_there_is_a_sentence_and_no_good_run(api, tmp_path):
    api.url = "http://[::1]:1"
    async with serving(api, tmp_path) as process:
        await ports(tmp_path / "ports.json", process)
        said = await hears(process, "create web-1: no answer")
        code, _ = await verdict(process)
    assert "the public API at http://[::1]:1 cannot be asked" in said
    assert code == 1, "a run in which nobody got an instance proves nothing"


PLAIN = """version: 1
name: plain
fleet: {{sleds: 1}}
latency: instant
expect: [{{name: comes-up, after: {{state: starting}}, within: 20s, that: {{{what}: running}}}}]
"""


@pytest.mark.parametrize(
    ("what", "created", "wanted", "says"),
    [
        ("vmm", True, 0, "1/1 expectations met"),
        ("vmm", False, 1, "plain.yaml:5) was not judged: what arms it did not happen"),
        ("instance", True, 1, "was not judged: without the Nexus model nobody can"),
    ],
    ids=["met", "never-armed", "nobody-can"],
)
async def test_a_verdict_that_was_not_reached_is_no_success(api, tmp_path, what, created, wanted, says):
    """`serve --junit` beside a Nexus of somebody else."""
    (tmp_path / "plain.yaml").write_text(PLAIN.format(what=what))
    files = {"scenario": "plain.yaml", "junit": "out.xml", "port-file": "ports.json"}
    words = [word for option, file in files.items() for word in (f"--{option}", str(tmp_path / file))]
    process = await sim_sled("serve", str(uuid.uuid4()), "[::1]:0", api.server.internal, *words)
    try:
        await ports(tmp_path / "ports.json", process)
        if created:
            await until(lambda: api.server.nexus.records.sleds)
            await api.server.host.submit(lambda ticket: nx.CreateInstance(ticket, "web", "web"))
            await until(lambda: publics(api) == ["running"])
        code, said = await verdict(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert code == wanted, said
    assert says in said
    assert not (tmp_path / "ports.json").exists(), "it is gone with its server"
    assert bool(list(ET.parse(tmp_path / "out.xml").getroot().iter("failure"))) == bool(wanted)
