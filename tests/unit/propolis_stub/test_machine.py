"""The machine is the table: in both directions, for stock and lean, and nothing moves a VM around it."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rows import in_one_test
from transitions import Machine

import propolis_stub
from propolis_stub import machine
from propolis_stub.diagram import driver, refreshed, states, write
from propolis_stub.driver import WAYS, Doing
from propolis_stub.errors import IllegalTransition, RepairingRejected
from propolis_stub.table import BIRTHS, INBOUND, OUTBOUND, TERMINAL, TRANSITIONS, Birth, Event
from propolis_stub.types import InstanceState

PACKAGE = Path(propolis_stub.__file__).parent
README = PACKAGE.parent / "README.md"


@attrs.define
class Model:
    state: InstanceState | None


@in_one_test("event", Event)
@in_one_test("state", InstanceState)
def test_every_pair_of_state_and_event_is_decided(state: InstanceState, event: Event) -> None:
    model = Model(state)
    target = TRANSITIONS.get((state, event))
    if target is not None:
        machine.fire(model, event)
        assert model.state is target
    elif state is InstanceState.REPAIRING:
        with pytest.raises(RepairingRejected):
            machine.fire(model, event)
        assert model.state is state
    else:
        with pytest.raises(IllegalTransition) as refusal:
            machine.fire(model, event)
        assert (refusal.value.state, refusal.value.event, model.state) == (state, event, state)


@pytest.mark.parametrize("machine_class", [Machine, machine.LeanMachine])
def test_library_and_table_agree_in_both_directions(machine_class: type[Machine]) -> None:
    built = machine.build(machine_class)
    rows = {
        (InstanceState[row.source], Event(name)): InstanceState[row.dest]
        for name, event in built.events.items()
        for source in event.transitions.values()
        for row in source
    }
    assert rows == dict(TRANSITIONS)
    assert sum(len(source) for event in built.events.values() for source in event.transitions.values()) == len(rows)
    assert set(built.states) == {state.name for state in InstanceState}


def test_the_library_has_no_back_door() -> None:
    built = machine.build(machine.LeanMachine)
    assert set(built.events) == {event.value for event in Event}  # no to_Running()
    assert built.models == []
    for event in built.events.values():
        for rows in event.transitions.values():
            for row in rows:
                assert [*row.conditions, *row.before, *row.after, *row.prepare] == []
    for state in built.states.values():
        assert [*state.on_enter, *state.on_exit] == []
    assert [*built.before_state_change, *built.after_state_change, *built.on_exception] == []


@given(st.sampled_from(InstanceState), st.lists(st.sampled_from(Event), max_size=30))
def test_lean_and_stock_machines_go_the_same_ways(start: InstanceState, events: list[Event]) -> None:
    lean, stock = machine.build(machine.LeanMachine), machine.build(Machine)
    mine, theirs = Model(start), Model(start)
    for event in events:
        answers = []
        for built, model in ((lean, mine), (stock, theirs)):
            try:
                answers.append(built.events[event.value].trigger(model))
            except Exception as refusal:  # noqa: BLE001  whatever the library raises must be the same
                answers.append((type(refusal), str(refusal)))
        assert answers[0] == answers[1]
        assert mine.state is theirs.state


def test_a_vm_without_state_cannot_be_moved() -> None:
    model = Model(None)
    with pytest.raises(IllegalTransition):
        machine.fire(model, Event.STARTED)
    machine.begin(model, Birth.TARGET)
    assert model.state is InstanceState.MIGRATING
    machine.forget(model)
    assert model.state is None


def test_nothing_in_the_package_moves_a_vm_around_the_machine() -> None:
    """Whoever assigns a `.state` is the machine, the request queue or an exception: the latter two have their own."""
    writers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = (
                node.targets
                if isinstance(node, ast.Assign)
                else [node.target]
                if isinstance(node, ast.AnnAssign | ast.AugAssign)
                else []
            )
            if any(isinstance(target, ast.Attribute) and target.attr == "state" for target in targets):
                writers.add(path.name)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
                writers.add(path.name)
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                if any(name.split(".")[0] == "transitions" for name in names):
                    assert path.name == "machine.py"
    assert writers == {"machine.py", "request_queue.py", "errors.py"}


def test_repairing_is_a_name_and_nothing_else() -> None:
    assert all(InstanceState.REPAIRING not in (source, target) for (source, _), target in TRANSITIONS.items())
    assert InstanceState.REPAIRING not in BIRTHS.values()
    for event in Event:
        with pytest.raises(RepairingRejected, match="cannot be left"):
            machine.fire(Model(InstanceState.REPAIRING), event)


def test_importing_the_machine_touches_nobody_elses_settings() -> None:
    """No environment is read, and the library's logger keeps the level that its owner gave it."""
    script = (
        "import logging, os\n"
        "logging.getLogger('transitions').setLevel(logging.DEBUG)\n"
        "os.environ = os.environb = os.getenv = None\n"
        "import propolis_stub.machine\n"
        "print(logging.getLogger('transitions').level == logging.DEBUG)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_a_trigger_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="transitions"):
        machine.fire(Model(InstanceState.RUNNING), Event.HALT_BEGUN)
    assert caplog.records == []


def test_terminal_states_only_repeat_themselves() -> None:
    assert {target for (source, _), target in TRANSITIONS.items() if source in TERMINAL} == {InstanceState.FAILED}


def test_the_roles_of_migrating_share_no_event() -> None:
    assert not INBOUND & OUTBOUND
    touching = {
        event for (source, event), target in TRANSITIONS.items() if InstanceState.MIGRATING in (source, target)
    }
    assert touching == INBOUND | OUTBOUND


def test_the_readme_shows_the_diagram_of_the_table() -> None:
    """Green again by: propolis-stub diagram --write README.md"""
    text = README.read_text(encoding="utf-8")
    assert refreshed(text) == text
    assert states().count("\n") == 3 + len(BIRTHS) + len(TRANSITIONS) + len(TERMINAL)


def test_the_page_of_the_stub_shows_the_ways_of_the_driver() -> None:
    """Green again by: propolis-stub diagram --write docs/propolis.md"""
    text = (README.parent / "docs" / "propolis.md").read_text(encoding="utf-8")
    assert refreshed(text) == text
    assert driver().count("\n") == 2 + len(Doing) + len(WAYS)


def test_writing_the_diagram_touches_only_its_block(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- states -->\nold\n<!-- /states -->\nafter\n", encoding="utf-8")
    assert write(page)
    assert not write(page)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- states -->\n```mermaid\n")
    assert text.endswith("```\n<!-- /states -->\nafter\n")
    with pytest.raises(ValueError, match="expected one of"):
        refreshed("no markers here")
    for broken in ("<!-- states -->", "<!-- /driver --><!-- driver -->", "<!-- driver -->" * 2 + "<!-- /driver -->"):
        with pytest.raises(ValueError, match="expected exactly one"):
            refreshed(broken)
