"""Runs sagas: node by node, forwards or unwinding, waiting for sleds or for other sagas.

Read before: stub/sagas/nodes.py.
Read next: stub/networking.py, stub/sagas/create.py, stub/sagas/update.py, stub/sagas/vmms.py.
"""

from __future__ import annotations

import heapq
from operator import attrgetter
from typing import Final
from uuid import UUID

from nexus_client.stub.context import Context
from nexus_client.stub.contract import Outcome
from nexus_client.stub.records import InvariantBroken
from nexus_client.stub.refusal import Refused, internal
from nexus_client.stub.sagas.nodes import NODES_MAX, Ask, Await, End, Stuck, Wish
from nexus_client.stub.sagas.state import Saga
from nexus_client.stub.scope import SagaCall, TicketWaits, WatchWaits
from nexus_client.stub.views import instance_view

SAGAS_MAX: Final = 100_000
"""Sagas run in one call of `handle`: after an outage each instance may have one, and one more in its chain."""


def run_ready(ctx: Context) -> None:
    """Run everything that can run now; called once per `handle`, after the input was dealt with."""
    if ctx.saga_dues and ctx.saga_dues[0][0] <= ctx.now_us:
        _ready_what_is_due(ctx)
    if not ctx.ready_sagas:
        return  # nearly always
    for _ in range(SAGAS_MAX):
        if not ctx.ready_sagas:
            return
        saga_ready = ctx.sagas.get(ctx.ready_sagas.popleft())
        if saga_ready is not None and not saga_ready.stuck:
            _proceed(ctx, saga_ready)
    raise AssertionError(f"sagas wake each other without end ({SAGAS_MAX} times)")


_place: Final = attrgetter("place")


def node_name(ctx: Context, saga: Saga) -> str:
    """The node at which it stands, by the name that the timeline has; "" if it is through and about to end."""
    nodes = ctx.programs[saga.kind]
    return nodes[saga.node].name if 0 <= saga.node < len(nodes) else ""


def _ready_what_is_due(ctx: Context) -> None:
    """In the order of the log, whichever was due first."""
    dues, due = ctx.saga_dues, []
    while dues and dues[0][0] <= ctx.now_us:
        due_us, _, saga = heapq.heappop(dues)
        if saga.due_us == due_us:
            saga.due_us = None
            due.append(saga)
    if len(due) > 1:
        due.sort(key=_place)
    ctx.ready_sagas.extend([saga.id for saga in due])


def next_due_us(ctx: Context) -> int | None:
    if ctx.ready_sagas:
        return ctx.now_us
    while ctx.saga_dues:
        due_us, _, saga = ctx.saga_dues[0]
        if saga.due_us == due_us:
            return due_us
        heapq.heappop(ctx.saga_dues)
    return None


def resume_all(ctx: Context) -> None:
    """After `Boot`: every saga of the log runs its current node again."""
    for saga in list(ctx.sagas.values()):
        saga.due_us = None
        if not saga.stuck:
            ctx.tell("saga", f"{saga.kind.value} is recovered", saga.instance_id)
            ctx.schedule(saga)


def _proceed(ctx: Context, saga: Saga) -> None:
    for _ in range(NODES_MAX):
        nodes = ctx.programs[saga.kind]
        if saga.awaits is not None:
            if saga.awaits in ctx.sagas:
                return
            _after_wait(ctx, saga)
        if saga.unwinding and saga.node < 0:
            _end(ctx, saga)
            return
        if not saga.unwinding and saga.node >= len(nodes):
            _end(ctx, saga)
            return
        node = nodes[saga.node]
        try:
            if not saga.unwinding:
                wish = node.act(ctx, saga)
                if ctx.config.nodes_twice and wish is None:
                    wish = node.act(ctx, saga)
            else:
                wish = node.undo(ctx, saga) if node.undo is not None else None
                if ctx.config.nodes_twice and wish is None and node.undo is not None:
                    wish = node.undo(ctx, saga)
            done = _grant(ctx, saga, wish)
        except Refused as refused:
            if not _turn(ctx, saga, refused):
                return
            done = True
        except InvariantBroken as broken:
            _break(ctx, saga, broken)
            return
        if not done:
            return
        if ctx.queued and saga.id in ctx.sagas:
            ctx.schedule(saga)
            return
    raise AssertionError(f"saga {saga.kind.value} ran {NODES_MAX} nodes in one go")


