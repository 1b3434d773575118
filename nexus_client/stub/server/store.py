"""Records and saga log of the Nexus model in one SQLite file, so that they survive `kill -9`. Shell.

What one call of `Nexus.handle` has changed is one transaction, committed before any of its effects leaves the
process: whoever was answered finds it written, and what was not written nobody has heard of. At the next start the
sagas of the log repeat their last node, as after any crash of the model (NX 5.3: every node may run twice).

Rows are kept as JSON with the schema's own constraints over it (NX 1.3). Before version 2 an instance had the one
state enum which instances and VMMs shared; opening such a file migrates it as #5854's schema 70.0.0 does (NX 1.4).

Read before: stub/nexus.py. Read next: stub/server/serve.py.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from nexus_client.dropshot.response import MachineFails
from nexus_client.stub.context import Changes
from nexus_client.stub.migrate_records import new_instance_state
from nexus_client.stub.nexus import Nexus
from nexus_client.stub.records import (
    ExternalIp,
    Instance,
    Migration,
    Network,
    Provision,
    Reservation,
    Row,
    Sled,
    Vmm,
)
from nexus_client.stub.sagas.state import (
    AttachSaga,
    CreateSaga,
    DetachSaga,
    MigrateSaga,
    Saga,
    SagaKind,
    StartSaga,
    UpdateSaga,
)

VERSION: Final = 2

TABLES: Final[Mapping[str, tuple[type[Row], str]]] = {
    # in the order in which they can be put back: who is pointed to comes first
    "sled": (Sled, ""),
    "vmm": (
        Vmm,
        """CONSTRAINT failure_reason_if_failed
        CHECK (row->>'$.state' <> 'failed' OR row->>'$.failure_reason' IS NOT NULL)""",
    ),
    "instance": (
        Instance,
        """CONSTRAINT vmm_iff_active_propolis_id
        CHECK ((row->>'$.state' = 'vmm') = (row->>'$.active_propolis_id' IS NOT NULL))""",
    ),
    "migration": (Migration, "CHECK (row->>'$.source_gen' >= 1 AND row->>'$.target_gen' >= 1)"),
    "reservation": (Reservation, ""),
    "external_ip": (ExternalIp, ""),
    "network": (Network, ""),
    "provision": (Provision, ""),
}
_TABLE_OF: Final = {kind: name for name, (kind, _) in TABLES.items()}
_SAGAS: Final[Mapping[SagaKind, type[Saga]]] = {
    kind.kind: kind for kind in (CreateSaga, StartSaga, MigrateSaga, UpdateSaga, AttachSaga, DetachSaga)
}
_UNIQUE: Final = (
    "CREATE UNIQUE INDEX one_reservation_of_a_kind ON reservation (row->>'$.instance_id', row->>'$.kind') "
    "WHERE row->>'$.kind' <> 'tombstoned'"
)


class StoreFailed(AssertionError, MachineFails):
    """The file cannot be written, or is none of ours: the model ends, for what it says would not be kept."""


class Store:
    """One open file. `save` is one transaction; nothing else writes."""

    def __init__(self, path: Path) -> None:
        """Opens, or makes, or migrates the file. Raises `StoreFailed`."""
        self.path = path
        self._sagas: dict[UUID, bytes] = {}
        self._counters: dict[str, int] = {}
        with self._failing():
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            [version] = self._db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreFailed(f"{path} has version {version}; this sim-sled knows {VERSION}")
            with self._transaction():
                if version == 0:
                    self._make()
                elif version == 1:
                    self._migrate_5854()
                self._db.execute(f"PRAGMA user_version = {VERSION}")

    def _make(self) -> None:
        for name, (_, check) in TABLES.items():
            self._make_table(name, check)
        self._db.execute(_UNIQUE)
        self._db.execute("CREATE TABLE saga (id TEXT PRIMARY KEY, kind TEXT NOT NULL, row TEXT NOT NULL) STRICT")
        self._db.execute("CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT")

    def _make_table(self, name: str, check: str) -> None:
        """`place` keeps the order in which rows were made."""
        also = f", {check}" if check else ""
        self._db.execute(
            f"CREATE TABLE {name} "
            f"(place INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, row TEXT NOT NULL{also}) STRICT"
        )

    def _migrate_5854(self) -> None:
        """States of the shared enum become the instance's own; the column's check comes with the new table."""
        self._db.execute("ALTER TABLE instance RENAME TO old_instance")
        self._make_table("instance", TABLES["instance"][1])
        for place, key, text in self._db.execute("SELECT place, id, row FROM old_instance").fetchall():
            row = msgspec.json.decode(text)
            has_vmm = row["active_propolis_id"] is not None
            row["state"] = new_instance_state(row["state"], has_vmm=has_vmm).value
            self._db.execute("INSERT INTO instance VALUES (?, ?, ?)", (place, key, _text(row)))
        self._db.execute("DROP TABLE old_instance")

    # -- reading

    def seed(self, wanted: int) -> int:
        """The seed that the file's ids come from; a new file takes `wanted`."""
        with self._failing():
            found = self._db.execute("SELECT value FROM counter WHERE name = 'seed'").fetchone()
            if found is None:
                self._db.execute("INSERT INTO counter VALUES ('seed', ?)", (wanted,))
        return wanted if found is None else int(found[0])

    def load_into(self, nexus: Nexus) -> None:
        """Give a new model what the file has; from now on it keeps a list of its changes."""
        with self._failing():
            rows: list[Row] = []
            for name, (kind, _) in TABLES.items():
                found = self._db.execute(f"SELECT row FROM {name} ORDER BY place")  # noqa: S608 -- a name of ours
                rows += [msgspec.json.decode(text, type=kind) for (text,) in found]
            sagas: list[Saga] = []
            for key, kind, text in self._db.execute("SELECT id, kind, row FROM saga"):
                sagas.append(msgspec.json.decode(text, type=_SAGAS[SagaKind(kind)]))
                self._sagas[UUID(key)] = text.encode()
            counters = dict(self._db.execute("SELECT name, value FROM counter WHERE name <> 'seed'").fetchall())
        self._counters = dict(counters)
        nexus.restore(rows, sorted(sagas, key=lambda saga: saga.place), counters)

    # -- writing

    def save(self, nexus: Nexus) -> None:
        """One transaction with all that has changed since the last. Raises `StoreFailed`: then nothing is kept."""
        changes = nexus.take_changes()
        sagas = {saga.id: msgspec.json.encode(saga) for saga in changes.sagas}
        new = {key: text for key, text in sagas.items() if self._sagas.get(key) != text}
        over = self._sagas.keys() - sagas.keys()
        counters = {name: value for name, value in changes.counters.items() if self._counters.get(name) != value}
        if not (changes.rows or new or over or counters):
            return
        kinds = {saga.id: saga.kind.value for saga in changes.sagas}
        with self._failing(), self._transaction():
            for kind, key, row in _in_order(changes):
                self._write(_TABLE_OF[kind], key, row)
            for saga_id in over:
                self._db.execute("DELETE FROM saga WHERE id = ?", (str(saga_id),))
            for saga_id, text in new.items():
                self._db.execute(
                    "INSERT INTO saga VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET row = excluded.row",
                    (str(saga_id), kinds[saga_id], text.decode()),
                )
            for name, value in counters.items():
                self._db.execute(
                    "INSERT INTO counter VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    (name, value),
                )
        self._sagas, self._counters = sagas, dict(changes.counters)

    def _write(self, table: str, key: str, row: Row | None) -> None:
        if row is None:
            self._db.execute(f"DELETE FROM {table} WHERE id = ?", (key,))  # noqa: S608 -- a name of ours
            return
        self._db.execute(
            f"INSERT INTO {table} (id, row) VALUES (?, ?) "  # noqa: S608 -- a name of ours
            "ON CONFLICT (id) DO UPDATE SET row = excluded.row",
            (key, _text(row)),
        )

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, msgspec.MsgspecError, ValueError) as error:
            raise StoreFailed(f"{self.path}: {error}") from error


def _in_order(changes: Changes) -> list[tuple[type[Row], str, Row | None]]:
    """What goes comes first, then what makes room for others: at no statement is there one reservation too many."""

    def late(item: tuple[type[Row], str, Row | None]) -> int:
        row = item[2]
        if row is None:
            return 0
        return 1 if isinstance(row, Reservation) and row.kind.value == "tombstoned" else 2

    return sorted(((kind, key, row) for (kind, key), row in changes.rows.items()), key=late)


def _text(row: Any) -> str:
    return msgspec.json.encode(row).decode()
