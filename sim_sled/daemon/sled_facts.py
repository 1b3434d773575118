"""Facts of a sled from the control API: what a rule says by `set`, said by a person (SR 8). Imported when it is.

Read before: engine/act/estate.py, language/actions.py. Read next: daemon/control.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from nexus_client.dropshot.answers import Refused, bad_request
from sim_sled.core import contract
from sim_sled.core.estate import ESTATE
from sim_sled.daemon.daemon import Daemon
from sim_sled.engine.act.estate import wanted
from sim_sled.language.actions import SetFacts
from sim_sled.language.field_types import BAD, Reader
from sim_sled.language.load import read_text
from sim_sled.language.record import Struct
from sim_sled.language.source import Problems


async def set_facts(daemon: Daemon, sled_id: UUID, said: Mapping[str, Any]) -> None:
    """Set what is said, in the words of the language. Raises `Refused` for nothing, for words that it has not and for
    a sled that is not there, `SledError` for what this sled cannot have: nothing is set then.
    """
    if not said:
        raise bad_request("set names no fact")
    problems = Problems()
    # JSON is YAML: one reader for both, with the same errors
    root = read_text(json.dumps({"set": said}), "body", problems)
    node = None if root is None else root.get("set")
    action = BAD if node is None else Struct(SetFacts).read(node, Reader(problems), "set")
    if problems.errors or not isinstance(action, SetFacts):
        raise bad_request("; ".join(each.text for each in problems.found))
    if sled_id not in daemon.rack.sleds:
        raise Refused(404, f"no sled {sled_id}")
    await daemon.submit(contract.CallArea(daemon.ticket(), sled_id, ESTATE, wanted(action)))
