"""Trust quorum over HTTP (SR 4.5). Members of a configuration are pairs on the wire, whatever the documents say; both
forms are read, pairs are written.

Read before: core/trust_quorum/node.py, http/asking.py. Read next: http/operations.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

import msgspec

from nexus_client.dropshot.json import Json
from nexus_client.dropshot.text import U8, U64, Scalar, Uuid, scalar_hook
from sim_sled.core.trust_quorum.node import (
    Baseboard,
    Configuration,
    NetworkBlob,
    TrustQuorum,
    Wish,
    board_json,
    config_json,
)
from sim_sled.http.asking import NO_CONTENT, ask, ok
from sim_sled.http.bodies_network import Struct
from sim_sled.http.bodies_omicron import Sha256
from sim_sled.http.routes import Answer, Call

_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")


class Hex(Scalar):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        if not _HEX.fullmatch(text):
            raise ValueError("expected a hex string")
        return text.lower()


class Base64(Scalar):
    __slots__ = ()

    @classmethod
    def canonical(cls, text: str) -> str:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"invalid base64: {error}") from None
        return base64.b64encode(data).decode()


class BoardBody(Struct, kw_only=True):
    part_number: str
    serial_number: str


class ReconfigureBody(Struct, kw_only=True):
    rack_id: Uuid
    epoch: U64
    members: tuple[BoardBody, ...]
    threshold: U8
    last_committed_epoch: U64 | None = None


class UpgradeBody(Struct, kw_only=True):
    rack_id: Uuid
    epoch: U64
    members: tuple[BoardBody, ...]
    threshold: U8


class CommitBody(Struct, kw_only=True):
    rack_id: Uuid
    epoch: U64


class _Documented(Struct, kw_only=True):
    id: BoardBody
    share_digest: Sha256


class Member:
    """`[board, digest]` as on the wire, or `{id, share_digest}` as the documents have it.

    No attrs class: those msgspec reads by itself, and never asks `parse`.
    """

    def __init__(self, board: Baseboard, digest: str) -> None:
        self.board = board
        self.digest = digest

    @classmethod
    def parse(cls, raw: object) -> Member:
        """See `scalars.scalar_hook`."""
        if isinstance(raw, list):
            board, digest = msgspec.convert(raw, tuple[BoardBody, Sha256], dec_hook=scalar_hook)
        else:
            documented = msgspec.convert(raw, _Documented, dec_hook=scalar_hook)
            board, digest = documented.id, documented.share_digest
        return cls(_board(board), str(digest))


class SecretsBody(Struct, kw_only=True):
    salt: Sha256  # 32 bytes too
    data: Hex


class ConfigurationBody(Struct, kw_only=True):
    rack_id: Uuid
    epoch: U64
    coordinator: BoardBody
    members: tuple[Member, ...]
    threshold: U8
    encrypted_rack_secrets: SecretsBody | None = None


class PrepareBody(Struct, kw_only=True):
    config: ConfigurationBody


class ProxyCommitBody(Struct, kw_only=True):
    destination: BoardBody
    request: CommitBody


class ProxyPrepareBody(Struct, kw_only=True):
    destination: BoardBody
    request: PrepareBody


class NetworkBody(Struct, kw_only=True):
    generation: U64
    blob: Base64


RECONFIGURE: Final = Json(ReconfigureBody)
UPGRADE: Final = Json(UpgradeBody)
COMMIT: Final = Json(CommitBody)
PREPARE: Final = Json(PrepareBody)
PROXY_COMMIT: Final = Json(ProxyCommitBody)
PROXY_PREPARE: Final = Json(ProxyPrepareBody)
NETWORK: Final = Json(NetworkBody)


def _board(body: BoardBody) -> Baseboard:
    return Baseboard(body.part_number, body.serial_number)


def _configuration(body: ConfigurationBody) -> Configuration:
    members = tuple((each.board, each.digest) for each in body.members)
    secrets = body.encrypted_rack_secrets
    return Configuration(
        body.rack_id.uuid,
        int(body.epoch),
        _board(body.coordinator),
        members,
        body.threshold,
        None if secrets is None else (str(secrets.salt), str(secrets.data)),
    )


async def reconfigure(call: Call) -> Answer:
    body = call.body
    last = body.last_committed_epoch
    members = frozenset(_board(each) for each in body.members)
    wish = Wish(body.rack_id.uuid, int(body.epoch), None if last is None else int(last), members, body.threshold)
    await ask(call, TrustQuorum, TrustQuorum.reconfigure, wish)
    return NO_CONTENT


async def upgrade(call: Call) -> Answer:
    await ask(call, TrustQuorum, TrustQuorum.upgrade, call.body.rack_id.uuid, int(call.body.epoch))
    return NO_CONTENT


async def commit(call: Call) -> Answer:
    await ask(call, TrustQuorum, TrustQuorum.commit, call.body.rack_id.uuid, int(call.body.epoch))
    return NO_CONTENT


async def prepare_and_commit(call: Call) -> Answer:
    config = _configuration(call.body.config)
    return ok(await ask(call, TrustQuorum, TrustQuorum.prepare_and_commit, config))


async def coordinator_status(call: Call) -> Answer:
    """`null` where nothing is coordinated: the documents do not have it, the wire does (SR 4.5)."""
    found = await ask(call, TrustQuorum, TrustQuorum.coordinator_status)
    if found is None:
        return ok(None)
    config, acked = found
    return ok({"config": config_json(config), "acked_prepares": [board_json(each) for each in acked]})


async def status(call: Call) -> Answer:
    return ok(await ask(call, TrustQuorum, TrustQuorum.status))


async def proxy_commit(call: Call) -> Answer:
    body, request = call.body, call.body.request
    to = _board(body.destination)
    await ask(call, TrustQuorum, TrustQuorum.proxy_commit, to, request.rack_id.uuid, int(request.epoch))
    return NO_CONTENT


async def proxy_prepare_and_commit(call: Call) -> Answer:
    to, config = _board(call.body.destination), _configuration(call.body.request.config)
    return ok(await ask(call, TrustQuorum, TrustQuorum.proxy_prepare_and_commit, to, config))


async def proxy_status(call: Call) -> Answer:
    to = Baseboard(call.query["part_number"], call.query["serial_number"])
    return ok(await ask(call, TrustQuorum, TrustQuorum.proxy_status, to))


async def get_network(call: Call) -> Answer:
    """`null` where nothing was written, as above."""
    found = await ask(call, TrustQuorum, TrustQuorum.get_network)
    told: Any = None if found is None else {"generation": found.generation, "blob": found.blob}
    return ok(told)


async def put_network(call: Call) -> Answer:
    blob = NetworkBlob(int(call.body.generation), str(call.body.blob))
    await ask(call, TrustQuorum, TrustQuorum.put_network, blob)
    return NO_CONTENT
