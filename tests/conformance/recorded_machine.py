"""The original simulated instance and its collection, as its specification has them (SA 2), with one switch per
difference that we want (docs/fidelity.md).

Without any switch it is the recorded machine: it reproduces every recording, state for state, panics included. With
all of them it says what we must do, so nothing of a recording has to be explained away, and no comparison ends early.
It shares no code with ours, and writes states as the recordings do: `["running", 3]`, `["m1", "Sync"]`.
"""

from __future__ import annotations

from collections.abc import Collection as Switches
from typing import Any, Final

SWITCHES: Final = frozenset({"D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D09", "D10", "D70"})
"""The rows of docs/fidelity.md that a recording of these kinds can show."""

TERMINAL: Final = {"failed", "destroyed"}
VMM_STATE: Final = {
    "Creating": "starting",
    "Starting": "starting",
    "Running": "running",
    "Stopping": "stopping",
    "Stopped": "stopping",
    "Rebooting": "rebooting",
    "Migrating": "migrating",
    "Failed": "failed",
    "Destroyed": "destroyed",
    "Repairing": "running",
}
_PARTS: Final = ("vmm", "migration_in", "migration_out")
_STATUS: Final = {
    "InvalidRequest": (400, "InvalidRequest"),
    "NoSuchVmm": (404, "NO_SUCH_INSTANCE"),
    "VmmTerminating": (410, "NO_SUCH_INSTANCE"),
    "PropolisRefused": (403, None),
}
_DESIRED: Final = {"Running": "running", "Migrating": "running", "Rebooting": "reboot"}
_STOP: Final = ("Stopping", "Stopped", "Destroyed")

Answer = dict[str, Any]
"""What an operation answers, in the words of the recordings."""


class Panic(Exception):
    """The original aborts the operation."""


class Refused(Exception):
    """An error of the original; `kind` is its class."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Record:
    """What is published of a VMM: `[state, generation]`, and per side of a migration `[id, state, generation]`."""

    def __init__(self, vmm: list[Any], into: list[Any] | None = None, out: list[Any] | None = None) -> None:
        self.vmm, self.into, self.out = list(vmm), into and list(into), out and list(out)
        self.touched: set[str] = set()

    def observe(self, propolis: str, into: list[Any] | None, out: list[Any] | None, on: Switches[str] = ()) -> None:
        """A publication of Propolis."""
        if propolis == "Repairing" and "D01" in on:
            raise Refused("RepairingRejected")
        if into is not None:
            self.into = self._reported(self.into, into, "migration_in")
        if out is not None:
            self.out = self._reported(self.out, out, "migration_out")
        self.move(VMM_STATE[propolis])

    def _reported(self, known: list[Any] | None, seen: list[Any], name: str) -> list[Any]:
        state = {"Error": "failed", "Finish": "completed"}.get(seen[1], "in_progress")
        if known is None or known[0] != seen[0]:
            self.touched.add(name)
            return [seen[0], state, 2]
        if known[1] == state:
            return known
        self.touched.add(name)
        return [known[0], state, known[2] + 1]

    def move(self, state: str) -> None:
        """The VMM's own state. An end ends what has not ended of its migrations."""
        self.vmm = [state, self.vmm[1] + 1]
        self.touched.add("vmm")
        if state in TERMINAL:
            self.into = self._ended(self.into, "migration_in")
            self.out = self._ended(self.out, "migration_out")

    def _ended(self, side: list[Any] | None, name: str) -> list[Any] | None:
        if side is None or side[1] not in {"pending", "in_progress"}:
            return side
        self.touched.add(name)
        return [side[0], "failed", side[2] + 1]

    @property
    def halted(self) -> bool:
        return self.vmm[0] in TERMINAL

    def told(self) -> dict[str, Any]:
        return {
            "vmm": list(self.vmm),
            "migration_in": self.into and list(self.into),
            "migration_out": self.out and list(self.out),
        }


