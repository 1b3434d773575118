"""The wheel, unpacked where there is no checkout: it has the scenario library, the pages, the type marker, and its
commands.
"""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the contents of a freshly built wheel, and nothing of the checkout beside it."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    [wheel] = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(out / "site")
    return out / "site"


def command(site, *args, folder):
    environ = {k: v for k, v in os.environ.items() if not k.startswith("SIM_SLED")} | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-m", "sim_sled", *args],
        check=False,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_wheel_has_every_scenario_and_no_golden_is_missing(installed):
    packed = {path.name for path in (installed / "sim_sled/library").iterdir()}
    assert packed == {path.name for path in (ROOT / "scenarios").iterdir()}


@pytest.mark.parametrize("package", ["sim_sled", "propolis_stub", "nexus_client"])
def test_the_wheel_has_every_file_of_a_package(installed, package):
    """The page's own files, say, without which no run becomes a page."""
    here = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.is_file()}
    wanted = {path for path in here if "__pycache__" not in path.parts}
    assert [path for path in sorted(wanted) if not (installed / path).is_file()] == []


@pytest.mark.long
def test_a_scenario_of_the_library_runs_by_name_and_becomes_a_page_where_there_is_no_checkout(installed, tmp_path):
    code, out, err = command(installed, "run", "stuck-stop", "--seed", "1", "--page", "run.html", folder=tmp_path)
    assert (code, err) == (0, "")
    assert "stuck-stop" in out
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "class Page" in text, "the page's own files travel in the wheel"


@pytest.mark.long
def test_the_library_is_listed_where_there_is_no_checkout(installed, tmp_path):
    code, out, _ = command(installed, "scenario", "list", folder=tmp_path)
    assert code == 0
    assert len(out.splitlines()) == len(list((ROOT / "scenarios").glob("*.yaml")))


def test_the_pages_are_listed_where_there_is_no_checkout(installed, tmp_path):
    code, out, _ = command(installed, "docs", folder=tmp_path)
    assert code == 0
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").glob("**/*.md")}
    assert {line.partition("\t")[0] for line in out.splitlines()} == {"README"} | pages


@pytest.mark.long
@pytest.mark.parametrize(("page", "file"), [("README", "README.md"), ("spec/nexus", "docs/spec/nexus.md")])
def test_a_page_is_read_where_there_is_no_checkout(installed, tmp_path, page, file):
    assert command(installed, "docs", page, folder=tmp_path) == (0, (ROOT / file).read_text(), "")


@pytest.mark.long
def test_each_page_that_help_and_errors_name_is_in_the_wheel(installed):
    packages = [installed / name for name in ("sim_sled", "propolis_stub", "nexus_client")]
    code = "".join(path.read_text() for package in packages for path in package.glob("**/*.py"))
    named = set(re.findall(r"sim-sled docs ([a-z][a-z/-]+)", code))
    assert named >= {"beside-nexus", "nexus-model", "propolis"}
    assert [page for page in named if not (installed / f"sim_sled/docs/{page}.md").is_file()] == []


def test_the_metadata_names_the_commands_the_licence_and_the_types(installed):
    [info] = installed.glob("*.dist-info")
    assert "sim-sled = sim_sled.__main__:main" in (info / "entry_points.txt").read_text()
    metadata = (info / "METADATA").read_text()
    assert "License-Expression: MPL-2.0" in metadata
    assert "Typing :: Typed" in metadata
    assert all(
        (installed / package / "py.typed").exists() for package in ("sim_sled", "propolis_stub", "nexus_client")
    )
