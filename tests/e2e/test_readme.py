"""The examples of README.md and docs/, pasted into a shell as a reader would.

A block between `<!-- example: NAME -->` and `<!-- /example -->` is run by bash in an empty folder. Each `# -> text`
at the end of a line says what its command prints: the texts must show up in the output, in this order.
"""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from support import processes

ROOT = Path(__file__).parents[2]
LIMIT_S = 90
"""Examples start several processes on a machine that may be busy."""


def examples():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for name, block in re.findall(
            r"<!-- example: ([\w-]+) -->\n```sh\n(.*?)```\n<!-- /example -->", page.read_text(), re.DOTALL
        ):
            yield pytest.param(block, id=f"{page.name} {name}")


def expectations(block):
    return re.findall(r"#\s*->\s*(.+?)\s*$", block, re.MULTILINE)


@pytest.mark.parametrize("block", list(examples()))
async def test_the_example_prints_what_it_says(block, tmp_path):
    assert expectations(block), "an example without a `# -> text` proves nothing"
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")  # a reader stands in the checkout
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # a session of its own, so that whatever the example left running can be ended with it
    process = await processes.start(
        "bash", "-eu", "-o", "pipefail", "-c", block,
        cwd=tmp_path, env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    output = []

    async def collect(stream):
        while text := await stream.read(65536):
            output.append(text.decode())

    readers = [asyncio.create_task(collect(process.stdout)), asyncio.create_task(collect(process.stderr))]
    try:
        async with asyncio.timeout(LIMIT_S):
            code = await process.wait()
    finally:
        _end(process.pid)
        await asyncio.gather(*readers)
    text = "".join(output)
    assert code == 0, text
    position = 0
    for expected in expectations(block):
        found = text.find(expected, position)
        assert found >= 0, f"{expected!r} is missing after position {position} of:\n{text}"
        position = found + len(expected)


def _end(session):
    try:
        os.killpg(session, signal.SIGTERM)
    except ProcessLookupError:
        return
