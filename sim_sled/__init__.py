"""Simulated sled agents: the core of a rack of them, and the daemon around it (docs/architecture.md).

The names below are the public face; everything else may change. Each is imported when it is first asked for, so that
the command starts fast. Fixtures for pytest are in `sim_sled.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sim_sled.core.config import Hardware, SimMode, SledConfig
    from sim_sled.core.errors import SledError
    from sim_sled.core.rack import Rack
    from sim_sled.core.sled import Sled
    from sim_sled.core.vmm import Vmm
    from sim_sled.daemon.daemon import Daemon
    from sim_sled.daemon.options import Options
    from sim_sled.daemon.propolis_mode import PropolisMode
    from sim_sled.language.pacer import PresetPacer

__all__ = [
    "Daemon",
    "Hardware",
    "Options",
    "PresetPacer",
    "PropolisMode",
    "Rack",
    "SimMode",
    "Sled",
    "SledConfig",
    "SledError",
    "Vmm",
]

_HOMES: Final = {
    "Hardware": "sim_sled.core.config",
    "SimMode": "sim_sled.core.config",
    "SledConfig": "sim_sled.core.config",
    "SledError": "sim_sled.core.errors",
    "PresetPacer": "sim_sled.language.pacer",
    "Rack": "sim_sled.core.rack",
    "Sled": "sim_sled.core.sled",
    "Vmm": "sim_sled.core.vmm",
    "Daemon": "sim_sled.daemon.daemon",
    "Options": "sim_sled.daemon.options",
    "PropolisMode": "sim_sled.daemon.propolis_mode",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
