"""PR 2: the full matrix, and what the queue does beside answering."""

from __future__ import annotations

import pytest
from support.rows import in_one_test

from propolis_stub.errors import QueueFull, QueueMisuse, Reason, RequestDenied
from propolis_stub.request_queue import Disposition, Queued, QueueState, RequestQueue, RequestType

QUEUED, IGNORED = "Q", "I"
START, STOP, REBOOT, MIGRATE, RECONFIGURE = RequestType

# PR 2.2, line by line: queue state, pending flags, answers in the order of RequestType
MATRIX = [
    ("NotStarted", "", QUEUED, QUEUED, "InstanceNotActive", "InstanceNotActive", QUEUED),
    ("NotStarted", "stop", "HaltPending", IGNORED, "HaltPending", "HaltPending", QUEUED),
    ("StartPending", "", IGNORED, QUEUED, "StartInProgress", QUEUED, QUEUED),
    ("StartPending", "stop", "HaltPending", IGNORED, "HaltPending", "HaltPending", QUEUED),
    ("StartPending", "mig", IGNORED, QUEUED, "InvalidForMigrationSource", "AlreadyMigrationSource", QUEUED),
    (
        "StartPending",
        "mig stop",
        "HaltPending",
        IGNORED,
        "InvalidForMigrationSource",
        "AlreadyMigrationSource",
        QUEUED,
    ),
    ("Running", "", IGNORED, QUEUED, QUEUED, QUEUED, QUEUED),
    ("Running", "reboot", IGNORED, QUEUED, IGNORED, QUEUED, QUEUED),
    ("Running", "mig", IGNORED, QUEUED, "InvalidForMigrationSource", "AlreadyMigrationSource", QUEUED),
    ("Running", "reboot mig", IGNORED, QUEUED, "InvalidForMigrationSource", "AlreadyMigrationSource", QUEUED),
    ("Running", "stop", "HaltPending", IGNORED, "HaltPending", "HaltPending", QUEUED),
    ("Running", "reboot stop", "HaltPending", IGNORED, "HaltPending", "HaltPending", QUEUED),
    ("Running", "mig stop", "HaltPending", IGNORED, "InvalidForMigrationSource", "AlreadyMigrationSource", QUEUED),
    (
        "Running",
        "reboot mig stop",
        "HaltPending",
        IGNORED,
        "InvalidForMigrationSource",
        "AlreadyMigrationSource",
        QUEUED,
    ),
    *(
        (state, flags, reason, IGNORED, reason, reason, reason)
        for state, reason in (
            ("MigratedOut", "MigratedOut"),
            ("Stopped", "Halted"),
            ("Failed", "InstanceFailed"),
        )
        for flags in ("", "reboot", "mig", "stop", "reboot mig", "reboot stop", "mig stop", "reboot mig stop")
    ),
]


def queue_in(state: str, flags: str) -> RequestQueue:
    return RequestQueue(
        QueueState(state),
        awaiting_reboot="reboot" in flags,
        awaiting_migration_out="mig" in flags,
        awaiting_stop="stop" in flags,
    )


def look(queue: RequestQueue) -> tuple[object, ...]:
    return (
        queue.state,
        queue.awaiting_reboot,
        queue.awaiting_migration_out,
        queue.awaiting_stop,
        queue.state_queue,
        queue.component_queue,
    )


@in_one_test(
    ("state", "flags", "asked", "answer"),
    [
        pytest.param(state, flags, asked, answer, id=f"{state} [{flags or '-'}] {asked.value}: {answer}")
        for state, flags, *answers in MATRIX
        for asked, answer in zip(RequestType, answers, strict=True)
    ],
)
def test_cell_of_the_matrix(state: str, flags: str, asked: RequestType, answer: str) -> None:
    queue = queue_in(state, flags)
    before = look(queue)
    if answer == QUEUED:
        assert queue.try_queue(Queued(asked)) is Disposition.QUEUED
        assert look(queue) != before
        assert Queued(asked) in queue.state_queue + queue.component_queue
    elif answer == IGNORED:
        assert queue.try_queue(Queued(asked)) is Disposition.IGNORED
        assert look(queue) == before
    else:
        with pytest.raises(RequestDenied) as refusal:
            queue.try_queue(Queued(asked))
        assert refusal.value.reason.code_name == answer
        assert str(refusal.value) == f"instance state change not allowed: {refusal.value.reason.value}"
        assert look(queue) == before


