"""Where recordings are and what they have in common (README of the recordings).

`SIM_SLED_TRACES` points at another folder with recordings of the same kinds; default: the copies in tests/data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

FOLDER = Path(os.environ.get("SIM_SLED_TRACES") or Path(__file__).parents[1] / "data" / "traces")

_NAMESPACE = UUID("5d1f0f3e-8a3c-4b59-9a60-0f4e6f9a1c11")


def lines(pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every line of the files matching `pattern`, each with a name for messages."""
    for path in sorted(FOLDER.glob(pattern)):
        for number, text in enumerate(path.read_text().splitlines(), 1):
            yield f"{path.name}:{number}", json.loads(text)


@cache
def ident(symbol: str) -> UUID:
    """The UUID of a symbolic identifier such as `m1`."""
    return uuid5(_NAMESPACE, symbol)
