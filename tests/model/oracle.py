"""A naive oracle of a rack: a dict of VMMs, and per VMM a list of the states that are still to come.

No scheduler, no outbox, no Propolis, no clock. It says of each request whether it is refused and how, what changes
at once, and where the VMM will rest. It learns of progress only by watching: each observed record must be the next of
its list (states of one instant may be skipped). A VMM whose future depends on things outside its own requests (a
guest, a peer, a failing point) is `loose`: there only the order of states is held, and the rules are applied to the
resting state that the rack itself claims.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import attrs

from nexus_client.types import SledVmmState, VmmState
from sim_sled.core import errors

TERMINAL = ("failed", "destroyed")

AFTER = {
    "starting": "starting running rebooting stopping migrating failed destroyed",
    "running": "running rebooting stopping migrating failed destroyed",
    "rebooting": "rebooting running stopping migrating failed destroyed",
    # a stop that waits is said at once, so what was asked before it still shows
    "stopping": "stopping starting running rebooting migrating failed destroyed",
    "migrating": "migrating running rebooting stopping failed destroyed",
    "failed": "",
    "destroyed": "",
}
"""Which state may follow which, of one VMM."""

START = ["starting", "running"]
REBOOT = ["rebooting", "running"]
STOP = ["stopping", "stopping", "destroyed"]
MIGRATE_IN = ["migrating", "running"]
MIGRATE_OUT = ["migrating", "stopping", "destroyed"]
MIGRATE_OUT_FAILS = ["migrating", "running"]
STICKY = {"starting", "migrating"}
"""Seen any number of times in a row: one for each phase."""


@attrs.define(eq=False)
class Row:
    """What the oracle knows of one life of one VMM."""

    propolis_id: UUID
    sled_id: UUID
    life: int
    body: Any
    state: str
    gen: int
    plan: list[str] = attrs.field(factory=list)
    at_once: str | None = None  # what the request under way says ahead of everything else
    has_propolis: bool = False
    coming_up: bool = False  # a start or a migration in has not reached running yet
    leaving: bool = False  # a migration out that will fail: until it does, nobody can know
    stopping: bool = False  # a stop was accepted: its grace period runs
    silent: bool = False
    is_target: bool = False  # has been told to migrate in
    loose: bool = False
    tried: set[UUID] = attrs.field(factory=set)
    gone: str = ""  # why: acknowledged, deleted, forgotten

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def rest(self) -> str:
        """Where it will be when all that was accepted is done."""
        if self.terminal or not self.plan:
            return self.state
        return "destroyed" if self.leaving else self.plan[-1]

    def observe(self, after: SledVmmState) -> None:
        """One new record: is it one that was to come?"""
        state, gen = after.vmm_state.state.value, after.vmm_state.gen
        assert gen == self.gen + 1, f"generation {self.gen} was followed by {gen}"
        assert state in AFTER[self.state].split(), f"{self.state} was followed by {state}"
        if self.at_once is not None:
            assert state == self.at_once
            self.at_once = None
        elif not self.loose:
            assert state in self.plan, f"{state} was not to come; to come were {self.plan}"
            at = self.plan.index(state)
            del self.plan[: at + (state not in STICKY)]
        self.state, self.gen = state, gen
        if state == "running":
            self.coming_up = self.leaving = False
        if self.terminal:
            self.plan, self.has_propolis, self.coming_up, self.leaving = [], False, False, False


@attrs.define(eq=False)
class Oracle:
    """All VMMs by id, gone ones included until their id is used again."""

    rows: dict[UUID, Row] = attrs.field(factory=dict)
    lives: int = 0

    def alive(self, propolis_id: UUID, sled_id: UUID) -> Row | None:
        row = self.rows.get(propolis_id)
        return row if row is not None and not row.gone and row.sled_id == sled_id else None

    # --- requests: the refusal that is due, or None after the plan has been made ----------------------------------

    def register(self, propolis_id: UUID, sled_id: UUID, body: Any) -> type[Exception] | None:
        known = self.alive(propolis_id, sled_id)
        if known is not None:
            return errors.Internal if known.body.instance_id != body.instance_id else None
        state = body.vmm_runtime.state.value
        if state not in {"starting", "migrating"}:
            return errors.InvalidRequest
        self.lives += 1
        self.rows[propolis_id] = Row(propolis_id, sled_id, self.lives, body, state, body.vmm_runtime.gen)
        return None

    def put(
        self, propolis_id: UUID, sled_id: UUID, asked: str, source: UUID | None, resting: str
    ) -> set[type[Exception] | None]:
        """The ways in which this request may end; `resting` is what the rack says, for loose rows only."""
        row = self.alive(propolis_id, sled_id)
        if row is None:
            return {errors.NoSuchVmm}
        rest = resting if row.loose else row.rest
        refusal = self._refusal(row, asked, rest)
        if refusal is not None:
            return {refusal}
        if asked == "migration_target" and row.is_target:
            return {None}  # told again: Propolis refuses the second ensure, and the agent goes on (D44)
        row.is_target = row.is_target or asked == "migration_target"
        if asked == "migration_target" and source is not None:
            row.loose = self.rows[source].loose = True  # each other's business from now on
        if row.loose:
            return self._put_loose(row, asked, rest)
        if asked == "stopped" and row.leaving and row.plan[-1] == "running":
            row.plan += STOP  # no news to the table, but the source stops if its migration fails (PR 3.5)
        if asked == "running" and rest == "starting":
            row.plan += START
            row.has_propolis = row.coming_up = True
        elif asked == "stopped" and rest == "starting":
            row.at_once = "destroyed"
        elif asked == "stopped" and rest == "running":
            row.at_once, row.stopping = "stopping", True
            row.plan += STOP
        elif asked == "reboot" and row.state != "rebooting":
            if row.coming_up:
                return {errors.PropolisRefused}
            row.at_once = "rebooting"
            row.plan += REBOOT
        elif asked == "migration_target":
            row.has_propolis = row.coming_up = True
            row.plan += MIGRATE_IN
        return {None}

    def _refusal(self, row: Row, asked: str, rest: str) -> type[Exception] | None:
        """SA 2.3 and 2.12 once more, in other words than rules.py."""
        no_news = {
            "running": rest in {"running", "rebooting", "migrating"},
            "stopped": rest in {"stopping", "stopped", "destroyed"},
        }
        if no_news.get(asked) or (asked == "migration_target" and row.is_target and not row.terminal):
            return None
        if row.terminal:
            return errors.VmmTerminating
        fits = {
            "running": rest == "starting",
            "stopped": rest in {"starting", "running"},
            "reboot": rest == "running",
            "migration_target": rest == "migrating" and row.body.migration_id is not None,
        }
        if not fits[asked]:
            return errors.InvalidRequest
        return errors.PropolisSilent if row.silent else None

    def _put_loose(self, row: Row, asked: str, rest: str) -> set[type[Exception] | None]:
        if asked == "running" and rest == "starting":
            row.has_propolis = row.coming_up = True
        elif asked == "stopped" and rest == "running":
            row.at_once, row.stopping = "stopping", True
        elif asked == "stopped" and rest == "starting":
            row.at_once = "destroyed"
        elif asked == "migration_target":
            row.has_propolis = row.coming_up = True
        elif asked == "reboot" and row.state != "rebooting":
            # a start or a migration under way, or one that failed while it negotiated: Propolis denies it
            return {None, errors.PropolisRefused}
        return {None}

    def migrate_out(
        self, propolis_id: UUID, sled_id: UUID, migration_id: UUID, *, succeeds: bool, resting: str
    ) -> set[type[Exception] | None]:
        row = self.alive(propolis_id, sled_id)
        if row is None:
            return {errors.NoSuchVmm}
        rest = resting if row.loose else row.rest
        if not row.has_propolis or row.silent or rest != "running" or row.state != "running":
            return {errors.InvalidRequest}
        if migration_id in row.tried or migration_id == row.body.migration_id:
            return {errors.InvalidRequest}
        if row.loose:  # a target may have tried this migration with it
            return {None, errors.PropolisRefused, errors.InvalidRequest}
        row.tried.add(migration_id)
        row.plan += MIGRATE_OUT if succeeds else MIGRATE_OUT_FAILS
        row.leaving = not succeeds
        return {None}

    # --- faults ---------------------------------------------------------------------------------------------------

    def inject(self, propolis_id: UUID, sled_id: UUID, state: VmmState) -> type[Exception] | None:
        row = self.alive(propolis_id, sled_id)
        if row is None:
            return errors.NoSuchVmm
        if row.terminal or state.value not in TERMINAL:
            return errors.InvalidRequest
        row.at_once = state.value
        return None

    def kill(self, propolis_id: UUID, sled_id: UUID, *, restart: bool) -> type[Exception] | None:
        row = self.alive(propolis_id, sled_id)
        if row is None:
            return errors.NoSuchVmm
        if not row.has_propolis or row.terminal or row.silent:
            return errors.InvalidRequest
        if restart:
            row.at_once = "failed"
        else:
            row.silent = True
        return None
