"""Nexus's calls to sleds over HTTP: one request each, and what became of it (NX 4.1, 4.4). Shell.

Read before: stub/contract.py, stub/server/bodies.py. Read next: stub/server/host.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self
from urllib.parse import quote

import aiohttp
import attrs
from yarl import URL

from nexus_client.codec import encode
from nexus_client.dropshot.json import BadJson, Json
from nexus_client.stub.contract import (
    Answered,
    AttachSubnet,
    CallSled,
    DeleteExternalIp,
    DetachSubnet,
    ErrorAnswered,
    GetVmmState,
    Malformed,
    NoConnection,
    Outcome,
    PutExternalIp,
    PutVmmState,
    ReadInventory,
    RegisterVmm,
    SledOp,
    TimedOut,
    UnregisterVmm,
)
from nexus_client.stub.server.bodies import LATEST, VERSIONS, register_body
from nexus_client.types import SledVmmState, UpdatedRuntime, VmmPutStateBody

TIMEOUT_S: Final = 60.0
"""Nexus gives a sled 60 s to connect and 60 s in all (NX 3.1)."""
ANSWER_MAX: Final = 16 * 1024 * 1024
"""Bytes read of an answer; an inventory is the largest and stays far below."""

_STATE: Final = Json(SledVmmState)
_UPDATED: Final = Json(UpdatedRuntime)


@attrs.frozen
class _Error:
    message: str
    request_id: str = ""
    error_code: str | None = None


_ERROR: Final = Json(_Error)


@attrs.frozen
class SledRequest:
    """How a call looks on the wire: percent-encoded path, body as a value for JSON, the status that means success."""

    method: str
    path: str
    body: Any
    success: int
    decoder: Json[Any] | None = None


def request_of(op: SledOp, major: int = LATEST) -> SledRequest:
    """The request of an operation in Sled Agent API version `major`.0.0."""
    match op:
        case RegisterVmm(propolis_id):
            return SledRequest("PUT", f"/vmms/{propolis_id}", register_body(op, major), 200, _STATE)
        case UnregisterVmm(propolis_id):
            return SledRequest("DELETE", f"/vmms/{propolis_id}", None, 200, _UPDATED)
        case PutVmmState(propolis_id, requested):
            body: Any = VmmPutStateBody(requested)
            if requested.value is None:  # the unit variants have no `value`
                body = {"state": {"type": requested.type.value}}
            return SledRequest("PUT", f"/vmms/{propolis_id}/state", body, 200, _UPDATED)
        case GetVmmState(propolis_id):
            return SledRequest("GET", f"/vmms/{propolis_id}/state", None, 200, _STATE)
        case PutExternalIp(propolis_id, kind, address):
            body = {"type": kind.value, "value": address}
            return SledRequest("PUT", f"/vmms/{propolis_id}/external-ip", body, 204)
        case DeleteExternalIp(propolis_id, kind, address):
            body = {"type": kind.value, "value": address}
            return SledRequest("DELETE", f"/vmms/{propolis_id}/external-ip", body, 204)
        case AttachSubnet(propolis_id, subnet):
            body = {"kind": "external", "subnet": subnet}
            return SledRequest("POST", f"/vmms/{propolis_id}/attached-subnets", body, 204)
        case DetachSubnet(propolis_id, subnet):
            path = f"/vmms/{propolis_id}/attached-subnets/{quote(subnet, safe='')}"
            return SledRequest("DELETE", path, None, 204)
        case ReadInventory():
            return SledRequest("GET", "/inventory", None, 200)


class SledClient:
    """One aiohttp session for all sleds. `api_version` goes into every request; its major shapes the bodies."""

    def __init__(self, api_version: str = f"{LATEST}.0.0", *, timeout_s: float = TIMEOUT_S) -> None:
        self._major = int(api_version.partition(".")[0])
        if self._major not in VERSIONS:
            raise ValueError(f"Sled Agent API {api_version} is not known; 1.0.0 to {LATEST}.0.0 are")
        self._headers: Mapping[str, str] = {"api-version": api_version, "accept": "application/json"}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # No limit: the core bounds what is in flight, and a hanging sled must not delay the others. No kept-alive
        # connections and no retry: the library would silently send a second time what a sled has not answered.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        self._session._retry_connection = False  # noqa: SLF001 - as above; a test holds it
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, call: CallSled) -> Outcome:
        """Send it once and wait for the answer. Never raises for what the sled or the network does."""
        assert self._session is not None, "use it as a context manager"
        request = request_of(call.op, self._major)
        data = None if request.body is None else encode(request.body)
        headers = dict(self._headers)
        if data is not None:
            headers["content-type"] = "application/json"
        url = URL(f"http://{call.address}{request.path}", encoded=True)
        try:
            async with self._session.request(request.method, url, data=data, headers=headers) as answer:
                raw = await answer.content.read(ANSWER_MAX + 1)
                while not answer.content.at_eof() and len(raw) <= ANSWER_MAX:
                    raw += await answer.content.read(ANSWER_MAX + 1 - len(raw))
                return _outcome(request, answer.status, raw)
        except TimeoutError:
            return TimedOut(f"no answer within {self._timeout.total} s")
        except (aiohttp.ClientConnectionError, ConnectionError) as error:
            return NoConnection(str(error) or type(error).__name__)
        except aiohttp.ClientError as error:
            return Malformed(str(error) or type(error).__name__)


def _outcome(request: SledRequest, status: int, raw: bytes) -> Outcome:
    if len(raw) > ANSWER_MAX:
        return Malformed(f"an answer of more than {ANSWER_MAX} bytes")
    if status >= 400:
        try:
            error = _ERROR.decode(raw)
        except BadJson:
            return Malformed(f"status {status} without a readable error body")
        return ErrorAnswered(status, error.error_code, error.message)
    if status != request.success:
        return Malformed(f"unexpected status {status}")
    if request.decoder is None:
        return Answered()
    try:
        return Answered(request.decoder.decode(raw))
    except BadJson as error:
        return Malformed(str(error))
