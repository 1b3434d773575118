"""Every code `check` and `run` can print: what it means. The reference page and the tests read this table.

E1xx: the file and its head; E17x, E18x: figures; E19x..E24x: rules; E25x: expectations; E26x: load; W: warnings.
E106..E109, E111, E112 and E264 are ours: what every YAML file can get wrong.
"""

from __future__ import annotations

from typing import Final

CODES: Final[dict[str, str]] = {
    "E100": "`version` is missing",
    "E101": "`version` is newer than this program",
    "E102": "unknown key (the nearest known one is named)",
    "E103": "a plain key that YAML 1.1 reads as a boolean",
    "E104": "a key given twice",
    "E105": "a plain value that YAML 1.1 reads as a base-60 number",
    "E106": "not YAML: the reader's own message",
    "E107": "an anchor or alias; `vars` and `include` do that job",
    "E108": "a tag; values have the types of their fields",
    "E109": "too large, too deep or too many values",
    "E110": "a bad name",
    "E111": "the wrong kind of value",
    "E112": "a required field is missing",
    "E120": "a file that cannot be found or read",
    "E121": "files that include each other",
    "E122": "an undefined variable",
    "E130": "`seed` is not an integer from 0 to 2^64-1",
    "E131": "`clock: virtual` with a Nexus that is not the model",
    "E140": "a size without a unit (KiB, MiB, GiB, TiB)",
    "E141": "a reservoir that is not smaller than the RAM",
    "E142": "two sleds with one name",
    "E150": "not a URL",
    "E151": "`instance:` is used, but a real Nexus without `external` cannot be asked",
    "E160": "an unknown constant of the agent",
    "E170": "no such edge in the state machine, or no such migration phase",
    "E171": "no such operation",
    "E180": "a duration or distribution that cannot be read, mostly a missing unit",
    "E181": "a range whose ends are the wrong way round",
    "E182": "shares that do not sum up to 100 %",
    "E190": "a rule without a name",
    "E191": "two rules with one name",
    "E200": "an unknown selector",
    "E201": "a bad glob or range in a selector",
    "E210": "no trigger, or two",
    "E211": "a state that is never reached there",
    "E212": "an unknown operation in a trigger",
    "E220": "a percentage outside 0..100",
    "E221": "an empty interval",
    "E230": "a negative delay",
    "E231": "`fail` with a status outside 400..599",
    "E232": "an action on a request (`fail`, `hang`, `reset`, `dribble`, ...) where there is none to answer",
    "E233": "`hold` or `release` that can hold or release nothing",
    "E234": "`drop`, `duplicate`, `reorder` or `stale` where nothing is published",
    "E240": "a state that cannot follow; `illegal: true` forces it",
    "E241": "an action on a VMM where no VMM is meant",
    "E242": "an outcome of a migration that cannot be",
    "E243": "an action on a sled where no sled is meant",
    "E244": "an unknown peer",
    "E245": "rules that trigger each other for ever",
    "E250": "an expectation without a subject",
    "E251": "`within` without `after`",
    "E252": "an unknown invariant",
    "E253": "a state that this subject never has",
    "E260": "a load entry needs `at`, or `every` with `from` and `to`; not both",
    "E261": "a hostname without `{n}` for more than one instance",
    "E262": "an unknown sled to start on or to migrate to",
    "E263": "a churn whose weights are all zero",
    "E264": "a load entry needs exactly one action",
    "W300": "a selector that matches nothing",
    "W301": "a delay longer than the client's time-out (60 s)",
    "W302": "an error code that no agent sends",
    "W303": "a hold that nothing ever releases",
    "W310": "an expectation that is never armed",
    "W311": "a user action that matches no instance",
    "W312": "a run in which every creation was refused; it is not ok",
    "W313": "a rule that fired, and an action of it that never had an effect",
    "W314": "instances that somebody wants running and that no sled ever had room for",
    "W315": "a load that creates more than the fleet has room for",
}

RUN_CODES: Final = frozenset({"W312", "W313", "W314"})
"""What only a run can tell."""

CLIENT_TIMEOUT_US: Final = 60_000_000
"""Nexus's time-out for instance calls to a sled (NX 3.1)."""