def _grant(ctx: Context, saga: Saga, wish: Wish) -> bool:
    """Do what a node wished for; True if the saga can go on at once (it then stands on the next node)."""
    match wish:
        case None:
            _step(saga)
            return True
        case End():
            _end(ctx, saga)
            return False
        case Ask(sled_id, op):
            ctx.call(sled_id, op, SagaCall(saga.id))
            return False
        case Await(saga_id):
            saga.awaits = saga_id
            return saga_id not in ctx.sagas


def _step(saga: Saga) -> None:
    saga.node += -1 if saga.unwinding else 1
    saga.repeated = False


def _after_wait(ctx: Context, saga: Saga) -> None:
    """The saga it waited for has ended: step on, or turn round if it already knows that it must."""
    saga.awaits = None
    if saga.refusal is not None and not saga.unwinding:
        _turn(ctx, saga, Refused(saga.refusal))
    else:
        _step(saga)


def _turn(ctx: Context, saga: Saga, refused: Refused) -> bool:
    """Begin to unwind. An undo that is refused leaves the saga stuck (False)."""
    if saga.unwinding:
        _stick(ctx, saga, str(refused))
        return False
    saga.refusal = refused.refusal
    saga.unwinding = True
    saga.repeated = False
    told = f"{saga.kind.value} unwinds from {node_name(ctx, saga)}: {refused}"
    ctx.tell("saga", told, saga.instance_id, saga.concerns)
    saga.node -= 1
    return True


def _stick(ctx: Context, saga: Saga, why: str) -> None:
    """The saga stays in the log as it is, until somebody intervenes."""
    saga.stuck = True
    ctx.tell("saga", f"{saga.kind.value} is stuck: {why}", saga.instance_id, saga.concerns)
    _release_waiters(ctx, saga)


def _break(ctx: Context, saga: Saga, broken: InvariantBroken) -> None:
    """A node wanted to break a rule of the database: a bug, which holds up this saga and no other."""
    ctx.report_broken(broken, saga.instance_id)
    if saga.refusal is None:
        saga.refusal = internal(str(broken)).refusal
    _stick(ctx, saga, str(broken))


def answered(ctx: Context, saga_id: UUID, outcome: Outcome) -> None:
    """A sled has answered the call of this saga's current node."""
    saga = ctx.sagas.get(saga_id)
    if saga is None or saga.stuck:
        return
    node = ctx.programs[saga.kind][saga.node]
    hears = node.undo_answered if saga.unwinding else node.answered
    assert hears is not None, f"{node.name} asked a sled and does not listen"
    try:
        wish = hears(ctx, saga, outcome)
        if ctx.config.nodes_twice and wish is None and not saga.repeated:
            saga.repeated = True
            again = node.undo if saga.unwinding else node.act
            assert again is not None
            wish = again(ctx, saga)
        done = _grant(ctx, saga, wish)
    except Refused as refused:
        done = _turn(ctx, saga, refused)
    except Stuck as stuck:
        _stick(ctx, saga, str(stuck))
        return
    except InvariantBroken as broken:
        _break(ctx, saga, broken)
        return
    if done:
        ctx.schedule(saga)


def _end(ctx: Context, saga: Saga) -> None:
    del ctx.sagas[saga.id]
    saga.due_us = None
    ctx.tell("saga", f"{saga.kind.value} {'has unwound' if saga.unwinding else 'ends'}", saga.instance_id)
    _release_waiters(ctx, saga)
    for other in ctx.sagas.values():
        if other.awaits is not None and other.awaits == saga.id:
            ctx.ready_sagas.append(other.id)


def _release_waiters(ctx: Context, saga: Saga) -> None:
    for waiter in ctx.waiters.pop(saga.id, ()):
        match waiter:
            case TicketWaits(ticket, status, refusal):
                why = refusal if refusal is not None else saga.refusal
                if why is not None:
                    ctx.refuse(ticket, why)
                else:
                    row = ctx.records.instances[saga.instance_id]
                    ctx.reply(ticket, status, None if status == 204 else instance_view(ctx, row))
            case WatchWaits(propolis_id):
                ctx.watch.checking.discard(propolis_id)
