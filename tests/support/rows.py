"""Tables of small facts: all rows of one are one test, which tells those that are wrong.

A row that is a test of its own costs some milliseconds in each worker that collects it and some in the one that plays
it: of five thousand rows that take no time, half a minute. A table whose rows take long, wait, or want fixtures of
their own stays with `pytest.mark.parametrize`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from typing import Any, Final

import pytest

TOLD_MAX: Final = 10
"""So many wrong rows are told."""
_PARAM: Final = type(pytest.param())


def in_one_test(
    names: str | Sequence[str], table: Iterable[Any], ids: Callable[[Any], object] | Sequence[object] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As `pytest.mark.parametrize`, but all rows are played in one test, wrong ones or not."""
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    rows = list(_rows(keys, table, ids))
    if not rows:
        raise ValueError("a table without a row tests nothing")

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(test)

        @wraps(test)
        def play(**fixtures: object) -> None:
            wrong: list[BaseException] = []
            for name, values in rows:
                try:
                    test(**fixtures, **dict(zip(keys, values, strict=True)))
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 -- whatever a test fails with
                    error.add_note(f"row {name}")
                    wrong.append(error)
            if len(wrong) == 1:
                raise wrong[0]
            if wrong:
                raise BaseExceptionGroup(f"{len(wrong)} of {len(rows)} rows are wrong", wrong[:TOLD_MAX])

        others = [one for key, one in signature.parameters.items() if key not in keys]
        play.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined] # what pytest looks at
        return play

    return decorate


def _rows(
    keys: list[str], table: Iterable[Any], ids: Callable[[Any], object] | Sequence[object] | None
) -> Iterator[tuple[object, tuple[Any, ...]]]:
    """The name and the values of each."""
    for n, row in enumerate(table):
        values = row.values if isinstance(row, _PARAM) else (row,) if len(keys) == 1 else tuple(row)
        if isinstance(row, _PARAM) and row.id is not None:
            yield row.id, values
        elif isinstance(ids, Sequence):
            yield ids[n], values
        else:
            yield ", ".join(str(ids(value) if ids is not None else repr(value))[:80] for value in values), values
