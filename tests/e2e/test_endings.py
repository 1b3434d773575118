"""Ctrl-C and SIGTERM at every program that goes on until it is ended: one table of exit codes for all of them."""

import asyncio
import json
import os
import signal

import pytest
from support import processes

from nexus_client.dropshot.ending import CODES

LIMIT_S = 60
SLED = "914e42ed-0e74-4719-90d7-21c1b5c132a2"
WORKERS = "up in several processes"
SERVERS = {
    "nexus": ["sim_sled", "nexus", "[::1]:0"],
    "serve": ["sim_sled", "serve", SLED, "[::1]:0", "[::1]:1", "--no-companions", "--shutdown-wait", "0"],
    "up": ["sim_sled", "up"],
    WORKERS: ["sim_sled", "up", "--sleds", "2", "--workers", "2"],
    "propolis-stub": ["propolis_stub", "serve", "[::1]:0"],
}
"""Words behind `python -m`; each has `--port-file`."""
WAITING = {
    "ps --watch": ["ps", "--watch"],
    "events --follow": ["events", "--follow"],
    "expect": ["expect", "web", "running"],
    "ready --wait": ["ready", "--wait", "60"],
}


async def started(words):
    """In a group of its own, as a terminal does it: Ctrl-C reaches all of the group."""
    return await processes.start(*processes.forked(*words), start_new_session=True)


async def ended(process):
    async with asyncio.timeout(LIMIT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize(
    ("which", "number"),
    [
        *((which, signal.SIGINT) for which in SERVERS),
        *((which, signal.SIGTERM) for which in SERVERS if which not in ("up", WORKERS)),
        pytest.param(WORKERS, signal.SIGTERM, marks=pytest.mark.long),
    ],
)  # `sim-sled down` sends SIGTERM to an `up`: tests/e2e/test_up.py
async def test_a_server_ends_in_order_and_says_by_its_code_who_ended_it(which, number, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    port_file = tmp_path / "p.json"
    process = await started([*SERVERS[which], "--json", "--port-file", str(port_file)])
    async with asyncio.timeout(LIMIT_S):
        while not port_file.exists() and process.returncode is None:
            await asyncio.sleep(0.02)
    assert process.returncode is None, await ended(process)
    os.killpg(process.pid, number)
    code, out, err = await ended(process)
    assert code == CODES[number], err
    assert "Traceback" not in err
    assert "exit_code" not in json.loads(out), "its addresses, as soon as it listened: not what it said in the end"
    assert not port_file.exists()


@pytest.mark.parametrize(
    ("number", "to", "code"),
    [(signal.SIGINT, os.killpg, 130), (signal.SIGTERM, os.kill, 143), (signal.SIGHUP, os.kill, 129)],
    ids=["Ctrl-C", "of timeout", "a terminal closed"],
)
async def test_who_does_not_wait_for_a_rack_in_the_background_ends_both(tmp_path, monkeypatch, number, to, code):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    process = await started(["sim_sled", "up", "--detach", "--nexus", "[::1]:1"])
    folder = tmp_path / "sim-sled"
    async with asyncio.timeout(LIMIT_S):
        while not list(folder.glob("rack*.lock")) and process.returncode is None:
            await asyncio.sleep(0.02)  # until the rack has its name and waits for its Nexus
    to(process.pid, number)
    ended_with, out, err = await ended(process)
    assert (ended_with, out, "interrupted" in err) == (code, "", number is signal.SIGINT), err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("words", WAITING.values(), ids=WAITING)
async def test_ctrl_c_ends_a_command_that_waits_with_130(words):
    asked = asyncio.Event()

    async def never_answer(reader, writer):
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "::1", 0) as server:
        host, port = server.sockets[0].getsockname()[:2]
        process = await started(["sim_sled", *words, "--at", f"[{host}]:{port}"])
        waiting = asyncio.ensure_future(asked.wait())
        async with asyncio.timeout(LIMIT_S):
            await asyncio.wait({waiting, asyncio.ensure_future(process.wait())}, return_when=asyncio.FIRST_COMPLETED)
        assert asked.is_set(), await ended(process)
        os.killpg(process.pid, signal.SIGINT)
        code, out, err = await ended(process)
    assert (code, out) == (130, ""), err
    assert [line for line in err.splitlines() if line] in ([], ["sim-sled: interrupted"])
