"""JSON that somebody else has written: a file, an argument, an answer. Bodies of requests have `dropshot/json.py`.

Read next: dropshot/json.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO, Any


def loads(text: str | bytes, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """What it says; `pairs` makes something else of each object. Raises ValueError for what is no JSON, and for what
    is nested too deeply to be read: Python's own reader has another error for that, which nobody expects.
    """
    try:
        return json.loads(text, object_pairs_hook=pairs)  # noqa: TID251 -- here it is guarded
    except RecursionError:
        raise ValueError("nested too deeply") from None


def load(file: IO[bytes]) -> Any:
    """All that is in a file, or comes from it. Raises as `loads`."""
    return loads(file.read())