class Observed:
    """apply_observation*: a record, fed with publications."""

    def __init__(self, state: dict[str, Any], on: Switches[str] = ()) -> None:
        self.record = Record(state["vmm"], state["migration_in"], state["migration_out"])
        self.on = on

    def play(self, op: list[Any]) -> Answer:
        self.record.touched = set()
        try:
            match op:
                case ["observe", propolis, into, out]:
                    self.record.observe(propolis, into, out, self.on)
                case ["force_failed"]:
                    self.record.move("failed")
                case ["force_destroyed"]:
                    self.record.move("destroyed")
                case ["transition", state]:
                    self.record.move(state)
                case _:
                    raise AssertionError(f"an operation that the recordings do not have: {op}")
        except Refused as refusal:
            return {"result": "error", "error": refusal.kind, "touched": [], "after": self.state()}
        return {"result": "ok", "touched": _in_order(self.record.touched), "after": self.state()}

    def state(self) -> dict[str, Any]:
        return {**self.record.told(), "halted": self.record.halted}


def _in_order(touched: set[str]) -> list[str]:
    return [name for name in _PARTS if name in touched]


class Instance:
    """sim_instance*: one VMM and the queue of what its imagined Propolis will publish.

    An item of the queue is a Propolis state, or `[side, migration, phase]`. Our differences have two more: `["both",
    state, side, migration, phase]` is one publication with both, `["fail", migration]` the end of a failed migration.
    """

    def __init__(self, state: str, migration: str | None, on: Switches[str] = ()) -> None:
        if state not in {"starting", "migrating"}:
            raise Panic
        self.on = on
        self.record = Record([state, 1], [migration, "pending", 1] if migration else None)
        self.queue: list[Any] = []
        self.propolis: list[Any] = ["Starting", None, None]
        self.destroyed = False
        # what only our differences need
        self.alive = False  # a Propolis exists
        self.beginning = False  # a start or a migration in is not through
        self.stops_after_failure = False  # a stop waits for a migration out that is going to fail
        self.tried = {migration} if migration else set()

    def _states(self) -> list[str]:
        """The Propolis states that are queued."""
        both = "D03" in self.on or "D04" in self.on
        return [
            q if isinstance(q, str) else q[1] for q in self.queue if isinstance(q, str) or (both and q[0] == "both")
        ]

    def _is_failing(self) -> bool:
        return any(q[0] == "fail" for q in self.queue)

    def resting(self) -> str:
        """The VMM state when the queue has been worked off."""
        if self._is_failing():
            return "destroyed"  # what it counts as for requests: nothing but a stop is taken
        states = self._states()
        named = {**VMM_STATE, "Stopped": "stopped"}
        return named[states[-1]] if states else str(self.record.vmm[0])

    def desired(self) -> str | None:
        states = self._states()
        return _DESIRED.get(states[-1], "stopped") if states else None

    def state(self) -> dict[str, Any]:
        return {
            **self.record.told(),
            "queue": list(self.queue),  # no item is changed once it is there
            "propolis": list(self.propolis),
            "resting": self.resting(),
            "desired": self.desired(),
            "ready_to_destroy": self.destroyed,
            "halted": self.record.halted,
        }

    # --- requests (SA 2.3) -----------------------------------------------------------------------------------------

    def request(self, what: str) -> None:
        """Ask for a state. Raises `Refused`."""
        if self.record.halted and "D06" in self.on:
            if what == "stopped" and self.record.vmm[0] == "destroyed":
                return
            raise Refused("VmmTerminating")
        match what:
            case "running":
                self._run()
            case "stopped":
                self._stop()
            case "reboot":
                self._reboot()
            case "migration_target":
                self._migrate_in()
            case _:
                raise AssertionError(f"a request that the recordings do not have: {what}")

    def _run(self) -> None:
        rest = self.resting()
        if rest == "starting":
            self.queue.append("Running")
            self.alive = self.beginning = True
        elif rest not in {"running", "rebooting", "migrating"}:
            raise Refused("InvalidRequest")

    def _stop(self) -> None:
        rest = self.resting()
        if rest == "starting":
            self.record.move("destroyed")
        elif rest == "running":
            self.record.move("stopping")
            self.queue += _STOP
        elif rest in {"stopping", "stopped", "destroyed"}:
            # not in vain: the failure leaves a running VM, whose Propolis has the stop waiting
            self.stops_after_failure |= self._is_failing() and "D70" in self.on
        else:
            raise Refused("InvalidRequest")

    def _reboot(self) -> None:
        if self.resting() != "running":
            raise Refused("InvalidRequest")
        if self.record.vmm[0] == "rebooting" or "Rebooting" in self.queue:
            return
        if "D05" in self.on and self.beginning:
            raise Refused("PropolisRefused")
        self.record.move("rebooting")
        self.queue += ["Rebooting", "Running"]

    def _migrate_in(self) -> None:
        if self.queue or self.record.vmm[0] != "migrating" or self.record.into is None:
            raise Refused("InvalidRequest")
        migration = self.record.into[0]
        self.alive = self.beginning = True
        first = ["both", "Migrating", "in", migration, "Sync"] if "D04" in self.on else "Migrating"
        self.queue += [first, ["in", migration, "Sync"], ["in", migration, "Finish"], "Running"]

    def migrate_out(self, migration: str, result: str) -> None:
        """A scripted migration of this VMM to somewhere (SA 2.8)."""
        if "D03" not in self.on:
            if result != "success":
                raise Panic
            self.queue += ["Migrating", ["out", migration, "Sync"], ["out", migration, "Finish"]]
            self.record.move("stopping")
            self.queue += _STOP
            return
        running = self.alive and self.resting() == "running" and self.record.vmm[0] == "running"
        if not running or migration in self.tried:
            raise Refused("InvalidRequest")
        self.tried.add(migration)
        self.queue.append(["both", "Migrating", "out", migration, "Sync"])
        self.queue += (
            [["out", migration, "Finish"], "Stopping", "Destroyed"] if result == "success" else [["fail", migration]]
        )

    def terminate(self) -> dict[str, Any]:
        """A DELETE; returns the last state."""
        if not (self.record.halted and "D07" in self.on):
            self.queue = []
            self.record.move("failed")
            self.destroyed = True
        return self.record.told()

    # --- working off the queue (SA 2.4) ----------------------------------------------------------------------------

    def step(self) -> int:
        """Publish the next item, if there is one; returns how many there were."""
        if not self.queue:
            return 0
        match self.queue.pop(0):
            case str() as state:
                self.propolis = [state, *self.propolis[1:]]
                self.destroyed |= state == "Destroyed"
                self.beginning &= state != "Running"
            case ["fail", migration]:
                self.propolis = ["Running", None, [migration, "Error"]]
                self.queue += _STOP if self.stops_after_failure else ()
            case ["both", state, side, migration, phase]:
                self.propolis = [state, *self._sides(side, migration, phase)]
            case [side, migration, phase]:
                self.propolis = [self.propolis[0], *self._sides(side, migration, phase)]
        self.record.observe(*self.propolis, on=self.on)
        return 1

    @staticmethod
    def _sides(side: str, migration: str, phase: str) -> list[Any]:
        seen = [migration, phase]
        return [seen, None] if side == "in" else [None, seen]

    def waits(self) -> bool:
        """Whether a drain goes on: a state is still to come."""
        return any(isinstance(q, str) or q[0] in {"both", "fail"} for q in self.queue)

    def drain(self) -> tuple[int, int, list[dict[str, Any]]]:
        """How often the step routine ran, how many items there were, and what was told after each."""
        ran = applied = 0
        told = []
        while True:
            applied += self.step()
            ran += 1
            told.append(self.record.told())
            if not self.waits():
                return ran, applied, told

    def play(self, op: list[Any]) -> Answer:
        self.record.touched = set()
        before = self.state()
        answer: Answer = {"result": "ok"}
        try:
            match op:
                case ["request", what]:
                    self.request(what)
                case ["step"]:
                    answer["applied"] = self.step()
                case ["drain"]:
                    answer["steps"], answer["applied"], _ = self.drain()
                case ["migration_source", migration, result]:
                    self.migrate_out(migration, result)
                case ["terminate"]:
                    answer["returned"] = self.terminate()
                case _:
                    raise AssertionError(f"an operation that the recordings do not have: {op}")
        except Refused as refusal:
            answer = {"result": "error", "error": refusal.kind}
        except Panic:
            return {"result": "panic"}
        answer["touched"] = _in_order(self.record.touched)
        answer["after"] = self.state()
        if answer["result"] == "ok" and answer["after"] == before and not answer["touched"]:
            answer["result"] = "noop"
        return answer


