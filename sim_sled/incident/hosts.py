"""What befell a whole sled, or Nexus, as rules: agents that began anew, boots, power, expunged sleds (LG 5 #5, 6).

Read before: incident/sheet.py, incident/life.py. Read next: incident/departures.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from sim_sled.incident.facts import Agent, NexusStep, Op, Verdict
from sim_sled.incident.life import (
    CLIENT_US,
    ONE_CAUSE_US,
    SECOND_US,
    SLOW_US,
    edges,
    is_target,
    vanished_with_its_sled,
)
from sim_sled.incident.sheet import Sheet, at, duration
from sim_sled.incident.timeline import Incident, Instance, Vmm

QUIET_US: Final = 75 * SECOND_US
"""Two checks of its VMs have left no line: silent for longer, an agent was away, or its lines are not here."""
RESTART_US: Final = 5 * SECOND_US
"""SMF starts an agent again within seconds."""
_UNNOTICED_US: Final = 2 * CLIENT_US
"""So long before Nexus notices it a sled may have lost its power: a period of checks and one that times out."""
_AFTER_US: Final = 80_000
"""So much later than in the logs a replay may be with what comes first."""


_RUNS_FIRST: Final = "a little later, as a VM that ran by then may start more slowly here"
_SMF_US: Final = SECOND_US
"""SMF's times have no fraction."""


def _end_of(steps: Sequence[Agent | NexusStep], lived_us: int | None, before_us: int) -> Agent | NexusStep | None:
    """The end of a process, as SMF or it tells: the first one after its last word, before another one starts."""
    since = before_us - QUIET_US if lived_us is None else lived_us - _SMF_US
    told = (each for each in steps if each.step in ("died", "ends") and since <= each.at_us <= before_us)
    return next(told, None)


