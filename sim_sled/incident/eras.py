"""Of which years the programs are that wrote some logs, by the forms of their lines (LG 2.4).

Read before: incident/lines.py. Read next: incident/importing.py, incident/timeline.py.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from sim_sled.incident.lines import OURS, LogLine

_OLDER: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("2023-10-11", re.compile(r"run_state: ")),
    ("2024-08-09", re.compile(r"received new runtime state from sled agent", re.IGNORECASE)),
    ("2024-08-27", re.compile(r"^/instances/[0-9a-f-]{36}/state$")),
    ("2025-04-08", re.compile(r"observing new propolis state|vmm setup failed", re.IGNORECASE)),
    ("2026-04-21", re.compile(r"\bgen: Generation\(")),
)
"""What was written until a day."""
_NEWER: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("2024-05-03", re.compile(r"client disconnected", re.IGNORECASE)),
    ("2024-08-27", re.compile(r"^/vmms/[0-9a-f-]{36}(?:/state)?$")),
    ("2025-04-08", re.compile(r"observed new propolis state", re.IGNORECASE)),
    ("2026-04-21", re.compile(r"\bgeneration: Generation\(")),
    ("2026-05-15", re.compile(r"state: Failed\(")),
)
"""What is written since a day."""
_NUMBERS_SINCE: Final = "2025-05-16"
"""When dropshot began to write statuses as numbers."""
_FORGOT_FIRST_UNTIL: Final = "2025-04-08"
_SAID_IN: Final = ("uri", "state", "vmm_state", "new_vmm_state")


@attrs.define
class Era:
    """Bounds of when programs were built whose lines came by; "" if nothing bounds them."""

    since: str = ""
    until: str = ""

    def note(self, line: LogLine) -> None:
        """Looks at one record of those that tell something."""
        if line.text("name") == OURS:
            return
        said = (line.msg, *(line.text(key) for key in _SAID_IN if key in line.fields))
        status = line.fields.get("response_code")
        if "v" not in line.fields:
            pass  # printed by `looker`, which makes texts of all numbers
        elif isinstance(status, str):
            self._before(_NUMBERS_SINCE)
        elif isinstance(status, int):
            self._after(_NUMBERS_SINCE)
        for day, form in _OLDER:
            if any(form.search(each) for each in said):
                self._before(day)
        for day, form in _NEWER:
            if any(form.search(each) for each in said):
                self._after(day)

    def _before(self, day: str) -> None:
        self.until = min(self.until or day, day)

    def _after(self, day: str) -> None:
        self.since = max(self.since, day)

    def notes(self) -> list[str]:
        """What is said of it."""
        if not self.since and not self.until:
            return []
        if self.since and self.until and self.since >= self.until:
            return [f"Forms of lines of before {self.until} and of after {self.since}: programs of several versions."]
        bounds = [f"since {self.since}"] if self.since else []
        bounds += [f"before {self.until}"] if self.until else []
        told = [f"By the forms of their lines these programs were built {' and '.join(bounds)}."]
        if self.until and self.until <= _FORGOT_FIRST_UNTIL:
            told.append(
                f"Agents of then forgot a VMM before they reported its end (until {_FORGOT_FIRST_UNTIL}); "
                "the replay has today's agents and Nexus, and the rules below do what those of then did."
            )
        return told
