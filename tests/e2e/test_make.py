"""`make` in a fresh checkout: the Python is looked at first, and a set-up that broke off leaves nothing behind."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLD = """#!/bin/sh
case "$*" in
  *version_info*) exit 1 ;;
  *) echo 3.9.2 ;;
esac
"""
FAKE = """#!/bin/sh
# a Python that makes environments of itself, and installs as the file beside the checkout says
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip --version") exit 0 ;;
  "-m pip install "*) exit "$(cat pip-exits)" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """What the set-up needs of one, with a package manager that does as `pip-exits` says."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    for name, text in (("python-old", OLD), ("python-fake", FAKE)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return tmp_path


def make(checkout, *words):
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *words], cwd=checkout, env=environ | {"LC_ALL": "C"}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("python", "told"),
    [("/no/such/python", "there is no '/no/such/python' here"), ("./python-old", "'./python-old' is 3.9.2")],
)
def test_a_python_that_will_not_do_is_told_in_a_sentence_before_anything_is_made(checkout, python, told):
    done = make(checkout, f"PYTHON={python}", "run")
    assert done.returncode == 2
    assert told in done.stderr
    assert "make PYTHON=" in done.stderr.splitlines()[0], "what to type instead"
    assert not (checkout / ".venv").exists()


def test_a_set_up_that_failed_leaves_nothing_and_the_next_one_heals_it(checkout):
    (checkout / "pip-exits").write_text("1")
    failed = make(checkout, "PYTHON=./python-fake", "setup")
    assert failed.returncode == 2
    assert "nothing was kept, try again" in failed.stderr
    assert not (checkout / ".venv").exists()
    (checkout / "pip-exits").write_text("0")
    good = make(checkout, "PYTHON=./python-fake", "setup")
    assert good.returncode == 0, good.stderr
    assert "installing into .venv" in good.stderr, "something is told while it takes its time"
    assert (checkout / ".venv" / ".ready").exists()


def test_half_an_environment_of_a_set_up_that_was_killed_is_made_anew(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "left-over").touch()
    (checkout / "pip-exits").write_text("0")
    assert make(checkout, "PYTHON=./python-fake", "setup").returncode == 0
    assert not (checkout / ".venv" / "left-over").exists()
    assert (checkout / ".venv" / "bin" / "python").exists()
