"""The examples of README.md and docs/, pasted into each shell that is there, one after the other, all in one folder.

A block between `<!-- example: NAME -->` and `<!-- /example -->` is run as a reader would. Each `# -> text` at the end
of a line says what its command prints: the texts must show up in the output, in this order.
"""

import asyncio
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from support import processes
from support.profile import by_profile
from support.typed import forked_commands

ROOT = Path(__file__).parents[2]
LIMIT_S = 90
"""Examples start several processes on a machine that may be busy."""


SHELLS = {
    "dash": ["-eu"],
    "bash": ["--norc", "-eu", "-o", "pipefail"],
    "zsh": ["-f", "-eu", "-o", "pipefail"],
}
"""With the options of a script that stops at what goes wrong; the strictest first."""
INSTALLED = [name for name in SHELLS if shutil.which(name)]


def examples():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for name, block in re.findall(
            r"<!-- example: ([\w-]+) -->\n```sh\n(.*?)```\n<!-- /example -->", page.read_text(), re.DOTALL
        ):
            yield f"{page.name} {name}", block


def expectations(block):
    return re.findall(r"#\s*->\s*(.+?)\s*$", block, re.MULTILINE)


def test_every_example_says_what_it_prints():
    blocks = list(examples())
    assert len(blocks) > 5
    for name, block in blocks:
        assert expectations(block), f"{name}: an example without a `# -> text` proves nothing"


@pytest.mark.early
async def test_what_a_reader_types_first_prints_what_it_says(tmp_path):
    """Its commands are forked: as programs they are long."""
    name, block = next(examples())
    with forked_commands() as folder:
        await played(name, block, INSTALLED[0], tmp_path, folder)


@pytest.mark.early
@pytest.mark.long
@pytest.mark.nightly
@pytest.mark.parametrize("shell", INSTALLED)
async def test_the_examples_print_what_they_say(shell, tmp_path):
    """All of them in the strictest shell; in the others the first, which a reader types first, and all at night."""
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")  # a reader stands in the checkout
    blocks = list(examples())
    whole = by_profile(shell == INSTALLED[0], nightly=True)
    for name, block in blocks if whole else blocks[:1]:
        await played(name, block, shell, tmp_path)


async def played(name, block, shell, tmp_path, commands=Path(sys.executable).parent):
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    # a session of its own, so that whatever the example left running can be ended with it
    process = await processes.start(
        shell, *SHELLS[shell], "-c", block,
        cwd=tmp_path, env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)},
        start_new_session=True,
    )  # fmt: skip
    output = []

    async def collect(stream):
        while text := await stream.read(65536):
            output.append(text.decode())

    readers = [asyncio.create_task(collect(process.stdout)), asyncio.create_task(collect(process.stderr))]
    try:
        async with asyncio.timeout(LIMIT_S):
            code = await process.wait()
    except TimeoutError:
        raise AssertionError(f"{name} in {shell} does not end:\n{''.join(output)}") from None
    finally:
        _end(process.pid)
        await asyncio.gather(*readers)
    text = "".join(output)
    assert code == 0, f"{name} in {shell} ended with {code}:\n{text}"
    position = 0
    for expected in expectations(block):
        found = text.find(expected, position)
        assert found >= 0, f"{name} in {shell}: {expected!r} is missing after position {position} of:\n{text}"
        position = found + len(expected)


def _end(session):
    try:
        os.killpg(session, signal.SIGTERM)
    except ProcessLookupError:
        return
