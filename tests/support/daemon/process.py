"""`sim-sled` as a process, for end-to-end tests."""

import asyncio
import json
from pathlib import Path
from typing import Any

from support import processes


async def sim_sled(*arguments: str) -> asyncio.subprocess.Process:
    """Forked, with these arguments; it does not outlive its test."""
    return await processes.start(*processes.forked("sim_sled", *arguments))


async def ports(path: Path, process: asyncio.subprocess.Process) -> dict[str, Any]:
    """What a daemon writes into its port file when it is ready."""
    for _ in range(1_200):
        if path.exists():
            return json.loads(path.read_text())
        assert process.returncode is None, (await process.communicate())[1].decode()
        await asyncio.sleep(0.05)  # a file has no event
    raise AssertionError("the daemon did not get ready in a minute")
