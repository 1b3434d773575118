"""The scenario library: where its files are, and what a person means by a name.

In a checkout the library is the folder `scenarios/`; a wheel carries the same files as package data
(`sim_sled/library/`). Whoever takes a scenario takes what `find` takes: a file, a folder (all its files), or the name
of one of the library.

Read next: campaign/swarm.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from sim_sled.language.check import Loaded, load_scenarios
from sim_sled.language.files import is_file, is_folder
from sim_sled.language.load import STDIN
from sim_sled.language.source import Problems
from sim_sled.language.words import nearest

SUFFIXES: Final = (".yaml", ".yml")


def folder() -> Path:
    """Where the library's files are: package data of a wheel, else `scenarios/` of the checkout."""
    package = Path(__file__).resolve().parents[1]
    packed = package / "library"
    return packed if packed.is_dir() else package.parent / "scenarios"


def names() -> list[str]:
    """The names of the library, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def find(given: str) -> list[str]:
    """The files that `given` means. A file or folder that exists wins over a name of the library; what is neither is
    returned as it is, so that whoever reads it says that there is no such file.
    """
    path = Path(given)
    if given == STDIN or is_file(path):
        return [given]
    if is_folder(path):
        return sorted(str(each) for each in path.iterdir() if each.suffix in SUFFIXES) or [given]
    if _is_word(given) and is_file(folder() / f"{given}.yaml"):
        return [str(folder() / f"{given}.yaml")]
    return [given]


def named(path: str) -> str:
    """What to type for a file that `find` gave: of the library its name, unless something here is called so."""
    given = Path(path)
    return given.stem if given.parent == folder() and find(given.stem) == [path] else path


def find_all(given: Iterable[str]) -> list[str]:
    """`find` for each, in order."""
    return [path for one in given for path in find(one)]


def load(given: Iterable[str], files_from: Iterable[Path] = ()) -> tuple[list[Loaded], Problems]:
    """What people have named, read and checked: as `load_scenarios`, and who misspelt a name of the library is told
    the nearest one.
    """
    return load_scenarios(find_all(given), files_from, meant)


def meant(given: str) -> str:
    """What to say of a name that is neither a file nor one of the library, first what was meant, and of a folder
    without any; "" if it is written like a file.
    """
    if is_folder(path := Path(given)) and not any(each.suffix in SUFFIXES for each in path.iterdir()):
        return "there is no scenario in this folder (*.yaml, *.yml)"
    if not _is_word(given):
        return ""
    near = nearest(given, names())
    if near is not None:
        return f"did you mean '{near}'? There is no such file, and none in the library"
    return "there is no such file, and none in the library (sim-sled scenario list)"


def _is_word(given: str) -> bool:
    """Whoever writes a slash or a suffix means a file."""
    path = Path(given)
    return path.name == given and not path.suffix


@attrs.frozen
class Listed:
    """One scenario of the library: the incident is its opening comment, `issues` the public ones it names."""

    name: str
    file: str
    about: str
    issues: tuple[str, ...]


def listed(where: Path | None = None) -> list[Listed]:
    """Name, file and opening comment (the incident) of every scenario in a folder, sorted."""
    return [_listed(path) for path in sorted((where or folder()).glob("*.yaml"))]


def _listed(path: Path) -> Listed:
    comment = _opening_comment(path.read_text(encoding="utf-8").splitlines())
    words = comment.replace(",", " ").replace(".", " ").replace("(", " ").replace(")", " ").split()
    issues = tuple(dict.fromkeys(w.strip(";:") for w in words if w.startswith(("omicron#", "propolis#"))))
    return Listed(path.stem, str(path), comment, issues)


def _opening_comment(lines: Iterable[str]) -> str:
    said = []
    for line in lines:
        if not line.startswith("#"):
            break
        said.append(line.lstrip("# ").rstrip())
    return " ".join(said)
