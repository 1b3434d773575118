"""How the page shows a state and what it lets people do: one table each, given to the page as JSON.

A state has a colour *and* a shape: whoever cannot tell the colours apart, or prints the page, still reads it. The
colours follow Okabe and Ito, made lighter or darker until they stand out from the page; a test holds both.

Read before: language/words.py. Read next: page/files.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import asdict

from propolis_stub.guest_events import GuestEvent
from sim_sled.core.happenings import Kind
from sim_sled.language.words import TERMINAL_STATES


class Look(Struct, frozen=True):
    """A state: `shape` is a name that `static/shapes.js` draws; `light` and `dark` its colour on such a page."""

    shape: str
    light: str
    dark: str
    says: str


LOOKS: Final[Mapping[str, Look]] = {
    "creating": Look("ring", "#6b7280", "#9ca3af", "Propolis is there, its VM is being made"),
    "starting": Look("triangle", "#0369a1", "#56b4e9", "the guest is being started"),
    "running": Look("square", "#047857", "#2fbf94", "the guest runs"),
    "rebooting": Look("arc", "#4338ca", "#a5b4fc", "the guest is being rebooted"),
    "migrating": Look("chevrons", "#a21caf", "#e58fd0", "it moves from one sled to another"),
    "stopping": Look("wedge", "#b45309", "#f0b429", "the guest is being halted"),
    "stopped": Look("bar", "#57534e", "#a8a29e", "halted; its rundown follows"),
    "failed": Look("cross", "#b91c1c", "#ff7a59", "Propolis or the agent has given it up"),
    "destroyed": Look("dot", "#6b7280", "#8b93a1", "run down; forgotten when Nexus has acknowledged it"),
}
"""Every state a VMM can be in (`words.STATES`), in the order of a life."""


class Fault(Struct, frozen=True):
    """A button: `body` is what `POST /vmms/{who}/inject` takes."""

    label: str
    says: str
    body: Mapping[str, Any]


FAULTS: Final = (
    Fault("Fail", "Propolis says failed", {"state": "failed"}),
    Fault("Kill Propolis", "its process dies and stays dead", {"kill_propolis": {"restart": False}}),
    Fault("Restart Propolis", "its process dies and comes back empty", {"kill_propolis": {"restart": True}}),
    Fault("Forget", "the agent has never heard of it", {"forget_vmm": True}),
    Fault("Stall", "its Propolis goes on with nothing until its rule is released", {"do": "stall: forever"}),
    Fault("Hold", "nothing that it reports gets to Nexus until its rule is released", {"do": "hold: {publish: '*'}"}),
    *(Fault(f"Guest {each.value}", "the guest does it by itself", {"guest": each.value}) for each in GuestEvent),
)


def words_json() -> dict[str, Any]:
    """The tables as the page takes them."""
    return {
        "states": [{"word": word, "ends": word in TERMINAL_STATES} | asdict(look) for word, look in LOOKS.items()],
        "faults": [asdict(each) for each in FAULTS],
        "kinds": [each.value.replace(" ", "-") for each in Kind],
    }
