"""What this project is deployed with, read and replayed where no engine runs: Dockerfile, compose file, manifests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import attrs
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


@attrs.frozen
class Stage:
    """One `FROM` of a Dockerfile: its base, and (instruction, words or text) in order."""

    base: str
    steps: list[tuple[str, list[str]]]

    def last(self, instruction: str) -> list[str]:
        """The words of the last such instruction."""
        return [words for name, words in self.steps if name == instruction][-1]


def stages(text: str) -> list[Stage]:
    """Raises ValueError for a RUN, CMD, ENTRYPOINT or HEALTHCHECK that is no list of words: it would need a shell."""
    found: list[Stage] = []
    for line in map(str.strip, text.replace("\\\n", " ").splitlines()):
        if not line or line.startswith("#"):
            continue
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            found.append(Stage(rest.split()[0], []))
            continue
        words = rest.split()
        if instruction == "HEALTHCHECK":
            rest = rest[rest.index("CMD") + 3 :].strip()
        if instruction in {"RUN", "CMD", "ENTRYPOINT", "HEALTHCHECK"}:
            words = json.loads(rest)
            if not isinstance(words, list):
                raise ValueError(f"{line}: no list of words")
        found[-1].steps.append((instruction, words))
    return found


@attrs.define
class Replay:
    """A bare folder that stands for the image's root. `fetches`: pip does what it says, which takes half a minute and
    the network; else what it would bring is linked from this environment, and nothing else of that.
    """

    root: Path
    fetches: bool
    environ: dict[str, str] = attrs.field(factory=dict)
    cwd: Path = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.cwd = self.root

    def here(self, word: str) -> str:
        """A word of the image, with its paths below this folder."""
        return word.replace("/opt/sim-sled", str(self.root / "opt/sim-sled"))

    def run(self, words: list[str], **more: object) -> subprocess.CompletedProcess:
        words = [self.here(word) for word in words]
        if words[0] == "python3":
            words[0] = getattr(sys, "_base_executable", sys.executable)  # the image's own, not this environment's
        return subprocess.run(
            words, cwd=self.cwd, env=self.env(), check=True, capture_output=True, text=True, timeout=300, **more
        )

    def env(self) -> dict[str, str]:
        """A container has no more than what the Dockerfile says; pip may keep what it has downloaded."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        index = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP"))}
        return kept | index | self.environ

    def build(self, stage: Stage) -> None:
        """All steps of a stage that make files."""
        for instruction, words in stage.steps:
            match instruction:
                case "WORKDIR":
                    self.cwd = self.root / words[0].lstrip("/")
                    self.cwd.mkdir(parents=True, exist_ok=True)
                case "COPY" if not words[0].startswith("--from="):
                    *sources, target = words
                    for source in sources:
                        if (ROOT / source).is_dir():
                            shutil.copytree(ROOT / source, self.cwd / target, ignore=CACHES)
                        else:
                            shutil.copy(ROOT / source, self.cwd / target)
                case "RUN" if not self.fetches and "venv" in words:
                    self.run([*words, "--without-pip"])
                case "RUN" if not self.fetches and "install" in words:
                    self.link(Path(self.here(words[0])).parents[1], Requirement(f"sim-sled{words[-1].strip('.')}"))
                case "RUN" if not self.fetches and "uninstall" in words:
                    pass  # it was never there
                case "RUN":
                    # the cache of this machine is no part of the image; what is never imported need not be compiled
                    kept = [word for word in words if word != "--no-cache-dir"]
                    self.run([*kept, "--no-compile"] if "install" in words else kept)
                case "ENV":
                    self.environ |= dict(word.split("=", 1) for word in words)

    def link(self, environment: Path, wanted: Requirement) -> None:
        """The project here, as a wheel has it, and what it needs, into an environment."""
        [site] = environment.glob("lib/python*/site-packages")
        dist = self.root / "dist"
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist)]
        subprocess.run(build, cwd=self.cwd, check=True, capture_output=True, timeout=60)
        [wheel] = dist.glob("*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(site)
        shutil.rmtree(dist)
        (own,) = metadata.distributions(path=[str(site)])
        for script in own.entry_points.select(group="console_scripts"):
            path = environment / "bin" / script.name
            call = f"import sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n"
            path.write_text(f"#!{environment}/bin/python\n{call}")
            path.chmod(0o755)
        for name in needed(own, wanted.extras):
            for top in {file.parts[0] for file in metadata.distribution(name).files or ()} - {"..", "__pycache__"}:
                if not (site / top).exists():
                    (site / top).symlink_to(metadata.distribution(name).locate_file(top))


def needed(project: metadata.Distribution, extras: Iterable[str]) -> set[str]:
    """The distributions that installing it brings, by name, as they are in this environment."""
    found: set[tuple[str, str]] = set()
    unread = [(project, extra) for extra in ("", *extras)]
    while unread:
        one, extra = unread.pop()
        for wish in map(Requirement, one.requires or ()):
            if wish.marker is None or wish.marker.evaluate({"extra": extra}):
                new = {(wish.name, each) for each in ("", *wish.extras)} - found
                found |= new
                unread += [(metadata.distribution(name), each) for name, each in new]
    return {name for name, _ in found}


def started(words: list[str], environ: dict[str, str], cwd: Path) -> subprocess.Popen:
    """A command as an engine would start it."""
    return subprocess.Popen(
        words, cwd=cwd, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip


def line_with(process: subprocess.Popen, text: str) -> str:
    """Everything printed up to a line that has the text. Raises AssertionError if it ends before."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if text in line:
            return said
    raise AssertionError(f"{text!r} was never said: {said}")


def ended(process: subprocess.Popen) -> int:
    """SIGTERM, as every engine ends a container; the exit code."""
    process.terminate()
    try:
        return process.wait(30)
    finally:
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
