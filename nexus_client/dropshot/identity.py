"""Enums whose members are keys of tables and words in lines, dozens of times in a VMM's life.

Read next: propolis_stub/types.py, types.py.
"""

from __future__ import annotations

from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING


class IdentityEnum(Enum):
    """Hashes by identity, as it compares, and tells its value, both in C: what is inherited is Python code."""

    __hash__ = object.__hash__
    if not TYPE_CHECKING:  # a checker knows the type of each member's value from `Enum` itself
        value = property(attrgetter("_value_"))
