"""Importing a library without what it takes along if that happens to be there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """In here `import name` fails, unless somebody had it before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how the language says that there is no such module
    try:
        yield
    finally:
        del sys.modules[name]
