"""The planted bugs as data, and what makes a row unfit to be played."""

from pathlib import Path
from typing import Final

import attrs
import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent / "planted"
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it is there: every pytest worker reads all rows."""
_KEYS: Final = {"id", "bug", "file", "text", "replacement", "tests"}


@attrs.frozen
class Planted:
    """One bug: in `file` the only occurrence of `text` becomes `replacement`; one of `tests` must fail."""

    id: str
    bug: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]

    def planted_in(self, source: str) -> str:
        """The source with the bug. Raises ValueError where the row does not fit it."""
        if (count := source.count(self.text)) != 1:
            raise ValueError(f"{self.id}: the text occurs {count} times in {self.file}")
        if self.text == self.replacement:
            raise ValueError(f"{self.id}: nothing is planted")
        return source.replace(self.text, self.replacement)

    def misfit(self) -> str:
        """Why it cannot be planted in today's code, or tried; empty: it can."""
        try:
            self.planted_in((ROOT / self.file).read_text())
        except (ValueError, OSError) as error:
            return str(error)
        gone = [test for test in self.tests if not (ROOT / test.partition("::")[0]).exists()]
        return f"{self.id}: there is no {' '.join(gone)}" if gone else "" if self.tests else f"{self.id}: no tests"


def misfits() -> list[str]:
    """Of every row that has one."""
    return [said for row in all_rows() if (said := row.misfit())]


def read(path: Path) -> list[Planted]:
    """The rows of one file. Raises ValueError for a row with other keys than the six."""
    rows = []
    for raw in yaml.load(path.read_text(), Loader=_LOADER) or []:
        if set(raw) != _KEYS:
            raise ValueError(f"{path.name}: a row has {', '.join(sorted(map(str, set(raw) ^ _KEYS)))} wrong: {raw}")
        rows.append(Planted(**{**raw, "id": str(raw["id"]), "tests": tuple(raw["tests"])}))
    return rows


def all_rows() -> list[Planted]:
    """Every planted bug, by file and in the order of the files."""
    return [row for path in sorted(FOLDER.glob("*.yaml")) for row in read(path)]
