"""What reaches a worker first. It travels by value: the worker may have another version of this package, or none, and
must be able to say so. So it names nothing of ours before it knows.

Read before: campaign/cluster.py.
"""

from __future__ import annotations

from typing import Any


def play_there(wanted: str, payload: bytes, seeds: tuple[int, ...]) -> Any:
    """A `Batch`; or, as a pair, the worker's address and the version it has instead of the wanted one."""
    from importlib import import_module  # noqa: PLC0415 -- by value: it takes no module's names along

    try:
        has = import_module("sim_sled.campaign.version").code_version()
    except ImportError as error:  # no such package, or one from before this module
        has = f"none that can do this ({error})"
    if has != wanted:
        worker = import_module("distributed").get_worker()
        return worker.address, has
    return import_module("sim_sled.campaign.places").play_payload(payload, seeds)
