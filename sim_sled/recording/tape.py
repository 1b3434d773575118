"""A recording's requests to one sled as a request tape: what was asked, with what status it was answered, and what to
wait for before the next request.

A tape is played one request at a time (tests/conformance/tape_player.py), a rack is not. Requests stand in the order
of their answers, and a state that a VMM was reported in before the next request is waited for. Looks at a VMM on its
way to it are left out, since what they see is a matter of moments. What a rule answered is on the tape as it was.

Read before: recording/lines.py. Read next: cli/recording.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qsl

import attrs

from sim_sled.core.config import PhysicalDisk, SledConfig
from sim_sled.recording.forms import BadForm, value_of
from sim_sled.recording.lines import Asked, Header, Http, Line, Turn, asked_of

WITHIN_S: Final = 60
"""How long a state is waited for: as long as Nexus waits for an answer."""
UUID_CHARS: Final = 36
_PASSING: Final = frozenset({"starting", "stopping", "rebooting", "migrating"})
"""States that are over before a player has looked."""


class NoTape(ValueError):
    """There is nothing to make a tape of; the text says why."""


@attrs.frozen
class Tape:
    """Its lines, the first one first; `left_out`: what could not be put on it, a sentence each."""

    rows: list[dict[str, Any]]
    left_out: list[str]


@attrs.define(eq=False)
class _Making:
    """What is known so far. `sled_id` None: the first that is asked for anything."""

    sled_id: str | None
    header: Header | None = None
    rows: list[tuple[str | None, dict[str, Any]]] = attrs.field(factory=list)
    """With the version of each."""
    left_out: list[str] = attrs.field(factory=list)
    sleds: dict[str, None] = attrs.field(factory=dict)
    passing: set[int] = attrs.field(factory=set)
    """Looks at a VMM on its way, by identity."""
    _last_of: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    _looks: dict[str, list[dict[str, Any]]] = attrs.field(factory=dict)
    _going: set[str] = attrs.field(factory=set)

    def line(self, where: str, line: Line) -> None:
        if isinstance(line, Header):
            self.header = self.header or line
        elif isinstance(line, Turn):
            for vmm, state in _reported(line.out):
                self._reported(vmm, state)
            asked = asked_of(line)
            if asked is not None:
                self._of_sled(where, asked)
        elif isinstance(line, Http):
            self._of_sled(where, line.http)

    def _of_sled(self, where: str, asked: Asked) -> None:
        self.sleds[str(asked.sled_id)] = None
        self.sled_id = self.sled_id or str(asked.sled_id)
        if str(asked.sled_id) == self.sled_id:
            self._asked(where, asked)

    def _reported(self, vmm: str, state: str) -> None:
        self.passing |= {id(look) for look in self._looks.pop(vmm, ())}
        (self._going.add if state == "destroyed" else self._going.discard)(vmm)
        if vmm in self._last_of and state not in _PASSING:
            until = {"vmm": vmm, "state": "gone" if state == "destroyed" else state}
            self._last_of[vmm]["wait"] = {"until": until, "within_s": WITHIN_S}

    def _asked(self, where: str, asked: Asked) -> None:
        if asked.body_missing or "${" in str((asked.body, asked.body_text)):
            what = "stored bytes" if asked.body_missing else "a '${', which means something to a player"
            self.left_out.append(f"{where}: {asked.method} {asked.target}: its body is {what}")
            return
        row = _exchange(asked)
        self.rows.append((asked.version, row))
        for vmm in [part for part in row["path"].split("/") if len(part) == UUID_CHARS]:
            if asked.op != "vmm_get_state":
                self._last_of[vmm] = row
                continue
            self._looks.setdefault(vmm, []).append(row)
            if vmm in self._going and asked.status == 200:  # until Nexus has acknowledged its end
                self.passing.add(id(row))


def tape_of(lines: Iterable[tuple[str, Line]], name: str, sled_id: str | None = None) -> Tape:
    """Of one sled; of the first that was asked for anything, if none is named. Raises `NoTape`."""
    made = _Making(sled_id)
    for where, line in lines:
        made.line(where, line)
    if made.header is None or made.sled_id is None or not made.rows:
        among = f"; there are requests to {', '.join(made.sleds)}" if made.sleds else ""
        raise NoTape(f"no request to {sled_id or 'a sled'} is recorded{among}")
    others = [each for each in made.sleds if each != made.sled_id]
    if others:
        made.left_out.append(f"requests to other sleds, which have tapes of their own: {', '.join(others)}")
    if made.passing:
        made.left_out.append(f"looks at a VMM that was on its way: {len(made.passing)}")
    usual = Counter(version for version, _ in made.rows if version is not None).most_common(1)
    head = {
        "tape": name,
        "api_version": usual[0][0] if usual else "1.0.0",
        "purpose": f"recorded from {made.header.began} on by sim-sled {made.header.version}",
        "sled": _sled(made.header, made.sled_id),
        "needs": [],
    }
    for version, row in made.rows:
        if version != head["api_version"]:
            row["headers"] = {"api-version": version}
    return Tape([head, *(row for _, row in made.rows if id(row) not in made.passing)], made.left_out)


def _exchange(asked: Asked) -> dict[str, Any]:
    path, _, query = asked.target.partition("?")
    row: dict[str, Any] = {"op": asked.op or None, "method": asked.method, "path": path}
    if query:
        row["query"] = dict(parse_qsl(query, keep_blank_values=True))
    for field in ("body_text", "body_base64"):
        if getattr(asked, field) is not None:
            row[field] = getattr(asked, field)
            row["invalid"] = "body-schema"
    if asked.has_json:
        row["body"] = asked.body
    row["expect"] = {"status": asked.status}
    return row


def _reported(out: Iterable[Any]) -> Iterable[tuple[str, str]]:
    """VMMs and the states that Nexus was told, of a turn's effects."""
    for effect in out:
        told = effect.get("PutToNexus") or effect.get("Send") if isinstance(effect, dict) else None
        if isinstance(told, dict) and isinstance(told.get("body"), dict):
            yield str(told.get("propolis_id")), str(told["body"].get("vmm_state", {}).get("state"))


def _sled(header: Header, sled_id: str) -> dict[str, Any]:
    """What a tape says of its sled; only its id, if it joined later."""
    try:
        configs = [each for each in value_of(header.sleds) if isinstance(each, SledConfig)]
    except (BadForm, TypeError):
        configs = []
    for config in configs:
        if str(config.sled_id) == sled_id:
            hardware = config.hardware
            return {
                "id": sled_id,
                "cpu_family": hardware.cpu_family.value,
                "hardware_threads": hardware.hardware_threads,
                "physical_ram": hardware.physical_ram,
                "reservoir_size": hardware.reservoir_size,
                "zpools": [
                    {"id": str(pool.id), "total_size": pool.total_size, "disk": _disk(pool.disk)}
                    for pool in hardware.pools_of(config.sled_id)
                ],
            }
    return {"id": sled_id}


def _disk(disk: PhysicalDisk) -> dict[str, str]:
    return {"id": str(disk.id), "vendor": disk.vendor, "model": disk.model, "serial": disk.serial}
