"""The one machine of all VMs: a machine of the `transitions` library, fenced into this file.

What is the library's: the states, the events and the rows are its objects, and every move is the `trigger` of its
`Event` which executes its `Transition`. What is ours: `LeanEvent` and `LeanTransition`, set at the library's own
extension points (`event_cls`, `transition_cls`), leave out what a machine without conditions and callbacks never
uses: partials, property look-ups, disabled log calls. That is 4 times as fast. A test runs the stock classes over the
same events and compares every move and every refusal.

The library is permissive: undeclared states, a back door per state, models with methods glued on. So the machine is
built from `TRANSITIONS` alone, without automatic triggers, and no VM is ever its model (`add_model` compares with ==
and scans a list). A test proves that machine and table agree in both directions.

Read before: table.py. Read next: publisher.py, request_queue.py.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, cast

from transitions import EventData, Machine, MachineError
from transitions.core import Event as LibraryEvent
from transitions.core import Transition as LibraryTransition

from propolis_stub.errors import IllegalTransition, RepairingRejected
from propolis_stub.table import BIRTHS, TRANSITIONS, Birth, Event
from propolis_stub.types import InstanceState

_BY_NAME: Final = {state.name: state for state in InstanceState}


class HasState(Protocol):
    """Whatever can be moved: anything with a `state`."""

    state: InstanceState | None


class LeanTransition(LibraryTransition):
    """Moves the model; nothing else, because this machine has no conditions and no callbacks."""

    def __init__(self, source: str, dest: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(source, dest, *args, **kwargs)
        self.target: Final = _BY_NAME[dest]

    def execute(self, event_data: EventData) -> bool:
        return self.move(cast(HasState, event_data.model))

    def move(self, model: HasState) -> bool:
        model.state = self.target
        return True


class LeanEvent(LibraryEvent):
    """Finds the row for the model's state and executes it; raises `MachineError` if there is none."""

    def trigger(self, model: Any, *_args: object, **_kwargs: object) -> bool:
        name = model.state._name_  # `.name` is a descriptor in Python, at twice the cost
        rows: list[Any] | None = self.transitions.get(name)  # of `LeanTransition`; a cast per move is a call
        if not rows:
            self._is_valid_source(self.machine.states[name])  # raises with the library's own words
            return False
        moved: bool = rows[0].move(model)
        return moved


class LeanMachine(Machine):
    """The library's machine with the two classes above at its extension points."""

    event_cls = LeanEvent
    transition_cls = LeanTransition


def build(machine_class: type[Machine]) -> Machine:
    """A machine of exactly the rows of the table."""
    rows: list[Any] = [[event.value, source, target] for (source, event), target in TRANSITIONS.items()]
    return machine_class(
        model=None,
        initial=None,
        states=InstanceState,
        auto_transitions=False,
        queued=False,
        transitions=rows,
    )


_MACHINE: Final = build(LeanMachine)
_TRIGGERS: Final[dict[Event, Any]] = {event: _MACHINE.events[event.value].trigger for event in Event}


def begin(vm: HasState, birth: Birth) -> None:
    """Gives a VM its first state."""
    vm.state = BIRTHS[birth]


def forget(vm: HasState) -> None:
    """The process died: there is no VM any more."""
    vm.state = None


def fire(vm: HasState, event: Event) -> None:
    """Moves `vm` by one row. Raises `IllegalTransition` (or `RepairingRejected`) and leaves it where it was."""
    if vm.state is None:
        raise IllegalTransition(None, event)
    try:
        moved = _TRIGGERS[event](vm)
    except MachineError:
        if vm.state is InstanceState.REPAIRING:
            raise RepairingRejected(f"it cannot be left by {event.value}") from None
        raise IllegalTransition(vm.state, event) from None
    assert moved, "no conditions are used, so a legal event always moves"
