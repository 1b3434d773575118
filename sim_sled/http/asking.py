"""How handlers call the areas of a sled's estate.

Read before: core/estate.py, http/routes.py.
Read next: companions/asking.py, http/bootstore.py, http/omicron.py, http/small.py, http/storage.py, http/support.py,
http/trust_quorum.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from nexus_client.dropshot.json import encode
from sim_sled.core import contract
from sim_sled.core.estate import ESTATE, Area
from sim_sled.core.estate import ask as ask_area
from sim_sled.http.routes import Answer, Call

A = TypeVar("A", bound=Area)
R = TypeVar("R")
P = ParamSpec("P")

NO_CONTENT: Final = Answer(204)


async def ask(call: Call, area: type[A], how: Callable[Concatenate[A, P], R], *args: P.args, **none: P.kwargs) -> R:
    """What `how` of this sled's `area` returns; raises its refusal."""
    host = call.host
    asked = ask_area(area, how, *args, **none)
    op, call.op = call.op, ""  # only the first step of an operation is a request to who watches requests
    return cast("R", await host.submit(contract.CallArea(host.ticket(), call.sled_id, ESTATE, asked, op)))


def ok(value: Any, status: int = 200) -> Answer:
    """A success with a JSON body."""
    return Answer(status, encode(value))
