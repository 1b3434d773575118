"""Marks methods of a core that want the time as their last argument, for who calls them by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def timed(method: F) -> F:
    """`method(self, …, now_us)`: see `companions.Companions.call`."""
    method.timed = True  # type: ignore[attr-defined]  # functions take attributes, `Callable` does not say so
    return method
