"""Naive oracles of Propolis: the request queue in lists and sets, and what a history of publications may look like.

They know the tables of PR 1.1 and 2.1 as prose and nothing of the implementation's order of doing things.
"""

from __future__ import annotations

from itertools import pairwise

from propolis_stub.request_queue import Queued, QueueState, RequestQueue, RequestType
from propolis_stub.table import INBOUND, OUTBOUND, TERMINAL, TRANSITIONS, Event
from propolis_stub.types import InstanceState, MigrationPhase, Publication

LIVES = {
    "new": QueueState.NOT_STARTED,
    "starting": QueueState.START_PENDING,
    "up": QueueState.RUNNING,
    "left": QueueState.MIGRATED_OUT,
    "halted": QueueState.STOPPED,
    "broken": QueueState.FAILED,
}


class Oracle:
    """Says what must happen, in no clever way."""

    def __init__(self, auto_start: bool) -> None:
        self.life = "starting" if auto_start else "new"
        self.pending: set[RequestType] = set()
        self.urgent: list[Queued] = []
        self.lazy: list[Queued] = []

    @classmethod
    def of(cls, queue: RequestQueue) -> Oracle:
        """An oracle that has seen what `queue` has seen."""
        oracle = cls(auto_start=False)
        oracle.life = next(life for life, state in LIVES.items() if state is queue.state)
        flags = {
            RequestType.REBOOT: queue.awaiting_reboot,
            RequestType.MIGRATE_AS_SOURCE: queue.awaiting_migration_out,
            RequestType.STOP: queue.awaiting_stop,
        }
        oracle.pending = {kind for kind, flag in flags.items() if flag}
        return oracle

    def answer(self, request: Queued) -> str:
        kind, stop = request.type, RequestType.STOP
        over = {"left": "MigratedOut", "halted": "Halted", "broken": "InstanceFailed"}.get(self.life)
        if over:
            return "ignored" if kind is stop else over
        if kind is RequestType.RECONFIGURE_CRUCIBLE:
            self.lazy.append(request)
            return "queued"
        leaving = RequestType.MIGRATE_AS_SOURCE in self.pending
        if kind in {RequestType.REBOOT, RequestType.MIGRATE_AS_SOURCE} and leaving:
            return "AlreadyMigrationSource" if kind is not RequestType.REBOOT else "InvalidForMigrationSource"
        if stop in self.pending:
            return "ignored" if kind is stop else "HaltPending"
        if kind is RequestType.START:
            if self.life != "new":
                return "ignored"
            self.life = "starting"
        elif kind is not stop:
            if self.life == "new":
                return "InstanceNotActive"
            if kind is RequestType.REBOOT and self.life == "starting":
                return "StartInProgress"
            if kind in self.pending:
                return "ignored"
        if kind is not RequestType.START:
            self.pending.add(kind)
        self.urgent.append(request)
        return "queued"

    def pop(self) -> Queued | None:
        if self.urgent:
            return self.urgent.pop(0)
        return self.lazy.pop(0) if self.lazy else None

    def complete(self, kind: RequestType, succeeded: bool) -> bool:
        """False: impossible."""
        needs = {RequestType.START: "starting", RequestType.REBOOT: "up", RequestType.MIGRATE_AS_SOURCE: "up"}
        if kind is RequestType.RECONFIGURE_CRUCIBLE or needs.get(kind, self.life) != self.life:
            return False
        if kind is RequestType.START:
            self.life = "up" if succeeded else "broken"
            return True
        if kind not in self.pending:
            return False
        self.pending.remove(kind)
        if kind is RequestType.STOP:
            self.life = "halted"
        elif kind is RequestType.MIGRATE_AS_SOURCE and succeeded:
            self.life = "left"
        return True


EDGES: dict[str, set[tuple[InstanceState, InstanceState]]] = {"in": set(), "out": set(), "plain": set()}
for (_source, _event), _target in TRANSITIONS.items():
    _role = (
        "in" if _event in INBOUND else "out" if _event in OUTBOUND or _event is Event.NEGOTIATION_FAILED else "plain"
    )
    EDGES[_role].add((_source, _target))


def check_history(history: list[Publication]) -> None:
    """Every publication is one row away from the one before, in the right role, and its generation is the next."""
    assert history[0].gen == 1
    for before, after in pairwise(history):
        assert after.gen == before.gen + 1
        step = (before.state, after.state)
        if before.migration_in != after.migration_in:
            assert step == (InstanceState.MIGRATING, InstanceState.MIGRATING)
            assert before.migration_out == after.migration_out, "one direction was touched by the other"
        elif before.migration_out != after.migration_out:
            assert step in EDGES["out"]
        else:
            assert step in EDGES["plain"] | EDGES["in"] | EDGES["out"]
            inbound = before.state is InstanceState.MIGRATING and (
                before.migration_out is None or before.migration_out.state is MigrationPhase.ERROR
            )
            if step == (InstanceState.MIGRATING, InstanceState.STOPPED):
                assert inbound, "a source never goes from Migrating to Stopped"
        if before.migration_in is not None:
            assert after.migration_in is not None, "a migration status is never cleared"
        assert before.state not in TERMINAL or step == (InstanceState.FAILED, InstanceState.FAILED)
