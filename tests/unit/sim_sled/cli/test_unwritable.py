"""What is written at the end of a daemon's life is looked at before its beginning."""

import os
import stat

import pytest
from support.command import CliRunner
from support.rows import in_one_test

from sim_sled.cli.main import app

SLED = "914e42ed-0e74-4719-90d7-21c1b5c132a2"


@in_one_test(
    "command",
    [
        pytest.param(["up", "--scenario", "stuck-stop", "--junit"], id="up --junit"),
        pytest.param(["up", "--port-file"], id="up --port-file"),
        pytest.param(
            ["serve", SLED, "[::1]:0", "[::1]:1", "--scenario", "stuck-stop", "--junit"], id="serve --junit"
        ),
    ],
)
@in_one_test(("name", "why"), [("nope/x", "there is no folder"), (".", "it is a folder")])
def test_a_file_that_cannot_be_written_is_told_before_anything_starts(tmp_path, command, name, why):
    done = CliRunner().invoke(app, [*command, str(tmp_path / name)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"sim-sled: cannot write {tmp_path}")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["up", "--port-file"], id="up"),
        pytest.param(["serve", SLED, "[::1]:0", "[::1]:1", "--port-file"], id="serve"),
        pytest.param(["nexus", "[::1]:0", "--port-file"], id="nexus"),
    ],
)
def test_a_port_file_takes_the_place_of_no_pipe_and_no_device(tmp_path, command):
    """It comes by way of a rename: run as root, `--port-file /dev/stdout` made a plain file of that."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path / "link"):
        if path != pipe:
            path.symlink_to(pipe)
        done = CliRunner().invoke(app, [*command, str(path)])
        assert (done.exit_code, done.stderr) == (2, f"sim-sled: cannot write {path}: not a regular file\n")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "pipe"]
