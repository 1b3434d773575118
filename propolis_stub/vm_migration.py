"""What the driver of one Propolis process does while its VM migrates, out or in (PR 3.5, 3.6).

The dialogue is in `migration.py`; here its actions become publications, waits and completions.

Read before: vm_wrapper.py, migration/script.py. Read next: vm.py.
"""

from __future__ import annotations

from typing import assert_never
from uuid import UUID

from propolis_stub import contract, machine
from propolis_stub.contract import Effect
from propolis_stub.migration.messages import Error
from propolis_stub.migration.script import (
    Await,
    ErrorKind,
    Failure,
    Mark,
    Migration,
    Pause,
    Publish,
    Redirect,
    Role,
    Send,
)
from propolis_stub.request_queue import Queued, RequestType
from propolis_stub.table import Birth, Event
from propolis_stub.types import InstanceState, Level, MigrationPhase, MigrationStatus
from propolis_stub.vm_wrapper import Doing, VmWrapper
from propolis_stub.waiting import Point


class MigratingVm(VmWrapper):
    """See the module."""

    __slots__ = ()

    def _migrate_out(self, item: contract.MigrateOut, out: list[Effect]) -> None:
        queue = self._queue()
        out.append(contract.Disposed(queue.try_queue(Queued(RequestType.MIGRATE_AS_SOURCE, item.migration_id))))
        self._waiting = Migration.of(item, Role.SOURCE)

    def _migration(self, migration_id: UUID | None) -> Migration | None:
        if migration_id is None:
            return self._active or self._waiting
        for migration in (self._active, self._waiting):
            if migration is not None and migration.id == migration_id:
                return migration
        return None  # an old connection's last words

    def _arrived(self, now_us: int, out: list[Effect]) -> None:
        assert self._active is not None
        machine.begin(self, Birth.TARGET)
        self.migration_in = MigrationStatus(self._active.id, MigrationPhase.SYNC)
        self._publish(out)
        self._drive_migration(now_us, out)

    def _drive_migration(self, now_us: int, out: list[Effect]) -> None:
        """Goes through the script of the active migration until it waits for time or for the peer."""
        migration = self._active
        assert migration is not None
        self._doing = Doing.MIGRATING
        while True:
            action = migration.step()
            match action:
                case Publish(phase):
                    self._publish_phase(phase, out)
                case Send(message):
                    out.append(contract.ToPeer(message, migration.id))
                case Await(point):
                    self._wait(point, Doing.MIGRATING, now_us, milestone=self._has_milestones(migration))
                    return
                case Mark.CREATE:
                    self._wait(Point.CREATE, Doing.MIGRATING, now_us)
                    self._fails = self._fails or migration.unbuildable or migration.baggage.unbuildable()
                    return
                case Failure():
                    self._migration_failed(action, out)
                    return
                case Mark.HANDED_OVER:
                    self._migrated_out(now_us, out)
                    return
                case Pause.FINISHED:
                    self._imported(now_us, out)
                    return
                case Pause.BLOCKED:
                    return
                case Redirect(destination):
                    if self._console_ended:  # it ended in an earlier attempt, for good (PR 3.5)
                        self._migration_failed(Failure(ErrorKind.PHASE, "the console has moved away"), out)
                        return
                    self._console_ended = True
                    out.append(contract.ConsoleMoved(destination))
                case Mark.DIAL:
                    out.append(contract.Dial(migration.id))
                case Mark.NEGOTIATED:
                    self.migration_out = MigrationStatus(migration.id, MigrationPhase.SYNC)
                    self._fire(Event.MIGRATION_OUT_BEGUN, out)
                case Mark.CREATED:
                    self._become_active(out)
                case Mark.PAUSED:
                    pass  # `migration.paused` says it: the guest stands still
                case _:
                    assert_never(action)

    def _has_milestones(self, migration: Migration) -> bool:
        return migration.scripted or migration.role is Role.TARGET

    def _migration_point_passed(self, now_us: int, out: list[Effect]) -> None:
        migration = self._active
        assert migration is not None
        if not migration.at_wait:  # the target's objects
            if self._fails:
                text = "the target's objects could not be created"
                self._migration_failed(Failure(ErrorKind.TARGET_INIT, text), out)
                return
        elif self._fails:
            self._migration_failed(Failure(ErrorKind.PHASE, "failed on request of the pacer"), out)
            return
        else:
            failure = migration.passed()
            if failure is not None:
                self._migration_failed(failure, out)
                return
        self._drive_migration(now_us, out)

    def _publish_phase(self, phase: MigrationPhase, out: list[Effect]) -> None:
        migration = self._active
        assert migration is not None
        status = MigrationStatus(migration.id, phase)
        if migration.role is Role.TARGET:
            self.migration_in = status
            self._fire(Event.IN_PHASE, out)
        else:
            self.migration_out = status
            self._fire(Event.OUT_PHASE, out)

    def _migrated_out(self, now_us: int, out: list[Effect]) -> None:
        assert self._active is not None
        self._live_queue().complete(RequestType.MIGRATE_AS_SOURCE, succeeded=True)
        self._fire(Event.MIGRATED_OUT, out)
        self._hang_up(self._active, None, out)
        self._active = None
        self._guest = ()  # they were the guest's, and the guest has left
        self._wait(Point.HALT, Doing.HALTING, now_us, milestone=False)

    def _imported(self, now_us: int, out: list[Effect]) -> None:
        assert self._active is not None
        self._hang_up(self._active, None, out)
        self._active = None
        self._wait(Point.DEVICES, Doing.DEVICES, now_us)

    def _hang_up(self, migration: Migration, code: int | None, out: list[Effect]) -> None:
        if not migration.scripted:
            out.append(contract.PeerClosed(migration.id, code))

    def _migration_failed(self, failure: Failure, out: list[Effect]) -> None:
        migration = self._active
        assert migration is not None
        migration.over = True
        self._point = self._due_us = None
        if failure.tell and not migration.scripted:
            out.append(contract.ToPeer(Error(str(failure)), migration.id))
        self._hang_up(migration, failure.close_code, out)
        if migration.role is Role.SOURCE:
            self._source_failed(migration, out)
        else:
            self._target_failed(migration, failure, out)
        self._active = None

    def _source_failed(self, migration: Migration, out: list[Effect]) -> None:
        if self.state is InstanceState.RUNNING:  # while negotiating: nobody tells the queue, its flag stays set
            self.migration_out = MigrationStatus(migration.id, MigrationPhase.ERROR)
            self._fire(Event.NEGOTIATION_FAILED, out)
        else:
            self._publish_phase(MigrationPhase.ERROR, out)
            self._live_queue().complete(RequestType.MIGRATE_AS_SOURCE, succeeded=False)
            self._fire(Event.MIGRATION_OUT_FAILED, out)
        self._doing = Doing.IDLE

    def _target_failed(self, migration: Migration, failure: Failure, out: list[Effect]) -> None:
        if migration.negotiated and failure.kind is not ErrorKind.TARGET_INIT:
            self._publish_phase(MigrationPhase.ERROR, out)
        self._fire(Event.MIGRATION_IN_FAILED, out)
        if self.level is Level.ACTIVE:
            self._exit()
        else:
            self._init_failed(out)
