"""A sled's hardware from a file: TOML with the fields of `config.Hardware`, sizes in bytes or with a unit.

hardware_threads = 128
physical_ram = "1TiB"
reservoir_size = "800GiB"

[[zpools]]  # or `zpools = 10`
id = "87e071d2-482a-45c3-8a80-c8ac7441273a"
total_size = "1TiB"
disk = {id = "55b708c5-ac64-4ecf-b4c1-0635ff6899e6", vendor = "1b96", model = "WUS4C6432DSP3X3", serial = "AFCF92DB"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from uuid import UUID

import attrs
from msgspec import Struct

from nexus_client.dropshot import foreign
from nexus_client.types import SledCpuFamily, SledRole
from sim_sled.core.config import BareDisk, CrucibleDataset, Hardware, PhysicalDisk, Zpool
from sim_sled.language.files import TooLong, read_bounded

FILE_BYTES_MAX: Final = 1024 * 1024
"""A dozen fields and `_ZPOOLS_MAX` disks; anything larger is the wrong file."""

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
    """The fields of the file, unchecked: TOML, or JSON if it begins with a brace. `ConfigError` if it is neither."""
    text = _read(path)
    try:
        if text.lstrip().startswith("{"):
            return _json(text)
        import tomllib  # noqa: PLC0415 -- most daemons are given no file

        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{path}: nested too deeply"]) from None
    except ValueError as error:  # neither of them, or a number with more digits than Python reads
        raise ConfigError([f"{path}: {error}"]) from error


def _json(text: str) -> dict[str, Any]:
    """A brace begins no TOML document, so there is only one way to read it."""
    fields: dict[str, Any] = foreign.loads(text)
    return fields


def take_identity(fields: dict[str, Any], sled_id: UUID, address: str, where: str) -> None:
    """Take `id` and `address` out of the fields: the `sled` of a tape has them (SR 10). `ConfigError` if they are not
    those of the command line.
    """
    problems: list[str] = []
    if "id" in fields and str(fields.pop("id")).lower() != str(sled_id):
        problems.append(f"{where}: id is not {sled_id}, which the command line says; leave one of them out")
    if "address" in fields and fields.pop("address") != address:
        problems.append(f"{where}: address is not {address}, which the command line says; leave it out")
    if problems:
        raise ConfigError(problems)


def places(path: Path) -> dict[str, str]:
    """`file:line:column` of each key of a file that was loaded, for messages about it."""
    found: dict[str, str] = {}
    for number, line in enumerate(_read(path).splitlines(), start=1):
        match = _KEY.match(line)
        if match is not None:
            found.setdefault(match["name"], f"{path}:{number}:{match.start('name') + 1}")
    return found


def _read(path: Path) -> str:
    try:
        return read_bounded(path, FILE_BYTES_MAX, regular=True).decode()
    except TooLong:
        raise ConfigError([f"{path}: larger than {FILE_BYTES_MAX} bytes"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: {error}"]) from error
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error


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
        # Nexus's own check (NX 3.3); found here it has a name
        place = at.get("reservoir_size", at.get("physical_ram", where))
        problems.append(f"{place}: reservoir_size must be smaller than physical_ram")
    if problems:
        raise ConfigError(problems)
    return made


class _Wrong(ValueError):
    """A value of the wrong kind."""


_PARTS: Final[Mapping[str, type[Struct]]] = MappingProxyType(
    {"zpools": Zpool, "disks": BareDisk, "crucible_datasets": CrucibleDataset}
)
"""Fields that are lists of objects, and what the objects are."""


def _parts(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _Wrong("a list is expected")
    if len(value) > _ZPOOLS_MAX:
        raise ValueError(f"at most {_ZPOOLS_MAX}")
    made = tuple(_part(_PARTS[name], each, f"[{number}]") for number, each in enumerate(value))
    keys = [key for part in made for key in _keys(part)]
    if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
        raise ValueError(f"{twice[0]} is there twice")
    return made


def _part(kind: type[Struct], value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _Wrong(f"{where}: an object is expected")
    fields = kind.__struct_fields__
    if wrong := sorted(set(value) ^ set(fields)):
        raise ValueError(f"{where}: {wrong[0]!r} is {'missing' if wrong[0] in fields else 'unknown'}")
    return kind(**{name: _part_value(name, each, f"{where}.{name}") for name, each in value.items()})


def _part_value(name: str, value: Any, where: str) -> Any:
    if name == "disk":
        return _part(PhysicalDisk, value, where)
    try:
        if name.endswith("id"):
            return UUID(value)
        if name.endswith("size"):
            return _whole(size(value) if isinstance(value, str) else value)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{where}: {error if name.endswith('size') else f'{value!r} is no UUID'}") from None
    if not isinstance(value, str):
        raise _Wrong(f"{where}: a text is expected")
    return value


def _keys(part: Zpool | BareDisk | CrucibleDataset) -> list[UUID]:
    """What must be there once."""
    match part:
        case Zpool(id=pool_id, disk=disk):
            return [pool_id, disk.id]
        case BareDisk(disk=disk):
            return [disk.id]
        case CrucibleDataset(dataset_id=dataset_id):
            return [dataset_id]


E = TypeVar("E", bound=Enum)


def _one_of(names: type[E], value: Any) -> E:
    for each in names:
        if each.value == value:
            return each
    raise ValueError(f"{value!r} is none of {', '.join(each.value for each in names)}")


def _value(name: str, value: Any) -> Any:
    if name in _PARTS and (name != "zpools" or isinstance(value, list)):
        return _parts(name, value)
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
    _whole(number)
    if name == "zpools" and number > _ZPOOLS_MAX:
        raise ValueError(f"at most {_ZPOOLS_MAX}")
    if name == "hardware_threads" and number == 0:
        raise ValueError("at least 1")
    return number


def _whole(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= _INT_MAX:
        raise ValueError("a whole number is expected, not negative")
    return number
