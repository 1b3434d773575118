"""Recordings of the original request queue, played step by step: equal everywhere (SIM_SLED_TRACES names the folder).

A recorded panic only asks for a loud refusal; what the queue looks like afterwards is not compared.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from propolis_stub.errors import QueueMisuse, RequestDenied
from propolis_stub.request_queue import Queued, RequestQueue, RequestType

FOLDER = Path(os.environ.get("SIM_SLED_TRACES", Path(__file__).parents[1] / "data" / "traces"))
RECONFIGURE_AT_DROP_STATUS = 410

COMPLETIONS = {
    "start": RequestType.START,
    "reboot": RequestType.REBOOT,
    "migration_out": RequestType.MIGRATE_AS_SOURCE,
    "stop": RequestType.STOP,
}
FLAGS = {"reboot": "awaiting_reboot", "migration_out": "awaiting_migration_out", "stop": "awaiting_stop"}


def spell(request: Queued) -> list[Any]:
    return [request.type.value] if request.key is None else [request.type.value, request.key]


def look(queue: RequestQueue | None) -> dict[str, Any] | None:
    if queue is None:
        return None
    return {
        "state": queue.state.value,
        "awaiting": [name for name, flag in FLAGS.items() if getattr(queue, flag)],
        "state_queue": [spell(request) for request in queue.state_queue],
        "component_queue": [spell(request) for request in queue.component_queue],
    }


class Player:
    def __init__(self, *, auto_start: bool) -> None:
        self.queue: RequestQueue | None = RequestQueue.new(auto_start=auto_start)

    def play(self, op: list[Any]) -> dict[str, Any]:
        """Does one operation; answers with the fields that a recording has for it."""
        queue = self.queue
        assert queue is not None, "nothing is recorded after a drop"
        try:
            match op:
                case ["try_queue", kind, *key]:
                    return {"result": queue.try_queue(Queued(RequestType(kind), *key)).value}
                case ["pop"]:
                    popped = queue.pop()
                    return {"result": "ok", "popped": None if popped is None else spell(popped)}
                case ["complete", what, *succeeded]:
                    queue.complete(COMPLETIONS[what], succeeded=succeeded[0] if succeeded else True)
                case ["notify_stopped"]:
                    queue.notify_stopped()
                case ["drop"]:
                    canceled = [[request.key, RECONFIGURE_AT_DROP_STATUS] for request in queue.drop()]
                    self.queue = None
                    return {"result": "ok", "canceled": canceled}
                case _:
                    raise AssertionError(f"unknown operation {op}")
        except RequestDenied as refusal:
            return {"result": "denied", "reason": refusal.reason.code_name, "message": refusal.reason.value}
        except QueueMisuse:
            return {"result": "panic"}
        return {"result": "ok"}


def compare(player: Player, step: dict[str, Any], *, unchanged: dict[str, Any] | None, where: str) -> int:
    """One recorded step; returns how many comparisons were made."""
    answer = player.play(step["op"])
    fields = ("result",) if step["result"] == "panic" else ("result", "reason", "message", "popped", "canceled")
    recorded = {field: step[field] for field in fields if field in step}
    if "popped" in answer and "popped" not in recorded:
        answer.pop("popped")
    assert answer == recorded, f"{where}: {step['op']}"
    if step["result"] == "panic":
        return 1
    expected = step.get("after", unchanged)
    assert look(player.queue) == expected, f"{where}: after {step['op']}"
    return 2


def lines(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no {name} in {FOLDER}: nothing to play")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def test_every_trace_of_the_original_queue_is_played_equal() -> None:
    equal = 0
    traces = lines("request_queue.jsonl")
    for trace in traces:
        player = Player(auto_start=trace["auto_start"])
        assert look(player.queue) == trace["initial"], trace["id"]
        state = trace["initial"]
        for number, step in enumerate(trace["steps"]):
            equal += compare(player, step, unchanged=state, where=f"{trace['id']} step {number}")
            state = look(player.queue)
    print(f"request_queue.jsonl: {len(traces)} traces, {equal} comparisons equal")
    assert equal > len(traces)


def test_every_queue_state_of_the_table_answers_every_operation_equal() -> None:
    equal = 0
    rows = lines("request_queue_table.jsonl")
    for number, row in enumerate(rows):
        for case in row["cases"]:
            player = Player(auto_start=row["auto_start"])
            for op in row["path"]:
                player.play(op)
            assert look(player.queue) == row["state"], f"row {number}: path {row['path']}"
            equal += 1 + compare(player, case, unchanged=row["state"], where=f"row {number} {row['path']}")
    print(f"request_queue_table.jsonl: {len(rows)} states, {equal} comparisons equal")
    assert equal > len(rows)
