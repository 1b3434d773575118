"""`sim-sled bench`: a rack under load, in this process and beside a Nexus of another, and its limits."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys

import pytest
from support import processes
from support.deploying import ended, line_with, started

from nexus_client.stub.server.serve import NexusServer
from sim_sled.cli import load
from sim_sled.cli.bench import Limits
from sim_sled.daemon.small_rack import RackError

REAL = [sys.executable, "-m", "sim_sled"]
FORKED = processes.forked("sim_sled")


@pytest.fixture
def environ(tmp_path):
    return os.environ | {"XDG_STATE_HOME": str(tmp_path)}


def bench(environ, *words, program=FORKED):
    command = [*program, "bench", "--sleds", "2", "--vms-per-sled", "3", "--min-transitions", "0", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=110)


@pytest.mark.parametrize("program", [FORKED, pytest.param(REAL, marks=pytest.mark.long)], ids=["forked", "real"])
def test_figures_are_told_and_limits_kept(environ, program):
    done = bench(environ, "--json", program=program)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["sleds"], figures["vms"], figures["broken"]) == (2, 6, [])
    assert figures["transitions"] >= 2 * 6, "each VM starts to run and is destroyed"
    assert figures["reports"] >= 2 * 6
    assert 0 < figures["report_p50_ms"] <= figures["report_p99_ms"]
    assert figures["rss_mib"] > 10
    assert figures["transitions_per_cpu_s"] == pytest.approx(figures["transitions"] / figures["cpu_s"], rel=0.05)


def test_beyond_a_limit_is_exit_1_and_a_sentence(environ):
    done = bench(environ, "--max-rss", "1")
    assert done.returncode == 1
    assert "beyond its limit: rss_mib is" in done.stdout
    assert "at most 1 MiB were wanted" in done.stdout


def test_the_nexus_may_be_a_process_of_its_own(environ, tmp_path):
    nexus = started([*FORKED, "nexus", "[::1]:0", "--port-file", str(tmp_path / "n.json")], environ, tmp_path)
    try:
        line_with(nexus, "control API")
        found = json.loads((tmp_path / "n.json").read_text())
        # as a person has them from a browser
        done = bench(environ, "--nexus", f"http://{found['address']}/", "--users", f"http://{found['control']}")
        assert done.returncode == 0, done.stderr
        assert "all limits are kept" in done.stdout
        assert bench(environ, "--nexus", found["address"]).returncode == 2
    finally:
        assert ended(nexus) == 0


@pytest.fixture
async def nexus():
    async with NexusServer() as server:
        yield server


async def test_a_second_bench_meets_the_same_nexus_as_the_first(nexus):
    for _ in range(2):
        await load.run(1, 2, nexus.internal, nexus.control, None)
        assert all(each.time_deleted for each in nexus.nexus.records.instances.values())


@contextlib.asynccontextmanager
async def users_api(answer):
    """Whatever it is asked, it answers the same, or nothing; yields its address."""

    async def say(reader, writer):
        with contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await reader.read()  # until the other side has enough

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        pytest.param("201 Created", "0 of 1 VM running, and Nexus has heard of none for", id="makes no VM"),
        pytest.param("302 Found\r\nlocation: /", "a user was refused: 302", id="sends elsewhere"),
        pytest.param("", "a user had no answer to POST /v1/instances within", id="hangs"),
    ],
)
async def test_a_nexus_that_does_nothing_ends_a_bench_with_a_sentence(nexus, monkeypatch, answer, sentence):
    monkeypatch.setattr(load, "STILL_S", 0.5)
    said = f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n" if answer else ""
    async with users_api(said.encode()) as users:
        with pytest.raises(RackError, match=re.escape(sentence)):
            await load.run(1, 1, nexus.internal, users, None)


async def test_a_vm_that_fails_ends_a_bench_at_once():
    with pytest.raises(RackError, match="a VM has failed instead of being running"):
        await load.Reached({"failed": 1, "running": 2}).until("running", 3)


def test_each_limit_has_its_own_sentence():
    limits = Limits(transitions_per_cpu_s_min=10, rss_mib_max=10, start_s_max=1, report_p99_ms_max=5)
    good = {"transitions_per_cpu_s": 10, "rss_mib": 10, "start_s": 1, "report_p99_ms": 5}
    assert limits.broken(good) == []
    for name, bad in (("transitions_per_cpu_s", 9), ("rss_mib", 11), ("start_s", 2), ("report_p99_ms", 6)):
        assert len(limits.broken(good | {name: bad})) == 1, name
