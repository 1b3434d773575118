"""Processes of tests die with their test, and with pytest itself."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from support import processes

FOR_EVER = "import signal, sys; print('up', flush=True); signal.pause()"
PARENT = """
import asyncio, sys
sys.path.insert(0, "tests")
from support import processes

async def main():
    child = await processes.start(sys.executable, "-c", sys.argv[1])
    await child.stdout.readline()
    print(child.pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def is_running(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # dead, and not yet waited for by whoever inherited it


async def test_what_a_test_leaves_running_is_ended_after_it():
    process = await processes.start(sys.executable, "-c", FOR_EVER)
    await process.stdout.readline()
    assert processes.end_all() == [process.pid]
    assert await process.wait() == -signal.SIGKILL
    assert processes.end_all() == []


@pytest.mark.skipif(sys.platform != "linux", reason="only the Linux kernel tells a child that its parent is gone")
async def test_a_process_dies_with_a_pytest_that_is_killed():
    parent = await processes.start(sys.executable, "-c", PARENT, FOR_EVER)
    child = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(20):
        while is_running(child):
            await asyncio.sleep(0.01)
