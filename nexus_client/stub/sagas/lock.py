"""The updater lock, as functions over the instance's record (NX 5.3): taken, passed on, given back, committed under.

Read before: stub/records.py. Read next: stub/sagas/update.py.
"""

from __future__ import annotations

from uuid import UUID

from msgspec.structs import replace

from nexus_client.stub.records import Instance
from nexus_client.stub.refusal import conflict, internal


def acquired(row: Instance, lock_id: UUID) -> Instance | None:
    """The record with the lock taken (or already ours); None if somebody else has it."""
    if row.updater_id == lock_id:
        return row
    if row.updater_id is not None:
        return None
    return replace(row, updater_id=lock_id, updater_gen=row.updater_gen + 1)


def inherited(row: Instance, parent_id: UUID, parent_gen: int, child_id: UUID) -> Instance | None:
    """The record with the lock passed from parent to child (or already passed); None if the parent lost it."""
    if row.updater_id == child_id:
        return row
    if row.updater_id != parent_id or row.updater_gen != parent_gen:
        return None
    return replace(row, updater_id=child_id, updater_gen=parent_gen + 1)


def unlocked(row: Instance, lock_id: UUID, lock_gen: int) -> Instance | None:
    """The record without the lock; None ("false", no error) if it is no longer held in this generation."""
    if row.updater_id != lock_id or row.updater_gen != lock_gen:
        return None
    return replace(row, updater_id=None, updater_gen=lock_gen + 1)


def committed(row: Instance, new: Instance, lock_id: UUID, lock_gen: int) -> Instance | None:
    """`new` written and unlocked; None if this ran before: both generations have moved on (NX 5.3).

    Raises `Refused`: 409 if the state generation has moved under our lock (a migrate got in between), 500 if the lock
    is not ours any more.
    """
    if row.updater_id == lock_id and row.updater_gen == lock_gen:
        if row.state_generation >= new.state_generation:
            raise conflict("instance state has changed")
        return replace(new, updater_id=None, updater_gen=lock_gen + 1)
    if row.state_generation >= new.state_generation and row.updater_gen > lock_gen:
        return None
    whose = "is not locked" if row.updater_id is None else "is locked by another saga!"
    raise internal(f"cannot commit instance updates: the instance {whose}")