@attrs.define
class Hosts:
    """Writes the rules of sleds and of Nexus on the sheet of an incident."""

    sheet: Sheet

    @property
    def incident(self) -> Incident:
        return self.sheet.incident

    def all(self) -> None:
        """What no VM has to tell."""
        self._agents()
        self._nexus_restarts()

    def of(self, instance: Instance, vmm: Vmm) -> None:
        """What one VM tells of its sled: power that is gone, an operator who has expunged it."""
        self._vanished(instance, vmm)
        for verdict in vmm.verdicts:
            if verdict.why == "sled off":
                silent = [v for v in vmm.verdicts if v.why == "unreachable" and v.at_us < verdict.at_us]
                noticed_us = silent[0].at_us if silent else verdict.at_us
                doubt = "Nexus noticed then; when the power went is not known"
                last_us = self.incident.last_us.get(vmm.sled)
                if last_us is not None and 0 < noticed_us - last_us < _UNNOTICED_US:
                    noticed_us = last_us + SECOND_US
                    doubt = "its log ends just before, which its power is taken for"
                why = [at(each.where, "unreachable") for each in silent[:1]] + [at(verdict.where, "not in A0")]
                self._no_power(instance, vmm, noticed_us, why, doubt)
            elif verdict.why == "expunged":
                self._expunged(vmm, verdict)

    def _agents(self) -> None:
        for host in self.incident.sleds:
            steps = [each for each in self.incident.agents if each.host == host]
            begun: list[int] = []
            pids: set[int] = set()
            for step in steps:
                again = step.pid != 0 and step.pid in pids  # several lines tell one start
                if step.step != "starts" or again or (begun and step.at_us - begun[-1] < ONE_CAUSE_US):
                    continue
                begun.append(step.at_us)
                pids.add(step.pid)
                listens = next((s.at_us for s in steps if s.step == "listens" and s.at_us >= step.at_us), None)
                before = self._last_word(host, step.at_us)
                why = [at(step.where, "the agent starts")]
                doubt = ["down from its last word before to its first answer after"]
                end = _end_of(steps, before, step.at_us)
                if end is not None:
                    before, doubt = max(end.at_us, before or 0), []
                    why.insert(0, at(end.where, "its process ends"))
                died = end is not None and end.step == "died"
                if before is None:
                    if not self._lost(host, step.at_us):
                        continue  # the log begins with it: nothing was lost that anybody knows of
                    before, doubt = step.at_us, ["how long it was down before its log begins is not known"]
                silent_us = self._silent(host, before, step.at_us)
                proof = self._boot_of(host, steps, step)
                boot = proof is not None or (silent_us > CLIENT_US and not died)
                if proof is not None:
                    why.append(proof)
                if not boot and step.at_us - before > QUIET_US:
                    # nor was it asked how its VMs are: such a log is not the whole, and SMF starts an agent at once
                    before, doubt = step.at_us - RESTART_US, ["when the old one ended no line says: just before"]
                before = min(before + _AFTER_US, step.at_us)  # a replay's last word before may be that much later
                down = max((listens or step.at_us) - before, SECOND_US)
                runs_us = self._run_by(host, before)
                if runs_us > before:
                    before = runs_us
                    doubt.append(_RUNS_FIRST)
                name = f"{self.sheet.draft.hosts[host]}-{'reboots' if boot else 'restarts'}" + (
                    f"-{len(begun)}" if len(begun) > 1 else ""
                )
                if boot and proof is None:
                    doubt.append(f"taken for a boot: Nexus could not reach it for {duration(silent_us)}")
                action = (
                    f"reboot_sled: {{down: {duration(down)}}}"
                    if boot
                    else f"restart_agent: {{down: {duration(down)}, keep_vmms: 0%}}"
                )
                if not boot and not died:
                    doubt.append("taken for a restart of the agent: no line shows a boot of the host")
                self.sheet.rule(
                    name,
                    f"{{sled: {self.sheet.draft.hosts[host]}}}",
                    self.sheet.when(before),
                    f"{{{action}}}",
                    why=why,
                    doubt=doubt,
                )

    def _boot_of(self, host: str, steps: list[Agent], start: Agent) -> str | None:
        """What proves that a host booted when its agent started, as it is quoted."""
        if host in self.incident.booted_1986:
            return at(start.where, "in 1986, by its clock: its host has booted and did not know the time")
        for step in steps:
            if step.step == "boots" and abs(step.at_us - start.at_us) < 600 * SECOND_US:
                return at(step.where, "the reservoir is set up, as after a boot")
            if step.step == "enabled" and abs(step.at_us - start.at_us) < ONE_CAUSE_US:
                return at(step.where, "SMF has enabled it, as after a boot")
        return None

    def _run_by(self, host: str, at_us: int) -> int:
        """When all VMs of a sled that ran at a time run in a replay: one latency stands for all (derive.py)."""
        longest = self.sheet.longest.get("starting -> running", 0)
        return max(
            (
                began + longest + _AFTER_US
                for vmm in self.incident.vmms.values()
                if vmm.sled == host
                for edge, began, took, _ in edges(vmm)
                if edge == "starting -> running" and began + took < at_us and took <= SLOW_US[edge]
            ),
            default=at_us,
        )

    def _silent(self, host: str, from_us: int, to_us: int) -> int:
        """For how long Nexus's checks did not reach the agent of a sled, as far as they tell (LG 6)."""
        times = [
            verdict.at_us
            for vmm in self.incident.vmms.values()
            if vmm.sled == host
            for verdict in vmm.verdicts
            if verdict.why == "unreachable" and from_us < verdict.at_us < to_us
        ]
        return to_us - min(times, default=to_us)

    def _lost(self, host: str, since_us: int) -> bool:
        """Whether the new agent is asked for a VMM that it knows nothing of, and was never given."""
        return any(
            asked.host == host and asked.status == 404 and asked.op is Op.GET_STATE and asked.at_us >= since_us
            for vmm in self.incident.vmms.values()
            if vmm.described is None and vmm.registered is None
            for asked in vmm.asked
        )

    def _last_word(self, host: str, before_us: int) -> int | None:
        best: int | None = None
        for vmm in self.incident.vmms.values():
            for fact in (*vmm.asked, *vmm.observed, *vmm.published):
                if fact.host == host and fact.at_us < before_us and (best is None or fact.at_us > best):
                    best = fact.at_us
        lived = [
            a.at_us for a in self.incident.agents if a.host == host and a.step == "lives" and a.at_us < before_us
        ]
        return max([*lived, *([] if best is None else [best])], default=None)

    def _nexus_restarts(self) -> None:
        """One Nexus of several that begins anew is told, not played: the others go on, and a replay has one."""
        starts = [each for each in self.incident.nexus_steps if each.step == "starts"]
        several = max(self.incident.nexuses, len(self.incident.peers)) > 1
        for i, start in enumerate(starts):
            if start.at_us - self.incident.begin_us < SECOND_US:
                continue
            why, from_us = [at(start.where, "Nexus starts")], start.at_us
            doubt = ["how long it was away is not known: 5 s are invented"]
            before = [each for each in self.incident.nexus_steps if each.host == start.host and each is not start]
            words = [each.at_us for each in before if each.step == "lives" and each.at_us <= start.at_us]
            end = _end_of(before, max(words, default=None), start.at_us)
            if end is not None or words:
                from_us = max([*words, *([] if end is None else [end.at_us])])
                doubt = [] if end is not None else ["away from its last word before to its first after"]
            if end is not None:
                why.insert(0, at(end.where, "its process ends"))
            down = max(start.at_us - from_us, SECOND_US) if from_us < start.at_us else RESTART_US
            if several:
                self.sheet.draft.notes.append(
                    f"{why[0].partition('  ')[0]}: {start.host}, one of several Nexuses, was away for "
                    f"{duration(down)}; the others went on. A replay has one Nexus, so that plays nothing."
                )
                continue
            name, when = f"nexus-restarts-{i + 1}", self.sheet.when(from_us)
            self.sheet.rule(name, "", when, f"{{restart_nexus: {{down: {duration(down)}}}}}", why=why, doubt=doubt)

    def _vanished(self, instance: Instance, vmm: Vmm) -> None:
        """A VMM whose sled falls silent for good, while another of its instance is registered later: it was lost."""
        following = next((each for each in instance.vmms if each.first_us() > vmm.first_us()), None)
        told = {"sled off", "expunged"} & {verdict.why for verdict in vmm.verdicts}
        if self.incident.last_agent_restart(vmm.sled, 2**62) is not None:
            return  # what it ran is lost with that
        if following is None or following.described is None or is_target(following) or told:
            return
        if vanished_with_its_sled(self.incident, vmm, following.first_us()):
            self._no_power(
                instance,
                vmm,
                self.incident.last_us[vmm.sled] + SECOND_US,
                [at(following.described.where, f"registered anew, and {vmm.sled} says nothing any more")],
                "that its sled lost power is inferred: its log ends, or the rest of it is not here",
            )

    def _no_power(self, instance: Instance, vmm: Vmm, at_us: int, why: list[str], doubt: str) -> None:
        sled = self.sheet.draft.hosts.get(vmm.sled)
        if sled is None or not self.sheet.once("power", sled):
            return
        doubts = [doubt]
        if self._run_by(vmm.sled, at_us) > at_us:
            at_us = self._run_by(vmm.sled, at_us)
            doubts.append(_RUNS_FIRST)
        do = "{power_off_sled: {lasts: forever}}"
        if any(each.sled != vmm.sled and each.first_us() > at_us for each in instance.vmms):
            do = f"[{do}, {{expunge_sled: true}}]"
            doubts.append("expunged as well: the replay's Nexus would place what was on it there again")
        for_, when = f"{{sled: {sled}}}", self.sheet.when(at_us)
        self.sheet.rule(f"{sled}-has-no-power", for_, when, do, why=why, doubt=doubts)

    def _expunged(self, vmm: Vmm, verdict: Verdict) -> None:
        sled = self.sheet.draft.hosts.get(vmm.sled)
        if sled is not None and self.sheet.once("expunged", sled):
            self.sheet.rule(
                f"{sled}-is-expunged",
                f"{{sled: {sled}}}",
                self.sheet.when(verdict.at_us),
                "{expunge_sled: true}",
                why=[at(verdict.where, "Expunged")],
                doubt=["Nexus noticed then; when its operator did it is not known"],
            )
