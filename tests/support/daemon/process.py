"""`sim-sled` as a process, for end-to-end tests."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any


async def sim_sled(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sim_sled",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )


async def ports(path: Path, process: asyncio.subprocess.Process) -> dict[str, Any]:
    for _ in range(600):
        if path.exists():
            return json.loads(path.read_text())
        assert process.returncode is None, (await process.communicate())[1].decode()
        await asyncio.sleep(0.05)  # a file has no event
    raise AssertionError("the daemon did not get ready in 30 s")
