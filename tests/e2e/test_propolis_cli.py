"""`propolis-stub` as a process: arguments, port file, exit codes, signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest
from support import processes

from nexus_client.dropshot.ending import CODES

ROOT = Path(__file__).parents[2]
LIMIT_S = 60
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def stub(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        processes.forked("propolis_stub", *arguments), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        pytest.param(["localhost:80"], "is no address", id="a name"),
        pytest.param(["[::1]:0", "--control", "[::]:0"], "needs a token", id="control for everybody"),
        pytest.param(["[::1]:0", "--config", "/none/stub.toml"], ": /none/stub.toml: No such file or", id="no file"),
        pytest.param(["[::1]:0", "--port-file", "/none/p"], ": cannot write /none/p: No such file", id="no folder"),
    ],
)
def test_bad_input_is_2_and_nothing_is_started(arguments: list[str], complaint: str) -> None:
    done = stub("serve", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_a_bad_file_is_told_with_all_its_problems(tmp_path: Path) -> None:
    config = tmp_path / "stub.toml"
    config.write_text('hazards = ["fire"]\n[pace.lunch]\n')
    done = stub("serve", "[::1]:0", "--config", str(config))
    assert done.returncode == 2
    assert "hazards" in done.stderr
    assert "pace.lunch" in done.stderr


def test_an_address_in_use_is_5() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = stub("serve", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 5
    assert "cannot serve: " in done.stderr
    assert "Errno" not in done.stderr


def test_the_diagram_is_printed_and_a_page_without_markers_is_2(tmp_path: Path) -> None:
    done = stub("diagram")
    assert done.returncode == 0
    assert done.stdout.startswith("stateDiagram-v2\n")
    page = tmp_path / "page.md"
    page.write_text("nothing")
    done = stub("diagram", "--write", str(page))
    assert (done.returncode, page.read_text()) == (2, "nothing")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("diagram > /dev/full", "cannot write to stdout: No space left on device"),
        pytest.param("serve '[::1]:0' >&-", "stdout closed: there is nowhere to write to", marks=pytest.mark.long),
    ],
)
def test_what_cannot_be_written_is_a_sentence_and_exit_2(line: str, complaint: str) -> None:
    script = f'"{sys.executable}" -m propolis_stub {line}'
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=LIMIT_S, env=ENV, check=False
    )
    assert (done.returncode, done.stderr) == (2, f"propolis-stub: {complaint}\n")


async def until_ready(port_file: Path, process: asyncio.subprocess.Process) -> dict[str, str]:
    """The port file is complete as soon as it is there."""
    async with asyncio.timeout(LIMIT_S):
        while not port_file.exists():
            assert process.returncode is None
            await asyncio.sleep(0.02)
    return dict(json.loads(port_file.read_text()))


@pytest.mark.parametrize("number", CODES)
async def test_a_signal_ends_it_in_order_although_somebody_polls(tmp_path: Path, number: signal.Signals) -> None:
    port_file, config = tmp_path / "p.json", tmp_path / "stub.toml"
    config.write_text('token = "secret"\n[pace.create]\nafter_us = "for ever"\n')
    process = await processes.start(
        *processes.forked("propolis_stub", "serve", "[::1]:0", "--control", "[::1]:0"),
        "--port-file", str(port_file), "--config", str(config), stderr=None,
    )  # fmt: skip
    try:
        bound = await until_ready(port_file, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{bound['control']}/control/vm") as answer:
                assert answer.status == 401, "a token that is set is asked for"
            headers = {"authorization": "Bearer secret"}
            async with session.get(f"http://{bound['control']}/control/vm", headers=headers) as answer:
                assert (await answer.json())["paces"]["create"] == {"after_us": None, "fail": False}
            async with session.get(
                f"http://{bound['propolis']}/instance", headers={"api-version": "5.0.0"}
            ) as answer:
                assert answer.status == 424
            process.send_signal(number)
            assert process.stdout is not None
            async with asyncio.timeout(LIMIT_S):
                output = await process.stdout.read()
                assert await process.wait() == CODES[number], "as every server of ours"
        assert b"not Propolis" in output
        assert not port_file.exists(), "it is gone with its server"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