def test_the_reasons_have_the_texts_of_the_reference() -> None:
    assert {reason.code_name: reason.value for reason in Reason} == {
        "InstanceNotActive": "Operation requires an active instance",
        "StartInProgress": "Instance is currently starting",
        "AlreadyMigrationSource": "Instance is already a migration source",
        "InvalidForMigrationSource": "Operation cannot be performed on a migration source",
        "HaltPending": "Instance is preparing to stop",
        "MigratedOut": "Instance has migrated out and is being torn down",
        "Halted": "Instance has already halted",
        "InstanceFailed": "Instance failed to start or halted due to a failure",
    }


def test_a_target_starts_by_itself_and_a_spec_does_not() -> None:
    assert RequestQueue.new(auto_start=True).state is QueueState.START_PENDING
    assert RequestQueue.new(auto_start=False).state is QueueState.NOT_STARTED


def test_state_requests_are_popped_before_component_requests_in_arrival_order() -> None:
    queue = RequestQueue.new(auto_start=False)
    arrivals = [Queued(RECONFIGURE, 1), Queued(START), Queued(RECONFIGURE, 2), Queued(STOP)]
    for request in arrivals:
        queue.try_queue(request)
    assert queue.peek() == Queued(START)
    popped = [queue.pop() for _ in range(5)]
    assert popped == [Queued(START), Queued(STOP), Queued(RECONFIGURE, 1), Queued(RECONFIGURE, 2), None]
    assert queue.peek() is None


def test_a_dropped_queue_names_the_component_requests_that_still_waited() -> None:
    queue = queue_in("Running", "")
    for request in (Queued(REBOOT), Queued(RECONFIGURE, 1), Queued(RECONFIGURE, 2)):
        queue.try_queue(request)
    assert queue.drop() == (Queued(RECONFIGURE, 1), Queued(RECONFIGURE, 2))
    assert not queue


def test_component_requests_are_bounded() -> None:
    queue = queue_in("Running", "")
    for ticket in range(4096):
        queue.try_queue(Queued(RECONFIGURE, ticket))
    with pytest.raises(QueueFull):
        queue.try_queue(Queued(RECONFIGURE, 4096))
    assert queue.try_queue(Queued(STOP)) is Disposition.QUEUED


@in_one_test(
    ("state", "flags", "what", "succeeded"),
    [
        pytest.param("NotStarted", "", START, True, id="a start that was never asked for"),
        pytest.param("Running", "", START, False, id="a second start"),
        pytest.param("Running", "", REBOOT, True, id="a reboot nobody waits for"),
        pytest.param("StartPending", "reboot", REBOOT, True, id="a reboot before the start was over"),
        pytest.param("Running", "", MIGRATE, False, id="a migration nobody waits for"),
        pytest.param("Stopped", "mig", MIGRATE, True, id="a migration of a stopped VM"),
        pytest.param("Running", "", STOP, True, id="a stop nobody waits for"),
        pytest.param("Running", "", RECONFIGURE, True, id="a reconfigure, which has no completion"),
    ],
)
def test_an_impossible_completion_is_refused_loudly(
    state: str, flags: str, what: RequestType, succeeded: bool
) -> None:
    queue = queue_in(state, flags)
    before = look(queue)
    with pytest.raises(QueueMisuse):
        queue.complete(what, succeeded=succeeded)
    assert look(queue) == before
