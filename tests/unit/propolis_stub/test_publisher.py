"""The publisher: the only hand on the generation (PR 3.7)."""

from __future__ import annotations

import ast
from pathlib import Path
from uuid import UUID

import pytest

import propolis_stub
from propolis_stub.errors import IllegalTransition
from propolis_stub.publisher import Publisher
from propolis_stub.table import Birth, Event
from propolis_stub.types import InstanceState, MigrationPhase, MigrationStatus, Publication

CAME = MigrationStatus(UUID(int=1), MigrationPhase.SYNC)
GOES = MigrationStatus(UUID(int=2), MigrationPhase.SYNC)


def test_each_publication_adds_exactly_one_and_keeps_both_migrations() -> None:
    publisher = Publisher()
    assert publisher.newest is None
    assert publisher.begin(Birth.TARGET, CAME) == Publication(1, InstanceState.MIGRATING, CAME)
    assert publisher.fire(Event.AUTO_STARTED) == Publication(2, InstanceState.RUNNING, CAME)
    assert publisher.fire(Event.MIGRATION_OUT_BEGUN, out=GOES).gen == 3
    assert publisher.newest == Publication(3, InstanceState.MIGRATING, CAME, GOES)
    publisher.forget()
    assert (publisher.newest, publisher.gen, publisher.migration_in, publisher.migration_out) == (None, 0, None, None)


def test_what_is_refused_publishes_nothing() -> None:
    publisher = Publisher()
    publisher.begin(Birth.SPEC)
    with pytest.raises(IllegalTransition):
        publisher.fire(Event.HALTED, into=CAME, out=GOES)
    assert publisher.newest == Publication(1, InstanceState.CREATING)


def test_nobody_else_in_the_package_touches_a_generation() -> None:
    writers = set()
    for path in Path(propolis_stub.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if any(isinstance(target, ast.Attribute) and target.attr == "gen" for target in targets):
                writers.add(path.name)
    assert writers == {"publisher.py"}
