"""Tables of small facts: all rows of one are one test, which tells those that are wrong.

A row that is a test of its own costs some milliseconds in each worker that collects it and some in the one that plays
it: of five thousand rows that take no time, half a minute. A table whose rows take long, wait, or want fixtures of
their own stays with `pytest.mark.parametrize`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Final

import pytest

TOLD_MAX: Final = 10
"""So many wrong rows are told."""
_PARAM: Final = type(pytest.param())


def in_one_test(
    names: str | Sequence[str], table: Iterable[Any], ids: Callable[[Any], object] | Sequence[object] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As `pytest.mark.parametrize`, but all rows are played in one test, wrong ones or not.

    Those of an async test in one loop. No row can be marked or skipped: that is for tests of their own.
    """
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    rows = list(_rows(keys, table, ids))
    if not rows:
        raise ValueError("a table without a row tests nothing")

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(test)

        @wraps(test)
        def play(**fixtures: object) -> None:
            wrong: list[BaseException] = []
            for name, values in rows:
                with _kept(name, wrong):
                    test(**fixtures, **dict(zip(keys, values, strict=True)))
            _tell(wrong, len(rows))

        @wraps(test)
        async def play_async(**fixtures: object) -> None:
            wrong: list[BaseException] = []
            for name, values in rows:
                with _kept(name, wrong):
                    await test(**fixtures, **dict(zip(keys, values, strict=True)))
            _tell(wrong, len(rows))

        others = [each for key, each in signature.parameters.items() if key not in keys]
        one: Callable[..., Any] = play_async if inspect.iscoroutinefunction(test) else play
        one.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined] # what pytest looks at
        return one

    return decorate


@contextmanager
def _kept(name: object, wrong: list[BaseException]) -> Iterator[None]:
    """Puts what a row fails with, and which it is, to the others."""
    try:
        yield
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:  # noqa: BLE001 -- whatever it is
        if isinstance(error, pytest.skip.Exception):  # pytest would skip the whole table
            error = AssertionError(f"a row cannot be skipped: {error}")
        error.add_note(f"row {name}")
        wrong.append(error)


def _tell(wrong: Sequence[BaseException], rows: int) -> None:
    """Fails if any row did: with its own error if it is the only one."""
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise BaseExceptionGroup(f"{len(wrong)} of {rows} rows are wrong", wrong[:TOLD_MAX])


def _rows(
    keys: list[str], table: Iterable[Any], ids: Callable[[Any], object] | Sequence[object] | None
) -> Iterator[tuple[object, tuple[Any, ...]]]:
    """The name and the values of each."""
    for n, row in enumerate(table):
        if isinstance(row, _PARAM) and row.marks:
            raise ValueError(f"row {row.id or n} is marked: it has to be a test of its own")
        values = row.values if isinstance(row, _PARAM) else (row,) if len(keys) == 1 else tuple(row)
        if isinstance(row, _PARAM) and row.id is not None:
            yield row.id, values
        elif isinstance(ids, Sequence):
            yield ids[n], values
        else:
            yield ", ".join(str(ids(value) if ids is not None else repr(value))[:80] for value in values), values
