"""Values that only carry: how they are made.

Read next: contract.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from attrs import frozen as envelope
else:
    # Frozen to mypy, which reads all our code. At run time attrs' frozen takes three times as long to make, and of
    # these each turn makes a dozen and throws them away.
    envelope = attrs.define(unsafe_hash=True)

__all__ = ["envelope"]
