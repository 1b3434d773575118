"""What must hold of every answer and every notification, whatever a tape says (README of the tapes)."""

from typing import Any
from uuid import UUID

import attrs
from conformance.raw_http import RawAnswer
from support.nexus.fake_nexus import Notification

STATES = frozenset({"starting", "running", "stopping", "stopped", "rebooting", "migrating", "failed", "destroyed"})
ENDS = frozenset({"failed", "destroyed"})
_MIGRATION_ENDS = frozenset({"failed", "completed"})


@attrs.define(eq=False)
class SledWatch:
    """Feed it everything in order; it collects `faults` until they are taken."""

    faults: list[str] = attrs.field(factory=list)
    _request_ids: set[str] = attrs.field(factory=set)
    _told: dict[tuple[str, str, int], Any] = attrs.field(factory=dict)  # (vmm, part, gen) -> contents, any channel
    _newest: dict[tuple[str, str, str], tuple[int, str]] = attrs.field(factory=dict)  # (channel, vmm, part)
    _deleted: set[str] = attrs.field(factory=set)  # by DELETE, and not registered again
    _made: dict[str, int] = attrs.field(factory=dict)  # vmm -> generation that only the DELETE made

    def take(self) -> list[str]:
        faults, self.faults = self.faults, []
        return faults

    def answer(self, method: str, answer: RawAnswer, value: Any) -> None:
        """The header and the error body of any answer."""
        request_id = answer.headers.get("x-request-id", "")
        try:
            good = str(UUID(request_id)) == request_id
        except ValueError:
            good = False
        if not good:
            self.faults.append(f"x-request-id {request_id!r} is no UUID")
        elif request_id in self._request_ids:
            self.faults.append(f"x-request-id {request_id} came twice")
        self._request_ids.add(request_id)
        # a bad range of a file is refused without a word (SR 4.1)
        if answer.status >= 400 and method != "HEAD" and answer.body:
            told = value.get("request_id") if isinstance(value, dict) else None
            if told != request_id:
                self.faults.append(f"request_id {told!r} in the body, x-request-id {request_id!r}")

    def runtime(self, vmm: str, value: Any) -> None:
        """A `SledVmmState` in an answer, bare or as `updated_runtime`."""
        state = value.get("updated_runtime", value) if isinstance(value, dict) else None
        if isinstance(state, dict) and "vmm_state" in state:
            self._look("answer", vmm, state)

    def notification(self, told: Notification) -> None:
        if told.gen >= self._made.get(told.vmm, told.gen + 1):
            self.faults.append(f"{told.vmm} was published in generation {told.gen} because of its DELETE")
        self._look("notification", told.vmm, told.body)

    def removed(self, vmm: str, value: Any) -> None:
        """A DELETE was answered."""
        state = value.get("updated_runtime") if isinstance(value, dict) else None
        if state is not None and (vmm, "vmm_state", state["vmm_state"]["gen"]) not in self._told:
            self._made[vmm] = state["vmm_state"]["gen"]
        self.runtime(vmm, value)
        self._deleted.add(vmm)
        # a VMM of that id that comes later is another one
        for known in [key for key in self._newest if key[1] == vmm]:
            del self._newest[known]
        for known in [key for key in self._told if key[0] == vmm]:
            del self._told[known]

    def registered(self, vmm: str) -> None:
        """A register was accepted: whatever a DELETE did before is over."""
        self._made.pop(vmm, None)
        self._deleted.discard(vmm)

    def _look(self, channel: str, vmm: str, state: dict[str, Any]) -> None:
        parts = {"vmm_state": state["vmm_state"]}
        for side in ("migration_in", "migration_out"):
            if state.get(side) is not None:
                parts[f"{side} {state[side]['migration_id']}"] = state[side]
        name = state["vmm_state"]["state"]
        if name not in STATES:
            self.faults.append(f"{vmm} has the state {name!r} ({channel})")
        for part, contents in parts.items():
            self._look_at_part(channel, vmm, part, contents)

    def _look_at_part(self, channel: str, vmm: str, part: str, contents: dict[str, Any]) -> None:
        gen = contents["gen"]
        before, old_state = self._newest.get((channel, vmm, part), (-1, ""))
        if gen < before:
            self.faults.append(f"generation of {vmm} {part} fell from {before} to {gen} ({channel})")
        ends = ENDS if part == "vmm_state" else _MIGRATION_ENDS
        if old_state in ends and contents["state"] != old_state:
            self.faults.append(f"{vmm} {part} went on from {old_state} to {contents['state']} ({channel})")
        self._newest[channel, vmm, part] = (gen, contents["state"])
        known = self._told.setdefault((vmm, part, gen), contents)
        if known != contents:
            self.faults.append(f"{vmm} {part}: generation {gen} was {known} and is {contents} ({channel})")

    def forgotten(self, vmm: str, last: Notification | None) -> None:
        """GET says 404 of a VMM that was not removed by DELETE: its end must have been acknowledged before."""
        known = any(key[1] == vmm for key in self._newest)
        # what was on its way to Nexus when the DELETE came may be its last word
        if known and vmm not in self._deleted and (last is None or last.state not in ENDS):
            self.faults.append(f"{vmm} was forgotten; the last that Nexus acknowledged is {last}")
