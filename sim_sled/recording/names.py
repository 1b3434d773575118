"""Names of what files may hold: classes, Enums and functions of our pure rooms, and the fields of their objects.

Read next: daemon/graph.py, daemon/kinds.py, recording/forms.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from importlib import import_module
from types import FunctionType
from typing import Final

import msgspec

ROOMS: Final = (
    "sim_sled.core",
    "sim_sled.engine",
    "sim_sled.language",
    "sim_sled.play",
    "nexus_client",
    "propolis_stub",
)
"""What may be named: pure rooms."""
BEYOND: Final = (
    "nexus_client.client",
    "nexus_client.exchange",
    "nexus_client.senders",
    "nexus_client.stub.server",
    "propolis_stub.server",
    "sim_sled.language.files",
    "sim_sled.play.many",
    "sim_sled.play.library",
)
"""... but for these, which do I/O."""
BESIDE: Final = ("sim_sled.daemon.sightings", "sim_sled.daemon.history")
"""Values of the daemon's."""


MOVED: Final[Mapping[str, str]] = {
    "sim_sled.core.omicron_config.ledger:Ledger.put": "sim_sled.core.omicron_config.configure:put",
}
"""Where things of older files are now: `module:Name` of then, and of today. Whoever moves or renames a class, an Enum
or a function that recordings name adds a line, so that a recording outlives it (tests/data/recordings has the names).
"""


class BadName(ValueError):
    """No name of this program's, or none that a file may have."""


def is_ours(module: str) -> bool:
    """Whether a table may name what is in there."""
    return (_within(module, ROOMS) and not _within(module, BEYOND)) or _within(module, BESIDE)


@lru_cache(4096)  # a checkpoint asks of the type of each name of each of our modules
def _within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def ours(module: str) -> str:
    """The module, if a file may name it. Raises `BadName`."""
    if not is_ours(module):
        raise BadName(f"{module!r:.60} is no room of ours")
    return module


def class_of(name: str) -> type:
    """Of `module:Class`. Raises `BadName`."""
    module, _, qualified = MOVED.get(name, name).partition(":")
    found = by_name(ours(module), qualified)
    if not isinstance(found, type) or found.__module__ != module:
        raise BadName(f"{name!r:.80} is no class of ours")
    return found


def enum_of(name: str) -> type[Enum]:
    """Of `module:Class`. Raises `BadName`."""
    found = class_of(name)
    if not issubclass(found, Enum):
        raise BadName(f"{name!r:.80} is no Enum")
    return found


def function_of(name: str) -> FunctionType:
    """Of `module:function`. Raises `BadName`."""
    module, _, qualified = MOVED.get(name, name).partition(":")
    found = by_name(ours(module), qualified)
    if not isinstance(found, FunctionType) or found.__module__ != module:
        raise BadName(f"{name!r:.80} is no function of ours")
    return found


def by_name(module: str, qualified: str) -> object:
    """What a module calls so; None if it has nothing of that name. Raises ImportError."""
    found: object = import_module(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return found


def state_of(value: object) -> Iterator[tuple[str, object]]:
    """The fields of an object that are set."""
    if isinstance(value, msgspec.Struct):
        yield from ((name, getattr(value, name)) for name in value.__struct_fields__)
        return
    for name in slots_of(type(value)):
        if hasattr(value, name):  # else it is not set yet
            yield name, getattr(value, name)
    yield from getattr(value, "__dict__", {}).items()


def slots_of(kind: type) -> dict[str, None]:
    """Of a class and those that it is made of, in order."""
    found: dict[str, None] = {}
    for each in kind.__mro__:
        slots = each.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__weakref__", "__dict__"):
                private = slot.startswith("__") and not slot.endswith("__")
                found[f"_{each.__name__.lstrip('_')}{slot}" if private else slot] = None
    return found
