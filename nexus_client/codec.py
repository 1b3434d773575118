"""The decoders of what is said to and by Nexus (SA 1.5). `types.py` says which fields there are; how JSON is read and
written says dropshot/json.py.

Read before: types.py.
"""

from __future__ import annotations

from typing import Final

from nexus_client.dropshot.json import Json, encode
from nexus_client.types import SledAgentInfo, SledVmmState, UpdatedRuntime, VmmPutStateBody, VmmStateRequested

__all__ = [
    "SLED_AGENT_INFO",
    "SLED_VMM_STATE",
    "UPDATED_RUNTIME",
    "VMM_PUT_STATE_BODY",
    "VMM_STATE_REQUESTED",
    "encode",
]

SLED_VMM_STATE: Final = Json(SledVmmState)
UPDATED_RUNTIME: Final = Json(UpdatedRuntime)
VMM_PUT_STATE_BODY: Final = Json(VmmPutStateBody)
VMM_STATE_REQUESTED: Final = Json(VmmStateRequested)
SLED_AGENT_INFO: Final = Json(SledAgentInfo)
