"""How a daemon behaves as a process.

Read next: daemon/daemon.py, daemon/listening.py, daemon/recorder.py, daemon/reporting.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from nexus_client.dropshot.text import IpNet
from propolis_stub.waiting import Pacer
from sim_sled.companions.servers import Ports
from sim_sled.core.estate import AtOnce, SledPacer
from sim_sled.daemon.propolis_mode import PropolisMode
from sim_sled.language.pacer import PresetPacer
from sim_sled.play.calls import SILENCE_US

if TYPE_CHECKING:
    from sim_sled.engine.engine import Engine
    from sim_sled.play.wrong_sleds import WrongSled

SHUTDOWN_WAIT_S: Final = 5.0
"""On SIGTERM, how long what waits for Nexus may still take (Kubernetes gives 30 s in all)."""


@attrs.frozen
class Options:
    """How a daemon behaves as a process; the sleds have their own `SledConfig`."""

    nexus: str
    pacer: Pacer = attrs.field(factory=PresetPacer)
    pace: str | None = None  # preset of every scenario that has no latencies of its own; None: what the language says
    seed: int = 0
    accept_newer_api: bool = False
    shutdown_wait_s: float = SHUTDOWN_WAIT_S
    register: bool = True
    history: bool = True
    propolis: PropolisMode = PropolisMode.NONE
    propolis_nets: tuple[IpNet, ...] = ()  # where a VMM's Propolis may listen, beside loopback and the sled's prefix
    engine: Engine | None = None  # rules of a scenario; then it is the pacer too
    wrong: WrongSled | None = None  # sleds that are wrong on purpose, to prove a judge
    silence_us: int = SILENCE_US  # how long a connection is kept to which a rule lets nothing answer
    own_ports: bool = False  # port 0 is one of our own range, the same again after a restart
    plays: str | None = None  # which sled of a scenario's fleet the first one is
    companions: Ports | None = None  # servers beside each sled; None: there are none
    sled_pacer: SledPacer = attrs.field(factory=AtOnce)
    state_dir: Path | None = None  # None: nothing outlives the daemon
