"""What is said to Nexus: wire types, registration, ordered and retried delivery; and a model of Nexus to say it to.

The names below are the public face; everything else may change. Each is imported when it is first asked for: the
client and the model's server need aiohttp, which takes longer to import than all the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nexus_client.client import NexusClient
    from nexus_client.outbox import Delivered, Forget, Hurry, Outbox, Permanent, Send, Settled, Transient
    from nexus_client.registration import Decommissioned, InfoChanged, Registered, Registration, RegistrationRefused
    from nexus_client.stub.nexus import Nexus
    from nexus_client.stub.server.serve import NexusServer
    from nexus_client.types import (
        Asked,
        Baseboard,
        InstanceMigrationTargetParams,
        MigrationRuntimeState,
        MigrationState,
        SledAgentInfo,
        SledCpuFamily,
        SledRole,
        SledVmmState,
        UpdatedRuntime,
        VmmRuntimeState,
        VmmState,
        VmmStateRequested,
    )

__all__ = [
    "Asked",
    "Baseboard",
    "Decommissioned",
    "Delivered",
    "Forget",
    "Hurry",
    "InfoChanged",
    "InstanceMigrationTargetParams",
    "MigrationRuntimeState",
    "MigrationState",
    "Nexus",
    "NexusClient",
    "NexusServer",
    "Outbox",
    "Permanent",
    "Registered",
    "Registration",
    "RegistrationRefused",
    "Send",
    "Settled",
    "SledAgentInfo",
    "SledCpuFamily",
    "SledRole",
    "SledVmmState",
    "Transient",
    "UpdatedRuntime",
    "VmmRuntimeState",
    "VmmState",
    "VmmStateRequested",
]

_HOMES: Final = {
    "NexusClient": "nexus_client.client",
    "Delivered": "nexus_client.outbox",
    "Forget": "nexus_client.outbox",
    "Hurry": "nexus_client.outbox",
    "Outbox": "nexus_client.outbox",
    "Permanent": "nexus_client.outbox",
    "Send": "nexus_client.outbox",
    "Settled": "nexus_client.outbox",
    "Transient": "nexus_client.outbox",
    "Decommissioned": "nexus_client.registration",
    "InfoChanged": "nexus_client.registration",
    "Registered": "nexus_client.registration",
    "Registration": "nexus_client.registration",
    "RegistrationRefused": "nexus_client.registration",
    "Nexus": "nexus_client.stub.nexus",
    "NexusServer": "nexus_client.stub.server.serve",
    "Asked": "nexus_client.types",
    "Baseboard": "nexus_client.types",
    "InstanceMigrationTargetParams": "nexus_client.types",
    "MigrationRuntimeState": "nexus_client.types",
    "MigrationState": "nexus_client.types",
    "SledAgentInfo": "nexus_client.types",
    "SledCpuFamily": "nexus_client.types",
    "SledRole": "nexus_client.types",
    "SledVmmState": "nexus_client.types",
    "UpdatedRuntime": "nexus_client.types",
    "VmmRuntimeState": "nexus_client.types",
    "VmmState": "nexus_client.types",
    "VmmStateRequested": "nexus_client.types",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
