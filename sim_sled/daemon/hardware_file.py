"""A sled's hardware from a file: TOML with the fields of `config.Hardware`, sizes in bytes or with a unit.

hardware_threads = 128
physical_ram = "1TiB"
reservoir_size = "800GiB"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import attrs

from nexus_client.types import SledCpuFamily, SledRole
from sim_sled.core.config import Hardware

FILE_BYTES_MAX: Final = 64 * 1024
"""A dozen fields; anything larger is the wrong file."""

_UNITS: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE: Final = re.compile(r"(\d+)\s*([A-Za-z]*)")
_SIZES: Final = frozenset({"physical_ram", "reservoir_size", "zpool_size"})
_INTEGERS: Final = frozenset({"hardware_threads", "zpools", "baseboard_revision"})
_INT_MAX: Final = 2**63 - 1
_ZPOOLS_MAX: Final = 1_000
"""A real sled has ten; each gets a disk, a pool and datasets that are made at start."""
_KEY: Final = re.compile(r"""[ \t]*\[*[ \t]*["']?(?P<name>[A-Za-z0-9_-]+)""")
_NOWHERE: Final[Mapping[str, str]] = MappingProxyType({})


class ConfigError(ValueError):
    """Every problem of a configuration at once; `problems` has a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def size(text: str) -> int:
    """Bytes of `64GiB`, `512MiB` or a plain number. ValueError if it is none."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a size; write bytes or a number with KiB, MiB, GiB or TiB")
    return int(match[1]) * _UNITS[match[2]]


def load(path: Path) -> dict[str, Any]:
    """The fields of the file, unchecked. `ConfigError` if it cannot be read or is no TOML."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError([f"{path}: larger than {FILE_BYTES_MAX} bytes"])
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: {error}"]) from error


def places(path: Path) -> dict[str, str]:
    """`file:line:column` of each key of a file that was loaded, for messages about it."""
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        match = _KEY.match(line)
        if match is not None:
            found.setdefault(match["name"], f"{path}:{number}:{match.start('name') + 1}")
    return found


def hardware(fields: dict[str, Any], where: str = "hardware", at: Mapping[str, str] = _NOWHERE) -> Hardware:
    """Hardware from fields by name; what is not named keeps its default. `ConfigError` lists every problem, with
    the place from `at` or, without one, `where`.
    """
    known = {field.name for field in attrs.fields(Hardware)}
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in known:
            problems.append(f"{at.get(name, where)}: unknown field {name!r}; known are {', '.join(sorted(known))}")
            continue
        try:
            values[name] = _value(name, value)
        except ValueError as error:
            problems.append(f"{at.get(name, where)}: {name}: {error}")
    made = Hardware(**values) if not problems else Hardware()
    if not problems and made.reservoir_size >= made.physical_ram:
        # Nexus's own check (nexus.md 3.3); found here it has a name
        place = at.get("reservoir_size", at.get("physical_ram", where))
        problems.append(f"{place}: reservoir_size must be smaller than physical_ram")
    if problems:
        raise ConfigError(problems)
    return made


E = TypeVar("E", bound=Enum)


def _one_of(names: type[E], value: Any) -> E:
    for each in names:
        if each.value == value:
            return each
    raise ValueError(f"{value!r} is none of {', '.join(each.value for each in names)}")


def _value(name: str, value: Any) -> Any:
    if name in _SIZES:
        number = size(value) if isinstance(value, str) else value
    elif name == "cpu_family":
        return _one_of(SledCpuFamily, value)
    elif name == "role":
        return _one_of(SledRole, value)
    elif name in _INTEGERS:
        number = value
    else:
        if not isinstance(value, str):
            raise ValueError("a text is expected")
        return value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _INT_MAX:
        raise ValueError("a whole number is expected, not negative")
    if name == "zpools" and number > _ZPOOLS_MAX:
        raise ValueError(f"at most {_ZPOOLS_MAX}")
    if name == "hardware_threads" and number == 0:
        raise ValueError("at least 1")
    return number
