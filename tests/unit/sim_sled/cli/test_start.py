"""Commands import what they need: what was not asked for is not there."""

import subprocess
import sys

import pytest

NOT_ASKED_FOR = {
    "check": (
        "aiohttp",
        "sim_sled.play.virtual",
        "sim_sled.engine",
        "nexus_client.stub.nexus",
        "propolis_stub.server",
    ),
    "scenario list": ("aiohttp", "sim_sled.play.virtual", "sim_sled.engine", "nexus_client.stub.nexus"),
    "version": ("aiohttp", "sim_sled.language.check", "sim_sled.play"),
    "run": ("aiohttp", "uvloop", "sim_sled.daemon.daemon", "dns", "argon2"),
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
