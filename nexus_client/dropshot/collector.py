"""The one policy for Python's garbage collector in every program that runs long.

A simulator of many VMMs keeps much and makes little garbage in circles: with the interpreter's own thresholds the
collector looks at everything that lives again and again, costs a third of an update, and stops a daemon of 200,000
VMMs for seconds. So: young objects are looked at rarely, old ones almost never, and what a program consists of
(modules, classes, tables) never again once it has started.

The tests hold it: `tests/unit/test_collector.py`. The bench runs under it, as the product does.
"""

from __future__ import annotations

import gc
from typing import Final

THRESHOLDS: Final = (50_000, 20, 100)
"""Net allocations between looks at the young; looks at these until one at the middle; middle ones until a full one.

50,000 small objects are some 5 MB; circles among them are found within two looks. A full one comes after 100 million
net allocations at the earliest: never in a steady state, and a leak of circles still ends.
"""

_begun = False


def begin() -> None:
    """At the start of a process that is ours: its thresholds."""
    global _begun  # noqa: PLW0603 -- of the process, as the collector is
    _begun = True
    gc.set_threshold(*THRESHOLDS)


def ours() -> bool:
    """Whether this process has begun as one of ours, and is no test and no program that embeds us."""
    return _begun


def started() -> None:
    """Whatever the program consists of is there: it is not looked at again.

    Raises `RuntimeError` if the process has not begun with `begin`: it would run on with the interpreter's
    thresholds, and nobody would notice. What also runs in processes of other people asks `ours` first.
    """
    if not _begun:
        raise RuntimeError("collector.started() without collector.begin(): this program has no policy")
    gc.collect()
    gc.freeze()


def worker() -> None:
    """Both at once, for a process that is started to do one kind of thing."""
    begin()
    started()
