"""Commands import what they need: what was not asked for is not there."""

import re
import subprocess
import sys

import pytest
from support import processes
from support.daemon.process import ports

NOT_ASKED_FOR = {
    "check": (
        "asyncio",
        "structlog",
        "pydantic",
        "sim_sled.core.sled",
        "aiohttp",
        "sim_sled.play.virtual",
        "sim_sled.engine",
        "nexus_client.stub.nexus",
        "propolis_stub.server",
    ),
    "scenario list": ("aiohttp", "sim_sled.play.virtual", "sim_sled.engine", "nexus_client.stub.nexus"),
    "version": ("aiohttp", "asyncio", "structlog", "pydantic", "yaml", "sim_sled.language.check", "sim_sled.play"),
    "run": ("aiohttp", "uvloop", "structlog", "pydantic", "sim_sled.daemon.daemon", "dns", "argon2"),
}


@pytest.mark.parametrize("command", NOT_ASKED_FOR)
def test_nothing_is_imported_that_was_not_asked_for(tmp_path, command):
    path = tmp_path / "s.yaml"
    path.write_text("version: 1\nload:\n- at: 0s\n  create: {hostname: a, count: 1}\n")
    files = [str(path)] if command in {"check", "run"} else []
    script = (
        "import sys\nfrom sim_sled.cli.main import app\n"
        f"sys.argv = ['sim-sled', *{command.split()!r}, *{files!r}]\n"
        "try:\n    app()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([each for each in {NOT_ASKED_FOR[command]!r} if each in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"


NOBODY_ASKED = (
    "aiohttp.web",
    "argparse",
    "pydantic",
    "prometheus_client",
    "rich.console",
    "pygments",
    "tomllib",
    "dns",
    "argon2",
    "sqlite3",
    "importlib.metadata",
    "propolis_stub.server",
    "propolis_stub.serial",
    "sim_sled.core.handoff",
    "sim_sled.core.companions",
    "sim_sled.core.pantry",
    "sim_sled.core.dns",
    "sim_sled.core.omicron_config",
    "sim_sled.core.artifacts",
    "sim_sled.companions.handoff",
    "sim_sled.daemon.propolis_api",
    "sim_sled.daemon.companion_faults",
    "sim_sled.daemon.judging",
    "sim_sled.daemon.recorder",
    "sim_sled.daemon.snapshot",
    "sim_sled.http.bodies_register",
    "sim_sled.http.bodies_small",
    "sim_sled.daemon.workers",
    "sim_sled.play.virtual",
    "sim_sled.play.run",
    "sim_sled.play.judge.expect",
    "nexus_client.stub.migrate_records",
    "nexus_client.stub.server.store",
)
"""What no server starts with that has no Propolis API, hand-off, file of records or verdict."""
SERVERS = {
    "serve": (
        ["914e42ed-0e74-4719-90d7-21c1b5c132a2", "[::1]:0", "[::1]:1"],
        "sim_sled.daemon.daemon",
        (
            "yaml",
            "propolis_stub.spec",
            "sim_sled.language.schema",
            "sim_sled.engine",
            "sim_sled.play.conductor",
            "nexus_client.stub.nexus",
        ),
    ),
    "nexus": (
        ["[::1]:0", "--lockstep", "[::1]:0", "--control", "[::1]:0"],
        "nexus_client.stub.nexus",
        ("yaml", "structlog", "uvloop", "sim_sled.core", "sim_sled.daemon", "sim_sled.engine", "sim_sled.play"),
    ),
    "up": ([], "sim_sled.daemon.small_rack", ()),
}
"""Of each: its words, what it is, and what it does without besides: no rules in `serve`, no sleds in `nexus`."""


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_starts_without_what_it_was_not_asked_for(server, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    words, itself, unneeded = SERVERS[server]
    file, said = tmp_path / "ports.json", tmp_path / "imports"
    with said.open("wb") as stderr:
        process = await processes.start(
            sys.executable, "-X", "importtime", "-m", "sim_sled", server, *words, "--port-file", str(file),
            stderr=stderr,
        )  # fmt: skip
        await ports(file, process)
        process.terminate()
        await process.communicate()
    imported = set(re.findall(r"^import time: .*\| +(\S+)$", said.read_text(), re.MULTILINE))
    assert itself in imported, "it says what it imports"
    assert [name for name in (*NOBODY_ASKED, *unneeded) if name in imported] == []