class Collection:
    """sim_collection: one VMM as a client of the sled sees it, in `explicit` or `auto` mode (SA 2.9 to 2.11)."""

    def __init__(self, mode: str, on: Switches[str] = ()) -> None:
        self.auto, self.on = mode == "auto", on
        self.instance: Instance | None = None
        self.wakes = 0  # of the background task: it waits, and remembers one more
        self.published: list[dict[str, Any]] = []

    def play(self, op: list[Any]) -> Answer:
        self.published = []
        answer: Answer
        try:
            answer = {"result": "ok", **self._do(op)}
        except Refused as refusal:
            status, code = _STATUS[refusal.kind]
            answer = {"result": "error", "error": refusal.kind, "status": status, "error_code": code}
        except Panic:
            return {"result": "panic"}
        answer["published"] = self.published
        answer["after"] = None if self.instance is None else self.instance.state()
        return answer

    def _known(self) -> Instance:
        if self.instance is None:
            raise Refused("NoSuchVmm")
        return self.instance

    def _do(self, op: list[Any]) -> Answer:
        match op:
            case ["register", state, migration]:
                return {"body": self._register(state, migration)}
            case ["unregister"]:
                instance, self.instance = self.instance, None
                return {"body": None if instance is None else instance.terminate()}
            case ["put_state", what]:
                return {"body": self._put_state(what)}
            case ["get"]:
                return {"body": self._known().record.told()}
            case ["poke" | "poke_single" as kind]:
                if self.instance is None:
                    raise Refused("NoSuchVmm") if "D02" in self.on else Panic
                self._work(drain=kind == "poke")
                return {}
            case ["migration_source", migration, result]:
                self._known().migrate_out(migration, result)
                self.wakes = 1 if self.auto and "D09" in self.on else self.wakes
                return {}
            case ["timers"]:
                self._timers()
                return {}
        raise AssertionError(f"an operation that the recordings do not have: {op}")

    def _register(self, state: str, migration: str | None) -> dict[str, Any]:
        if self.instance is not None:
            if "D10" in self.on:
                return self.instance.record.told()
            return Record([state, 1], [migration, "pending", 1] if migration else None).told()
        try:
            self.instance = Instance(state, migration, self.on)
        except Panic:
            if "D02" in self.on:
                raise Refused("InvalidRequest") from None
            raise
        return self.instance.record.told()

    def _put_state(self, what: str) -> dict[str, Any]:
        instance = self._known()
        gen, waiting = instance.record.vmm[1], len(instance.queue)
        instance.request(what)
        told = instance.record.told()
        if "D08" in self.on and instance.record.vmm[0] == "destroyed":
            self.published.append(told)
            self.instance = None
        elif "D09" in self.on:
            self.wakes = 1 if self.auto and len(instance.queue) != waiting else self.wakes
        elif self.auto and instance.record.vmm[1] != gen and instance.waits():
            self.wakes = min(self.wakes + 1, 2)
        return told

    def _work(self, *, drain: bool) -> None:
        instance = self._known()
        if drain:
            self.published += instance.drain()[2]
        else:
            instance.step()
            self.published.append(instance.record.told())
        if instance.destroyed and not instance.waits() and instance.record.vmm[0] == "destroyed":
            self.instance = None
            self.wakes = 0

    def _timers(self) -> None:
        if "D09" in self.on:
            if self.auto and self.instance is not None and self.instance.queue:
                self._work(drain=True)
            self.wakes = 0
            return
        while self.wakes and self.instance is not None:
            self.wakes -= 1
            self._work(drain=True)
