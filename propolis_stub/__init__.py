"""One Propolis process: its states, queue, driver, migrations, console and HTTP API, without a guest.

The first page of docs/embedding.md runs a whole life. The names below are the public face; everything else may
change. Each is imported when it is first asked for, because the server needs aiohttp, which takes longer to import
than all the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from propolis_stub.contract import (
        ConsoleMoved,
        Crash,
        Crashed,
        Dial,
        Disposed,
        Effect,
        EnsureFinished,
        EnsureSpec,
        EnsureTarget,
        FromPeer,
        Guest,
        Hold,
        Input,
        LevelChanged,
        MigrateOut,
        PeerClosed,
        PeerLost,
        Published,
        Reconfigure,
        ReconfigureDone,
        ReconfigureResult,
        Release,
        Request,
        Settle,
        Step,
        Tick,
        ToPeer,
    )
    from propolis_stub.driver import Hazard
    from propolis_stub.errors import (
        AlreadyInitialized,
        GuestNotRunning,
        IllegalTransition,
        NoInstance,
        PropolisError,
        QueueFull,
        Reason,
        RepairingRejected,
        RequestDenied,
    )
    from propolis_stub.guest_events import GuestEvent
    from propolis_stub.migration.link import PeerLink
    from propolis_stub.migration.script import Baggage, Payload
    from propolis_stub.pacers import STANDALONE, SettablePacer
    from propolis_stub.request_queue import Disposition
    from propolis_stub.server.app import make_handler, make_server
    from propolis_stub.server.instance import Host, Preparation, PropolisServer
    from propolis_stub.spec.read import Spec, SpecRefused
    from propolis_stub.table import TRANSITIONS, Event
    from propolis_stub.types import InstanceState, Level, MigrationPhase, MigrationStatus, Publication, RequestKind
    from propolis_stub.vm import Vm
    from propolis_stub.waiting import MILESTONES, Pace, Pacer, Point

__all__ = [
    "MILESTONES",
    "STANDALONE",
    "TRANSITIONS",
    "AlreadyInitialized",
    "Baggage",
    "ConsoleMoved",
    "Crash",
    "Crashed",
    "Dial",
    "Disposed",
    "Disposition",
    "Effect",
    "EnsureFinished",
    "EnsureSpec",
    "EnsureTarget",
    "Event",
    "FromPeer",
    "Guest",
    "GuestEvent",
    "GuestNotRunning",
    "Hazard",
    "Hold",
    "Host",
    "IllegalTransition",
    "Input",
    "InstanceState",
    "Level",
    "LevelChanged",
    "MigrateOut",
    "MigrationPhase",
    "MigrationStatus",
    "NoInstance",
    "Pace",
    "Pacer",
    "Payload",
    "PeerClosed",
    "PeerLink",
    "PeerLost",
    "Point",
    "Preparation",
    "PropolisError",
    "PropolisServer",
    "Publication",
    "Published",
    "QueueFull",
    "Reason",
    "Reconfigure",
    "ReconfigureDone",
    "ReconfigureResult",
    "Release",
    "RepairingRejected",
    "Request",
    "RequestDenied",
    "RequestKind",
    "SettablePacer",
    "Settle",
    "Spec",
    "SpecRefused",
    "Step",
    "Tick",
    "ToPeer",
    "Vm",
    "make_handler",
    "make_server",
]

_HOMES: Final = {
    "ConsoleMoved": "propolis_stub.contract",
    "Crash": "propolis_stub.contract",
    "Crashed": "propolis_stub.contract",
    "Dial": "propolis_stub.contract",
    "Disposed": "propolis_stub.contract",
    "Effect": "propolis_stub.contract",
    "EnsureFinished": "propolis_stub.contract",
    "EnsureSpec": "propolis_stub.contract",
    "EnsureTarget": "propolis_stub.contract",
    "FromPeer": "propolis_stub.contract",
    "Guest": "propolis_stub.contract",
    "Hold": "propolis_stub.contract",
    "Input": "propolis_stub.contract",
    "LevelChanged": "propolis_stub.contract",
    "MigrateOut": "propolis_stub.contract",
    "PeerClosed": "propolis_stub.contract",
    "PeerLost": "propolis_stub.contract",
    "Published": "propolis_stub.contract",
    "Reconfigure": "propolis_stub.contract",
    "ReconfigureDone": "propolis_stub.contract",
    "ReconfigureResult": "propolis_stub.contract",
    "Release": "propolis_stub.contract",
    "Request": "propolis_stub.contract",
    "Settle": "propolis_stub.contract",
    "Step": "propolis_stub.contract",
    "Tick": "propolis_stub.contract",
    "ToPeer": "propolis_stub.contract",
    "Hazard": "propolis_stub.driver",
    "AlreadyInitialized": "propolis_stub.errors",
    "GuestNotRunning": "propolis_stub.errors",
    "IllegalTransition": "propolis_stub.errors",
    "NoInstance": "propolis_stub.errors",
    "PropolisError": "propolis_stub.errors",
    "QueueFull": "propolis_stub.errors",
    "Reason": "propolis_stub.errors",
    "RepairingRejected": "propolis_stub.errors",
    "RequestDenied": "propolis_stub.errors",
    "GuestEvent": "propolis_stub.guest_events",
    "PeerLink": "propolis_stub.migration.link",
    "Baggage": "propolis_stub.migration.script",
    "Payload": "propolis_stub.migration.script",
    "STANDALONE": "propolis_stub.pacers",
    "SettablePacer": "propolis_stub.pacers",
    "Disposition": "propolis_stub.request_queue",
    "make_handler": "propolis_stub.server.app",
    "make_server": "propolis_stub.server.app",
    "Host": "propolis_stub.server.instance",
    "Preparation": "propolis_stub.server.instance",
    "PropolisServer": "propolis_stub.server.instance",
    "Spec": "propolis_stub.spec.read",
    "SpecRefused": "propolis_stub.spec.read",
    "Event": "propolis_stub.table",
    "TRANSITIONS": "propolis_stub.table",
    "InstanceState": "propolis_stub.types",
    "Level": "propolis_stub.types",
    "MigrationPhase": "propolis_stub.types",
    "MigrationStatus": "propolis_stub.types",
    "Publication": "propolis_stub.types",
    "RequestKind": "propolis_stub.types",
    "Vm": "propolis_stub.vm",
    "MILESTONES": "propolis_stub.waiting",
    "Pace": "propolis_stub.waiting",
    "Pacer": "propolis_stub.waiting",
    "Point": "propolis_stub.waiting",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
