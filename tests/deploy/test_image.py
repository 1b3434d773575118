"""The image, replayed: no engine runs where these tests do, so its steps are made in a bare folder."""

import os
import subprocess
import sys

import pytest
from support.deploying import ROOT, Replay, ended, line_with, stages, started
from support.ports import a_port
from support.profile import by_profile

DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The folder that the build stage leaves, and what the last stage says of it."""
    build, last = stages(DOCKERFILE)
    replay = Replay(tmp_path_factory.mktemp("image"), fetches=by_profile(False, nightly=True))
    replay.build(build)
    replay.build(last)
    replay.environ["XDG_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("tmp"))
    return replay, last


@pytest.fixture
def port():
    with a_port() as port:
        yield port


def test_the_image_runs_as_nobody_and_carries_only_what_was_installed():
    build, last = stages(DOCKERFILE)
    assert last.last("USER") == ["65532:65532"]
    assert [words for name, words in last.steps if name == "COPY"] == [
        ["--from=build", "/opt/sim-sled", "/opt/sim-sled"]
    ]
    assert not [words for name, words in last.steps if name in {"RUN", "ADD"}]
    assert build.base == last.base, "a virtual environment belongs to the interpreter that made it"


def test_a_step_that_would_need_a_shell_is_refused():
    for step in ("RUN pip install .", "CMD sim-sled up", "HEALTHCHECK CMD curl -f localhost"):
        with pytest.raises(ValueError, match="Expecting value"):
            stages(f"FROM python:3.13-slim\n{step}\n")


def test_what_is_sent_to_the_engine_is_what_is_copied():
    build, _ = stages(DOCKERFILE)
    copied = {source for name, words in build.steps if name == "COPY" for source in words[:-1]}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed


@pytest.mark.early
@pytest.mark.long
@pytest.mark.nightly
def test_the_container_becomes_healthy_and_ends_well(image, port):
    replay, last = image
    environ = replay.env() | {"SIM_SLED_CONTROL": f"127.0.0.1:{port}"}
    assert not (replay.root / "opt/sim-sled/bin/pip").exists()
    check = [replay.here(word) for word in last.last("HEALTHCHECK")]
    before = subprocess.run(check, env=environ, capture_output=True, text=True, check=False)
    assert (before.returncode, before.stderr[:31]) == (1, "sim-sled: not ready: nobody ans")
    words = [replay.here(word) for word in last.last("ENTRYPOINT") + last.last("CMD")]
    process = started([word.replace("127.0.0.1:12300", f"127.0.0.1:{port}") for word in words], environ, replay.root)
    try:
        line_with(process, "is ready")
        done = subprocess.run(check, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert ended(process) == 0
        assert list((replay.root / "opt").iterdir()) == [replay.root / "opt/sim-sled"]
    finally:
        process.kill()


def test_the_health_check_tells_why_not():
    done = subprocess.run(
        [sys.executable, "-m", "sim_sled.healthcheck", "nowhere"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "sim-sled: not ready: 'nowhere' is not an address like [::1]:12300\n"
