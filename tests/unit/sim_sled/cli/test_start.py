"""Commands import what they need: what was not asked for is not there."""

import json
import os
import subprocess
import sys

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


BEGIN_ALL = """
import json, os, sys
import sim_sled.__main__
from nexus_client.dropshot import collector
from sim_sled.cli import main, surface

def tell(*_):
    print(json.dumps(sorted(sys.modules)), file=sys.stderr, flush=True)
    os._exit(0)

collector.started = tell  # a server has started
for words in json.loads(sys.argv[1]):
    if not os.fork():
        sys.argv[1:] = words
        try:
            sim_sled.__main__.main()
        except SystemExit as end:
            assert not end.code, end.code
            tell()
        os._exit(1)
    os.wait()
"""
"""In one process, since all begin by the same imports."""


def imported_by(commands, folder):
    """What each has imported at its end, or when it serves."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN_ALL, json.dumps(commands)],
        check=True, capture_output=True, text=True, timeout=60, env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert len(told) == len(commands), done.stderr
    return [set(json.loads(line)) for line in told]


def test_nothing_is_imported_that_was_not_asked_for(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("version: 1\nload:\n- at: 0s\n  create: {hostname: a, count: 1}\n")
    files = {"check": [str(path)], "run": [str(path)]}
    imported = imported_by([[*command.split(), *files.get(command, [])] for command in NOT_ASKED_FOR], tmp_path)
    for (command, unneeded), found in zip(NOT_ASKED_FOR.items(), imported, strict=True):
        assert [name for name in unneeded if name in found] == [], command
    assert "sim_sled.play.run" in imported[-1], "a command says what it imports"


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


def test_a_server_starts_without_what_it_was_not_asked_for(tmp_path):
    commands = [[server, *words, "--port-file", str(tmp_path / server)] for server, (words, *_) in SERVERS.items()]
    imported = imported_by(commands, tmp_path)
    for (server, (_, itself, unneeded)), found in zip(SERVERS.items(), imported, strict=True):
        assert itself in found, "it says what it imports"
        assert [name for name in (*NOBODY_ASKED, *unneeded) if name in found] == [], server
